//! PUBLISH (section 3.3).

use bytes::{BufMut, Bytes};

use super::{PacketType, Properties, PublishProperties};
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
        let first = PacketType::Publish.first_byte()
            | u8::from(dup) << 3
            | self.qos.bits() << 1
            | u8::from(self.retain);
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
