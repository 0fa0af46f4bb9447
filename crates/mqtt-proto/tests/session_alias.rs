//! Topic aliases of the server.

mod session_common;

use std::num::NonZeroU16;

use mqtt_proto::{
    Event, Message, ProtocolError, ReasonCode,
    packet::{ConnAck, Packet},
};
use session_common::*;

fn taking_aliases(max: u16) -> Pair {
    Pair::connected_with(V5, |it| it.properties.topic_alias_maximum = Some(max))
}

fn aliased(topic: &str, alias: u16) -> Packet {
    let mut message = Message::new(topic, "m").expect("a topic");
    message.properties.topic_alias = NonZeroU16::new(alias);
    publish_of(message, 0, false)
}

/// PUBLISH with an empty topic, which has no constructor: as the bytes a server sends.
fn by_alias(pair: &mut Pair, alias: u16) -> Result<Option<Event<u32>>, ProtocolError> {
    let [high, low] = alias.to_be_bytes();
    let bytes = vec![0x30, 7, 0, 0, 3, 0x23, high, low, b'm'];
    let packet = mqtt_proto::Decoder::new(V5, 100)
        .decode(&mut bytes.into())
        .expect("a packet")
        .expect("a whole packet");
    pair.session.handle_packet(packet, pair.now)
}

#[track_caller]
fn topic(event: Option<Event<u32>>) -> String {
    match event {
        Some(Event::Message { message, .. }) => message.topic.as_str().to_owned(),
        other => panic!("{other:?}"),
    }
}

/// [MQTT5-3.3.2-10] [MQTT5 3.3.2.3.4]
#[test]
fn every_alias_up_to_the_maximum_is_taken() {
    let mut pair = taking_aliases(5);
    for alias in (1..=5).rev() {
        let name = format!("topic/{alias}");
        assert_eq!(topic(pair.give(aliased(&name, alias))), name);
    }
    for alias in 1..=5 {
        assert_eq!(
            topic(by_alias(&mut pair, alias).unwrap()),
            format!("topic/{alias}")
        );
    }
    assert_eq!(topic(pair.give(aliased("another", 3))), "another");
    assert_eq!(topic(by_alias(&mut pair, 3).unwrap()), "another");
    assert_eq!(topic(by_alias(&mut pair, 4).unwrap()), "topic/4");
}

/// [MQTT5 3.1.2.11.5] [MQTT5 4.13.1]
#[test]
fn an_alias_above_the_maximum_ends_the_connection() {
    for max in [0, 5, u16::MAX - 1] {
        let mut pair = taking_aliases(max);
        let alias = max + 1;
        let error = pair.give_wrong(aliased("t", alias));
        assert_eq!(error, ProtocolError::TopicAliasTooLarge { alias, max });
        assert_eq!(pair.sent(), [disconnect(ReasonCode::TOPIC_ALIAS_INVALID)]);
    }
    let mut default = Pair::connected(V5);
    default.give_wrong(aliased("t", 1));
}

/// [MQTT5 3.3.2.3.4]
#[test]
fn an_unknown_alias_ends_the_connection() {
    let mut pair = taking_aliases(5);
    pair.give(aliased("t", 2));
    for alias in [1, 3] {
        let mut pair = taking_aliases(5);
        pair.give(aliased("t", 2));
        let error = by_alias(&mut pair, alias).unwrap_err();
        assert_eq!(error, ProtocolError::UnknownTopicAlias { alias });
        assert!(!pair.session.is_connected());
        assert_eq!(pair.sent(), [disconnect(error.reason_code())]);
    }
}

/// [MQTT5-3.3.2-7]
#[test]
fn aliases_end_with_their_connection() {
    let mut pair = taking_aliases(5);
    pair.give(aliased("t", 1));
    pair.cut();
    let mut connect = lasting(V5);
    connect.properties.topic_alias_maximum = Some(5);
    pair.dial(connect);
    pair.accept(ConnAck::resumed());
    let error = by_alias(&mut pair, 1).unwrap_err();
    assert_eq!(error, ProtocolError::UnknownTopicAlias { alias: 1 });
}

/// A repeat is not delivered, and yet its alias holds.
#[test]
fn a_repeat_sets_its_alias() {
    let mut pair = taking_aliases(5);
    let mut message = message(ExactlyOnce, "m");
    pair.deliver(publish_of(message.clone(), 1, false));
    message.properties.topic_alias = NonZeroU16::new(4);
    assert_eq!(pair.give(publish_of(message, 1, true)), None);
    assert_eq!(topic(by_alias(&mut pair, 4).unwrap()), "t");
}

/// The alias was that of the server's connection; the message goes where the application sends it.
#[test]
fn a_delivered_message_can_be_published_as_it_is() {
    let mut pair = taking_aliases(5);
    for packet in [Some(aliased("t", 4)), None] {
        let event = match packet {
            Some(packet) => pair.give(packet),
            None => by_alias(&mut pair, 4).unwrap(),
        };
        let Some(Event::Message { message, .. }) = event else {
            panic!("{event:?}")
        };
        assert_eq!(message.properties.topic_alias, None);
        pair.publish(message);
        assert_eq!(pair.sent(), [publish_0("m")]);
    }
}

/// Else a few aliases would keep a read buffer each, for as long as the connection lasts.
#[test]
fn an_alias_keeps_no_more_than_its_topic() {
    let mut pair = taking_aliases(5);
    let mut bytes = Vec::new();
    aliased("topic", 1).encode(V5, &mut bytes).unwrap();
    let read = bytes::Bytes::from(bytes);
    let packet = mqtt_proto::Decoder::new(V5, 100)
        .decode(&mut read.clone())
        .expect("a packet")
        .expect("a whole packet");
    let event = pair.session.handle_packet(packet, pair.now).unwrap();
    assert_eq!(topic(event), "topic");
    assert!(read.is_unique());
    assert_eq!(topic(by_alias(&mut pair, 1).unwrap()), "topic");
}
