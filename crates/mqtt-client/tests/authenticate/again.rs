//! Re-authentication on an open connection.

use std::{pin::pin, sync::Mutex};

use mqtt_client::{
    AuthenticationError, LostCause, QoS, ReasonCode, ReauthenticateError, RedirectPolicy,
    proto::{
        UsageError,
        packet::{Disconnect, Packet},
    },
};
use mqtt_testkit::ScriptedServer;

use super::*;
use crate::common::{now, publish, report, settle};

async fn expect_failure(mut server: ScriptedServer) {
    let disconnect = server.expect_disconnect().await;
    assert_eq!(disconnect.reason_code, ReasonCode::UNSPECIFIED_ERROR);
    server.expect_closed().await;
}

#[track_caller]
fn cause(error: ReauthenticateError) -> LostCause {
    let ReauthenticateError::Lost(lost) = &error else {
        panic!("{error:?}");
    };
    lost.cause.clone()
}

/// [MQTT5-4.12.1-1]
#[tokio::test(start_paused = true)]
async fn publishing_goes_on_meanwhile() {
    let (session, mut server, _listener) = open(config(), Ways::default()).await;
    for _ in 0..2 {
        let (again, ()) = tokio::join!(session.reauthenticate(), async {
            assert_eq!(server.recv().await, auth(AGAIN, "again"));
            for _ in 0..2 {
                let (published, ()) =
                    tokio::join!(session.publish(publish(QoS::AtLeastOnce)), async {
                        let id = server.expect_publish().await.packet_id;
                        server.puback(id.unwrap()).await;
                    });
                published.unwrap();
                server.send(auth(CONTINUE, "who")).await;
                assert_eq!(server.recv().await, auth(CONTINUE, "who!"));
            }
            server.send(auth(SUCCESS, "proof")).await;
        });
        again.unwrap();
    }
    server.expect_silence(SECOND * 600).await;
    assert!(!session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn the_server_may_answer_with_a_disconnect() {
    for rounds in 0..2 {
        let (session, mut server, _listener) = open(config(), Ways::default()).await;
        let (again, ()) = tokio::join!(session.reauthenticate(), async {
            server.recv().await;
            for _ in 0..rounds {
                server.send(auth(CONTINUE, "who")).await;
                server.recv().await;
            }
            let refusal = Disconnect::new(ReasonCode::NOT_AUTHORIZED);
            server.send(Packet::Disconnect(refusal)).await;
        });
        let LostCause::Disconnected(disconnect) = cause(again.unwrap_err()) else {
            panic!("the server has said why");
        };
        assert_eq!(disconnect.reason_code, ReasonCode::NOT_AUTHORIZED);
        let lost = session.closed().await;
        assert!(matches!(lost.cause, LostCause::Disconnected(_)), "{lost:?}");
    }
}

/// [MQTT5-4.12.1-2]
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_prove_itself_is_left() {
    let (session, mut server, _listener) = open(config(), Ways::default()).await;
    let (again, ()) = tokio::join!(session.reauthenticate(), async {
        server.recv().await;
        server.send(auth(SUCCESS, "a wrong one")).await;
        expect_failure(server).await;
    });
    let untrusted = |cause| {
        matches!(
            cause,
            LostCause::Authentication(AuthenticationError::Untrusted(_))
        )
    };
    assert!(untrusted(cause(again.unwrap_err())));
    let lost = session.closed().await;
    assert!(!lost.is_transient());
    assert!(untrusted(lost.cause.clone()));
    let after = session.reauthenticate().await.unwrap_err();
    assert!(report(&after).ends_with("no proof"), "{}", report(&after));
}

#[tokio::test(start_paused = true)]
async fn a_server_cannot_ask_for_ever() {
    let (session, mut server, _listener) = open(config(), Ways::default()).await;
    let (again, ()) = tokio::join!(session.reauthenticate(), async {
        server.recv().await;
        for _ in 0..16 {
            server.send(auth(CONTINUE, "who")).await;
            server.recv().await;
        }
        server.send(auth(CONTINUE, "who")).await;
        expect_failure(server).await;
    });
    let error = again.unwrap_err();
    assert!(
        report(&error).contains("more than 16 times"),
        "{}",
        report(&error)
    );
}

/// Another connection can help, and is authenticated anew.
#[tokio::test(start_paused = true)]
async fn whoever_hangs_costs_the_connection() {
    let late = |hangs: Option<u32>| Ways {
        hangs_answering: hangs,
        ..Ways::default()
    };
    for hangs in [None, Some(1)] {
        let (session, mut server, mut listener) = open(config(), late(hangs)).await;
        let start = tokio::time::Instant::now();
        let (again, ()) = tokio::join!(session.reauthenticate(), async {
            server.recv().await;
            if hangs.is_some() {
                server.send(auth(CONTINUE, "who")).await;
            }
            expect_failure(server).await;
        });
        assert_eq!(start.elapsed(), SECOND * 5);
        assert!(matches!(
            cause(again.unwrap_err()),
            LostCause::Authentication(AuthenticationError::TimedOut { .. })
        ));
        let mut server = accept(&mut listener).await;
        settle().await;
        check_again(&session, &mut server).await;
    }
}

/// That the session re-authenticates without a hitch.
async fn check_again(session: &Session, server: &mut ScriptedServer) {
    let (again, ()) = tokio::join!(session.reauthenticate(), async {
        assert_eq!(server.recv().await, auth(AGAIN, "again"));
        server.send(auth(SUCCESS, "proof")).await;
    });
    again.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time() {
    let (session, mut server, _listener) = open(config(), Ways::default()).await;
    let mut first = pin!(session.reauthenticate());
    assert!(now(&mut first).await.is_none());
    for _ in 0..2 {
        let second = session.reauthenticate().await;
        assert!(matches!(second, Err(ReauthenticateError::InProgress)));
        settle().await;
    }
    server.recv().await;
    server.send(auth(SUCCESS, "proof")).await;
    first.await.unwrap();
    check_again(&session, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn one_whose_caller_has_gone_comes_to_its_end() {
    for polls in 0..5 {
        let (session, mut server, _listener) = open(config(), Ways::default()).await;
        let serving = tokio::spawn(async move {
            for (asked, answer) in [
                ("again", auth(CONTINUE, "who")),
                ("who!", auth(SUCCESS, "proof")),
            ] {
                let code = if asked == "again" { AGAIN } else { CONTINUE };
                assert_eq!(server.recv().await, auth(code, asked));
                tokio::time::sleep(SECOND / 100).await;
                server.send(answer).await;
            }
            server
        });
        {
            let mut again = pin!(session.reauthenticate());
            for _ in 0..polls {
                assert!(now(&mut again).await.is_none());
                settle().await;
            }
        }
        if polls == 0 {
            settle().await;
            assert!(!serving.is_finished());
            serving.abort();
            continue;
        }
        let mut server = serving.await.unwrap();
        settle().await;
        check_again(&session, &mut server).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_begin_costs_nothing() {
    let methods = |number| if number == 2 { "OWL" } else { "PARROT" };
    let ways = Ways {
        hangs_beginning: Some(1),
        method_of: Some(methods),
        ..Ways::default()
    };
    let (session, mut server, _listener) = open(config(), ways).await;
    let hung = session.reauthenticate().await.unwrap_err();
    let timed_out = |error: &_| matches!(error, AuthenticationError::TimedOut { .. });
    assert!(matches!(&hung, ReauthenticateError::NotBegun(error) if timed_out(error)));
    let other = session.reauthenticate().await;
    let wanted = UsageError::OtherAuthenticationMethod;
    assert!(matches!(other, Err(ReauthenticateError::Usage(error)) if error == wanted));
    assert!(now(server.next()).await.is_none(), "nothing was sent");
    check_again(&session, &mut server).await;
}

/// [MQTT5-4.12.0-7]
#[tokio::test(start_paused = true)]
async fn there_must_be_a_method_and_a_connection() {
    let (plain, _server) = common::open(config()).await;
    let error = plain.reauthenticate().await;
    let wanted = UsageError::NoAuthenticationMethod;
    assert!(matches!(error, Err(ReauthenticateError::Usage(error)) if error == wanted));

    let (session, server, mut listener) = open(config(), Ways::default()).await;
    drop(server);
    settle().await;
    // Nobody is asked for what cannot be sent.
    let error = now(session.reauthenticate()).await.unwrap();
    let wanted = UsageError::NotConnected;
    assert!(matches!(error, Err(ReauthenticateError::Usage(error)) if error == wanted));
    let mut server = accept(&mut listener).await;
    settle().await;
    check_again(&session, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_ends_it() {
    for hangs in [None, Some(1)] {
        let ways = Ways {
            hangs_answering: hangs,
            ..Ways::default()
        };
        let (session, mut server, mut listener) = open(config(), ways).await;
        let mut again = pin!(session.reauthenticate());
        assert!(now(&mut again).await.is_none());
        server.recv().await;
        if hangs.is_some() {
            // It is seen when the authenticator has had its time.
            server.send(auth(CONTINUE, "who")).await;
            settle().await;
        }
        drop(server);
        let mut server = accept(&mut listener).await;
        let lost = cause(again.await.unwrap_err());
        assert!(matches!(lost, LostCause::ClosedByServer), "{lost:?}");
        settle().await;
        check_again(&session, &mut server).await;
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_ends_it() {
    let (session, mut server, _listener) = open(config(), Ways::default()).await;
    let mut again = pin!(session.reauthenticate());
    assert!(now(&mut again).await.is_none());
    server.recv().await;
    session.disconnect().await.unwrap();
    let lost = cause(again.await.unwrap_err());
    assert!(matches!(lost, LostCause::Closed), "{lost:?}");
    let after = cause(session.reauthenticate().await.unwrap_err());
    assert!(matches!(after, LostCause::Closed), "{after:?}");
    assert_eq!(server.expect_disconnect().await.reason_code, SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn an_authenticator_that_panics_costs_the_connection() {
    let ways = Ways {
        panics: Some(1),
        ..Ways::default()
    };
    let (session, mut server, mut listener) = open(config(), ways).await;
    let (again, ()) = tokio::join!(session.reauthenticate(), async {
        server.recv().await;
        server.send(auth(CONTINUE, "who")).await;
        expect_failure(server).await;
    });
    assert!(matches!(
        cause(again.unwrap_err()),
        LostCause::Authentication(AuthenticationError::Abandoned)
    ));
    let mut server = accept(&mut listener).await;
    settle().await;
    check_again(&session, &mut server).await;
}

/// [MQTT5 4.12.1]
#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_unasked_breaks_a_rule() {
    for code in [SUCCESS, CONTINUE, AGAIN] {
        // It would be connected to again for ever, as what servers do wrong may be mended.
        let config = config().with_reconnect(None);
        let (session, mut server, _listener) = open(config, Ways::default()).await;
        server.send(auth(code, "proof")).await;
        let disconnect = server.expect_disconnect().await;
        assert_eq!(disconnect.reason_code, ReasonCode::PROTOCOL_ERROR);
        let lost = session.closed().await;
        assert!(matches!(lost.cause, LostCause::Protocol(_)), "{lost:?}");
    }
}

/// What is proved may be made out to one server.
#[tokio::test(start_paused = true)]
async fn the_authenticator_is_told_which_server_it_is() {
    let (connector, mut listener) = connector(config());
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = told.clone();
    let connector = connector
        .with_authenticator(move |attempt| {
            record.lock().unwrap().push(attempt.endpoint.to_string());
            Parrot {
                ways: Arc::default(),
                number: 0,
                is_again: attempt.is_again,
            }
        })
        .unwrap()
        .with_redirects(RedirectPolicy::same_host());
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut connack = ConnAck::refused(ReasonCode::USE_ANOTHER_SERVER);
        connack.properties.server_reference = Some("server.test:99".try_into().unwrap());
        listener.accept().await.accept_with(connack).await;
        let mut server = listener.accept().await;
        server.accept_with(accepted("proof")).await;
        server
    });
    let session = session.unwrap();
    let (again, ()) = tokio::join!(session.reauthenticate(), async {
        assert_eq!(server.recv().await, auth(AGAIN, "again"));
        server.send(auth(SUCCESS, "proof")).await;
    });
    again.unwrap();
    let (home, there) = ("mqtt://server.test:1883", "mqtt://server.test:99");
    assert_eq!(*told.lock().unwrap(), [home, there, there]);
}

/// A host that is not told how the session authenticates is no reason to ask for what it would be told.
#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_what_another_host_is_not_told() {
    let ways = Arc::new(Ways::default());
    let (connector, mut listener) = parrots(config(), &ways);
    let connector = connector.with_redirects(RedirectPolicy::new(|_| true));
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept_with(accepted("proof")).await;
        server
    });
    let session = session.unwrap();
    let mut goodbye = Disconnect::new(ReasonCode::USE_ANOTHER_SERVER);
    goodbye.properties.server_reference = Some("elsewhere".try_into().unwrap());
    server.send(Packet::Disconnect(goodbye)).await;
    let mut server = listener.accept().await;
    let connect = server.accept_with(ConnAck::resumed()).await;
    let properties = &connect.properties;
    assert_eq!(properties.authentication_method, None);
    assert_eq!(properties.authentication_data, None);
    settle().await;
    let error = session.reauthenticate().await.unwrap_err();
    let report = report(&error);
    assert!(report.contains("method"), "{report}");
    assert_eq!(ways.made.load(Ordering::Relaxed), 1);
    server.expect_silence(SECOND).await;
    // At home it authenticates as before.
    drop(server);
    let mut server = accept(&mut listener).await;
    settle().await;
    check_again(&session, &mut server).await;
}
