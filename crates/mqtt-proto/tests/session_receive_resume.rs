//! Messages from the server over a reconnect, and how many of them may be open.

mod session_common;

use std::num::NonZeroU16;

use mqtt_proto::{ProtocolError, ReasonCode};
use session_common::*;

/// [MQTT5-4.3.3-10] [MQTT3-4.3.3-2] [MQTT3-4.1.0-2]
#[test]
fn a_message_taken_before_its_repeat_is_delivered_once() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let ack = pair.deliver(publish(ExactlyOnce, 1, "m"));
        pair.resume();
        pair.acknowledge(ack);
        assert_eq!(pair.sent(), [], "nothing is owed on this connection yet");
        assert_eq!(pair.give(repeat(ExactlyOnce, 1, "m")), None);
        assert_eq!(pair.sent(), [pubrec(1)]);
        pair.give(pubrel(1));
        assert_eq!(pair.sent(), [pubcomp(1)]);
        pair.deliver(publish(ExactlyOnce, 1, "new"));
    });
}

/// [MQTT5-4.3.3-10] [MQTT3-4.3.3-2]
#[test]
fn a_message_taken_after_its_repeat_is_delivered_once() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let ack = pair.deliver(publish(ExactlyOnce, 1, "m"));
        for _ in 0..3 {
            pair.resume();
            assert_eq!(pair.give(repeat(ExactlyOnce, 1, "m")), None);
            assert_eq!(pair.sent(), []);
        }
        pair.acknowledge(ack);
        assert_eq!(pair.sent(), [pubrec(1)]);
        pair.give(pubrel(1));
        assert_eq!(pair.sent(), [pubcomp(1)]);
    });
}

/// [MQTT5-4.3.3-10] [MQTT5-4.3.3-11]
#[test]
fn a_lost_pubrec_or_pubcomp_is_sent_again_when_the_server_asks() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let ack = pair.deliver(publish(ExactlyOnce, 1, "m"));
        pair.acknowledge(ack);
        // PUBREC was never taken off the session.
        pair.resume();
        assert_eq!(pair.sent(), []);
        assert_eq!(pair.give(repeat(ExactlyOnce, 1, "m")), None);
        assert_eq!(pair.sent(), [pubrec(1)]);
        pair.give(pubrel(1));
        pair.resume();
        pair.give(pubrel(1));
        let unknown = pubcomp_with(1, NOT_FOUND);
        assert_eq!(
            pair.sent(),
            [if version == V5 { unknown } else { pubcomp(1) }]
        );
    });
}

/// [MQTT5-4.3.3-9]
#[test]
fn a_message_refused_between_connections_is_refused_when_it_comes_again() {
    let mut pair = Pair::connected(V5);
    let ack = pair.deliver(publish(ExactlyOnce, 1, "m"));
    pair.cut();
    pair.session.acknowledge(ack, QUOTA);
    pair.dial(lasting(V5));
    pair.accept(mqtt_proto::packet::ConnAck::resumed());
    assert_eq!(pair.give(repeat(ExactlyOnce, 1, "m")), None);
    assert_eq!(pair.sent(), [pubrec_with(1, QUOTA)]);
    pair.deliver(publish(ExactlyOnce, 1, "new"));
}

/// Its acknowledgement would be for a message this connection does not know. [MQTT5-4.3.2-4]
#[test]
fn a_message_at_qos_1_of_an_earlier_connection_is_not_acknowledged() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let old = pair.deliver(publish(AtLeastOnce, 1, "m"));
        pair.resume();
        pair.acknowledge(old);
        assert_eq!(pair.sent(), []);
        let new = pair.deliver(repeat(AtLeastOnce, 1, "m"));
        pair.acknowledge(old);
        assert_eq!(pair.sent(), []);
        pair.acknowledge(new);
        assert_eq!(pair.sent(), [puback(1)]);
    });
}

/// Repeats of different states answer in the order in which they came. [MQTT5-4.6.0-3]
#[test]
fn repeats_wait_for_their_turn() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let acks: Vec<_> = (1..=3)
            .map(|n| pair.deliver(publish(ExactlyOnce, n, "m")))
            .collect();
        pair.acknowledge(acks[0]);
        assert_eq!(pair.sent(), [pubrec(1)]);
        pair.resume();
        pair.acknowledge(acks[2]);
        for n in [2, 1, 3] {
            assert_eq!(pair.give(repeat(ExactlyOnce, n, "m")), None);
        }
        assert_eq!(pair.sent(), [], "2 is not taken");
        pair.acknowledge(acks[1]);
        assert_eq!(pair.sent(), [pubrec(2), pubrec(1), pubrec(3)]);
    });
}

fn taking(max: u16) -> Pair {
    Pair::connected_with(V5, |connect| {
        connect.properties.receive_maximum = NonZeroU16::new(max);
    })
}

fn resume_taking(pair: &mut Pair, max: u16) {
    pair.cut();
    let mut connect = lasting(V5);
    connect.properties.receive_maximum = NonZeroU16::new(max);
    pair.dial(connect);
    pair.accept(mqtt_proto::packet::ConnAck::resumed());
}

/// [MQTT5 3.1.2.11.3] [MQTT5 4.13.1]
#[test]
fn more_messages_than_the_receive_maximum_end_the_connection() {
    for (first, second) in [(AtLeastOnce, ExactlyOnce), (ExactlyOnce, AtLeastOnce)] {
        let mut pair = taking(2);
        let one = pair.deliver(publish(first, 1, "1"));
        pair.deliver(publish(second, 2, "2"));
        assert!(pair.give(publish_0("counts for nothing")).is_some());
        pair.acknowledge(one);
        let answer = pair.sent();
        if first == ExactlyOnce {
            assert_eq!(answer, [pubrec(1)], "open until PUBREL");
        } else {
            assert_eq!(answer, [puback(1)]);
            pair.deliver(publish(first, 1, "3"));
        }
        let error = pair.give_wrong(publish(AtLeastOnce, 9, "too many"));
        assert_eq!(error, ProtocolError::ReceiveMaximumExceeded { max: 2 });
        assert_eq!(
            pair.sent(),
            [disconnect(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED)]
        );
    }
}

/// A refusal ends an exchange too. [MQTT5-4.3.3-9]
#[test]
fn each_end_of_an_exchange_makes_room() {
    let mut pair = taking(1);
    for _ in 0..5 {
        let ack = pair.deliver(publish(AtLeastOnce, 1, "m"));
        pair.acknowledge(ack);
        let ack = pair.deliver(publish(ExactlyOnce, 1, "m"));
        pair.acknowledge(ack);
        assert_eq!(pair.give(repeat(ExactlyOnce, 1, "m")), None);
        pair.give(pubrel(1));
        let ack = pair.deliver(publish(ExactlyOnce, 1, "m"));
        pair.session.acknowledge(ack, QUOTA);
        let expected = [
            puback(1),
            pubrec(1),
            pubrec(1),
            pubcomp(1),
            pubrec_with(1, QUOTA),
        ];
        assert_eq!(pair.sent(), expected);
    }
}

/// The count begins anew with each connection, and a PUBREL takes no part in it: a server may send
/// messages before it. [MQTT5 4.9]
#[test]
fn an_exchange_that_waits_for_pubrel_takes_no_room_on_the_next_connection() {
    let mut pair = taking(2);
    for n in [1, 2] {
        let ack = pair.deliver(publish(ExactlyOnce, n, "m"));
        pair.acknowledge(ack);
    }
    assert_eq!(pair.sent(), [pubrec(1), pubrec(2)]);
    resume_taking(&mut pair, 2);
    pair.deliver(publish(AtLeastOnce, 3, "3"));
    // PUBREC of 2 was lost: it comes again, and counts.
    assert_eq!(pair.give(repeat(ExactlyOnce, 2, "m")), None);
    pair.give(pubrel(1));
    assert_eq!(pair.sent(), [pubcomp(1)]);
    let error = pair.give_wrong(publish(AtLeastOnce, 4, "too many"));
    assert_eq!(error, ProtocolError::ReceiveMaximumExceeded { max: 2 });
}

/// What the application still has counts whichever connection it came by, so that it never has
/// more than it takes.
#[test]
fn a_message_the_application_still_has_takes_room_on_the_next_connection() {
    let mut pair = taking(2);
    let one = pair.deliver(publish(ExactlyOnce, 1, "1"));
    let two = pair.deliver(publish(ExactlyOnce, 2, "2"));
    resume_taking(&mut pair, 2);
    pair.acknowledge(one);
    // 1 was taken and waits for its repeat; 2 is still with the application.
    let three = pair.deliver(publish(AtLeastOnce, 3, "3"));
    pair.acknowledge(three);
    assert_eq!(pair.sent(), [puback(3)]);
    pair.deliver(publish(AtLeastOnce, 3, "4"));
    pair.acknowledge(two);
    pair.deliver(publish(AtLeastOnce, 4, "5"));
    let error = pair.give_wrong(publish(AtLeastOnce, 5, "too many"));
    assert_eq!(error, ProtocolError::ReceiveMaximumExceeded { max: 2 });
}

/// The line of those that are owed an answer is bounded too.
#[test]
fn repeats_without_end_end_the_connection() {
    let mut pair = taking(3);
    let ack = pair.deliver(publish(ExactlyOnce, 1, "1"));
    pair.acknowledge(ack);
    pair.deliver(publish(AtLeastOnce, 2, "blocks the line"));
    for _ in 0..2 {
        assert_eq!(pair.give(repeat(ExactlyOnce, 1, "1")), None);
    }
    let error = pair.give_wrong(repeat(ExactlyOnce, 1, "1"));
    assert_eq!(error, ProtocolError::ReceiveMaximumExceeded { max: 3 });
}

/// Not processed: the server sends it again after the next connect, and it is new then.
#[test]
fn a_message_given_back_comes_again_on_the_next_connection() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        both(|version| {
            let mut pair = Pair::connected(version);
            let one = pair.deliver(publish(qos, 1, "1"));
            let two = pair.deliver(publish(AtLeastOnce, 2, "2"));
            assert!(pair.session.give_back(one));
            assert!(!pair.session.is_open(one));
            assert!(!pair.session.acknowledge(one, ReasonCode::SUCCESS));
            assert!(!pair.session.give_back(one));
            assert!(pair.session.acknowledge(two, ReasonCode::SUCCESS));
            assert_eq!(pair.sent(), [], "acknowledgements leave in order");
            assert_eq!(pair.session.unacknowledged(), 2);
            assert_eq!(pair.session.given_back(), 1);
            if qos == ExactlyOnce {
                // [MQTT5-4.4.0-1] A repeat on the same connection changes nothing.
                assert_eq!(pair.give(repeat(qos, 1, "1")), None);
            }
            pair.resume();
            assert_eq!(pair.session.unacknowledged(), 0);
            assert_eq!(pair.session.given_back(), 0);
            let again = pair.deliver(repeat(qos, 1, "1"));
            assert!(!pair.session.acknowledge(one, ReasonCode::SUCCESS));
            assert_eq!(pair.sent(), []);
            assert!(pair.session.acknowledge(again, ReasonCode::SUCCESS));
            let expected = match qos {
                ExactlyOnce => pubrec(1),
                AtMostOnce | AtLeastOnce => puback(1),
            };
            assert_eq!(pair.sent(), [expected]);
        });
    }
}

#[test]
fn a_message_given_back_after_its_connection_was_lost_is_new_at_once() {
    for repeated in [false, true] {
        let mut pair = taking(1);
        let old = pair.deliver(publish(ExactlyOnce, 1, "1"));
        resume_taking(&mut pair, 1);
        if repeated {
            assert_eq!(pair.give(repeat(ExactlyOnce, 1, "1")), None);
        }
        assert!(pair.session.is_open(old));
        assert!(pair.session.give_back(old));
        if repeated {
            resume_taking(&mut pair, 1);
        }
        let new = pair.deliver(repeat(ExactlyOnce, 1, "1"));
        assert!(!pair.session.acknowledge(old, ReasonCode::SUCCESS));
        assert!(!pair.session.give_back(old));
        assert!(pair.session.acknowledge(new, ReasonCode::SUCCESS));
        assert_eq!(pair.sent(), [pubrec(1)]);
    }
}

/// At QoS 1 what was not written is lost with the connection; at QoS 2 it is said when asked again.
#[test]
fn an_acknowledgement_says_whether_it_counts() {
    for is_cut in [false, true] {
        both(|version| {
            let mut pair = Pair::connected(version);
            let one = pair.deliver(publish(AtLeastOnce, 1, "1"));
            let two = pair.deliver(publish(ExactlyOnce, 2, "2"));
            // Nothing is written behind this.
            pair.session.abort(ReasonCode::UNSPECIFIED_ERROR);
            if is_cut {
                pair.cut();
            }
            assert!(!pair.session.acknowledge(one, ReasonCode::SUCCESS));
            assert!(pair.session.acknowledge(two, ReasonCode::SUCCESS));
            assert!(!pair.session.acknowledge(two, ReasonCode::SUCCESS));
        });
        let mut pair = Pair::connected_with(V5, |connect| {
            connect.properties.session_expiry_interval = None;
        });
        let two = pair.deliver(publish(ExactlyOnce, 2, "2"));
        pair.session.abort(ReasonCode::UNSPECIFIED_ERROR);
        if is_cut {
            pair.cut();
        }
        assert!(!pair.session.acknowledge(two, ReasonCode::SUCCESS));
    }
}
