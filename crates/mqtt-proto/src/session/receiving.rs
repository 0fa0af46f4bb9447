//! Messages from the server and what they are owed.
//!
//! ```text
//! QoS 1   PUBLISH -> unacknowledged -- taken, its turn -> PUBACK, forgotten
//! QoS 2   PUBLISH -> Held           -- taken, its turn -> PUBREC, Released -- PUBREL -> PUBCOMP, forgotten
//!                     |                                             +-- PUBLISH again -> PUBREC again
//!                     +-- refused, its turn -> PUBREC 0x80+, forgotten
//! either  given back -- never acknowledged on this connection, forgotten with it
//! ```
//!
//! Acknowledgements wait for their turn: they leave in the order in which the messages came
//! `[MQTT5-4.6.0-2]` `[MQTT5-4.6.0-3]` `[MQTT3-4.6.0-2]` `[MQTT3-4.6.0-3]`. The QoS 2 states are
//! Session State and outlive the connection; all else ends with it, and the server sends it again.
//!
//! The Receive Maximum bounds what is sent on one connection. Messages of earlier ones count while
//! the application has them, so that it never holds more than that.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU16,
};

use crate::{
    Message, PacketId, ProtocolError, QoS, ReasonCode, TopicName,
    packet::{Ack, Connect, PacketType, Publish},
};

/// Names a received QoS 1 or 2 message until it is acknowledged. In the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AckId {
    /// Which arrival, counted over the life of the session.
    arrival: u64,
    packet_id: PacketId,
    qos: QoS,
}

impl AckId {
    pub(super) fn qos(self) -> QoS {
        self.qos
    }
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
    verdict: Verdict,
}

/// What the application says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Taken(ReasonCode),
    /// It has not been processed: the server is to send it again after the next connect.
    GivenBack,
}

/// Where a message that the application has is to be acknowledged.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// At this index of those owed on this connection.
    Line(usize),
    /// When it comes again.
    Later,
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
    Released {
        /// Whether PUBLISH came on this connection.
        here: bool,
    },
}

impl ExactlyOnce {
    /// Whether it is one of those the Receive Maximum is about: sent on this connection, or still
    /// with the application. A PUBREL alone, after a reconnect, is not (5.0 section 4.9).
    fn counts(&self) -> bool {
        match self {
            Self::Held { owed, taken, .. } => owed.is_some() || taken.is_none(),
            Self::Released { here } => *here,
        }
    }
}

/// The code as a client can say it in PUBACK and PUBREC `[MQTT5-3.4.2-1]` `[MQTT5-3.5.2-1]`.
pub(super) fn from_client(reason_code: ReasonCode) -> ReasonCode {
    match reason_code {
        ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
        | ReasonCode::NOT_AUTHORIZED
        | ReasonCode::TOPIC_NAME_INVALID
        | ReasonCode::PACKET_IDENTIFIER_IN_USE
        | ReasonCode::QUOTA_EXCEEDED
        | ReasonCode::PAYLOAD_FORMAT_INVALID => reason_code,
        error if error.is_error() => ReasonCode::UNSPECIFIED_ERROR,
        _ => ReasonCode::SUCCESS,
    }
}

#[derive(Debug)]
pub(super) struct Receiving {
    /// In order of arrival; the first one's number is `first`.
    owed: VecDeque<Owed>,
    first: u64,
    exactly_once: BTreeMap<PacketId, ExactlyOnce>,
    /// Messages that count against the Receive Maximum, by QoS.
    open_at_least_once: usize,
    open_exactly_once: usize,
    receive_maximum: u16,
    topic_alias_maximum: u16,
    /// Topics by alias, on this connection only `[MQTT5-3.3.2-7]`. Boxed, as few servers use any.
    #[expect(clippy::box_collection, reason = "idle sessions are many")]
    aliases: Option<Box<Vec<Option<TopicName>>>>,
}

impl Default for Receiving {
    fn default() -> Self {
        Self {
            owed: VecDeque::new(),
            first: 0,
            exactly_once: BTreeMap::new(),
            open_at_least_once: 0,
            open_exactly_once: 0,
            receive_maximum: u16::MAX,
            topic_alias_maximum: 0,
            aliases: None,
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
            if !state.counts() {
                self.open_exactly_once += 1;
            }
            let verdict = match state {
                ExactlyOnce::Released { here } => {
                    *here = true;
                    Verdict::Taken(ReasonCode::SUCCESS)
                }
                ExactlyOnce::Held { owed: Some(_), .. } => return Ok(Arrival::Repeat),
                ExactlyOnce::Held { owed, taken, .. } => {
                    *owed = Some(arrival);
                    taken.map_or(Verdict::Open, Verdict::Taken)
                }
            };
            self.owe(Owed {
                packet_id,
                qos,
                verdict,
            })?;
            return Ok(Arrival::Repeat);
        }
        if self.open_at_least_once + self.open_exactly_once >= usize::from(self.receive_maximum) {
            return Err(ProtocolError::ReceiveMaximumExceeded {
                max: self.receive_maximum,
            });
        }
        self.owe(Owed {
            packet_id,
            qos,
            verdict: Verdict::Open,
        })?;
        match qos {
            QoS::ExactlyOnce => {
                let held = ExactlyOnce::Held {
                    arrival,
                    owed: Some(arrival),
                    taken: None,
                };
                self.exactly_once.insert(packet_id, held);
                self.open_exactly_once += 1;
            }
            QoS::AtMostOnce | QoS::AtLeastOnce => self.open_at_least_once += 1,
        }
        Ok(Arrival::New(Some(AckId {
            packet_id,
            qos,
            arrival,
        })))
    }

    /// The application has taken a message. Says whether it still was to be acknowledged.
    pub(super) fn acknowledge(&mut self, ack: AckId, reason_code: ReasonCode) -> bool {
        let verdict = Verdict::Taken(reason_code);
        match self.place(ack) {
            Some(Place::Line(index)) => self.settle(index, verdict),
            Some(Place::Later) => self.open_exactly_once -= 1,
            None => return false,
        }
        if ack.qos == QoS::ExactlyOnce
            && let Some(ExactlyOnce::Held { taken, .. }) = self.exactly_once.get_mut(&ack.packet_id)
        {
            *taken = Some(reason_code);
        }
        true
    }

    /// The application has not processed a message and does not have it any more. Says whether it
    /// still was to be acknowledged.
    pub(super) fn give_back(&mut self, ack: AckId) -> bool {
        match self.place(ack) {
            Some(Place::Line(index)) => self.settle(index, Verdict::GivenBack),
            Some(Place::Later) => {
                // Its next PUBLISH brings a new message.
                self.exactly_once.remove(&ack.packet_id);
                self.open_exactly_once -= 1;
            }
            None => return false,
        }
        true
    }

    /// Whether the application has the message and has said nothing of it.
    pub(super) fn is_open(&self, ack: AckId) -> bool {
        self.place(ack).is_some()
    }

    /// Where it is to be acknowledged, if that is still to be.
    fn place(&self, ack: AckId) -> Option<Place> {
        let place = match ack.qos {
            QoS::AtMostOnce => return None,
            QoS::AtLeastOnce => ack.arrival,
            QoS::ExactlyOnce => match self.exactly_once.get(&ack.packet_id) {
                Some(ExactlyOnce::Held {
                    arrival,
                    owed,
                    taken: None,
                }) if *arrival == ack.arrival => match owed {
                    Some(place) => *place,
                    None => return Some(Place::Later),
                },
                Some(ExactlyOnce::Held { .. } | ExactlyOnce::Released { .. }) | None => {
                    return None;
                }
            },
        };
        let index = usize::try_from(place.checked_sub(self.first)?).ok()?;
        let is_open = self.owed.get(index)?.verdict == Verdict::Open;
        is_open.then_some(Place::Line(index))
    }

    fn settle(&mut self, index: usize, verdict: Verdict) {
        if let Some(owed) = self.owed.get_mut(index) {
            owed.verdict = verdict;
        }
    }

    pub(super) fn given_back(&self) -> usize {
        let verdicts = self.owed.iter().map(|owed| owed.verdict);
        verdicts
            .filter(|verdict| *verdict == Verdict::GivenBack)
            .count()
    }

    /// How many messages and repeats of this connection wait for their acknowledgement.
    pub(super) fn unacknowledged(&self) -> usize {
        self.owed.len()
    }

    /// The next PUBACK or PUBREC, if it is its turn.
    pub(super) fn next_ack(&mut self) -> Option<(PacketType, Ack)> {
        loop {
            let Verdict::Taken(ready) = self.owed.front()?.verdict else {
                return None;
            };
            let Owed { packet_id, qos, .. } = self.owed.pop_front()?;
            let place = self.first;
            self.first += 1;
            let ack = Ack::with_reason(packet_id, ready);
            if qos != QoS::ExactlyOnce {
                self.open_at_least_once -= 1;
                return Some((PacketType::PubAck, ack));
            }
            match self.exactly_once.get_mut(&packet_id) {
                Some(ExactlyOnce::Released { .. }) => {}
                Some(ExactlyOnce::Held { owed, .. }) if *owed == Some(place) => {
                    if ready.is_error() {
                        // `[MQTT5-4.3.3-9]`: the identifier is free for a new message.
                        self.exactly_once.remove(&packet_id);
                        self.open_exactly_once -= 1;
                    } else {
                        self.exactly_once
                            .insert(packet_id, ExactlyOnce::Released { here: true });
                    }
                }
                // A repeat whose exchange PUBREL has completed since; the identifier may be in use
                // for a new message.
                Some(ExactlyOnce::Held { .. }) | None => continue,
            }
            return Some((PacketType::PubRec, ack));
        }
    }

    /// PUBREL; returns the PUBCOMP it is answered with `[MQTT5-4.3.3-11]`.
    pub(super) fn on_pubrel(&mut self, packet_id: PacketId) -> Ack {
        match self.exactly_once.get(&packet_id) {
            Some(&ExactlyOnce::Released { here }) => {
                self.exactly_once.remove(&packet_id);
                self.open_exactly_once -= usize::from(here);
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
        for owed in std::mem::take(&mut self.owed) {
            if owed.verdict == Verdict::GivenBack && owed.qos == QoS::ExactlyOnce {
                // When it comes again it is a new message.
                self.exactly_once.remove(&owed.packet_id);
            }
        }
        self.aliases = None;
        for state in self.exactly_once.values_mut() {
            match state {
                ExactlyOnce::Held { owed, .. } => *owed = None,
                ExactlyOnce::Released { here } => *here = false,
            }
        }
        self.open_at_least_once = 0;
        let open = self.exactly_once.values().filter(|state| state.counts());
        self.open_exactly_once = open.count();
    }

    /// The session is gone.
    pub(super) fn clear(&mut self) {
        self.connection_lost();
        self.exactly_once.clear();
        self.open_exactly_once = 0;
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

    /// Puts the topic an alias stands for into the message `[MQTT5-3.3.2-10]`. The alias is this
    /// connection's, so the message goes on without it and can be published again as it is.
    fn resolve_alias(&mut self, message: &mut Message) -> Result<(), ProtocolError> {
        let Some(alias) = message.properties.topic_alias else {
            return Ok(());
        };
        message.properties.topic_alias = None;
        let (alias, max) = (alias.get(), self.topic_alias_maximum);
        if alias > max {
            return Err(ProtocolError::TopicAliasTooLarge { alias, max });
        }
        let index = usize::from(alias) - 1;
        if message.topic.is_empty() {
            let known = self.aliases.as_ref().and_then(|it| it.get(index)?.as_ref());
            message.topic = known
                .ok_or(ProtocolError::UnknownTopicAlias { alias })?
                .clone();
            return Ok(());
        }
        let aliases = self.aliases.get_or_insert_default();
        if aliases.len() <= index {
            aliases.resize(index + 1, None);
        }
        if let Some(slot) = aliases.get_mut(index) {
            // A copy, or each alias would keep a whole read buffer for as long as the connection lasts.
            *slot = Some(message.topic.copied());
        }
        Ok(())
    }
}
