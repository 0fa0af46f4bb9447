//! SUBSCRIBE and SUBACK (sections 3.8 and 3.9).

use bytes::BufMut;

use super::{
    AckProperties, PacketType, Properties, SubscribeProperties, allowed, encode_packet,
    write_packet_id,
};
use crate::{
    EncodeError, Malformed, PacketId, QoS, ReasonCode, TopicFilter, Version,
    codec::{read::Reader, write::prefixed},
};

/// A request for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct Subscribe {
    /// Its SUBACK repeats it.
    pub packet_id: PacketId,
    /// At least one.
    pub filters: Vec<SubscribeFilter>,
    /// 5.0 only.
    pub properties: Properties<SubscribeProperties>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct SubscribeFilter {
    /// Which topics.
    pub filter: TopicFilter,
    /// How.
    pub options: SubscribeOptions,
}

/// How messages of a subscription are to be sent. All but the QoS is 5.0 only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct SubscribeOptions {
    /// The highest QoS at which messages come.
    pub qos: QoS,
    /// Not those this client published itself. Not on a shared subscription `[MQTT5-3.8.3-4]`.
    pub no_local: bool,
    /// Whether the retain flag comes as it was published.
    pub retain_as_published: bool,
    /// Whether retained messages come now.
    pub retain_handling: RetainHandling,
}

/// Whether retained messages are sent when a subscription is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "the specification's list is closed"
)]
pub enum RetainHandling {
    /// At every subscribe.
    #[default]
    Send,
    /// Only if there was no such subscription.
    SendIfNew,
    /// Never.
    DoNotSend,
}

impl SubscribeOptions {
    /// This QoS, the rest by default.
    pub fn new(qos: QoS) -> Self {
        Self {
            qos,
            ..Self::default()
        }
    }

    fn bits(self, version: Version) -> u8 {
        match version {
            Version::V3 => self.qos.bits(),
            Version::V5 => {
                let handling = match self.retain_handling {
                    RetainHandling::Send => 0,
                    RetainHandling::SendIfNew => 1,
                    RetainHandling::DoNotSend => 2,
                };
                self.qos.bits()
                    | u8::from(self.no_local) << 2
                    | u8::from(self.retain_as_published) << 3
                    | handling << 4
            }
        }
    }

    fn from_bits(bits: u8, version: Version) -> Option<Self> {
        let reserved = match version {
            Version::V3 => 0b1111_1100,
            Version::V5 => 0b1100_0000,
        };
        if bits & reserved != 0 {
            return None;
        }
        Some(Self {
            qos: QoS::from_bits(bits & 3)?,
            no_local: bits & 4 != 0,
            retain_as_published: bits & 8 != 0,
            retain_handling: match bits >> 4 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return None,
            },
        })
    }
}

impl Subscribe {
    pub(super) fn decode(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        let packet_id = reader.packet_id()?;
        let properties = Properties::read(reader, version)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            let filter = reader.topic_filter()?;
            let bits = reader.u8()?;
            let options = SubscribeOptions::from_bits(bits, version)
                .ok_or(Malformed::SubscriptionOptions(bits))?;
            if options.no_local && filter.share_name().is_some() {
                return Err(Malformed::SubscriptionOptions(bits));
            }
            filters.push(SubscribeFilter { filter, options });
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
        encode_packet(PacketType::Subscribe, out, |out| {
            write_packet_id(out, self.packet_id);
            self.properties.write(out, version)?;
            for SubscribeFilter { filter, options } in &self.filters {
                prefixed(out, filter.as_bytes());
                out.put_u8(options.bits(version));
            }
            Ok(())
        })
    }
}

/// The answer to SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct SubAck {
    /// That of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// For each filter, in order: the QoS granted, or a failure.
    pub reason_codes: Vec<ReasonCode>,
    /// 5.0 only.
    pub properties: Properties<AckProperties>,
}

impl SubAck {
    pub(super) fn decode(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        const V3: &[ReasonCode] = &[
            ReasonCode::SUCCESS,
            ReasonCode::GRANTED_QOS_1,
            ReasonCode::GRANTED_QOS_2,
            ReasonCode::UNSPECIFIED_ERROR,
        ];
        const V5: &[ReasonCode] = &[
            ReasonCode::SUCCESS,
            ReasonCode::GRANTED_QOS_1,
            ReasonCode::GRANTED_QOS_2,
            ReasonCode::UNSPECIFIED_ERROR,
            ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
            ReasonCode::NOT_AUTHORIZED,
            ReasonCode::TOPIC_FILTER_INVALID,
            ReasonCode::PACKET_IDENTIFIER_IN_USE,
            ReasonCode::QUOTA_EXCEEDED,
            ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
            ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
            ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
        ];
        let packet_id = reader.packet_id()?;
        let properties = Properties::read(reader, version)?;
        let codes = match version {
            Version::V3 => V3,
            Version::V5 => V5,
        };
        let reason_codes = read_codes(reader, codes)?;
        if reason_codes.is_empty() {
            return Err(Malformed::EmptyList);
        }
        Ok(Self {
            packet_id,
            reason_codes,
            properties,
        })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode_packet(PacketType::SubAck, out, |out| {
            write_packet_id(out, self.packet_id);
            self.properties.write(out, version)?;
            for code in &self.reason_codes {
                out.put_u8(match version {
                    Version::V3 if code.is_error() => ReasonCode::UNSPECIFIED_ERROR.value(),
                    Version::V3 | Version::V5 => code.value(),
                });
            }
            Ok(())
        })
    }
}

/// The reason codes to the end of the packet.
pub(super) fn read_codes(
    reader: &mut Reader<'_>,
    codes: &[ReasonCode],
) -> Result<Vec<ReasonCode>, Malformed> {
    let mut read = Vec::new();
    while !reader.is_empty() {
        read.push(allowed(reader.u8()?, codes)?);
    }
    Ok(read)
}
