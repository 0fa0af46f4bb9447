//! Enhanced authentication, when connecting and again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod again;
#[path = "../common/mod.rs"]
mod common;
mod connecting;
mod renewing;
#[cfg(feature = "scram")]
mod scram;

use std::{
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use common::{connector, endpoint};
use mqtt_client::{
    AuthenticationError, Authenticator, ReasonCode, ReconnectConfig, Secret, Session,
    SessionConfig, SessionConnector, Version,
    pool::Limit,
    proto::{
        Utf8String,
        packet::{Auth, AuthProperties, ConnAck, Packet},
    },
};
use mqtt_testkit::{MemoryConnector, MemoryListener, ScriptedServer};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const CONTINUE: ReasonCode = ReasonCode::CONTINUE_AUTHENTICATION;
pub(crate) const AGAIN: ReasonCode = ReasonCode::RE_AUTHENTICATE;
pub(crate) const SUCCESS: ReasonCode = ReasonCode::SUCCESS;

/// What the authenticators of a test do, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// How many of those still to be made cannot begin.
    pub(crate) unavailable: AtomicU32,
    /// The number, from 0, of the one that never begins, answers or finishes.
    pub(crate) hangs_beginning: Option<u32>,
    pub(crate) hangs_answering: Option<u32>,
    pub(crate) hangs_finishing: Option<u32>,
    pub(crate) panics: Option<u32>,
    pub(crate) method_of: Option<fn(u32) -> &'static str>,
    pub(crate) valid_for: Option<Duration>,
    pub(crate) made: AtomicU32,
}

#[derive(Debug)]
pub(crate) struct Parrot {
    ways: Arc<Ways>,
    number: u32,
    is_again: bool,
}

fn say(words: impl Into<String>) -> Result<Option<Secret>, AuthenticationError> {
    Ok(Some(Secret::new(words.into()).unwrap()))
}

async fn hang_if(number: u32, hangs: Option<u32>) {
    if hangs == Some(number) {
        pending().await
    }
}

impl Authenticator for Parrot {
    fn method(&self) -> Utf8String {
        let method = self.ways.method_of.map_or("PARROT", |of| of(self.number));
        Utf8String::new(method).unwrap()
    }

    async fn begin(&mut self) -> Result<Option<Secret>, AuthenticationError> {
        hang_if(self.number, self.ways.hangs_beginning).await;
        let left = &self.ways.unavailable;
        if left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok()
        {
            let error = io::Error::other("the token service is away");
            return Err(AuthenticationError::unavailable(error));
        }
        say(if self.is_again { "again" } else { "hello" })
    }

    async fn answer(
        &mut self,
        challenge: Option<&[u8]>,
    ) -> Result<Option<Secret>, AuthenticationError> {
        hang_if(self.number, self.ways.hangs_answering).await;
        assert_ne!(self.ways.panics, Some(self.number), "as the test wants it");
        let challenge = challenge.unwrap_or_default();
        say(format!("{}!", String::from_utf8_lossy(challenge)))
    }

    async fn finish(&mut self, proof: Option<&[u8]>) -> Result<(), AuthenticationError> {
        hang_if(self.number, self.ways.hangs_finishing).await;
        if proof == Some(b"proof") {
            return Ok(());
        }
        Err(AuthenticationError::untrusted(io::Error::other("no proof")))
    }

    fn valid_for(&self) -> Option<Duration> {
        self.ways.valid_for
    }
}

/// A session that the server keeps for an hour and that comes back after exactly 1, 2, 4 ... s.
pub(crate) fn config() -> SessionConfig {
    SessionConfig::new("gateway")
        .with_session_expiry(Limit::After(SECOND * 3_600))
        .with_keep_alive(Duration::ZERO)
        .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)))
}

pub(crate) fn parrots(
    config: SessionConfig,
    ways: &Arc<Ways>,
) -> (SessionConnector<MemoryConnector>, MemoryListener) {
    let (connector, listener) = connector(config);
    let ways = ways.clone();
    let connector = connector.with_authenticator(move |attempt| {
        assert_eq!(attempt.endpoint, &endpoint());
        assert!(attempt.client_id.starts_with("gateway"), "{attempt:?}");
        Parrot {
            number: ways.made.fetch_add(1, Ordering::Relaxed),
            ways: ways.clone(),
            is_again: attempt.is_again,
        }
    });
    (connector.unwrap(), listener)
}

pub(crate) fn auth(code: ReasonCode, data: &'static str) -> Packet {
    auth_by("PARROT", code, data)
}

pub(crate) fn auth_by(method: &str, code: ReasonCode, data: &'static str) -> Packet {
    Packet::Auth(Auth {
        reason_code: code,
        properties: AuthProperties {
            authentication_method: Some(Utf8String::new(method.to_owned()).unwrap()),
            authentication_data: Some(Secret::new(data).unwrap()),
            ..AuthProperties::default()
        }
        .into(),
    })
}

/// A CONNACK that accepts, with these data.
pub(crate) fn accepted(proof: &'static str) -> ConnAck {
    let mut connack = ConnAck::accepted();
    connack.properties.authentication_method = Some(Utf8String::new("PARROT").unwrap());
    connack.properties.authentication_data = Some(Secret::new(proof).unwrap());
    connack
}

/// An open session of parrots.
pub(crate) async fn open(
    config: SessionConfig,
    ways: Ways,
) -> (Session, ScriptedServer, MemoryListener) {
    let (connector, mut listener) = parrots(config, &Arc::new(ways));
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept_with(accepted("proof")).await;
        server
    });
    (session.unwrap(), server, listener)
}

/// Accepts the next connection of a session that goes on.
pub(crate) async fn accept(listener: &mut MemoryListener) -> ScriptedServer {
    let mut server = listener.accept().await;
    let mut connack = accepted("proof");
    connack.session_present = true;
    server.accept_with(connack).await;
    server
}

#[test]
fn there_is_none_in_the_old_version() {
    let config = config().with_version(Version::V3);
    let (connector, _listener) = connector(config);
    let refused = connector.with_authenticator(|_| -> Parrot { unreachable!("it is not asked") });
    let report = refused.map(drop).unwrap_err().to_string();
    assert!(report.contains("session.version"), "{report}");
}
