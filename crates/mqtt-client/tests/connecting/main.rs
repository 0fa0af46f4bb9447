//! How sessions come by their connections: plans, credentials, redirects, and what ends them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod ending;
mod plans;

use std::time::Duration;

use common::endpoint;
use mqtt_client::{
    ReconnectConfig, Session, SessionConfig, SessionConnector, Version, pool::Limit,
    proto::packet::ConnAck,
};
use mqtt_testkit::{MemoryConnector, MemoryListener, ScriptedServer};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A session that the server keeps for an hour, and that comes back after exactly 1, 2, 4 ... s.
pub(crate) fn config(version: Version) -> SessionConfig {
    SessionConfig::new("gateway")
        .with_version(version)
        .with_clean_start(version == Version::V5)
        .with_session_expiry(Limit::After(SECOND * 3_600))
        .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)))
}

/// Opens a session, and the server's end of it.
pub(crate) async fn open(
    connector: &SessionConnector<MemoryConnector>,
    listener: &mut MemoryListener,
) -> (Session, ScriptedServer) {
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    (session.unwrap(), server)
}

/// Accepts the next connection with the session that the server has kept.
pub(crate) async fn resume(listener: &mut MemoryListener) -> ScriptedServer {
    let mut server = listener.accept().await;
    server.accept_with(ConnAck::resumed()).await;
    server
}
