//! TLS on top of any connector.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::{Tls, TlsConn, TlsInfo, audit, name};
use crate::{Conn, ConnectError, ConnectPhase, Endpoint, progress::in_phase};

/// A connector that speaks TLS on the connections of another.
///
/// The server's certificate must have the name in [`TlsConfig::server_name`](super::TlsConfig), or
/// else the endpoint's host. Dropping its future gives the attempt up.
#[derive(Clone, Debug)]
pub struct TlsConnector<S> {
    inner: S,
    tls: Tls,
}

impl<S> TlsConnector<S> {
    /// On the connections of `inner`.
    pub fn new(inner: S, tls: Tls) -> Self {
        Self { inner, tls }
    }
}

/// Puts TLS on connectors.
#[derive(Clone, Debug)]
pub struct TlsLayer {
    tls: Tls,
}

impl TlsLayer {
    /// With these options and material.
    pub fn new(tls: Tls) -> Self {
        Self { tls }
    }
}

impl<S> Layer<S> for TlsLayer {
    type Service = TlsConnector<S>;

    fn layer(&self, inner: S) -> TlsConnector<S> {
        TlsConnector::new(inner, self.tls.clone())
    }
}

impl<S> Service<Endpoint> for TlsConnector<S>
where
    S: Service<Endpoint, Response: Conn, Error = ConnectError, Future: Send + 'static>,
{
    type Response = TlsConn<S::Response>;
    type Error = ConnectError;
    type Future = TlsConnectFuture<S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let dialled = self.inner.call(endpoint.clone());
        let tls = self.tls.clone();
        TlsConnectFuture(Box::pin(async move {
            let conn = dialled.await?;
            tls.handshake(conn, &endpoint).await
        }))
    }
}

type Connecting<C> = Pin<Box<dyn Future<Output = Result<TlsConn<C>, ConnectError>> + Send>>;

/// The future of [`TlsConnector`].
#[must_use = "a connect does nothing until polled"]
pub struct TlsConnectFuture<C>(Connecting<C>);

impl<C> Future for TlsConnectFuture<C> {
    type Output = Result<TlsConn<C>, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<C> fmt::Debug for TlsConnectFuture<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnectFuture").finish_non_exhaustive()
    }
}

impl Tls {
    /// Shakes hands on a connection that was made to `endpoint`, with the present generation.
    pub async fn handshake<C: Conn>(
        &self,
        conn: C,
        endpoint: &Endpoint,
    ) -> Result<TlsConn<C>, ConnectError> {
        let generation = self.generation();
        let config = self.config();
        let begun = Instant::now();
        let stream = match config.server_name.as_deref().or_else(|| endpoint.host()) {
            None => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "there is no name to check its certificate for: set tls.server_name",
            )),
            Some(name) => {
                let handshake = async {
                    let name = name::parse(name)
                        .map_err(|reason| io::Error::new(io::ErrorKind::InvalidInput, reason))?;
                    generation.ready.handshake(conn, name.to_owned()).await
                };
                let handshake = tokio::time::timeout(config.handshake_timeout, handshake);
                in_phase(ConnectPhase::Tls, handshake)
                    .await
                    .unwrap_or_else(|_| {
                        let reason = format!(
                            "the handshake took longer than {:?}",
                            config.handshake_timeout
                        );
                        Err(io::Error::new(io::ErrorKind::TimedOut, reason))
                    })
            }
        };
        let stream = stream.map_err(|error| {
            audit::handshake(endpoint, generation.number, Err(&error));
            ConnectError::new(ConnectPhase::Tls, endpoint, error)
        })?;
        let facts = stream.facts();
        let known = TlsInfo {
            backend: config.backend,
            version: facts.version,
            cipher_suite: facts.cipher_suite,
            resumed: facts.resumed,
            alpn: facts.alpn,
            peer_certificates: generation.share_peer(facts.peer_certificates),
            generation: generation.number,
            handshake: begun.elapsed(),
        };
        audit::handshake(endpoint, generation.number, Ok(&known));
        let mut info = stream.inner().info().clone();
        info.tls = Some(Arc::new(known));
        Ok(TlsConn::new(stream, info))
    }
}
