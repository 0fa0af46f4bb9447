//! SCRAM-SHA-256 with a server that keeps to RFC 5802, or does not.

use std::{collections::HashSet, pin::pin};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use mqtt_client::{
    ConnectCause, ConnectError, LostCause, QoS, ReauthenticateError, Scram, ScramError,
};
use sha2::{Digest, Sha256};

use super::*;
use crate::common::{now, publish, report, settle};

const METHOD: &str = "SCRAM-SHA-256";
const SALT: &[u8] = b"sixteen bytes...";
const ITERATIONS: u32 = 4_096;

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn packet(code: ReasonCode, data: String) -> Packet {
    Packet::Auth(Auth {
        reason_code: code,
        properties: AuthProperties {
            authentication_method: Some(Utf8String::new(METHOD).unwrap()),
            authentication_data: Some(Secret::new(data).unwrap()),
            ..AuthProperties::default()
        }
        .into(),
    })
}

fn text(data: Option<&Secret>) -> String {
    String::from_utf8(data.unwrap().expose().to_vec()).unwrap()
}

/// What a server of SCRAM keeps of an exchange.
struct Scrammer {
    client_first: String,
    server_first: String,
}

impl Scrammer {
    /// Goes on from the client's first message; `tamper` changes the answer.
    fn challenge(first: &str, tamper: impl Fn(String) -> String) -> Self {
        let client_first = first.strip_prefix("n,,").unwrap().to_owned();
        let (user_name, nonce) = client_first.split_once(",r=").unwrap();
        assert_eq!(user_name, "n=the gateway=2C 1");
        assert!(nonce.len() >= 24, "{nonce}");
        let server_first = tamper(format!(
            "r={nonce}more,s={},i={ITERATIONS}",
            STANDARD.encode(SALT)
        ));
        Self {
            client_first,
            server_first,
        }
    }

    /// Whether the client's last message proves that it knows the password, and our signature.
    fn verify(&self, last: &str) -> (bool, String) {
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(b"correct horse", SALT, ITERATIONS);
        let (without_proof, proof) = last.split_once(",p=").unwrap();
        let nonce = self.server_first.split(',').next().unwrap();
        assert_eq!(without_proof, format!("c=biws,{nonce}"));
        let exchanged = format!(
            "{},{},{without_proof}",
            self.client_first, self.server_first
        );
        let stored = Sha256::digest(hmac(&salted, b"Client Key"));
        let signature = hmac(&stored, exchanged.as_bytes());
        let proof = STANDARD.decode(proof).unwrap();
        let client: Vec<u8> = proof.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let server = hmac(&hmac(&salted, b"Server Key"), exchanged.as_bytes());
        let is_right = Sha256::digest(&client) == stored;
        (is_right, format!("v={}", STANDARD.encode(server)))
    }
}

fn connack(data: String) -> Packet {
    let mut connack = accepted("");
    connack.properties.authentication_method = Some(Utf8String::new(METHOD).unwrap());
    connack.properties.authentication_data = Some(Secret::new(data).unwrap());
    Packet::ConnAck(connack)
}

async fn answered(server: &mut ScriptedServer) -> String {
    let packet = server.recv().await;
    let Packet::Auth(auth) = packet else {
        panic!("expected AUTH, got {packet:?}");
    };
    assert_eq!(auth.reason_code, CONTINUE);
    text(auth.properties.authentication_data.as_ref())
}

fn scrammers(
    config: SessionConfig,
    password: &str,
) -> (SessionConnector<MemoryConnector>, MemoryListener) {
    let (connector, listener) = connector(config);
    let scram = Scram::new("the gateway, 1", password).unwrap();
    let connector = connector.with_authenticator(move |_| scram.authenticator());
    (connector.unwrap(), listener)
}

/// CONNECT to the client's last message.
async fn prove(server: &mut ScriptedServer) -> (bool, String) {
    let connect = server.expect_connect().await;
    let method = &connect.properties.authentication_method;
    assert_eq!(method.as_deref(), Some(METHOD));
    let first = text(connect.properties.authentication_data.as_ref());
    let scrammer = Scrammer::challenge(&first, |it| it);
    server
        .send(packet(CONTINUE, scrammer.server_first.clone()))
        .await;
    scrammer.verify(&answered(server).await)
}

async fn open() -> (Session, ScriptedServer, MemoryListener) {
    let (connector, mut listener) = scrammers(config(), "correct horse");
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        let (is_right, signature) = prove(&mut server).await;
        assert!(is_right);
        server.send(connack(signature)).await;
        server
    });
    (session.unwrap(), server, listener)
}

#[track_caller]
fn scram_error(error: &AuthenticationError) -> ScramError {
    let AuthenticationError::Untrusted(source) = error else {
        panic!("{error:?}");
    };
    assert!(!error.is_transient());
    source.downcast_ref::<ScramError>().unwrap().clone()
}

/// What a client says to a server that does `script` after CONNECT.
async fn refuses<F>(script: impl FnOnce(ScriptedServer, String) -> F) -> ScramError
where
    F: Future<Output = ScriptedServer>,
{
    let config = config().with_reconnect(None);
    let (connector, mut listener) = scrammers(config, "correct horse");
    let (outcome, ()) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        let connect = server.expect_connect().await;
        let first = text(connect.properties.authentication_data.as_ref());
        let mut server = script(server, first).await;
        let disconnect = server.expect_disconnect().await;
        assert_eq!(disconnect.reason_code, ReasonCode::UNSPECIFIED_ERROR);
        server.expect_closed().await;
    });
    let ConnectError { cause, .. } = outcome.unwrap_err();
    let ConnectCause::Authentication(error) = cause else {
        panic!("{cause:?}");
    };
    scram_error(&error)
}

#[tokio::test(start_paused = true)]
async fn both_sides_prove_that_they_know_the_password() {
    let (session, server, mut listener) = open().await;
    // And again, with another nonce, on the next connection.
    drop(server);
    let mut server = listener.accept().await;
    let (is_right, signature) = prove(&mut server).await;
    assert!(is_right);
    server.send(connack(signature)).await;
    settle().await;
    assert!(!session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_seen_by_the_server() {
    let (connector, mut listener) = scrammers(config(), "wrong horse");
    let (outcome, ()) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        let (is_right, _) = prove(&mut server).await;
        assert!(!is_right);
        let refusal = ConnAck::refused(ReasonCode::NOT_AUTHORIZED);
        server.send(Packet::ConnAck(refusal)).await;
    });
    let error = outcome.unwrap_err();
    assert!(matches!(error.cause, ConnectCause::Refused(_)), "{error:?}");
    assert!(!error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_know_the_password_is_left() {
    for wrong in ["v=AAAA", "e=other-error", "", "v"] {
        let refused = refuses(|mut server, first| async move {
            let scrammer = Scrammer::challenge(&first, |it| it);
            server
                .send(packet(CONTINUE, scrammer.server_first.clone()))
                .await;
            answered(&mut server).await;
            server.send(connack(wrong.to_owned())).await;
            server
        })
        .await;
        let expected = match wrong {
            "v=AAAA" => ScramError::ServerSignature,
            "e=other-error" => ScramError::Refused("other-error".to_owned()),
            _ => ScramError::Malformed,
        };
        assert_eq!(refused, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_nothing_or_once_more_is_left() {
    let refused = refuses(|mut server, _| async move {
        server.send(connack("v=AAAA".to_owned())).await;
        server
    })
    .await;
    assert_eq!(refused, ScramError::OutOfTurn);
    let refused = refuses(|mut server, first| async move {
        let scrammer = Scrammer::challenge(&first, |it| it);
        let challenge = packet(CONTINUE, scrammer.server_first);
        server.send(challenge.clone()).await;
        answered(&mut server).await;
        server.send(challenge).await;
        server
    })
    .await;
    assert_eq!(refused, ScramError::OutOfTurn);
}

#[tokio::test(start_paused = true)]
async fn tampering_is_noticed() {
    type Tamper = fn(String) -> String;
    let cases: [(Tamper, ScramError); 5] = [
        (|it| it.replacen("r=", "r=x", 1), ScramError::Nonce),
        (|it| it.replace("more,", ","), ScramError::Nonce),
        (
            |it| it.replace("i=4096", "i=4095"),
            ScramError::Iterations { iterations: 4_095 },
        ),
        (
            |it| it.replace("i=4096", "i=4000000000"),
            ScramError::Iterations {
                iterations: 4_000_000_000,
            },
        ),
        (|it| format!("m=x,{it}"), ScramError::Malformed),
    ];
    for (tamper, expected) in cases {
        let refused = refuses(|mut server, first| async move {
            let scrammer = Scrammer::challenge(&first, tamper);
            server.send(packet(CONTINUE, scrammer.server_first)).await;
            server
        })
        .await;
        assert_eq!(refused, expected);
    }
}

/// The salt and all else that was said are part of what is signed.
#[tokio::test(start_paused = true)]
async fn what_was_changed_on_the_way_does_not_match() {
    let refused = refuses(|mut server, first| async move {
        let mut scrammer = Scrammer::challenge(&first, |it| it);
        let original = scrammer.server_first.clone();
        scrammer.server_first.push_str(",x=added on the way");
        let changed = packet(CONTINUE, scrammer.server_first.clone());
        server.send(changed).await;
        let last = answered(&mut server).await;
        scrammer.server_first = original;
        let (is_right, signature) = scrammer.verify(&last);
        assert!(!is_right);
        server.send(connack(signature)).await;
        server
    })
    .await;
    assert_eq!(refused, ScramError::ServerSignature);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_authenticated_again_while_publishing() {
    let (session, mut server, _listener) = open().await;
    for knows in [true, false] {
        let (again, ()) = tokio::join!(session.reauthenticate(), async {
            let Packet::Auth(auth) = server.recv().await else {
                panic!("AUTH begins it");
            };
            assert_eq!(auth.reason_code, AGAIN);
            let first = text(auth.properties.authentication_data.as_ref());
            let scrammer = Scrammer::challenge(&first, |it| it);
            let mut publishing = pin!(session.publish(publish(QoS::AtMostOnce)));
            assert!(now(&mut publishing).await.unwrap().is_ok());
            server.expect_publish().await;
            let challenge = scrammer.server_first.clone();
            server.send(packet(CONTINUE, challenge)).await;
            let (is_right, signature) = scrammer.verify(&answered(&mut server).await);
            assert!(is_right);
            let last = if knows {
                signature
            } else {
                "v=AAAA".to_owned()
            };
            server.send(packet(SUCCESS, last)).await;
        });
        if knows {
            again.unwrap();
            continue;
        }
        let error = again.unwrap_err();
        assert!(
            report(&error).contains("signature is wrong"),
            "{}",
            report(&error)
        );
        let ReauthenticateError::Lost(lost) = error else {
            panic!("{error:?}");
        };
        let LostCause::Authentication(error) = &lost.cause else {
            panic!("{lost:?}");
        };
        assert_eq!(scram_error(error), ScramError::ServerSignature);
        let disconnect = server.expect_disconnect().await;
        assert_eq!(disconnect.reason_code, ReasonCode::UNSPECIFIED_ERROR);
    }
}

#[tokio::test(start_paused = true)]
async fn no_nonce_comes_twice() {
    let (connector, mut listener) = scrammers(config(), "correct horse");
    let serving = tokio::spawn(async move {
        let mut firsts = HashSet::new();
        for _ in 0..8 {
            let mut server = listener.accept().await;
            let connect = server.expect_connect().await;
            firsts.insert(text(connect.properties.authentication_data.as_ref()));
        }
        firsts
    });
    let sessions = (0..8).map(|_| connector.connect(endpoint()));
    let mut sessions = pin!(futures_util::future::join_all(sessions));
    assert!(now(&mut sessions).await.is_none());
    assert_eq!(serving.await.unwrap().len(), 8);
}
