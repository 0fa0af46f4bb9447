//! A session and the scripted server at its other end, in memory and in virtual time.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{error::Error, pin::pin, task::Poll, time::Duration};

use mqtt_client::{
    Endpoint, OutboxConfig, Publish, QoS, Session, SessionConfig, SessionConnector, Subscribe,
    Subscription, Version, proto::packet::ConnAck,
};
use mqtt_testkit::{MemoryConnector, MemoryListener, ScriptedServer, memory};

pub(crate) const BOTH: [Version; 2] = [Version::V3, Version::V5];

pub(crate) fn endpoint() -> Endpoint {
    "mqtt://server.test".parse().unwrap()
}

/// A session that ends with its connection.
pub(crate) fn config(version: Version) -> SessionConfig {
    SessionConfig::new("gateway")
        .with_version(version)
        .with_reconnect(None)
}

/// Nothing is taken before it can be sent.
pub(crate) fn no_outbox() -> OutboxConfig {
    OutboxConfig::default().with_max_messages(0_usize)
}

pub(crate) fn connector(
    config: SessionConfig,
) -> (SessionConnector<MemoryConnector>, MemoryListener) {
    let (connector, listener) = memory();
    (
        SessionConnector::with_connector(connector, config).unwrap(),
        listener,
    )
}

/// An open session with these options, and its server.
pub(crate) async fn open(config: SessionConfig) -> (Session, ScriptedServer) {
    open_with(config, ConnAck::accepted()).await
}

/// An open session that the server accepted with these words.
pub(crate) async fn open_with(
    config: SessionConfig,
    connack: ConnAck,
) -> (Session, ScriptedServer) {
    let (connector, mut listener) = connector(config);
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept_with(connack).await;
        server
    });
    (session.unwrap(), server)
}

/// Accepts the next connection of a session: with the session, or without.
pub(crate) async fn accept(listener: &mut MemoryListener, session_present: bool) -> ScriptedServer {
    let mut server = listener.accept().await;
    let mut connack = ConnAck::accepted();
    connack.session_present = session_present;
    let connect = server.accept_with(connack).await;
    assert!(!connect.clean_start, "it goes on with its session");
    server
}

pub(crate) async fn subscribed(
    session: &Session,
    server: &mut ScriptedServer,
    subscribe: Subscribe,
) -> Subscription {
    let (subscription, _) = tokio::join!(session.subscribe(subscribe), server.grant());
    subscription.unwrap()
}

pub(crate) fn publish(qos: QoS) -> Publish {
    Publish::new("a/b", "payload").unwrap().with_qos(qos)
}

/// Polls once: what a caller sees who does not wait.
pub(crate) async fn now<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Lets every task run until all of them wait.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// An error and its causes, as a person at a terminal would see them.
pub(crate) fn report(error: &dyn Error) -> String {
    let mut report = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        report = format!("{report}: {cause}");
        source = cause.source();
    }
    report
}

/// Polls a future so many times, letting everyone else run in between, and drops it.
///
/// Returns whether it was still pending.
pub(crate) async fn drop_after<F: Future>(polls: usize, future: F) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        let ready =
            std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if ready {
            return false;
        }
        settle().await;
    }
    true
}

/// That nothing is left of what was asked of a session, as far as can be seen.
pub(crate) fn check_clean(session: &Session) {
    let outbox = session.outbox();
    assert_eq!((outbox.messages, outbox.waiting), (0, 0));
    assert_eq!(session.in_flight(), 0);
    let shown = format!("{session:?}");
    assert!(shown.contains("waiters: Slab { len: 0,"), "{shown}");
}
