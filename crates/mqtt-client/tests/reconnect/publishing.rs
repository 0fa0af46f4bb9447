//! What becomes of publishes.

use std::{pin::pin, time::Duration};

use mqtt_client::{
    LostPublishes, PublishError, Published, QoS, Version,
    pool::Limit,
    proto::packet::{Ack, Packet},
};
use tokio::time::Instant;

use crate::{
    SECOND, accept,
    common::{BOTH, now, publish, report, settle},
    config, open,
};

#[tokio::test(start_paused = true)]
async fn a_publish_outlives_its_connection_where_the_server_keeps_the_session() {
    for version in BOTH {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let (session, mut server, mut listener) = open(config(version)).await;
            let mut publishing = pin!(session.publish(publish(qos)));
            assert!(now(&mut publishing).await.is_none());
            let first = server.expect_publish().await;
            drop(server);
            let (outcome, ()) = tokio::join!(publishing, async {
                let mut server = accept(&mut listener, true).await;
                let again = server.expect_publish().await;
                assert!(again.dup && again.packet_id == first.packet_id);
                if qos == QoS::AtLeastOnce {
                    server.puback(again.packet_id.unwrap()).await;
                } else {
                    let id = again.packet_id.unwrap();
                    server.send(Packet::PubRec(Ack::new(id))).await;
                    assert!(matches!(server.recv().await, Packet::PubRel(_)));
                    server.send(Packet::PubComp(Ack::new(id))).await;
                }
                settle().await;
                drop(server);
            });
            assert!(matches!(outcome.unwrap(), Published::Acknowledged { .. }));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_publish_in_flight_is_lost_with_the_session_and_one_that_waits_is_not() {
    let (session, mut server, mut listener) =
        open(config(Version::V5).with_max_in_flight(1_u16)).await;
    let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
    let mut waiting = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut in_flight).await.is_none() && now(&mut waiting).await.is_none());
    server.expect_publish().await;
    drop(server);
    let (in_flight, waiting, ()) = tokio::join!(in_flight, waiting, async {
        let mut server = accept(&mut listener, false).await;
        let published = server.expect_publish().await;
        assert!(!published.dup);
        server.puback(published.packet_id.unwrap()).await;
        settle().await;
    });
    let error = in_flight.unwrap_err();
    assert!(matches!(error, PublishError::Lost(_)), "{error:?}");
    assert!(
        report(&error).ends_with("the server has lost the session"),
        "{}",
        report(&error)
    );
    assert!(matches!(waiting.unwrap(), Published::Acknowledged { .. }));
}

/// Without an expiry the session ends with its connection, and nothing hangs.
#[tokio::test(start_paused = true)]
async fn without_an_expiry_what_was_in_flight_is_lost_at_once() {
    let config = config(Version::V5).with_session_expiry(Limit::After(Duration::ZERO));
    let (session, mut server, mut listener) = open(config).await;
    let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut in_flight).await.is_none());
    server.expect_publish().await;
    let cut = Instant::now();
    drop(server);
    let error = in_flight.await.unwrap_err();
    assert!(matches!(error, PublishError::Lost(_)), "{error:?}");
    assert_eq!(cut.elapsed(), Duration::ZERO);
    let mut server = listener.accept().await;
    assert!(server.accept().await.clean_start);
    session.publish(publish(QoS::AtMostOnce)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_published_while_there_is_no_connection_waits_for_the_next() {
    let (session, server, mut listener) = open(config(Version::V5)).await;
    drop(server);
    settle().await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        // Dropped before it was sent, it is withdrawn.
        assert!(now(session.publish(publish(qos))).await.is_none());
    }
    let (outcome, mut server) = tokio::join!(session.publish(publish(QoS::AtMostOnce)), async {
        accept(&mut listener, true).await
    });
    outcome.unwrap();
    assert_eq!(server.expect_publish().await.message.qos, QoS::AtMostOnce);
    server.expect_silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn in_flight_work_of_a_lost_session_is_sent_anew_at_qos_1_if_asked() {
    for kept in [true, false] {
        for version in BOTH {
            let expiry = if kept { SECOND * 3_600 } else { Duration::ZERO };
            let config = config(version)
                .with_clean_start(!kept || version == Version::V5)
                .with_session_expiry(Limit::After(expiry))
                .with_max_in_flight(2_u16)
                .with_lost_publishes(LostPublishes::ResendAtLeastOnce);
            let (session, mut server, mut listener) = open(config).await;
            let mut once = pin!(session.publish(publish(QoS::AtLeastOnce)));
            let mut exactly = pin!(session.publish(publish(QoS::ExactlyOnce)));
            let mut waits = pin!(session.publish(publish(QoS::AtLeastOnce)));
            assert!(now(&mut once).await.is_none() && now(&mut exactly).await.is_none());
            assert!(now(&mut waits).await.is_none());
            server.expect_publish().await;
            server.expect_publish().await;
            drop(server);
            let mut server = listener.accept().await;
            server.accept().await;
            for _ in 0..2 {
                let sent = server.expect_publish().await;
                assert!(!sent.dup, "it is new to this session");
                assert_eq!(sent.message.qos, QoS::AtLeastOnce);
                server.puback(sent.packet_id.unwrap()).await;
            }
            assert!(matches!(exactly.await, Err(PublishError::Lost(_))));
            once.await.unwrap();
            waits.await.unwrap();
            // Another connection of the same session repeats nothing.
            drop(server);
            let mut server = listener.accept().await;
            server.accept().await;
            server.expect_silence(SECOND).await;
        }
    }
}
