//! QUIC in front of a TCP server.
//!
//! For servers that listen on TCP only: the first bidirectional stream of each connection is
//! forwarded, byte for byte, to a TCP connection of its own. The two share their fate: when one side
//! is gone, so is the other.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, Incoming, VarInt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

/// Connections forwarded at once. Further ones wait unanswered.
const MAX_CONNECTIONS: usize = 4096;

/// From a client's first packet to its stream, and from the last byte sent to its arrival.
const PATIENCE: Duration = Duration::from_secs(10);

/// The code of a connection that ends without an error.
const NO_ERROR: VarInt = VarInt::from_u32(0);

/// A QUIC server on loopback that speaks `mqtt` (ALPN) and forwards to a TCP address.
///
/// Dropping it closes its connections and its socket.
#[derive(Debug)]
pub struct QuicFront {
    accepting: JoinHandle<()>,
    endpoint: Endpoint,
    addr: SocketAddr,
}

impl QuicFront {
    /// Listens on 127.0.0.1, on a port the system chooses, and forwards to `target`, up to 4096
    /// connections at a time. `certificates` are the server's own and those up to its root, `key`
    /// is its own.
    ///
    /// `target` need not listen yet; while it does not, connections are closed as soon as they have
    /// a stream.
    ///
    /// # Errors
    ///
    /// The certificates and the key are no pair, or the socket could not be made.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(
        target: SocketAddr,
        certificates: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> io::Result<Self> {
        let config = config(certificates, key).map_err(io::Error::other)?;
        let config = QuicServerConfig::try_from(config).map_err(io::Error::other)?;
        let config = quinn::ServerConfig::with_crypto(Arc::new(config));
        let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self {
            accepting: tokio::spawn(accept(endpoint.clone(), target, MAX_CONNECTIONS)),
            addr: endpoint.local_addr()?,
            endpoint,
        })
    }

    /// The UDP address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// It as an endpoint: `quic://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("quic://{}", self.addr)
    }
}

impl Drop for QuicFront {
    fn drop(&mut self) {
        self.endpoint.close(NO_ERROR, b"");
        // The forwarding tasks live in a set inside this one and end with it.
        self.accepting.abort();
    }
}

fn config(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<rustls::ServerConfig, rustls::Error> {
    // Named, since a program with several providers has no default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    Ok(config)
}

async fn accept(endpoint: Endpoint, target: SocketAddr, max_connections: usize) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept(), if connections.len() < max_connections => match incoming {
                Some(incoming) => {
                    connections.spawn(forward(incoming, target));
                }
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Ends without a word whatever happens: the client sees its connection close, as it would if it
/// had reached the server itself.
async fn forward(incoming: Incoming, target: SocketAddr) {
    let opened = async {
        let connection = incoming.await?;
        let stream = connection.accept_bi().await?;
        Ok::<_, quinn::ConnectionError>((connection, stream))
    };
    let Ok(Ok((connection, (send, recv)))) = tokio::time::timeout(PATIENCE, opened).await else {
        return;
    };
    if let Ok(mut far) = TcpStream::connect(target).await {
        // MQTT packets are small and each may be waited for.
        let _ = far.set_nodelay(true);
        let mut near = tokio::io::join(recv, send);
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        // What was written last is lost with the connection unless it has arrived.
        let (_, send) = near.into_inner();
        let _ = tokio::time::timeout(PATIENCE, send.stopped()).await;
    }
    connection.close(NO_ERROR, b"");
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A front before `target`, and a client that trusts it.
    fn start(target: SocketAddr) -> (QuicFront, Endpoint) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let front = QuicFront::start(target, vec![certificate.clone()], key).unwrap();

        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"mqtt".to_vec()];
        let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
        let mut client = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        client.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
        (front, client)
    }

    async fn server() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    #[tokio::test]
    async fn forwards_both_ways_until_either_side_closes() {
        let (listener, addr) = server().await;
        let (front, client) = start(addr);
        assert_eq!(front.url(), format!("quic://{}", front.addr()));

        for server_closes in [true, false] {
            let connecting = client.connect(front.addr(), "localhost").unwrap();
            let connection = connecting.await.unwrap();
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            send.write_all(b"ping").await.unwrap();
            let (mut far, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4];
            far.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"ping");
            far.write_all(b"pong").await.unwrap();
            recv.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"pong");

            if server_closes {
                drop(far);
                assert_eq!(recv.read(&mut bytes).await.unwrap(), None);
            } else {
                connection.close(NO_ERROR, b"");
                assert_eq!(far.read(&mut bytes).await.unwrap(), 0);
            }
        }
    }

    #[tokio::test]
    async fn closes_while_nobody_listens_behind_and_when_it_is_dropped() {
        let (listener, addr) = server().await;
        drop(listener);
        let (front, client) = start(addr);
        let connecting = client.connect(front.addr(), "localhost").unwrap();
        let connection = connecting.await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        connection.closed().await;

        let connecting = client.connect(front.addr(), "localhost").unwrap();
        let connection = connecting.await.unwrap();
        drop(front);
        connection.closed().await;
    }
}
