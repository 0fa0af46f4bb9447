//! SUBSCRIBE and UNSUBSCRIBE and their answers.

mod session_common;

use mqtt_proto::{
    Event, ProtocolError, ReasonCode, UsageError,
    packet::{Packet, PacketType, Properties, SubAck, Subscribe, UnsubAck, Unsubscribe},
};
use session_common::*;

#[track_caller]
fn answered(event: Option<Event<u32>>) -> (u32, Vec<ReasonCode>) {
    match event {
        Some(Event::Answered {
            token,
            reason_codes,
            ..
        }) => (token, reason_codes),
        other => panic!("{other:?} is not an answer"),
    }
}

/// [MQTT5 3.9.3] [MQTT3 3.9.3]
#[test]
fn each_filter_has_its_answer() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let subscribe = pair.subscribe(&["a", "b/+", "c/#"]);
        let unsubscribe = pair.unsubscribe(&["d", "e"]);
        let subscribes = Packet::Subscribe(Subscribe {
            packet_id: id(1),
            filters: ["a", "b/+", "c/#"].map(at_qos_1).to_vec(),
            properties: Properties::default(),
        });
        let unsubscribes = Packet::Unsubscribe(Unsubscribe {
            packet_id: id(2),
            filters: ["d", "e"].map(filter).to_vec(),
            properties: Properties::default(),
        });
        assert_eq!(pair.sent(), [subscribes, unsubscribes]);
        let none = ReasonCode::NO_SUBSCRIPTION_EXISTED;
        let expected = if version == V5 {
            vec![OK, none]
        } else {
            vec![OK, OK]
        };
        assert_eq!(
            answered(pair.give(unsuback(2, &[OK, none]))),
            (unsubscribe, expected)
        );
        let codes = [ReasonCode::GRANTED_QOS_1, ReasonCode::UNSPECIFIED_ERROR, OK];
        assert_eq!(
            answered(pair.give(suback(1, &codes))),
            (subscribe, codes.to_vec())
        );
        assert_eq!(pair.session.in_flight(), 0);
    });
}

/// [MQTT5 3.9.3] [MQTT3 3.9.3]
#[test]
fn an_answer_with_another_number_of_codes_ends_the_connection() {
    both(|version| {
        for got in [1, 3] {
            let codes = vec![OK; got];
            let mut pair = Pair::connected(version);
            let token = pair.subscribe(&["a", "b"]);
            pair.sent();
            let error = pair.give_wrong(suback(1, &codes));
            assert_eq!(error, ProtocolError::ReasonCodeCount { filters: 2, got });
            let closing = disconnect(ReasonCode::PROTOCOL_ERROR);
            assert_eq!(
                pair.sent(),
                if version == V5 { vec![closing] } else { vec![] }
            );
            assert_eq!(pair.cut(), [token]);

            let mut pair = Pair::connected(version);
            let token = pair.unsubscribe(&["a", "b"]);
            pair.sent();
            if version == V5 {
                let error = pair.give_wrong(unsuback(1, &codes));
                assert_eq!(error, ProtocolError::ReasonCodeCount { filters: 2, got });
                assert_eq!(pair.cut(), [token]);
            } else {
                let (ended, codes) = answered(pair.give(unsuback(1, &codes)));
                assert_eq!((ended, codes), (token, vec![OK; 2]));
            }
        }
    });
}

/// [MQTT5-3.8.3-2] [MQTT5-3.10.3-2] [MQTT3-3.8.3-3] [MQTT3-3.10.3-2]
#[test]
fn a_request_has_a_filter() {
    both(|version| {
        let mut pair = Pair::connected(version);
        assert_eq!(pair.try_subscribe(vec![]), Err(UsageError::NoFilter));
        assert_eq!(pair.try_unsubscribe(vec![]), Err(UsageError::NoFilter));
        assert_eq!(pair.sent(), []);
    });
}

/// What the server says beside its codes reaches the caller.
#[test]
fn texts_of_an_answer_reach_the_caller() {
    let mut pair = Pair::connected(V5);
    let subscribe = pair.subscribe(&["a"]);
    let unsubscribe = pair.unsubscribe(&["a"]);
    pair.sent();
    let suback = Packet::SubAck(SubAck {
        packet_id: id(1),
        reason_codes: vec![ReasonCode::NOT_AUTHORIZED],
        properties: reason_string("no"),
    });
    let unsuback = Packet::UnsubAck(UnsubAck {
        packet_id: id(2),
        reason_codes: vec![OK],
        properties: reason_string("yes"),
    });
    for (packet, expected, reason) in [(suback, subscribe, "no"), (unsuback, unsubscribe, "yes")] {
        match pair.give(packet) {
            Some(Event::Answered {
                token, properties, ..
            }) => {
                assert_eq!(token, expected);
                assert_eq!(properties.reason_string, Some(text(reason)));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Requests take no part in the window of publishes, but they do in the identifiers.
#[test]
fn requests_and_publishes_do_not_mix() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let subscribe = pair.subscribe(&["a"]);
        let publish = pair.publish_at(AtLeastOnce, "m");
        let unsubscribe = pair.unsubscribe(&["a"]);
        assert_eq!(pair.session.in_flight(), 1);
        pair.sent();
        assert_eq!(answered(pair.give(unsuback(3, &[OK]))).0, unsubscribe);
        assert_eq!(published(pair.give(puback(2))).0, publish);
        assert_eq!(answered(pair.give(suback(1, &[OK]))).0, subscribe);
        assert_eq!(pair.give(suback(1, &[OK])), None, "a late duplicate");
        let token = pair.subscribe(&["a"]);
        let error = pair.give_wrong(unsuback(4, &[OK]));
        let (packet_id, got) = (id(4), PacketType::UnsubAck);
        let awaited = PacketType::SubAck;
        assert_eq!(
            error,
            ProtocolError::WrongAcknowledgement {
                packet_id,
                awaited,
                got
            }
        );
        assert_eq!(pair.cut(), [token]);
    });
}
