//! QUIC: an encrypted connection over UDP, of which MQTT uses one bidirectional stream.
//!
//! [`QuicConnector`] dials, tells the server that it wants to speak `mqtt` (ALPN) and opens the
//! stream. Nothing is sent before the handshake is done: early data (0-RTT) can be sent again by
//! whoever recorded it, and a CONNECT or PUBLISH must not be.

mod conn;
mod error;
mod lazy;
mod options;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use quinn::{TransportConfig, crypto::rustls::QuicClientConfig};
use tokio::time::Instant;
use tower_service::Service;

pub use conn::QuicConn;
pub(crate) use lazy::LazyQuic;
pub use options::QuicOptions;

use crate::{
    Address, ConfigErrors, ConnInfo, ConnKind, ConnectError, ConnectPhase, Endpoint,
    happy_eyeballs::interleave,
    resolve::{Resolve, SystemResolver, addresses},
    tls::{Backend, Generation, Tls, TlsInfo, TlsVersion},
};
use conn::Link;
use error::Failure;

#[cfg(not(any(feature = "rustls-ring", feature = "rustls-aws-lc-rs")))]
compile_error!("the feature quic needs a provider of rustls: rustls-ring or rustls-aws-lc-rs");

/// The protocol's name in the TLS handshake.
const ALPN: &[u8] = b"mqtt";

/// After how long without success the next address is tried too (RFC 8305 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// What an attempt needs of TLS.
struct QuicTls {
    config: Arc<rustls::ClientConfig>,
    /// If it is not the host of the endpoint.
    server_name: Option<String>,
    /// Where the configuration is from.
    generation: Option<Arc<Generation>>,
}

type TlsSource = dyn Fn() -> io::Result<QuicTls> + Send + Sync;

/// Makes QUIC connections, all of them over one UDP socket per family of addresses.
///
/// The addresses of a name are tried in their order, each a little after the one before or when it
/// failed; the first to succeed wins. Clones share the sockets, which live in the runtime of the
/// first connect. Always ready. Dropping its future gives the attempt up.
#[derive(Clone, Debug)]
pub struct QuicConnector(Arc<Shared>);

struct Shared {
    options: QuicOptions,
    transport: Arc<TransportConfig>,
    tls: Box<TlsSource>,
    resolver: Arc<dyn Resolve>,
    /// The last configuration, so that only a new one is checked and prepared.
    prepared: Mutex<Option<Prepared>>,
    /// Made when first needed, since they need a runtime.
    v4: Mutex<Option<quinn::Endpoint>>,
    v6: Mutex<Option<quinn::Endpoint>>,
}

#[derive(Clone)]
struct Prepared {
    from: Arc<rustls::ClientConfig>,
    config: quinn::ClientConfig,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl QuicConnector {
    /// With these options, and TLS as `tls` says at each attempt: the configuration, and the name
    /// of the server if its certificate is for another than the endpoint's host.
    ///
    /// A configuration without protocols (ALPN) is used with `mqtt`. It must allow TLS 1.3.
    ///
    /// # Errors
    ///
    /// What [`QuicOptions::validate`] finds.
    pub fn with_rustls(
        options: QuicOptions,
        tls: impl Fn() -> io::Result<(Arc<rustls::ClientConfig>, Option<String>)>
        + Send
        + Sync
        + 'static,
    ) -> Result<Self, ConfigErrors> {
        options.validate()?;
        Ok(Self::with_source(
            options,
            Arc::new(SystemResolver),
            move || {
                let (config, server_name) = tls()?;
                Ok(QuicTls {
                    config,
                    server_name,
                    generation: None,
                })
            },
        ))
    }

    /// With these options and this TLS, whose backend must be rustls; an attempt is refused
    /// otherwise. Without protocols (ALPN) of its own it offers `mqtt`.
    ///
    /// # Errors
    ///
    /// What [`QuicOptions::validate`] finds.
    pub fn new(options: QuicOptions, tls: Tls) -> Result<Self, ConfigErrors> {
        options.validate()?;
        Ok(Self::with_checked(options, Arc::new(SystemResolver), tls))
    }

    fn with_checked(options: QuicOptions, resolver: Arc<dyn Resolve>, tls: Tls) -> Self {
        Self::with_source(options, resolver, move || {
            let (config, generation) = tls.rustls_config().ok_or_else(|| {
                let reason = "QUIC needs rustls: set tls.backend to rustls";
                io::Error::new(io::ErrorKind::Unsupported, reason)
            })?;
            Ok(QuicTls {
                config,
                server_name: tls.config().server_name.clone(),
                generation: Some(generation),
            })
        })
    }

    fn with_source(
        options: QuicOptions,
        resolver: Arc<dyn Resolve>,
        tls: impl Fn() -> io::Result<QuicTls> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            transport: Arc::new(options.to_transport()),
            options,
            tls: Box::new(tls),
            resolver,
            prepared: Mutex::default(),
            v4: Mutex::default(),
            v6: Mutex::default(),
        }))
    }

    /// Connects. Any endpoint with a host will do.
    ///
    /// # Errors
    ///
    /// Of phase [`Tls`](ConnectPhase::Tls) if the handshake failed for a reason of TLS: another
    /// attempt cannot help. With several addresses, the error tells of each.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<QuicConn, ConnectError> {
        let way = self.0.resolve(&endpoint).await?;
        self.0.first_of(way, &endpoint).await
    }
}

impl Service<Endpoint> for QuicConnector {
    type Response = QuicConn;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<QuicConn, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(endpoint).await })
    }
}

/// What one connect needs.
struct Way {
    addresses: Vec<SocketAddr>,
    config: quinn::ClientConfig,
    server_name: String,
    generation: Option<Arc<Generation>>,
}

impl Shared {
    async fn resolve(&self, endpoint: &Endpoint) -> Result<Way, ConnectError> {
        let tls = (self.tls)()
            .map_err(|source| ConnectError::new(ConnectPhase::Tls, endpoint, source))?;
        let config = self
            .prepare(tls.config)
            .map_err(|Failure { phase, source }| ConnectError::new(phase, endpoint, source))?;
        let found = addresses(&*self.resolver, endpoint).await?;
        let host = endpoint.host().unwrap_or_default();
        Ok(Way {
            addresses: interleave(&found, MAX_ADDRESSES),
            config,
            server_name: tls.server_name.unwrap_or_else(|| host.to_owned()),
            generation: tls.generation,
        })
    }

    /// The first connection that one of the addresses gives.
    async fn first_of(&self, way: Way, endpoint: &Endpoint) -> Result<QuicConn, ConnectError> {
        let mut addresses = way.addresses.iter().copied();
        let mut attempts = FuturesUnordered::new();
        let mut failures = Vec::new();
        loop {
            let next = addresses.next();
            let wait = match next {
                Some(_) => ATTEMPT_DELAY,
                // Each attempt has its own bound.
                None => Duration::MAX,
            };
            let way = &way;
            attempts.extend(next.map(|address| async move {
                let outcome = self.dial(address, way).await;
                outcome.map_err(|Failure { phase, source }| {
                    (address, ConnectError::new(phase, endpoint, source))
                })
            }));
            match tokio::time::timeout(wait, attempts.next()).await {
                Ok(Some(Ok(conn))) => return Ok(conn),
                Ok(Some(Err(failure))) => failures.push(failure),
                Ok(None) => return Err(summary(&failures, endpoint)),
                Err(_) => {}
            }
        }
    }

    async fn dial(&self, address: SocketAddr, way: &Way) -> Result<QuicConn, Failure> {
        let begun = Instant::now();
        let (connecting, port) = self.start(address, way.config.clone(), &way.server_name)?;
        let timeout = self.options.handshake_timeout;
        let handshake = async {
            let connection = connecting.await?;
            // It waits for a server that lets us open no stream.
            let (send, recv) = connection.open_bi().await?;
            Ok(Link {
                connection,
                send,
                recv,
            })
        };
        let link = match tokio::time::timeout(timeout, handshake).await {
            Ok(link) => link.map_err(|error: quinn::ConnectionError| Failure::from(error))?,
            Err(_) => {
                let reason = format!("the server did not answer within {timeout:?}");
                let kind = io::ErrorKind::TimedOut;
                return Err(Failure::new(ConnectPhase::Dial, kind, reason));
            }
        };
        let source = self.options.source_for(address);
        let local = SocketAddr::new(source.unwrap_or_else(|| source_of(address)), port);
        let mut info = ConnInfo::new(
            ConnKind::Quic,
            Address::Socket(local),
            Address::Socket(address),
        );
        info.tls = way
            .generation
            .as_ref()
            .map(|generation| Arc::new(tls_info(&link.connection, generation, begun)));
        Ok(QuicConn::new(link, info, self.options.close_timeout))
    }

    /// Begins the handshake; says from which port.
    fn start(
        &self,
        address: SocketAddr,
        config: quinn::ClientConfig,
        name: &str,
    ) -> Result<(quinn::Connecting, u16), Failure> {
        let (socket, any): (_, IpAddr) = match address {
            SocketAddr::V4(_) => (&self.v4, Ipv4Addr::UNSPECIFIED.into()),
            SocketAddr::V6(_) => (&self.v6, Ipv6Addr::UNSPECIFIED.into()),
        };
        let any = self.options.source_for(address).unwrap_or(any);
        let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = |endpoint: &quinn::Endpoint| {
            let connecting = endpoint.connect_with(config.clone(), address, name)?;
            let port = endpoint.local_addr().map_or(0, |local| local.port());
            Ok((connecting, port))
        };
        if let Some(endpoint) = &*socket {
            match begin(endpoint) {
                // Its task ended, with its runtime or because of the socket: make another.
                Err(quinn::ConnectError::EndpointStopping) => {}
                outcome => return outcome.map_err(Failure::from),
            }
        }
        let endpoint =
            quinn::Endpoint::client(SocketAddr::new(any, 0)).map_err(|source| Failure {
                phase: ConnectPhase::Dial,
                source,
            })?;
        begin(socket.insert(endpoint)).map_err(Failure::from)
    }

    /// The configuration as the library takes it.
    fn prepare(&self, tls: Arc<rustls::ClientConfig>) -> Result<quinn::ClientConfig, Failure> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = &*prepared
            && Arc::ptr_eq(&prepared.from, &tls)
        {
            return Ok(prepared.config.clone());
        }
        // A clone resumes the sessions of the original.
        let mut config = (*tls).clone();
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols.push(ALPN.to_vec());
        }
        config.enable_early_data = false;
        let config = Arc::new(config);
        check_for_quic(&config)?;
        let crypto = QuicClientConfig::try_from(config).map_err(|error| unfit(&error))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        *prepared = Some(Prepared {
            from: tls,
            config: config.clone(),
        });
        Ok(config)
    }
}

/// What is known of the TLS within. QUIC has version 1.3 only, and quinn does not tell the suite.
fn tls_info(connection: &quinn::Connection, generation: &Generation, begun: Instant) -> TlsInfo {
    let alpn = connection
        .handshake_data()
        .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
        .and_then(|data| data.protocol);
    let certificates = connection
        .peer_identity()
        .and_then(|identity| {
            identity
                .downcast::<Vec<rustls_pki_types::CertificateDer<'static>>>()
                .ok()
        })
        .unwrap_or_default();
    TlsInfo {
        backend: Backend::Rustls,
        version: Some(TlsVersion::V1_3),
        cipher_suite: None,
        resumed: None,
        alpn,
        peer_certificates: generation
            .share_peer(certificates.iter().map(|one| one.to_vec()).collect()),
        generation: generation.number,
        handshake: begun.elapsed(),
    }
}

/// Begins a handshake that is thrown away: the library would panic over a configuration without
/// TLS 1.3.
fn check_for_quic(config: &Arc<rustls::ClientConfig>) -> Result<(), Failure> {
    let name = rustls_pki_types::ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
    let version = rustls::quic::Version::V1;
    rustls::quic::ClientConnection::new(config.clone(), version, name, Vec::new())
        .map(drop)
        .map_err(|error| unfit(&error))
}

fn unfit(error: &dyn std::error::Error) -> Failure {
    let reason = format!("this configuration of TLS does not fit QUIC: {error}");
    Failure::new(ConnectPhase::Tls, io::ErrorKind::InvalidInput, reason)
}

/// One error for all addresses. It is transient if that of one of them is.
fn summary(failures: &[(SocketAddr, ConnectError)], endpoint: &Endpoint) -> ConnectError {
    let (phase, kind) = failures
        .iter()
        .map(|(_, error)| error)
        .max_by_key(|error| error.is_transient())
        .map_or((ConnectPhase::Resolve, io::ErrorKind::NotFound), |error| {
            (error.phase(), error.io_error().kind())
        });
    let mut reasons: Vec<String> = failures
        .iter()
        .map(|(address, error)| format!("{address}: {}", error.io_error()))
        .collect();
    if reasons.is_empty() {
        reasons.push("the name has no addresses".to_owned());
    }
    ConnectError::new(phase, endpoint, io::Error::new(kind, reasons.join("; ")))
}

/// The address from which packets to `peer` leave, as the system's routes are now; the socket
/// itself is bound to all. Sends nothing.
fn source_of(peer: SocketAddr) -> IpAddr {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let route = || {
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect(peer)?;
        socket.local_addr()
    };
    route().map_or(any, |local: SocketAddr| local.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Conn;

    fn endpoint() -> Endpoint {
        "quic://server.test".parse().unwrap()
    }

    #[test]
    fn several_failures_become_one_that_tells_of_each() {
        use io::ErrorKind::{PermissionDenied, TimedOut};
        let failure = |port, phase, kind| {
            let source = io::Error::new(kind, format!("reason {port}"));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            (address, ConnectError::new(phase, &endpoint(), source))
        };
        let tls = failure(1, ConnectPhase::Tls, PermissionDenied);
        let dial = failure(2, ConnectPhase::Dial, TimedOut);
        let other = failure(3, ConnectPhase::Tls, PermissionDenied);

        let error = summary(&[], &endpoint());
        assert_eq!(error.phase(), ConnectPhase::Resolve);

        let both = summary(&[tls, dial], &endpoint());
        assert_eq!(
            (both.phase(), both.is_transient()),
            (ConnectPhase::Dial, true)
        );
        let text = "127.0.0.1:1: reason 1; 127.0.0.1:2: reason 2";
        assert_eq!(both.io_error().to_string(), text);

        let refused = summary(&[other], &endpoint());
        assert_eq!(
            (refused.phase(), refused.is_transient()),
            (ConnectPhase::Tls, false)
        );
    }

    #[tokio::test]
    async fn an_address_that_is_silent_or_refuses_does_not_hold_up_the_next() {
        let made = rcgen::generate_simple_self_signed(["server.test".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = Arc::new(tls);
        let start = |certificate, key: Vec<u8>| {
            let target = (Ipv4Addr::LOCALHOST, 1).into();
            let key = key.try_into().unwrap();
            mqtt_testkit::QuicFront::start(target, vec![certificate], key).unwrap()
        };
        let other = rcgen::generate_simple_self_signed(["other.test".to_owned()]).unwrap();
        let refused = start(other.cert.der().clone(), other.signing_key.serialize_der());
        let good = start(certificate, made.signing_key.serialize_der());
        let silent = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();

        // The silent one alone would take an hour.
        let options = QuicOptions::default()
            .with_source_addresses([Ipv4Addr::LOCALHOST.into()])
            .with_handshake_timeout(Duration::from_secs(3600));
        let connector = QuicConnector::with_rustls(options, move || Ok((tls.clone(), None)));
        let connector = connector.unwrap();
        let endpoint = "quic://127.0.0.1".parse().unwrap();
        let mut way = connector.0.resolve(&endpoint).await.ok().unwrap();
        way.addresses = vec![silent.local_addr().unwrap(), refused.addr(), good.addr()];
        way.server_name = "server.test".to_owned();
        let connect = connector.0.first_of(way, &endpoint);
        let conn = tokio::time::timeout(Duration::from_secs(20), connect).await;
        let conn = conn.unwrap().unwrap();
        assert_eq!(conn.info().peer, Address::Socket(good.addr()));
    }
}
