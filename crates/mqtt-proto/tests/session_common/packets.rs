//! Packets by name, so that a test reads as the conversation it is.

use mqtt_proto::{
    Message, PacketId, QoS, ReasonCode, TopicFilter, Utf8String,
    packet::{
        Ack, AckProperties, Auth, AuthProperties, Connect, Disconnect, Packet, Properties, Publish,
        SubAck, SubscribeFilter, SubscribeOptions, UnsubAck,
    },
};

pub const OK: ReasonCode = ReasonCode::SUCCESS;
/// A refusal that PUBACK and PUBREC can carry.
pub const QUOTA: ReasonCode = ReasonCode::QUOTA_EXCEEDED;
pub const NOT_FOUND: ReasonCode = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;

pub fn id(n: u16) -> PacketId {
    PacketId::new(n).expect("tests count from 1")
}

pub fn text(text: &str) -> Utf8String {
    Utf8String::new(text).expect("a short text")
}

pub fn message(qos: QoS, payload: impl Into<String>) -> Message {
    Message::new("t", payload.into())
        .expect("a topic")
        .with_qos(qos)
}

/// PUBLISH at QoS 1 or 2, the first time.
pub fn publish(qos: QoS, n: u16, payload: impl Into<String>) -> Packet {
    publish_of(message(qos, payload), n, false)
}

/// The same, again.
pub fn repeat(qos: QoS, n: u16, payload: impl Into<String>) -> Packet {
    publish_of(message(qos, payload), n, true)
}

pub fn publish_0(payload: impl Into<String>) -> Packet {
    publish_of(message(QoS::AtMostOnce, payload), 0, false)
}

pub fn publish_of(message: Message, n: u16, dup: bool) -> Packet {
    Packet::Publish(Publish {
        message,
        packet_id: PacketId::new(n),
        dup,
    })
}

pub fn puback(n: u16) -> Packet {
    Packet::PubAck(Ack::new(id(n)))
}

pub fn pubrec(n: u16) -> Packet {
    Packet::PubRec(Ack::new(id(n)))
}

pub fn pubrel(n: u16) -> Packet {
    Packet::PubRel(Ack::new(id(n)))
}

pub fn pubcomp(n: u16) -> Packet {
    Packet::PubComp(Ack::new(id(n)))
}

pub fn puback_with(n: u16, code: ReasonCode) -> Packet {
    Packet::PubAck(Ack::with_reason(id(n), code))
}

pub fn pubrec_with(n: u16, code: ReasonCode) -> Packet {
    Packet::PubRec(Ack::with_reason(id(n), code))
}

pub fn pubrel_with(n: u16, code: ReasonCode) -> Packet {
    Packet::PubRel(Ack::with_reason(id(n), code))
}

pub fn pubcomp_with(n: u16, code: ReasonCode) -> Packet {
    Packet::PubComp(Ack::with_reason(id(n), code))
}

pub fn suback(n: u16, codes: &[ReasonCode]) -> Packet {
    Packet::SubAck(SubAck {
        packet_id: id(n),
        reason_codes: codes.to_vec(),
        properties: Properties::default(),
    })
}

pub fn unsuback(n: u16, codes: &[ReasonCode]) -> Packet {
    Packet::UnsubAck(UnsubAck {
        packet_id: id(n),
        reason_codes: codes.to_vec(),
        properties: Properties::default(),
    })
}

pub fn disconnect(code: ReasonCode) -> Packet {
    Packet::Disconnect(Disconnect::new(code))
}

/// AUTH of the method the tests use.
pub fn auth(code: ReasonCode) -> Auth {
    auth_by("SCRAM", code)
}

pub fn auth_by(method: &str, code: ReasonCode) -> Auth {
    Auth {
        reason_code: code,
        properties: Properties::from(AuthProperties {
            authentication_method: Some(text(method)),
            ..AuthProperties::default()
        }),
    }
}

pub fn reason_string(reason: &str) -> Properties<AckProperties> {
    Properties::from(AckProperties {
        reason_string: Some(text(reason)),
        ..AckProperties::default()
    })
}

pub fn filter(filter: &str) -> TopicFilter {
    TopicFilter::new(filter).expect("a filter")
}

pub fn at_qos_1(name: &str) -> SubscribeFilter {
    SubscribeFilter {
        filter: filter(name),
        options: SubscribeOptions::new(QoS::AtLeastOnce),
    }
}

/// What two CONNECTs are to be compared without.
pub fn client_id_of(packet: &Packet) -> &str {
    let Packet::Connect(connect) = packet else {
        panic!("{packet:?} is not a CONNECT");
    };
    &connect.client_id
}

/// CONNECT of the packet, for what else is in it.
pub fn connect_of(packet: &Packet) -> &Connect {
    let Packet::Connect(connect) = packet else {
        panic!("{packet:?} is not a CONNECT");
    };
    connect
}
