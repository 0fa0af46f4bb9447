//! DISCONNECT (section 3.14).

use bytes::BufMut;

use super::{DisconnectProperties, PacketType, Properties, allowed, encode_packet};
use crate::{EncodeError, Malformed, ReasonCode, Version, codec::read::Reader};

/// The last packet of whoever closes the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct Disconnect {
    /// Why. Always a normal disconnection in 3.1.1.
    pub reason_code: ReasonCode,
    /// 5.0 only.
    pub properties: Properties<DisconnectProperties>,
}

impl Disconnect {
    /// With this code and no properties.
    pub fn new(reason_code: ReasonCode) -> Self {
        Self {
            reason_code,
            properties: Properties::default(),
        }
    }

    /// An empty body means a normal disconnection, one of one byte has no properties.
    pub(super) fn decode(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        let mut disconnect = Self::new(ReasonCode::SUCCESS);
        match version {
            Version::V3 => {}
            Version::V5 if reader.is_empty() => {}
            Version::V5 => {
                disconnect.reason_code = allowed(reader.u8()?, REASON_CODES)?;
                if !reader.is_empty() {
                    disconnect.properties = Properties::read(reader, version)?;
                }
            }
        }
        Ok(disconnect)
    }

    pub(crate) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode_packet(PacketType::Disconnect, out, |out| {
            let plain = self.reason_code == ReasonCode::SUCCESS && self.properties.is_empty();
            if version == Version::V3 || plain {
                return Ok(());
            }
            out.put_u8(self.reason_code.value());
            if self.properties.is_empty() {
                Ok(())
            } else {
                self.properties.write(out, version)
            }
        })
    }

    /// Whether a client may send this code `[MQTT5-3.14.2-1]`.
    pub(crate) fn is_from_client(&self) -> bool {
        CLIENT_REASON_CODES.contains(&self.reason_code)
    }
}

/// 5.0 section 3.14.2.1, those of clients.
const CLIENT_REASON_CODES: &[ReasonCode] = &[
    ReasonCode::SUCCESS,
    ReasonCode::DISCONNECT_WITH_WILL,
    ReasonCode::UNSPECIFIED_ERROR,
    ReasonCode::MALFORMED_PACKET,
    ReasonCode::PROTOCOL_ERROR,
    ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
    ReasonCode::TOPIC_NAME_INVALID,
    ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
    ReasonCode::TOPIC_ALIAS_INVALID,
    ReasonCode::PACKET_TOO_LARGE,
    ReasonCode::MESSAGE_RATE_TOO_HIGH,
    ReasonCode::QUOTA_EXCEEDED,
    ReasonCode::ADMINISTRATIVE_ACTION,
    ReasonCode::PAYLOAD_FORMAT_INVALID,
];

/// 5.0 section 3.14.2.1, all of them.
const REASON_CODES: &[ReasonCode] = &[
    ReasonCode::SUCCESS,
    ReasonCode::DISCONNECT_WITH_WILL,
    ReasonCode::UNSPECIFIED_ERROR,
    ReasonCode::MALFORMED_PACKET,
    ReasonCode::PROTOCOL_ERROR,
    ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
    ReasonCode::NOT_AUTHORIZED,
    ReasonCode::SERVER_BUSY,
    ReasonCode::SERVER_SHUTTING_DOWN,
    ReasonCode::BAD_AUTHENTICATION_METHOD,
    ReasonCode::KEEP_ALIVE_TIMEOUT,
    ReasonCode::SESSION_TAKEN_OVER,
    ReasonCode::TOPIC_FILTER_INVALID,
    ReasonCode::TOPIC_NAME_INVALID,
    ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
    ReasonCode::TOPIC_ALIAS_INVALID,
    ReasonCode::PACKET_TOO_LARGE,
    ReasonCode::MESSAGE_RATE_TOO_HIGH,
    ReasonCode::QUOTA_EXCEEDED,
    ReasonCode::ADMINISTRATIVE_ACTION,
    ReasonCode::PAYLOAD_FORMAT_INVALID,
    ReasonCode::RETAIN_NOT_SUPPORTED,
    ReasonCode::QOS_NOT_SUPPORTED,
    ReasonCode::USE_ANOTHER_SERVER,
    ReasonCode::SERVER_MOVED,
    ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    ReasonCode::CONNECTION_RATE_EXCEEDED,
    ReasonCode::MAXIMUM_CONNECT_TIME,
    ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
    ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
];
