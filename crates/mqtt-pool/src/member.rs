//! A connection with what the pool knows of it.
//!
//! Its one rule: a connection that the pool lets go of, by whatever path, is closed through
//! [`Pooled::close`] in a task of its own. `Drop` holds it, because deadpool drops members in
//! several places without asking.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

use crate::{
    Limit, Pooled,
    slots::Slot,
    state::{Counted, State},
};

#[derive(Debug)]
pub(crate) struct Member<T: Pooled> {
    /// There until it is detached or closed; before `slot`, so that it is dropped before.
    connection: Option<T>,
    slot: Option<Slot>,
    /// Drawn once, at birth. `None`: never.
    expires_at: Option<Instant>,
    /// Set while idle.
    parked: Option<Parked>,
    state: Arc<State>,
}

/// Since when a member is idle, counted as such.
#[derive(Debug)]
struct Parked {
    returned_at: Instant,
    _idle: Counted,
}

impl<T: Pooled> Member<T> {
    pub(crate) fn new(connection: T, slot: Slot, state: Arc<State>) -> Self {
        let config = &state.config;
        let expires_at = match config.max_lifetime {
            Limit::Never => None,
            Limit::After(lifetime) => {
                Instant::now().checked_add(draw_lifetime(lifetime, config.lifetime_jitter))
            }
        };
        Self {
            connection: Some(connection),
            slot: Some(slot),
            expires_at,
            parked: None,
            state,
        }
    }

    pub(crate) fn connection(&self) -> Option<&T> {
        self.connection.as_ref()
    }

    pub(crate) fn connection_mut(&mut self) -> Option<&mut T> {
        self.connection.as_mut()
    }

    /// Takes the connection out; the slot is free at once.
    pub(crate) fn into_connection(mut self) -> Option<T> {
        self.connection.take()
    }

    /// Whether it may be handed out, or stay idle.
    pub(crate) fn is_fit(&self, now: Instant) -> bool {
        !self.has_expired(now) && !self.has_idled_out(now) && self.is_usable()
    }

    /// Marks it idle, if it may be kept. `false`: it has to go.
    pub(crate) fn park(&mut self) -> bool {
        let now = Instant::now();
        let state = &self.state;
        if self.has_expired(now) || !self.is_usable() {
            return false;
        }
        // A member that somebody waits for will not stay idle.
        let room = state.config.max_idle.saturating_add(state.queued.value());
        self.parked = state.idle.count_below(room).map(|idle| Parked {
            returned_at: now,
            _idle: idle,
        });
        self.parked.is_some()
    }

    /// The opposite of [`park`](Self::park).
    pub(crate) fn unpark(&mut self) {
        self.parked = None;
    }

    fn has_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    fn has_idled_out(&self, now: Instant) -> bool {
        match (&self.parked, self.state.config.idle_timeout) {
            (Some(parked), Limit::After(timeout)) => {
                now.saturating_duration_since(parked.returned_at) >= timeout
            }
            (None, _) | (_, Limit::Never) => false,
        }
    }

    /// A panic of the user's code is contained here, for this runs under deadpool's lock and in
    /// `Drop`, where it would take the whole pool or the process with it.
    fn is_usable(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            catch_unwind(AssertUnwindSafe(|| connection.is_usable())).unwrap_or(false)
        })
    }
}

impl<T: Pooled> Drop for Member<T> {
    fn drop(&mut self) {
        let (Some(connection), Ok(runtime)) = (self.connection.take(), Handle::try_current())
        else {
            return;
        };
        let (slot, closing) = (self.slot.take(), self.state.begin_closing());
        let close_timeout = self.state.config.close_timeout;
        runtime.spawn(async move {
            // In this order, so that whoever waits for the closing finds the slot free.
            let _closing = closing;
            let _slot = slot;
            // A connection that takes longer is dropped, which is all that is left to do.
            let _ = timeout(close_timeout, connection.close()).await;
        });
    }
}

/// At most `lifetime`, and at most the share `jitter` less.
fn draw_lifetime(lifetime: Duration, jitter: f64) -> Duration {
    let seconds = lifetime.as_secs_f64() * (1.0 - jitter * fastrand::f64());
    Duration::try_from_secs_f64(seconds).map_or(lifetime, |drawn| drawn.min(lifetime))
}
