//! What a session has taken and cannot send yet: its bounds, what gives way, how long it waits, and
//! that it goes out in order and in turn.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod ageing;
mod bounds;
mod lanes;
mod leaving;
mod model;
mod outcomes;
mod waiting;

use std::time::Duration;

use common::{config, connector, endpoint, open};
use mqtt_client::{
    OutboxConfig, Overflow, Publish, QoS, ReconnectConfig, Session, SessionConfig, Version,
    pool::Limit,
    proto::{PacketId, packet::ConnAck},
};
use mqtt_testkit::{MemoryListener, ScriptedServer};
use tokio::time::timeout;

/// A publish at QoS 1 whose payload is its name.
fn named(topic: &str, payload: impl Into<String>) -> Publish {
    Publish::new(topic.to_owned(), payload.into())
        .unwrap()
        .with_qos(QoS::AtLeastOnce)
}

/// A window of one, so that the second publish waits, and an outbox like this.
fn narrow(outbox: OutboxConfig) -> SessionConfig {
    config(Version::V5)
        .with_max_in_flight(1_u16)
        .with_outbox(outbox)
}

fn outbox(max_messages: usize, overflow: Overflow) -> OutboxConfig {
    OutboxConfig::default()
        .with_max_messages(max_messages)
        .with_overflow(overflow)
}

/// A session whose window is full, and the identifier of what fills it.
async fn full(outbox: OutboxConfig) -> (Session, ScriptedServer, PacketId) {
    let (session, mut server) = open(narrow(outbox)).await;
    drop(session.admit(named("t", "first")).await.unwrap());
    let id = server.expect_publish().await.packet_id.unwrap();
    (session, server, id)
}

/// Acknowledges what fills the window, then what comes of it; says what came, until nothing does.
async fn drained(server: &mut ScriptedServer, id: PacketId) -> Vec<String> {
    server.puback(id).await;
    let mut payloads = Vec::new();
    while let Ok(sent) = timeout(SECOND, server.expect_publish()).await {
        if let Some(id) = sent.packet_id {
            server.puback(id).await;
        }
        payloads.push(String::from_utf8(sent.message.payload.to_vec()).unwrap());
    }
    payloads
}

/// A session that comes back one second after its connection was lost.
fn reconnecting(outbox: OutboxConfig) -> SessionConfig {
    let reconnect = ReconnectConfig::default().with_jitter(Duration::ZERO);
    SessionConfig::new("gateway")
        .with_outbox(outbox)
        .with_reconnect(Some(reconnect))
}

/// One that the server keeps meanwhile.
fn kept(outbox: OutboxConfig) -> SessionConfig {
    reconnecting(outbox).with_session_expiry(Limit::After(SECOND * 3_600))
}

async fn open_reconnecting(config: SessionConfig) -> (Session, ScriptedServer, MemoryListener) {
    let (connector, mut listener) = connector(config);
    let (session, server) =
        tokio::join!(connector.connect(endpoint()), accept(&mut listener, false));
    (session.unwrap(), server, listener)
}

async fn accept(listener: &mut MemoryListener, session_present: bool) -> ScriptedServer {
    let mut server = listener.accept().await;
    let mut connack = ConnAck::accepted();
    connack.session_present = session_present;
    server.accept_with(connack).await;
    server
}

const SECOND: Duration = Duration::from_secs(1);
