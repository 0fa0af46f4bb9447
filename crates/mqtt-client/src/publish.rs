//! Publishing: the request, the service, and the future that sees a message through.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use mqtt_proto::{
    Message, QoS, ReasonCode, TopicError, TopicName, UsageError,
    packet::{AckProperties, Properties, PublishProperties},
};
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::{
    error::PublishError,
    outbox::{Offered, Place, shorten_expiry},
    shared::{Answer, Handle, State, Unsent, Waiter, renew},
    tally::Untold,
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

/// A message from its caller to its outcome, with a handle that is borrowed or shared.
#[derive(Debug)]
struct Publishing<H: Deref<Target = Handle>> {
    handle: H,
    stage: Stage,
    /// Until when it may wait, if it has to and that is limited.
    expires: Option<Instant>,
    /// There once it was waited for with a limit; not before, as a caller that does not wait may have
    /// no runtime.
    timer: Option<Pin<Box<Sleep>>>,
}

/// How far taking a message has come.
enum Taking {
    Ended(Result<(), PublishError>),
    /// It waits, and has to be polled again at this time though nobody wakes it.
    Waits {
        until: Option<Instant>,
    },
}

#[derive(Debug)]
enum Stage {
    /// The message is still the caller's; the place is among those that wait to be taken.
    Waiting {
        publish: Publish,
        place: Option<Place>,
    },
    /// The waiter has this key; the place is in the outbox, if it was not sent at once.
    Taken {
        key: usize,
        place: Option<Place>,
    },
    /// At QoS 0, where there is nothing to wait for.
    Sent,
    /// There was no room for it.
    Displaced,
    Done,
}

impl<H: Deref<Target = Handle>> Publishing<H> {
    fn new(handle: H, publish: Publish) -> Self {
        Self {
            handle,
            stage: Stage::Waiting {
                publish,
                place: None,
            },
            expires: None,
            timer: None,
        }
    }

    /// Until the message is the session's.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        let until = match self.take(cx.waker()) {
            Taking::Ended(taken) => return Poll::Ready(taken),
            Taking::Waits { until } => until,
        };
        if until.is_some_and(|until| self.is_time(until, cx)) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Hands the message to the session, as far as it takes it now.
    fn take(&mut self, waker: &Waker) -> Taking {
        let (mut publish, mut place) = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Waiting { publish, place } => (publish, place),
            taken @ (Stage::Taken { .. } | Stage::Sent | Stage::Displaced | Stage::Done) => {
                self.stage = taken;
                return Taking::Ended(Ok(()));
            }
        };
        let has_expired = self
            .expires
            .is_some_and(|expires| expires <= Instant::now());
        let qos = publish.message.qos;
        let shared = &self.handle.shared;
        let mut guard = shared.lock();
        let state = &mut *guard;
        let refused = match state.refusal(&shared.endpoint) {
            Some(lost) => Some(PublishError::NotSent(lost)),
            None => has_expired.then_some(PublishError::Expired),
        };
        if let Some(refused) = refused {
            if let PublishError::Expired = refused {
                state.count_expired();
            }
            let left = state.leave_outbox(qos, &mut place, false);
            shared.leave_room_to_others(guard);
            drop(left);
            return Taking::Ended(Err(refused));
        }
        if !state.sends_at_once(qos, place) {
            let mut wakers = Vec::new();
            if self.expires.is_none() {
                let patience = state.patience(&publish);
                self.expires = patience.and_then(|it| Instant::now().checked_add(it));
            }
            let offered = state.offer(publish, self.expires, &mut place, waker, &mut wakers);
            shared.note_in_flight(state);
            state.wake_waiting(&mut wakers);
            let untold = state.take_untold_in_time();
            drop(guard);
            Untold::tell(untold);
            wakers.into_iter().for_each(Waker::wake);
            return match offered {
                Offered::Taken(key, at) => {
                    let place = Some(at);
                    self.stage = Stage::Taken { key, place };
                    Taking::Ended(Ok(()))
                }
                Offered::Waits {
                    publish,
                    replaced,
                    room,
                } => {
                    drop(replaced);
                    self.stage = Stage::Waiting { publish, place };
                    let until = [self.expires, room].into_iter().flatten().min();
                    Taking::Waits { until }
                }
                Offered::Dropped => {
                    self.stage = Stage::Displaced;
                    Taking::Ended(Ok(()))
                }
                Offered::Refused(error) => Taking::Ended(Err(error)),
            };
        }
        if let Some(expires) = self.expires {
            let patience = state.patience(&publish).unwrap_or_default();
            let left = expires.saturating_duration_since(Instant::now());
            shorten_expiry(&mut publish.message, patience.saturating_sub(left));
        }
        let left = state.leave_outbox(qos, &mut place, true);
        let taken = match send(state, publish.message, waker) {
            Ok(stage) => {
                shared.note_in_flight(state);
                self.stage = stage;
                Ok(())
            }
            Err(error) => Err(error),
        };
        let driver = state.wake_driver();
        if state.outbox.is_some() {
            shared.leave_room_to_others(guard);
        } else {
            drop(guard);
        }
        drop(left);
        driver.into_iter().for_each(Waker::wake);
        Taking::Ended(taken)
    }

    /// Whether it is that late; if not, it is polled again when it is.
    fn is_time(&mut self, at: Instant, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_ready()
    }

    /// Until it is known what became of the message.
    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Result<Published, PublishError>> {
        let (key, place) = match self.stage {
            Stage::Taken { key, place } => (key, place),
            Stage::Sent => {
                self.stage = Stage::Done;
                return Poll::Ready(Ok(Published::Sent));
            }
            Stage::Displaced => {
                self.stage = Stage::Done;
                return Poll::Ready(Err(PublishError::Displaced));
            }
            Stage::Waiting { .. } | Stage::Done => return Poll::Pending,
        };
        // One that was sent waits for its answer however long that takes.
        let expires = self.expires.filter(|_| place.is_some());
        let has_expired = expires.is_some_and(|expires| self.is_time(expires, cx));
        let mut state = self.handle.shared.lock();
        let waiter = match state.waiters.get_mut(key) {
            Some(Waiter::Waiting(waker)) => {
                let replaced = renew(waker, cx.waker());
                let withdrawn = place
                    .filter(|_| has_expired)
                    .and_then(|place| state.withdraw_expired(place, key));
                if withdrawn.is_none() {
                    drop(state);
                    drop(replaced);
                    return Poll::Pending;
                }
                let waiter = state.waiters.try_remove(key);
                self.stage = Stage::Done;
                self.handle.shared.leave_room_to_others(state);
                drop((replaced, waiter, withdrawn));
                return Poll::Ready(Err(PublishError::Expired));
            }
            Some(Waiter::Answered(_)) => state.waiters.remove(key),
            Some(Waiter::Abandoned | Waiter::Restoring(_)) | None => return Poll::Pending,
        };
        self.stage = Stage::Done;
        drop(state);
        Poll::Ready(outcome(waiter))
    }
}

impl<H: Deref<Target = Handle> + Unpin> Future for Publishing<H> {
    type Output = Result<Published, PublishError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Stage::Waiting { .. } = this.stage {
            match this.poll_taken(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            if let (Stage::Taken { .. }, None) = (&this.stage, &this.expires) {
                // Its waiter knows this waker.
                return Poll::Pending;
            }
        }
        this.poll_outcome(cx)
    }
}

impl<H: Deref<Target = Handle>> Drop for Publishing<H> {
    fn drop(&mut self) {
        match &mut self.stage {
            Stage::Sent | Stage::Displaced | Stage::Done | Stage::Waiting { place: None, .. } => {}
            Stage::Waiting { publish, place } => {
                let mut state = self.handle.shared.lock();
                let left = state.leave_outbox(publish.message.qos, place, false);
                self.handle.shared.leave_room_to_others(state);
                drop(left);
            }
            &mut Stage::Taken { key, place } => {
                let mut state = self.handle.shared.lock();
                match place.and_then(|place| state.withdraw(place, key)) {
                    Some(withdrawn) => {
                        let waiter = state.waiters.try_remove(key);
                        self.handle.shared.leave_room_to_others(state);
                        drop((withdrawn, waiter));
                    }
                    None => {
                        let waiter = state.abandon(key);
                        drop(state);
                        drop(waiter);
                    }
                }
            }
        }
    }
}

/// Hands a message to the core, which has room for it.
fn send(state: &mut State, message: Message, waker: &Waker) -> Result<Stage, PublishError> {
    state.lend_buffer();
    let (qos, bytes) = (message.qos, message.payload.len());
    let key = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => {
            Some(state.waiters.insert(Waiter::Waiting(waker.clone())))
        }
    };
    match state.core.publish(message, key.unwrap_or_default()) {
        Ok(_) => {
            state.count_published(qos, bytes, key);
            Ok(key.map_or(Stage::Sent, |key| Stage::Taken { key, place: None }))
        }
        Err(refused) => {
            if let Some(key) = key {
                state.waiters.remove(key);
            }
            let error = refused.error.unwrap_or(UsageError::NotConnected);
            Err(PublishError::Usage(error))
        }
    }
}

fn outcome(waiter: Waiter) -> Result<Published, PublishError> {
    match waiter {
        Waiter::Answered(Answer::Published {
            reason_code,
            properties,
        }) if reason_code.is_error() => Err(PublishError::Rejected {
            reason_code,
            properties,
        }),
        Waiter::Answered(Answer::Published {
            reason_code,
            properties,
        }) => Ok(Published::Acknowledged {
            reason_code,
            properties,
        }),
        Waiter::Answered(Answer::Sent) => Ok(Published::Sent),
        Waiter::Answered(Answer::NotAllowed(error)) => Err(error.into()),
        Waiter::Answered(Answer::NotSent(unsent)) => Err(match unsent {
            Unsent::Displaced => PublishError::Displaced,
            Unsent::Expired => PublishError::Expired,
            Unsent::Lost(lost) => PublishError::NotSent(lost),
        }),
        Waiter::Answered(Answer::Lost(lost)) => Err(PublishError::Lost(lost)),
        Waiter::Answered(Answer::SetAside { connections, lost }) => Err(PublishError::SetAside {
            connections,
            source: lost,
        }),
        Waiter::Answered(Answer::Answered { .. })
        | Waiter::Waiting(_)
        | Waiter::Abandoned
        | Waiter::Restoring(_) => {
            unreachable!(
                "a publish is answered by its acknowledgement or by the end of the connection"
            )
        }
    }
}
