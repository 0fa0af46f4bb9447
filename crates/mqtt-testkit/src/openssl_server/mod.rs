//! A TLS server by OpenSSL inside the process, which tells what it saw of every handshake.
//!
//! One thread accepts and one serves each connection, with blocking sockets, so that a client that
//! is measured shares no runtime with it. `builder` has what can be chosen, `service` what happens
//! after the handshake.

mod builder;
mod service;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use openssl::nid::Nid;
use openssl::ssl::{
    HandshakeError, MidHandshakeSslStream, NameType, Ssl, SslContext, SslRef, SslStream,
};
use tokio::sync::watch;

pub use builder::{ClientCertificate, OpensslServerBuilder, TlsVersion};
pub use service::Service;

/// Connections served at once. Further ones are closed as soon as they are made.
const MAX_CONNECTIONS: usize = 1024;

/// Handshakes that are told of. Further ones are not recorded.
const MAX_HANDSHAKES: usize = 100_000;

/// How long a test waits for a handshake; reached only when it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two tries to accept, after one that failed, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What the server saw of one handshake. Of a failed one, as much as there was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshake {
    /// Why it failed, in OpenSSL's words, with what was wrong with the client's certificate; `None`
    /// if it did not.
    pub error: Option<String>,
    /// The version: `TLSv1.2`, `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite by its registered name, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: Option<&'static str>,
    /// Whether it took up an earlier session.
    pub resumed: bool,
    /// The protocol that was agreed upon by ALPN.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client asked for (SNI). OpenSSL does not tell when TLS 1.2 is resumed.
    pub server_name: Option<String>,
    /// The common name in the client's certificate; that of the earlier session's if resumed.
    pub client_common_name: Option<String>,
}

impl Handshake {
    fn new(ssl: &SslRef, error: Option<String>) -> Self {
        let cipher = ssl.current_cipher();
        let client_common_name = ssl.peer_certificate().and_then(|certificate| {
            let mut names = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
            Some(names.next()?.data().to_string().ok()?.to_string())
        });
        Self {
            error,
            version: ssl.version_str(),
            cipher: cipher.and_then(|cipher| cipher.standard_name()),
            resumed: ssl.session_reused(),
            alpn: ssl.selected_alpn_protocol().map(<[u8]>::to_vec),
            server_name: ssl.servername(NameType::HOST_NAME).map(str::to_owned),
            client_common_name,
        }
    }
}

/// A TLS server by OpenSSL on 127.0.0.1.
///
/// A connection whose handshake failed, or whose service is over, stays half-open until the client
/// closes it too, so that the client reads what was sent last, and no reset.
///
/// Dropping it closes the port and every connection, and waits until its threads have ended, which
/// takes no longer than their sockets' closing.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use mqtt_testkit::pki::Authority;
/// use mqtt_testkit::{OpensslServer, Service};
///
/// let identity = Authority::new("root").server(&["localhost"]).issue();
/// let server = OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
///     .service(Service::Mqtt)
///     .start()?;
/// println!("connect to {}", server.url());
/// let seen = server.handshakes(2).await;
/// assert!(seen[1].resumed);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OpensslServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    context: SslContext,
    service: Service,
    nodelay: bool,
    handshakes: watch::Sender<Vec<Handshake>>,
    received: AtomicU64,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    closed: bool,
    next: u64,
    /// The socket, to be shut down under the thread that serves it.
    open: HashMap<u64, (TcpStream, JoinHandle<()>)>,
}

impl OpensslServer {
    /// Options for a server with this certificate, its intermediates after it, and this key, which
    /// is not encrypted; all in PEM.
    #[must_use]
    pub fn builder(chain_pem: &str, key_pem: &str) -> OpensslServerBuilder {
        OpensslServerBuilder::new(chain_pem, key_pem)
    }

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The endpoint: `mqtts://localhost:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtts://localhost:{}", self.addr.port())
    }

    /// The handshakes so far, in the order in which they ended, when there are at least `count`; the
    /// first 100,000 at most.
    ///
    /// Dropping the future changes nothing.
    ///
    /// # Panics
    ///
    /// If there are not as many within twenty seconds.
    pub async fn handshakes(&self, count: usize) -> Vec<Handshake> {
        let mut seen = self.shared.handshakes.subscribe();
        let enough = seen.wait_for(|handshakes| handshakes.len() >= count);
        if let Ok(Ok(handshakes)) = tokio::time::timeout(PATIENCE, enough).await {
            return handshakes.clone();
        }
        let seen = self.shared.handshakes.borrow();
        panic!("{count} handshakes were expected, there were {seen:?}");
    }

    /// How many bytes of payload have come so far, on all connections.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    fn start(context: SslContext, service: Service, nodelay: bool) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            context,
            service,
            nodelay,
            handshakes: watch::Sender::default(),
            received: AtomicU64::default(),
            connections: Mutex::default(),
        });
        let accepting = spawn("openssl-accept", {
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        })?;
        Ok(Self {
            addr,
            shared,
            accepting: Some(accepting),
        })
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let open = {
            let mut connections = self.shared.connections();
            connections.closed = true;
            std::mem::take(&mut connections.open)
        };
        // Wakes the accepting thread, which then looks whether it is closed. A full backlog wakes
        // it as well.
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
        for (stream, _) in open.values() {
            // Fails only for a connection that the client has already reset.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let serving = open.into_values().map(|(_, serving)| serving);
        for thread in self.accepting.take().into_iter().chain(serving) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, handshake: Handshake) {
        self.handshakes.send_if_modified(|handshakes| {
            let room = handshakes.len() < MAX_HANDSHAKES;
            if room {
                handshakes.push(handshake);
            }
            room
        });
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("service", &self.service)
            .field("handshakes", &self.handshakes.borrow().len())
            .finish_non_exhaustive()
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        // Held until the connection is in the table, so that its thread, which takes it out again,
        // cannot be there first.
        let mut connections = shared.connections();
        if connections.closed {
            return;
        }
        match accepted {
            Ok((stream, _)) if connections.open.len() < MAX_CONNECTIONS => {
                let id = connections.next;
                connections.next += 1;
                // One that cannot be served is closed, as if there were too many.
                if let Ok(entry) = serve(id, stream, shared) {
                    connections.open.insert(id, entry);
                }
            }
            Ok(_) => {}
            Err(_) => {
                drop(connections);
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn serve(
    id: u64,
    stream: TcpStream,
    shared: &Arc<Shared>,
) -> io::Result<(TcpStream, JoinHandle<()>)> {
    stream.set_nodelay(shared.nodelay)?;
    let socket = stream.try_clone()?;
    let shared = Arc::clone(shared);
    let serving = spawn("openssl-serve", move || {
        match handshake(stream, &shared) {
            Ok(mut stream) => {
                // However it ends, the client sees it end.
                let _ = service::run(shared.service, &mut stream, &shared.received);
                let _ = stream.shutdown();
                linger(stream.get_ref());
            }
            Err(stream) => linger(stream.get_ref()),
        }
        shared.connections().open.remove(&id);
    })?;
    Ok((socket, serving))
}

/// The stream, or in its place the one on which the handshake failed.
fn handshake(
    stream: TcpStream,
    shared: &Shared,
) -> Result<SslStream<TcpStream>, MidHandshakeSslStream<TcpStream>> {
    let ssl = Ssl::new(&shared.context).expect("memory for a connection");
    let error = match ssl.accept(stream) {
        Ok(stream) => {
            shared.record(Handshake::new(stream.ssl(), None));
            return Ok(stream);
        }
        Err(error) => error,
    };
    let text = error.to_string();
    match error {
        HandshakeError::Failure(stream) | HandshakeError::WouldBlock(stream) => {
            shared.record(Handshake::new(stream.ssl(), Some(text)));
            Err(stream)
        }
        HandshakeError::SetupFailure(error) => panic!("memory for a connection: {error}"),
    }
}

/// Ends the sending side and waits until the client has ended its own. A socket that is closed with
/// bytes unread resets the connection, and the reset overtakes the alert that says why.
fn linger(mut stream: &TcpStream) {
    if stream.shutdown(Shutdown::Write).is_ok() {
        let _ = io::copy(&mut stream, &mut io::sink());
    }
}
