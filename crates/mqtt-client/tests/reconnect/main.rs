//! Sessions that outlive their connections.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod publishing;
mod random;
mod retrying;
mod subscribing;

use std::time::Duration;

pub(crate) use common::accept;
use common::{connector, endpoint};
use mqtt_client::{
    ReconnectConfig, Session, SessionConfig, Subscribe, Subscription, Version, pool::Limit,
};
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

pub(crate) async fn subscribed(
    session: &Session,
    server: &mut ScriptedServer,
    filter: &str,
) -> Subscription {
    let subscribe = Subscribe::new(filter.to_owned()).unwrap();
    let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
    stream.unwrap()
}

/// What a session holds, as far as its `Debug` shows it.
pub(crate) fn held(session: &Session, what: &str) -> usize {
    format!("{session:#?}").matches(what).count()
}
