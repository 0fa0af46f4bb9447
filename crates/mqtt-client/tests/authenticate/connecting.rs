//! From CONNECT to CONNACK.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mqtt_client::{
    AuthenticationError, ConnectCause, ConnectError, LostCause, PooledSessions, QoS, ReasonCode,
    SessionConfig, Subscribe,
    pool::{Pool, PoolConfig},
    proto::packet::{ConnAck, Packet},
};
use mqtt_testkit::ScriptedServer;

use super::*;
use crate::common::{now, publish, report, settle};

fn without_retries() -> SessionConfig {
    config().with_reconnect(None)
}

/// The error of a session whose server does `script` after CONNECT.
async fn refused_by<F>(ways: Ways, script: impl FnOnce(ScriptedServer) -> F) -> ConnectError
where
    F: Future<Output = ()>,
{
    let (connector, mut listener) = parrots(without_retries(), &Arc::new(ways));
    let (outcome, ()) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.expect_connect().await;
        script(server).await;
    });
    outcome.unwrap_err()
}

async fn expect_goodbye(mut server: ScriptedServer) {
    let disconnect = server.expect_disconnect().await;
    assert_eq!(disconnect.reason_code, ReasonCode::UNSPECIFIED_ERROR);
    server.expect_closed().await;
}

/// [MQTT5-4.12.0-3] [MQTT5-4.12.0-5] [MQTT5-3.1.2-30]
#[tokio::test(start_paused = true)]
async fn client_and_server_take_turns_until_connack() {
    let ways = Arc::new(Ways::default());
    let (connector, mut listener) = parrots(config(), &ways);
    let (session, ()) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        let connect = server.expect_connect().await;
        let properties = &connect.properties;
        assert_eq!(properties.authentication_method.as_deref(), Some("PARROT"));
        let data = properties.authentication_data.as_ref().unwrap();
        assert_eq!(data.expose(), b"hello");
        for _ in 0..16 {
            server.send(auth(CONTINUE, "who")).await;
            assert_eq!(server.recv().await, auth(CONTINUE, "who!"));
        }
        server.expect_silence(SECOND).await;
        server.send(Packet::ConnAck(accepted("proof"))).await;
    });
    assert!(!session.unwrap().is_closed());
    assert_eq!(ways.made.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_cannot_ask_for_ever() {
    let error = refused_by(Ways::default(), |mut server| async move {
        for _ in 0..16 {
            server.send(auth(CONTINUE, "who")).await;
            assert_eq!(server.recv().await, auth(CONTINUE, "who!"));
        }
        server.send(auth(CONTINUE, "who")).await;
        expect_goodbye(server).await;
    })
    .await;
    assert!(!error.is_transient());
    assert!(
        report(&error).contains("more than 16 times"),
        "{}",
        report(&error)
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_prove_itself_is_left() {
    for connack in [accepted("a wrong one"), {
        let mut connack = accepted("");
        connack.properties.authentication_data = None;
        connack
    }] {
        let error = refused_by(Ways::default(), |mut server| async move {
            server.send(Packet::ConnAck(connack)).await;
            expect_goodbye(server).await;
        })
        .await;
        let untrusted = AuthenticationError::untrusted(io::Error::other("no proof"));
        assert!(!untrusted.is_transient() && !error.is_transient());
        let report = report(&error);
        let words = "enhanced authentication failed: the server is not trusted: no proof";
        assert!(report.ends_with(words), "{report}");
    }
}

/// Else whoever takes the server's address would be told what waits to be sent again.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_to_a_server_that_does_not_prove_itself() {
    let (session, mut server, mut listener) = open(config(), Ways::default()).await;
    let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut in_flight).await.is_none());
    server.expect_publish().await;
    drop(server);
    let mut impostor = listener.accept().await;
    let mut connack = accepted("a wrong one");
    connack.session_present = true;
    impostor.accept_with(connack).await;
    expect_goodbye(impostor).await;
    let lost = session.closed().await;
    let LostCause::NotReopened(error) = &lost.cause else {
        panic!("{lost:?}");
    };
    assert!(
        matches!(error.cause, ConnectCause::Authentication(_)),
        "{error:?}"
    );
    in_flight.await.unwrap_err();
}

/// [MQTT5-4.12.0-5] [MQTT5-4.12.0-6]
#[tokio::test(start_paused = true)]
async fn a_server_with_another_method_breaks_a_rule() {
    let mut other = accepted("proof");
    other.properties.authentication_method = Some(Utf8String::new("OWL").unwrap());
    for packet in [auth_by("OWL", CONTINUE, "who"), Packet::ConnAck(other)] {
        let error = refused_by(Ways::default(), |mut server| async move {
            server.send(packet).await;
            let disconnect = server.expect_disconnect().await;
            assert_eq!(disconnect.reason_code, ReasonCode::PROTOCOL_ERROR);
        })
        .await;
        assert!(
            report(&error).contains("MQTT5-4.12.0-5"),
            "{}",
            report(&error)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_may_refuse_or_go_away_at_any_time() {
    let refused = ReasonCode::NOT_AUTHORIZED;
    for rounds in 0..2 {
        for goes_away in [false, true] {
            let error = refused_by(Ways::default(), |mut server| async move {
                for _ in 0..rounds {
                    server.send(auth(CONTINUE, "who")).await;
                    server.recv().await;
                }
                if !goes_away {
                    server
                        .send(Packet::ConnAck(ConnAck::refused(refused)))
                        .await;
                }
            })
            .await;
            if goes_away {
                assert!(matches!(error.cause, ConnectCause::Closed), "{error:?}");
            } else {
                assert!(
                    report(&error).contains(refused.name()),
                    "{}",
                    report(&error)
                );
            }
            assert_eq!(error.is_transient(), goes_away);
        }
    }
}

/// [MQTT5 3.2]
#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_given_up() {
    let start = tokio::time::Instant::now();
    let error = refused_by(Ways::default(), |mut server| async move {
        tokio::time::sleep(SECOND * 3).await;
        server.send(auth(CONTINUE, "who")).await;
        server.recv().await;
        server.expect_closed().await;
    })
    .await;
    assert!(
        report(&error).contains("no CONNACK within 5s"),
        "{}",
        report(&error)
    );
    assert!(error.is_transient());
    assert_eq!(start.elapsed(), SECOND * 5);
}

#[tokio::test(start_paused = true)]
async fn an_authenticator_that_hangs_is_given_up() {
    let check = |error: &ConnectError| {
        let cause = &error.cause;
        let ConnectCause::Authentication(AuthenticationError::TimedOut { timeout }) = cause else {
            panic!("{error:?}");
        };
        assert_eq!(*timeout, SECOND * 5);
        assert!(error.is_transient());
    };
    let answering = Ways {
        hangs_answering: Some(0),
        ..Ways::default()
    };
    check(
        &refused_by(answering, |mut server| async move {
            server.send(auth(CONTINUE, "who")).await;
            expect_goodbye(server).await;
        })
        .await,
    );
    let finishing = Ways {
        hangs_finishing: Some(0),
        ..Ways::default()
    };
    check(
        &refused_by(finishing, |mut server| async move {
            server.send(Packet::ConnAck(accepted("proof"))).await;
            expect_goodbye(server).await;
        })
        .await,
    );
    let beginning = Ways {
        hangs_beginning: Some(0),
        ..Ways::default()
    };
    let (connector, mut listener) = parrots(without_retries(), &Arc::new(beginning));
    check(&connector.connect(endpoint()).await.unwrap_err());
    assert!(
        now(listener.accept()).await.is_none(),
        "nothing was dialled"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_asked_for_again_and_costs_no_connection() {
    let ways = Arc::new(Ways {
        unavailable: 2.into(),
        ..Ways::default()
    });
    let (connector, mut listener) = parrots(config(), &ways);
    let start = tokio::time::Instant::now();
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept_with(accepted("proof")).await;
        server
    });
    session.unwrap();
    assert_eq!(start.elapsed(), SECOND * 3, "after 1 s, and 2 s more");
    assert_eq!(ways.made.load(Ordering::Relaxed), 3);
    assert!(now(listener.accept()).await.is_none());
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn each_connection_is_authenticated() {
    let ways = Arc::new(Ways::default());
    let (connector, mut listener) = parrots(config(), &ways);
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept_with(accepted("proof")).await;
        server
    });
    drop(server);
    let mut server = listener.accept().await;
    let connect = server.expect_connect().await;
    let properties = &connect.properties;
    assert_eq!(properties.authentication_method.as_deref(), Some("PARROT"));
    let data = properties.authentication_data.as_ref().unwrap();
    assert_eq!(data.expose(), b"hello");
    server.send(auth(CONTINUE, "who")).await;
    assert_eq!(server.recv().await, auth(CONTINUE, "who!"));
    let mut connack = accepted("proof");
    connack.session_present = true;
    server.send(Packet::ConnAck(connack)).await;
    settle().await;
    assert_eq!(ways.made.load(Ordering::Relaxed), 2);
    assert!(!session.unwrap().is_closed());
}

#[tokio::test(start_paused = true)]
async fn each_session_of_a_pool_is_authenticated() {
    let ways = Arc::new(Ways::default());
    let (connector, mut listener) = parrots(config(), &ways);
    let connect = PooledSessions::new(connector, endpoint());
    let pool = Pool::new(connect, PoolConfig::default()).unwrap();
    let serving = tokio::spawn(async move {
        let mut servers = Vec::new();
        for _ in 0..3 {
            let mut server = listener.accept().await;
            let connect = server.accept_with(accepted("proof")).await;
            assert!(connect.properties.authentication_data.is_some());
            servers.push(server);
        }
        servers
    });
    let (a, b, c) = tokio::join!(pool.get(), pool.get(), pool.get());
    let leases = [a.unwrap(), b.unwrap(), c.unwrap()];
    assert_eq!(ways.made.load(Ordering::Relaxed), 3);
    serving.await.unwrap();
    drop(leases);
}

#[tokio::test(start_paused = true)]
async fn connecting_may_be_given_up_anywhere() {
    for polls in 0..8 {
        let (connector, mut listener) = parrots(config(), &Arc::new(Ways::default()));
        let serving = tokio::spawn(async move {
            let mut server = listener.accept().await;
            while let Some(packet) = server.next().await {
                if matches!(packet, Packet::Disconnect(_)) {
                    return;
                }
                server.send(auth(CONTINUE, "who")).await;
            }
        });
        {
            let mut connecting = pin!(connector.connect(endpoint()));
            for _ in 0..polls {
                assert!(now(&mut connecting).await.is_none());
                settle().await;
            }
        }
        drop(connector);
        if polls == 0 {
            serving.abort();
        } else {
            // Whatever was opened is closed again.
            tokio::time::timeout(Duration::from_millis(10), serving)
                .await
                .unwrap()
                .unwrap();
        }
    }
}

/// The server may have begun a session with its CONNACK, and had nothing in it.
#[tokio::test(start_paused = true)]
async fn a_connack_that_was_not_taken_leaves_doubt_about_subscriptions() {
    let ways = Ways {
        hangs_finishing: Some(1),
        ..Ways::default()
    };
    let (session, mut server, mut listener) = open(config(), ways).await;
    let (subscribed, _) = tokio::join!(
        session.subscribe(Subscribe::new("a").unwrap()),
        server.grant()
    );
    drop(server);
    let mut server = accept(&mut listener).await;
    let disconnect = server.expect_disconnect().await;
    assert_eq!(disconnect.reason_code, ReasonCode::UNSPECIFIED_ERROR);
    let mut server = accept(&mut listener).await;
    server.grant().await;
    subscribed.unwrap();
}
