//! Unix sockets, by path and by abstract name.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;

use mqtt_transport::{
    Address, Conn, ConnKind, ConnectError, ConnectPhase, Endpoint, StreamConn, UnixConnector,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

async fn connect(url: &str) -> Result<StreamConn<UnixStream>, ConnectError> {
    UnixConnector.connect(url.parse().unwrap()).await
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn abstract_names() {
    // Names are the host's and not a folder's; the process's number makes it ours.
    let name = format!("mqtt-transport/{}@test", std::process::id());
    let listener = UnixListener::bind(format!("\0{name}")).unwrap();
    let url = format!("unix://@{name}");
    let mut conn = connect(&url).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    assert_eq!(conn.info().kind, ConnKind::Unix);
    assert_eq!(conn.info().peer, Address::Abstract(name.clone()));
    conn.write_all(b"hi").await.unwrap();
    let mut read = [0; 2];
    peer.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hi");

    drop(listener);
    let error = connect(&url).await.unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Dial);
    assert!(error.is_transient());

    let error = connect(&format!("unix://@{}", "a".repeat(200))).await;
    assert!(
        !error.unwrap_err().is_transient(),
        "too long stays too long"
    );
}

#[cfg(not(target_os = "linux"))]
#[tokio::test]
async fn abstract_names_are_refused() {
    let error = connect("unix://@name").await.unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Choose);
    assert!(!error.is_transient());
}

#[tokio::test]
async fn who_is_away_may_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    let url = format!("unix://{}", path.display());
    let error = connect(&url).await.unwrap_err();
    assert_eq!(error.io_error().kind(), io::ErrorKind::NotFound);
    assert!(error.is_transient());

    // The file outlives the server.
    drop(UnixListener::bind(&path).unwrap());
    let error = connect(&url).await.unwrap_err();
    assert_eq!(error.io_error().kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.is_transient());
}

#[test]
fn who_may_not_stays_out() {
    let endpoint: Endpoint = "unix:///run/mqtt.sock".parse().unwrap();
    let denied = io::ErrorKind::PermissionDenied.into();
    assert!(!ConnectError::new(ConnectPhase::Dial, &endpoint, denied).is_transient());
}

#[tokio::test]
async fn an_endpoint_with_a_host_is_refused() {
    let error = connect("mqtt://localhost").await.unwrap_err();
    assert_eq!(error.io_error().kind(), io::ErrorKind::InvalidInput);
}

/// Connecting to a socket whose queue is full fails at once, unlike with TCP.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_queue_is_named_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    let socket = tokio::net::UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let _listener = socket.listen(1).unwrap();
    let url = format!("unix://{}", path.display());
    let mut kept = Vec::new();
    let error = loop {
        match connect(&url).await {
            Ok(conn) => kept.push(conn),
            Err(error) => break error,
        }
        assert!(kept.len() < 8, "the queue should be full by now");
    };
    assert!(error.is_transient());
    let text = error.io_error().to_string();
    assert!(text.contains("wait to be accepted"), "{text}");
}
