//! UNSUBSCRIBE and UNSUBACK (sections 3.10 and 3.11).

use bytes::BufMut;

use super::{
    AckProperties, PacketType, Properties, UnsubscribeProperties, encode_packet,
    subscribe::read_codes, write_packet_id,
};
use crate::{
    EncodeError, Malformed, PacketId, ReasonCode, TopicFilter, Version,
    codec::{read::Reader, write::prefixed},
};

/// A request for no more messages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct Unsubscribe {
    /// Its UNSUBACK repeats it.
    pub packet_id: PacketId,
    /// At least one.
    pub filters: Vec<TopicFilter>,
    /// 5.0 only.
    pub properties: Properties<UnsubscribeProperties>,
}

impl Unsubscribe {
    pub(super) fn decode(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        let packet_id = reader.packet_id()?;
        let properties = Properties::read(reader, version)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            filters.push(reader.topic_filter()?);
        }
        if filters.is_empty() {
            return Err(Malformed::EmptyList);
        }
        Ok(Self {
            packet_id,
            filters,
            properties,
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode_packet(PacketType::Unsubscribe, out, |out| {
            write_packet_id(out, self.packet_id);
            self.properties.write(out, version)?;
            for filter in &self.filters {
                prefixed(out, filter.as_bytes());
            }
            Ok(())
        })
    }
}

/// The answer to UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct UnsubAck {
    /// That of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// For each filter, in order. Empty in 3.1.1, where the answer is always success.
    pub reason_codes: Vec<ReasonCode>,
    /// 5.0 only.
    pub properties: Properties<AckProperties>,
}

impl UnsubAck {
    pub(super) fn decode(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        const CODES: &[ReasonCode] = &[
            ReasonCode::SUCCESS,
            ReasonCode::NO_SUBSCRIPTION_EXISTED,
            ReasonCode::UNSPECIFIED_ERROR,
            ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
            ReasonCode::NOT_AUTHORIZED,
            ReasonCode::TOPIC_FILTER_INVALID,
            ReasonCode::PACKET_IDENTIFIER_IN_USE,
        ];
        let packet_id = reader.packet_id()?;
        let properties = Properties::read(reader, version)?;
        let reason_codes = match version {
            Version::V3 => Vec::new(),
            Version::V5 => read_codes(reader, CODES)?,
        };
        if version == Version::V5 && reason_codes.is_empty() {
            return Err(Malformed::EmptyList);
        }
        Ok(Self {
            packet_id,
            reason_codes,
            properties,
        })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode_packet(PacketType::UnsubAck, out, |out| {
            write_packet_id(out, self.packet_id);
            self.properties.write(out, version)?;
            match version {
                Version::V3 => {}
                Version::V5 => {
                    for code in &self.reason_codes {
                        out.put_u8(code.value());
                    }
                }
            }
            Ok(())
        })
    }
}
