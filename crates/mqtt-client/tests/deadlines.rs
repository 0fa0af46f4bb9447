//! Each phase of a session's life ends in its own time, with an error that names it.
//!
//! That resolving, dialling, a proxy, TLS and a WebSocket are told apart also where one deadline is for
//! all of them, `mqtt-transport` shows over real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes is wrong"
)]

mod common;

use std::{future::pending, io, time::Duration};

use common::{BOTH, config, endpoint, open, publish, report};
use mqtt_client::{
    ConnectCause, Dial, LostCause, OnStall, Operation, Publish, QoS, SessionConnector, Version,
    proto::{ProtocolError, packet::PacketType},
    transport::{BoxConn, ConnectDeadline, ConnectPhase, Resolve, ResolveFuture, TcpConnector},
};
use mqtt_testkit::memory_with_capacity;
use tokio::time::Instant;
use tower::service_fn;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Resolve,
    Dial,
    ConnAck,
    Write,
    Read,
    Acknowledgement,
}

/// A resolver that never answers.
struct Silent;

impl Resolve for Silent {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> ResolveFuture<'a> {
        Box::pin(pending())
    }
}

/// How opening a session over this ends.
async fn opened<C: Dial>(connector: C, version: Version) -> ConnectCause {
    let connector = SessionConnector::with_connector(connector, config(version)).unwrap();
    let error = connector.connect(endpoint()).await.unwrap_err();
    assert!(error.is_transient());
    error.cause
}

fn dial_phase(cause: &ConnectCause) -> Option<ConnectPhase> {
    match cause {
        ConnectCause::Dial(error) => {
            assert_eq!(error.io_error().kind(), io::ErrorKind::TimedOut);
            Some(error.phase())
        }
        _ => None,
    }
}

/// Brings a session to where it waits in this phase, and returns what names it.
async fn wait_in(phase: Phase, version: Version) -> bool {
    match phase {
        Phase::Resolve => {
            let connector = TcpConnector::default().with_resolver(Silent);
            let connector = ConnectDeadline::new(connector, SECOND * 3);
            dial_phase(&opened(connector, version).await) == Some(ConnectPhase::Resolve)
        }
        Phase::Dial => {
            let nowhere = service_fn(|_| pending::<Result<BoxConn, _>>());
            let connector = ConnectDeadline::new(nowhere, SECOND * 3);
            dial_phase(&opened(connector, version).await) == Some(ConnectPhase::Dial)
        }
        Phase::ConnAck => {
            let (connector, mut listener) = mqtt_testkit::memory();
            let server = tokio::spawn(async move {
                let mut server = listener.accept().await;
                while server.next_patiently().await.is_some() {}
            });
            let cause = opened(connector, version).await;
            server.await.unwrap();
            matches!(&cause, ConnectCause::Protocol(ProtocolError::ConnAckTimeout { timeout })
                if *timeout == SECOND * 5)
        }
        Phase::Write => {
            let (connector, mut listener) = memory_with_capacity(64);
            let connector = SessionConnector::with_connector(connector, config(version)).unwrap();
            let (session, _server) = tokio::join!(connector.connect(endpoint()), async {
                let mut server = listener.accept().await;
                server.accept().await;
                server
            });
            let session = session.unwrap();
            let large = Publish::new("t", vec![0; 1_000]).unwrap();
            session.publish(large).await.unwrap();
            matches!(&session.closed().await.cause, LostCause::Io { operation: Operation::Write, source }
                if source.kind() == io::ErrorKind::TimedOut)
        }
        Phase::Read => {
            let (session, _server) = open(config(version)).await;
            let lost = session.closed().await;
            assert!(report(&*lost).contains("nothing was received"), "{lost}");
            matches!(&lost.cause, LostCause::Protocol(ProtocolError::KeepAliveTimeout { keep_alive })
                if *keep_alive == SECOND * 30)
        }
        Phase::Acknowledgement => {
            let config = config(version).with_on_stall(OnStall::Reconnect);
            let (session, mut server) = open(config).await;
            tokio::spawn(async move {
                while let Some(packet) = server.next_patiently().await {
                    if packet == mqtt_client::proto::packet::Packet::PingReq {
                        server
                            .send(mqtt_client::proto::packet::Packet::PingResp)
                            .await;
                    }
                }
            });
            session
                .publish(publish(QoS::AtLeastOnce))
                .await
                .unwrap_err();
            matches!(&session.closed().await.cause, LostCause::Stalled { awaited: PacketType::PubAck, timeout }
                if *timeout == SECOND * 60)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_phase_ends_in_its_own_time() {
    for version in BOTH {
        for (phase, seconds) in [
            (Phase::Resolve, 3..=3),
            (Phase::Dial, 3..=3),
            (Phase::ConnAck, 5..=5),
            (Phase::Write, 10..=10),
            // One and a half keep-alive.
            (Phase::Read, 42..=45),
            (Phase::Acknowledgement, 60..=75),
        ] {
            let begun = Instant::now();
            assert!(wait_in(phase, version).await, "{phase:?}");
            let took = begun.elapsed().as_secs();
            assert!(seconds.contains(&took), "{phase:?} {took}");
        }
    }
}

/// A server that takes connections and says nothing, for as short a time as the phase needs.
#[cfg(feature = "_tls")]
#[tokio::test]
async fn a_tls_handshake_ends_in_the_time_to_connect() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let endpoint = format!("mqtts://{}", listener.local_addr().unwrap());
    let config = config(Version::V5).with_connect_timeout(SECOND / 4);
    let connector = SessionConnector::new(config).unwrap();
    let error = connector
        .connect(endpoint.parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(
        dial_phase(&error.cause),
        Some(ConnectPhase::Tls),
        "{}",
        report(&error)
    );
    assert!(error.is_transient());
}
