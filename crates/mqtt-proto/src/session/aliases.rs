//! Topic aliases of our publishes: which topics the server of this connection knows by a number.
//!
//! Its one rule: **what is in the table, the server was sent on this connection** `[MQTT5-3.3.2-7]`.
//! So a topic is entered when its PUBLISH is in the outbound buffer and not before, and the table ends
//! with the connection; what is sent again names its topic.
//!
//! A full table is a clock: now and then a topic that is not in it moves the hand by one alias, and takes
//! over the one it finds there unless that was used since the hand last came by. That costs the same
//! however large the table is, and topics in regular use stay in it whatever passes through.

use std::{collections::BTreeMap, num::NonZeroU16};

use super::Session;
use crate::{Message, PacketId, TopicName, UsageError, Version, packet::TopicAlias};

/// A shorter topic is sent as it is: an alias costs its property's length with the first message, and
/// should have saved more than that with the second.
const MIN_TOPIC: usize = 2 * TopicAlias::LEN + 1;

/// How many publishes without an alias move the hand once. More topics than aliases, each in turn, then
/// leave the table useful for some of them, and cost hardly more than they would without it.
const PER_STEP: u8 = 16;

#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// The place of each topic in `entries`.
    places: BTreeMap<TopicName, usize>,
    /// The topic of alias `n` is at `n - 1`.
    entries: Vec<Entry>,
    hand: usize,
    /// Publishes without an alias since the hand moved.
    missed: u8,
    /// The caller has set an alias, and they are all its own from then on.
    is_callers: bool,
}

#[derive(Debug)]
struct Entry {
    topic: TopicName,
    /// Since the hand last came by.
    is_used: bool,
}

impl Aliases {
    /// The alias to send the message with. One that is not known yet is to be
    /// [entered](Self::enter) if that was done.
    fn choose(&mut self, message: &Message, max: u16) -> Option<TopicAlias> {
        if message.properties.topic_alias.is_some() {
            // What the caller says of an alias is sent as it is; nothing here shall contradict it.
            *self = Self {
                is_callers: true,
                ..Self::default()
            };
        }
        if self.is_callers || message.topic.len() < MIN_TOPIC {
            return None;
        }
        if let Some(&place) = self.places.get(&message.topic) {
            self.entries.get_mut(place)?.is_used = true;
            return alias(place, true);
        }
        if self.entries.len() < usize::from(max) {
            return alias(self.entries.len(), false);
        }
        self.missed += 1;
        if self.missed < PER_STEP {
            return None;
        }
        self.missed = 0;
        let entry = self.entries.get_mut(self.hand)?;
        if std::mem::take(&mut entry.is_used) {
            self.advance();
            return None;
        }
        alias(self.hand, false)
    }

    /// The server is being sent this topic with an alias chosen for it.
    fn enter(&mut self, topic: &TopicName, alias: TopicAlias) {
        // A copy, since the caller's may be part of something large.
        let topic = topic.copied();
        let place = usize::from(alias.number.get()) - 1;
        self.places.insert(topic.clone(), place);
        let entry = Entry {
            topic,
            is_used: false,
        };
        match self.entries.get_mut(place) {
            None => self.entries.push(entry),
            Some(former) => {
                let former = std::mem::replace(former, entry);
                self.places.remove(&former.topic);
                self.advance();
            }
        }
    }

    fn advance(&mut self) {
        self.hand += 1;
        if self.hand >= self.entries.len() {
            self.hand = 0;
        }
    }
}

fn alias(place: usize, is_known: bool) -> Option<TopicAlias> {
    let number = u16::try_from(place + 1).ok().and_then(NonZeroU16::new)?;
    Some(TopicAlias { number, is_known })
}

impl<T> Session<T> {
    /// Writes a PUBLISH for the first time, by its alias where both sides want that.
    #[inline]
    pub(super) fn write_publish(
        &mut self,
        message: &Message,
        packet_id: Option<PacketId>,
    ) -> Result<(), UsageError> {
        let max = self
            .limits
            .topic_alias_maximum
            .min(self.options.max_topic_aliases);
        // Too large is decided without an alias, which may be what makes it so.
        if max > 0 && self.write_aliased(message, packet_id, max) {
            return Ok(());
        }
        self.outbound.publish(
            message,
            packet_id,
            false,
            self.version,
            self.limits.maximum_packet_size,
        )
    }

    /// `false` if nothing was written. Apart, so that a publish without an alias costs one branch more.
    #[inline(never)]
    fn write_aliased(&mut self, message: &Message, packet_id: Option<PacketId>, max: u16) -> bool {
        if self.version == Version::V3 {
            return false;
        }
        let aliases = self.aliases.get_or_insert_default();
        let Some(alias) = aliases.choose(message, max) else {
            return false;
        };
        let max_size = self.limits.maximum_packet_size;
        let written = self
            .outbound
            .publish_aliased(message, packet_id, alias, max_size)
            .is_ok();
        if written && !alias.is_known {
            aliases.enter(&message.topic, alias);
        }
        written
    }
}
