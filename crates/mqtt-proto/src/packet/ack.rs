//! PUBACK, PUBREC, PUBREL and PUBCOMP: one shape (5.0 sections 3.4 to 3.7).

use bytes::BufMut;

use super::{AckProperties, PacketType, Properties, allowed, encode_packet, write_packet_id};
use crate::{EncodeError, Malformed, PacketId, ReasonCode, Version, codec::read::Reader};

/// The body of a PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct Ack {
    /// The identifier of the PUBLISH it belongs to `[MQTT5-2.2.1-5]` `[MQTT3-2.3.1-6]`.
    pub packet_id: PacketId,
    /// What became of it. Always success in 3.1.1.
    pub reason_code: ReasonCode,
    /// 5.0 only.
    pub properties: Properties<AckProperties>,
}

impl Ack {
    /// Success.
    pub fn new(packet_id: PacketId) -> Self {
        Self::with_reason(packet_id, ReasonCode::SUCCESS)
    }

    /// With this code.
    pub fn with_reason(packet_id: PacketId, reason_code: ReasonCode) -> Self {
        Self {
            packet_id,
            reason_code,
            properties: Properties::default(),
        }
    }

    /// A body of two bytes means success, one of three has no properties (5.0 section 3.4.2).
    pub(super) fn decode(
        packet_type: PacketType,
        reader: &mut Reader<'_>,
        version: Version,
    ) -> Result<Self, Malformed> {
        let mut ack = Self::new(reader.packet_id()?);
        match version {
            Version::V3 => {}
            Version::V5 if reader.is_empty() => {}
            Version::V5 => {
                ack.reason_code = allowed(reader.u8()?, Self::reason_codes(packet_type))?;
                if !reader.is_empty() {
                    ack.properties = Properties::read(reader, version)?;
                }
            }
        }
        Ok(ack)
    }

    pub(crate) fn encode(
        &self,
        packet_type: PacketType,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if version == Version::V3
            || (self.reason_code == ReasonCode::SUCCESS && self.properties.is_empty())
        {
            out.extend_from_slice(&[packet_type.first_byte(), 2]);
            write_packet_id(out, self.packet_id);
            return Ok(());
        }
        encode_packet(packet_type, out, |out| {
            write_packet_id(out, self.packet_id);
            out.put_u8(self.reason_code.value());
            if self.properties.is_empty() {
                Ok(())
            } else {
                self.properties.write(out, version)
            }
        })
    }

    /// `[MQTT5-3.4.2-1]` `[MQTT5-3.5.2-1]` `[MQTT5-3.6.2-1]` `[MQTT5-3.7.2-1]`.
    fn reason_codes(packet_type: PacketType) -> &'static [ReasonCode] {
        const RECEIVED: &[ReasonCode] = &[
            ReasonCode::SUCCESS,
            ReasonCode::NO_MATCHING_SUBSCRIBERS,
            ReasonCode::UNSPECIFIED_ERROR,
            ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
            ReasonCode::NOT_AUTHORIZED,
            ReasonCode::TOPIC_NAME_INVALID,
            ReasonCode::PACKET_IDENTIFIER_IN_USE,
            ReasonCode::QUOTA_EXCEEDED,
            ReasonCode::PAYLOAD_FORMAT_INVALID,
        ];
        const RELEASED: &[ReasonCode] =
            &[ReasonCode::SUCCESS, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND];
        if matches!(packet_type, PacketType::PubRel | PacketType::PubComp) {
            RELEASED
        } else {
            RECEIVED
        }
    }
}
