//! Messages of a subscription, as a bounded stream.

use std::{
    collections::VecDeque,
    iter,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_core::Stream;
use mqtt_proto::{
    AckId, Message, QoS, ReasonCode, TopicFilter, UsageError,
    packet::{AckProperties, Properties, SubscribeFilter, SubscribeProperties},
};

use crate::{
    acknowledge::Verdict,
    answered::Answered,
    discard::Unread,
    error::SubscribeError,
    manual::ManualSubscription,
    shared::{Core, Handle, Shared, Waiter},
    subscribe::{Subscribe, Unsubscribing},
};

/// A stream that waits keeps room for so many messages.
const KEPT_CAPACITY: usize = 16;

/// What an automatic stream says of messages.
const TAKEN: Verdict = Verdict::Taken(ReasonCode::SUCCESS);

/// A message on its way to the application, and what is owed for it.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) message: Message,
    pub(crate) ack: Option<AckId>,
}

/// What a subscription's messages wait in, under the session's lock.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) filters: Vec<SubscribeFilter>,
    pub(crate) properties: SubscribeProperties,
    /// The waiter for the answer to the SUBSCRIBE, until it has come.
    pub(crate) asked: Option<usize>,
    /// That SUBSCRIBE was cut off: the answer comes to the next that asks for it.
    pub(crate) is_cut_off: bool,
    /// The SUBSCRIBE by which it is asked for again, until its answer has come.
    pub(crate) restoring: Option<usize>,
    /// Whether the server has granted all its filters in the present session.
    pub(crate) is_granted: bool,
    /// The latest answer that did.
    granted: Option<Box<Answered>>,
    /// Why the server does not grant it any more.
    pub(crate) refused: Option<SubscribeError>,
    pub(crate) max_messages: usize,
    pub(crate) max_bytes: usize,
    messages: Unread,
    bytes: usize,
    pub(crate) dropped: u64,
    pace: Pace,
    pub(crate) waker: Option<Waker>,
}

/// How a reader of QoS 0 messages keeps up with them.
///
/// One that is merely waiting for its turn on a busy thread is given a moment before messages are
/// dropped; one that stays away is not waited for again until it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    KeepsUp,
    Pressing,
    Lags,
}

impl Queue {
    pub(crate) fn new(subscribe: &Subscribe) -> Self {
        Self {
            filters: subscribe.filters.clone(),
            properties: subscribe.properties.clone(),
            asked: None,
            is_cut_off: false,
            restoring: None,
            is_granted: false,
            granted: None,
            refused: None,
            max_messages: subscribe.max_messages,
            max_bytes: subscribe.max_bytes,
            messages: Unread::new(subscribe.discard),
            bytes: 0,
            dropped: 0,
            pace: Pace::KeepsUp,
            waker: None,
        }
    }

    pub(crate) fn has_filter(&self, filter: &TopicFilter) -> bool {
        self.filters.iter().any(|mine| mine.filter == *filter)
    }

    /// Whether it is still to be asked for on this connection.
    pub(crate) fn is_due(&self) -> bool {
        let is_asked = self.asked.is_some() && !self.is_cut_off;
        !self.is_granted && !is_asked && self.refused.is_none()
    }

    /// The server has answered the SUBSCRIBE.
    pub(crate) fn on_answered(
        &mut self,
        reason_codes: &[ReasonCode],
        properties: &Properties<AckProperties>,
    ) {
        self.is_granted = reason_codes.iter().all(|code| !code.is_error());
        if self.is_granted {
            self.granted = Some(Box::new(Answered {
                reason_codes: reason_codes.to_vec(),
                properties: properties.clone(),
            }));
        }
    }

    /// Forgets unread messages that are not to be acknowledged any more, since the server sends them
    /// again: those of QoS 1, and those that another subscription gave back.
    pub(crate) fn forget_closed(&mut self, core: &Core) {
        self.messages.retain(|delivery| {
            let stays = delivery.ack.is_none_or(|ack| core.is_open(ack));
            if !stays {
                self.bytes = self.bytes.saturating_sub(size(&delivery.message));
            }
            stays
        });
        self.pace = Pace::KeepsUp;
    }

    /// Drops the oldest of what the server of a lost session has sent, and will not send again, so
    /// that sessions lost again and again do not add up.
    pub(crate) fn drop_excess(&mut self) {
        let excess = self.messages.len().saturating_sub(self.max_messages);
        for delivery in iter::from_fn(|| self.messages.pop()).take(excess) {
            self.bytes = self.bytes.saturating_sub(size(&delivery.message));
            self.dropped += 1;
        }
        self.pace = Pace::KeepsUp;
    }

    /// By subscription identifier where both sides use one, else by topic filter. One that was
    /// refused has ended, and nobody reads it.
    pub(crate) fn wants(&self, message: &Message) -> bool {
        if self.refused.is_some() {
            return false;
        }
        if let Some(id) = self.properties.subscription_identifier
            && !message.properties.is_empty()
            && !message.properties.subscription_identifiers.is_empty()
        {
            return message.properties.subscription_identifiers.contains(&id);
        }
        self.filters
            .iter()
            .any(|filter| filter.filter.matches(&message.topic))
    }

    /// Takes a message, or drops one of QoS 0, this or another, and counts it. Says whether the queue has begun to
    /// press: it is half full, and its reader has not run since it was woken.
    ///
    /// QoS 1 and 2 are always taken: the server sends no more than receive maximum of them.
    pub(crate) fn push(
        &mut self,
        message: Message,
        ack: Option<AckId>,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        // Every message comes by here: what most queues do not need is elsewhere.
        let Unread::InOrder(messages) = &mut self.messages else {
            return self.push_by_age(message, ack, wakers);
        };
        let size = size(&message);
        let mut begins = false;
        if message.qos == QoS::AtMostOnce {
            let full = messages.len() >= self.max_messages || self.bytes + size > self.max_bytes;
            if full && !messages.is_empty() {
                self.dropped += 1;
                return false;
            }
            let half = messages.len() >= self.max_messages / 2 || self.bytes >= self.max_bytes / 2;
            if half && self.pace == Pace::KeepsUp {
                self.pace = Pace::Pressing;
                begins = true;
            }
        }
        self.bytes += size;
        messages.push_back(Delivery { message, ack });
        wakers.extend(self.waker.take());
        begins
    }

    /// The same where one of QoS 0 is exchanged for, or makes room by the loss of, those that wait.
    fn push_by_age(
        &mut self,
        mut message: Message,
        ack: Option<AckId>,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        let size = size(&message);
        let mut begins = false;
        if message.qos == QoS::AtMostOnce {
            if self.messages.replace(&mut message) {
                self.bytes += size;
                self.discarded(&message);
                // Those that stay may be more than there is room for.
                while self.bytes > self.max_bytes
                    && self.messages.len() > 1
                    && self.discard_oldest()
                {}
                return false;
            }
            while self.is_full_for(size) {
                if !self.discard_oldest() {
                    self.dropped += 1;
                    return false;
                }
            }
            if self.is_half_full() && self.pace == Pace::KeepsUp {
                self.pace = Pace::Pressing;
                begins = true;
            }
        }
        self.bytes += size;
        self.messages.push(Delivery { message, ack });
        wakers.extend(self.waker.take());
        begins
    }

    /// Whether a QoS 0 message of this size has no room. One that is larger than all the room there
    /// is waits alone.
    fn is_full_for(&self, size: usize) -> bool {
        let is_full =
            self.messages.len() >= self.max_messages || self.bytes + size > self.max_bytes;
        is_full && !self.messages.is_empty()
    }

    fn is_half_full(&self) -> bool {
        self.messages.len() >= self.max_messages / 2 || self.bytes >= self.max_bytes / 2
    }

    /// Says whether there was one that may go.
    fn discard_oldest(&mut self) -> bool {
        let oldest = self.messages.pop_discarded();
        oldest.is_some_and(|oldest| {
            self.discarded(&oldest.message);
            true
        })
    }

    fn discarded(&mut self, message: &Message) {
        self.bytes = self.bytes.saturating_sub(size(message));
        self.dropped += 1;
    }

    /// The reader did not come in time.
    pub(crate) fn lag(&mut self) {
        if self.pace == Pace::Pressing {
            self.pace = Pace::Lags;
        }
    }

    /// What waits, for the reader. Says whether the queue has ceased to press: one that is taken from
    /// piece by piece does when it is less than half full.
    fn take(&mut self, batch: &mut VecDeque<Delivery>) -> bool {
        self.messages.take(batch);
        if self.messages.is_empty() {
            self.bytes = 0;
        } else {
            let taken = batch.iter().map(|delivery| size(&delivery.message));
            self.bytes = self.bytes.saturating_sub(taken.sum());
            if self.is_half_full() {
                return false;
            }
        }
        std::mem::replace(&mut self.pace, Pace::KeepsUp) == Pace::Pressing
    }
}

fn size(message: &Message) -> usize {
    message.topic.len() + message.payload.len()
}

/// The messages of one subscribe request, in the order in which they came.
///
/// Ends, after the messages already received, when the session has ended:
/// [`Session::closed`](crate::Session::closed) says why. It outlives the session's connections: on a
/// server that has lost the session it is asked for again, and if that is refused it ends as well,
/// and [`refused`](Self::refused) says so.
///
/// A QoS 1 or 2 message is acknowledged when the stream hands it out. Until then it counts against
/// the receive maximum, so a reader that stops holds the server back. A QoS 0 message that finds
/// the queue full is dropped, or another for its sake, as [`Discard`](crate::Discard) says, and counted
/// in [`dropped`](Self::dropped). Neither holds up
/// keep-alive; the acknowledgements of publishes and other streams wait for a reader of QoS 0 that
/// falls behind, 50 ms at most each time.
///
/// Dropping it unsubscribes without waiting, and acknowledges what was not read, also where the server
/// keeps the session: acknowledgements leave in order, and one that never came would hold up those of
/// all other streams. Where that would lose too much, take [`into_manual`](Self::into_manual).
#[derive(Debug)]
pub struct Subscription {
    handle: Arc<Handle>,
    /// Of its queue, until it is given up: the key may be another's then.
    key: Option<usize>,
    /// Taken from the queue together, so that the lock is taken once for many messages.
    batch: VecDeque<Delivery>,
}

impl Subscription {
    pub(crate) fn new(handle: Arc<Handle>, key: usize) -> Self {
        Self {
            handle,
            key: Some(key),
            batch: VecDeque::new(),
        }
    }

    /// Has each message acknowledged by hand, from the next one that is handed out.
    pub fn into_manual(self) -> ManualSubscription {
        ManualSubscription::new(self)
    }

    /// The next message; `None` when the session has ended, or the server refused the subscription
    /// when it was asked for again.
    ///
    /// Cancel safe: a message is taken only when it is returned.
    pub async fn recv(&mut self) -> Option<Message> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// What the server granted: a code for each filter, in the order of
    /// [`Subscribe::filters`](crate::Subscribe::filters). Asked for again on a later connection, the server
    /// may have granted something else.
    pub fn granted(&self) -> Answered {
        let state = self.handle.shared.lock();
        let queue = self.key.and_then(|key| state.subscriptions.get(key));
        let granted = queue.and_then(|queue| queue.granted.as_deref());
        granted.cloned().unwrap_or_default()
    }

    /// Why the server does not grant the subscription any more, if it was asked for again and
    /// refused.
    pub fn refused(&self) -> Option<SubscribeError> {
        let state = self.handle.shared.lock();
        let queue = self.key.and_then(|key| state.subscriptions.get(key));
        queue.and_then(|queue| queue.refused.clone())
    }

    /// How many QoS 0 messages were dropped because the queue was full, or for the sake of a later one
    /// of their topic, as [`Discard`](crate::Discard) says.
    pub fn dropped(&self) -> u64 {
        let state = self.handle.shared.lock();
        let queue = self.key.and_then(|key| state.subscriptions.get(key));
        queue.map_or(0, |queue| queue.dropped)
    }

    /// Unsubscribes and waits for the server's answer.
    ///
    /// Filters that another stream of this session has are not given up, and there is no code for them;
    /// nor is there any if the server has lost the session meanwhile.
    /// If the future is dropped the subscription is given up all the same.
    pub async fn unsubscribe(mut self) -> Result<Answered, SubscribeError> {
        let answer = self.give_up(true, TAKEN)?;
        Unsubscribing::new(self.handle.clone(), answer).await
    }

    pub(crate) fn handle(&self) -> Arc<Handle> {
        self.handle.clone()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let delivery = self.poll_delivery(cx, true);
        delivery.map(|delivery| delivery.map(|delivery| delivery.message))
    }

    /// The next message. What is owed for it is acknowledged under the same hold of the lock, or is
    /// left to the caller.
    #[inline]
    pub(crate) fn poll_delivery(
        &mut self,
        cx: &mut Context<'_>,
        acknowledges: bool,
    ) -> Poll<Option<Delivery>> {
        let free = self
            .batch
            .front()
            .is_some_and(|delivery| !acknowledges || delivery.ack.is_none());
        if free && let Some(delivery) = self.batch.pop_front() {
            return Poll::Ready(Some(delivery));
        }
        let mut state = self.handle.shared.lock();
        let mut resume = None;
        if self.batch.is_empty() {
            let ended = state.end.is_some();
            let queue = self.key.and_then(|key| state.subscriptions.get_mut(key));
            let Some(queue) = queue else {
                return Poll::Ready(None);
            };
            if queue.messages.is_empty() {
                if ended || queue.refused.is_some() {
                    return Poll::Ready(None);
                }
                // A burst's memory is not kept for the next one.
                queue.messages.shrink();
                if self.batch.capacity() > KEPT_CAPACITY {
                    self.batch = VecDeque::new();
                }
                let replaced = queue.waker.replace(cx.waker().clone());
                drop(state);
                drop(replaced);
                return Poll::Pending;
            }
            if queue.take(&mut self.batch) {
                state.pressing = state.pressing.saturating_sub(1);
                resume = if state.pressing == 0 {
                    state.driver.take()
                } else {
                    None
                };
            }
        }
        let Some(delivery) = self.batch.pop_front() else {
            return Poll::Pending;
        };
        if acknowledges && let Some(ack) = delivery.ack {
            state.lend_buffer();
            state.taken(ack);
            resume = resume.or_else(|| state.wake_driver());
        }
        drop(state);
        resume.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(delivery))
    }

    /// Removes the queue, settles what was not read, and unsubscribes from what nobody else here
    /// subscribes to. Returns the waiter for the answer if one is wanted and due.
    pub(crate) fn give_up(
        &mut self,
        wait: bool,
        unread: Verdict,
    ) -> Result<Option<usize>, SubscribeError> {
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        let queue = self
            .key
            .take()
            .and_then(|key| state.subscriptions.try_remove(key));
        let Some(mut queue) = queue else {
            return Ok(None);
        };
        if queue.is_cut_off
            && let Some(asked) = queue.asked
            && matches!(state.waiters.get(asked), Some(Waiter::Abandoned))
        {
            // Nobody is going to answer it.
            state.waiters.remove(asked);
        }
        if queue.pace == Pace::Pressing {
            state.pressing = state.pressing.saturating_sub(1);
        }
        queue.messages.drain_into(&mut self.batch);
        state.hold_again(&mut self.batch);
        state.lend_buffer();
        for ack in self.batch.iter().filter_map(|delivery| delivery.ack) {
            state.settle(ack, unread);
        }
        let filters: Vec<_> = queue
            .filters
            .into_iter()
            .map(|filter| filter.filter)
            .filter(|filter| {
                !state
                    .subscriptions
                    .iter()
                    .any(|(_, other)| other.has_filter(filter))
            })
            .collect();
        let mut answer = Ok(None);
        if let Some(lost) = state.refusal(&shared.endpoint) {
            answer = Err(SubscribeError::NotSent(lost));
        } else if !filters.is_empty() {
            let waiter = if wait {
                Waiter::Waiting(Waker::noop().clone())
            } else {
                Waiter::Abandoned
            };
            let new = state.waiters.insert(waiter);
            match state
                .core
                .unsubscribe(filters.clone(), Default::default(), new)
            {
                // While there is no connection it is asked on the next one.
                Ok(()) | Err(UsageError::NotConnected) => {
                    state.note_unsubscribe(new, filters);
                    answer = Ok(wait.then_some(new));
                }
                Err(error) => {
                    state.waiters.remove(new);
                    answer = Err(error.into());
                }
            }
        }
        let driver = state.driver.take();
        drop(state);
        driver.into_iter().for_each(Waker::wake);
        answer
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.get_mut().poll_recv(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Without an UNSUBSCRIBE the messages that still come are acknowledged and forgotten.
        let _ = self.give_up(false, TAKEN);
    }
}
