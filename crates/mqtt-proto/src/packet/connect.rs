//! CONNECT (section 3.1).

use bytes::{BufMut, Bytes};

use super::{ConnectProperties, PacketType, Properties, WillProperties, encode_packet};
use crate::{
    BinaryData, EncodeError, Malformed, QoS, Secret, TextError, TopicError, TopicName, Utf8String,
    Version,
    codec::{read::Reader, write::prefixed},
};

/// The client's opening packet. It is also where the client states its own limits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct Connect {
    /// The version the connection speaks.
    pub version: Version,
    /// The name of the client and of its session; empty lets the server choose one.
    pub client_id: Utf8String,
    /// Whether to begin a new session and drop an old one. *Clean Session* in 3.1.1, where it also
    /// ends the new session with its connection.
    pub clean_start: bool,
    /// The longest silence of the client, in seconds; 0 switches keep-alive off.
    pub keep_alive: u16,
    /// What the server publishes when the connection ends without DISCONNECT.
    pub will: Option<Box<Will>>,
    /// User name.
    pub user_name: Option<Utf8String>,
    /// Password; never printed.
    pub password: Option<Secret>,
    /// 5.0 only on the wire; in 3.1.1 the client still holds the server to the limits in them.
    pub properties: Properties<ConnectProperties>,
}

/// A message the server publishes for a client that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the specification's list is closed"
)]
pub struct Will {
    /// Where.
    pub topic: TopicName,
    /// What.
    pub payload: BinaryData,
    /// At which QoS.
    pub qos: QoS,
    /// Whether the server keeps it for later subscribers.
    pub retain: bool,
    /// 5.0 only.
    pub properties: Properties<WillProperties>,
}

impl Will {
    /// At QoS 0, not retained.
    pub fn new(topic: TopicName, payload: impl Into<Bytes>) -> Result<Self, TextError> {
        Ok(Self {
            topic,
            payload: BinaryData::new(payload)?,
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::default(),
        })
    }
}

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;

impl Connect {
    /// A clean start without credentials or will, and a keep-alive of 30 s.
    pub fn new(
        version: Version,
        client_id: impl TryInto<Utf8String, Error: Into<TextError>>,
    ) -> Result<Self, TextError> {
        Ok(Self {
            version,
            client_id: client_id.try_into().map_err(Into::into)?,
            clean_start: true,
            keep_alive: 30,
            will: None,
            user_name: None,
            password: None,
            properties: Properties::default(),
        })
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.text()? != "MQTT" {
            return Err(Malformed::ProtocolName);
        }
        let version = match reader.u8()? {
            4 => Version::V3,
            5 => Version::V5,
            level => return Err(Malformed::ProtocolLevel(level)),
        };
        let flags = reader.u8()?;
        let has = |flag: u8| flags & flag != 0;
        let will_qos = QoS::from_bits(flags >> 3 & 3).ok_or(Malformed::ConnectFlags(flags))?;
        let will_flags_alone = !has(WILL) && (has(WILL_RETAIN) || will_qos != QoS::AtMostOnce);
        let password_alone = version == Version::V3 && has(PASSWORD) && !has(USER_NAME);
        if has(1) || will_flags_alone || password_alone {
            return Err(Malformed::ConnectFlags(flags));
        }
        let keep_alive = reader.u16()?;
        let properties: Properties<ConnectProperties> = Properties::read(reader, version)?;
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(Malformed::AuthenticationDataAlone);
        }
        let client_id = reader.text()?;
        let will = if has(WILL) {
            let properties = Properties::read(reader, version)?;
            let topic = reader.topic_name()?;
            if topic.is_empty() {
                return Err(Malformed::TopicName(TopicError::Empty));
            }
            let payload = reader.binary()?;
            Some(Box::new(Will {
                topic,
                payload,
                qos: will_qos,
                retain: has(WILL_RETAIN),
                properties,
            }))
        } else {
            None
        };
        Ok(Self {
            version,
            client_id,
            clean_start: has(CLEAN_START),
            keep_alive,
            will,
            user_name: has(USER_NAME).then(|| reader.text()).transpose()?,
            password: has(PASSWORD).then(|| reader.secret()).transpose()?,
            properties,
        })
    }

    /// Payload order: client identifier, will properties, will topic, will payload, user name,
    /// password `[MQTT5-3.1.3-1]` `[MQTT3-3.1.3-1]`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode_packet(PacketType::Connect, out, |out| {
            prefixed(out, b"MQTT");
            out.put_u8(self.version.level());
            out.put_u8(self.flags());
            out.put_u16(self.keep_alive);
            self.properties.write(out, self.version)?;
            prefixed(out, self.client_id.as_bytes());
            if let Some(will) = &self.will {
                will.properties.write(out, self.version)?;
                prefixed(out, will.topic.as_bytes());
                prefixed(out, &will.payload);
            }
            if let Some(user_name) = &self.user_name {
                prefixed(out, user_name.as_bytes());
            }
            if let Some(password) = &self.password {
                prefixed(out, password.expose());
            }
            Ok(())
        })
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | will.qos.bits() << 3;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.user_name.is_some() {
            flags |= USER_NAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        flags
    }
}
