//! Connecting over real sockets, on addresses the system chose.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{error::Error, time::Duration};

use mqtt_transport::{
    Address, BoxConn, Conn, ConnKind, ConnectDeadline, ConnectDeadlineLayer, ConnectError,
    ConnectPhase, Connector, DeadlineExceeded, Endpoint, Operation, TcpConnector,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};
use tower::{Service, ServiceBuilder, ServiceExt};

async fn echo_once(mut conn: impl Conn, mut peer: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    conn.write_all(b"ping").await.unwrap();
    let mut read = [0; 4];
    peer.read_exact(&mut read).await.unwrap();
    peer.write_all(&read).await.unwrap();
    conn.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ping");
    conn.shutdown().await.unwrap();
    assert_eq!(peer.read(&mut read).await.unwrap(), 0);
}

#[tokio::test]
async fn tcp() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint: Endpoint = format!("mqtt://localhost:{}", address.port())
        .parse()
        .unwrap();
    let (conn, accepted) = tokio::join!(Connector::default().oneshot(endpoint), listener.accept());
    let (conn, (peer, from)) = (conn.unwrap(), accepted.unwrap());
    assert_eq!(conn.info().kind, ConnKind::Tcp);
    assert_eq!(conn.info().peer, Address::Socket(address));
    assert_eq!(conn.info().local, Address::Socket(from));
    echo_once(conn, peer).await;
}

#[tokio::test]
async fn tcp_sends_small_packets_at_once() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint: Endpoint = format!("tcp://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let conn = TcpConnector::default().connect(endpoint).await.unwrap();
    assert!(conn.get_ref().nodelay().unwrap());
}

#[tokio::test]
async fn unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let endpoint: Endpoint = format!("unix://{}", path.display()).parse().unwrap();
    let (conn, accepted) = tokio::join!(Connector::default().oneshot(endpoint), listener.accept());
    let (conn, (peer, _)) = (conn.unwrap(), accepted.unwrap());
    assert_eq!(conn.info().kind, ConnKind::Unix);
    assert_eq!(conn.info().peer, Address::Path(path));
    echo_once(conn, peer).await;
}

#[tokio::test]
async fn errors_say_phase_endpoint_and_cause() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = connect(&format!("mqtt://{address}")).await.unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Dial);
    assert!(error.is_transient());
    assert_eq!(error.to_string(), format!("cannot dial mqtt://{address}"));
    assert!(
        error.source().unwrap().to_string().contains("refused"),
        "{:?}",
        error.source()
    );

    let error = connect("unix:///nowhere/mqtt.sock").await.unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Dial);
    assert!(error.is_transient());
}

/// What is sent first shows what is spoken; a scheme that is not built in sends nothing at all.
#[tokio::test]
async fn nothing_but_what_the_scheme_says_is_spoken() {
    for (scheme, built_in, first) in [
        (
            "mqtts",
            cfg!(any(feature = "native-tls", feature = "rustls")),
            &b"\x16\x03"[..],
        ),
        ("ws", cfg!(feature = "websocket"), b"GE"),
        (
            "wss",
            cfg!(all(
                feature = "websocket",
                any(feature = "native-tls", feature = "rustls")
            )),
            b"\x16\x03",
        ),
    ] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut sent = [0; 2];
            stream.read_exact(&mut sent).await.unwrap();
            sent
        });
        let error = connect(&url).await.unwrap_err();
        if built_in {
            assert_eq!(serving.await.unwrap(), first, "{url}");
            assert_ne!(error.phase(), ConnectPhase::Choose);
        } else {
            assert_eq!(error.phase(), ConnectPhase::Choose, "{url}");
            assert!(!error.is_transient());
            let reason = error.source().unwrap().to_string();
            assert!(reason.contains(scheme), "{reason}");
            assert!(!serving.is_finished());
            serving.abort();
        }
    }
}

async fn connect(url: &str) -> Result<BoxConn, ConnectError> {
    Connector::default().oneshot(url.parse().unwrap()).await
}

/// A connector that never gets there.
#[derive(Clone)]
struct Never;

impl Service<Endpoint> for Never {
    type Response = BoxConn;
    type Error = ConnectError;
    type Future = std::future::Pending<Result<BoxConn, ConnectError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), ConnectError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Endpoint) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_takes_too_long_is_given_up_and_says_so() {
    let timeout = Duration::from_secs(3);
    let start = tokio::time::Instant::now();
    let endpoint: Endpoint = "mqtt://far.test".parse().unwrap();
    let error = ConnectDeadline::new(Never, timeout)
        .oneshot(endpoint)
        .await
        .unwrap_err();
    assert_eq!(start.elapsed(), timeout);
    assert!(error.is_transient());
    let source = error
        .io_error()
        .get_ref()
        .and_then(|source| source.downcast_ref::<DeadlineExceeded>());
    let exceeded = source.expect("the deadline is the cause");
    assert_eq!(
        (exceeded.operation, exceeded.timeout),
        (Operation::Connect, timeout)
    );
}

#[tokio::test(start_paused = true)]
async fn a_dial_budget_is_a_stack_of_layers() {
    let mut connector = ServiceBuilder::new()
        .concurrency_limit(1)
        .layer(ConnectDeadlineLayer::new(Duration::from_secs(3)))
        .service(Never);
    let endpoint: Endpoint = "mqtt://far.test".parse().unwrap();
    let first = connector.ready().await.unwrap().call(endpoint);
    let mut other = connector.clone();
    let waits = tokio::time::timeout(Duration::from_secs(1), other.ready()).await;
    assert!(waits.is_err(), "one dial at a time");
    assert!(first.await.is_err());
    other.ready().await.unwrap();
}

/// A deadline within another takes nothing from it.
#[cfg(feature = "websocket")]
#[tokio::test]
async fn each_of_two_deadlines_knows_the_phase() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let inner = ConnectDeadline::new(Connector::default(), Duration::from_secs(60));
    let outer = ConnectDeadline::new(inner, Duration::from_millis(200));
    let error = outer.oneshot(url.parse().unwrap()).await.unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Upgrade);
}
