//! A server that answers pings and nothing else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{BOTH, accept, config, connector, endpoint, now, open, publish, report, settle};
use mqtt_client::{
    LostCause, OnStall, PublishError, QoS, ReasonCode, ReconnectConfig, Session, SessionConfig,
    Subscribe, Version,
    pool::Limit,
    proto::packet::{Ack, ConnAck, Packet, PacketType},
};
use mqtt_testkit::{MemoryListener, ScriptedServer};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// Answers pings until the connection ends, and returns what else came.
async fn only_pings(server: &mut ScriptedServer) -> Vec<Packet> {
    let mut others = Vec::new();
    while let Some(packet) = server.next_patiently().await {
        if packet == Packet::PingReq {
            server.send(Packet::PingResp).await;
        } else {
            others.push(packet);
        }
    }
    others
}

/// A session that the server keeps, which gives up a server that does not answer.
fn lasting(version: Version) -> SessionConfig {
    config(version)
        .with_clean_start(version == Version::V5)
        .with_session_expiry(Limit::After(SECOND * 3_600))
        .with_on_stall(OnStall::Reconnect)
        .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)))
}

async fn open_lasting(config: SessionConfig) -> (Session, ScriptedServer, MemoryListener) {
    let (connector, mut listener) = connector(config);
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    (session.unwrap(), server, listener)
}

#[tokio::test(start_paused = true)]
async fn by_default_it_is_counted_and_the_session_goes_on() {
    for version in BOTH {
        for keep_alive in [Duration::ZERO, SECOND * 30, SECOND * 3_600] {
            let (session, mut server) = open(config(version).with_keep_alive(keep_alive)).await;
            tokio::spawn(async move { only_pings(&mut server).await });
            tokio::time::sleep(SECOND * 100).await;
            assert_eq!(session.stalls(), 0, "nothing was asked");
            let mut publishing = Box::pin(session.publish(publish(QoS::AtLeastOnce)));
            assert!(now(&mut publishing).await.is_none());
            tokio::time::sleep(SECOND * 59).await;
            assert_eq!(session.stalls(), 0);
            tokio::time::sleep(SECOND * 17).await;
            assert_eq!(session.stalls(), 1, "{keep_alive:?}");
            tokio::time::sleep(SECOND * 60).await;
            assert_eq!(session.stalls(), 2);
            assert!(!session.is_closed());
            assert!(now(&mut publishing).await.is_none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_can_be_switched_off_and_a_busy_session_is_not_taken_for_stalled() {
    for version in BOTH {
        let (session, mut server) = open(lasting(version).with_ack_timeout(Limit::Never)).await;
        tokio::spawn(async move { only_pings(&mut server).await });
        let mut publishing = Box::pin(session.publish(publish(QoS::AtLeastOnce)));
        assert!(now(&mut publishing).await.is_none());
        tokio::time::sleep(SECOND * 1_000).await;
        assert_eq!(session.stalls(), 0);
        assert!(!session.is_closed());

        // Each answer comes 44 s after the one before.
        let (session, mut server) = open(lasting(version)).await;
        let mut admitted = Vec::new();
        for _ in 0..5 {
            admitted.push(session.admit(publish(QoS::AtLeastOnce)).await.unwrap());
        }
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(server.expect_publish().await.packet_id.unwrap());
        }
        for id in ids {
            let _ = tokio::time::timeout(SECOND * 44, only_pings(&mut server)).await;
            server.puback(id).await;
        }
        settle().await;
        assert_eq!((session.in_flight(), session.stalls()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_left_and_the_session_goes_on_at_another() {
    for version in BOTH {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let (session, mut server, mut listener) = open_lasting(lasting(version)).await;
            let published = tokio::spawn({
                let session = session.clone();
                async move { session.publish(publish(qos)).await }
            });
            let sent = only_pings(&mut server).await;
            assert!(matches!(sent[0], Packet::Publish(_)), "{sent:?}");
            match (version, &sent[1..]) {
                (Version::V3, []) => {}
                (Version::V5, [Packet::Disconnect(disconnect)]) => {
                    let code = ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR;
                    assert_eq!(disconnect.reason_code, code);
                }
                _ => panic!("{sent:?}"),
            }
            let mut server = accept(&mut listener, true).await;
            let resent = server.expect_publish().await;
            assert!(resent.dup);
            let serves = tokio::spawn(async move {
                let id = resent.packet_id.unwrap();
                if qos == QoS::AtLeastOnce {
                    server.puback(id).await;
                } else {
                    server.send(Packet::PubRec(Ack::new(id))).await;
                    assert!(matches!(server.recv().await, Packet::PubRel(_)));
                    server.send(Packet::PubComp(Ack::new(id))).await;
                }
                server
            });
            published.await.unwrap().unwrap();
            assert_eq!((session.in_flight(), session.stalls()), (0, 1));
            drop(serves.await.unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_another_connection_those_who_wait_are_told_why() {
    for version in BOTH {
        let (session, mut server) = open(config(version).with_on_stall(OnStall::Reconnect)).await;
        tokio::spawn(async move { only_pings(&mut server).await });
        let begun = Instant::now();
        let error = session
            .publish(publish(QoS::AtLeastOnce))
            .await
            .unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 60);
        let PublishError::Lost(lost) = &error else {
            panic!("{error:?}");
        };
        assert!(lost.is_transient());
        assert!(
            matches!(lost.cause, LostCause::Stalled { awaited: PacketType::PubAck, timeout } if timeout == SECOND * 60),
            "{lost:?}"
        );
        assert!(
            report(&error).ends_with("the server does not answer: no PUBACK within 60s"),
            "{}",
            report(&error)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_is_asked_again_on_the_next_connection() {
    for version in BOTH {
        let (session, mut server, mut listener) = open_lasting(lasting(version)).await;
        let subscribed = tokio::spawn({
            let session = session.clone();
            async move { session.subscribe(Subscribe::new("a").unwrap()).await }
        });
        let sent = only_pings(&mut server).await;
        assert!(matches!(sent[0], Packet::Subscribe(_)), "{sent:?}");
        let mut server = accept(&mut listener, true).await;
        server.grant().await;
        subscribed.await.unwrap().unwrap();
    }
}

/// Each of these connections is older than one that counts as stable, and none is.
#[tokio::test(start_paused = true)]
async fn delays_double_from_one_stall_to_the_next() {
    for version in BOTH {
        let (session, mut server, mut listener) = open_lasting(lasting(version)).await;
        let _admitted = session.admit(publish(QoS::AtLeastOnce)).await.unwrap();
        let mut delays = Vec::new();
        for _ in 0..4 {
            only_pings(&mut server).await;
            let ended = Instant::now();
            server = accept_patiently(&mut listener).await;
            delays.push(ended.elapsed().as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8]);
        // One that answers for long, and then does not, begins anew.
        let resent = server.expect_publish().await;
        server.puback(resent.packet_id.unwrap()).await;
        let _ = tokio::time::timeout(SECOND * 100, only_pings(&mut server)).await;
        let _admitted = session.admit(publish(QoS::AtLeastOnce)).await.unwrap();
        only_pings(&mut server).await;
        let ended = Instant::now();
        accept_patiently(&mut listener).await;
        assert_eq!(ended.elapsed().as_secs(), 1);
    }
}

async fn accept_patiently(listener: &mut MemoryListener) -> ScriptedServer {
    let mut server = listener.accept_patiently().await;
    server.accept_with(ConnAck::resumed()).await;
    server
}

/// Nobody is blamed for a server that answers nobody.
#[tokio::test(start_paused = true)]
async fn a_publish_is_not_set_aside_for_it() {
    for version in BOTH {
        // So that such a connection is young when it ends.
        let config = lasting(version).with_ack_timeout(Limit::After(SECOND * 4));
        let (session, mut server, mut listener) = open_lasting(config).await;
        let mut publishing = Box::pin(session.publish(publish(QoS::AtLeastOnce)));
        assert!(now(&mut publishing).await.is_none());
        for _ in 0..6 {
            only_pings(&mut server).await;
            server = accept_patiently(&mut listener).await;
        }
        let resent = server.expect_publish().await;
        server.puback(resent.packet_id.unwrap()).await;
        publishing.await.unwrap();
        assert_eq!(session.stalls(), 6);
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_is_not_held_up_by_it() {
    for version in BOTH {
        let config = lasting(version).with_ack_timeout(Limit::After(SECOND * 4));
        let (session, mut server, _listener) = open_lasting(config).await;
        let _admitted = session.admit(publish(QoS::AtLeastOnce)).await.unwrap();
        let serves = tokio::spawn(async move { only_pings(&mut server).await });
        let begun = Instant::now();
        session.drain(SECOND * 3).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 3);
        serves.await.unwrap();
    }
}

#[test]
fn no_time_at_all_is_not_allowed() {
    let config = SessionConfig::new("a").with_ack_timeout(Limit::After(Duration::ZERO));
    let errors = config.validate().unwrap_err().to_string();
    assert!(errors.contains("session.ack_timeout"), "{errors}");
}
