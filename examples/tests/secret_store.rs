//! The example of the secret store: its story as a program, and what becomes of answers that no store
//! should give.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../secret_store.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod secret_store;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use mqtt_client::{SessionConfig, SessionConnector};
use mqtt_transport::{
    TcpConnector,
    tls::{MaterialSource, Tls, TlsConnector, TlsMaterial, material_from},
};
use secret_store::{
    VaultSource, chain, print_audit_trail, run,
    stand_ins::{Authority, TlsFront},
    tls_config,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

const TOKEN: &str = "hvs.a-token-that-nobody-may-see";

/// Runs itself as a process of its own, whose output is all of the output there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_is_told_without_its_secrets() {
    const WITHIN: &str = "EXAMPLE_SECRET_STORE_RUNS";
    if env::var_os(WITHIN).is_some() {
        print_audit_trail();
        let story = run(TOKEN.to_owned().into());
        timeout(Duration::from_secs(60), story)
            .await
            .unwrap()
            .unwrap();
        return;
    }
    let mut process = Command::new(env::current_exe().unwrap());
    process
        .args([
            "--exact",
            "the_story_is_told_without_its_secrets",
            "--nocapture",
        ])
        .env(WITHIN, "yes");
    let output = tokio::task::spawn_blocking(move || process.output().unwrap())
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(output.status.success(), "{text}");
    for secret in [TOKEN, "PRIVATE KEY", "a-wrong-token"] {
        assert!(!text.contains(secret), "{secret} in:\n{text}");
    }

    let mut rest = &*text;
    for expected in [
        "mqtt_transport::audit: TLS identity in use source=\"vault\" version=\"1 of ",
        "session old: generation 1, and the server sees CN=first gateway",
        "mqtt_transport::audit: TLS identity in use source=\"vault\" version=\"2 of ",
        "session new: generation 2, and the server sees CN=second gateway",
        "session old: a message was acknowledged",
        "TLS material not renewed, the last good one stays source=\"vault\" generation=2",
        "the store is sealed or not ready (HTTP status 503)",
        "session late: generation 2, and the server sees CN=second gateway",
        "the token is refused, or may not read this (HTTP status 403)",
        "all of it went as it should",
    ] {
        let (_, after) = rest
            .split_once(expected)
            .unwrap_or_else(|| panic!("no {expected:?} in its place in:\n{text}"));
        rest = after;
    }
}

/// A server that gives one answer to one request.
async fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = answer.into();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        // Who has read enough hangs up.
        let _ = stream.write_all(&answer).await;
    });
    address
}

async fn error_from(store: SocketAddr, token: &str) -> String {
    let source = VaultSource::new(store, token.to_owned().into()).unwrap();
    let loaded = timeout(Duration::from_secs(10), source.load()).await;
    chain(&loaded.unwrap().unwrap_err())
}

#[tokio::test]
async fn answers_that_are_none_are_told_apart() {
    let ok = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (answer, expected) in [
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "there is no such secret (HTTP status 404)",
        ),
        (
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
            "the store did not answer as expected (HTTP status 307)",
        ),
        (
            // A parser would say: expected a map, found the string "PRIVATE KEY".
            ok(r#"{"data":{"data":"PRIVATE KEY","metadata":{"version":1,"created_time":""}}}"#),
            "not an answer of KV version 2",
        ),
        (ok(&" ".repeat(300 * 1024)), "length limit exceeded"),
        (ok("{\"data\""), "not an answer of KV version 2"),
    ] {
        let error = error_from(answering(answer).await, TOKEN).await;
        assert!(error.contains(expected), "{error}");
        assert!(error.starts_with("cannot read http://127.0.0.1:"), "{error}");
        assert!(!error.contains("PRIVATE KEY") && !error.contains(TOKEN), "{error}");
    }
}

#[tokio::test]
async fn a_token_that_fits_no_header_is_not_repeated() {
    let error = error_from(answering("").await, "two\nlines").await;
    assert!(error.contains("no HTTP header takes"), "{error}");
    assert!(!error.contains("two"), "{error}");
}

/// In virtual time, which runs out as soon as everybody waits.
#[tokio::test(start_paused = true)]
async fn a_store_that_says_nothing_is_given_up() {
    let silent = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let error = error_from(silent.local_addr().unwrap(), TOKEN).await;
    assert!(error.contains("did not answer within 5s"), "{error}");
}

/// What the story shows of identities is worth something only then.
#[tokio::test]
async fn without_a_certificate_nobody_gets_in() {
    let authority = Authority::new().unwrap();
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let front = TlsFront::start(&authority, nowhere).await.unwrap();
    let ca = authority.issue("unused").unwrap().ca.into_bytes();
    let source = material_from("no identity", move || {
        let material = TlsMaterial::default().with_roots([ca.clone()]);
        async { Ok(material) }
    });
    let tls = Tls::with_source(tls_config(), source).await.unwrap();
    let connector = TlsConnector::new(TcpConnector::default(), tls);
    let connector = SessionConnector::with_connector(connector, SessionConfig::new("a")).unwrap();
    let connecting = timeout(Duration::from_secs(10), connector.connect(front.endpoint));
    let error = chain(&connecting.await.unwrap().unwrap_err());
    assert!(
        error.contains("the server refused our certificate"),
        "{error}"
    );
}
