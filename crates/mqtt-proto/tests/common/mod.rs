//! Packets of every kind, as proptest strategies, and the few moves the codec's tests share.
//!
//! What `packet(version)` makes is what that version can carry, so that it survives the wire whole.

#![allow(dead_code, unused_imports, reason = "each test takes what it needs")]

use bytes::Bytes;
use mqtt_proto::{
    BinaryData, DecodeError, Decoder, Message, PacketId, QoS, ReasonCode, Secret, TopicFilter,
    TopicName, Utf8String, Version,
    codec::MAX_PACKET_SIZE,
    packet::{
        Ack, Auth, ConnAck, Connect, Disconnect, Packet, Properties, Publish, RetainHandling,
        SubAck, Subscribe, SubscribeFilter, SubscribeOptions, UnsubAck, Unsubscribe, Will,
    },
};
use proptest::{collection::vec, option, prelude::*};

mod mutation;
mod properties;

pub(crate) use mutation::{Mutation, framed, mutations};
pub(crate) use properties::aliased_topic;

/// Both versions, for the tests that hold in either.
pub(crate) const VERSIONS: [Version; 2] = [Version::V3, Version::V5];

/// The packet at the start of `bytes`, or what is wrong with it.
pub(crate) fn decode(version: Version, bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    Decoder::new(version, MAX_PACKET_SIZE).decode(&mut Bytes::copy_from_slice(bytes))
}

/// The bytes of a packet that has an encoding.
pub(crate) fn encode(version: Version, packet: &Packet) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out).unwrap();
    out
}

/// `"10 0A"` as bytes.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap())
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text}");
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

pub(crate) fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

pub(crate) fn text() -> impl Strategy<Value = Utf8String> {
    prop_oneof![
        4 => "[a-z0-9/ ]{0,12}",
        2 => "[^\\x00]{0,12}",
        1 => Just("\u{FEFF}bom".to_owned()),
        1 => "[a-z]{120,140}",
    ]
    .prop_map(|text| Utf8String::new(text).unwrap())
}

pub(crate) fn binary() -> impl Strategy<Value = BinaryData> {
    vec(any::<u8>(), 0..20).prop_map(|data| BinaryData::new(data).unwrap())
}

pub(crate) fn secret() -> impl Strategy<Value = Secret> {
    vec(any::<u8>(), 0..20).prop_map(|data| Secret::new(data).unwrap())
}

pub(crate) fn topic_name() -> impl Strategy<Value = TopicName> {
    prop_oneof![
        4 => "[a-z$/]{1,12}",
        1 => "[^\\x00+#]{1,12}",
        1 => "[a-z]{120,140}",
    ]
    .prop_map(|name| TopicName::new(name).unwrap())
}

fn topic_filter() -> impl Strategy<Value = TopicFilter> {
    prop_oneof![
        4 => "([a-z]{1,4}|\\+)(/([a-z]{0,4}|\\+)){0,3}(/#)?",
        1 => "[^\\x00+#/$]{1,12}",
        1 => "#",
    ]
    .prop_map(|filter| TopicFilter::new(filter).unwrap())
}

fn shared_filter() -> impl Strategy<Value = TopicFilter> {
    "\\$share/[a-z]{1,4}/([a-z]{1,4}|#|\\+/a)".prop_map(|filter| TopicFilter::new(filter).unwrap())
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    prop_oneof![Just(1), Just(255), Just(256), Just(65_535), 1..=65_535_u16].prop_map(id)
}

fn code(codes: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    proptest::sample::select(codes).prop_map(ReasonCode::new)
}

/// The strategy in 5.0, the absence of properties in 3.1.1.
fn v5_only<P: std::fmt::Debug + Clone + 'static>(
    version: Version,
    properties: impl Strategy<Value = P> + 'static,
) -> BoxedStrategy<Properties<P>> {
    match version {
        Version::V5 => prop_oneof![
            1 => Just(Properties::default()),
            3 => properties.prop_map(Properties::from),
        ]
        .boxed(),
        _ => Just(Properties::default()).boxed(),
    }
}

fn will(version: Version) -> impl Strategy<Value = Will> {
    (
        topic_name(),
        binary(),
        qos(),
        any::<bool>(),
        v5_only(version, properties::will()),
    )
        .prop_map(|(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties,
        })
}

/// A password stands alone in 5.0 only `[MQTT3-3.1.2-22]`.
fn connect(version: Version) -> impl Strategy<Value = Packet> {
    (
        text(),
        any::<bool>(),
        any::<u16>(),
        option::of(will(version)),
        option::of(text()),
        option::of(secret()),
        v5_only(version, properties::connect()),
    )
        .prop_map(
            move |(client_id, clean_start, keep_alive, will, user_name, password, properties)| {
                let password = password.filter(|_| version == Version::V5 || user_name.is_some());
                Packet::Connect(Box::new(Connect {
                    version,
                    client_id,
                    clean_start,
                    keep_alive,
                    will: will.map(Box::new),
                    user_name,
                    password,
                    properties,
                }))
            },
        )
}

/// The session is present only when the connection is accepted `[MQTT5-3.2.2-6]`.
fn connack(version: Version) -> impl Strategy<Value = Packet> {
    let codes: &[u8] = match version {
        Version::V5 => &[
            0x00, 0x00, 0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A,
            0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
        _ => &[0x00, 0x00, 0x84, 0x85, 0x88, 0x86, 0x87],
    };
    (
        any::<bool>(),
        code(codes),
        v5_only(version, properties::connack()),
    )
        .prop_map(|(present, reason_code, properties)| {
            Packet::ConnAck(ConnAck {
                session_present: present && !reason_code.is_error(),
                reason_code,
                properties,
            })
        })
}

pub(crate) fn publish(
    version: Version,
    payload: impl Strategy<Value = Vec<u8>>,
) -> impl Strategy<Value = Packet> {
    (
        topic_name(),
        payload,
        qos(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        packet_id(),
        v5_only(version, properties::publish()),
    )
        .prop_map(
            |(topic, payload, qos, retain, dup, aliased, packet_id, properties)| {
                let aliased = aliased && properties.topic_alias.is_some();
                let above_0 = qos != QoS::AtMostOnce;
                Packet::Publish(Publish {
                    message: Message {
                        topic: if aliased { aliased_topic() } else { topic },
                        payload: payload.into(),
                        qos,
                        retain,
                        properties,
                    },
                    packet_id: above_0.then_some(packet_id),
                    dup: dup && above_0,
                })
            },
        )
}

fn ack(version: Version, codes: &'static [u8]) -> impl Strategy<Value = Ack> {
    let codes = match version {
        Version::V5 => codes,
        _ => &[0x00],
    };
    (
        packet_id(),
        code(codes),
        v5_only(version, properties::ack()),
    )
        .prop_map(|(packet_id, reason_code, properties)| Ack {
            packet_id,
            reason_code,
            properties,
        })
}

/// No Local never stands on a shared subscription `[MQTT5-3.8.3-4]`.
fn subscribe_filter(version: Version) -> impl Strategy<Value = SubscribeFilter> {
    let v5 = version == Version::V5;
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend)
    ];
    let filter = prop_oneof![3 => topic_filter().boxed(), 1 => shared_filter().boxed()];
    (filter, qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        move |(filter, qos, no_local, retain_as_published, handling)| SubscribeFilter {
            options: SubscribeOptions {
                qos,
                no_local: v5 && no_local && filter.share_name().is_none(),
                retain_as_published: v5 && retain_as_published,
                retain_handling: if v5 { handling } else { RetainHandling::Send },
            },
            filter,
        },
    )
}

fn subscribe(version: Version) -> impl Strategy<Value = Packet> {
    (
        packet_id(),
        vec(subscribe_filter(version), 1..5),
        v5_only(version, properties::subscribe()),
    )
        .prop_map(|(packet_id, filters, properties)| {
            Packet::Subscribe(Subscribe {
                packet_id,
                filters,
                properties,
            })
        })
}

fn suback(version: Version) -> impl Strategy<Value = Packet> {
    let codes: &[u8] = match version {
        Version::V5 => &[
            0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
        ],
        _ => &[0x00, 0x01, 0x02, 0x80],
    };
    (
        packet_id(),
        vec(code(codes), 1..5),
        v5_only(version, properties::ack()),
    )
        .prop_map(|(packet_id, reason_codes, properties)| {
            Packet::SubAck(SubAck {
                packet_id,
                reason_codes,
                properties,
            })
        })
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Packet> {
    (
        packet_id(),
        vec(topic_filter(), 1..5),
        v5_only(version, properties::unsubscribe()),
    )
        .prop_map(|(packet_id, filters, properties)| {
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                filters,
                properties,
            })
        })
}

fn unsuback(version: Version) -> impl Strategy<Value = Packet> {
    const CODES: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
    let count = if version == Version::V5 { 1..5 } else { 0..1 };
    (
        packet_id(),
        vec(code(CODES), count),
        v5_only(version, properties::ack()),
    )
        .prop_map(|(packet_id, reason_codes, properties)| {
            Packet::UnsubAck(UnsubAck {
                packet_id,
                reason_codes,
                properties,
            })
        })
}

fn disconnect(version: Version) -> impl Strategy<Value = Packet> {
    let codes: &[u8] = match version {
        Version::V5 => &[
            0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93,
            0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1,
            0xA2,
        ],
        _ => &[0x00],
    };
    (code(codes), v5_only(version, properties::disconnect())).prop_map(
        |(reason_code, properties)| {
            Packet::Disconnect(Disconnect {
                reason_code,
                properties,
            })
        },
    )
}

/// All but success needs an authentication method (5.0 section 3.15.2.2.2).
fn auth() -> impl Strategy<Value = Packet> {
    let properties = v5_only(Version::V5, properties::auth());
    (code(&[0x00, 0x18, 0x19]), text(), properties).prop_map(
        |(reason_code, method, mut properties)| {
            if reason_code != ReasonCode::SUCCESS || properties.authentication_data.is_some() {
                properties.authentication_method.get_or_insert(method);
            }
            Packet::Auth(Auth {
                reason_code,
                properties,
            })
        },
    )
}

/// Any packet of a version, each kind about as often as the others.
pub(crate) fn packet(version: Version) -> BoxedStrategy<Packet> {
    const RECEIVED: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    const RELEASED: &[u8] = &[0x00, 0x92];
    let mut kinds = vec![
        connect(version).boxed(),
        connack(version).boxed(),
        publish(version, vec(any::<u8>(), 0..300)).boxed(),
        ack(version, RECEIVED).prop_map(Packet::PubAck).boxed(),
        ack(version, RECEIVED).prop_map(Packet::PubRec).boxed(),
        ack(version, RELEASED).prop_map(Packet::PubRel).boxed(),
        ack(version, RELEASED).prop_map(Packet::PubComp).boxed(),
        subscribe(version).boxed(),
        suback(version).boxed(),
        unsubscribe(version).boxed(),
        unsuback(version).boxed(),
        prop_oneof![Just(Packet::PingReq), Just(Packet::PingResp)].boxed(),
        disconnect(version).boxed(),
    ];
    if version == Version::V5 {
        kinds.push(auth().boxed());
    }
    proptest::strategy::Union::new(kinds).boxed()
}
