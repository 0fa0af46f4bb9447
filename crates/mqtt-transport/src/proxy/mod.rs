//! Proxies: a tunnel to the server through HTTP CONNECT or SOCKS5.
//!
//! The one rule: of what the proxy sends, exactly its answer is read. What the server sends right
//! after it is still in the connection, so that the tunnel is that very connection, unwrapped.

mod config;
mod http;
mod socks5;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};
use tower_service::Service;

use self::config::{Credentials, Protocol};
pub use self::config::{ProxyConfig, ProxyUrl, ProxyUrlError};
use crate::{
    ConfigErrors, Conn, ConnectError, ConnectPhase, Endpoint, TcpConnector, progress::in_phase,
};

/// Makes connections through a proxy: dials it with the connector within, and asks it for a tunnel to
/// the host and port of the endpoint.
///
/// The name of the host is resolved by the proxy. The connection is the one to the proxy, handed
/// on: its [`ConnInfo`](crate::ConnInfo) is of the connector within, so that `peer` is the proxy. As
/// with [`TcpConnector`], what is spoken through the tunnel is the business of what is stacked on it.
///
/// Ready when the connector within is. Dropping its future closes the tunnel.
#[derive(Clone, Debug)]
pub struct ProxyConnector<S = TcpConnector> {
    inner: S,
    config: ProxyConfig,
    credentials: Option<Credentials>,
}

impl<S> ProxyConnector<S> {
    /// Through the proxy of `config`, dialled by `inner` as an endpoint of scheme
    /// [`Tcp`](crate::Scheme::Tcp).
    ///
    /// # Errors
    ///
    /// All that is wrong in `config`.
    pub fn new(inner: S, config: ProxyConfig) -> Result<Self, ConfigErrors> {
        config.validate()?;
        Ok(Self {
            inner,
            credentials: config.credentials(),
            config,
        })
    }

    /// The same, dialled by `inner`.
    pub(crate) fn with_inner<T>(self, inner: T) -> ProxyConnector<T> {
        ProxyConnector {
            inner,
            config: self.config,
            credentials: self.credentials,
        }
    }
}

impl<S> Service<Endpoint> for ProxyConnector<S>
where
    S: Service<Endpoint, Error = ConnectError>,
    S::Response: Conn,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx)
    }

    /// # Errors
    ///
    /// In phase [`Proxy`](ConnectPhase::Proxy), whether the proxy cannot be reached, refuses, or makes
    /// no sense; the text names it and holds its status. Transient unless the proxy refuses the
    /// credentials, the server, or to make tunnels at all: a `407` does not pass, a `503` may.
    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let (Some(host), Some(port)) = (endpoint.host(), endpoint.port()) else {
            let text = "a proxy leads to a host and a port, which this endpoint has not";
            let source = io::Error::new(io::ErrorKind::InvalidInput, text);
            let error = ConnectError::new(ConnectPhase::Proxy, &endpoint, source);
            return Box::pin(std::future::ready(Err(error)));
        };
        if self.config.is_bypassed(host) {
            return Box::pin(self.inner.call(endpoint));
        }
        let dialling = self.inner.call(self.config.url.endpoint().clone());
        let tunnel = Tunnel {
            host: host.to_owned(),
            port,
            config: self.config.clone(),
            credentials: self.credentials.clone(),
        };
        Box::pin(async move {
            in_phase(ConnectPhase::Proxy, tunnel.open(dialling))
                .await
                .map_err(|source| ConnectError::new(ConnectPhase::Proxy, &endpoint, source))
        })
    }
}

/// What is asked of the proxy.
struct Tunnel {
    host: String,
    port: u16,
    config: ProxyConfig,
    credentials: Option<Credentials>,
}

impl Tunnel {
    async fn open<C: Conn>(
        self,
        dialling: impl Future<Output = Result<C, ConnectError>>,
    ) -> io::Result<C> {
        let named = |error: &io::Error| {
            let text = format!("{}: {error}", self.config.url);
            io::Error::new(error.kind(), text)
        };
        let mut conn = dialling.await.map_err(|error| named(error.io_error()))?;
        match timeout(self.config.timeout, self.ask(&mut conn)).await {
            Ok(Ok(())) => Ok(conn),
            Ok(Err(error)) => Err(named(&error)),
            Err(_) => {
                let text = format!("no answer within {:?}", self.config.timeout);
                Err(named(&io::Error::new(io::ErrorKind::TimedOut, text)))
            }
        }
    }

    async fn ask(&self, conn: &mut impl Conn) -> io::Result<()> {
        let credentials = self.credentials.as_ref();
        match self.config.url.protocol() {
            Protocol::Http => http::connect(conn, &self.host, self.port, credentials).await,
            Protocol::Socks5 => socks5::connect(conn, &self.host, self.port, credentials).await,
        }
    }
}

/// Reads the next bytes of an answer. That it ends instead has words of its own.
async fn read_answer(conn: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> io::Result<()> {
    match conn.read_exact(bytes).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let text = "the proxy closed the connection instead of answering";
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
        }
        outcome => outcome.map(drop),
    }
}

/// The peer does not speak the protocol. It may be what stands in for a proxy that is away, so that
/// another attempt is not ruled out.
fn nonsense(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
