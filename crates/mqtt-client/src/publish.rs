//! Publishing: the request, the service, and the future that sees a message through.

use std::{
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use mqtt_proto::{
    Message, QoS, ReasonCode, TopicError, TopicName,
    packet::{AckProperties, Properties, PublishProperties},
};
use tower_service::Service;

use crate::{
    error::PublishError,
    line::Ticket,
    shared::{Answer, Handle, State, Waiter, leave_room_to_others, reason, renew},
};

/// A request to publish a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publish {
    /// The message.
    pub message: Message,
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
}

impl From<Message> for Publish {
    fn from(message: Message) -> Self {
        Self { message }
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
/// As a [`Service`], `poll_ready` waits until a publish at any QoS would go in at once: the window
/// of unacknowledged messages and the outbound buffer, both bounded by
/// [`SessionConfig`](crate::SessionConfig), have room. It reserves nothing, so a ready clone that is
/// never called holds nobody up; if others take the room first, the future of `call` waits for it,
/// first come, first served. Without a connection it waits for the next; it fails once the session is
/// over.
///
/// The service's future may be dropped at any time. A message that was not admitted is then not
/// sent; one that was is completed by the session, and nobody is told.
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
    /// Waits for room as its QoS needs it: a full window does not hold up QoS 0. Messages of
    /// futures polled one after the other are sent in that order.
    ///
    /// Dropping the future withdraws a message that was not admitted; one that was is completed by
    /// the session.
    pub fn publish(
        &self,
        publish: Publish,
    ) -> impl Future<Output = Result<Published, PublishError>> + Send {
        Publishing::new(&*self.handle, publish.message)
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
        PublishFuture(Publishing::new(self.handle.clone(), publish.message))
    }
}

/// The future of [`Publisher`] as a service.
#[derive(Debug)]
#[must_use = "a publish does nothing until polled"]
pub struct PublishFuture(Publishing<Arc<Handle>>);

impl Future for PublishFuture {
    type Output = Result<Published, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// A message from its caller to its outcome, with a handle that is borrowed or shared.
#[derive(Debug)]
struct Publishing<H: Deref<Target = Handle>> {
    handle: H,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The message is still the caller's.
    Waiting {
        message: Message,
        ticket: Option<Ticket>,
    },
    /// It was sent; the waiter has this key.
    Sent {
        key: usize,
    },
    Done,
}

impl<H: Deref<Target = Handle>> Publishing<H> {
    fn new(handle: H, message: Message) -> Self {
        Self {
            handle,
            stage: Stage::Waiting {
                message,
                ticket: None,
            },
        }
    }
}

impl<H: Deref<Target = Handle> + Unpin> Future for Publishing<H> {
    type Output = Result<Published, PublishError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = &this.handle.shared;
        let mut guard = shared.lock();
        let state = &mut *guard;
        match std::mem::replace(&mut this.stage, Stage::Done) {
            Stage::Waiting {
                message,
                mut ticket,
            } => {
                let qos = message.qos;
                if let Some(lost) = state.refusal(&shared.endpoint) {
                    let waker = line(state, qos).leave(&mut ticket);
                    drop(guard);
                    drop(waker);
                    return Poll::Ready(Err(PublishError::NotSent(lost)));
                }
                if !line(state, qos).is_turn(ticket) || !state.core.has_room(qos) {
                    let replaced = line(state, qos).wait(&mut ticket, cx.waker());
                    this.stage = Stage::Waiting { message, ticket };
                    drop(guard);
                    drop(replaced);
                    return Poll::Pending;
                }
                let left = line(state, qos).leave(&mut ticket);
                let outcome = match admit(state, message, cx.waker()) {
                    Ok(None) => Poll::Ready(Ok(Published::Sent)),
                    Ok(Some(key)) => {
                        shared.note_in_flight(state);
                        this.stage = Stage::Sent { key };
                        Poll::Pending
                    }
                    Err(error) => {
                        leave_room_to_others(guard);
                        drop(left);
                        return Poll::Ready(Err(error));
                    }
                };
                let driver = state.wake_driver();
                let next = if state.core.has_room(qos) {
                    line(state, qos).next()
                } else {
                    None
                };
                drop(guard);
                drop(left);
                driver.into_iter().chain(next).for_each(Waker::wake);
                outcome
            }
            Stage::Sent { key } => match state.waiters.get_mut(key) {
                Some(Waiter::Waiting(waker)) => {
                    let replaced = renew(waker, cx.waker());
                    this.stage = Stage::Sent { key };
                    drop(guard);
                    drop(replaced);
                    Poll::Pending
                }
                Some(Waiter::Answered(_)) => Poll::Ready(outcome(state.waiters.remove(key))),
                Some(Waiter::Abandoned | Waiter::Restoring(_)) | None => Poll::Pending,
            },
            Stage::Done => Poll::Pending,
        }
    }
}

impl<H: Deref<Target = Handle>> Drop for Publishing<H> {
    fn drop(&mut self) {
        match &mut self.stage {
            Stage::Done | Stage::Waiting { ticket: None, .. } => {}
            Stage::Waiting { message, ticket } => {
                let mut state = self.handle.shared.lock();
                let qos = message.qos;
                let left = line(&mut state, qos).leave(ticket);
                leave_room_to_others(state);
                drop(left);
            }
            Stage::Sent { key } => {
                let waiter = self.handle.shared.lock().abandon(*key);
                drop(waiter);
            }
        }
    }
}

/// Where a publish at `qos` waits.
fn line(state: &mut State, qos: QoS) -> &mut crate::line::Line {
    match qos {
        QoS::AtMostOnce => &mut state.buffer,
        QoS::AtLeastOnce | QoS::ExactlyOnce => &mut state.window,
    }
}

/// Hands a message to the core, which has room for it; returns the waiter's key above QoS 0.
fn admit(
    state: &mut State,
    message: Message,
    waker: &Waker,
) -> Result<Option<usize>, PublishError> {
    state.lend_buffer();
    let key = match message.qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => {
            Some(state.waiters.insert(Waiter::Waiting(waker.clone())))
        }
    };
    match state.core.publish(message, key.unwrap_or_default()) {
        Ok(_) => Ok(key),
        Err(refused) => {
            if let Some(key) = key {
                state.waiters.remove(key);
            }
            Err(PublishError::Usage(
                refused
                    .error
                    .unwrap_or(mqtt_proto::UsageError::NotConnected),
            ))
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
            reason: reason(&properties),
        }),
        Waiter::Answered(Answer::Published {
            reason_code,
            properties,
        }) => Ok(Published::Acknowledged {
            reason_code,
            properties,
        }),
        Waiter::Answered(Answer::Lost(lost)) => Err(PublishError::Lost(lost)),
        Waiter::Answered(Answer::Answered { .. } | Answer::NotAllowed(_))
        | Waiter::Waiting(_)
        | Waiter::Abandoned
        | Waiter::Restoring(_) => {
            unreachable!(
                "a publish is answered by its acknowledgement or by the end of the connection"
            )
        }
    }
}
