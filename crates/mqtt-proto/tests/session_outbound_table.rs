//! Every state of an outbound packet identifier against every acknowledgement.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it expects"
)]

mod session_common;

use mqtt_proto::{
    Event, ProtocolError, ReasonCode, Version,
    packet::{Packet, PacketType},
};
use session_common::*;

/// What identifier 1 awaits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Unused,
    PubAck,
    PubRec,
    PubComp,
    SubAck,
    UnsubAck,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    /// Nothing changes and nothing is written.
    Ignored,
    /// PUBREL with this code is written, and PUBCOMP awaited if the identifier was in use.
    Release(ReasonCode),
    /// The request ends with the code of the packet.
    Ended,
    /// The request ends with a code that came before.
    EndedWith(ReasonCode),
    /// The connection ends; this was awaited.
    Wrong(PacketType),
}

use Cell::*;

const COLUMNS: [&str; 6] = [
    "PUBACK",
    "PUBREC",
    "PUBREC 0x97",
    "PUBCOMP",
    "SUBACK",
    "UNSUBACK",
];

/// The one who awaits PUBCOMP got PUBREC with this code.
const RECEIVED: ReasonCode = ReasonCode::NO_MATCHING_SUBSCRIBERS;

#[rustfmt::skip]
const TABLE: [(State, [Cell; 6]); 6] = {
    use PacketType as P;
    [
        (State::Unused,   [Ignored,              Release(NOT_FOUND),   Ignored,              Ignored,              Ignored,              Ignored]),
        (State::PubAck,   [Ended,                Wrong(P::PubAck),     Wrong(P::PubAck),     Wrong(P::PubAck),     Wrong(P::PubAck),     Wrong(P::PubAck)]),
        (State::PubRec,   [Wrong(P::PubRec),     Release(OK),          Ended,                Wrong(P::PubRec),     Wrong(P::PubRec),     Wrong(P::PubRec)]),
        (State::PubComp,  [Wrong(P::PubComp),    Release(OK),          Ended,                EndedWith(RECEIVED),  Wrong(P::PubComp),    Wrong(P::PubComp)]),
        (State::SubAck,   [Wrong(P::SubAck),     Wrong(P::SubAck),     Wrong(P::SubAck),     Wrong(P::SubAck),     Ended,                Wrong(P::SubAck)]),
        (State::UnsubAck, [Wrong(P::UnsubAck),   Wrong(P::UnsubAck),   Wrong(P::UnsubAck),   Wrong(P::UnsubAck),   Wrong(P::UnsubAck),   Ended]),
    ]
};

fn packet(column: usize) -> Packet {
    match column {
        0 => puback(1),
        1 => pubrec(1),
        2 => pubrec_with(1, QUOTA),
        3 => pubcomp(1),
        4 => suback(1, &[ReasonCode::GRANTED_QOS_1]),
        _ => unsuback(1, &[OK]),
    }
}

fn pair_in(state: State, version: Version) -> (Pair, Option<u32>) {
    let mut pair = Pair::connected(version);
    let token = match state {
        State::Unused => None,
        State::PubAck => Some(pair.publish_at(AtLeastOnce, "m")),
        State::PubRec | State::PubComp => Some(pair.publish_at(ExactlyOnce, "m")),
        State::SubAck => Some(pair.subscribe(&["a"])),
        State::UnsubAck => Some(pair.unsubscribe(&["a"])),
    };
    pair.sent();
    if state == State::PubComp {
        let received = if version == V5 { RECEIVED } else { OK };
        pair.give(pubrec_with(1, received));
    }
    pair.sent();
    (pair, token)
}

/// Finds out what identifier 1 awaits, and takes the connection down with it.
fn state_of(pair: &mut Pair) -> State {
    match pair.try_give(puback(1)) {
        Ok(None) => State::Unused,
        Ok(Some(_)) => State::PubAck,
        Err(ProtocolError::WrongAcknowledgement { awaited, .. }) => match awaited {
            PacketType::PubRec => State::PubRec,
            PacketType::PubComp => State::PubComp,
            PacketType::SubAck => State::SubAck,
            PacketType::UnsubAck => State::UnsubAck,
            other => panic!("nobody awaits {other}"),
        },
        Err(error) => panic!("{error}"),
    }
}

/// [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.3.3-4] [MQTT5-4.3.3-5] [MQTT5-4.3.3-6] [MQTT5-4.4.0-2]
/// [MQTT3-4.3.2-1] [MQTT3-4.3.3-1] [MQTT5 4.3.3]
#[test]
fn every_acknowledgement_in_every_state() {
    both(|version| {
        for (state, cells) in TABLE {
            for (column, cell) in cells.into_iter().enumerate() {
                if version == V3 && column == 2 {
                    continue; // its PUBREC has no codes
                }
                println!("{state:?}, {}: {cell:?}", COLUMNS[column]);
                check(state, packet(column), cell, version);
            }
        }
    });
}

fn check(state: State, packet: Packet, cell: Cell, version: Version) {
    let (mut pair, token) = pair_in(state, version);
    let code = |code| if version == V5 { code } else { OK };
    let got = packet.packet_type();
    let result = pair.try_give(packet);
    let sent = pair.sent();
    match cell {
        Ignored => {
            assert_eq!((result, sent), (Ok(None), vec![]));
            assert_eq!(state_of(&mut pair), state);
        }
        Release(reason) => {
            assert_eq!(
                (result, sent),
                (Ok(None), vec![pubrel_with(1, code(reason))])
            );
            let used = state != State::Unused;
            let after = if used { State::PubComp } else { State::Unused };
            assert_eq!(state_of(&mut pair), after);
        }
        Ended | EndedWith(_) => {
            assert_eq!(sent, []);
            let (ended, reason) = match result {
                Ok(Some(Event::Published {
                    token, reason_code, ..
                })) => (token, reason_code),
                Ok(Some(Event::Answered {
                    token,
                    reason_codes,
                    ..
                })) => (token, *reason_codes.first().expect("a code")),
                other => panic!("{other:?}"),
            };
            assert_eq!(Some(ended), token);
            let expected = match (cell, got) {
                (EndedWith(reason), _) => code(reason),
                (_, PacketType::SubAck) => ReasonCode::GRANTED_QOS_1,
                (_, PacketType::PubRec) => QUOTA,
                _ => OK,
            };
            assert_eq!(reason, expected);
            assert_eq!(state_of(&mut pair), State::Unused);
            assert_eq!(pair.session.in_flight(), 0);
        }
        Wrong(awaited) => {
            let error = ProtocolError::WrongAcknowledgement {
                packet_id: id(1),
                awaited,
                got,
            };
            assert_eq!(result, Err(error));
            let closing = disconnect(ReasonCode::PROTOCOL_ERROR);
            assert_eq!(sent, if version == V5 { vec![closing] } else { vec![] });
            assert!(!pair.session.is_connected());
            assert!(pair.open().contains(&token.expect("in use")));
        }
    }
}
