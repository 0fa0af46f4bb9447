//! Subscribing, the stream of messages, and what is owed for them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{pin::pin, time::Duration};

use common::{BOTH, config, now, open, settle, subscribed};
use futures_util::StreamExt;
use mqtt_client::{
    QoS, ReasonCode, SessionConnector, Subscribe, SubscribeError, Version, proto::packet::Packet,
};

#[tokio::test(start_paused = true)]
async fn messages_come_in_order_and_qos_1_is_acknowledged_when_handed_out() {
    for version in BOTH {
        let (session, mut server) = open(config(version)).await;
        let mut messages = subscribed(&session, &mut server, Subscribe::new("a/#").unwrap()).await;
        for id in 1..=3 {
            server
                .publish("a/b", id.to_string(), QoS::AtLeastOnce, id)
                .await;
        }
        settle().await;
        for id in 1..=3_u16 {
            server.expect_silence(Duration::from_secs(1)).await;
            let message = messages.next().await.unwrap();
            assert_eq!(message.payload, id.to_string());
            server.expect_puback(id).await;
        }
        assert!(now(messages.recv()).await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_filter_is_told_to_its_subscriber_and_the_others_are_given_up() {
    for version in BOTH {
        let (session, mut server) = open(config(version)).await;
        let both = Subscribe::new("granted")
            .unwrap()
            .with_filter(Subscribe::new("refused").unwrap().filters.remove(0));
        let (outcome, ()) = tokio::join!(session.subscribe(both), async {
            let id = server.expect_subscribe().await.packet_id;
            server
                .suback(
                    id,
                    vec![ReasonCode::GRANTED_QOS_2, ReasonCode::UNSPECIFIED_ERROR],
                )
                .await;
        });
        let codes = [ReasonCode::GRANTED_QOS_2, ReasonCode::UNSPECIFIED_ERROR];
        let error = outcome.unwrap_err();
        assert!(
            matches!(&error, SubscribeError::Refused { reason_codes, .. } if *reason_codes == codes)
        );
        assert_eq!(server.expect_unsubscribe().await.filters.len(), 2);
    }
}

/// A server may send messages before the SUBACK (5.0 section 3.8.4).
#[tokio::test(start_paused = true)]
async fn a_message_before_the_suback_is_not_lost() {
    let (session, mut server) = open(config(Version::V5)).await;
    let (messages, ()) = tokio::join!(session.subscribe(Subscribe::new("a").unwrap()), async {
        let id = server.expect_subscribe().await.packet_id;
        server.publish("a", "retained", QoS::AtMostOnce, 0).await;
        settle().await;
        server.suback(id, vec![ReasonCode::GRANTED_QOS_2]).await;
    });
    assert_eq!(messages.unwrap().recv().await.unwrap().payload, "retained");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_unsubscribes_and_acknowledges_what_was_not_read() {
    let (session, mut server) = open(config(Version::V5)).await;
    let messages = subscribed(&session, &mut server, Subscribe::new("a").unwrap()).await;
    server.publish("a", "", QoS::AtLeastOnce, 7).await;
    server.publish("a", "", QoS::ExactlyOnce, 8).await;
    settle().await;
    drop(messages);
    server.expect_puback(7).await;
    assert!(matches!(server.recv().await, Packet::PubRec(ack) if ack.packet_id.value() == 8));
    assert_eq!(server.expect_unsubscribe().await.filters, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_gives_the_subscription_up() {
    let (session, mut server) = open(config(Version::V5)).await;
    {
        let mut dropped = pin!(session.subscribe(Subscribe::new("a").unwrap()));
        assert!(now(&mut dropped).await.is_none());
    }
    let id = server.expect_subscribe().await.packet_id;
    assert_eq!(server.expect_unsubscribe().await.filters, ["a"]);
    server.suback(id, vec![ReasonCode::GRANTED_QOS_2]).await;
    // The identifier is free again, and the session goes on.
    subscribed(&session, &mut server, Subscribe::new("b").unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_waits_for_the_answer() {
    for version in BOTH {
        let (session, mut server) = open(config(version)).await;
        let messages = subscribed(&session, &mut server, Subscribe::new("a").unwrap()).await;
        let mut answer = pin!(messages.unsubscribe());
        assert!(now(&mut answer).await.is_none());
        let id = server.expect_unsubscribe().await.packet_id;
        assert!(now(&mut answer).await.is_none());
        server.unsuback(id, 1).await;
        answer.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_leaves_those_who_subscribe_meanwhile_alone() {
    for answered in [true, false] {
        let (session, mut server) = open(config(Version::V5)).await;
        let old = subscribed(&session, &mut server, Subscribe::new("a").unwrap()).await;
        let mut answer = Box::pin(old.unsubscribe());
        assert!(now(&mut answer).await.is_none());
        let id = server.expect_unsubscribe().await.packet_id;
        let mut new = subscribed(&session, &mut server, Subscribe::new("b").unwrap()).await;
        if answered {
            server.unsuback(id, 1).await;
            answer.await.unwrap();
        } else {
            drop(answer);
        }
        server.publish("b", "x", QoS::AtMostOnce, 0).await;
        assert_eq!(new.recv().await.unwrap().payload, "x");
    }
}

#[tokio::test(start_paused = true)]
async fn two_streams_of_one_filter_share_one_subscription() {
    let (session, mut server) = open(config(Version::V5)).await;
    let mut first = subscribed(&session, &mut server, Subscribe::new("a").unwrap()).await;
    let mut second = subscribed(&session, &mut server, Subscribe::new("a").unwrap()).await;
    server.publish("a", "x", QoS::AtLeastOnce, 1).await;
    assert_eq!(first.recv().await.unwrap().payload, "x");
    // Acknowledged when both have it.
    server.expect_silence(Duration::from_secs(1)).await;
    assert_eq!(second.recv().await.unwrap().payload, "x");
    server.expect_puback(1).await;
    // The server's subscription goes with the last of them.
    drop(first);
    server.expect_silence(Duration::from_secs(1)).await;
    drop(second);
    server.expect_unsubscribe().await;
}

#[tokio::test(start_paused = true)]
async fn qos_0_beyond_the_bound_is_dropped_and_counted() {
    let (session, mut server) = open(config(Version::V5)).await;
    let subscribe = Subscribe::new("a").unwrap().with_max_messages(10);
    let mut messages = subscribed(&session, &mut server, subscribe).await;
    for n in 0..25 {
        server.publish("a", n.to_string(), QoS::AtMostOnce, 0).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(messages.dropped(), 15);
    for n in 0..10 {
        assert_eq!(messages.recv().await.unwrap().payload, n.to_string());
    }
    assert!(now(messages.recv()).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_message_larger_than_the_bound_waits_alone() {
    let (session, mut server) = open(config(Version::V5)).await;
    let subscribe = Subscribe::new("a").unwrap().with_max_bytes(10);
    let mut messages = subscribed(&session, &mut server, subscribe).await;
    let large = "larger than ten bytes";
    for _ in 0..2 {
        server.publish("a", large, QoS::AtMostOnce, 0).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(messages.recv().await.unwrap().payload, large);
    assert_eq!(messages.dropped(), 1);
    server.publish("a", large, QoS::AtMostOnce, 0).await;
    assert_eq!(messages.recv().await.unwrap().payload, large);
}

/// The flood is in before the reader gets its turn; it has stopped for good in the test above.
#[tokio::test(start_paused = true)]
async fn a_reader_that_merely_waits_for_its_turn_loses_nothing() {
    const MESSAGES: usize = 100_000;
    let (connector, mut listener) = mqtt_testkit::memory_with_capacity(1024 * 1024);
    let connector = SessionConnector::with_connector(connector, config(Version::V5)).unwrap();
    let (session, mut server) = tokio::join!(connector.connect(common::endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let subscribe = Subscribe::new("a").unwrap().with_max_messages(100);
    let mut messages = subscribed(&session, &mut server, subscribe).await;
    let flood = tokio::spawn(async move {
        let message = [0x30, 0x05, 0x00, 0x01, 0x61, 0x00, 0x2A];
        server.send_bytes(&message.repeat(MESSAGES)).await;
        server
    });
    for received in 0..MESSAGES {
        let message = tokio::time::timeout(Duration::from_secs(20), messages.recv()).await;
        assert!(
            message.is_ok(),
            "{received} received, {} dropped",
            messages.dropped()
        );
    }
    assert_eq!(messages.dropped(), 0);
    flood.await.unwrap();
}

/// [MQTT5-4.5.0-2] [MQTT3-4.5.0-2]
#[tokio::test(start_paused = true)]
async fn a_message_nobody_wants_is_acknowledged() {
    for version in BOTH {
        let (_session, mut server) = open(config(version)).await;
        server.publish("unasked", "", QoS::AtLeastOnce, 3).await;
        server.expect_puback(3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_delays_neither_keep_alive_nor_acknowledgements_nor_other_streams() {
    let (session, mut server) =
        open(config(Version::V5).with_keep_alive(Duration::from_secs(10))).await;
    let stopped = subscribed(
        &session,
        &mut server,
        Subscribe::new("stopped").unwrap().with_max_messages(5),
    )
    .await;
    let mut reads = subscribed(&session, &mut server, Subscribe::new("reads").unwrap()).await;
    for n in 0..20 {
        server
            .publish("stopped", n.to_string(), QoS::AtMostOnce, 0)
            .await;
        server
            .publish("reads", n.to_string(), QoS::AtMostOnce, 0)
            .await;
        assert_eq!(reads.recv().await.unwrap().payload, n.to_string());
    }
    assert_eq!(stopped.dropped(), 15);
    let (outcome, ()) = tokio::join!(session.publish(common::publish(QoS::AtLeastOnce)), async {
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
    });
    outcome.unwrap();
    assert_eq!(server.recv().await, Packet::PingReq);
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_after_what_was_received() {
    let (session, mut server) = open(config(Version::V5)).await;
    let mut messages = subscribed(&session, &mut server, Subscribe::new("a").unwrap()).await;
    server.publish("a", "last", QoS::AtMostOnce, 0).await;
    settle().await;
    drop(server);
    session.closed().await;
    assert_eq!(messages.recv().await.unwrap().payload, "last");
    assert!(messages.recv().await.is_none());
    assert!(messages.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_waits_for_the_outbound_buffer_and_is_withdrawn_when_dropped() {
    let (connector, mut listener) = mqtt_testkit::memory_with_capacity(64);
    let config = config(Version::V5).with_max_unsent_bytes(100_usize);
    let connector = SessionConnector::with_connector(connector, config).unwrap();
    let (session, mut server) = tokio::join!(connector.connect(common::endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    // The server does not read: the pipe fills, then the buffer.
    let mut sent = 0;
    while now(session.publish(common::publish(QoS::AtMostOnce)))
        .await
        .is_some()
    {
        sent += 1;
        settle().await;
    }
    for _ in 0..1_000 {
        let filter = "x".repeat(60_000);
        let subscribe = session.subscribe(Subscribe::new(filter).unwrap());
        assert!(now(subscribe).await.is_none());
    }
    // It reads again: the publishes are there, and of the subscribes the one that had room.
    for _ in 0..sent {
        server.expect_publish().await;
    }
    server.grant().await;
    server.expect_unsubscribe().await;
    let mut messages = subscribed(&session, &mut server, Subscribe::new("a").unwrap()).await;
    server.publish("a", "x", QoS::AtMostOnce, 0).await;
    assert_eq!(messages.recv().await.unwrap().payload, "x");
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_says_when_nothing_could_be_asked() {
    let (session, mut server) = open(config(Version::V5)).await;
    let messages = subscribed(&session, &mut server, Subscribe::new("a").unwrap()).await;
    drop(server);
    session.closed().await;
    let error = messages.unsubscribe().await.unwrap_err();
    assert!(matches!(error, SubscribeError::NotSent(_)), "{error:?}");
}
