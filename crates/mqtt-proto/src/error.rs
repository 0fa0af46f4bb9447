//! Errors, grouped by whose fault they are.
//!
//! | type | blame |
//! | --- | --- |
//! | [`MalformedPacket`], [`DecodeError`] | the bytes were not a packet we take |
//! | [`ProtocolError`] | the peer sent a packet that breaks a rule |
//! | [`UsageError`], [`EncodeError`] | the caller asked for what is not allowed |
//!
//! `reason_code()` is the one place that says what a DISCONNECT tells the peer about an error.

use std::{fmt, time::Duration};

use thiserror::Error;

use crate::{PacketId, ReasonCode, TextError, TopicError, Version, packet::PacketType};

/// The next packet cannot be taken from the bytes received. The connection is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not a packet.
    #[error(transparent)]
    Malformed(#[from] MalformedPacket),
    /// The packet is larger than we said we take; found from its header, before its body is stored.
    #[error(
        "a {packet_type} of {size} bytes is more than the maximum packet size of {max} [MQTT5 3.1.2.11.4]"
    )]
    TooLarge {
        /// The kind of packet.
        packet_type: PacketType,
        /// Its size on the wire, in bytes.
        size: u32,
        /// The limit, in bytes.
        max: u32,
    },
}

impl DecodeError {
    /// What to tell the peer.
    pub fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Malformed(malformed) => malformed.kind.reason_code(),
            Self::TooLarge { .. } => ReasonCode::PACKET_TOO_LARGE,
        }
    }
}

/// Bytes that are not a packet: what is wrong, in which packet, under which version's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MalformedPacket {
    /// What is wrong.
    pub kind: Malformed,
    /// The packet it was found in.
    pub packet_type: Option<PacketType>,
    /// The version whose rules it breaks.
    pub version: Version,
}

impl fmt::Display for MalformedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed ")?;
        match self.packet_type {
            Some(packet_type) => write!(f, "{packet_type}")?,
            None => f.write_str("packet")?,
        }
        let (v3, v5) = self.kind.statements(self.packet_type);
        let (prefix, statement) = match self.version {
            Version::V3 => ("MQTT3", v3),
            Version::V5 => ("MQTT5", v5),
        };
        write!(f, ": {} [{prefix}{statement}]", self.kind)
    }
}

impl std::error::Error for MalformedPacket {}

/// The ways in which bytes fail to be a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A packet type that does not exist in this version.
    #[error("packet type {0} does not exist")]
    PacketType(u8),
    /// Fixed-header flags other than those the type prescribes.
    #[error("fixed header flags {0:#06b} are not those of the packet type")]
    Flags(u8),
    /// A variable byte integer of more than four bytes, or longer than needed.
    #[error("a variable byte integer is longer than needed or than four bytes")]
    VariableByteInteger,
    /// A field reaches past the end of its packet or property section.
    #[error("a field reaches past the end of the packet")]
    Truncated,
    /// Bytes remain after the last field.
    #[error("bytes remain after the last field")]
    TrailingBytes,
    /// A string field that is not an MQTT string.
    #[error("a string field is not an MQTT string: {0}")]
    Text(TextError),
    /// A topic name field that is not a topic name.
    #[error("the topic name is not one: {0}")]
    TopicName(TopicError),
    /// A topic filter field that is not a topic filter.
    #[error("a topic filter is not one: {0}")]
    TopicFilter(TopicError),
    /// A response topic that is not a topic name.
    #[error("the response topic is not a topic name: {0}")]
    ResponseTopic(TopicError),
    /// Packet identifier zero.
    #[error("the packet identifier is zero")]
    ZeroPacketId,
    /// Both QoS bits set.
    #[error("the QoS is 3")]
    QoS,
    /// A QoS 0 PUBLISH marked as a duplicate.
    #[error("a QoS 0 publish is marked as a duplicate")]
    DuplicateAtMostOnce,
    /// An empty topic name without a topic alias.
    #[error("the topic name is empty and there is no topic alias")]
    NoTopic,
    /// A reason or return code the packet cannot carry.
    #[error("the packet cannot carry reason code 0x{0:02X}")]
    ReasonCode(u8),
    /// CONNACK acknowledge flags other than session present.
    #[error("reserved acknowledge flags are set: {0:#010b}")]
    ConnAckFlags(u8),
    /// Session present together with a refusal.
    #[error("session present is set in a refusal")]
    SessionPresentInRefusal,
    /// A protocol name other than `MQTT`.
    #[error("the protocol name is not MQTT")]
    ProtocolName,
    /// A protocol level other than 4 or 5.
    #[error("protocol level {0} is neither 4 nor 5")]
    ProtocolLevel(u8),
    /// CONNECT flags that contradict each other.
    #[error("the connect flags contradict each other: {0:#010b}")]
    ConnectFlags(u8),
    /// Subscription options with reserved bits, QoS 3 or retain handling 3, or No Local on a
    /// shared subscription.
    #[error("the subscription options are not allowed: {0:#010b}")]
    SubscriptionOptions(u8),
    /// SUBSCRIBE or UNSUBSCRIBE without a filter, or an acknowledgement of either without a code.
    #[error("the list is empty")]
    EmptyList,
    /// A property identifier that does not exist.
    #[error("property 0x{0:02X} does not exist")]
    UnknownProperty(u32),
    /// A property in a packet it does not belong to.
    #[error("property 0x{0:02X} does not belong to the packet")]
    MisplacedProperty(u8),
    /// A property that may stand once and stands twice.
    #[error("property 0x{0:02X} stands twice")]
    RepeatedProperty(u8),
    /// A property value out of its range.
    #[error("property 0x{0:02X} has a value out of its range")]
    PropertyValue(u8),
    /// Topic alias zero.
    #[error("the topic alias is zero")]
    ZeroTopicAlias,
    /// More user properties than [`MAX_USER_PROPERTIES`](crate::codec::MAX_USER_PROPERTIES).
    #[error("more user properties than are taken")]
    TooManyUserProperties,
    /// Authentication data without a method.
    #[error("authentication data stands without a method")]
    AuthenticationDataAlone,
    /// AUTH without an authentication method.
    #[error("there is no authentication method")]
    NoAuthenticationMethod,
}

impl Malformed {
    /// What to tell the peer.
    pub fn reason_code(self) -> ReasonCode {
        match self {
            Self::ZeroTopicAlias => ReasonCode::TOPIC_ALIAS_INVALID,
            Self::TopicName(TopicError::Wildcard) => ReasonCode::TOPIC_NAME_INVALID,
            Self::ProtocolLevel(_) => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            Self::TooManyUserProperties => ReasonCode::QUOTA_EXCEEDED,
            // Reserved bits are malformed [MQTT5-3.8.3-5]; values that contradict the rest are not.
            Self::SubscriptionOptions(bits) if bits & 0b1100_0000 == 0 => {
                ReasonCode::PROTOCOL_ERROR
            }
            Self::NoTopic
            | Self::ResponseTopic(_)
            | Self::EmptyList
            | Self::RepeatedProperty(_)
            | Self::PropertyValue(_)
            | Self::AuthenticationDataAlone
            | Self::NoAuthenticationMethod => ReasonCode::PROTOCOL_ERROR,
            Self::PacketType(_)
            | Self::Flags(_)
            | Self::VariableByteInteger
            | Self::Truncated
            | Self::TrailingBytes
            | Self::Text(_)
            | Self::TopicName(_)
            | Self::TopicFilter(_)
            | Self::ZeroPacketId
            | Self::QoS
            | Self::DuplicateAtMostOnce
            | Self::ReasonCode(_)
            | Self::ConnAckFlags(_)
            | Self::SessionPresentInRefusal
            | Self::ProtocolName
            | Self::ConnectFlags(_)
            | Self::SubscriptionOptions(_)
            | Self::UnknownProperty(_)
            | Self::MisplacedProperty(_) => ReasonCode::MALFORMED_PACKET,
        }
    }

    /// The statement it breaks in 3.1.1 and in 5.0, where found in a packet of this type: `-`
    /// before a numbered one, a space before a section.
    fn statements(self, packet_type: Option<PacketType>) -> (&'static str, &'static str) {
        const NO_PROPERTIES: &str = " 1";
        match self {
            Self::PacketType(_) => (" 2.2.1", " 2.1.2"),
            Self::Flags(_) => ("-2.2.2-2", "-2.1.3-1"),
            Self::VariableByteInteger => (" 2.2.3", "-1.5.5-1"),
            Self::Truncated => ("-4.8.0-1", " 4.13.1"),
            Self::TrailingBytes => ("-4.8.0-1", " 4.13.1"),
            Self::Text(TextError::Nul) => ("-1.5.3-2", "-1.5.4-2"),
            Self::Text(_) => ("-1.5.3-1", "-1.5.4-1"),
            Self::TopicName(error) => match error {
                TopicError::Text(TextError::Nul) => ("-4.7.3-2", "-4.7.3-2"),
                TopicError::Wildcard => ("-3.3.2-2", "-3.3.2-2"),
                TopicError::Empty => ("-4.7.3-1", "-4.7.3-1"),
                TopicError::Text(_)
                | TopicError::MultiLevel
                | TopicError::SingleLevel
                | TopicError::Share => ("-3.3.2-1", "-3.3.2-1"),
            },
            Self::TopicFilter(error) => match error {
                TopicError::Empty => ("-4.7.3-1", "-4.7.3-1"),
                TopicError::Text(TextError::Nul) => ("-4.7.3-2", "-4.7.3-2"),
                TopicError::MultiLevel => ("-4.7.1-2", "-4.7.1-1"),
                TopicError::SingleLevel => ("-4.7.1-3", "-4.7.1-2"),
                TopicError::Share => (" 4.7", "-4.8.2-2"),
                TopicError::Text(_) | TopicError::Wildcard => ("-3.8.3-1", "-3.8.3-1"),
            },
            Self::ResponseTopic(TopicError::Empty) => (NO_PROPERTIES, "-4.7.3-1"),
            Self::ResponseTopic(_) => (NO_PROPERTIES, "-3.3.2-14"),
            Self::ZeroPacketId => ("-2.3.1-1", "-2.2.1-3"),
            Self::QoS => ("-3.3.1-4", "-3.3.1-4"),
            Self::DuplicateAtMostOnce => ("-3.3.1-2", "-3.3.1-2"),
            Self::NoTopic => ("-4.7.3-1", "-4.7.3-1"),
            Self::ReasonCode(_) => match packet_type {
                Some(PacketType::ConnAck) => (" 3.2.2.3", "-3.2.2-8"),
                Some(PacketType::PubAck) => (" 3.4", "-3.4.2-1"),
                Some(PacketType::PubRec) => (" 3.5", "-3.5.2-1"),
                Some(PacketType::PubRel) => (" 3.6", "-3.6.2-1"),
                Some(PacketType::PubComp) => (" 3.7", "-3.7.2-1"),
                Some(PacketType::SubAck) => ("-3.9.3-2", "-3.9.3-2"),
                Some(PacketType::UnsubAck) => (" 3.11", "-3.11.3-2"),
                Some(PacketType::Disconnect) => (" 3.14", "-3.14.2-1"),
                Some(PacketType::Auth) => (" 2.2.1", "-3.15.2-1"),
                _ => (" 4.8", " 2.4"),
            },
            Self::ConnAckFlags(_) => (" 3.2.2.1", " 3.2.2.1"),
            Self::SessionPresentInRefusal => ("-3.2.2-4", "-3.2.2-6"),
            Self::ProtocolName => (" 3.1.2.1", "-3.1.2-1"),
            Self::ProtocolLevel(_) => (" 3.1.2.2", " 3.1.2.2"),
            Self::ConnectFlags(_) => (" 3.1.2.3", " 3.1.2.3"),
            Self::SubscriptionOptions(_) => (" 3.8.3", " 3.8.3.1"),
            Self::EmptyList => match packet_type {
                Some(PacketType::SubAck) => (" 3.9.3", " 3.9.3"),
                Some(PacketType::Unsubscribe) => ("-3.10.3-2", "-3.10.3-2"),
                Some(PacketType::UnsubAck) => (" 3.11", " 3.11.3"),
                _ => ("-3.8.3-3", "-3.8.3-2"),
            },
            Self::UnknownProperty(_)
            | Self::MisplacedProperty(_)
            | Self::RepeatedProperty(_)
            | Self::TooManyUserProperties => (NO_PROPERTIES, " 2.2.2.2"),
            Self::PropertyValue(_) => match packet_type {
                Some(PacketType::Connect) => (NO_PROPERTIES, " 3.1.2.11"),
                Some(PacketType::ConnAck) => (NO_PROPERTIES, " 3.2.2.3"),
                Some(PacketType::Publish) => (NO_PROPERTIES, " 3.3.2.3"),
                Some(PacketType::Subscribe) => (NO_PROPERTIES, " 3.8.2.1"),
                _ => (NO_PROPERTIES, " 2.2.2.2"),
            },
            Self::ZeroTopicAlias => (NO_PROPERTIES, "-3.3.2-8"),
            Self::AuthenticationDataAlone => (NO_PROPERTIES, " 3.1.2.11.10"),
            Self::NoAuthenticationMethod => (NO_PROPERTIES, " 3.15.2.2.2"),
        }
    }
}

/// The peer sent a well-formed packet that breaks a rule. The connection is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A packet a server never sends, or not at this point.
    #[error("{packet_type} is not allowed while {phase} [MQTT5 4.13] [MQTT3-4.8.0-1]")]
    UnexpectedPacket {
        /// What came.
        packet_type: PacketType,
        /// What the session was doing.
        phase: &'static str,
    },
    /// The server has a session for this client, and the client has none.
    #[error(
        "the server resumed a session this client does not have [MQTT5-3.2.2-4] [MQTT3 3.2.2.2]"
    )]
    UnknownSessionPresent,
    /// More publishes at QoS 1 and 2 are open than we said we take.
    #[error("more than {max} publishes are open [MQTT5 3.1.2.11.3]")]
    ReceiveMaximumExceeded {
        /// The Receive Maximum of our CONNECT.
        max: u16,
    },
    /// A topic alias above the Topic Alias Maximum of our CONNECT.
    #[error("topic alias {alias} is above the maximum of {max} [MQTT5 3.1.2.11.5]")]
    TopicAliasTooLarge {
        /// The alias.
        alias: u16,
        /// The Topic Alias Maximum of our CONNECT.
        max: u16,
    },
    /// A topic alias that was not given a topic on this connection.
    #[error("topic alias {alias} has no topic on this connection [MQTT5-3.3.2-7]")]
    UnknownTopicAlias {
        /// The alias.
        alias: u16,
    },
    /// An acknowledgement of another kind than its packet identifier awaits.
    #[error(
        "{got} came for packet identifier {packet_id}, which awaits {awaited} [MQTT5 4.3] [MQTT3 4.3]"
    )]
    WrongAcknowledgement {
        /// The identifier.
        packet_id: PacketId,
        /// What would have been right.
        awaited: PacketType,
        /// What came.
        got: PacketType,
    },
    /// A SUBACK or UNSUBACK with more or fewer codes than there were filters.
    #[error("{got} reason codes answer {filters} filters [MQTT5 3.9.3] [MQTT3 3.9.3]")]
    ReasonCodeCount {
        /// How many filters were asked for.
        filters: usize,
        /// How many codes came.
        got: usize,
    },
    /// Texts in an acknowledgement though CONNECT asked for none.
    #[error("{packet_type} carries texts that CONNECT asked not to send [MQTT5 3.1.2.11.7]")]
    UnaskedProblemInformation {
        /// What came.
        packet_type: PacketType,
    },
    /// An AUTH or CONNACK without the authentication method of our CONNECT, or with another.
    #[error("{packet_type} does not repeat the authentication method of CONNECT [MQTT5-4.12.0-5]")]
    AuthenticationMethod {
        /// What came.
        packet_type: PacketType,
    },
    /// No CONNACK in time.
    #[error("no CONNACK within {timeout:?} [MQTT5 3.2] [MQTT3 3.2]")]
    ConnAckTimeout {
        /// The time allowed.
        timeout: Duration,
    },
    /// Nothing was received in answer to a PINGREQ.
    #[error(
        "nothing was received within one and a half keep-alive of {keep_alive:?} [MQTT5 3.12] [MQTT3 3.1.2.10]"
    )]
    KeepAliveTimeout {
        /// The keep-alive in force.
        keep_alive: Duration,
    },
}

impl ProtocolError {
    /// What to tell the peer.
    pub fn reason_code(&self) -> ReasonCode {
        match self {
            Self::UnexpectedPacket { .. }
            | Self::UnknownSessionPresent
            | Self::WrongAcknowledgement { .. }
            | Self::ReasonCodeCount { .. }
            | Self::UnaskedProblemInformation { .. }
            | Self::AuthenticationMethod { .. }
            | Self::UnknownTopicAlias { .. } => ReasonCode::PROTOCOL_ERROR,
            Self::ReceiveMaximumExceeded { .. } => ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
            Self::TopicAliasTooLarge { .. } => ReasonCode::TOPIC_ALIAS_INVALID,
            Self::ConnAckTimeout { .. } | Self::KeepAliveTimeout { .. } => {
                ReasonCode::KEEP_ALIVE_TIMEOUT
            }
        }
    }
}

/// The caller asked for what the specification or the server does not allow. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UsageError {
    /// The text is not a topic name or filter.
    #[error("not a topic")]
    Topic(#[from] TopicError),
    /// The text does not fit a string or binary field.
    #[error("not an MQTT string")]
    Text(#[from] TextError),
    /// The packet cannot be encoded.
    #[error("the packet cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The packet is larger than the server takes `[MQTT5-3.2.2-15]`.
    #[error("the packet would have {size} bytes, and the server takes {max}")]
    PacketTooLarge {
        /// Its size on the wire, in bytes.
        size: usize,
        /// The server's Maximum Packet Size.
        max: u32,
    },
    /// The server does not take this QoS `[MQTT5-3.2.2-11]`.
    #[error("the server does not support this QoS")]
    QoSNotSupported,
    /// The server keeps no retained messages `[MQTT5-3.2.2-14]`.
    #[error("the server does not support retained messages")]
    RetainNotSupported,
    /// The topic alias is above the server's Topic Alias Maximum `[MQTT5-3.2.2-17]`.
    #[error("topic alias {alias} is above the server's maximum of {max}")]
    TopicAliasTooLarge {
        /// The alias.
        alias: u16,
        /// The server's Topic Alias Maximum.
        max: u16,
    },
    /// A client's PUBLISH carries no subscription identifier `[MQTT5-3.3.4-6]`.
    #[error("a publish by a client has no subscription identifier")]
    SubscriptionIdentifierInPublish,
    /// The server takes no wildcard subscriptions (5.0 section 3.2.2.3.11).
    #[error("the server does not support wildcard subscriptions")]
    WildcardNotSupported,
    /// The server takes no shared subscriptions (5.0 section 3.2.2.3.13).
    #[error("the server does not support shared subscriptions")]
    SharedNotSupported,
    /// The server takes no subscription identifiers (5.0 section 3.2.2.3.12).
    #[error("the server does not support subscription identifiers")]
    SubscriptionIdentifierNotSupported,
    /// No Local on a shared subscription `[MQTT5-3.8.3-4]`.
    #[error("a shared subscription cannot ask for no local")]
    NoLocalShared,
    /// A SUBSCRIBE or UNSUBSCRIBE without a filter `[MQTT5-3.8.3-2]` `[MQTT3-3.8.3-3]`.
    #[error("there is no topic filter")]
    NoFilter,
    /// 3.1.1: an empty client identifier needs a clean start `[MQTT3-3.1.3-7]`.
    #[error("an empty client identifier needs a clean start in MQTT 3.1.1")]
    EmptyClientId,
    /// 3.1.1: a password without a user name `[MQTT3-3.1.2-22]`.
    #[error("a password needs a user name in MQTT 3.1.1")]
    PasswordWithoutUserName,
    /// Authentication data without an authentication method (5.0 section 3.1.2.11.10).
    #[error("authentication data needs an authentication method")]
    AuthenticationDataAlone,
    /// AUTH without an authentication method in CONNECT `[MQTT5-4.12.0-7]`.
    #[error("the connection has no authentication method")]
    NoAuthenticationMethod,
    /// A DISCONNECT code only a server sends, or a session expiry after none was asked for
    /// `[MQTT5-3.14.2-1]`.
    #[error("a client cannot disconnect with {0}")]
    DisconnectReason(ReasonCode),
    /// AUTH with another method than that of CONNECT `[MQTT5-4.12.0-5]`.
    #[error("the connection has another authentication method")]
    OtherAuthenticationMethod,
    /// An AUTH code a client does not send, or not at this point `[MQTT5-3.15.2-1]`.
    #[error("a client cannot send AUTH with {0} now")]
    AuthenticationReason(ReasonCode),
    /// There is no connection to send it on.
    #[error("not connected")]
    NotConnected,
    /// The last connection was not ended, and CONNECT is sent once on each `[MQTT5-3.1.0-2]`
    /// `[MQTT3-3.1.0-2]`.
    #[error("already connected")]
    AlreadyConnected,
    /// All 65,535 packet identifiers are in use.
    #[error("all packet identifiers are in use")]
    NoPacketId,
}

/// A packet that has no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// It is longer than the 268,435,455 bytes a remaining length can say.
    #[error("{size} bytes are more than the 268435455 a packet can hold")]
    TooLarge {
        /// The length of its body, in bytes.
        size: usize,
    },
    /// The version has no such packet.
    #[error("MQTT {version} has no {packet_type}")]
    NotInVersion {
        /// The packet.
        packet_type: PacketType,
        /// The version.
        version: Version,
    },
    /// A PUBLISH at QoS 1 or 2 without a packet identifier, or at QoS 0 with one.
    #[error("a publish has a packet identifier if and only if its QoS is above 0")]
    PacketId,
    /// A PUBLISH at QoS 0 marked as a duplicate `[MQTT5-3.3.1-2]` `[MQTT3-3.3.1-2]`.
    #[error("a publish at QoS 0 is never a duplicate")]
    DuplicateAtMostOnce,
}
