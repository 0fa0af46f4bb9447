//! What users of other clients stumble over, as far as no other test here says it. The whole list,
//! with the test that answers each line, is `docs/complaints.md`.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes fails the test"
)]

mod alone;
mod bridging;
#[path = "../common/mod.rs"]
mod common;
mod fleets;
mod outcomes;
mod stalls;

use std::time::Duration;

use common::{connector, endpoint};
use mqtt_client::{ReconnectConfig, Session, SessionConfig, Version, pool::Limit};
use mqtt_testkit::{MemoryListener, ScriptedServer};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A session that the server keeps for an hour, and that comes back after exactly 1, 2, 4 ... s.
pub(crate) fn config(version: Version) -> SessionConfig {
    SessionConfig::new("gateway")
        .with_version(version)
        .with_clean_start(version == Version::V5)
        .with_session_expiry(Limit::After(SECOND * 3_600))
        .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)))
}

pub(crate) async fn open(config: SessionConfig) -> (Session, ScriptedServer, MemoryListener) {
    let (connector, mut listener) = connector(config);
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    (session.unwrap(), server, listener)
}

pub(crate) fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}
