//! Subscribing: the request, the service, and the futures that await the server's answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use mqtt_proto::{
    QoS, TopicError, TopicFilter,
    packet::{Properties, SubscribeFilter, SubscribeOptions, SubscribeProperties},
};
use tower_service::Service;

use crate::{
    answered::Answered,
    discard::Discard,
    error::SubscribeError,
    line::Ticket,
    shared::{Answer, Handle, Waiter, renew},
    subscription::{Queue, Subscription},
};

/// A request to subscribe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribe {
    /// What to subscribe to; at least one.
    pub filters: Vec<SubscribeFilter>,
    /// 5.0 only. With a subscription identifier the stream gets the messages that carry it. Give all
    /// streams of one filter the same: a server keeps one subscription for a filter, and the
    /// identifier of the latest.
    pub properties: SubscribeProperties,
    /// How many messages wait to be read before those of QoS 0 are [dropped](Self::discard). Default 8,192: some ten
    /// full reads of small messages, so that a reader that keeps up on average loses none of a
    /// burst. By default the stream takes what waits in one go, so that up to twice as many can be held.
    ///
    /// QoS 1 and 2 are never dropped: [`SessionConfig::receive_maximum`] bounds them.
    ///
    /// [`SessionConfig::receive_maximum`]: crate::SessionConfig::receive_maximum
    pub max_messages: usize,
    /// How many bytes of topics and payloads wait before the same. Default 8 MiB. A message larger
    /// than that waits alone.
    pub max_bytes: usize,
    /// Which of those of QoS 0 are dropped. Default [`Discard::Newest`], the one that finds no room:
    /// it costs least, and what is read has no gaps but at its end.
    pub discard: Discard,
}

impl Subscribe {
    /// To one filter, at QoS 2: messages come at the QoS they were published at.
    pub fn new(
        filter: impl TryInto<TopicFilter, Error: Into<TopicError>>,
    ) -> Result<Self, TopicError> {
        let filter = filter.try_into().map_err(Into::into)?;
        let options = SubscribeOptions::new(QoS::ExactlyOnce);
        Ok(Self {
            filters: vec![SubscribeFilter { filter, options }],
            properties: SubscribeProperties::default(),
            max_messages: 8_192,
            max_bytes: 8 * 1024 * 1024,
            discard: Discard::default(),
        })
    }

    /// With one more filter, subscribed to in the same packet.
    #[must_use]
    pub fn with_filter(mut self, filter: SubscribeFilter) -> Self {
        self.filters.push(filter);
        self
    }

    /// With messages at this QoS at most, for the filters given so far.
    #[must_use]
    pub fn with_qos(mut self, qos: QoS) -> Self {
        self.filters
            .iter_mut()
            .for_each(|filter| filter.options.qos = qos);
        self
    }

    /// With room for so many unread messages; 0 counts as 1.
    #[must_use]
    pub fn with_max_messages(mut self, max_messages: usize) -> Self {
        self.max_messages = max_messages.max(1);
        self
    }

    /// With room for so many unread bytes; 0 counts as 1.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes.max(1);
        self
    }

    /// With these QoS 0 messages dropped when the reader falls behind.
    #[must_use]
    pub fn with_discard(mut self, discard: Discard) -> Self {
        self.discard = discard;
        self
    }

    /// With these properties; they are not sent to a 3.1.1 server.
    #[must_use]
    pub fn with_properties(mut self, properties: SubscribeProperties) -> Self {
        self.properties = properties;
        self
    }
}

/// Subscribes on a session. Clones are cheap.
///
/// As a [`Service`] it is always ready until the session is over. If its future is dropped
/// before the answer came, the subscription is given up.
#[derive(Clone, Debug)]
pub struct Subscriber {
    handle: Arc<Handle>,
}

impl Subscriber {
    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    /// Subscribes, and resolves to the stream of messages once the server has granted every filter.
    ///
    /// If it refuses one, those it granted are given up again and the codes are in the error.
    /// Waits for a connection if there is none, and for room in the outbound buffer, of which publishes
    /// leave it a part of its own.
    /// Dropping the future gives the subscription up.
    pub fn subscribe(
        &self,
        subscribe: Subscribe,
    ) -> impl Future<Output = Result<Subscription, SubscribeError>> + Send + use<> {
        Subscribing {
            handle: self.handle.clone(),
            stage: Stage::unsent(subscribe),
        }
    }
}

impl Service<Subscribe> for Subscriber {
    type Response = Subscription;
    type Error = SubscribeError;
    type Future = SubscribeFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SubscribeError>> {
        let shared = &self.handle.shared;
        if !shared.has_ended() {
            return Poll::Ready(Ok(()));
        }
        let lost = shared.lock().refusal(&shared.endpoint);
        Poll::Ready(lost.map_or(Ok(()), |lost| Err(SubscribeError::NotSent(lost))))
    }

    fn call(&mut self, subscribe: Subscribe) -> SubscribeFuture {
        SubscribeFuture(Subscribing {
            handle: self.handle.clone(),
            stage: Stage::unsent(subscribe),
        })
    }
}

/// The future of [`Subscriber`] as a service.
#[derive(Debug)]
#[must_use = "a subscribe does nothing until polled"]
pub struct SubscribeFuture(Subscribing);

impl Future for SubscribeFuture {
    type Output = Result<Subscription, SubscribeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

#[derive(Debug)]
struct Subscribing {
    handle: Arc<Handle>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// It waits for a connection, or for room.
    Unsent {
        subscribe: Box<Subscribe>,
        ticket: Option<Ticket>,
    },
    /// Messages may come before the answer, so the queue is there already.
    Sent {
        key: usize,
        subscription: Subscription,
    },
    Done,
}

impl Stage {
    fn unsent(subscribe: Subscribe) -> Self {
        Self::Unsent {
            subscribe: Box::new(subscribe),
            ticket: None,
        }
    }
}

impl Future for Subscribing {
    type Output = Result<Subscription, SubscribeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = &this.handle.shared;
        match std::mem::replace(&mut this.stage, Stage::Done) {
            Stage::Unsent {
                subscribe,
                mut ticket,
            } => {
                let mut guard = shared.lock();
                let state = &mut *guard;
                if let Some(lost) = state.refusal(&shared.endpoint) {
                    let left = state.subscribes.leave(&mut ticket);
                    drop(guard);
                    drop(left);
                    return Poll::Ready(Err(SubscribeError::NotSent(lost)));
                }
                let goes = state.subscribes.is_turn(ticket) && state.core.has_room_for_subscribe();
                if !goes {
                    let replaced = state.subscribes.wait(&mut ticket, cx.waker());
                    drop(guard);
                    drop(replaced);
                    this.stage = Stage::Unsent { subscribe, ticket };
                    return Poll::Pending;
                }
                let left = state.subscribes.leave(&mut ticket);
                let mut queue = Queue::new(&subscribe);
                let key = state.waiters.insert(Waiter::Waiting(cx.waker().clone()));
                state.lend_buffer();
                let properties = Properties::from(subscribe.properties);
                if let Err(error) = state.core.subscribe(subscribe.filters, properties, key) {
                    state.waiters.remove(key);
                    let next = state.next_subscribe();
                    drop(guard);
                    drop(left);
                    next.into_iter().for_each(Waker::wake);
                    return Poll::Ready(Err(error.into()));
                }
                queue.asked = Some(key);
                let queue = state.subscriptions.insert(queue);
                // There is no reader to wake yet.
                state.claim(queue, &mut Vec::new());
                let driver = state.wake_driver();
                let next = state.next_subscribe();
                drop(guard);
                drop(left);
                driver.into_iter().chain(next).for_each(Waker::wake);
                let subscription = Subscription::new(this.handle.clone(), queue);
                this.stage = Stage::Sent { key, subscription };
                Poll::Pending
            }
            Stage::Sent { key, subscription } => match poll_answer(&this.handle, key, cx) {
                Poll::Pending => {
                    this.stage = Stage::Sent { key, subscription };
                    Poll::Pending
                }
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(subscription)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            },
            Stage::Done => Poll::Pending,
        }
    }
}

impl Drop for Subscribing {
    fn drop(&mut self) {
        match &mut self.stage {
            Stage::Done | Stage::Unsent { ticket: None, .. } => {}
            Stage::Unsent { ticket, .. } => {
                let mut state = self.handle.shared.lock();
                let left = state.subscribes.leave(ticket);
                let next = state.next_subscribe();
                drop(state);
                drop(left);
                next.into_iter().for_each(Waker::wake);
            }
            Stage::Sent { key, .. } => {
                let waiter = self.handle.shared.lock().abandon(*key);
                drop(waiter);
            }
        }
    }
}

/// Awaits the answer to an UNSUBSCRIBE, if one was sent.
#[derive(Debug)]
pub(crate) struct Unsubscribing {
    handle: Arc<Handle>,
    key: Option<usize>,
}

impl Unsubscribing {
    pub(crate) fn new(handle: Arc<Handle>, key: Option<usize>) -> Self {
        Self { handle, key }
    }
}

impl Future for Unsubscribing {
    type Output = Result<Answered, SubscribeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(key) = self.key else {
            return Poll::Ready(Ok(Answered::default()));
        };
        let answer = poll_answer(&self.handle, key, cx);
        if answer.is_ready() {
            self.key = None;
        }
        answer
    }
}

impl Drop for Unsubscribing {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waiter = self.handle.shared.lock().abandon(key);
            drop(waiter);
        }
    }
}

/// The answer to a SUBSCRIBE or UNSUBSCRIBE; an error if a filter was refused.
fn poll_answer(
    handle: &Handle,
    key: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<Answered, SubscribeError>> {
    let mut state = handle.shared.lock();
    let waiter = match state.waiters.get_mut(key) {
        Some(Waiter::Waiting(waker)) => {
            let replaced = renew(waker, cx.waker());
            drop(state);
            drop(replaced);
            return Poll::Pending;
        }
        Some(Waiter::Answered(_)) => state.waiters.remove(key),
        Some(Waiter::Abandoned | Waiter::Restoring(_)) | None => return Poll::Pending,
    };
    drop(state);
    Poll::Ready(match waiter {
        Waiter::Answered(Answer::Answered {
            reason_codes,
            properties,
        }) => {
            if reason_codes.iter().any(|code| code.is_error()) {
                Err(SubscribeError::Refused {
                    reason_codes,
                    properties,
                })
            } else {
                Ok(Answered {
                    reason_codes,
                    properties,
                })
            }
        }
        Waiter::Answered(Answer::Lost(lost)) => Err(SubscribeError::Lost(lost)),
        Waiter::Answered(Answer::NotAllowed(error)) => Err(error.into()),
        Waiter::Answered(
            Answer::Published { .. } | Answer::Sent | Answer::NotSent(_) | Answer::SetAside { .. },
        )
        | Waiter::Waiting(_)
        | Waiter::Abandoned
        | Waiter::Restoring(_) => {
            unreachable!(
                "a subscribe is answered by its acknowledgement or by the end of the connection"
            )
        }
    })
}
