//! Messages from the client, on a connection that holds.

mod session_common;

use std::time::Duration;

use mqtt_proto::{
    Event, QoS, ReasonCode, SessionOptions,
    packet::{Ack, ConnAck, Packet},
};
use session_common::*;

/// [MQTT5-4.3.1-1] [MQTT3-4.3.1-1] [MQTT5-2.2.1-2] [MQTT3-2.3.1-5]
#[test]
fn qos_0_is_sent_once_and_ends_at_once() {
    both(|version| {
        let mut pair = Pair::connected(version);
        pair.publish_at(AtMostOnce, "m");
        assert_eq!(pair.session.in_flight(), 0);
        assert_eq!(pair.sent(), [publish_0("m")]);
        pair.resume();
        assert_eq!(pair.sent(), []);
    });
}

/// [MQTT5-4.3.2-1] [MQTT5-4.3.2-2] [MQTT5-4.3.2-3] [MQTT3-4.3.2-1]
#[test]
fn qos_1_ends_with_its_puback() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let first = pair.publish_at(AtLeastOnce, "first");
        let second = pair.publish_at(AtLeastOnce, "second");
        assert_eq!(pair.session.in_flight(), 2);
        let sent = [
            publish(AtLeastOnce, 1, "first"),
            publish(AtLeastOnce, 2, "second"),
        ];
        assert_eq!(pair.sent(), sent);
        assert_eq!(published(pair.give(puback(2))), (second, OK));
        assert_eq!(published(pair.give(puback(1))), (first, OK));
        assert_eq!(pair.session.in_flight(), 0);
        assert_eq!(pair.give(puback(1)), None, "a late duplicate");
    });
}

/// [MQTT5-4.3.3-1] [MQTT5-4.3.3-2] [MQTT5-4.3.3-4] [MQTT5-4.3.3-6] [MQTT3-4.3.3-1]
#[test]
fn qos_2_ends_with_its_pubcomp() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let token = pair.publish_at(ExactlyOnce, "m");
        assert_eq!(pair.sent(), [publish(ExactlyOnce, 1, "m")]);
        assert_eq!(pair.give(pubrec(1)), None);
        assert_eq!(pair.sent(), [pubrel(1)]);
        assert_eq!(pair.give(pubrec(1)), None, "a repeat");
        assert_eq!(pair.sent(), [pubrel(1)], "not PUBLISH");
        assert_eq!(pair.session.in_flight(), 1);
        assert_eq!(published(pair.give(pubcomp(1))), (token, OK));
        assert_eq!(pair.session.in_flight(), 0);
        assert_eq!(pair.give(pubcomp(1)), None);
    });
}

/// [MQTT5-4.3.3-4] [MQTT5-4.4.0-2]
#[test]
fn what_the_server_says_of_a_message_reaches_the_caller() {
    let mut pair = Pair::connected(V5);
    for code in [
        ReasonCode::NO_MATCHING_SUBSCRIBERS,
        ReasonCode::NOT_AUTHORIZED,
        ReasonCode::QUOTA_EXCEEDED,
    ] {
        let one = pair.publish_at(AtLeastOnce, "1");
        let Packet::Publish(sent) = pair.sent().remove(0) else {
            panic!()
        };
        let n = sent.packet_id.unwrap();
        let mut ack = Ack::with_reason(n, code);
        ack.properties = reason_string("because");
        match pair.give(Packet::PubAck(ack)) {
            Some(Event::Published {
                token,
                reason_code,
                properties,
            }) => {
                assert_eq!((token, reason_code), (one, code));
                assert_eq!(properties.reason_string, Some(text("because")));
            }
            other => panic!("{other:?}"),
        }

        let two = pair.publish_at(ExactlyOnce, "2");
        let Packet::Publish(sent) = pair.sent().remove(0) else {
            panic!()
        };
        let n = sent.packet_id.unwrap().value();
        let event = pair.give(pubrec_with(n, code));
        if code.is_error() {
            assert_eq!(published(event), (two, code));
            assert_eq!(pair.sent(), [], "no PUBREL");
        } else {
            assert_eq!(event, None);
            assert_eq!(pair.sent(), [pubrel(n)]);
            assert_eq!(published(pair.give(pubcomp(n))), (two, code));
        }
        assert_eq!(pair.session.in_flight(), 0);
    }
}

/// A server that has forgotten the identifier has taken the message. [MQTT5 4.3.3]
#[test]
fn a_pubcomp_that_does_not_know_the_identifier_ends_the_exchange() {
    let mut pair = Pair::connected(V5);
    let token = pair.publish_at(ExactlyOnce, "m");
    pair.sent();
    pair.give(pubrec(1));
    assert_eq!(
        published(pair.give(pubcomp_with(1, NOT_FOUND))),
        (token, OK)
    );
}

/// [MQTT5-4.6.0-4] [MQTT3-4.6.0-4]
#[test]
fn pubrels_go_in_the_order_of_pubrecs() {
    both(|version| {
        let mut pair = Pair::connected(version);
        for n in 1..=5 {
            pair.publish_at(ExactlyOnce, format!("{n}"));
        }
        pair.sent();
        let order = [3, 1, 5, 2, 4];
        for n in order {
            pair.give(pubrec(n));
        }
        assert_eq!(pair.sent(), order.map(pubrel));
        // On the next connection too, and before any message that is left.
        pair.publish_at(AtLeastOnce, "last");
        pair.sent();
        pair.resume();
        let mut expected = order.map(pubrel).to_vec();
        expected.push(repeat(AtLeastOnce, 6, "last"));
        assert_eq!(pair.sent(), expected);
    });
}

/// [MQTT5-4.4.0-1] [MQTT3 4.4]
#[test]
fn nothing_is_sent_twice_on_a_connection() {
    both(|version| {
        let mut pair = Pair::connected(version);
        pair.publish_at(AtLeastOnce, "1");
        pair.publish_at(ExactlyOnce, "2");
        pair.publish_at(ExactlyOnce, "3");
        pair.subscribe(&["a"]);
        pair.sent();
        pair.give(pubrec(3));
        assert_eq!(pair.sent(), [pubrel(3)]);
        for _ in 0..20 {
            let (_, result) = pair.wait();
            assert_eq!(result, Ok(()));
            let sent = pair.sent();
            assert!(
                sent.iter().all(|packet| *packet == Packet::PingReq),
                "{sent:?}"
            );
            pair.give(Packet::PingResp);
            pair.pass(Duration::from_secs(1));
        }
    });
}

/// A payload too large to be copied keeps its place among the others.
#[test]
fn large_payloads_go_in_order() {
    both(|version| {
        let options = SessionOptions::default().with_max_unsent_bytes(1 << 20);
        let mut pair = Pair::with_options(version, options);
        pair.dial(lasting(version));
        pair.accept(ConnAck::accepted());
        let large = "x".repeat(100_000);
        let expected = |packet: fn(QoS, u16, String) -> Packet| {
            [
                packet(AtLeastOnce, 1, "a".into()),
                packet(ExactlyOnce, 2, large.clone()),
                packet(AtLeastOnce, 3, "b".into()),
            ]
        };
        pair.publish_at(AtLeastOnce, "a");
        pair.publish_at(ExactlyOnce, large.clone());
        pair.publish_at(AtLeastOnce, "b");
        assert_eq!(pair.sent(), expected(publish));
        pair.resume();
        assert_eq!(pair.sent(), expected(repeat));
    });
}

/// The code is PUBREC's, and so are the words beside it. [MQTT5 3.5.2.2]
#[test]
fn what_pubrec_says_is_told_at_the_end() {
    for (first, last, told) in [
        (Some("first"), None, Some("first")),
        (Some("first"), Some("last"), Some("first")),
        (None, Some("last"), Some("last")),
        (None, None, None),
    ] {
        let mut pair = Pair::connected(V5);
        pair.publish_at(ExactlyOnce, "m");
        pair.sent();
        let ack = |words: Option<&str>| {
            let mut ack = Ack::new(id(1));
            if let Some(words) = words {
                ack.properties = reason_string(words);
            }
            ack
        };
        assert_eq!(pair.give(Packet::PubRec(ack(first))), None);
        match pair.give(Packet::PubComp(ack(last))) {
            Some(Event::Published { properties, .. }) => {
                assert_eq!(properties.reason_string, told.map(text));
            }
            other => panic!("{other:?}"),
        }
    }
}
