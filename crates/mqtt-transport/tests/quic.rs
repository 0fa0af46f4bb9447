//! QUIC, on loopback: mosquitto behind a front, and servers that misbehave.

#![cfg(feature = "quic")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mqtt;

use std::{
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mqtt_testkit::{Mosquitto, QuicFront};
use mqtt_transport::{
    Address, Conn, ConnKind, ConnectError, ConnectPhase, QuicConn, QuicConnector, QuicOptions,
};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    runtime::Runtime,
    time::Instant,
};
use tower::ServiceExt;

/// A certificate for these names that is its own root.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn identity(names: &[&str]) -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>(),
    )
    .unwrap();
    // Roots are found by it.
    let name = format!("root of {names:?}");
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    Identity {
        certificate: params.self_signed(&key).unwrap().der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(trusted: &Identity) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.certificate.clone()).unwrap();
    roots
}

fn client_config(trusted: &Identity) -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(trusted))
        .with_no_client_auth()
}

/// Sends from loopback only.
fn from_loopback(options: QuicOptions) -> QuicOptions {
    let sources = [
        Ipv4Addr::LOCALHOST.into(),
        std::net::Ipv6Addr::LOCALHOST.into(),
    ];
    options.with_source_addresses(sources)
}

fn connector(options: QuicOptions, config: rustls::ClientConfig) -> QuicConnector {
    let options = from_loopback(options);
    let config = Arc::new(config);
    QuicConnector::with_rustls(options, move || Ok((config.clone(), None))).unwrap()
}

/// Tries `url` with this configuration.
async fn connect(url: &str, config: rustls::ClientConfig) -> Result<QuicConn, ConnectError> {
    let connector = connector(QuicOptions::default(), config);
    soon(connector.oneshot(url.parse().unwrap())).await
}

/// A server that does what the test says.
struct Server {
    endpoint: quinn::Endpoint,
    identity: Identity,
}

impl Server {
    fn start() -> Self {
        Self::with(|_, _| {})
    }

    fn with(change: impl FnOnce(&mut rustls::ServerConfig, &mut quinn::TransportConfig)) -> Self {
        let identity = identity(&["127.0.0.1"]);
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
            .unwrap();
        tls.alpn_protocols = vec![b"mqtt".to_vec()];
        let mut transport = quinn::TransportConfig::default();
        change(&mut tls, &mut transport);
        let tls = QuicServerConfig::try_from(tls).unwrap();
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(Arc::new(transport));
        let local = (Ipv4Addr::LOCALHOST, 0).into();
        Self {
            endpoint: quinn::Endpoint::server(config, local).unwrap(),
            identity,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    fn url(&self) -> String {
        format!("quic://{}", self.addr())
    }

    fn client_config(&self) -> rustls::ClientConfig {
        client_config(&self.identity)
    }

    async fn accept(&self) -> quinn::Connection {
        self.endpoint.accept().await.unwrap().await.unwrap()
    }

    /// A connection from both sides, on whose stream the client has written "x".
    async fn open(&self, options: QuicOptions) -> (QuicConn, Far) {
        let connector = connector(options, self.client_config());
        let connect = connector.oneshot(self.url().parse().unwrap());
        let (client, connection) = soon(async { tokio::join!(connect, self.accept()) }).await;
        let mut client = client.unwrap();
        client.write_all(b"x").await.unwrap();
        let (send, mut recv) = soon(connection.accept_bi()).await.unwrap();
        soon(recv.read_exact(&mut [0])).await.unwrap();
        let far = Far {
            connection,
            send,
            recv,
        };
        (client, far)
    }
}

/// The server's side of a connection.
struct Far {
    connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

/// In bounded time, however slow the machine.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("this takes a moment")
}

#[tokio::test]
async fn mosquitto() {
    let Some(server) = Mosquitto::start_or_skip("mosquitto over quic").await else {
        return;
    };
    let identity = identity(&["127.0.0.1"]);
    let config = client_config(&identity);
    let front = QuicFront::start(server.addr(), vec![identity.certificate], identity.key).unwrap();
    let conn = connect(&front.url(), config).await.unwrap();
    let info = conn.info();
    assert_eq!(info.kind, ConnKind::Quic);
    assert_eq!(info.peer, Address::Socket(front.addr()));
    let Address::Socket(local) = &info.local else {
        panic!("{info:?}");
    };
    assert!(local.ip().is_loopback() && local.port() > 0, "{local}");
    mqtt::converse(conn, 300_000).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_refused_for_good() {
    let server = Server::start();
    let accept = async {
        while let Some(incoming) = server.endpoint.accept().await {
            drop(incoming.await);
        }
    };
    let other = client_config(&identity(&["other.test"]));
    let url = server.url();
    let error = tokio::select! {
        outcome = connect(&url, other) => outcome.unwrap_err(),
        () = accept => unreachable!("the server goes on"),
    };
    assert_eq!(error.phase(), ConnectPhase::Tls);
    assert!(!error.is_transient());
    let said = error.source().unwrap().to_string();
    assert!(
        said.contains("certificate") && said.contains("UnknownIssuer"),
        "{said}"
    );
    assert!(said.contains(&server.addr().to_string()), "{said}");
}

#[tokio::test]
async fn the_certificate_is_for_the_host_or_the_name_that_is_configured() {
    let identity = identity(&["broker.test"]);
    let config = Arc::new(client_config(&identity));
    let nowhere = (Ipv4Addr::LOCALHOST, 1).into();
    let front = QuicFront::start(nowhere, vec![identity.certificate], identity.key).unwrap();
    for (name, accepted) in [
        (None, false),
        (Some("other.test"), false),
        (Some("not a name"), false),
        (Some("broker.test"), true),
    ] {
        let config = config.clone();
        let tls = move || Ok((config.clone(), name.map(str::to_owned)));
        let connector =
            QuicConnector::with_rustls(from_loopback(QuicOptions::default()), tls).unwrap();
        match soon(connector.connect(front.url().parse().unwrap())).await {
            Ok(_) => assert!(accepted, "{name:?}"),
            Err(error) => {
                assert!(!accepted && !error.is_transient(), "{name:?} {error:?}");
                assert_eq!(error.phase(), ConnectPhase::Tls);
            }
        }
    }
}

#[tokio::test]
async fn another_protocol_is_refused_for_good() {
    let server = Server::start();
    let mut config = server.client_config();
    config.alpn_protocols = vec![b"other".to_vec()];
    let accept = async { server.endpoint.accept().await.unwrap().await };
    let url = server.url();
    let connect = connect(&url, config);
    let (outcome, _) = soon(async { tokio::join!(connect, accept) }).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Tls);
    assert!(!error.is_transient());
    let said = error.source().unwrap().to_string();
    assert!(said.contains("ALPN"), "{said}");
}

#[tokio::test]
async fn a_configuration_that_cannot_do_quic_is_refused() {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots(&identity(&["a"])))
        .with_no_client_auth();
    let error = connect("quic://127.0.0.1", config).await.unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Tls);
    assert!(!error.is_transient());

    let tls = || Err(io::Error::new(io::ErrorKind::NotFound, "no file ca.pem"));
    let connector = QuicConnector::with_rustls(from_loopback(QuicOptions::default()), tls).unwrap();
    let endpoint = "quic://127.0.0.1".parse().unwrap();
    let error = connector.connect(endpoint).await.unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Tls);
    assert_eq!(error.io_error().to_string(), "no file ca.pem");

    let options = QuicOptions::default().with_send_window(0);
    assert!(QuicConnector::with_rustls(options, tls).is_err());
}

/// The server asks for a certificate, of which TLS 1.3 lets the client hear only later.
#[tokio::test]
async fn a_refused_client_says_so_when_it_reads() {
    let identity = identity(&["127.0.0.1"]);
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots(&identity)),
        provider(),
    );
    let server = Server::with(|tls, _| {
        let mut asking = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
            .unwrap();
        asking.alpn_protocols = tls.alpn_protocols.clone();
        *tls = asking;
    });
    let accept = async { server.endpoint.accept().await.unwrap().await };
    let url = server.url();
    let connect = connect(&url, client_config(&identity));
    let (outcome, accepted) = soon(async { tokio::join!(connect, accept) }).await;
    assert!(accepted.is_err());
    // The stream may or may not have been opened when the refusal came.
    let error = match outcome {
        Ok(mut conn) => soon(conn.read(&mut [0])).await.unwrap_err(),
        Err(error) => {
            assert_eq!(error.phase(), ConnectPhase::Tls);
            io::Error::new(error.io_error().kind(), error.io_error().to_string())
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    // The socket holds the port, and nobody reads it.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("quic://{}", silent.local_addr().unwrap());
    let timeout = Duration::from_millis(300);
    let options = QuicOptions::default().with_handshake_timeout(timeout);
    let connector = connector(options, client_config(&identity(&["127.0.0.1"])));
    let start = Instant::now();
    let error = soon(connector.connect(url.parse().unwrap()))
        .await
        .unwrap_err();
    assert!(start.elapsed() >= timeout);
    assert_eq!(error.phase(), ConnectPhase::Dial);
    assert_eq!(error.io_error().kind(), io::ErrorKind::TimedOut);
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_server_without_a_stream_for_us_is_given_up_in_time() {
    let server = Server::with(|_, transport| {
        transport.max_concurrent_bidi_streams(0_u32.into());
    });
    let options = QuicOptions::default().with_handshake_timeout(Duration::from_secs(1));
    let connector = connector(options, server.client_config());
    let connect = connector.oneshot(server.url().parse().unwrap());
    let (outcome, connection) = soon(async { tokio::join!(connect, server.accept()) }).await;
    assert_eq!(
        outcome.unwrap_err().io_error().kind(),
        io::ErrorKind::TimedOut
    );
    soon(connection.closed()).await;
}

#[tokio::test]
async fn a_server_that_refuses_may_take_us_later() {
    let server = Server::start();
    let url = server.url();
    let connect = connect(&url, server.client_config());
    let refuse = async { server.endpoint.accept().await.unwrap().refuse() };
    let (outcome, ()) = soon(async { tokio::join!(connect, refuse) }).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Dial);
    assert_eq!(error.io_error().kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.is_transient());
}

#[tokio::test]
async fn connections_of_a_connector_and_its_clones_share_a_socket() {
    let server = Server::start();
    let connector = connector(QuicOptions::default(), server.client_config());
    let mut ports = Vec::new();
    let mut kept = Vec::new();
    for connector in [connector.clone(), connector] {
        let connect = connector.oneshot(server.url().parse().unwrap());
        let (client, connection) = soon(async { tokio::join!(connect, server.accept()) }).await;
        ports.push(connection.remote_address());
        let client = client.unwrap();
        assert_eq!(
            client.info().local,
            Address::Socket(connection.remote_address())
        );
        kept.push(client);
    }
    assert_eq!(ports[0], ports[1]);
}

#[test]
fn a_connector_outlives_the_runtime_of_its_first_connect() {
    let runtime = || Runtime::new().unwrap();
    let servers = runtime();
    let server = servers.block_on(async { Server::start() });
    let connector = connector(QuicOptions::default(), server.client_config());
    for _ in 0..2 {
        let connect = connector.clone().oneshot(server.url().parse().unwrap());
        let both = soon(async { tokio::join!(connect, server.accept()) });
        let (client, _) = runtime().block_on(both);
        client.unwrap();
    }
}

#[tokio::test]
async fn the_server_s_end_of_the_stream_is_the_end() {
    let server = Server::start();
    let (mut client, mut far) = server.open(QuicOptions::default()).await;
    far.send.write_all(b"last").await.unwrap();
    far.send.finish().unwrap();
    let mut read = Vec::new();
    soon(client.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"last");
    // The other direction is still open.
    client.write_all(b"more").await.unwrap();
    let mut more = [0; 4];
    soon(far.recv.read_exact(&mut more)).await.unwrap();
    assert_eq!(&more, b"more");
}

#[tokio::test]
async fn the_server_s_closing_is_the_end_only_without_an_error() {
    let server = Server::start();
    let (mut client, far) = server.open(QuicOptions::default()).await;
    far.connection.close(0_u32.into(), b"bye");
    assert_eq!(soon(client.read(&mut [0])).await.unwrap(), 0);
    assert!(client.write(b"x").await.is_err());

    let (mut client, far) = server.open(QuicOptions::default()).await;
    far.connection.close(7_u32.into(), b"too\nmuch");
    let error = soon(client.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let said = error.to_string();
    assert!(said.contains("too\\nmuch") && said.contains('7'), "{said}");
    assert!(client.shutdown().await.is_err(), "not all of it arrived");

    let (mut client, mut far) = server.open(QuicOptions::default()).await;
    far.send.reset(1_u32.into()).unwrap();
    let error = soon(client.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A connection to a server that vanishes without a word when its runtime is shut down.
async fn vanishing(options: QuicOptions) -> (Runtime, QuicConn) {
    let runtime = Runtime::new().unwrap();
    let server = runtime.spawn(async { Server::start() });
    let server = soon(server).await.unwrap();
    let connector = connector(options, server.client_config());
    let url = server.url().parse().unwrap();
    let accepted = runtime.spawn(async move {
        let connection = server.accept().await;
        tokio::spawn(async move {
            let _kept = (connection, server);
            std::future::pending::<()>().await;
        });
    });
    let client = soon(connector.oneshot(url)).await.unwrap();
    soon(accepted).await.unwrap();
    (runtime, client)
}

/// Returns when the server's tasks and its socket are gone.
async fn vanish(runtime: Runtime) {
    let gone = tokio::task::spawn_blocking(|| drop(runtime));
    soon(gone).await.unwrap();
}

#[tokio::test]
async fn a_server_that_vanishes_is_noticed() {
    let options = QuicOptions::default()
        .with_keep_alive_interval(Duration::from_millis(200))
        .with_max_idle_timeout(Duration::from_millis(1500))
        .with_close_timeout(Duration::from_millis(100));
    let (vanished, mut client) = vanishing(options).await;
    // Alive for longer than the time of silence: the keep-alive is answered.
    let read = tokio::time::timeout(Duration::from_millis(2500), client.read(&mut [0])).await;
    assert!(read.is_err(), "{read:?}");

    vanish(vanished).await;
    client.write_all(b"x").await.unwrap();
    let error = soon(client.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(client.write(b"x").await.is_err());
}

/// As many bytes as several windows of a new connection.
const MANY: usize = 400_000;

/// Reads slowly at first, so that the client is done long before.
async fn read_late(mut far: Far) -> usize {
    tokio::time::sleep(Duration::from_millis(200)).await;
    far.recv
        .read_to_end(MANY + 1)
        .await
        .map_or(0, |bytes| bytes.len())
}

#[tokio::test]
async fn what_was_written_arrives_though_the_connection_is_closed_or_dropped() {
    let options = QuicOptions::default().with_close_timeout(Duration::from_secs(10));
    for closes in [true, false] {
        let server = Server::start();
        let (mut client, far) = server.open(options.clone()).await;
        client.write_all(&vec![1; MANY]).await.unwrap();
        let reading = tokio::spawn(read_late(far));
        if closes {
            soon(client.shutdown()).await.unwrap();
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            assert!(client.write(b"x").await.is_err());
            soon(client.shutdown()).await.unwrap();
        }
        drop(client);
        assert_eq!(soon(reading).await.unwrap(), MANY, "closes: {closes}");
    }
}

#[tokio::test]
async fn closing_is_bounded() {
    let timeout = Duration::from_millis(500);
    let options = QuicOptions::default().with_close_timeout(timeout);

    // It has everything and keeps its own side open: that is no error.
    let server = Server::start();
    let (mut client, far) = server.open(options.clone()).await;
    let start = Instant::now();
    soon(client.shutdown()).await.unwrap();
    assert!(start.elapsed() >= timeout);
    soon(far.connection.closed()).await;

    // It has vanished.
    let (vanished, mut client) = vanishing(options).await;
    client.write_all(b"x").await.unwrap();
    vanish(vanished).await;
    client.write_all(b"y").await.unwrap();
    let start = Instant::now();
    let error = soon(client.shutdown()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(start.elapsed() >= timeout);
}

/// Writes until nothing more is taken for a while; says how much was.
async fn fill(client: &mut QuicConn, most: usize) -> usize {
    let mut taken = 0;
    let wait = Duration::from_millis(200);
    while let Ok(n) = tokio::time::timeout(wait, client.write(&[1; 4096])).await {
        taken += n.unwrap();
        assert!(taken <= most);
    }
    taken
}

#[tokio::test]
async fn a_server_that_does_not_read_or_is_gone_holds_up_writing_in_bounded_memory() {
    let server = Server::with(|_, transport| {
        transport.stream_receive_window(10_000_u32.into());
    });
    let (mut client, _far) = server.open(QuicOptions::default()).await;
    assert!(fill(&mut client, 10_000).await > 9_000);

    let options = QuicOptions::default().with_send_window(50_000);
    let (vanished, mut client) = vanishing(options).await;
    vanish(vanished).await;
    assert!(fill(&mut client, 50_000).await > 40_000);
}

#[tokio::test]
async fn the_server_can_open_no_streams() {
    let server = Server::start();
    let (client, far) = server.open(QuicOptions::default()).await;
    let opened = tokio::time::timeout(Duration::from_millis(200), far.connection.open_bi()).await;
    assert!(opened.is_err());
    let opened = tokio::time::timeout(Duration::from_millis(200), far.connection.open_uni()).await;
    assert!(opened.is_err());
    drop(client);
}

#[tokio::test]
async fn a_reader_that_waits_ends_when_this_side_closes() {
    let server = Server::start();
    let (client, _far) = server.open(QuicOptions::default()).await;
    let (mut reader, mut writer) = tokio::io::split(client);
    let reading = tokio::spawn(async move { reader.read(&mut [0; 4]).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(soon(writer.shutdown()).await);
    assert_eq!(soon(reading).await.unwrap().unwrap(), 0);
}

#[test]
fn times_that_would_overflow_are_refused() {
    let (never, longest) = (mqtt_transport::Limit::Never, Duration::MAX);
    let options = QuicOptions::default().with_max_idle_timeout(never);
    assert!(
        options
            .with_keep_alive_interval(longest)
            .validate()
            .is_err()
    );
    let options = QuicOptions::default().with_max_idle_timeout(longest);
    assert!(options.validate().is_err());
}

#[tokio::test]
async fn names_are_resolved_as_for_tcp() {
    use mqtt_transport::{Connector, TcpConnector, tls};

    let tcp = TcpConnector::default()
        .with_resolver(|_: &str, _| async { Err(io::Error::other("by the test")) });
    let config = tls::TlsConfig::default().with_backend(tls::Backend::Rustls);
    let roots = tls::TlsMaterial::default().with_roots([identity(&["a"]).certificate.to_vec()]);
    let source = tls::material_from("test", move || {
        let roots = roots.clone();
        async move { Ok(roots) }
    });
    let tls = tls::Tls::with_source(config.with_trust(tls::Trust::Own), source).await;
    let connector = Connector::default().with_tls(tls.unwrap()).with_tcp(tcp);
    let error = connector.connect("quic://a.test".parse().unwrap()).await;
    let error = error.unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Resolve);
    assert_eq!(error.io_error().to_string(), "by the test");
}
