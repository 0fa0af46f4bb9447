//! Topic aliases both ways: the application sees topics only.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{num::NonZeroU16, time::Duration};

use common::{BOTH, config, connector, endpoint, open_with, settle};
use mqtt_client::{
    LostCause, Publish, QoS, ReasonCode, ReconnectConfig, Session, SessionConfig, Subscribe,
    Subscription, Version,
    pool::Limit,
    proto::{
        Message, ProtocolError,
        packet::{ConnAck, Packet, Publish as PublishPacket},
    },
};
use mqtt_testkit::{MemoryListener, ScriptedServer};

/// PUBLISH at QoS 0, with the topic or without.
async fn send(server: &mut ScriptedServer, topic: Option<&str>, alias: u16) {
    match topic {
        Some(topic) => {
            let mut message = Message::new(topic, "named").unwrap();
            message.properties.topic_alias = NonZeroU16::new(alias);
            let publish = PublishPacket {
                message,
                packet_id: None,
                dup: false,
            };
            server.send(Packet::Publish(publish)).await;
        }
        None => {
            let [high, low] = alias.to_be_bytes();
            let bytes = [0x30, 7, 0, 0, 3, 0x23, high, low, b'm'];
            server.send_bytes(&bytes).await;
        }
    }
}

/// A session that lets the server use two aliases, and comes back at once.
async fn open_to_aliases() -> (Session, Subscription, ScriptedServer, MemoryListener) {
    let config = SessionConfig::new("gateway")
        .with_topic_alias_maximum(2_u16)
        .with_session_expiry(Limit::Never)
        .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)));
    let (connector, mut listener) = connector(config);
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        let connect = server.accept().await;
        assert_eq!(connect.properties.topic_alias_maximum, Some(2));
        server
    });
    let session = session.unwrap();
    let subscribe = session.subscribe(Subscribe::new("#").unwrap());
    let (stream, _) = tokio::join!(subscribe, server.grant());
    (session, stream.unwrap(), server, listener)
}

/// [MQTT5-3.3.2-10] [MQTT5-3.3.2-11]
#[tokio::test(start_paused = true)]
async fn a_message_by_alias_comes_with_its_topic() {
    let (_session, mut stream, mut server, _listener) = open_to_aliases().await;
    for (topic, alias, resolved) in [
        (Some("a/b"), 1, "a/b"),
        (Some("c"), 2, "c"),
        (None, 1, "a/b"),
        (Some("d"), 1, "d"),
        (None, 1, "d"),
        (None, 2, "c"),
    ] {
        send(&mut server, topic, alias).await;
        let message = stream.recv().await.unwrap();
        assert_eq!(message.topic.as_str(), resolved);
        assert_eq!(message.properties.topic_alias, None);
    }
}

/// [MQTT5-3.3.2-7] [MQTT5-3.3.2-8] [MQTT5-3.3.2-9]
#[tokio::test(start_paused = true)]
async fn an_alias_that_is_not_one_ends_the_connection() {
    for (alias, code) in [
        (0, ReasonCode::TOPIC_ALIAS_INVALID),
        (3, ReasonCode::TOPIC_ALIAS_INVALID),
        (u16::MAX, ReasonCode::TOPIC_ALIAS_INVALID),
        (2, ReasonCode::PROTOCOL_ERROR),
    ] {
        let (_session, _stream, mut server, _listener) = open_to_aliases().await;
        send(&mut server, Some("a/b"), 1).await;
        send(&mut server, None, alias).await;
        assert_eq!(server.expect_disconnect().await.reason_code, code);
        server.expect_closed().await;
    }
    // A server that was allowed none.
    let (session, mut server) = open_with(config(Version::V5), ConnAck::accepted()).await;
    send(&mut server, Some("a/b"), 1).await;
    let code = server.expect_disconnect().await.reason_code;
    assert_eq!(code, ReasonCode::TOPIC_ALIAS_INVALID);
    let expected = ProtocolError::TopicAliasTooLarge { alias: 1, max: 0 };
    let closed = session.closed().await;
    assert!(matches!(&closed.cause, LostCause::Protocol(error) if *error == expected));
}

/// [MQTT5-3.3.2-7]
#[tokio::test(start_paused = true)]
async fn an_alias_of_the_connection_before_is_not_known() {
    let (_session, mut stream, mut server, mut listener) = open_to_aliases().await;
    send(&mut server, Some("a/b"), 1).await;
    assert_eq!(stream.recv().await.unwrap().topic.as_str(), "a/b");
    drop(server);
    let mut server = listener.accept().await;
    let connect = server.accept_with(ConnAck::resumed()).await;
    assert_eq!(connect.properties.topic_alias_maximum, Some(2));
    send(&mut server, None, 1).await;
    let code = server.expect_disconnect().await.reason_code;
    assert_eq!(code, ReasonCode::PROTOCOL_ERROR);
}

/// What the server was sent: the topic, and the alias.
async fn published(server: &mut ScriptedServer) -> (String, Option<u16>) {
    let publish = server.expect_publish().await;
    if let Some(id) = publish.packet_id {
        server.puback(id).await;
    }
    let alias = publish.message.properties.topic_alias.map(NonZeroU16::get);
    (publish.message.topic.as_str().to_owned(), alias)
}

fn taking_aliases(max: u16) -> ConnAck {
    let mut connack = ConnAck::accepted();
    connack.properties.topic_alias_maximum = Some(max);
    connack
}

async fn publish(session: &Session, server: &mut ScriptedServer) -> (String, Option<u16>) {
    let publish = Publish::new("a/long/topic", "m")
        .unwrap()
        .with_qos(QoS::AtLeastOnce);
    let (outcome, sent) = tokio::join!(session.publish(publish), published(server));
    outcome.unwrap();
    sent
}

/// [MQTT5-3.2.2-17] [MQTT5-3.2.2-18]
#[tokio::test(start_paused = true)]
async fn publishes_go_by_alias_where_both_sides_want_that() {
    let named = |alias| ("a/long/topic".to_owned(), alias);
    for (ours, theirs) in [(0_u16, 5), (5, 0), (0, 0)] {
        let config = config(Version::V5).with_max_topic_aliases(ours);
        let (session, mut server) = open_with(config, taking_aliases(theirs)).await;
        for _ in 0..2 {
            assert_eq!(publish(&session, &mut server).await, named(None));
        }
    }
    let config = config(Version::V5).with_max_topic_aliases(5_u16);
    let (session, mut server) = open_with(config, taking_aliases(5)).await;
    assert_eq!(publish(&session, &mut server).await, named(Some(1)));
    for _ in 0..2 {
        let sent = publish(&session, &mut server).await;
        assert_eq!(sent, (String::new(), Some(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_names_its_topic() {
    let config = SessionConfig::new("gateway")
        .with_max_topic_aliases(5_u16)
        .with_session_expiry(Limit::Never)
        .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)));
    let (connector, mut listener) = connector(config);
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept_with(taking_aliases(5)).await;
        server
    });
    let session = session.unwrap();
    publish(&session, &mut server).await;
    let request = Publish::new("a/long/topic", "open").unwrap();
    let outcome = tokio::spawn({
        let session = session.clone();
        async move { session.publish(request.with_qos(QoS::AtLeastOnce)).await }
    });
    assert_eq!(server.expect_publish().await.message.topic.as_str(), "");
    drop(server);
    let mut server = listener.accept().await;
    let mut connack = taking_aliases(5);
    connack.session_present = true;
    server.accept_with(connack).await;
    let again = server.expect_publish().await;
    assert!(again.dup);
    assert_eq!(again.message.topic.as_str(), "a/long/topic");
    assert_eq!(again.message.properties.topic_alias, None);
    server.puback(again.packet_id.unwrap()).await;
    outcome.await.unwrap().unwrap();
    settle().await;
    let sent = publish(&session, &mut server).await;
    assert_eq!(sent, ("a/long/topic".to_owned(), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn there_are_none_without_properties_to_say_them_in() {
    for version in BOTH {
        let config = config(version).with_max_topic_aliases(5_u16);
        let (session, mut server) = open_with(config, taking_aliases(5)).await;
        publish(&session, &mut server).await;
        let (topic, alias) = publish(&session, &mut server).await;
        assert_eq!(topic.is_empty(), version == Version::V5);
        assert_eq!(alias.is_some(), version == Version::V5);
    }
}
