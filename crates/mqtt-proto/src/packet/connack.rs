//! CONNACK (section 3.2).

use bytes::BufMut;

use super::{ConnAckProperties, PacketType, Properties, allowed, encode_packet};
use crate::{EncodeError, Malformed, ReasonCode, Version, codec::read::Reader};

/// The server's answer to CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct ConnAck {
    /// Whether the server resumes a session it kept.
    pub session_present: bool,
    /// Success, or why the connection is refused. The 3.1.1 return codes are given in the words
    /// of 5.0.
    pub reason_code: ReasonCode,
    /// What the server can do. 5.0 only.
    pub properties: Properties<ConnAckProperties>,
}

impl ConnAck {
    /// Accepted, with a new session.
    pub fn accepted() -> Self {
        Self {
            session_present: false,
            reason_code: ReasonCode::SUCCESS,
            properties: Properties::default(),
        }
    }

    /// Accepted, with the session the server kept.
    pub fn resumed() -> Self {
        Self {
            session_present: true,
            ..Self::accepted()
        }
    }

    /// Refused.
    pub fn refused(reason_code: ReasonCode) -> Self {
        Self {
            reason_code,
            ..Self::accepted()
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        let flags = reader.u8()?;
        if flags > 1 {
            return Err(Malformed::ConnAckFlags(flags));
        }
        let code = reader.u8()?;
        let reason_code = match version {
            Version::V3 => {
                ReasonCode::from_v3_connect_return(code).ok_or(Malformed::ReasonCode(code))?
            }
            Version::V5 => allowed(code, REASON_CODES)?,
        };
        if flags == 1 && reason_code.is_error() {
            return Err(Malformed::SessionPresentInRefusal);
        }
        Ok(Self {
            session_present: flags == 1,
            reason_code,
            properties: Properties::read(reader, version)?,
        })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode_packet(PacketType::ConnAck, out, |out| {
            out.put_u8(u8::from(self.session_present));
            out.put_u8(match version {
                Version::V3 => self.reason_code.to_v3_connect_return(),
                Version::V5 => self.reason_code.value(),
            });
            self.properties.write(out, version)
        })
    }
}

/// 5.0 section 3.2.2.2.
const REASON_CODES: &[ReasonCode] = &[
    ReasonCode::SUCCESS,
    ReasonCode::UNSPECIFIED_ERROR,
    ReasonCode::MALFORMED_PACKET,
    ReasonCode::PROTOCOL_ERROR,
    ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
    ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
    ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
    ReasonCode::BAD_USER_NAME_OR_PASSWORD,
    ReasonCode::NOT_AUTHORIZED,
    ReasonCode::SERVER_UNAVAILABLE,
    ReasonCode::SERVER_BUSY,
    ReasonCode::BANNED,
    ReasonCode::BAD_AUTHENTICATION_METHOD,
    ReasonCode::TOPIC_NAME_INVALID,
    ReasonCode::PACKET_TOO_LARGE,
    ReasonCode::QUOTA_EXCEEDED,
    ReasonCode::PAYLOAD_FORMAT_INVALID,
    ReasonCode::RETAIN_NOT_SUPPORTED,
    ReasonCode::QOS_NOT_SUPPORTED,
    ReasonCode::USE_ANOTHER_SERVER,
    ReasonCode::SERVER_MOVED,
    ReasonCode::CONNECTION_RATE_EXCEEDED,
];
