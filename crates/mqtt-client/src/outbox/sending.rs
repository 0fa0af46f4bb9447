//! From the caller into the outbox, and from there to the core when it has room.

use std::{sync::Arc, task::Waker, time::Duration};

use mqtt_pool::Limit;
use mqtt_proto::{Message, QoS};
use tokio::time::Instant;

use super::{Admission, Age, Gone, OutboxStatus, Overflow, Place, Queued};
use crate::{
    error::{ConnectionLost, PublishError},
    publish::Publish,
    shared::{Answer, State, Unsent, Waiter},
};

/// What became of a publish that could not be sent at once.
pub(crate) enum Offered {
    /// It was taken: the key of its waiter, and its place.
    Taken(usize, Place),
    /// It waits to be taken; not before this instant does the outbox have more room by itself.
    Waits {
        publish: Publish,
        replaced: Option<Waker>,
        room: Option<Instant>,
    },
    /// It was taken and dropped.
    Dropped,
    Refused(PublishError),
}

impl State {
    /// Whether a publish goes to the core at once, past the outbox.
    pub(crate) fn sends_at_once(&mut self, qos: QoS, place: Option<Place>) -> bool {
        let is_turn = match &mut self.outbox {
            Some(outbox) => outbox.is_turn_to_send(qos, place),
            None => true,
        };
        is_turn && self.core.has_room(qos)
    }

    /// Whether a small publish at any QoS would be taken at once.
    pub(crate) fn is_ready(&self) -> bool {
        let config = &self.options.outbox;
        match &self.outbox {
            Some(outbox) if outbox.has_room(config) => true,
            Some(outbox) => outbox.is_idle() && self.core.has_room(QoS::AtLeastOnce),
            None if config.overflow != Overflow::Wait => true,
            None => config.max_messages > 0 || self.core.has_room(QoS::AtLeastOnce),
        }
    }

    /// How long this publish may wait, if that is limited.
    pub(crate) fn patience(&self, publish: &Publish) -> Option<Duration> {
        let of_session = match self.options.outbox.max_age {
            Limit::Never => None,
            Limit::After(max_age) => Some(max_age),
        };
        let expiry = if publish.message.properties.is_empty() {
            None
        } else {
            publish.message.properties.message_expiry_interval
        };
        let expiry = expiry.map(|seconds| Duration::from_secs(seconds.into()));
        [of_session, publish.max_age, expiry]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes a publish that cannot be sent at once into the outbox, or puts it among those that wait
    /// to be taken, or refuses it.
    pub(crate) fn offer(
        &mut self,
        publish: Publish,
        expires: Option<Instant>,
        place: &mut Option<Place>,
        waker: &Waker,
        wakers: &mut Vec<Waker>,
    ) -> Offered {
        if self.core.is_connected()
            && let Err(error) = self.core.check_publish(&publish.message)
        {
            // Its place is not kept, or those behind it would wait for ever.
            wakers.extend(self.leave_outbox(publish.message.qos, place, false));
            return Offered::Refused(error.into());
        }
        let options = self.options.clone();
        let config = &options.outbox;
        let (qos, lane) = (publish.message.qos, publish.lane);
        let patience = self.patience(&publish);
        let mut gone = Gone::default();
        let outbox = self.outbox.get_or_insert_default();
        let admission = outbox.admission(config, &publish.message, lane, *place, &mut gone);
        let offered = match admission {
            Admission::Wait => Offered::Waits {
                replaced: outbox.wait(&publish.message, lane, place, waker),
                room: outbox.first_expires(),
                publish,
            },
            Admission::Reject => Offered::Refused(PublishError::Full),
            Admission::Drop => Offered::Dropped,
            Admission::Enter(before) => {
                let age = expires.zip(patience).map(|(expires, patience)| Age {
                    since: expires.checked_sub(patience).unwrap_or(expires),
                    expires,
                });
                let key = self.waiters.insert(Waiter::Waiting(waker.clone()));
                let queued = Queued {
                    message: publish.message,
                    key,
                    age,
                    is_told_when_sent: publish.is_told_when_sent,
                };
                let at = if config.overflow == Overflow::KeepLatest {
                    outbox.push_latest(queued, lane, before)
                } else {
                    outbox.push(queued, lane, before)
                };
                wakers.extend(outbox.leave(qos, place, true));
                if age.is_some_and(|age| outbox.first_expires() == Some(age.expires)) {
                    // Those who are first in line wait for that from now on.
                    wakers.extend(outbox.next_waiting(QoS::AtLeastOnce));
                    wakers.extend(outbox.next_waiting(QoS::AtMostOnce));
                }
                Offered::Taken(key, at)
            }
        };
        self.tell_gone(gone, wakers);
        offered
    }

    fn tell_gone(&mut self, gone: Gone, wakers: &mut Vec<Waker>) {
        for key in gone.displaced {
            self.answer(key, Answer::NotSent(Unsent::Displaced), wakers);
        }
        for key in gone.expired {
            self.answer(key, Answer::NotSent(Unsent::Expired), wakers);
        }
    }

    /// Hands what waits in the outbox to the core while that has room, and wakes those that may be
    /// taken then.
    pub(crate) fn send_queued(&mut self, wakers: &mut Vec<Waker>) {
        for qos in [QoS::AtLeastOnce, QoS::AtMostOnce] {
            while self.core.has_room(qos)
                && let Some(queued) = self.outbox.as_mut().and_then(|outbox| outbox.pop(qos))
            {
                self.send(queued, wakers);
            }
        }
        self.wake_waiting(wakers);
    }

    fn send(&mut self, queued: Queued, wakers: &mut Vec<Waker>) {
        let Queued {
            mut message,
            key,
            age,
            is_told_when_sent,
        } = queued;
        if let Some(age) = age {
            let now = Instant::now();
            if age.expires <= now {
                self.count_expired();
                self.answer(key, Answer::NotSent(Unsent::Expired), wakers);
                return;
            }
            shorten_expiry(&mut message, now.duration_since(age.since));
        }
        self.lend_buffer();
        let (qos, bytes) = (message.qos, message.payload.len());
        match self.core.publish(message, key) {
            Ok(None) => {
                self.count_published(qos, bytes, Some(key));
                if is_told_when_sent && let Some(Waiter::Waiting(waker)) = self.waiters.get(key) {
                    wakers.push(waker.clone());
                }
            }
            Ok(Some(key)) => {
                self.count_published(qos, bytes, None);
                self.answer(key, Answer::Sent, wakers);
            }
            Err(refused) => {
                let error = refused
                    .error
                    .unwrap_or(mqtt_proto::UsageError::NotConnected);
                self.answer(key, Answer::NotAllowed(error), wakers);
            }
        }
    }

    pub(crate) fn count_expired(&mut self) {
        if let Some(outbox) = &mut self.outbox {
            outbox.expired += 1;
        }
    }

    /// One that waits to be taken leaves, as it is sent on its `turn` or given up. Returns its waker.
    pub(crate) fn leave_outbox(
        &mut self,
        qos: QoS,
        place: &mut Option<Place>,
        turn: bool,
    ) -> Option<Waker> {
        self.outbox.as_mut()?.leave(qos, place, turn)
    }

    /// Whether the message of this waiter is in its place still.
    pub(crate) fn is_queued(&self, place: Place, key: usize) -> bool {
        let outbox = self.outbox.as_ref();
        outbox.is_some_and(|outbox| outbox.is_queued(place, key))
    }

    /// Takes a message back that was not sent, if it is still the one of this waiter.
    pub(crate) fn withdraw(&mut self, place: Place, key: usize) -> Option<Queued> {
        self.outbox.as_mut()?.withdraw(place, key)
    }

    /// The same for one that has waited for too long.
    pub(crate) fn withdraw_expired(&mut self, place: Place, key: usize) -> Option<Queued> {
        self.outbox.as_mut()?.withdraw_expired(place, key)
    }

    /// Wakes the first of those that wait to be taken, as far as there is room; each wakes the next.
    pub(crate) fn wake_waiting(&mut self, wakers: &mut Vec<Waker>) {
        let options = &self.options;
        let Some(outbox) = &mut self.outbox else {
            return;
        };
        for qos in [QoS::AtLeastOnce, QoS::AtMostOnce] {
            let is_sent = outbox.class(qos).queued.is_empty() && self.core.has_room(qos);
            if is_sent || outbox.next_fits(qos, &options.outbox) {
                wakers.extend(outbox.next_waiting(qos));
            }
        }
    }

    /// Gives the memory of a past backlog back.
    pub(crate) fn shrink_outbox(&mut self) {
        let is_done = |outbox: &super::Outbox| outbox.is_idle() && !outbox.has_counted();
        if self.outbox.as_deref().is_some_and(is_done) {
            self.outbox = None;
        }
    }

    pub(crate) fn outbox_status(&self) -> OutboxStatus {
        let status = self.outbox.as_ref().map(|outbox| outbox.status());
        status.unwrap_or_default()
    }

    /// How many publishes have been taken and have not ended.
    pub(crate) fn open_publishes(&self) -> usize {
        let queued = self.outbox.as_ref().map_or(0, |outbox| outbox.len());
        self.core.in_flight() + queued
    }

    /// Nothing more is sent: tells those who wait in the outbox.
    pub(crate) fn clear_outbox(&mut self, lost: &Arc<ConnectionLost>, wakers: &mut Vec<Waker>) {
        let queued: Vec<_> = match &mut self.outbox {
            Some(outbox) => outbox.clear().map(|queued| queued.key).collect(),
            None => return,
        };
        for key in queued {
            let unsent = Unsent::Lost(lost.clone());
            self.answer(key, Answer::NotSent(unsent), wakers);
        }
    }
}

/// What is left of a message's expiry interval after it has waited, in whole seconds and at least one.
pub(crate) fn shorten_expiry(message: &mut Message, waited: Duration) {
    if message.properties.is_empty() {
        return;
    }
    if let Some(interval) = &mut message.properties.message_expiry_interval {
        let left = Duration::from_secs(u64::from(*interval)).saturating_sub(waited);
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        *interval = u32::try_from(seconds).unwrap_or(u32::MAX).max(1);
    }
}
