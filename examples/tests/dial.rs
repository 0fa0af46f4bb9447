//! The example that dials: what it says of connections, and of those that were not made.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../dial.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod dial;
#[path = "../stand_ins/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the store is not needed here")]
mod stand_ins;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    time::Duration,
};

use stand_ins::{Authority, TlsFront};

/// Whether all were reached, and the text; or the error.
async fn run(args: &[&str]) -> Result<(bool, String), String> {
    let mut out = Vec::new();
    let args = args.iter().map(|arg| (*arg).to_owned());
    let all_reached = tokio::time::timeout(Duration::from_secs(60), dial::run(args, &mut out))
        .await
        .unwrap()
        .map_err(|error| error.to_string())?;
    Ok((all_reached, String::from_utf8(out).unwrap()))
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[tokio::test]
async fn by_itself_it_dials_tcp_and_a_unix_socket() {
    let (all_reached, text) = run(&[]).await.unwrap();
    assert!(all_reached, "{text}");
    contains(
        &text,
        &["mqtt://127.0.0.1:", "kind         tcp", "tls          none"],
    );
    #[cfg(unix)]
    contains(&text, &["unix:///", "kind         unix", "/mqtt.sock"]);
}

#[tokio::test]
async fn more_endpoints_than_the_budget_allows_at_a_time_wait_for_their_turn() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    let (all_reached, text) = run(&[&*url; 9]).await.unwrap();
    assert!(all_reached, "{text}");
    assert_eq!(text.matches("kind         tcp").count(), 9, "{text}");
}

#[tokio::test]
async fn a_port_where_nobody_listens() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    drop(listener);
    let (all_reached, text) = run(&[&url]).await.unwrap();
    assert!(!all_reached, "{text}");
    let error = format!("error        cannot dial {url}");
    contains(
        &text,
        &[
            &error,
            "because      127.0.0.1:",
            "phase        Dial",
            "trying again can help",
        ],
    );
}

/// A configuration file with an identity of `own` that trusts `trusted`.
fn configuration(folder: &Path, own: &Authority, trusted: &Authority) -> String {
    let identity = own.issue("dialler").unwrap();
    let ca = trusted.issue("unused").unwrap().ca;
    let path = |name: &str| folder.join(name).display().to_string();
    fs::write(path("certificate.pem"), identity.certificate).unwrap();
    fs::write(path("key.pem"), identity.key).unwrap();
    fs::write(path("ca.pem"), ca).unwrap();
    let text = format!(
        r#"
        [tcp]
        keepalive = "20s"

        [tls]
        backend = "rustls"
        trust = "own"
        roots = [{{ file = {:?} }}]
        identities = [{{ certificate = {{ file = {:?} }}, key = {{ file = {:?} }} }}]
        "#,
        path("ca.pem"),
        path("certificate.pem"),
        path("key.pem"),
    );
    fs::write(path("dial.toml"), text).unwrap();
    path("dial.toml")
}

#[tokio::test]
async fn tls_with_an_identity_from_a_configuration_file() {
    let authority = Authority::new().unwrap();
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = server.local_addr().unwrap();
    let mut front = TlsFront::start(&authority, server).await.unwrap();
    let url = front.endpoint.to_string();
    let folder = tempfile::tempdir().unwrap();

    let file = configuration(folder.path(), &authority, &authority);
    let (all_reached, text) = run(&["--config", &file, &url]).await.unwrap();
    assert!(all_reached, "{text}");
    contains(
        &text,
        &["1.3 by rustls, TLS_", "certificate  CN=server, SHA-256 "],
    );
    assert_eq!(front.peers.recv().await.unwrap(), "CN=dialler");

    let stranger = Authority::new().unwrap();
    let file = configuration(folder.path(), &authority, &stranger);
    let (all_reached, text) = run(&["--config", &file, &url]).await.unwrap();
    assert!(!all_reached, "{text}");
    contains(
        &text,
        &[
            "phase        Tls",
            "certificate is refused by rustls",
            "trying again cannot help",
        ],
    );
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused_before_anything_is_dialled() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dial.toml");
    let path = file.to_str().unwrap();
    for (text, expected) in [
        ("[tls]\nverify = false", "unknown field `verify`"),
        ("[tcp]\nkeepalive = \"1ms\"", "keepalive is 1ms"),
        (
            "[tls]\nroots = [{ file = \"/nowhere/ca.pem\" }]\ntrust = \"own\"",
            "tls is cannot read file /nowhere/ca.pem",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let error = run(&["--config", path, "mqtts://127.0.0.1:1"])
            .await
            .unwrap_err();
        contains(&error, &[expected]);
    }
    for args in [&["--config"][..], &["--help"], &["localhost"]] {
        contains(
            &run(args).await.unwrap_err(),
            &["dial [--config FILE] [URL...]"],
        );
    }
    let error = run(&["mqtt://user:hunter2@host"]).await.unwrap_err();
    assert!(!error.contains("hunter2"), "{error}");
}
