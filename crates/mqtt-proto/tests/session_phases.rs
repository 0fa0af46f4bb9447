//! Every phase of a connection against every packet a server could send.

mod session_common;

use mqtt_proto::{
    Event, ProtocolError, ReasonCode, Version,
    packet::{ConnAck, Connect, Disconnect, Packet, PacketType, Subscribe, Unsubscribe},
};
use session_common::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Disconnected,
    Connecting,
    Connected,
    Closed,
}

/// What comes of a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    /// Nothing at all.
    Ignored,
    /// An answer, and no event.
    Answered,
    Event,
    /// An event after which the connection is closed.
    Last,
    Wrong,
}

use Cell::*;

/// PUBACK and the like are for identifiers not in use; their states have tables of their own.
fn cell(phase: Phase, packet: PacketType, version: Version) -> Cell {
    match (phase, packet) {
        (Phase::Disconnected | Phase::Closed, _) => Ignored,
        (Phase::Connecting, PacketType::ConnAck) => Event,
        (Phase::Connecting, _) => Wrong,
        (Phase::Connected, packet) => match packet {
            PacketType::Publish => Event,
            PacketType::PubRec | PacketType::PubRel => Answered,
            PacketType::PubAck
            | PacketType::PubComp
            | PacketType::SubAck
            | PacketType::UnsubAck
            | PacketType::PingResp => Ignored,
            PacketType::Disconnect if version == V5 => Last,
            PacketType::Connect
            | PacketType::ConnAck
            | PacketType::Subscribe
            | PacketType::Unsubscribe
            | PacketType::PingReq
            | PacketType::Disconnect
            | PacketType::Auth => Wrong,
        },
    }
}

fn packets(version: Version) -> Vec<Packet> {
    let connect = Connect::new(version, "x").expect("short");
    let mut packets = vec![
        Packet::Connect(Box::new(connect)),
        Packet::ConnAck(ConnAck::accepted()),
        publish(ExactlyOnce, 1, "m"),
        puback(1),
        pubrec(1),
        pubrel(1),
        pubcomp(1),
        Packet::Subscribe(Subscribe {
            packet_id: id(1),
            filters: vec![at_qos_1("a")],
            properties: Default::default(),
        }),
        suback(1, &[OK]),
        Packet::Unsubscribe(Unsubscribe {
            packet_id: id(1),
            filters: vec![filter("a")],
            properties: Default::default(),
        }),
        unsuback(1, &[OK]),
        Packet::PingReq,
        Packet::PingResp,
        disconnect(ReasonCode::SUCCESS),
    ];
    if version == V5 {
        packets.push(Packet::Auth(auth(ReasonCode::CONTINUE_AUTHENTICATION)));
    }
    packets
}

fn pair_in(phase: Phase, version: Version) -> Pair {
    let mut pair = Pair::new(version);
    if phase != Phase::Disconnected {
        pair.dial(lasting(version));
    }
    if matches!(phase, Phase::Connected | Phase::Closed) {
        pair.accept(ConnAck::accepted());
    }
    if phase == Phase::Closed {
        let disconnect = Disconnect::new(ReasonCode::SUCCESS);
        pair.session.disconnect(disconnect).expect("connected");
        pair.sent();
    }
    pair
}

/// [MQTT3-4.8.0-1] [MQTT5 4.13.1] [MQTT5 3.2]
#[test]
fn every_packet_in_every_phase() {
    both(|version| {
        for phase in [
            Phase::Disconnected,
            Phase::Connecting,
            Phase::Connected,
            Phase::Closed,
        ] {
            for packet in packets(version) {
                let packet_type = packet.packet_type();
                let expected = cell(phase, packet_type, version);
                println!("{phase:?}, {packet_type}: {expected:?}");
                check(pair_in(phase, version), phase, packet, expected);
            }
        }
    });
}

fn check(mut pair: Pair, phase: Phase, packet: Packet, expected: Cell) {
    let packet_type = packet.packet_type();
    let result = pair.try_give(packet);
    let sent = pair.sent();
    match expected {
        Ignored => assert_eq!((result, sent), (Ok(None), vec![])),
        Answered => {
            assert_eq!(result, Ok(None));
            assert_eq!(sent.len(), 1);
        }
        Event | Last => {
            assert!(matches!(result, Ok(Some(_))), "{result:?}");
            assert_eq!(sent, []);
        }
        Wrong => {
            let phase = match phase {
                Phase::Connecting => "awaiting CONNACK",
                Phase::Disconnected | Phase::Connected | Phase::Closed => "connected",
            };
            let error = ProtocolError::UnexpectedPacket { packet_type, phase };
            assert_eq!(result, Err(error));
            let closing = disconnect(ReasonCode::PROTOCOL_ERROR);
            assert_eq!(
                sent,
                if pair.version == V5 {
                    vec![closing]
                } else {
                    vec![]
                }
            );
        }
    }
    let connects = phase == Phase::Connecting && expected == Event;
    let stays = phase == Phase::Connected && !matches!(expected, Last | Wrong);
    assert_eq!(pair.session.is_connected(), connects || stays);
    if matches!(expected, Last | Wrong) {
        assert_eq!(pair.session.next_deadline(), None);
        assert_eq!(pair.give(publish_0("too late")), None);
        pair.session.abort(ReasonCode::UNSPECIFIED_ERROR);
        assert_eq!(pair.sent(), [], "nothing after that");
    }
}

/// A packet of the last connection that is read late changes nothing.
#[test]
fn closing_without_a_connection_leaves_the_next_one_alone() {
    both(|version| {
        let mut pair = Pair::new(version);
        pair.session.abort(ReasonCode::UNSPECIFIED_ERROR);
        assert_eq!(pair.session.unsent(), 0);
        pair.dial(lasting(version));
        pair.accept(ConnAck::accepted());
        assert!(matches!(
            pair.give(publish_0("m")),
            Some(Event::Message { .. })
        ));
    });
}
