//! The exact bytes of every packet a client sends, and the bounds of what a field can hold.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect panics"
)]

use bytes::Bytes;
use mqtt_proto::{
    BinaryData, EncodeError, Message, QoS, ReasonCode, Secret, TextError, TopicFilter, TopicName,
    Utf8String, Version,
    Version::{V3, V5},
    packet::{
        Ack, Auth, Connect, Disconnect, Packet, PacketType, Properties, Publish, RetainHandling,
        Subscribe, SubscribeFilter, SubscribeOptions, SubscribeProperties, SubscriptionId,
        Unsubscribe, Will,
    },
};

mod bounds;
#[path = "../common/mod.rs"]
mod common;
mod connecting;
mod others;
mod publishing;

use common::{VERSIONS, decode, encode, hex, id};

#[track_caller]
fn check(version: Version, packet: &Packet, expected: &str) {
    let (found, expected) = (encode(version, packet), hex(expected));
    assert_eq!(
        found, expected,
        "\n found {found:02X?}\nwanted {expected:02X?}"
    );
}

fn text(text: &str) -> Utf8String {
    Utf8String::new(text).unwrap()
}

/// A CONNECT as `with` makes it of the plainest one.
fn connect(version: Version, client_id: &str, with: impl FnOnce(&mut Connect)) -> Packet {
    let mut connect = Connect::new(version, client_id).unwrap();
    connect.keep_alive = 10;
    with(&mut connect);
    Packet::Connect(Box::new(connect))
}

fn publish(qos: QoS, with: impl FnOnce(&mut Publish)) -> Packet {
    let mut publish = Publish {
        message: Message::new("a/b", "hi").unwrap().with_qos(qos),
        packet_id: (qos != QoS::AtMostOnce).then_some(id(0x1234)),
        dup: false,
    };
    with(&mut publish);
    Packet::Publish(publish)
}
