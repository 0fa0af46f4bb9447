//! How sessions come by their connections: plans, credentials, redirects, and what ends them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod credentials;
mod ending;
mod gate;
mod plans;
mod poison;
mod redirects;

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use common::endpoint;
use mqtt_client::{
    Dial, Endpoint, ReconnectConfig, Session, SessionConfig, SessionConnector, Version,
    pool::Limit, proto::packet::ConnAck,
};
use mqtt_testkit::{MemoryConnector, MemoryListener, ScriptedServer, memory};
use tower::Service;

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
pub(crate) async fn open<C: Dial>(
    connector: &SessionConnector<C>,
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

/// Connections in memory, with a record of where they were to go.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    inner: MemoryConnector,
    dialled: Arc<Mutex<Vec<String>>>,
}

impl Recorded {
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.dialled.lock().unwrap().clone()
    }
}

impl Service<Endpoint> for Recorded {
    type Response = <MemoryConnector as Service<Endpoint>>::Response;
    type Error = <MemoryConnector as Service<Endpoint>>::Error;
    type Future = <MemoryConnector as Service<Endpoint>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        self.dialled.lock().unwrap().push(endpoint.to_string());
        self.inner.call(endpoint)
    }
}

pub(crate) fn recorded(
    config: SessionConfig,
) -> (SessionConnector<Recorded>, MemoryListener, Recorded) {
    let (inner, listener) = memory();
    let recorded = Recorded {
        inner,
        dialled: Arc::default(),
    };
    let connector = SessionConnector::with_connector(recorded.clone(), config).unwrap();
    (connector, listener, recorded)
}
