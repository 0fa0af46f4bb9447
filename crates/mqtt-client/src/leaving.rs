//! Leaving in order: no new requests, what was taken goes out, DISCONNECT.
//!
//! ```text
//! open -- leave --> closing -- quiet, or no more time --> departing -- DISCONNECT is written --> ended
//! ```
//!
//! While it is closing a session that loses its connection opens another one, if it has publishes to
//! send; once it departs it does not.

use std::{
    sync::{Arc, atomic::Ordering},
    task::Waker,
    time::Duration,
};

use crate::{
    error::{ConnectionLost, NotQuiet},
    shared::{Handle, Shared, State},
};

impl Shared {
    /// Takes no more requests: those that wait to be admitted are told.
    pub(crate) fn leave(&self) {
        let mut wakers = Vec::new();
        self.lock().close_intake(&mut wakers);
        self.leaving.store(true, Ordering::Release);
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_departing(&self) -> bool {
        self.lock().departing
    }

    /// Waits until the session is to have no connection any more.
    pub(crate) async fn departed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_departing() {
                return;
            }
            changed.await;
        }
    }

    /// Says goodbye, now.
    pub(crate) fn depart(&self) {
        let driver = {
            let mut state = self.lock();
            state.closing = true;
            state.departing = true;
            state.lend_buffer();
            state.disconnect();
            state.driver.take()
        };
        self.leaving.store(true, Ordering::Release);
        driver.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
    }

    /// Leaves: waits so long for what was taken. Returns when the connection is closed.
    pub(crate) async fn drain(&self, patience: Duration) -> Result<(), NotQuiet> {
        self.leave();
        // What is left after that is looked at below.
        let _ = tokio::time::timeout(patience, self.quiet()).await;
        let left = self.lock().left(patience);
        self.depart();
        self.closed().await;
        left.map_or(Ok(()), Err)
    }

    /// Waits until no publish is open or the session has ended.
    async fn quiet(&self) {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if state.end.is_some() || state.open_publishes() == 0 {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Waits for the session to be over, and says why it is.
    pub(crate) async fn closed(&self) -> Arc<ConnectionLost> {
        loop {
            let changed = self.changed.notified();
            if let Some(end) = &self.lock().end {
                return end.clone();
            }
            changed.await;
        }
    }
}

impl State {
    /// Whether nothing is waited for any more before the session leaves, or its connection is renewed.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_settled = self.core.is_paused() && self.core.in_flight() == 0;
        is_settled || (self.closing && self.open_publishes() == 0)
    }

    /// What does not make it, if the session goes now.
    fn left(&self, quiesce: Duration) -> Option<NotQuiet> {
        let outbox = self.outbox.as_deref();
        let unsent: Vec<_> = outbox.map(|outbox| outbox.messages()).unwrap_or_default();
        let in_flight = self.core.in_flight();
        (in_flight > 0 || !unsent.is_empty()).then(|| NotQuiet {
            in_flight,
            unacknowledged: self.core.unacknowledged_publishes(),
            unsent,
            quiesce,
        })
    }
}

impl Drop for Handle {
    /// With publishes open the session leaves as if it were told to, else at once.
    fn drop(&mut self) {
        let (is_open, quiesce) = {
            let state = self.shared.lock();
            let is_open = state.end.is_none() && !state.departing && state.open_publishes() > 0;
            (is_open, state.options.quiesce)
        };
        if is_open && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let leaving = Leaving(self.shared.clone());
            runtime.spawn(async move {
                let Leaving(shared) = &leaving;
                if let Err(left) = shared.drain(quiesce).await {
                    tracing::warn!(endpoint = %shared.endpoint, %left, "left with open publishes");
                }
            });
        } else {
            self.shared.depart();
        }
    }
}

/// A session that nobody has a handle on any more. It says goodbye at the latest when its runtime drops
/// this, which may be another one than that of its connection.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.depart();
    }
}
