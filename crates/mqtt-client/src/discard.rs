//! What waits to be read, and which QoS 0 message goes when there is no room for one more.
//!
//! By default the one that has just come goes, so a plain queue will do. The other ways need those of
//! QoS 0 by age and by topic; they pay for it, and nobody else does.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
};

use mqtt_proto::{Message, QoS, TopicName};

use crate::subscription::Delivery;

/// Which QoS 0 messages a reader that falls behind loses. All that are lost count in
/// [`Subscription::dropped`](crate::Subscription::dropped).
///
/// Messages of QoS 1 and 2 in the same queue are never lost; a server sends no more of them than receive
/// maximum. Where they alone fill the queue, a QoS 0 message that comes is the one that goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Discard {
    /// The one that comes and finds the queue full. The default, and the cheapest: what was received
    /// first is read first, and in one go.
    #[default]
    Newest,
    /// Those that have waited longest, until there is room: what is read is recent. The stream takes
    /// one message at a time from the queue, under the session's lock.
    Oldest,
    /// The one of the same topic that has not been read, whether or not there is room: the new one
    /// takes its place. So at most one waits for each topic, and no value is read that is known to be
    /// old, however busy the reader is. If the queue is full all the same, of many topics, what is in
    /// the oldest places goes. It costs what [`Oldest`](Self::Oldest) does.
    AllButLatest,
}

/// An empty queue keeps room for so many messages.
const KEPT_CAPACITY: usize = 16;

/// Messages that wait to be read, in the order in which they are.
#[derive(Debug)]
pub(crate) enum Unread {
    InOrder(VecDeque<Delivery>),
    ByAge(Box<ByAge>),
}

/// Messages under the numbers of their places.
#[derive(Debug, Default)]
pub(crate) struct ByAge {
    /// Of QoS 1 and 2.
    kept: VecDeque<(u64, Delivery)>,
    /// Of QoS 0.
    free: BTreeMap<u64, Delivery>,
    /// Where the latest QoS 0 message of each topic is, if they take each other's places.
    latest: Option<HashMap<TopicName, u64>>,
    next: u64,
}

impl Unread {
    pub(crate) fn new(discard: Discard) -> Self {
        match discard {
            Discard::Newest => Self::InOrder(VecDeque::new()),
            Discard::Oldest => Self::ByAge(Box::default()),
            Discard::AllButLatest => Self::ByAge(Box::new(ByAge {
                latest: Some(HashMap::new()),
                ..ByAge::default()
            })),
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::InOrder(messages) => messages.len(),
            Self::ByAge(messages) => messages.kept.len() + messages.free.len(),
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, delivery: Delivery) {
        match self {
            Self::InOrder(messages) => messages.push_back(delivery),
            Self::ByAge(messages) => messages.push(delivery),
        }
    }

    /// Exchanges a QoS 0 message for the unread one of its topic, if that is to go for its sake.
    pub(crate) fn replace(&mut self, message: &mut Message) -> bool {
        match self {
            Self::InOrder(_) => false,
            Self::ByAge(messages) => messages.replace(message),
        }
    }

    /// Takes out the QoS 0 message in the oldest place, if one is to go for the sake of another.
    pub(crate) fn pop_discarded(&mut self) -> Option<Delivery> {
        match self {
            Self::InOrder(_) => None,
            Self::ByAge(messages) => messages.pop_free(),
        }
    }

    /// Takes out the message that has waited longest.
    pub(crate) fn pop(&mut self) -> Option<Delivery> {
        match self {
            Self::InOrder(messages) => messages.pop_front(),
            Self::ByAge(messages) => messages.pop(),
        }
    }

    /// Hands the reader, which has nothing left, what it is to read next: all of it, or one message
    /// where those that wait may still go for the sake of others.
    #[inline]
    pub(crate) fn take(&mut self, batch: &mut VecDeque<Delivery>) {
        match self {
            Self::InOrder(messages) => mem::swap(messages, batch),
            Self::ByAge(messages) => batch.extend(messages.pop()),
        }
    }

    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&Delivery) -> bool) {
        match self {
            Self::InOrder(messages) => messages.retain(stays),
            Self::ByAge(messages) => messages.kept.retain(|(_, delivery)| stays(delivery)),
        }
    }

    /// All of it that is owed an acknowledgement, behind what the reader has.
    pub(crate) fn drain_into(&mut self, batch: &mut VecDeque<Delivery>) {
        match self {
            Self::InOrder(messages) => batch.append(messages),
            Self::ByAge(messages) => {
                batch.extend(messages.kept.drain(..).map(|(_, delivery)| delivery));
            }
        }
    }

    /// Frees what a burst has taken, of a queue that is empty.
    pub(crate) fn shrink(&mut self) {
        match self {
            Self::InOrder(messages) if messages.capacity() > KEPT_CAPACITY => {
                *messages = VecDeque::new();
            }
            Self::InOrder(_) => {}
            Self::ByAge(messages) => messages.shrink(),
        }
    }
}

impl ByAge {
    fn push(&mut self, delivery: Delivery) {
        let place = self.next;
        self.next += 1;
        if delivery.message.qos != QoS::AtMostOnce {
            self.kept.push_back((place, delivery));
            return;
        }
        if let Some(latest) = &mut self.latest {
            latest.insert(delivery.message.topic.clone(), place);
        }
        self.free.insert(place, delivery);
    }

    fn replace(&mut self, message: &mut Message) -> bool {
        let Some(latest) = &mut self.latest else {
            return false;
        };
        let place = latest.remove(&message.topic);
        let Some((place, old)) = place.and_then(|place| Some((place, self.free.get_mut(&place)?)))
        else {
            return false;
        };
        // The topic of the new one, since that of the old one may keep a read buffer alive.
        latest.insert(message.topic.clone(), place);
        mem::swap(&mut old.message, message);
        true
    }

    fn pop(&mut self) -> Option<Delivery> {
        let kept = self.kept.front().map(|(place, _)| place);
        let free = self.free.first_key_value().map(|(place, _)| place);
        match (kept, free) {
            (Some(kept), Some(free)) if free < kept => self.pop_free(),
            (None, _) => self.pop_free(),
            (Some(_), _) => self.kept.pop_front().map(|(_, delivery)| delivery),
        }
    }

    fn pop_free(&mut self) -> Option<Delivery> {
        let (_, delivery) = self.free.pop_first()?;
        if let Some(latest) = &mut self.latest {
            latest.remove(&delivery.message.topic);
        }
        Some(delivery)
    }

    fn shrink(&mut self) {
        if self.kept.capacity() > KEPT_CAPACITY {
            self.kept = VecDeque::new();
        }
        if let Some(latest) = &mut self.latest
            && latest.capacity() > KEPT_CAPACITY
        {
            *latest = HashMap::new();
        }
    }
}
