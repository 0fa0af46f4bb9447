//! PUBLISH (section 3.3).

use std::num::NonZeroU16;

use bytes::{BufMut, Bytes};

use super::{PacketType, Properties, PropertySet, PublishProperties};
use crate::{
    EncodeError, Malformed, PacketId, QoS, TopicError, TopicName, Version,
    codec::{
        read::Reader,
        write::{MAX_REMAINING_LENGTH, prefixed, variable_byte_integer, variable_byte_integer_len},
    },
};

/// An application message: what a publisher sends and a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct Message {
    /// Where.
    pub topic: TopicName,
    /// What. On receipt a slice of the read buffer: keeping a small one for long keeps the buffer.
    pub payload: Bytes,
    /// What is promised about its delivery.
    pub qos: QoS,
    /// To a server: keep it for later subscribers. From a server: it was kept.
    pub retain: bool,
    /// 5.0 only.
    pub properties: Properties<PublishProperties>,
}

impl Message {
    /// At QoS 0, not retained.
    pub fn new(
        topic: impl TryInto<TopicName, Error: Into<TopicError>>,
        payload: impl Into<Bytes>,
    ) -> Result<Self, TopicError> {
        Ok(Self {
            topic: topic.try_into().map_err(Into::into)?,
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::default(),
        })
    }

    /// At this QoS.
    #[must_use]
    pub fn with_qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// Retained or not.
    #[must_use]
    pub fn with_retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// Appends all of a PUBLISH but its payload to `out`, which belongs right behind it.
    ///
    /// On error `out` is as it was. Returns the size of the whole packet.
    pub(crate) fn encode_head(
        &self,
        packet_id: Option<PacketId>,
        dup: bool,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<usize, EncodeError> {
        if packet_id.is_some() != (self.qos != QoS::AtMostOnce) {
            return Err(EncodeError::PacketId);
        }
        if dup && self.qos == QoS::AtMostOnce {
            return Err(EncodeError::DuplicateAtMostOnce);
        }
        let start = out.len();
        let first = self.first_byte(dup);
        let has_properties = version == Version::V5 && !self.properties.is_empty();
        let fixed = 2
            + self.topic.len()
            + if packet_id.is_some() { 2 } else { 0 }
            + if version == Version::V5 { 1 } else { 0 }
            + self.payload.len();
        if !has_properties {
            if fixed > MAX_REMAINING_LENGTH {
                return Err(EncodeError::TooLarge { size: fixed });
            }
            out.reserve(fixed + 5 - self.payload.len());
            out.put_u8(first);
            variable_byte_integer(out, fixed);
            prefixed(out, self.topic.as_bytes());
            if let Some(packet_id) = packet_id {
                out.put_u16(packet_id.value());
            }
            if version == Version::V5 {
                out.put_u8(0);
            }
            return Ok(out.len() - start + self.payload.len());
        }
        let mut properties = Vec::new();
        self.properties.write(&mut properties, version)?;
        let remaining = fixed - 1 + properties.len();
        if remaining > MAX_REMAINING_LENGTH {
            return Err(EncodeError::TooLarge { size: remaining });
        }
        out.put_u8(first);
        variable_byte_integer(out, remaining);
        prefixed(out, self.topic.as_bytes());
        if let Some(packet_id) = packet_id {
            out.put_u16(packet_id.value());
        }
        out.put_slice(&properties);
        Ok(1 + variable_byte_integer_len(remaining) + remaining)
    }

    /// The same in 5.0 for a first PUBLISH, with an alias beside its topic or in its place; the message
    /// has none of its own.
    ///
    /// The size returned is at least that without the alias, so that a packet fits if the server takes
    /// it also on a connection that does not know the alias.
    pub(crate) fn encode_aliased_head(
        &self,
        packet_id: Option<PacketId>,
        alias: TopicAlias,
        out: &mut Vec<u8>,
    ) -> Result<usize, EncodeError> {
        if packet_id.is_some() != (self.qos != QoS::AtMostOnce) {
            return Err(EncodeError::PacketId);
        }
        let mut properties = Vec::new();
        if !self.properties.is_empty() {
            self.properties.write_all(&mut properties);
        }
        let rest = if packet_id.is_some() { 4 } else { 2 } + self.payload.len();
        let with = |topic: usize, section: usize| {
            topic + variable_byte_integer_len(section) + section + rest
        };
        let topic = if alias.is_known { "" } else { &*self.topic };
        let section = properties.len() + TopicAlias::LEN;
        let remaining = with(topic.len(), section);
        let largest = remaining.max(with(self.topic.len(), properties.len()));
        if largest > MAX_REMAINING_LENGTH {
            return Err(EncodeError::TooLarge { size: largest });
        }
        out.put_u8(self.first_byte(false));
        variable_byte_integer(out, remaining);
        prefixed(out, topic.as_bytes());
        if let Some(packet_id) = packet_id {
            out.put_u16(packet_id.value());
        }
        variable_byte_integer(out, section);
        out.put_u8(TopicAlias::ID);
        out.put_u16(alias.number.get());
        out.put_slice(&properties);
        Ok(1 + variable_byte_integer_len(largest) + largest)
    }

    fn first_byte(&self, dup: bool) -> u8 {
        PacketType::Publish.first_byte()
            | u8::from(dup) << 3
            | self.qos.bits() << 1
            | u8::from(self.retain)
    }
}

/// The alias a message is sent with, without a change to the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicAlias {
    pub(crate) number: NonZeroU16,
    /// Whether the server knows it, so that the topic is left out.
    pub(crate) is_known: bool,
}

impl TopicAlias {
    /// What the property takes: its identifier and two bytes.
    pub(crate) const LEN: usize = 3;
    const ID: u8 = 0x23;
}

/// A PUBLISH packet: a message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct Publish {
    /// The message. Its topic is empty if a topic alias stands for it.
    pub message: Message,
    /// Present if and only if the QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// Whether it may have been sent before.
    pub dup: bool,
}

impl Publish {
    pub(super) fn decode(
        flags: u8,
        mut reader: Reader<'_>,
        version: Version,
    ) -> Result<Self, Malformed> {
        let qos = QoS::from_bits(flags >> 1 & 3).ok_or(Malformed::QoS)?;
        let dup = flags & 0b1000 != 0;
        if dup && qos == QoS::AtMostOnce {
            return Err(Malformed::DuplicateAtMostOnce);
        }
        let topic = reader.topic_name()?;
        let packet_id = if qos == QoS::AtMostOnce {
            None
        } else {
            Some(reader.packet_id()?)
        };
        let properties: Properties<PublishProperties> = Properties::read(&mut reader, version)?;
        if topic.is_empty() && properties.topic_alias.is_none() {
            return Err(Malformed::NoTopic);
        }
        let message = Message {
            topic,
            payload: reader.rest(),
            qos,
            retain: flags & 1 != 0,
            properties,
        };
        Ok(Self {
            message,
            packet_id,
            dup,
        })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.message
            .encode_head(self.packet_id, self.dup, version, out)?;
        out.put_slice(&self.message.payload);
        Ok(())
    }
}
