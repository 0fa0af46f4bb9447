//! Leaving, and noticing that the server has left.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{pin::pin, time::Duration};

use common::{BOTH, config, now, open, publish, settle};
use mqtt_client::{
    LostCause, PublishError, QoS, ReasonCode, Subscribe, Version,
    proto::packet::{Disconnect, Packet},
};

/// [MQTT5-3.14.4-1] [MQTT5-3.14.4-2] [MQTT3-3.14.4-1] [MQTT3-3.14.4-2]
#[tokio::test(start_paused = true)]
async fn disconnecting_waits_for_what_is_in_flight_and_closes() {
    for version in BOTH {
        let (session, mut server) = open(config(version)).await;
        let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
        assert!(now(&mut in_flight).await.is_none());
        let (left, ()) = tokio::join!(session.disconnect(), async {
            let id = server.expect_publish().await.packet_id.unwrap();
            server.expect_silence(Duration::from_millis(100)).await;
            // No new requests meanwhile.
            let refused = session.publish(publish(QoS::AtMostOnce)).await.unwrap_err();
            assert!(matches!(refused, PublishError::NotSent(_)), "{refused:?}");
            server.puback(id).await;
            assert_eq!(
                server.expect_disconnect().await.reason_code,
                ReasonCode::SUCCESS
            );
            server.expect_closed().await;
        });
        left.unwrap();
        in_flight.await.unwrap();
        assert!(matches!(session.closed().await.cause, LostCause::Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn disconnecting_waits_no_longer_than_configured_and_says_what_was_left() {
    let (session, mut server) = open(config(Version::V5)).await;
    let mut in_flight = pin!(session.publish(publish(QoS::ExactlyOnce)));
    assert!(now(&mut in_flight).await.is_none());
    let start = tokio::time::Instant::now();
    let (left, ()) = tokio::join!(session.disconnect(), async {
        server.expect_publish().await;
        server.expect_disconnect().await;
        server.expect_closed().await;
    });
    assert_eq!(
        left.unwrap_err().to_string(),
        "1 publishes were not acknowledged within 250ms"
    );
    assert_eq!(start.elapsed(), Duration::from_millis(250));
    assert!(matches!(
        in_flight.await.unwrap_err(),
        PublishError::Lost(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_leaves_in_order() {
    for version in BOTH {
        let (session, mut server) = open(config(version)).await;
        let publisher = session.publisher();
        drop(session);
        publisher.publish(publish(QoS::AtMostOnce)).await.unwrap();
        server.expect_publish().await;
        drop(publisher);
        server.expect_disconnect().await;
        server.expect_closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_keeps_the_session_open() {
    let (session, mut server) = open(config(Version::V5)).await;
    let (messages, _) = tokio::join!(
        session.subscribe(Subscribe::new("a").unwrap()),
        server.grant()
    );
    let mut messages = messages.unwrap();
    drop(session);
    server.publish("a", "x", QoS::AtMostOnce, 0).await;
    assert_eq!(messages.recv().await.unwrap().payload, "x");
    drop(messages);
    assert!(matches!(server.recv().await, Packet::Unsubscribe(_)));
    server.expect_disconnect().await;
    server.expect_closed().await;
}

/// [MQTT5 3.14.4]
#[tokio::test(start_paused = true)]
async fn the_servers_reason_reaches_the_application() {
    let (session, mut server) = open(config(Version::V5)).await;
    let mut disconnect = Disconnect::new(ReasonCode::SERVER_SHUTTING_DOWN);
    disconnect.properties.reason_string = Some("maintenance".try_into().unwrap());
    server.send(Packet::Disconnect(disconnect)).await;
    let lost = session.closed().await;
    assert!(lost.is_transient());
    let report = common::report(&*lost);
    assert!(
        report.ends_with("the server disconnected: server shutting down (0x8B) (maintenance)"),
        "{report}"
    );
    server.expect_closed().await;
}

/// It said so before it closed; that writing fails after it says nothing more.
#[tokio::test(start_paused = true)]
async fn the_servers_reason_is_told_though_a_write_fails_first() {
    let (session, mut server) = open(config(Version::V5)).await;
    let publisher = session.publisher();
    let mut acknowledged = pin!(publisher.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut acknowledged).await.is_none());
    let id = server.expect_publish().await.packet_id.unwrap();
    server.puback(id).await;
    let taken_over = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
    server.send(Packet::Disconnect(taken_over)).await;
    drop(server);
    assert!(
        now(publisher.publish(publish(QoS::AtMostOnce)))
            .await
            .is_some()
    );
    let lost = session.closed().await;
    assert!(matches!(lost.cause, LostCause::Disconnected(_)), "{lost:?}");
    assert!(!lost.is_transient());
    acknowledged.await.unwrap();
}

/// [MQTT5-3.1.2-20] [MQTT3-3.1.2-23]
#[tokio::test(start_paused = true)]
async fn an_idle_session_pings() {
    for version in BOTH {
        let (_session, mut server) =
            open(config(version).with_keep_alive(Duration::from_secs(10))).await;
        for _ in 0..5 {
            let start = tokio::time::Instant::now();
            assert_eq!(server.recv().await, Packet::PingReq);
            assert!(start.elapsed() <= Duration::from_secs(10));
            server.send(Packet::PingResp).await;
        }
    }
}

/// [MQTT5 3.12] [MQTT3 3.1.2.10]
#[tokio::test(start_paused = true)]
async fn a_dead_server_is_noticed_within_one_and_a_half_keep_alive() {
    let (session, _server) =
        open(config(Version::V5).with_keep_alive(Duration::from_secs(10))).await;
    let start = tokio::time::Instant::now();
    let lost = session.closed().await;
    assert!(
        start.elapsed() <= Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() >= Duration::from_secs(14),
        "{:?}",
        start.elapsed()
    );
    assert!(lost.is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_reading_is_given_up_at_the_write_timeout() {
    let (connector, mut listener) = mqtt_testkit::memory_with_capacity(64);
    let config = config(Version::V5).with_keep_alive(Duration::ZERO);
    let connector = mqtt_client::SessionConnector::with_connector(connector, config).unwrap();
    let (session, _server) = tokio::join!(connector.connect(common::endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    settle().await;
    let start = tokio::time::Instant::now();
    session
        .publish(mqtt_client::Publish::new("t", vec![0; 1000]).unwrap())
        .await
        .unwrap();
    let lost = session.closed().await;
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    assert!(
        matches!(
            lost.cause,
            LostCause::Io {
                operation: mqtt_client::Operation::Write,
                ..
            }
        ),
        "{lost}"
    );
}

#[test]
fn the_end_of_the_runtime_is_told_too() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (session, _server) = runtime.block_on(open(config(Version::V5)));
    drop(runtime);
    assert!(session.is_closed());
}
