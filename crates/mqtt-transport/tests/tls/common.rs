//! Clients of each backend, from certificates in memory.

use std::sync::{Arc, Mutex};

use mqtt_testkit::pki::{Authority, Identity};
use mqtt_transport::{
    BoxConn, Conn, ConnectError, Endpoint, StreamConn, TcpConnector,
    tls::{
        Backend, IdentityMaterial, Reloading, Tls, TlsConfig, TlsConn, TlsConnector, TlsError,
        TlsMaterial, Trust, material_from,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::ServiceExt;

pub(crate) const BACKENDS: [Backend; 2] = [Backend::NativeTls, Backend::Rustls];

pub(crate) type Connected = TlsConn<StreamConn<TcpStream>>;

/// Trusts nobody but what the material says, and looks at it only when told to.
pub(crate) fn config(backend: Backend) -> TlsConfig {
    TlsConfig::default()
        .with_backend(backend)
        .with_trust(Trust::Own)
        .with_reload(Reloading::default().with_interval(mqtt_transport::Limit::Never))
}

pub(crate) fn trusting(root: &Authority) -> TlsMaterial {
    TlsMaterial::default().with_roots([root.certificate_pem().into_bytes()])
}

pub(crate) fn showing(material: TlsMaterial, identity: &Identity) -> TlsMaterial {
    material.with_identity(IdentityMaterial::pem(
        identity.chain_pem(),
        identity.key_pem().into_bytes(),
    ))
}

pub(crate) async fn tls_with(config: TlsConfig, material: TlsMaterial) -> Result<Tls, TlsError> {
    let source = material_from("test", move || {
        let material = material.clone();
        async move { Ok(material) }
    });
    Tls::with_source(config, source).await
}

pub(crate) async fn tls(backend: Backend, material: TlsMaterial) -> Tls {
    tls_with(config(backend), material).await.unwrap()
}

/// Material that a test replaces.
#[derive(Clone)]
pub(crate) struct Store(Arc<Mutex<TlsMaterial>>);

impl Store {
    pub(crate) fn new(material: TlsMaterial) -> Self {
        Self(Arc::new(Mutex::new(material)))
    }

    pub(crate) fn put(&self, material: TlsMaterial) {
        *self.0.lock().unwrap() = material;
    }

    pub(crate) async fn tls(&self, config: TlsConfig) -> Tls {
        let store = self.clone();
        let source = material_from("store", move || {
            let material = store.0.lock().unwrap().clone();
            async move { Ok(material) }
        });
        Tls::with_source(config, source).await.unwrap()
    }
}

pub(crate) async fn connect(tls: &Tls, url: &str) -> Result<Connected, ConnectError> {
    let endpoint: Endpoint = url.parse().unwrap();
    TlsConnector::new(TcpConnector::default(), tls.clone())
        .oneshot(endpoint)
        .await
}

/// Sends something and has it sent back, so that tickets were read too.
pub(crate) async fn echo(conn: &mut impl Conn) -> std::io::Result<()> {
    conn.write_all(b"ping").await?;
    conn.flush().await?;
    let mut read = [0; 4];
    conn.read_exact(&mut read).await?;
    assert_eq!(&read, b"ping");
    Ok(())
}

/// Connects, sends something to and fro, and closes. What fails says why, wherever it shows.
pub(crate) async fn visit(tls: &Tls, url: &str) -> Result<(), String> {
    let mut conn = connect(tls, url).await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    })?;
    echo(&mut conn).await.map_err(|error| error.to_string())?;
    let _ = conn.shutdown().await;
    Ok(())
}

/// `0x10 …`: a CONNECT of MQTT 3.1.1 without a client identifier, and its CONNACK.
pub(crate) async fn connack(conn: &mut BoxConn) -> std::io::Result<()> {
    let connect = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 30, 0, 0];
    conn.write_all(&connect).await?;
    conn.flush().await?;
    let mut answer = [0; 4];
    conn.read_exact(&mut answer).await?;
    assert_eq!(answer, [0x20, 2, 0, 0]);
    Ok(())
}
