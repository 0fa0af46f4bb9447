//! Topic aliases of our publishes: whatever is sent, the server finds the topic that was asked for.

mod session_common;

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU32},
};

use mqtt_proto::{
    Message, SessionOptions, UsageError,
    packet::{ConnAck, Packet, Publish},
};
use session_common::*;

/// A client that may use `ours` aliases, and its server, which takes `theirs`.
fn pair(ours: u16, theirs: u16) -> Pair {
    pair_to(ours, |it| it.properties.topic_alias_maximum = Some(theirs))
}

fn pair_to(ours: u16, set: impl FnOnce(&mut ConnAck)) -> Pair {
    let options = SessionOptions::default()
        .with_max_topic_aliases(ours)
        .with_max_in_flight(1_000);
    let mut pair = Pair::with_options(V5, options);
    pair.dial(lasting(V5));
    let mut connack = ConnAck::accepted();
    set(&mut connack);
    pair.accept(connack);
    pair
}

fn to(topic: impl Into<String>, qos: mqtt_proto::QoS) -> Message {
    Message::new(topic.into(), "m")
        .expect("a topic")
        .with_qos(qos)
}

/// The topics a server knows by alias, as section 3.3.2.3.4 has it.
#[derive(Default)]
struct Known(BTreeMap<u16, String>);

impl Known {
    /// The topic of a PUBLISH.
    #[track_caller]
    fn resolve(&mut self, publish: &Publish) -> String {
        let topic = publish.message.topic.as_str();
        let alias = publish.message.properties.topic_alias.map(NonZeroU16::get);
        match alias {
            Some(alias) if topic.is_empty() => self.0.get(&alias).expect("a known alias").clone(),
            Some(alias) => {
                self.0.insert(alias, topic.to_owned());
                topic.to_owned()
            }
            None => topic.to_owned(),
        }
    }
}

/// Publishes, and returns the topic and the alias that were sent.
#[track_caller]
fn sent(pair: &mut Pair, message: Message) -> (String, Option<u16>) {
    pair.publish(message);
    let packets = pair.sent();
    let [Packet::Publish(publish)] = packets.as_slice() else {
        panic!("{packets:?}")
    };
    let alias = publish.message.properties.topic_alias.map(NonZeroU16::get);
    (publish.message.topic.as_str().to_owned(), alias)
}

const LONG: &str = "a/topic";

#[track_caller]
fn is_introduced(pair: &mut Pair, topic: &str, alias: u16) {
    let sent = sent(pair, to(topic, AtMostOnce));
    assert_eq!(sent, (topic.to_owned(), Some(alias)));
}

#[track_caller]
fn is_known(pair: &mut Pair, topic: &str, alias: u16) {
    let sent = sent(pair, to(topic, AtMostOnce));
    assert_eq!(sent, (String::new(), Some(alias)));
}

#[track_caller]
fn is_plain(pair: &mut Pair, topic: &str) {
    let sent = sent(pair, to(topic, AtMostOnce));
    assert_eq!(sent, (topic.to_owned(), None));
}

/// [MQTT5 3.3.2.3.4]
#[test]
fn from_the_second_message_on_the_topic_is_left_out() {
    let mut pair = pair(5, 5);
    pair.publish(to(LONG, AtMostOnce));
    let first = b"\x30\x0e\x00\x07a/topic\x03\x23\x00\x01m";
    assert_eq!(&*pair.taken().0, first);
    pair.publish(to(LONG, AtMostOnce));
    assert_eq!(&*pair.taken().0, b"\x30\x07\x00\x00\x03\x23\x00\x01m");
    for (qos, byte) in [(AtLeastOnce, 0x33), (ExactlyOnce, 0x35)] {
        pair.publish(to(LONG, qos).with_retain(true));
        let id = u8::try_from(pair.session.in_flight()).unwrap();
        let expected = [byte, 9, 0, 0, 0, id, 3, 0x23, 0, 1, b'm'];
        assert_eq!(*pair.taken().0, expected);
    }
    is_introduced(&mut pair, "another/topic", 2);
    is_known(&mut pair, LONG, 1);
    is_known(&mut pair, "another/topic", 2);
}

#[test]
fn all_else_of_the_message_stays_as_it_is() {
    for padding in [0, 100, 120, 121, 122, 123, 124, 125, 126, 200] {
        let mut pair = pair(5, 5);
        for _ in 0..2 {
            let mut message = to(LONG, AtLeastOnce);
            message.properties.content_type = Some(text(&"x".repeat(padding)));
            message.properties.message_expiry_interval = Some(7);
            pair.publish(message.clone());
            let mut sent = pair.sent();
            let Some(Packet::Publish(publish)) = sent.pop() else {
                panic!("{sent:?}")
            };
            let alias = NonZeroU16::new(1);
            assert_eq!(publish.message.properties.topic_alias, alias);
            message.properties.topic_alias = alias;
            message.topic = publish.message.topic.clone();
            assert_eq!(publish.message, message);
        }
    }
}

/// [MQTT5-3.2.2-17] [MQTT5-3.2.2-18]
#[test]
fn there_are_as_many_as_both_sides_allow() {
    for (ours, theirs, both) in [(0, 9, 0), (9, 0, 0), (2, 9, 2), (9, 2, 2)] {
        let mut pair = pair(ours, theirs);
        for n in 1..=both {
            is_introduced(&mut pair, &format!("topic/{n}"), n);
        }
        for _ in 0..3 {
            is_plain(&mut pair, "one/too/many");
        }
        for n in 1..=both {
            is_known(&mut pair, &format!("topic/{n}"), n);
        }
    }
    let mut silent = pair_to(9, |_| {});
    is_plain(&mut silent, LONG);
    is_plain(&mut silent, LONG);
}

#[test]
fn there_are_none_in_3_1_1() {
    let options = SessionOptions::default().with_max_topic_aliases(9);
    let mut pair = Pair::with_options(V3, options);
    pair.dial(lasting(V3));
    let mut connack = ConnAck::accepted();
    connack.properties.topic_alias_maximum = Some(9);
    // Handed over as it is: such bytes do not exist.
    pair.session
        .handle_packet(Packet::ConnAck(connack), pair.now)
        .unwrap();
    for _ in 0..2 {
        pair.session.publish(to(LONG, AtMostOnce), 0).unwrap();
        let mut out = pair.session.take_outbound(Default::default());
        let bytes = bytes::Buf::copy_to_bytes(&mut out, 12);
        assert_eq!(&*bytes, b"\x30\x0a\x00\x07a/topicm");
    }
}

#[test]
fn a_topic_as_short_as_an_alias_is_sent_as_it_is() {
    let mut pair = pair(5, 5);
    for topic in ["t", "a/b", "a/bc/d"] {
        is_plain(&mut pair, topic);
        is_plain(&mut pair, topic);
    }
    is_introduced(&mut pair, "a/bc/de", 1);
}

/// [MQTT5-3.2.2-15]
#[test]
fn what_was_not_sent_introduces_nothing() {
    let mut pair = pair_to(5, |it| {
        it.properties.topic_alias_maximum = Some(5);
        it.properties.maximum_packet_size = NonZeroU32::new(30);
    });
    // PUBLISH: 2 of header, 9 of topic, 1 of properties, or 4 with an alias.
    let of = |payload: usize| {
        let mut message = to(LONG, AtMostOnce);
        message.payload = "x".repeat(payload).into();
        message
    };
    let too_large = Err(Some(UsageError::PacketTooLarge { size: 31, max: 30 }));
    assert_eq!(pair.try_publish(of(19)), too_large);
    assert_eq!(pair.sent(), []);
    // It fits as it is, and would not with an alias.
    assert_eq!(sent(&mut pair, of(18)), (LONG.to_owned(), None));
    assert_eq!(sent(&mut pair, of(16)), (LONG.to_owned(), None));
    assert_eq!(sent(&mut pair, of(15)), (LONG.to_owned(), Some(1)));
    assert_eq!(sent(&mut pair, of(18)), (String::new(), Some(1)));
    // It would fit without its topic here, and could not be sent again on another connection.
    assert_eq!(pair.try_publish(of(19)), too_large);
    assert_eq!(pair.sent(), []);
}

/// [MQTT5-3.3.2-7] [MQTT5-4.4.0-1]
#[test]
fn they_end_with_their_connection_and_a_resend_names_its_topic() {
    let mut pair = pair(5, 5);
    for qos in [AtLeastOnce, ExactlyOnce] {
        pair.publish(to(LONG, qos));
        pair.publish(to(LONG, qos));
    }
    pair.sent();
    is_known(&mut pair, LONG, 1);
    // What was written and not taken off the client is not known to the server.
    pair.publish(to("not/sent", AtMostOnce));
    assert_eq!(pair.cut(), []);
    pair.dial(lasting(V5));
    let mut connack = ConnAck::resumed();
    connack.properties.topic_alias_maximum = Some(5);
    assert_eq!(pair.accept(connack), []);
    let again = pair.sent();
    assert_eq!(again.len(), 4);
    for (n, packet) in (1..).zip(again) {
        let qos = if n <= 2 { AtLeastOnce } else { ExactlyOnce };
        assert_eq!(packet, publish_of(to(LONG, qos), n, true));
    }
    is_introduced(&mut pair, "not/sent", 1);
    is_introduced(&mut pair, LONG, 2);
    pair.resume();
    pair.sent();
    is_plain(&mut pair, LONG);
}

/// [MQTT5-3.3.2-12]
#[test]
fn a_caller_that_sets_an_alias_has_them_all() {
    let mut pair = pair(5, 5);
    is_introduced(&mut pair, LONG, 1);
    is_introduced(&mut pair, "another/topic", 2);
    for alias in [1, 5] {
        let mut own = to("of/the/caller", AtMostOnce);
        own.properties.topic_alias = NonZeroU16::new(alias);
        pair.publish(own.clone());
        assert_eq!(pair.sent(), [publish_of(own, 0, false)]);
    }
    for topic in [LONG, "another/topic", "of/the/caller"] {
        is_plain(&mut pair, topic);
    }
    pair.cut();
    pair.dial(lasting(V5));
    let mut connack = ConnAck::resumed();
    connack.properties.topic_alias_maximum = Some(5);
    pair.accept(connack);
    is_introduced(&mut pair, LONG, 1);
}

#[test]
fn a_topic_in_use_keeps_its_alias_whatever_passes_through() {
    let mut pair = pair(8, 8);
    let mut last_named = 0;
    for n in 0..2_000 {
        pair.publish(to(format!("replies/{n}"), AtMostOnce));
        pair.sent();
        if !sent(&mut pair, to("in/regular/use", AtMostOnce))
            .0
            .is_empty()
        {
            last_named = n;
        }
    }
    assert!(last_named < 300, "named again at {last_named}");
}

#[test]
fn more_topics_than_aliases_cost_no_more_than_without() {
    let bytes = |ours| {
        let mut pair = pair(ours, u16::MAX);
        let mut bytes = 0;
        for n in 0..20_000 {
            pair.publish(to(format!("devices/{}/state", n % 100), AtMostOnce));
            bytes += pair.taken().0.len();
        }
        bytes
    };
    let (without, with) = (bytes(0), bytes(10));
    assert!(with * 100 < without * 98, "{with} against {without}");
}

/// The server never finds another topic than the one that was asked for, nor an alias it did not allow.
#[test]
fn the_server_finds_the_topic_that_was_asked_for() {
    for (seed, max) in (1..).zip([1_u16, 2, 3, 7, 20, 40]) {
        let mut random = seed * 0x9E37_79B9_usize;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random % below
        };
        let mut pair = pair_to(u16::MAX, |it| {
            it.properties.topic_alias_maximum = Some(max);
            it.properties.maximum_packet_size = NonZeroU32::new(200);
        });
        let mut known = Known::default();
        for step in 0..4_000 {
            // Some topics are asked for much more than others.
            let spread = next(30) + 1;
            let topic = format!("{}topic/{}", "x".repeat(next(3)), next(spread));
            let mut message = to(topic.clone(), [AtMostOnce, AtLeastOnce][next(2)]);
            message.payload = vec![b'm'; next(200)].into();
            if pair.try_publish(message).is_ok() {
                for packet in pair.sent() {
                    let Packet::Publish(publish) = packet else {
                        panic!("{packet:?}")
                    };
                    let alias = publish.message.properties.topic_alias;
                    assert!(alias.is_none_or(|alias| alias.get() <= max));
                    assert_eq!(known.resolve(&publish), topic, "step {step}");
                    if let Some(id) = publish.packet_id {
                        pair.give(puback(id.value()));
                    }
                }
            }
            if next(500) == 0 {
                pair.cut();
                pair.dial(lasting(V5));
                let mut connack = ConnAck::resumed();
                connack.properties.topic_alias_maximum = Some(max);
                connack.properties.maximum_packet_size = NonZeroU32::new(200);
                pair.accept(connack);
                known = Known::default();
            }
        }
        assert!(!known.0.is_empty());
    }
}
