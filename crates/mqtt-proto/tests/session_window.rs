//! Receive maximum of the server: how much may be open, and what a full window holds back.

mod session_common;

use std::num::NonZeroU16;

use mqtt_proto::{
    ReasonCode, SessionOptions,
    packet::{ConnAck, Disconnect, Packet},
};
use session_common::*;

fn with_window(window: u16) -> Pair {
    Pair::connected_to(|connack| {
        connack.properties.receive_maximum = NonZeroU16::new(window);
    })
}

/// [MQTT5-3.3.4-7] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2]
#[test]
fn a_message_has_room_once_another_has_ended() {
    let mut pair = with_window(2);
    pair.publish_at(AtLeastOnce, "1");
    pair.publish_at(ExactlyOnce, "2");
    pair.sent();
    let full = |pair: &mut Pair| {
        for qos in [AtLeastOnce, ExactlyOnce] {
            assert!(!pair.session.has_room(qos));
            assert_eq!(pair.try_publish(message(qos, "too many")), Err(None));
        }
        assert_eq!(pair.sent(), []);
    };
    full(&mut pair);
    pair.give(pubrec(2));
    assert_eq!(pair.sent(), [pubrel(2)]);
    full(&mut pair);
    pair.give(puback(9));
    full(&mut pair);
    pair.give(pubcomp(2));
    assert!(pair.session.has_room(ExactlyOnce));
    pair.publish_at(ExactlyOnce, "3");
    pair.sent();
    full(&mut pair);
    pair.give(pubrec_with(3, QUOTA));
    pair.publish_at(ExactlyOnce, "4");
    pair.sent();
    full(&mut pair);
    pair.give(puback_with(1, QUOTA));
    pair.publish_at(AtLeastOnce, "5");
    pair.sent();
    full(&mut pair);
}

/// [MQTT5-3.3.4-8] [MQTT5-4.9.0-3]
#[test]
fn a_full_window_holds_back_nothing_else() {
    let mut pair = with_window(1);
    pair.publish_at(ExactlyOnce, "fills it");
    pair.sent();
    assert!(pair.session.has_room(AtMostOnce));
    pair.publish_at(AtMostOnce, "0");
    pair.subscribe(&["a"]);
    pair.unsubscribe(&["a"]);
    let sent = pair.sent();
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[0], publish_0("0"));

    let ack = pair.deliver(publish(AtLeastOnce, 1, "m"));
    pair.acknowledge(ack);
    let ack = pair.deliver(publish(ExactlyOnce, 2, "m"));
    pair.acknowledge(ack);
    pair.give(pubrel(2));
    pair.give(pubrec(1));
    assert_eq!(pair.sent(), [puback(1), pubrec(2), pubcomp(2), pubrel(1)]);

    pair.wait().1.unwrap();
    pair.wait().1.unwrap();
    assert_eq!(pair.sent(), [Packet::PingReq]);
    pair.session.disconnect(Disconnect::new(OK)).unwrap();
    assert_eq!(pair.sent(), [disconnect(OK)]);
}

/// [MQTT5 3.2.2.3.3]
#[test]
fn the_smaller_of_both_sides_limits_counts() {
    let check = |ours, theirs: Option<u16>, expected: usize| {
        let options = SessionOptions::default().with_max_in_flight(ours);
        let mut pair = Pair::with_options(V5, options);
        pair.dial(lasting(V5));
        let mut connack = ConnAck::accepted();
        connack.properties.receive_maximum = theirs.and_then(NonZeroU16::new);
        pair.accept(connack);
        let mut open = 0;
        while pair.try_publish(message(AtLeastOnce, "m")).is_ok() {
            open += 1;
        }
        assert_eq!(open, expected);
        assert_eq!(pair.sent().len(), expected);
    };
    check(0, None, 1);
    check(5, None, 5);
    check(5, Some(3), 3);
    check(3, Some(5), 3);
    check(100, Some(1), 1);
}

/// The limit is each connection's own.
#[test]
fn a_wider_window_is_used_at_once() {
    let mut pair = with_window(1);
    pair.publish_at(AtLeastOnce, "1");
    pair.sent();
    pair.cut();
    pair.dial(lasting(V5));
    pair.accept(ConnAck::resumed());
    assert_eq!(pair.sent(), [repeat(AtLeastOnce, 1, "1")]);
    pair.publish_at(AtLeastOnce, "2");
    assert_eq!(pair.sent(), [publish(AtLeastOnce, 2, "2")]);
}

/// Bytes that wait to be written hold back every message, and nothing else.
#[test]
fn a_full_buffer_holds_back_messages_of_every_qos() {
    both(|version| {
        let options = SessionOptions::default().with_max_unsent_bytes(100);
        let mut pair = Pair::with_options(version, options);
        pair.dial(lasting(version));
        pair.accept(ConnAck::accepted());
        pair.publish_at(AtMostOnce, "x".repeat(90));
        assert!(pair.session.unsent() < 100);
        pair.publish_at(AtLeastOnce, "x".repeat(200));
        assert!(pair.session.unsent() > 200);
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            assert!(!pair.session.has_room(qos));
            assert_eq!(pair.try_publish(message(qos, "m")), Err(None));
        }
        let ack = pair.deliver(publish(AtLeastOnce, 1, "m"));
        pair.acknowledge(ack);
        pair.subscribe(&["a"]);
        assert_eq!(pair.sent().len(), 4);
        assert_eq!(pair.session.unsent(), 0);
        assert!(pair.session.has_room(AtMostOnce));
    });
}

/// There is no room without a connection.
#[test]
fn there_is_room_while_connected_only() {
    both(|version| {
        let mut pair = Pair::new(version);
        assert!(!pair.session.has_room(AtMostOnce));
        pair.dial(lasting(version));
        assert!(!pair.session.has_room(AtMostOnce));
        pair.accept(ConnAck::accepted());
        assert!(pair.session.has_room(AtMostOnce) && pair.session.has_room(ExactlyOnce));
        pair.session.abort(ReasonCode::UNSPECIFIED_ERROR);
        assert!(!pair.session.has_room(AtMostOnce));
    });
}
