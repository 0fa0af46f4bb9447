//! Publishes that were taken and cannot be sent yet, and those that wait to be taken.
//!
//! QoS 1 and 2 wait for the window of unacknowledged publishes, QoS 0 for the buffer of unwritten
//! bytes, and neither for the other. Both share one bound. Within a class lanes take turns, so that
//! a lane which has more to say than the others does not hold them up.

use std::{
    collections::{BTreeSet, HashMap},
    task::Waker,
};

use mqtt_proto::{Message, QoS, TopicName};
use tokio::time::Instant;

use crate::shared::renew;

mod config;
mod lanes;
mod sending;

pub use config::{OutboxConfig, OutboxStatus, Overflow};
use lanes::Lanes;
pub(crate) use lanes::Place;
pub(crate) use sending::{Offered, shorten_expiry};

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    window: Class,
    buffer: Class,
    arrivals: u64,
    /// The messages that expire, the first to do so first.
    expiring: BTreeSet<(Instant, Place)>,
    rejected: u64,
    displaced: u64,
    expired: u64,
}

/// Those that wait for the same thing.
#[derive(Debug, Default)]
struct Class {
    queued: Lanes<Queued>,
    /// Of the messages that were taken.
    bytes: usize,
    waiting: Lanes<Waiting>,
    /// The messages by topic, where only the latest is kept.
    latest: HashMap<TopicName, Place>,
}

/// One that waits to be taken.
#[derive(Debug)]
struct Waiting {
    /// Of its message.
    size: usize,
    /// Gone once woken, until it comes back.
    waker: Option<Waker>,
}

/// A message that was taken.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) message: Message,
    /// Of its waiter.
    pub(crate) key: usize,
    age: Option<Age>,
    is_told_when_sent: bool,
}

/// From when until when a message may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Age {
    pub(crate) since: Instant,
    pub(crate) expires: Instant,
}

/// What the outbox says to one that asks to be taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Take it, in this place if one has given way for it.
    Enter(Option<Place>),
    Wait,
    Reject,
    /// Take it and drop it.
    Drop,
}

impl Outbox {
    fn class(&mut self, qos: QoS) -> &mut Class {
        match qos {
            QoS::AtMostOnce => &mut self.buffer,
            QoS::AtLeastOnce | QoS::ExactlyOnce => &mut self.window,
        }
    }

    /// How many messages were taken.
    pub(crate) fn len(&self) -> usize {
        self.window.queued.len() + self.buffer.queued.len()
    }

    fn bytes(&self) -> usize {
        self.window.bytes + self.buffer.bytes
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.len() == 0 && self.window.waiting.is_empty() && self.buffer.waiting.is_empty()
    }

    /// Whether it is worth keeping while it is idle.
    pub(crate) fn has_counted(&self) -> bool {
        self.rejected > 0 || self.displaced > 0 || self.expired > 0
    }

    pub(crate) fn status(&self) -> OutboxStatus {
        OutboxStatus {
            messages: self.len(),
            bytes: self.bytes(),
            waiting: self.window.waiting.len() + self.buffer.waiting.len(),
            rejected: self.rejected,
            displaced: self.displaced,
            expired: self.expired,
        }
    }

    /// Whether nothing goes before the holder of `place`, or a newcomer without one, to the server.
    pub(crate) fn is_turn_to_send(&mut self, qos: QoS, place: Option<Place>) -> bool {
        let class = self.class(qos);
        class.queued.is_empty() && class.waiting.front() == place
    }

    /// Whether a small message of either class would be taken at once.
    pub(crate) fn has_room(&self, config: &OutboxConfig) -> bool {
        let nobody_waits = self.window.waiting.is_empty() && self.buffer.waiting.is_empty();
        match config.overflow {
            Overflow::Wait => nobody_waits && self.fits(1, config),
            Overflow::Reject
            | Overflow::DropOldest
            | Overflow::DropNewest
            | Overflow::KeepLatest => true,
        }
    }

    fn fits(&self, size: usize, config: &OutboxConfig) -> bool {
        let has_bytes = self.len() == 0 || self.bytes().saturating_add(size) <= config.max_bytes;
        self.len() < config.max_messages && has_bytes
    }

    /// Whether a message at QoS 0 would fit if it were the only one of them.
    fn fits_beside_others(&self, size: usize, config: &OutboxConfig) -> bool {
        let others = &self.window;
        let has_bytes =
            others.queued.is_empty() || others.bytes.saturating_add(size) <= config.max_bytes;
        others.queued.len() < config.max_messages && has_bytes
    }

    /// Whether the one that is to be taken next fits.
    fn next_fits(&mut self, qos: QoS, config: &OutboxConfig) -> bool {
        let waiting = &self.class(qos).waiting;
        let next = waiting.front().and_then(|front| waiting.get(front));
        let size = next.map(|next| next.size);
        size.is_some_and(|size| self.fits(size, config))
    }

    /// Whether a message is to be taken. What gives way for it is gone then, and its waiters are in
    /// `displaced` and `expired`.
    pub(crate) fn admission(
        &mut self,
        config: &OutboxConfig,
        message: &Message,
        lane: u64,
        place: Option<Place>,
        gone: &mut Gone,
    ) -> Admission {
        let qos = message.qos;
        let size = size(message);
        let is_turn = self.class(qos).waiting.front() == place;
        let fits_at_once = is_turn && self.fits(size, config);
        // Also by one whose turn it is not: the room is that of the first in line.
        if !fits_at_once && !self.expiring.is_empty() {
            self.expire(Instant::now(), gone);
        }
        if !is_turn {
            return Admission::Wait;
        }
        let displaces = matches!(config.overflow, Overflow::DropOldest | Overflow::KeepLatest);
        if displaces && qos == QoS::AtMostOnce && !self.fits_beside_others(size, config) {
            // Nor does any of its own kind give way for what is dropped all the same.
            self.displaced += 1;
            return Admission::Drop;
        }
        let mut before = None;
        if config.overflow == Overflow::KeepLatest {
            before = self.class(qos).latest.get(&message.topic).copied();
            if let Some(before) = before {
                self.displace(before, gone);
            }
        }
        while !self.fits(size, config) {
            let gives_way = match config.overflow {
                Overflow::Wait => return Admission::Wait,
                Overflow::Reject => {
                    self.rejected += 1;
                    return Admission::Reject;
                }
                Overflow::DropNewest => None,
                Overflow::DropOldest | Overflow::KeepLatest => self.gives_way(qos, lane),
            };
            let Some(gives_way) = gives_way else {
                self.displaced += 1;
                return Admission::Drop;
            };
            self.displace(gives_way, gone);
        }
        Admission::Enter(before)
    }

    /// Which message a new one takes the place of: one of its own lane first, QoS 0 before others.
    fn gives_way(&self, qos: QoS, lane: u64) -> Option<Place> {
        let classes: &[_] = match qos {
            QoS::AtMostOnce => &[&self.buffer],
            QoS::AtLeastOnce | QoS::ExactlyOnce => &[&self.buffer, &self.window],
        };
        let mut own = classes.iter().map(|class| class.queued.oldest_of(lane));
        let mut any = classes.iter().map(|class| class.queued.oldest());
        own.find_map(|place| place)
            .or_else(|| any.find_map(|place| place))
    }

    fn displace(&mut self, place: Place, gone: &mut Gone) {
        if let Some(queued) = self.remove(place) {
            self.displaced += 1;
            gone.displaced.push(queued.key);
        }
    }

    /// Removes all that have waited for too long.
    pub(crate) fn expire(&mut self, now: Instant, gone: &mut Gone) {
        while let Some(&(expires, place)) = self.expiring.first()
            && expires <= now
        {
            if let Some(queued) = self.remove(place) {
                self.expired += 1;
                gone.expired.push(queued.key);
            }
        }
    }

    /// Takes a message, in this place or at the end of its lane.
    pub(crate) fn push(&mut self, queued: Queued, lane: u64, place: Option<Place>) -> Place {
        let place = place.unwrap_or_else(|| self.next_place(lane));
        if let Some(age) = queued.age {
            self.expiring.insert((age.expires, place));
        }
        let class = self.class(queued.message.qos);
        class.bytes += size(&queued.message);
        class.queued.insert(place, queued);
        place
    }

    /// The same, where only the latest of a topic is kept.
    pub(crate) fn push_latest(&mut self, queued: Queued, lane: u64, place: Option<Place>) -> Place {
        let (topic, qos) = (queued.message.topic.clone(), queued.message.qos);
        let place = self.push(queued, lane, place);
        self.class(qos).latest.insert(topic, place);
        place
    }

    fn next_place(&mut self, lane: u64) -> Place {
        self.arrivals += 1;
        Place::new(lane, self.arrivals)
    }

    /// The message whose turn it is, if one waits; and how long it may wait, if that is limited.
    fn pop(&mut self, qos: QoS) -> Option<Queued> {
        let queued = &mut self.class(qos).queued;
        let place = queued.front()?;
        queued.turn(place);
        self.remove(place)
    }

    /// A message that is given up, if it is still the one of this waiter.
    pub(crate) fn withdraw(&mut self, place: Place, key: usize) -> Option<Queued> {
        if self.is_queued(place, key) {
            self.remove(place)
        } else {
            None
        }
    }

    pub(crate) fn is_queued(&self, place: Place, key: usize) -> bool {
        let mut classes = [&self.window, &self.buffer].into_iter();
        let queued = classes.find_map(|class| class.queued.get(place));
        queued.is_some_and(|queued| queued.key == key)
    }

    /// The same for one that has waited for too long.
    pub(crate) fn withdraw_expired(&mut self, place: Place, key: usize) -> Option<Queued> {
        let queued = self.withdraw(place, key)?;
        self.expired += 1;
        Some(queued)
    }

    fn remove(&mut self, place: Place) -> Option<Queued> {
        let mut classes = [&mut self.window, &mut self.buffer].into_iter();
        let (class, queued) = classes.find_map(|class| {
            let queued = class.queued.remove(place)?;
            Some((class, queued))
        })?;
        if class.latest.get(&queued.message.topic) == Some(&place) {
            class.latest.remove(&queued.message.topic);
        }
        class.bytes -= size(&queued.message);
        if let Some(age) = queued.age {
            self.expiring.remove(&(age.expires, place));
        }
        Some(queued)
    }

    /// Joins those that wait to be taken, or keeps the place held. Returns the waker that `waker`
    /// replaces.
    pub(crate) fn wait(
        &mut self,
        message: &Message,
        lane: u64,
        place: &mut Option<Place>,
        waker: &Waker,
    ) -> Option<Waker> {
        let held = *place.get_or_insert_with(|| self.next_place(lane));
        let waiting = &mut self.class(message.qos).waiting;
        let Some(known) = waiting.get_mut(held) else {
            let newcomer = Waiting {
                size: size(message),
                waker: Some(waker.clone()),
            };
            waiting.insert(held, newcomer);
            return None;
        };
        match &mut known.waker {
            Some(known) => renew(known, waker),
            woken => woken.replace(waker.clone()),
        }
    }

    /// When the first of the messages expires, and makes room.
    pub(crate) fn first_expires(&self) -> Option<Instant> {
        self.expiring.first().map(|(expires, _)| *expires)
    }

    /// Leaves those that wait to be taken: with `turn`, as the one whose turn it was.
    pub(crate) fn leave(
        &mut self,
        qos: QoS,
        place: &mut Option<Place>,
        turn: bool,
    ) -> Option<Waker> {
        let place = place.take()?;
        let waiting = &mut self.class(qos).waiting;
        if turn {
            waiting.turn(place);
        }
        waiting.remove(place)?.waker
    }

    /// The waker of the one that is to be taken next, if there is one that was not woken yet.
    fn next_waiting(&mut self, qos: QoS) -> Option<Waker> {
        let waiting = &mut self.class(qos).waiting;
        let front = waiting.front()?;
        waiting.get_mut(front)?.waker.take()
    }

    /// All wakers of those that wait to be taken.
    pub(crate) fn all_waiting(&mut self) -> impl Iterator<Item = Waker> {
        let classes = [&mut self.window, &mut self.buffer].into_iter();
        classes.flat_map(|class| {
            let waiting = class.waiting.values_mut();
            waiting.filter_map(|waiting| waiting.waker.take())
        })
    }

    /// All messages, lane by lane.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let classes = [&self.window, &self.buffer].into_iter();
        let queued = classes.flat_map(|class| class.queued.values());
        queued.map(|queued| queued.message.clone()).collect()
    }

    /// Gives up all messages, in order of arrival.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = Queued> {
        self.expiring.clear();
        let classes = [&mut self.window, &mut self.buffer].into_iter();
        classes.flat_map(|class| {
            class.latest.clear();
            class.bytes = 0;
            class.queued.drain()
        })
    }
}

/// The waiters of messages that are not sent.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    displaced: Vec<usize>,
    expired: Vec<usize>,
}

fn size(message: &Message) -> usize {
    message.topic.len() + message.payload.len()
}
