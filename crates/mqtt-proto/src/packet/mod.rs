//! The packets of MQTT, in the model of 5.0, each with its decoding and encoding.

use std::fmt;

use crate::{EncodeError, Malformed, PacketId, ReasonCode, Version, codec::read::Reader};

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod property;
mod publish;
mod subscribe;
mod unsubscribe;

pub use ack::Ack;
pub use auth::Auth;
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use disconnect::Disconnect;
pub use property::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    Properties, PropertySet, PublishProperties, SubscribeProperties, SubscriptionId,
    UnsubscribeProperties, UserProperty, WillProperties,
};
pub(crate) use publish::TopicAlias;
pub use publish::{Message, Publish};
pub use subscribe::{RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscribeOptions};
pub use unsubscribe::{UnsubAck, Unsubscribe};

/// The kinds of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    clippy::exhaustive_enums,
    reason = "the specification's list is closed"
)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum PacketType {
    Connect,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl PacketType {
    /// The four bits of the fixed header.
    pub(crate) const fn bits(self) -> u8 {
        match self {
            Self::Connect => 1,
            Self::ConnAck => 2,
            Self::Publish => 3,
            Self::PubAck => 4,
            Self::PubRec => 5,
            Self::PubRel => 6,
            Self::PubComp => 7,
            Self::Subscribe => 8,
            Self::SubAck => 9,
            Self::Unsubscribe => 10,
            Self::UnsubAck => 11,
            Self::PingReq => 12,
            Self::PingResp => 13,
            Self::Disconnect => 14,
            Self::Auth => 15,
        }
    }

    /// From the four bits of the fixed header; AUTH exists in 5.0 only.
    pub(crate) const fn from_bits(bits: u8, version: Version) -> Option<Self> {
        Some(match (bits, version) {
            (1, _) => Self::Connect,
            (2, _) => Self::ConnAck,
            (3, _) => Self::Publish,
            (4, _) => Self::PubAck,
            (5, _) => Self::PubRec,
            (6, _) => Self::PubRel,
            (7, _) => Self::PubComp,
            (8, _) => Self::Subscribe,
            (9, _) => Self::SubAck,
            (10, _) => Self::Unsubscribe,
            (11, _) => Self::UnsubAck,
            (12, _) => Self::PingReq,
            (13, _) => Self::PingResp,
            (14, _) => Self::Disconnect,
            (15, Version::V5) => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of a packet of this type, for all but PUBLISH, whose flags vary.
    pub(crate) const fn first_byte(self) -> u8 {
        let flags = if matches!(self, Self::PubRel | Self::Subscribe | Self::Unsubscribe) {
            0b0010
        } else {
            0
        };
        self.bits() << 4 | flags
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

/// A packet. The rarer ones are boxed, so that moving a packet costs no more than a PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "the specification's list is closed"
)]
pub enum Packet {
    /// The client opens.
    Connect(Box<Connect>),
    /// The server accepts or refuses.
    ConnAck(ConnAck),
    /// A message.
    Publish(Publish),
    /// QoS 1: the message was taken.
    PubAck(Ack),
    /// QoS 2, step 1: the message was received.
    PubRec(Ack),
    /// QoS 2, step 2: the sender has let go of the message.
    PubRel(Ack),
    /// QoS 2, step 3: the exchange is complete.
    PubComp(Ack),
    /// The client subscribes.
    Subscribe(Subscribe),
    /// The answer, a code for each filter.
    SubAck(SubAck),
    /// The client unsubscribes.
    Unsubscribe(Unsubscribe),
    /// The answer; in 5.0 a code for each filter.
    UnsubAck(UnsubAck),
    /// Is anybody there?
    PingReq,
    /// Yes.
    PingResp,
    /// The sender closes the connection.
    Disconnect(Disconnect),
    /// A step of enhanced authentication (5.0).
    Auth(Auth),
}

impl Packet {
    /// Its kind.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet to `out`, or leaves `out` as it was and says why not.
    ///
    /// A CONNECT is encoded in the version it names; `version` decides for all others. Properties
    /// and reason codes that 3.1.1 lacks are left out there.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Connect(connect) => connect.encode(out),
            Self::ConnAck(connack) => connack.encode(version, out),
            Self::Publish(publish) => publish.encode(version, out),
            Self::PubAck(ack) => ack.encode(PacketType::PubAck, version, out),
            Self::PubRec(ack) => ack.encode(PacketType::PubRec, version, out),
            Self::PubRel(ack) => ack.encode(PacketType::PubRel, version, out),
            Self::PubComp(ack) => ack.encode(PacketType::PubComp, version, out),
            Self::Subscribe(subscribe) => subscribe.encode(version, out),
            Self::SubAck(suback) => suback.encode(version, out),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Self::UnsubAck(unsuback) => unsuback.encode(version, out),
            Self::PingReq => {
                out.extend_from_slice(&[PacketType::PingReq.first_byte(), 0]);
                Ok(())
            }
            Self::PingResp => {
                out.extend_from_slice(&[PacketType::PingResp.first_byte(), 0]);
                Ok(())
            }
            Self::Disconnect(disconnect) => disconnect.encode(version, out),
            Self::Auth(auth) => auth.encode(version, out),
        }
    }

    /// Decodes the body of a packet whose fixed header was checked.
    pub(crate) fn decode(
        packet_type: PacketType,
        flags: u8,
        mut body: Reader<'_>,
        version: Version,
    ) -> Result<Self, Malformed> {
        if packet_type == PacketType::Publish {
            return Publish::decode(flags, body, version).map(Self::Publish);
        }
        let reader = &mut body;
        let packet = match packet_type {
            PacketType::Connect => Self::Connect(Box::new(Connect::decode(reader)?)),
            PacketType::ConnAck => Self::ConnAck(ConnAck::decode(reader, version)?),
            PacketType::Publish => return Err(Malformed::Flags(flags)),
            PacketType::PubAck => Self::PubAck(Ack::decode(packet_type, reader, version)?),
            PacketType::PubRec => Self::PubRec(Ack::decode(packet_type, reader, version)?),
            PacketType::PubRel => Self::PubRel(Ack::decode(packet_type, reader, version)?),
            PacketType::PubComp => Self::PubComp(Ack::decode(packet_type, reader, version)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::decode(reader, version)?),
            PacketType::SubAck => Self::SubAck(SubAck::decode(reader, version)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(reader, version)?),
            PacketType::UnsubAck => Self::UnsubAck(UnsubAck::decode(reader, version)?),
            PacketType::PingReq => Self::PingReq,
            PacketType::PingResp => Self::PingResp,
            PacketType::Disconnect => Self::Disconnect(Disconnect::decode(reader, version)?),
            PacketType::Auth => Self::Auth(Auth::decode(reader, version)?),
        };
        body.end()?;
        Ok(packet)
    }
}

/// Whether `code` is among those a packet may carry, as the type the rest of the code uses.
fn allowed(code: u8, codes: &[ReasonCode]) -> Result<ReasonCode, Malformed> {
    let code = ReasonCode::new(code);
    if codes.contains(&code) {
        Ok(code)
    } else {
        Err(Malformed::ReasonCode(code.value()))
    }
}

/// Appends a packet with a fixed first byte; on error `out` is as it was.
fn encode_packet(
    packet_type: PacketType,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(packet_type.first_byte());
    let mut inner = Ok(());
    let outer = crate::codec::write::with_length(out, |out| inner = body(out));
    let result = inner.and(outer);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn write_packet_id(out: &mut Vec<u8>, packet_id: PacketId) {
    out.extend_from_slice(&packet_id.value().to_be_bytes());
}
