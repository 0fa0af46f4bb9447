//! Messages from the server and what they are owed.
//!
//! ```text
//! QoS 1   PUBLISH -> unacknowledged -- taken, its turn -> PUBACK, forgotten
//! QoS 2   PUBLISH -> Held           -- taken, its turn -> PUBREC, Released -- PUBREL -> PUBCOMP, forgotten
//!                     |                                             +-- PUBLISH again -> PUBREC again
//!                     +-- refused, its turn -> PUBREC 0x80+, forgotten
//! ```
//!
//! Acknowledgements wait for their turn: they leave in the order in which the messages came
//! `[MQTT5-4.6.0-2]` `[MQTT5-4.6.0-3]` `[MQTT3-4.6.0-2]` `[MQTT3-4.6.0-3]`. The QoS 2 states are
//! Session State and outlive the connection; all else ends with it, and the server sends it again.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU16,
};

use crate::{
    Message, PacketId, ProtocolError, QoS, ReasonCode, TopicName,
    packet::{Ack, Connect, PacketType, Publish},
};

/// Names a received QoS 1 or 2 message until it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AckId {
    packet_id: PacketId,
    qos: QoS,
    /// Which arrival, counted over the life of the session.
    arrival: u64,
}

/// What a PUBLISH brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A message for the application, which it acknowledges by this name above QoS 0.
    New(Option<AckId>),
    /// One it has already.
    Repeat,
}

/// A PUBLISH of this connection that is owed a PUBACK or PUBREC.
#[derive(Debug)]
struct Owed {
    packet_id: PacketId,
    qos: QoS,
    ready: Option<ReasonCode>,
}

/// A QoS 2 packet identifier between PUBLISH and PUBREL.
#[derive(Debug, PartialEq, Eq)]
enum ExactlyOnce {
    /// The application has the message and has not taken it.
    Held {
        /// The arrival that was handed out.
        arrival: u64,
        /// The place of its latest PUBLISH among those owed, if that came on this connection.
        owed: Option<u64>,
        taken: Option<ReasonCode>,
    },
    /// PUBREC was sent.
    Released,
}

#[derive(Debug)]
pub(super) struct Receiving {
    /// In order of arrival; the first one's number is `first`.
    owed: VecDeque<Owed>,
    first: u64,
    exactly_once: BTreeMap<PacketId, ExactlyOnce>,
    at_least_once: usize,
    receive_maximum: u16,
    topic_alias_maximum: u16,
    /// Topics by alias, on this connection only `[MQTT5-3.3.2-7]`.
    aliases: Vec<Option<TopicName>>,
}

impl Default for Receiving {
    fn default() -> Self {
        Self {
            owed: VecDeque::new(),
            first: 0,
            exactly_once: BTreeMap::new(),
            at_least_once: 0,
            receive_maximum: u16::MAX,
            topic_alias_maximum: 0,
            aliases: Vec::new(),
        }
    }
}

impl Receiving {
    /// Takes our limits from our CONNECT.
    pub(super) fn set_limits(&mut self, connect: &Connect) {
        self.receive_maximum = connect
            .properties
            .receive_maximum
            .map_or(u16::MAX, NonZeroU16::get);
        self.topic_alias_maximum = connect.properties.topic_alias_maximum.unwrap_or(0);
    }

    /// A PUBLISH came: puts in the topic an alias stands for, and says whether the message is for
    /// the application or a repeat it has already.
    ///
    /// The packet stays where it is, since moving it about costs more than all else here.
    pub(super) fn on_publish(&mut self, publish: &mut Publish) -> Result<Arrival, ProtocolError> {
        if !publish.message.properties.is_empty() {
            self.resolve_alias(&mut publish.message)?;
        }
        let Some(packet_id) = publish.packet_id else {
            return Ok(Arrival::New(None));
        };
        let qos = publish.message.qos;
        let arrival = self.next_arrival();
        if qos == QoS::ExactlyOnce
            && let Some(state) = self.exactly_once.get_mut(&packet_id)
        {
            // A repeat `[MQTT5-4.3.3-10]` `[MQTT3-4.3.3-2]`: acknowledged again, not delivered again.
            let ready = match state {
                ExactlyOnce::Released => Some(ReasonCode::SUCCESS),
                ExactlyOnce::Held { owed: Some(_), .. } => return Ok(Arrival::Repeat),
                ExactlyOnce::Held { owed, taken, .. } => {
                    *owed = Some(arrival);
                    *taken
                }
            };
            self.owe(Owed {
                packet_id,
                qos,
                ready,
            })?;
            return Ok(Arrival::Repeat);
        }
        if self.open() >= usize::from(self.receive_maximum) {
            return Err(ProtocolError::ReceiveMaximumExceeded {
                max: self.receive_maximum,
            });
        }
        self.owe(Owed {
            packet_id,
            qos,
            ready: None,
        })?;
        match qos {
            QoS::ExactlyOnce => {
                let held = ExactlyOnce::Held {
                    arrival,
                    owed: Some(arrival),
                    taken: None,
                };
                self.exactly_once.insert(packet_id, held);
            }
            QoS::AtMostOnce | QoS::AtLeastOnce => self.at_least_once += 1,
        }
        Ok(Arrival::New(Some(AckId {
            packet_id,
            qos,
            arrival,
        })))
    }

    /// The application has taken a message.
    pub(super) fn acknowledge(&mut self, ack: AckId, reason_code: ReasonCode) {
        let place = match ack.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(ack.arrival),
            QoS::ExactlyOnce => match self.exactly_once.get_mut(&ack.packet_id) {
                Some(ExactlyOnce::Held {
                    arrival,
                    owed,
                    taken,
                }) if *arrival == ack.arrival => {
                    *taken = Some(reason_code);
                    *owed
                }
                _ => None,
            },
        };
        let index = place
            .and_then(|place| place.checked_sub(self.first))
            .and_then(|at| usize::try_from(at).ok());
        if let Some(owed) = index.and_then(|index| self.owed.get_mut(index)) {
            owed.ready = Some(reason_code);
        }
    }

    /// The next PUBACK or PUBREC, if it is its turn.
    pub(super) fn next_ack(&mut self) -> Option<(PacketType, Ack)> {
        let ready = self.owed.front()?.ready?;
        let Owed { packet_id, qos, .. } = self.owed.pop_front()?;
        self.first += 1;
        let ack = Ack::with_reason(packet_id, ready);
        if qos != QoS::ExactlyOnce {
            self.at_least_once = self.at_least_once.saturating_sub(1);
            return Some((PacketType::PubAck, ack));
        }
        if ready.is_error() {
            // `[MQTT5-4.3.3-9]`: the identifier is free for a new message.
            self.exactly_once.remove(&packet_id);
        } else {
            self.exactly_once.insert(packet_id, ExactlyOnce::Released);
        }
        Some((PacketType::PubRec, ack))
    }

    /// PUBREL; returns the PUBCOMP it is answered with `[MQTT5-4.3.3-11]`.
    pub(super) fn on_pubrel(&mut self, packet_id: PacketId) -> Ack {
        match self.exactly_once.get(&packet_id) {
            Some(ExactlyOnce::Released) => {
                self.exactly_once.remove(&packet_id);
                Ack::new(packet_id)
            }
            Some(ExactlyOnce::Held { .. }) | None => {
                Ack::with_reason(packet_id, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND)
            }
        }
    }

    /// What is owed on a connection ends with it; the server sends the messages again.
    pub(super) fn connection_lost(&mut self) {
        self.first = self.next_arrival();
        self.owed = VecDeque::new();
        self.at_least_once = 0;
        self.aliases = Vec::new();
        for state in self.exactly_once.values_mut() {
            if let ExactlyOnce::Held { owed, .. } = state {
                *owed = None;
            }
        }
    }

    /// The session is gone.
    pub(super) fn clear(&mut self) {
        self.connection_lost();
        self.exactly_once.clear();
    }

    fn open(&self) -> usize {
        self.at_least_once + self.exactly_once.len()
    }

    fn next_arrival(&self) -> u64 {
        self.first + u64::try_from(self.owed.len()).unwrap_or(u64::MAX)
    }

    /// Repeats count too, or a server could make the line grow for ever.
    fn owe(&mut self, owed: Owed) -> Result<(), ProtocolError> {
        if self.owed.len() >= usize::from(self.receive_maximum) {
            return Err(ProtocolError::ReceiveMaximumExceeded {
                max: self.receive_maximum,
            });
        }
        self.owed.push_back(owed);
        Ok(())
    }

    /// Puts the topic an alias stands for into the message `[MQTT5-3.3.2-10]`.
    fn resolve_alias(&mut self, message: &mut Message) -> Result<(), ProtocolError> {
        let Some(alias) = message.properties.topic_alias else {
            return Ok(());
        };
        let (alias, max) = (alias.get(), self.topic_alias_maximum);
        if alias > max {
            return Err(ProtocolError::TopicAliasTooLarge { alias, max });
        }
        let index = usize::from(alias) - 1;
        if message.topic.is_empty() {
            let known = self.aliases.get(index).and_then(Option::as_ref);
            message.topic = known
                .ok_or(ProtocolError::UnknownTopicAlias { alias })?
                .clone();
            return Ok(());
        }
        if self.aliases.len() <= index {
            self.aliases.resize(index + 1, None);
        }
        if let Some(slot) = self.aliases.get_mut(index) {
            *slot = Some(message.topic.clone());
        }
        Ok(())
    }
}
