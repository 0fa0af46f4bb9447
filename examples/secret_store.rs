//! Certificates from a secret store, renewed while sessions live.
//!
//! ```text
//! cargo run -p examples --example secret_store
//! ```
//!
//! A `VaultSource` reads certificate, key and authority over HTTP from a store that speaks as
//! HashiCorp Vault's KV version 2 does. Everything else is here to watch it at work, on loopback: a
//! small store, and an MQTT server behind TLS that asks clients who they are. Sessions are opened
//! while the store has a new version, is sealed, and refuses a token. `VAULT_TOKEN`, if it is set,
//! is the store's token. Lines with `mqtt_transport::audit` are the audit trail.

pub(crate) mod stand_ins;

use std::{error::Error, io, net::SocketAddr, process::ExitCode, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, header::HeaderValue};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use mqtt_client::{Publish, QoS, Session, SessionConfig, SessionConnector};
use mqtt_testkit::EmbeddedServer;
use mqtt_transport::{
    ConnectDeadline, TcpConnector,
    tls::{
        AUDIT_TARGET, Backend, BoxFuture, IdentityMaterial, MaterialError, MaterialSource,
        Reloading, Tls, TlsConfig, TlsConnector, TlsMaterial, Trust,
    },
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use stand_ins::{Authority, Store, TlsFront};
use tokio::time::timeout;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, fmt, layer::SubscriberExt};

/// How long any one step may take before the example fails.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    print_audit_trail();
    let token = std::env::var("VAULT_TOKEN").unwrap_or_else(|_| "token-of-the-example".to_owned());
    match run(token.into()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn print_audit_trail() {
    let audit = Targets::new().with_target(AUDIT_TARGET, LevelFilter::INFO);
    let lines = fmt::layer().without_time().with_filter(audit);
    // Fails only if there is one already.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines));
}

/// The whole story; an error if it goes otherwise than told.
pub(crate) async fn run(token: SecretString) -> Result<(), Box<dyn Error>> {
    let authority = Authority::new()?;
    let store = Store::start(token.clone(), authority.issue("first gateway")?).await?;
    let server = EmbeddedServer::start().await?;
    let mut front = TlsFront::start(&authority, server.addr()).await?;

    println!("--- version 1 is in the store");
    let tls = Tls::with_source(tls_config(), VaultSource::new(store.address, token)?).await?;
    let old = connect(&tls, "old", &mut front, "CN=first gateway").await?;

    println!("--- version 2 is in the store: the next look finds it, nobody has to ask");
    let mut generations = tls.subscribe();
    store.put(authority.issue("second gateway")?);
    timeout(PATIENCE, generations.wait_for(|one| one.number == 2)).await??;
    let new = connect(&tls, "new", &mut front, "CN=second gateway").await?;
    publish(&old, "old").await?;

    println!("--- the store is sealed: the last good material stays");
    store.set_sealed(true);
    match tls.reload().await {
        Ok(outcome) => return Err(format!("a sealed store gave material: {outcome:?}").into()),
        Err(error) => println!("reload: {}", chain(&error)),
    }
    let late = connect(&tls, "late", &mut front, "CN=second gateway").await?;

    println!("--- the token is wrong");
    store.set_sealed(false);
    let wrong = VaultSource::new(store.address, "a-wrong-token".into())?;
    match Tls::with_source(tls_config(), wrong).await {
        Ok(_) => return Err("the store took a wrong token".into()),
        Err(error) => println!("start: {}", chain(&error)),
    }

    for session in [old, new, late] {
        session.disconnect().await?;
    }
    server.stop().await?;
    println!("--- all of it went as it should");
    Ok(())
}

/// Without places to read from, since the source brings everything. Looks every 200 ms, so that
/// there is something to see; a minute is the default. rustls, since that needs nothing installed.
pub(crate) fn tls_config() -> TlsConfig {
    TlsConfig::default()
        .with_backend(Backend::Rustls)
        .with_trust(Trust::Own)
        .with_reload(Reloading::default().with_interval(Duration::from_millis(200)))
}

/// Opens a session over mutual TLS, says who the server takes it for, and publishes a message.
async fn connect(
    tls: &Tls,
    name: &str,
    front: &mut TlsFront,
    expected: &str,
) -> Result<Session, Box<dyn Error>> {
    let connector = TlsConnector::new(TcpConnector::default(), tls.clone());
    let connector = ConnectDeadline::new(connector, Duration::from_secs(3));
    let connector = SessionConnector::with_connector(connector, SessionConfig::new(name))?;
    let session = connector.connect(front.endpoint.clone()).await?;
    let peer = timeout(PATIENCE, front.peers.recv())
        .await?
        .unwrap_or_default();
    let generation = session
        .conn_info()
        .tls
        .as_ref()
        .map_or(0, |tls| tls.generation);
    println!("session {name}: generation {generation}, and the server sees {peer}");
    if peer != expected {
        return Err(format!("the server sees {peer}, not {expected}").into());
    }
    publish(&session, name).await?;
    Ok(session)
}

async fn publish(session: &Session, name: &str) -> Result<(), Box<dyn Error>> {
    let message = Publish::new("gateway/state", name.to_owned())?.with_qos(QoS::AtLeastOnce);
    timeout(PATIENCE, session.publish(message)).await??;
    println!("session {name}: a message was acknowledged");
    Ok(())
}

/// An error and what led to it, on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Material from a secret of Vault's KV version 2 with the fields `certificate`, `key` and `ca`, each
/// in PEM.
///
/// It speaks plain HTTP, which is enough for a store or an agent on this host. For any other, an
/// HTTPS connector belongs in the place of [`HttpConnector`].
pub(crate) struct VaultSource {
    client: Client<HttpConnector, Empty<Bytes>>,
    secret: Uri,
    token: SecretString,
}

/// The longest answer taken, in bytes. Chains of certificates are a few thousand.
const MAX_ANSWER: usize = 256 * 1024;

/// How long the store may take for all of its answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

impl VaultSource {
    pub(crate) fn new(store: SocketAddr, token: SecretString) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            secret: format!("http://{store}/v1/secret/data/mqtt/gateway").parse()?,
            token,
        })
    }

    async fn read(&self) -> io::Result<TlsMaterial> {
        let mut token = HeaderValue::from_str(self.token.expose_secret())
            .map_err(|_| invalid("the token has characters that no HTTP header takes"))?;
        token.set_sensitive(true);
        let request = Request::get(&self.secret)
            .header("X-Vault-Token", token)
            .body(Empty::new())
            .map_err(io::Error::other)?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(io::Error::other)?;
        refuse(response.status())?;

        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        // The parser's own text is left out: it may repeat what was read, a key perhaps.
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| invalid("this is not an answer of KV version 2 with our three fields"))?;
        let Versioned { data, metadata } = answer.data;
        let identity = IdentityMaterial::pem(data.certificate.into_bytes(), data.key.into_bytes());
        Ok(TlsMaterial::default()
            .with_roots([data.ca.into_bytes()])
            .with_identity(identity)
            .with_version(format!("{} of {}", metadata.version, metadata.created_time)))
    }
}

impl MaterialSource for VaultSource {
    fn name(&self) -> &str {
        "vault"
    }

    fn load(&self) -> BoxFuture<'_, Result<TlsMaterial, MaterialError>> {
        Box::pin(async {
            let read = timeout(STORE_TIMEOUT, self.read()).await;
            let read = read.unwrap_or_else(|_| {
                let reason = format!("the store did not answer within {STORE_TIMEOUT:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, reason))
            });
            read.map_err(|source| MaterialError::new(&self.secret, source))
        })
    }
}

fn refuse(status: StatusCode) -> io::Result<()> {
    let (kind, reason) = match status {
        StatusCode::OK => return Ok(()),
        StatusCode::FORBIDDEN => (
            io::ErrorKind::PermissionDenied,
            "the token is refused, or may not read this",
        ),
        StatusCode::NOT_FOUND => (io::ErrorKind::NotFound, "there is no such secret"),
        StatusCode::SERVICE_UNAVAILABLE => {
            (io::ErrorKind::Other, "the store is sealed or not ready")
        }
        _ => (io::ErrorKind::Other, "the store did not answer as expected"),
    };
    Err(io::Error::new(
        kind,
        format!("{reason} (HTTP status {})", status.as_u16()),
    ))
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[derive(Deserialize)]
struct Answer {
    data: Versioned,
}

#[derive(Deserialize)]
struct Versioned {
    data: Secret,
    metadata: Metadata,
}

/// Not printable: it holds a key.
#[derive(Deserialize)]
struct Secret {
    certificate: String,
    key: String,
    ca: String,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    created_time: String,
}
