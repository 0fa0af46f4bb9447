//! TLS in front of a server that has none, for clients that show a certificate.

use std::{
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use mqtt_transport::{Endpoint, tls::CertificateFacts};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

use super::Authority;

pub(crate) struct TlsFront {
    pub(crate) endpoint: Endpoint,
    /// The subject of each client's certificate.
    pub(crate) peers: mpsc::Receiver<String>,
    _tasks: JoinSet<()>,
}

impl TlsFront {
    /// Takes clients that `authority` has issued certificates to, and forwards them to `server`.
    pub(crate) async fn start(
        authority: &Authority,
        server: SocketAddr,
    ) -> Result<Self, Box<dyn Error>> {
        let own = authority.issue("server")?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(own.ca.as_bytes())?)?;
        let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes())?;
        // Named, since rustls refuses to choose where a build has several.
        let provider = Arc::new(ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients.build()?)
            .with_single_cert(vec![certificate], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let endpoint = format!("mqtts://{}", listener.local_addr()?).parse()?;
        let (seen, peers) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(forward(acceptor.clone(), stream, server, seen.clone()));
            }
        });
        Ok(Self {
            endpoint,
            peers,
            _tasks: tasks,
        })
    }
}

/// Until either side closes; a client that is refused sees why, and nobody else has to.
async fn forward(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    server: SocketAddr,
    seen: mpsc::Sender<String>,
) -> io::Result<()> {
    let mut near = acceptor.accept(stream).await?;
    let (_, connection) = near.get_ref();
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let facts = certificate.and_then(|certificate| CertificateFacts::from_der(certificate));
    // Whoever holds the front may not be interested.
    let _ = seen.try_send(facts.map_or_else(String::new, |facts| facts.subject));
    let mut far = TcpStream::connect(server).await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}
