//! What a publish resolves to, when it waits, and what becomes of one that is dropped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{num::NonZeroU16, pin::pin, time::Duration};

use common::{BOTH, config, no_outbox, now, open, open_with, publish, settle};
use mqtt_client::{
    Delivery, Publish, PublishError, Published, QoS, ReasonCode, Version,
    proto::{
        UsageError,
        packet::{Ack, ConnAck, Packet},
    },
};

/// [MQTT5-4.3.1-1] [MQTT3-4.3.1-1]
#[tokio::test(start_paused = true)]
async fn qos_0_is_sent_and_that_is_all() {
    for version in BOTH {
        let (session, mut server) = open(config(version)).await;
        assert_eq!(
            session.publish(publish(QoS::AtMostOnce)).await.unwrap(),
            Published::Sent
        );
        let sent = server.expect_publish().await;
        assert_eq!((sent.packet_id, sent.dup), (None, false));
        assert_eq!(session.in_flight(), 0);
    }
}

/// [MQTT5-4.3.2-3] [MQTT3-4.3.2-1]
#[tokio::test(start_paused = true)]
async fn qos_1_resolves_at_the_puback_and_not_before() {
    for version in BOTH {
        let (session, mut server) = open(config(version)).await;
        let mut outcome = pin!(session.publish(publish(QoS::AtLeastOnce)));
        assert!(now(&mut outcome).await.is_none());
        let sent = server.expect_publish().await;
        settle().await;
        assert!(now(&mut outcome).await.is_none());
        server.puback(sent.packet_id.unwrap()).await;
        assert!(matches!(
            outcome.await.unwrap(),
            Published::Acknowledged {
                reason_code: ReasonCode::SUCCESS,
                ..
            }
        ));
    }
}

/// [MQTT5-4.3.3-4] [MQTT5-4.3.3-5] [MQTT3-4.3.3-1]
#[tokio::test(start_paused = true)]
async fn qos_2_resolves_at_the_pubcomp_and_not_before() {
    for version in BOTH {
        let (session, mut server) = open(config(version)).await;
        let mut outcome = pin!(session.publish(publish(QoS::ExactlyOnce)));
        assert!(now(&mut outcome).await.is_none());
        let id = server.expect_publish().await.packet_id.unwrap();
        server.send(Packet::PubRec(Ack::new(id))).await;
        assert_eq!(server.recv().await, Packet::PubRel(Ack::new(id)));
        assert!(now(&mut outcome).await.is_none());
        server.send(Packet::PubComp(Ack::new(id))).await;
        outcome.await.unwrap();
        assert_eq!(session.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_comes_with_its_code_and_words() {
    let (session, mut server) = open(config(Version::V5)).await;
    let (outcome, ()) = tokio::join!(session.publish(publish(QoS::AtLeastOnce)), async {
        let id = server.expect_publish().await.packet_id.unwrap();
        let mut ack = Ack::with_reason(id, ReasonCode::NOT_AUTHORIZED);
        ack.properties.reason_string = Some("not on this topic".try_into().unwrap());
        server.send(Packet::PubAck(ack)).await;
    });
    let error = outcome.unwrap_err();
    assert_eq!(error.delivery(), Delivery::Rejected);
    assert_eq!(
        error.to_string(),
        "the server rejected the message: not authorized (0x87) (not on this topic)"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_server_does_not_take_is_refused_before_it_is_sent() {
    let mut connack = ConnAck::accepted();
    connack.properties.maximum_qos = Some(QoS::AtMostOnce);
    connack.properties.retain_available = Some(false);
    let (session, mut server) = open_with(config(Version::V5), connack).await;
    for (request, expected) in [
        (publish(QoS::AtLeastOnce), UsageError::QoSNotSupported),
        (
            publish(QoS::AtMostOnce).with_retain(true),
            UsageError::RetainNotSupported,
        ),
    ] {
        let error = session.publish(request).await.unwrap_err();
        assert_eq!(error.delivery(), Delivery::NotSent);
        assert!(matches!(error, PublishError::Usage(error) if error == expected));
    }
    server.expect_silence(Duration::from_secs(1)).await;
}

/// [MQTT5-3.3.4-7] [MQTT5-3.3.4-8]
#[tokio::test(start_paused = true)]
async fn a_full_window_holds_back_qos_1_and_2_only_and_in_order() {
    let mut connack = ConnAck::accepted();
    connack.properties.receive_maximum = NonZeroU16::new(2);
    let (session, mut server) = open_with(config(Version::V5), connack).await;
    let mut outcomes = Vec::new();
    for n in 0..6 {
        let publisher = session.publisher();
        let request = Publish::new("t", n.to_string())
            .unwrap()
            .with_qos(QoS::AtLeastOnce);
        outcomes.push(tokio::spawn(
            async move { publisher.publish(request).await },
        ));
        settle().await;
    }
    // QoS 0 goes past them.
    session.publish(publish(QoS::AtMostOnce)).await.unwrap();

    let mut order = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let sent = server.expect_publish().await;
        ids.push(sent.packet_id.unwrap());
        order.push(sent.message.payload);
    }
    assert_eq!(server.expect_publish().await.message.qos, QoS::AtMostOnce);
    server.expect_silence(Duration::from_secs(1)).await;
    while order.len() < 6 {
        server.puback(ids.remove(0)).await;
        let sent = server.expect_publish().await;
        server.expect_silence(Duration::from_secs(1)).await;
        ids.push(sent.packet_id.unwrap());
        order.push(sent.message.payload);
    }
    assert_eq!(order, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_waits_is_withdrawn_when_dropped_and_the_next_takes_its_turn() {
    let (session, mut server) = open(
        config(Version::V5)
            .with_max_in_flight(1_u16)
            .with_outbox(no_outbox()),
    )
    .await;
    let publisher = session.publisher();
    let numbered = |n: u32| {
        publisher.publish(
            Publish::new("t", n.to_string())
                .unwrap()
                .with_qos(QoS::AtLeastOnce),
        )
    };
    let mut first = Box::pin(numbered(0));
    let mut second = Box::pin(numbered(1));
    let mut third = Box::pin(numbered(2));
    for future in [&mut first, &mut second, &mut third] {
        assert!(now(future).await.is_none());
    }
    let id = server.expect_publish().await.packet_id.unwrap();
    server.puback(id).await;
    settle().await;
    // The second was woken for the room, and gives up instead.
    drop(second);
    assert!(now(&mut third).await.is_none());
    assert_eq!(&*server.expect_publish().await.message.payload, b"2");
    first.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_was_sent_is_completed_though_its_future_is_dropped() {
    let (session, mut server) = open(config(Version::V5).with_max_in_flight(1_u16)).await;
    {
        let mut dropped = pin!(session.publish(publish(QoS::ExactlyOnce)));
        assert!(now(&mut dropped).await.is_none());
    }
    let id = server.expect_publish().await.packet_id.unwrap();
    assert_eq!(session.in_flight(), 1);
    server.send(Packet::PubRec(Ack::new(id))).await;
    assert_eq!(server.recv().await, Packet::PubRel(Ack::new(id)));
    server.send(Packet::PubComp(Ack::new(id))).await;
    settle().await;
    assert_eq!(session.in_flight(), 0);
    // Its identifier and its place in the window are free again.
    assert!(
        now(session.publish(publish(QoS::AtLeastOnce)))
            .await
            .is_none()
    );
    server.expect_publish().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_makes_publishers_wait_and_memory_stay() {
    let (connector, mut listener) = mqtt_testkit::memory_with_capacity(1024);
    let config = config(Version::V5).with_max_unsent_bytes(4096_usize);
    let connector = mqtt_client::SessionConnector::with_connector(connector, config).unwrap();
    let (session, mut server) = tokio::join!(connector.connect(common::endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let mut admitted = 0;
    while now(session.publish(Publish::new("t", vec![0; 100]).unwrap()))
        .await
        .is_some()
    {
        admitted += 1;
        assert!(admitted < 1_000, "the outbound buffer has no bound");
        settle().await;
    }
    // At most one buffer that is being written, one that waits, and the pipe itself.
    assert!((10..120).contains(&admitted), "{admitted}");
    // When the server reads again, all of it comes.
    let mut waiting = pin!(session.publish(Publish::new("t", "last").unwrap()));
    assert!(now(&mut waiting).await.is_none());
    for _ in 0..admitted {
        assert_eq!(server.expect_publish().await.message.payload.len(), 100);
    }
    waiting.await.unwrap();
    assert_eq!(&*server.expect_publish().await.message.payload, b"last");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_connection_is_told_to_everyone() {
    for version in BOTH {
        let (session, mut server) = open(config(version).with_max_in_flight(1_u16)).await;
        let publisher = session.publisher();
        let mut sent = pin!(publisher.publish(publish(QoS::AtLeastOnce)));
        let mut waiting = pin!(publisher.publish(publish(QoS::AtLeastOnce)));
        assert!(now(&mut sent).await.is_none());
        assert!(now(&mut waiting).await.is_none());
        server.expect_publish().await;
        drop(server);
        let error = sent.await.unwrap_err();
        assert_eq!(error.delivery(), Delivery::Unknown);
        let error = waiting.await.unwrap_err();
        assert_eq!(error.delivery(), Delivery::NotSent);
        let error = publisher
            .publish(publish(QoS::AtMostOnce))
            .await
            .unwrap_err();
        assert_eq!(error.delivery(), Delivery::NotSent);
        assert!(session.is_closed());
        let lost = session.closed().await;
        assert!(lost.is_transient());
        assert_eq!(
            common::report(&*lost),
            "the connection to mqtt://server.test:1883 has ended: closed by the server"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn large_payloads_arrive_whole_between_small_ones() {
    let (session, mut server) = open(config(Version::V5)).await;
    let large: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let publisher = session.publisher();
    let (sent, ()) = tokio::join!(
        async {
            publisher
                .publish(Publish::new("t", "before").unwrap())
                .await?;
            publisher
                .publish(Publish::new("t", large.clone()).unwrap())
                .await?;
            publisher.publish(Publish::new("t", "after").unwrap()).await
        },
        async {
            assert_eq!(&*server.expect_publish().await.message.payload, b"before");
            assert_eq!(server.expect_publish().await.message.payload, large);
            assert_eq!(&*server.expect_publish().await.message.payload, b"after");
        }
    );
    sent.unwrap();
}
