//! Messages from the server, on a connection that holds.

mod session_common;

use mqtt_proto::{
    Event, ReasonCode,
    packet::{ConnAck, SubscriptionId},
};
use session_common::*;

/// [MQTT5-3.3.4-1] [MQTT3-3.3.4-1]
#[test]
fn each_qos_has_its_answer() {
    both(|version| {
        let mut pair = Pair::connected(version);
        match pair.give(publish_0("0")) {
            Some(Event::Message {
                message,
                ack: None,
                dup: false,
            }) => {
                assert_eq!(message.payload, "0");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(pair.sent(), []);
        let ack = pair.deliver(publish(AtLeastOnce, 1, "1"));
        assert_eq!(pair.sent(), [], "not before the application has taken it");
        pair.acknowledge(ack);
        assert_eq!(pair.sent(), [puback(1)]);
        let ack = pair.deliver(publish(ExactlyOnce, 2, "2"));
        assert_eq!(pair.sent(), []);
        pair.acknowledge(ack);
        assert_eq!(pair.sent(), [pubrec(2)]);
        assert_eq!(pair.give(pubrel(2)), None);
        assert_eq!(pair.sent(), [pubcomp(2)]);
    });
}

/// [MQTT5-2.2.1-5] [MQTT3-2.3.1-6]
#[test]
fn answers_repeat_the_identifier() {
    both(|version| {
        let mut pair = Pair::connected(version);
        for n in [1, 255, 256, 65_535] {
            let ack = pair.deliver(publish(AtLeastOnce, n, "1"));
            pair.acknowledge(ack);
            let ack = pair.deliver(publish(ExactlyOnce, n, "2"));
            pair.acknowledge(ack);
            pair.give(pubrel(n));
            assert_eq!(pair.sent(), [puback(n), pubrec(n), pubcomp(n)]);
        }
    });
}

/// After its acknowledgement an identifier is new, whatever DUP says. [MQTT5-4.3.2-5]
/// [MQTT5-4.3.3-12] [MQTT3-4.3.2-2] [MQTT3-4.3.3-2]
#[test]
fn an_identifier_is_new_after_its_exchange() {
    both(|version| {
        let mut pair = Pair::connected(version);
        for packet in [publish(AtLeastOnce, 1, "a"), repeat(AtLeastOnce, 1, "b")] {
            let ack = pair.deliver(packet);
            pair.acknowledge(ack);
            assert_eq!(pair.sent(), [puback(1)]);
        }
        for packet in [publish(ExactlyOnce, 1, "a"), repeat(ExactlyOnce, 1, "b")] {
            let ack = pair.deliver(packet);
            pair.acknowledge(ack);
            pair.give(pubrel(1));
            assert_eq!(pair.sent(), [pubrec(1), pubcomp(1)]);
        }
        match pair.give(repeat(AtLeastOnce, 3, "c")) {
            Some(Event::Message { dup: true, .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}

/// [MQTT5-4.6.0-2] [MQTT5-4.6.0-3] [MQTT3-4.6.0-2] [MQTT3-4.6.0-3]
#[test]
fn acknowledgements_leave_in_the_order_of_the_messages() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let mut acks = Vec::new();
        let mut expected = Vec::new();
        for n in 1..=20 {
            let qos = if n % 3 == 0 { ExactlyOnce } else { AtLeastOnce };
            acks.push(pair.deliver(publish(qos, n, "m")));
            expected.push(if n % 3 == 0 { pubrec(n) } else { puback(n) });
        }
        let mut sent = Vec::new();
        // Every other one, from the last to the first; then the rest.
        for turn in [1, 0] {
            for index in (0..20).rev().filter(|index| index % 2 == turn) {
                pair.acknowledge(acks[index]);
                pair.acknowledge(acks[index]);
                sent.extend(pair.sent());
                assert_eq!(sent, expected[..sent.len()]);
            }
            assert_eq!(sent.len(), if turn == 1 { 0 } else { 20 });
        }
    });
}

/// A server that repeats on a live connection. [MQTT5-4.3.3-10] [MQTT3-4.3.3-2]
#[test]
fn a_repeat_at_qos_2_is_not_delivered_again() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let ack = pair.deliver(publish(ExactlyOnce, 1, "m"));
        assert_eq!(pair.give(repeat(ExactlyOnce, 1, "m")), None);
        pair.acknowledge(ack);
        assert_eq!(pair.sent(), [pubrec(1)]);
        assert_eq!(pair.give(repeat(ExactlyOnce, 1, "m")), None);
        assert_eq!(pair.sent(), [pubrec(1)]);
        pair.give(pubrel(1));
        assert_eq!(pair.sent(), [pubcomp(1)]);
        pair.give(pubrel(1));
        let again = if version == V5 {
            pubcomp_with(1, NOT_FOUND)
        } else {
            pubcomp(1)
        };
        assert_eq!(pair.sent(), [again]);
    });
}

/// A 3.1.1 server may repeat on a live connection, and PUBREC and PUBREL may then cross.
/// [MQTT3-4.3.3-2]
#[test]
fn a_repeat_whose_pubrel_comes_first_does_not_touch_the_next_message() {
    both(|version| {
        for reuses_at_once in [false, true] {
            let mut pair = Pair::connected(version);
            let ack = pair.deliver(publish(ExactlyOnce, 5, "first"));
            pair.acknowledge(ack);
            assert_eq!(pair.sent(), [pubrec(5)]);
            let blocks = pair.deliver(publish(AtLeastOnce, 1, "blocks the line"));
            assert_eq!(pair.give(repeat(ExactlyOnce, 5, "first")), None);
            pair.give(pubrel(5));
            assert_eq!(pair.sent(), [pubcomp(5)]);
            let mut second = None;
            if reuses_at_once {
                second = Some(pair.deliver(publish(ExactlyOnce, 5, "second")));
            }
            pair.acknowledge(blocks);
            assert_eq!(pair.sent(), [puback(1)], "5 is complete");
            let second = second.unwrap_or_else(|| pair.deliver(publish(ExactlyOnce, 5, "second")));
            pair.acknowledge(second);
            pair.give(pubrel(5));
            assert_eq!(pair.sent(), [pubrec(5), pubcomp(5)]);
        }
    });
}

/// [MQTT5-4.3.3-9]
#[test]
fn a_refused_message_is_over() {
    let mut pair = Pair::connected(V5);
    let ack = pair.deliver(publish(AtLeastOnce, 1, "1"));
    pair.session.acknowledge(ack, ReasonCode::NOT_AUTHORIZED);
    assert_eq!(pair.sent(), [puback_with(1, ReasonCode::NOT_AUTHORIZED)]);
    for _ in 0..2 {
        let ack = pair.deliver(publish(ExactlyOnce, 2, "2"));
        pair.session.acknowledge(ack, QUOTA);
        assert_eq!(pair.sent(), [pubrec_with(2, QUOTA)]);
    }
    pair.give(pubrel(2));
    assert_eq!(pair.sent(), [pubcomp_with(2, NOT_FOUND)]);
}

/// Without codes in 3.1.1, a refusal takes the message. [MQTT3-4.3.3-2]
#[test]
fn a_refusal_in_3_1_1_takes_the_message() {
    let mut pair = Pair::connected(V3);
    let ack = pair.deliver(publish(ExactlyOnce, 2, "2"));
    pair.session.acknowledge(ack, QUOTA);
    assert_eq!(pair.sent(), [pubrec(2)]);
    assert_eq!(pair.give(repeat(ExactlyOnce, 2, "2")), None);
    assert_eq!(pair.sent(), [pubrec(2)]);
}

/// [MQTT5-3.4.2-1] [MQTT5-3.5.2-1]
#[test]
fn an_acknowledgement_has_a_code_that_a_client_may_send() {
    let mut pair = Pair::connected(V5);
    for code in 0..=u8::MAX {
        let code = ReasonCode::new(code);
        let expected = match code.value() {
            0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99 => code,
            0x80.. => ReasonCode::UNSPECIFIED_ERROR,
            _ => OK,
        };
        let ack = pair.deliver(publish(AtLeastOnce, 1, "m"));
        pair.session.acknowledge(ack, code);
        assert_eq!(pair.sent(), [puback_with(1, expected)]);
        let ack = pair.deliver(publish(ExactlyOnce, 1, "m"));
        pair.session.acknowledge(ack, code);
        assert_eq!(pair.sent(), [pubrec_with(1, expected)]);
        pair.give(pubrel(1));
        pair.sent();
    }
}

/// Acknowledged whether or not anybody asked for it. [MQTT5-4.5.0-2] [MQTT3-4.5.0-2]
/// What the server says of a message reaches the application. [MQTT5 3.3.2.3.8] [MQTT5 3.3.1.3]
#[test]
fn a_message_reaches_the_application_as_it_was_sent() {
    let mut pair = Pair::connected(V5);
    let mut sent = message(AtLeastOnce, "m").with_retain(true);
    let ids = [1, 2].map(|n| SubscriptionId::new(n).unwrap());
    sent.properties.subscription_identifiers = ids.to_vec();
    sent.properties.user_properties = vec![(text("k"), text("v")), (text("k"), text("w"))];
    sent.properties.content_type = Some(text("text/plain"));
    match pair.give(publish_of(sent.clone(), 1, false)) {
        Some(Event::Message { message, .. }) => assert_eq!(message, sent),
        other => panic!("{other:?}"),
    }
}

/// What became due is not sent after DISCONNECT. [MQTT5-3.14.4-1] [MQTT3-3.14.4-2]
#[test]
fn a_message_taken_after_the_end_is_not_acknowledged() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let one = pair.deliver(publish(AtLeastOnce, 1, "1"));
        let two = pair.deliver(publish(ExactlyOnce, 2, "2"));
        pair.session
            .disconnect(mqtt_proto::packet::Disconnect::new(OK))
            .unwrap();
        pair.acknowledge(one);
        pair.acknowledge(two);
        assert_eq!(pair.sent(), [disconnect(OK)]);
        assert_eq!(pair.give(publish(AtLeastOnce, 3, "3")), None);
        pair.cut();
        pair.acknowledge(one);
        assert_eq!(pair.session.unsent(), 0);
        pair.dial(lasting(version));
        pair.acknowledge(one);
        pair.accept(ConnAck::resumed());
        assert_eq!(pair.sent(), []);
        // It was taken, which the server learns when it asks again.
        assert_eq!(pair.give(repeat(ExactlyOnce, 2, "2")), None);
        assert_eq!(pair.sent(), [pubrec(2)]);
    });
}
