//! The gate before a server, and what is asked for before it is dialled.

use std::{
    io,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use mqtt_client::{
    AuthenticationError, Authenticator, Credentials, CredentialsRequest, ReasonCode, Secret,
    Version,
    pool::{BackoffConfig, DialBudget, DialGate},
    proto::{
        Utf8String,
        packet::{ConnAck, Disconnect, Packet},
    },
};
use tokio::time::{sleep, timeout};

use crate::{
    SECOND,
    common::{endpoint, settle},
    config, open, recorded,
};

/// A gate for so many dials at once, and pauses of a minute at most.
fn gate(at_once: u32) -> DialGate {
    let backoff = BackoffConfig::default()
        .with_base(SECOND * 60)
        .with_max(SECOND * 60);
    let budget = DialBudget::new(NonZeroU32::new(at_once).unwrap());
    DialGate::new(backoff, budget).unwrap()
}

/// An authenticator that cannot begin, or never does.
struct Stuck {
    hangs: bool,
}

impl Authenticator for Stuck {
    fn method(&self) -> Utf8String {
        Utf8String::new("STUCK").unwrap()
    }

    async fn begin(&mut self) -> Result<Option<Secret>, AuthenticationError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let away = io::Error::other("the token service is away");
        Err(AuthenticationError::unavailable(away))
    }

    async fn answer(&mut self, _: Option<&[u8]>) -> Result<Option<Secret>, AuthenticationError> {
        unreachable!("it does not begin")
    }

    async fn finish(&mut self, _: Option<&[u8]>) -> Result<(), AuthenticationError> {
        unreachable!("it does not begin")
    }
}

#[tokio::test(start_paused = true)]
async fn an_authenticator_that_hangs_has_no_turn() {
    let (connector, mut listener, _) = recorded(config(Version::V5));
    let connector = connector.with_dial_gate(gate(1));
    let stuck = connector.clone();
    let stuck = stuck.with_authenticator(|_| Stuck { hangs: true }).unwrap();
    let hanging = tokio::spawn(async move { stuck.connect(endpoint()).await });
    settle().await;
    let opened = timeout(SECOND, open(&connector, &mut listener)).await;
    opened.unwrap();
    hanging.abort();
}

/// A server that nobody has dialled has not answered.
#[tokio::test(start_paused = true)]
async fn an_authenticator_that_cannot_begin_says_nothing_of_the_server() {
    let (connector, mut listener, dialled) = recorded(config(Version::V5).with_reconnect(None));
    let connector = connector.with_dial_gate(gate(8));
    let (failed, ()) = tokio::join!(connector.connect(endpoint()), async {
        drop(listener.accept().await);
    });
    failed.unwrap_err();
    sleep(SECOND * 61).await;
    let stuck = connector.clone();
    let stuck = stuck
        .with_authenticator(|_| Stuck { hangs: false })
        .unwrap();
    stuck.connect(endpoint()).await.unwrap_err();
    let before = dialled.endpoints().len();
    let _waiting: Vec<_> = (0..4)
        .map(|_| {
            let connector = connector.clone();
            tokio::spawn(async move { connector.connect(endpoint()).await })
        })
        .collect();
    settle().await;
    assert_eq!(dialled.endpoints().len() - before, 1, "a probe");
}

/// Who waits long for its turn does not come with what was good before.
#[tokio::test(start_paused = true)]
async fn credentials_are_asked_for_again_after_a_long_wait() {
    let config = config(Version::V5).with_connack_timeout(SECOND * 60);
    let (connector, mut listener, _) = recorded(config);
    let connector = connector.with_dial_gate(gate(1));
    let asked = Arc::new(AtomicU32::new(0));
    let counter = asked.clone();
    let source = move |_: &CredentialsRequest<'_>| {
        let token = counter.fetch_add(1, Ordering::Relaxed);
        async move { Credentials::new("gateway", format!("token {token}")) }
    };
    let with_tokens = connector.clone().with_credentials(source);
    for (wait, token) in [(SECOND, "token 0"), (SECOND * 30, "token 2")] {
        // One whose server is slow has the only turn.
        let first = connector.clone();
        let first = tokio::spawn(async move { first.connect(endpoint()).await });
        let mut slow = listener.accept().await;
        slow.expect_connect().await;
        let second = with_tokens.clone();
        let second = tokio::spawn(async move { second.connect(endpoint()).await });
        sleep(wait).await;
        first.abort();
        let mut server = listener.accept().await;
        let password = server.accept().await.password.unwrap();
        assert_eq!(password.expose(), token.as_bytes());
        second.await.unwrap().unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

/// However a session ends, and in whatever state, the gate does not count it any more.
#[tokio::test(start_paused = true)]
async fn what_has_ended_is_not_counted() {
    let (connector, mut listener, _) = recorded(config(Version::V5));
    let gate = gate(1);
    let connector = connector.with_dial_gate(gate.clone());
    for end in 0..7 {
        let (session, mut server) = open(&connector, &mut listener).await;
        assert_eq!(gate.open(), 1, "{end}");
        match end {
            0 => drop(session),
            1 => session.disconnect().await.unwrap(),
            2 => {
                let goodbye = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
                server.send(Packet::Disconnect(goodbye)).await;
                session.closed().await;
            }
            _ => {
                session.cut();
                settle().await;
                assert_eq!(gate.open(), 0, "{end}");
                // Where it waits, where it dials, after another cut, and where it is open again.
                if end > 3 {
                    session.reconnect();
                    server = listener.accept().await;
                    server.expect_connect().await;
                    if end == 5 {
                        session.cut();
                        server.expect_closed().await;
                    } else if end == 6 {
                        server.send(Packet::ConnAck(ConnAck::resumed())).await;
                        settle().await;
                        assert_eq!(gate.open(), 1, "{end}");
                    }
                }
                drop(session);
            }
        }
        settle().await;
        assert_eq!(gate.open(), 0, "{end}");
        let metrics = tokio::runtime::Handle::current().metrics();
        assert_eq!(metrics.num_alive_tasks(), 0, "{end}");
    }
}
