//! New publishes that are held back, and old ones that are sent one at a time or given up.

mod session_common;

use mqtt_proto::packet::{ConnAck, Packet};
use session_common::*;

#[test]
fn a_session_that_is_paused_takes_no_publish_until_the_next_connection() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let open = pair.publish_at(AtLeastOnce, "open");
        pair.sent();
        pair.session.pause();
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            assert!(!pair.session.has_room(qos));
            assert_eq!(pair.try_publish(message(qos)), Err(None));
        }
        // All else goes on.
        assert_eq!(published(pair.give(puback(1))), (open, OK));
        pair.resume();
        assert!(!pair.session.is_paused());
        pair.publish_at(AtMostOnce, "again");
        assert_eq!(pair.sent().len(), 1);
    });
}

fn message(qos: mqtt_proto::QoS) -> mqtt_proto::Message {
    mqtt_proto::Message::new("t", "m")
        .expect("a topic")
        .with_qos(qos)
}

/// Held back, then one at a time, and new ones behind them.
#[test]
fn resends_go_one_at_a_time_once_they_are_released() {
    both(|version| {
        let mut pair = Pair::connected(version);
        for n in 1..=3 {
            pair.publish_at(AtLeastOnce, format!("{n}"));
        }
        pair.sent();
        pair.cut();
        pair.session.hold_resends();
        pair.dial(lasting(version));
        pair.accept(ConnAck::resumed());
        assert_eq!(pair.sent(), []);
        assert!(!pair.session.has_room(AtLeastOnce));
        assert!(pair.session.has_room(AtMostOnce));
        assert_eq!(pair.session.oldest_unacknowledged(), None);
        pair.session.release_resends();
        for n in 1..=3 {
            assert_eq!(pair.sent(), [repeat(AtLeastOnce, n, n.to_string())]);
            assert_eq!(pair.session.has_room(AtLeastOnce), n == 3);
            pair.give(puback(n));
        }
        // The connection after that is like any other.
        for n in 4..=5 {
            pair.publish_at(AtLeastOnce, format!("{n}"));
        }
        pair.sent();
        pair.resume();
        assert_eq!(pair.sent().len(), 2);
    });
}

#[test]
fn a_server_that_has_lost_the_session_leaves_nothing_to_hold_back() {
    both(|version| {
        let mut pair = Pair::connected(version);
        pair.publish_at(AtLeastOnce, "lost");
        pair.sent();
        pair.cut();
        pair.session.hold_resends();
        pair.dial(lasting(version));
        pair.accept(ConnAck::accepted());
        assert!(pair.session.has_room(AtLeastOnce));
    });
}

/// Its identifier rests [MQTT5-2.2.1-3] [MQTT3-2.3.1-2].
#[test]
fn what_is_given_up_is_not_sent_again() {
    both(|version| {
        for qos in [AtLeastOnce, ExactlyOnce] {
            let mut pair = Pair::connected(version);
            let first = pair.publish_at(qos, "first");
            pair.publish_at(qos, "second");
            pair.sent();
            assert_eq!(pair.abandon_oldest(), Some(first));
            assert_eq!(pair.session.in_flight(), 1);
            pair.dial(lasting(version));
            pair.accept(ConnAck::resumed());
            assert_eq!(pair.sent(), [repeat(qos, 2, "second")]);
            let mut used = Vec::new();
            for n in 0..40 {
                pair.publish_at(qos, format!("{n}"));
                for packet in pair.sent() {
                    let Packet::Publish(publish) = packet else {
                        panic!("{packet:?}");
                    };
                    let id = publish.packet_id.expect("above QoS 0").value();
                    used.push(id);
                    if qos == AtLeastOnce {
                        pair.give(puback(id));
                    } else {
                        pair.give(pubrec(id));
                        assert_eq!(pair.sent(), [pubrel(id)]);
                        pair.give(pubcomp(id));
                    }
                }
            }
            assert!(!used.contains(&1), "{used:?}");
            // A server that goes on with it all the same is answered.
            if qos == ExactlyOnce {
                pair.give(pubrec(1));
                assert_eq!(pair.sent().len(), 1);
            }
        }
    });
}

/// The oldest is that of the lowest order, not of the lowest identifier, and a server that has
/// taken it has nothing against it.
#[test]
fn the_oldest_is_the_first_of_those_the_server_may_not_have() {
    both(|version| {
        let mut pair = Pair::connected(version);
        assert_eq!(pair.session.oldest_unacknowledged(), None);
        pair.publish_at(ExactlyOnce, "taken");
        pair.publish_at(AtLeastOnce, "second");
        let third = pair.publish_at(ExactlyOnce, "third");
        pair.sent();
        pair.give(pubrec(1));
        pair.give(puback(2));
        pair.sent();
        assert_eq!(pair.abandon_oldest(), Some(third));
        assert_eq!(pair.session.oldest_unacknowledged(), None);
        pair.dial(lasting(version));
        pair.accept(ConnAck::resumed());
        pair.sent();
        pair.give(pubcomp(1));
    });
}
