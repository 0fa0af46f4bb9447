//! Opening a session: who refuses, what the caller is told, and what the server is told.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use common::{BOTH, config, connector, endpoint, open, publish, report};
use mqtt_client::{
    ConnectCause, ConnectError, QoS, ReasonCode, SessionConfig, SessionConnector, Version,
    proto::packet::{ConnAck, Packet},
    transport::{Conn, ConnInfo},
};
use mqtt_testkit::{ScriptedServer, memory};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::ServiceExt;

/// Opens a session with a server that does `script` after CONNECT, and returns the error.
async fn refused_by<F>(version: Version, script: impl FnOnce(ScriptedServer) -> F) -> ConnectError
where
    F: Future<Output = ()>,
{
    let (connector, mut listener) = connector(config(version));
    let (outcome, ()) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.expect_connect().await;
        script(server).await;
    });
    outcome.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_endpoint_and_code_and_says_whether_to_try_again() {
    for version in BOTH {
        for (code, transient) in [
            (ReasonCode::NOT_AUTHORIZED, false),
            (ReasonCode::BAD_USER_NAME_OR_PASSWORD, false),
            (ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, false),
            (ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, false),
            (ReasonCode::SERVER_UNAVAILABLE, true),
        ] {
            let error = refused_by(version, |mut server| async move {
                server.send(Packet::ConnAck(ConnAck::refused(code))).await;
            })
            .await;
            assert_eq!(error.is_transient(), transient, "{code}");
            let report = report(&error);
            assert!(
                report.starts_with("cannot open a session at mqtt://server.test"),
                "{report}"
            );
            assert!(report.contains(code.name()), "{report}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_is_told_apart_from_one_that_refuses() {
    let error = refused_by(Version::V5, |server| async move { drop(server) }).await;
    assert!(matches!(error.cause, ConnectCause::Closed));
    assert!(error.is_transient());
}

/// [MQTT5 3.2] [MQTT3 3.2]
#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_after_the_configured_time() {
    let start = tokio::time::Instant::now();
    let error = refused_by(Version::V5, |server| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(server);
    })
    .await;
    assert!(
        report(&error).contains("no CONNACK within 5s"),
        "{}",
        report(&error)
    );
    assert!(error.is_transient());
    assert!(start.elapsed() >= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn the_time_allowed_is_the_whole_time() {
    let (connector, mut listener) = connector(config(Version::V5));
    let start = tokio::time::Instant::now();
    let (outcome, _server) = tokio::join!(
        async {
            let outcome = connector.connect(endpoint()).await;
            (outcome, start.elapsed())
        },
        async {
            let mut server = listener.accept().await;
            server.expect_connect().await;
            // A byte now and then does not buy more time.
            for byte in [0x20, 0x10] {
                tokio::time::sleep(Duration::from_secs(2)).await;
                server.send_bytes(&[byte]).await;
            }
            server
        }
    );
    assert!(outcome.0.is_err());
    assert_eq!(outcome.1, Duration::from_secs(5));
}

/// [MQTT5 4.13.1]
#[tokio::test(start_paused = true)]
async fn what_is_not_a_connack_is_named_and_the_server_is_told() {
    for (bytes, told, words) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            ReasonCode::MALFORMED_PACKET,
            "not a packet",
        ),
        (
            &[0x20, 0x03, 0x02, 0x00, 0x00],
            ReasonCode::MALFORMED_PACKET,
            "malformed CONNACK",
        ),
        (
            &[0x30, 0x04, 0x00, 0x01, 0x61, 0x00],
            ReasonCode::PROTOCOL_ERROR,
            "PUBLISH is not allowed",
        ),
        (
            &[0xD0, 0x00],
            ReasonCode::PROTOCOL_ERROR,
            "PINGRESP is not allowed",
        ),
        (
            &[0x20, 0x03, 0x01, 0x00, 0x00],
            ReasonCode::PROTOCOL_ERROR,
            "MQTT5-3.2.2-4",
        ),
        (
            &[0x20, 0xFF, 0xFF, 0xFF, 0x7F],
            ReasonCode::PACKET_TOO_LARGE,
            "maximum packet size",
        ),
    ] {
        let error = refused_by(Version::V5, |mut server| async move {
            server.send_bytes(bytes).await;
            assert_eq!(
                server.expect_disconnect().await.reason_code,
                told,
                "{bytes:02X?}"
            );
            server.expect_closed().await;
        })
        .await;
        assert!(error.is_transient(), "{error:?}");
        assert!(report(&error).contains(words), "{}", report(&error));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_a_bad_answer_in_3_1_1() {
    let error = refused_by(Version::V3, |mut server| async move {
        server.send_bytes(&[0x20, 0x02, 0x00, 0x06]).await;
        server.expect_closed().await;
    })
    .await;
    assert!(
        report(&error).contains("reason code 0x06"),
        "{}",
        report(&error)
    );
}

#[tokio::test(start_paused = true)]
async fn a_packet_right_behind_the_connack_is_not_lost() {
    let (connector, mut listener) = connector(config(Version::V5));
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.expect_connect().await;
        let mut bytes = vec![0x20, 0x03, 0x00, 0x00, 0x00];
        bytes.extend([0x32, 0x06, 0x00, 0x01, 0x61, 0x00, 0x05, 0x00]);
        server.send_bytes(&bytes).await;
        server
    });
    let _session = session.unwrap();
    server.expect_puback(5).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_listening_is_a_transient_dial_error() {
    let (connector, listener) = connector(config(Version::V5));
    drop(listener);
    let error = connector.connect(endpoint()).await.unwrap_err();
    assert!(matches!(error.cause, ConnectCause::Dial(_)));
    assert!(error.is_transient());
}

#[test]
fn bad_configuration_is_refused_with_every_problem() {
    let config = SessionConfig::new("")
        .with_version(Version::V3)
        .with_clean_start(false)
        .with_keep_alive(Duration::from_millis(1500))
        .with_max_in_flight(0_u16)
        .with_max_packet_size(1_u32)
        .with_connack_timeout(Duration::ZERO);
    let errors = SessionConnector::new(config).unwrap_err().to_string();
    for path in [
        "session.client_id",
        "session.keep_alive",
        "session.max_in_flight",
        "session.max_packet_size",
        "session.connack_timeout",
    ] {
        assert!(errors.contains(path), "{path} in {errors}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_are_allowed() {
    let config = config(Version::V5)
        .with_connect_timeout(Duration::MAX)
        .with_connack_timeout(Duration::MAX)
        .with_write_timeout(Duration::MAX)
        .with_quiesce(Duration::MAX);
    let (session, mut server) = open(config).await;
    let serves = tokio::spawn(async move { server.serve().await });
    session.publish(publish(QoS::AtLeastOnce)).await.unwrap();
    session.disconnect().await.unwrap();
    serves.await.unwrap();
}

/// A connection that takes its time to close.
#[derive(Debug)]
struct ClosesSlowly<C> {
    inner: C,
    closing: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<C: Conn> Conn for ClosesSlowly<C> {
    fn info(&self) -> &ConnInfo {
        self.inner.info()
    }
}

impl<C: Conn> AsyncRead for ClosesSlowly<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<C: Conn> AsyncWrite for ClosesSlowly<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closing = self
            .closing
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_secs(1))));
        closing.as_mut().poll(cx).map(Ok)
    }
}

/// What the server said counts, however late it said so and however long the goodbye takes.
#[tokio::test(start_paused = true)]
async fn a_late_refusal_stays_a_refusal() {
    let (inner, mut listener) = memory();
    let inner = inner.map_response(|inner| ClosesSlowly {
        inner,
        closing: None,
    });
    let config = config(Version::V5).with_connack_timeout(Duration::from_secs(5));
    let connector = SessionConnector::with_connector(inner, config).unwrap();
    let (outcome, _server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        tokio::time::sleep(Duration::from_millis(4_900)).await;
        let mut refusal = ConnAck::accepted();
        refusal.reason_code = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
        server.accept_with(refusal).await;
        server
    });
    let error = outcome.unwrap_err();
    assert!(!error.is_transient(), "{}", report(&error));
}

/// The permit of a limit on dials is held until the session is open or is not to be.
#[tokio::test(start_paused = true)]
async fn a_limit_on_dials_is_a_limit_on_sessions_being_opened() {
    let (inner, mut listener) = memory();
    let inner = tower::limit::ConcurrencyLimit::new(inner, 1);
    let connector = SessionConnector::with_connector(inner, config(Version::V5)).unwrap();
    let first = tokio::spawn(connector.clone().oneshot(endpoint()));
    let second = tokio::spawn(connector.oneshot(endpoint()));
    let mut server = listener.accept().await;
    let another = tokio::time::timeout(Duration::from_secs(1), listener.accept()).await;
    assert!(another.is_err(), "one at a time");
    server.accept_with(ConnAck::accepted()).await;
    listener
        .accept()
        .await
        .accept_with(ConnAck::accepted())
        .await;
    for session in [first, second] {
        session.await.unwrap().unwrap();
    }
}
