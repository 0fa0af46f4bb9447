//! The handle of an open session.

use std::{sync::Arc, time::Duration};

use mqtt_proto::{Utf8String, Version, packet::ConnAck, session::Limits};
use mqtt_transport::{ConnInfo, Endpoint};
use tokio::sync::watch;

use crate::{
    error::{ConnectionLost, NotQuiet, PublishError, SubscribeError},
    outbox::OutboxStatus,
    publish::{Admitted, Publish, Published, Publisher},
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

    /// Publishes a message and resolves once it was taken: [`Publisher::admit`].
    pub async fn admit(&self, publish: Publish) -> Result<Admitted, PublishError> {
        self.publisher().admit(publish).await
    }

    /// Subscribes: [`Subscriber::subscribe`].
    pub async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription, SubscribeError> {
        self.subscriber().subscribe(subscribe).await
    }

    /// Where the session belongs: what it was opened with.
    pub fn endpoint(&self) -> &Endpoint {
        &self.handle.shared.endpoint
    }

    /// Where its connection is, or the last one was: elsewhere than where it belongs if a
    /// [plan](crate::Plan::at) said so or the server named another.
    pub fn connected_to(&self) -> Endpoint {
        self.facts().endpoint.clone()
    }

    /// Facts of its connection, or of the last one while there is none.
    pub fn conn_info(&self) -> ConnInfo {
        self.facts().conn.clone()
    }

    /// What the server said when it last accepted.
    pub fn connack(&self) -> ConnAck {
        self.facts().connack.clone()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// What its server takes, from what it said when it last accepted. A request for more is refused with
    /// a [`UsageError`](mqtt_proto::UsageError) before anything is sent. A 3.1.1 server announces no limits.
    pub fn limits(&self) -> Limits {
        Limits::of(&self.facts().connack)
    }

    /// The client identifier, which is the session's name: the configured one, or the one that a 5.0
    /// server assigned to a client without `[MQTT5-3.2.2-16]`. Empty if it has none, as in 3.1.1.
    pub fn client_id(&self) -> Utf8String {
        let state = self.handle.shared.lock();
        state.core.client_id().cloned().unwrap_or_default()
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

    /// How often its server did not answer a publish, subscribe or unsubscribe within the configured
    /// [`ack_timeout`](crate::SessionConfig::ack_timeout), on all connections so far. While one stays
    /// without an answer it counts again each time that has passed.
    pub fn stalls(&self) -> u32 {
        self.handle.shared.lock().stalls
    }

    /// What waits in its outbox, and what was given up there.
    pub fn outbox(&self) -> OutboxStatus {
        self.handle.shared.lock().outbox_status()
    }

    /// How many messages of the present connection were not processed: their [`Ack`](crate::Ack)s were
    /// dropped, or the [`ManualSubscription`](crate::ManualSubscription) that had them. Nothing that came
    /// after the first of them is acknowledged on this connection. Looks at all messages that wait for
    /// their acknowledgement, of which there are at most
    /// [`receive_maximum`](crate::SessionConfig::receive_maximum).
    pub fn unprocessed(&self) -> usize {
        self.handle.shared.lock().core.given_back()
    }

    /// Whether it is over: its connection has ended, and there will be no other. Takes no lock.
    pub fn is_closed(&self) -> bool {
        self.handle.shared.has_ended()
    }

    /// The same, a moment ago at most. Takes no lock.
    pub(crate) fn load(&self) -> usize {
        self.handle.shared.in_flight()
    }

    /// Whether both are handles on one session.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.handle, &other.handle)
    }

    /// Whether nothing is left of what was asked so far: no subscription, and nothing that either side
    /// has not acknowledged.
    pub(crate) fn is_clean(&self) -> bool {
        let state = self.handle.shared.lock();
        state.subscriptions.is_empty()
            && state.open_publishes() == 0
            && state.core.unacknowledged() == 0
    }

    /// Whether it is over though nobody on this side wanted it to be.
    pub(crate) fn has_failed(&self) -> bool {
        self.handle.shared.has_failed()
    }

    /// Whether its next holder can work with it: it has not ended, was not told to leave, and its
    /// credentials are not about to expire. Takes no lock.
    pub(crate) fn is_usable(&self) -> bool {
        !self.handle.shared.refuses() && !self.handle.shared.is_retired()
    }

    /// Waits for the session to be over, and says why it is.
    pub async fn closed(&self) -> Arc<ConnectionLost> {
        self.handle.shared.closed().await
    }

    /// Ends its connection, or the attempt to open one, at once and without DISCONNECT: what is not
    /// written yet is not written, and the server publishes the will `[MQTT5-3.1.2-8]`
    /// `[MQTT3-3.1.2-8]`.
    ///
    /// What is next the [policy](crate::SessionConnector::with_reconnect_policy) decides, asked
    /// with [`LostCause::Cut`](crate::LostCause::Cut): by default the session connects again after
    /// a pause, and with [`Plan::Hold`](crate::Plan::Hold) when [`reconnect`](Self::reconnect) is
    /// called. A session that does not reconnect ends. Does nothing while the session is held, or
    /// over.
    pub fn cut(&self) {
        self.handle.shared.cut();
    }

    /// Makes the next attempt to connect now, if the session waits for it or is
    /// [held](crate::Plan::Hold). Does nothing at other times.
    pub fn reconnect(&self) {
        self.handle.shared.reconnect();
    }

    /// Leaves in order, within the configured `quiesce`: [`drain`](Self::drain).
    pub async fn disconnect(&self) -> Result<(), NotQuiet> {
        let quiesce = self.handle.shared.lock().options.quiesce;
        self.drain(quiesce).await
    }

    /// Leaves in order: takes no new requests, sends what it has taken and waits for the
    /// acknowledgements, up to `patience`, then sends DISCONNECT and closes. If it has no connection
    /// and something to send, it waits for one.
    ///
    /// The connection is closed when this returns, with or without an error; if it broke meanwhile,
    /// those who waited for outcomes and [`closed`](Self::closed) say so. A server that does not
    /// read holds that up until the configured `write_timeout` ends the connection. If the future is
    /// dropped the session takes no new requests and leaves when its last handle is dropped.
    ///
    /// # Errors
    ///
    /// What did not make it.
    pub async fn drain(&self, patience: Duration) -> Result<(), NotQuiet> {
        self.handle.shared.drain(patience).await
    }
}
