//! What was open goes on over the next connection, and nothing else.

mod session_common;

use mqtt_proto::{
    PacketId, ReasonCode, SessionOptions,
    packet::{ConnAck, Packet},
};
use session_common::*;

/// [MQTT5-4.4.0-1] [MQTT3-4.4.0-1] [MQTT5-3.3.1-1] [MQTT3-3.3.1-1] [MQTT3-2.3.1-3]
#[test]
fn what_is_open_is_sent_again_with_its_identifiers() {
    both(|version| {
        let mut pair = Pair::connected(version);
        pair.publish_at(AtLeastOnce, "done");
        let one = pair.publish_at(AtLeastOnce, "1");
        let two = pair.publish_at(ExactlyOnce, "2");
        let released = pair.publish_at(ExactlyOnce, "released");
        pair.sent();
        pair.give(puback(1));
        pair.give(pubrec(4));
        pair.sent();
        pair.resume();
        assert_eq!(
            pair.sent(),
            [
                pubrel(4),
                repeat(AtLeastOnce, 2, "1"),
                repeat(ExactlyOnce, 3, "2")
            ]
        );
        assert_eq!(published(pair.give(puback(2))), (one, OK));
        pair.give(pubrec(3));
        assert_eq!(pair.sent(), [pubrel(3)]);
        assert_eq!(published(pair.give(pubcomp(3))), (two, OK));
        assert_eq!(published(pair.give(pubcomp(4))), (released, OK));
        pair.resume();
        assert_eq!(pair.sent(), []);
    });
}

/// [MQTT5-4.6.0-1] [MQTT3-4.6.0-1]
#[test]
fn resends_keep_the_order_of_the_first_time() {
    both(|version| {
        let mut pair = Pair::connected(version);
        // So that the order of identifiers is not the order of sending.
        for n in 1..=8 {
            pair.publish_at(AtLeastOnce, "early");
            pair.sent();
            pair.give(puback(n));
        }
        pair.publish_at(AtLeastOnce, "early");
        pair.publish_at(AtLeastOnce, "early");
        pair.sent();
        for n in [2, 1] {
            pair.give(puback(n));
        }
        for n in 0..8 {
            let qos = if n % 3 == 0 { ExactlyOnce } else { AtLeastOnce };
            pair.publish_at(qos, format!("{n}"));
        }
        let first = pair.sent();
        let ids = |sent: &[Packet]| -> Vec<Option<PacketId>> {
            let publishes = sent.iter().map(|packet| {
                let Packet::Publish(publish) = packet else {
                    panic!("{packet:?}");
                };
                publish.packet_id
            });
            publishes.collect()
        };
        assert_eq!(ids(&first)[6..], [Some(id(2)), Some(id(1))]);
        for _ in 0..3 {
            pair.resume();
            assert_eq!(ids(&pair.sent()), ids(&first));
        }
    });
}

/// [MQTT5-4.3.3-6] [MQTT3-4.3.3-1]
#[test]
fn a_message_is_not_sent_again_once_its_pubrec_has_come() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let token = pair.publish_at(ExactlyOnce, "m");
        pair.sent();
        pair.give(pubrec(1));
        // PUBREL was never taken off the session.
        for _ in 0..3 {
            pair.resume();
            assert_eq!(pair.sent(), [pubrel(1)]);
        }
        assert_eq!(published(pair.give(pubcomp(1))), (token, OK));
    });
}

/// What the client wrote and nobody took is lost with the connection, and sent on the next.
#[test]
fn a_message_that_was_never_written_is_sent_on_the_next_connection() {
    both(|version| {
        let mut pair = Pair::connected(version);
        pair.publish_at(AtMostOnce, "0");
        let token = pair.publish_at(AtLeastOnce, "1");
        pair.resume();
        assert_eq!(pair.sent(), [repeat(AtLeastOnce, 1, "1")]);
        assert_eq!(published(pair.give(puback(1))), (token, OK));
    });
}

/// [MQTT5-4.4.0-2]
#[test]
fn a_refused_message_is_not_sent_again() {
    let mut pair = Pair::connected(V5);
    let one = pair.publish_at(AtLeastOnce, "1");
    let two = pair.publish_at(ExactlyOnce, "2");
    pair.sent();
    assert_eq!(published(pair.give(puback_with(1, QUOTA))), (one, QUOTA));
    let not_allowed = ReasonCode::NOT_AUTHORIZED;
    assert_eq!(
        published(pair.give(pubrec_with(2, not_allowed))),
        (two, not_allowed)
    );
    pair.resume();
    assert_eq!(pair.sent(), []);
}

/// [MQTT5-4.3.3-7]
#[test]
fn a_message_past_its_expiry_is_sent_again() {
    let mut pair = Pair::connected(V5);
    let mut message = message(ExactlyOnce, "m");
    message.properties.message_expiry_interval = Some(1);
    pair.publish(message.clone());
    pair.sent();
    pair.pass(std::time::Duration::from_secs(2));
    pair.resume();
    assert_eq!(pair.sent(), [publish_of(message, 1, true)]);
}

/// Requests end with their connection; they are no part of the session.
#[test]
fn subscribes_are_lost_with_the_connection() {
    both(|version| {
        let mut pair = Pair::connected(version);
        pair.publish_at(AtLeastOnce, "stays");
        let requests = [pair.subscribe(&["a"]), pair.unsubscribe(&["b"])];
        pair.sent();
        assert_eq!(pair.cut(), requests);
        pair.dial(lasting(version));
        assert_eq!(pair.accept(ConnAck::resumed()), []);
        assert_eq!(pair.sent(), [repeat(AtLeastOnce, 1, "stays")]);
        assert_eq!(pair.give(suback(2, &[OK])), None, "nobody's any more");
    });
}

/// [MQTT5-3.3.4-7] [MQTT5-4.9.0-2]
#[test]
fn resends_wait_for_the_window_and_go_before_new_messages() {
    let mut pair = Pair::connected(V5);
    for n in 1..=4 {
        pair.publish_at(
            if n % 2 == 0 { ExactlyOnce } else { AtLeastOnce },
            format!("{n}"),
        );
    }
    pair.sent();
    resume_with_window(&mut pair, 2);
    assert_eq!(
        pair.sent(),
        [repeat(AtLeastOnce, 1, "1"), repeat(ExactlyOnce, 2, "2")]
    );
    assert!(!pair.session.has_room(AtLeastOnce));
    pair.give(pubrec(2));
    assert_eq!(
        pair.sent(),
        [pubrel(2)],
        "a PUBREC that succeeds frees nothing"
    );
    pair.give(puback(1));
    assert_eq!(pair.sent(), [repeat(AtLeastOnce, 3, "3")]);
    pair.give(puback(3));
    assert_eq!(pair.sent(), [repeat(ExactlyOnce, 4, "4")]);
    assert!(!pair.session.has_room(AtLeastOnce));
    pair.give(pubcomp(2));
    assert!(pair.session.has_room(AtLeastOnce));
    pair.publish_at(AtLeastOnce, "5");
    assert!(!pair.session.has_room(AtLeastOnce));
}

fn resume_with_window(pair: &mut Pair, window: u16) {
    assert_eq!(pair.cut(), []);
    pair.dial(lasting(V5));
    let mut connack = ConnAck::resumed();
    connack.properties.receive_maximum = std::num::NonZeroU16::new(window);
    assert_eq!(pair.accept(connack), []);
}

/// A full window delays PUBLISH and nothing else. [MQTT5-3.3.4-8] [MQTT5-4.9.0-3]
#[test]
fn a_full_window_does_not_delay_a_pubrel_of_the_last_connection() {
    let mut pair = Pair::connected(V5);
    let tokens: Vec<_> = (1..=4)
        .map(|n| pair.publish_at(ExactlyOnce, format!("{n}")))
        .collect();
    pair.sent();
    pair.give(pubrec(4));
    pair.give(pubrec(3));
    pair.sent();
    resume_with_window(&mut pair, 1);
    assert_eq!(pair.sent(), [pubrel(4), pubrel(3)]);
    pair.give(pubcomp(3));
    assert_eq!(pair.sent(), [], "4 takes the room until its PUBCOMP");
    pair.give(pubcomp(4));
    for (n, token) in [1, 2].into_iter().zip(tokens) {
        assert_eq!(pair.sent(), [repeat(ExactlyOnce, n, format!("{n}"))]);
        pair.give(pubrec(n));
        assert_eq!(pair.sent(), [pubrel(n)]);
        assert_eq!(published(pair.give(pubcomp(n))), (token, OK));
    }
}

/// A server that answers on the new connection what it got on the old one.
#[test]
fn an_answer_that_comes_before_the_resend_ends_it_and_frees_no_room() {
    let mut pair = Pair::connected(V5);
    let tokens: Vec<_> = (1..=3)
        .map(|n| pair.publish_at(AtLeastOnce, format!("{n}")))
        .collect();
    let last = pair.publish_at(ExactlyOnce, "4");
    pair.sent();
    resume_with_window(&mut pair, 1);
    assert_eq!(pair.sent(), [repeat(AtLeastOnce, 1, "1")]);
    assert_eq!(published(pair.give(puback(2))), (tokens[1], OK));
    assert_eq!(pair.give(pubrec(4)), None);
    assert_eq!(pair.sent(), [pubrel(4)], "1 is still open, so 3 waits");
    pair.subscribe(&["takes the free identifier or another"]);
    let Packet::Subscribe(subscribe) = pair.sent().remove(0) else {
        panic!()
    };
    pair.give(suback(subscribe.packet_id.value(), &[OK]));
    assert_eq!(published(pair.give(pubcomp(4))), (last, OK));
    assert_eq!(pair.sent(), []);
    assert_eq!(published(pair.give(puback(1))), (tokens[0], OK));
    assert_eq!(pair.sent(), [repeat(AtLeastOnce, 3, "3")]);
    assert_eq!(published(pair.give(puback(3))), (tokens[2], OK));
    pair.publish_at(AtLeastOnce, "5");
    assert!(
        !pair.session.has_room(AtLeastOnce),
        "the window is one again"
    );
}

/// A server whose limits are narrower than those of the last connection. [MQTT5-3.2.2-11]
/// [MQTT5-3.2.2-14] [MQTT5-3.2.2-15]
#[test]
fn what_the_server_no_longer_takes_is_lost() {
    let mut pair = Pair::connected(V5);
    let fits = pair.publish_at(AtLeastOnce, "fits");
    let qos_2 = pair.publish_at(ExactlyOnce, "qos 2");
    let retained = pair.publish(message(AtLeastOnce, "retained").with_retain(true));
    let large = pair.publish_at(AtLeastOnce, "x".repeat(50));
    let released = pair.publish_at(ExactlyOnce, "released");
    pair.sent();
    pair.give(pubrec(5));
    pair.sent();
    pair.cut();
    pair.dial(lasting(V5));
    let mut connack = ConnAck::resumed();
    connack.properties.maximum_qos = Some(AtLeastOnce);
    connack.properties.retain_available = Some(false);
    connack.properties.maximum_packet_size = std::num::NonZeroU32::new(50);
    assert_eq!(pair.accept(connack), [qos_2, retained, large]);
    assert_eq!(pair.sent(), [pubrel(5), repeat(AtLeastOnce, 1, "fits")]);
    assert_eq!(published(pair.give(puback(1))), (fits, OK));
    assert_eq!(published(pair.give(pubcomp(5))), (released, OK));
}

/// Our own window may shrink too.
#[test]
fn the_window_is_the_smaller_of_both() {
    both(|version| {
        let options = SessionOptions::default().with_max_in_flight(3);
        let mut pair = Pair::with_options(version, options);
        pair.dial(lasting(version));
        pair.accept(ConnAck::accepted());
        for n in 1..=3 {
            pair.publish_at(AtLeastOnce, format!("{n}"));
        }
        assert_eq!(pair.try_publish(message(AtLeastOnce, "4")), Err(None));
        pair.sent();
        pair.resume();
        assert_eq!(pair.sent().len(), 3);
        assert_eq!(pair.try_publish(message(AtLeastOnce, "4")), Err(None));
        pair.give(puback(2));
        pair.publish_at(AtLeastOnce, "4");
    });
}
