//! Packet identifiers: never zero, never used twice at a time.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it expects"
)]

mod session_common;

use mqtt_proto::{SessionOptions, UsageError, packet::Packet};
use session_common::*;

fn id_of(packet: &Packet) -> u16 {
    let id = match packet {
        Packet::Publish(publish) => publish.packet_id.expect("QoS 1 or 2"),
        Packet::Subscribe(subscribe) => subscribe.packet_id,
        Packet::Unsubscribe(unsubscribe) => unsubscribe.packet_id,
        other => panic!("{other:?}"),
    };
    id.value()
}

/// Past the wrap-around, with some exchanges left open all the while. The witness checks every
/// identifier against those in use. [MQTT5-2.2.1-3] [MQTT3-2.3.1-1] [MQTT3-2.3.1-2]
#[test]
fn identifiers_stay_unique_over_more_operations_than_there_are() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let kept = [
            pair.publish_at(AtLeastOnce, "kept"),
            pair.publish_at(ExactlyOnce, "kept"),
            pair.publish_at(ExactlyOnce, "kept and released"),
            pair.subscribe(&["kept"]),
            pair.unsubscribe(&["kept"]),
        ];
        pair.sent();
        pair.give(pubrec(3));
        pair.sent();
        for n in 0..70_000 {
            match n % 4 {
                0 => drop(pair.publish_at(AtLeastOnce, "m")),
                1 => drop(pair.publish_at(ExactlyOnce, "m")),
                2 => drop(pair.subscribe(&["a"])),
                _ => drop(pair.unsubscribe(&["a"])),
            }
            let sent = pair.sent();
            assert_eq!(sent.len(), 1);
            let used = id_of(&sent[0]);
            assert!(used > 5, "{used} is kept");
            match n % 4 {
                0 => drop(pair.give(puback(used))),
                1 => {
                    pair.give(pubrec(used));
                    assert_eq!(pair.sent(), [pubrel(used)]);
                    pair.give(pubcomp(used));
                }
                2 => drop(pair.give(suback(used, &[OK]))),
                _ => drop(pair.give(unsuback(used, &[OK]))),
            }
        }
        assert_eq!(published(pair.give(puback(1))), (kept[0], OK));
        pair.give(pubrec(2));
        assert_eq!(published(pair.give(pubcomp(2))), (kept[1], OK));
        assert_eq!(published(pair.give(pubcomp(3))), (kept[2], OK));
        assert!(pair.give(suback(4, &[OK])).is_some());
        assert!(pair.give(unsuback(5, &[OK])).is_some());
        assert!(pair.open().is_empty());
    });
}

/// [MQTT5-2.2.1-3] [MQTT3-2.3.1-1]
#[test]
fn with_all_identifiers_in_use_requests_are_refused() {
    both(|version| {
        let options = SessionOptions::default().with_max_in_flight(u16::MAX);
        let mut pair = Pair::with_options(version, options);
        pair.dial(lasting(version));
        pair.accept(mqtt_proto::packet::ConnAck::accepted());
        let mut last = 0;
        for n in 1..=65_535 {
            pair.subscribe(&["a"]);
            if n % 1000 == 0 || n == 65_535 {
                let sent = pair.sent();
                sent.iter().for_each(|packet| last = id_of(packet));
            }
        }
        assert_eq!(last, u16::MAX);
        assert_eq!(
            pair.try_subscribe(vec![at_qos_1("a")]),
            Err(UsageError::NoPacketId)
        );
        assert_eq!(
            pair.try_unsubscribe(vec![filter("a")]),
            Err(UsageError::NoPacketId)
        );
        let refused = pair.try_publish(message(AtLeastOnce, "m"));
        assert_eq!(refused, Err(Some(UsageError::NoPacketId)));
        assert_eq!(pair.sent(), []);
        pair.publish_at(AtMostOnce, "needs none");
        pair.give(suback(777, &[OK]));
        pair.publish_at(AtLeastOnce, "m");
        assert_eq!(pair.sent()[1], publish(AtLeastOnce, 777, "m"));
        assert_eq!(pair.cut().len(), 65_534);
    });
}

/// Between PUBREC and PUBCOMP the identifier is in use, over a reconnect too. [MQTT3-2.3.1-3]
#[test]
fn identifiers_of_the_session_are_not_reused_after_a_reconnect() {
    both(|version| {
        let mut pair = Pair::connected(version);
        pair.publish_at(ExactlyOnce, "released");
        pair.publish_at(AtLeastOnce, "open");
        pair.sent();
        pair.give(pubrec(1));
        pair.resume();
        pair.sent();
        for _ in 0..50 {
            pair.subscribe(&["a"]);
            let used = id_of(&pair.sent()[0]);
            assert!(used > 2, "{used}");
            pair.give(suback(used, &[OK]));
        }
    });
}

/// A late duplicate of an acknowledgement should not meet a new message.
#[test]
fn an_identifier_is_not_used_again_at_once() {
    both(|version| {
        let mut pair = Pair::connected(version);
        for _ in 0..100 {
            pair.publish_at(AtLeastOnce, "m");
            let used = id_of(&pair.sent()[0]);
            pair.give(puback(used));
            let token = pair.publish_at(AtLeastOnce, "m");
            let next = id_of(&pair.sent()[0]);
            assert_ne!(next, used);
            assert_eq!(pair.give(puback(used)), None);
            assert_eq!(published(pair.give(puback(next))), (token, OK));
        }
    });
}
