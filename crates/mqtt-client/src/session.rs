//! The handle of an open session.

use std::{sync::Arc, task::Waker};

use mqtt_proto::{Version, packet::ConnAck};
use mqtt_transport::{ConnInfo, Endpoint};
use tokio::sync::watch;

use crate::{
    error::{ConnectionLost, NotQuiet, PublishError, SubscribeError},
    publish::{Publish, Published, Publisher},
    reconnect::SessionState,
    shared::{Facts, Handle, Shared},
    subscribe::{Subscribe, Subscriber},
    subscription::Subscription,
};

/// An open session with a server. Clones share it.
///
/// A task of the runtime drives it. It leaves in order when the last clone, publisher, subscriber
/// and subscription is dropped. When its connection ends it opens another one, unless it was told not
/// to or that cannot help; then it is over, every request is told so, and [`closed`](Self::closed)
/// says why.
#[derive(Clone, Debug)]
pub struct Session {
    handle: Arc<Handle>,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: Arc::new(Handle { shared }),
        }
    }

    /// A service that publishes.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.handle.clone())
    }

    /// A service that subscribes.
    pub fn subscriber(&self) -> Subscriber {
        Subscriber::new(self.handle.clone())
    }

    /// Publishes a message: [`Publisher::publish`].
    pub async fn publish(&self, publish: Publish) -> Result<Published, PublishError> {
        self.publisher().publish(publish).await
    }

    /// Subscribes: [`Subscriber::subscribe`].
    pub async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription, SubscribeError> {
        self.subscriber().subscribe(subscribe).await
    }

    /// Where the session was opened.
    pub fn endpoint(&self) -> &Endpoint {
        &self.handle.shared.endpoint
    }

    /// Facts of its connection, or of the last one while there is none.
    pub fn conn_info(&self) -> ConnInfo {
        self.facts().conn.clone()
    }

    /// What the server said when it last accepted.
    pub fn connack(&self) -> ConnAck {
        self.facts().connack.clone()
    }

    fn facts(&self) -> Arc<Facts> {
        let facts = self.handle.shared.lock().facts.clone();
        facts.expect("a session is there once it was connected")
    }

    /// How it stands with its server now.
    pub fn state(&self) -> SessionState {
        self.handle.shared.lock().standing()
    }

    /// How it stands with its server, as it changes. Changes that follow each other closely may be
    /// seen as one.
    pub fn watch_state(&self) -> watch::Receiver<SessionState> {
        self.handle.shared.watch()
    }

    /// The version it speaks.
    pub fn version(&self) -> Version {
        self.handle.shared.lock().core.version()
    }

    /// How many QoS 1 and 2 publishes the server has not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.handle.shared.lock().core.in_flight()
    }

    /// Whether it is over: its connection has ended, and there will be no other. Takes no lock.
    pub fn is_closed(&self) -> bool {
        self.handle.shared.has_ended()
    }

    /// The same, a moment ago at most. Takes no lock.
    pub(crate) fn load(&self) -> usize {
        self.handle.shared.in_flight()
    }

    /// Whether nothing is left of what was asked so far: no subscription, and no publish that the
    /// server has not acknowledged.
    pub(crate) fn is_clean(&self) -> bool {
        let state = self.handle.shared.lock();
        state.subscriptions.is_empty() && state.core.in_flight() == 0
    }

    /// Whether it is over though nobody on this side wanted it to be.
    pub(crate) fn has_failed(&self) -> bool {
        self.handle.shared.has_failed()
    }

    /// Whether it takes no more requests: it has ended, or was told to leave. Takes no lock.
    pub(crate) fn refuses(&self) -> bool {
        self.handle.shared.refuses()
    }

    /// Waits for the session to be over, and says why it is.
    pub async fn closed(&self) -> Arc<ConnectionLost> {
        let shared = &self.handle.shared;
        loop {
            let changed = shared.changed.notified();
            if let Some(end) = &shared.lock().end {
                return end.clone();
            }
            changed.await;
        }
    }

    /// Leaves in order: takes no new requests, waits up to the configured `quiesce` for what is in
    /// flight, sends DISCONNECT and closes.
    ///
    /// The connection is closed when this returns, with or without an error; if it broke meanwhile,
    /// those who waited for outcomes and [`closed`](Self::closed) say so. A server that does not
    /// read holds that up until the configured `write_timeout` ends the connection. If the future is
    /// dropped the session takes no new requests and leaves when its last handle is dropped.
    pub async fn disconnect(&self) -> Result<(), NotQuiet> {
        let shared = &self.handle.shared;
        let quiesce = shared.quiesce;
        shared.leave();
        // What is left after that, the count below says.
        let _ = tokio::time::timeout(quiesce, self.quiet()).await;
        let in_flight = {
            let mut state = shared.lock();
            let in_flight = state.core.in_flight();
            state.lend_buffer();
            state.disconnect();
            let driver = state.driver.take();
            drop(state);
            driver.into_iter().for_each(Waker::wake);
            in_flight
        };
        self.closed().await;
        if in_flight == 0 {
            Ok(())
        } else {
            Err(NotQuiet { in_flight, quiesce })
        }
    }

    /// Waits until nothing is in flight or the connection has ended.
    async fn quiet(&self) {
        let shared = &self.handle.shared;
        loop {
            let changed = shared.changed.notified();
            {
                let state = shared.lock();
                if state.end.is_some() || state.core.in_flight() == 0 {
                    return;
                }
            }
            changed.await;
        }
    }
}
