//! Publishing: the request and the service.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use mqtt_proto::{
    Message, QoS, ReasonCode, TopicError, TopicName,
    packet::{AckProperties, Properties, PublishProperties},
};
use tower_service::Service;

use crate::{
    error::PublishError,
    publishing::{Publishing, Stage, Taking},
    shared::Handle,
};

/// A request to publish a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publish {
    /// The message.
    pub message: Message,
    pub(crate) lane: u64,
    pub(crate) max_age: Option<Duration>,
    /// Whether its future is also woken when it leaves the outbox.
    pub(crate) is_told_when_sent: bool,
}

impl Publish {
    /// At QoS 0, not retained.
    ///
    /// Parsing a topic costs a pass over its bytes: a [`TopicName`] made once can be cloned instead.
    pub fn new(
        topic: impl TryInto<TopicName, Error: Into<TopicError>>,
        payload: impl Into<Bytes>,
    ) -> Result<Self, TopicError> {
        Message::new(topic, payload).map(Self::from)
    }

    /// At this QoS.
    #[must_use]
    pub fn with_qos(mut self, qos: QoS) -> Self {
        self.message.qos = qos;
        self
    }

    /// Retained or not.
    #[must_use]
    pub fn with_retain(mut self, retain: bool) -> Self {
        self.message.retain = retain;
        self
    }

    /// With these properties; they are not sent to a 3.1.1 server.
    #[must_use]
    pub fn with_properties(mut self, properties: PublishProperties) -> Self {
        self.message.properties = properties.into();
        self
    }

    /// In this lane of the session's outbox: that of a device or a tenant, by any key of theirs.
    /// Lanes take turns, so that one with much to publish does not hold up the others; within a lane
    /// messages of the same QoS keep their order. All are in one lane if none is named.
    ///
    /// The lane is a hash of the key: two keys in 2^64 may share one.
    #[must_use]
    pub fn with_lane(mut self, key: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.lane = hasher.finish();
        self
    }

    /// To wait no longer than this to be sent, as its message expiry interval also says where it
    /// has one. It then ends as [`PublishError::Expired`].
    #[must_use]
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }
}

impl From<Message> for Publish {
    fn from(message: Message) -> Self {
        Self {
            message,
            lane: 0,
            max_age: None,
            is_told_when_sent: false,
        }
    }
}

/// What became of a message that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Published {
    /// QoS 0: it is in the outbound buffer and leaves with its next write. Nobody will say more.
    Sent,
    /// QoS 1 and 2: the server has it.
    Acknowledged {
        /// The server's code: success, or that nobody subscribes.
        reason_code: ReasonCode,
        /// 5.0 only.
        properties: Properties<AckProperties>,
    },
}

/// Publishes messages on a session. Clones are cheap and independent.
///
/// What can be sent is sent at once. What cannot, because the window of unacknowledged messages is
/// full or there is no connection, is taken into the session's outbox, which is bounded as
/// [`OutboxConfig`](crate::OutboxConfig) says, and is sent when it can be.
///
/// As a [`Service`], `poll_ready` waits until the outbox has room, and fails once the session is over.
/// It reserves nothing, so a ready clone that is never called holds nobody up; if others take the room
/// first, the future of `call` waits for it, first come, first served. Where the outbox does not
/// make publishes wait, it is always ready.
///
/// The service's future may be dropped at any time. A message that no byte was written of is then
/// withdrawn; one that was sent is completed by the session, and nobody is told.
#[derive(Debug)]
pub struct Publisher {
    handle: Arc<Handle>,
    /// Where this clone waits in `poll_ready`.
    ready: Option<usize>,
}

impl Publisher {
    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self {
            handle,
            ready: None,
        }
    }

    /// Publishes a message and resolves to what became of it.
    ///
    /// A full window does not hold up QoS 0. Messages of futures polled one after the other are sent
    /// in that order if their lane and QoS are the same.
    ///
    /// Dropping the future withdraws a message that was not sent; one that was is completed by the
    /// session.
    pub fn publish(
        &self,
        publish: Publish,
    ) -> impl Future<Output = Result<Published, PublishError>> + Send {
        Publishing::new(&*self.handle, publish)
    }

    /// Publishes a message and resolves once it was taken, to what resolves to its outcome.
    ///
    /// Waits for room in the outbox, if that is how it is [configured](crate::Overflow). Dropping the
    /// future withdraws the message.
    pub async fn admit(&self, publish: Publish) -> Result<Admitted, PublishError> {
        let mut publishing = Publishing::new(self.handle.clone(), publish);
        std::future::poll_fn(|cx| publishing.poll_taken(cx)).await?;
        Ok(Admitted(publishing))
    }

    /// The same without waiting.
    ///
    /// # Errors
    ///
    /// [`PublishError::Full`] if the outbox has no room, and those of [`admit`](Self::admit).
    pub fn try_admit(&self, publish: Publish) -> Result<Admitted, PublishError> {
        let mut publishing = Publishing::new(self.handle.clone(), publish);
        match publishing.take(Waker::noop()) {
            Taking::Ended(Ok(())) => Ok(Admitted(publishing)),
            Taking::Ended(Err(error)) => Err(error),
            Taking::Waits { .. } => {
                let options = self.handle.shared.lock().options.clone();
                options.metrics.was_full();
                Err(PublishError::Full)
            }
        }
    }
}

impl Clone for Publisher {
    fn clone(&self) -> Self {
        Self::new(self.handle.clone())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(key) = self.ready {
            let mut state = self.handle.shared.lock();
            let waker = state.ready.as_mut().and_then(|ready| ready.try_remove(key));
            drop(state);
            drop(waker);
        }
    }
}

impl Service<Publish> for Publisher {
    type Response = Published;
    type Error = PublishError;
    type Future = PublishFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        if let Some(lost) = state.refusal(&shared.endpoint) {
            return Poll::Ready(Err(PublishError::NotSent(lost)));
        }
        if state.is_ready() {
            return Poll::Ready(Ok(()));
        }
        let waker = Some(cx.waker().clone());
        let ready = state.ready.get_or_insert_default();
        let replaced = match self.ready.and_then(|key| ready.get_mut(key)) {
            Some(slot) => std::mem::replace(slot, waker),
            None => {
                self.ready = Some(ready.insert(waker));
                None
            }
        };
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    fn call(&mut self, publish: Publish) -> PublishFuture {
        PublishFuture(Publishing::new(self.handle.clone(), publish))
    }
}

/// The future of [`Publisher`] as a service.
#[derive(Debug)]
#[must_use = "a publish does nothing until polled"]
pub struct PublishFuture(Publishing<Arc<Handle>>);

impl PublishFuture {
    /// Whether the message was sent and waits for its acknowledgement.
    pub(crate) fn is_sent(&self) -> bool {
        match self.0.stage {
            Stage::Taken { place: None, .. } => true,
            Stage::Taken {
                key,
                place: Some(place),
            } => !self.0.handle.shared.lock().is_queued(place, key),
            Stage::Waiting { .. } | Stage::Sent | Stage::Displaced | Stage::Done => false,
        }
    }
}

impl Future for PublishFuture {
    type Output = Result<Published, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// A message that was taken: resolves to what became of it.
///
/// Dropping it changes nothing for the message, whose outcome nobody is told then. It keeps the
/// session open.
#[derive(Debug)]
#[must_use = "the outcome is in it"]
pub struct Admitted(Publishing<Arc<Handle>>);

impl Future for Admitted {
    type Output = Result<Published, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Stage::Taken { key, .. } = self.0.stage {
            self.0.stage = Stage::Done;
            let waiter = self.0.handle.shared.lock().abandon(key);
            drop(waiter);
        }
    }
}
