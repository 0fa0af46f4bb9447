//! AUTH (5.0 section 3.15).

use bytes::BufMut;

use super::{AuthProperties, PacketType, Properties, allowed, encode_packet};
use crate::{EncodeError, Malformed, ReasonCode, Version, codec::read::Reader};

/// A step of enhanced authentication. 5.0 only.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct Auth {
    /// Success, continue or re-authenticate `[MQTT5-3.15.2-1]`.
    pub reason_code: ReasonCode,
    /// Method and data.
    pub properties: Properties<AuthProperties>,
}

impl Auth {
    /// An empty body means success. All but success needs an authentication method (5.0 section
    /// 3.15.2.2.2).
    pub(super) fn decode(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        const CODES: &[ReasonCode] = &[
            ReasonCode::SUCCESS,
            ReasonCode::CONTINUE_AUTHENTICATION,
            ReasonCode::RE_AUTHENTICATE,
        ];
        if reader.is_empty() {
            return Ok(Self {
                reason_code: ReasonCode::SUCCESS,
                properties: Properties::default(),
            });
        }
        let reason_code = allowed(reader.u8()?, CODES)?;
        let properties: Properties<AuthProperties> = Properties::read(reader, version)?;
        let needs_method =
            reason_code != ReasonCode::SUCCESS || properties.authentication_data.is_some();
        if needs_method && properties.authentication_method.is_none() {
            return Err(Malformed::NoAuthenticationMethod);
        }
        Ok(Self {
            reason_code,
            properties,
        })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match version {
            Version::V3 => Err(EncodeError::NotInVersion {
                packet_type: PacketType::Auth,
                version,
            }),
            Version::V5 => encode_packet(PacketType::Auth, out, |out| {
                if self.reason_code == ReasonCode::SUCCESS && self.properties.is_empty() {
                    return Ok(());
                }
                out.put_u8(self.reason_code.value());
                self.properties.write(out, version)
            }),
        }
    }
}
