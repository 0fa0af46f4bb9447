//! TCP.

mod options;
mod source;

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::net::{TcpSocket, TcpStream};
use tower_service::Service;

pub use self::options::TcpOptions;
use self::source::{Source, Sources};
use crate::{
    Address, ConnInfo, ConnKind, ConnectError, ConnectPhase, Endpoint, Resolve, StreamConn,
    happy_eyeballs::{interleave, race},
    progress::in_phase,
    resolve::{SystemResolver, addresses},
};

/// Makes TCP connections: resolves the name, and lets its addresses race (RFC 8305).
///
/// It takes any endpoint with a host and does not look at the scheme: what is spoken over the
/// connection is the business of the connectors that are stacked on it. Use
/// [`Connector`](crate::Connector) where an `mqtts://` must not come out plain.
///
/// Always ready. Dropping its future gives every attempt up. Clones share whose turn it is among the
/// source addresses.
#[derive(Clone)]
pub struct TcpConnector {
    options: Arc<TcpOptions>,
    sources: Arc<Sources>,
    resolver: Arc<dyn Resolve>,
}

impl TcpConnector {
    /// With these options, and the system's resolver.
    pub fn new(options: TcpOptions) -> Self {
        Self {
            sources: Arc::new(Sources::new(&options.source_addresses)),
            options: Arc::new(options),
            resolver: Arc::new(SystemResolver),
        }
    }

    /// With another resolver than the system's. It is not asked for hosts that are addresses.
    #[must_use]
    pub fn with_resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    #[cfg(feature = "quic")]
    pub(crate) fn resolver(&self) -> &Arc<dyn Resolve> {
        &self.resolver
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// In phase [`Resolve`](ConnectPhase::Resolve) if the name leads nowhere, in phase
    /// [`Dial`](ConnectPhase::Dial) if no address can be reached; its text then names each with the
    /// cause.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<StreamConn<TcpStream>, ConnectError> {
        let found = addresses(&*self.resolver, &endpoint).await?;
        let order = interleave(&found, self.options.max_addresses.max(1));
        let source = self.sources.next();
        let race = race(&order, self.options.attempt_delay, |address| {
            self.dial(address, source)
        });
        in_phase(ConnectPhase::Dial, race)
            .await
            .map_err(|source| ConnectError::new(ConnectPhase::Dial, &endpoint, source))
    }

    async fn dial(&self, address: SocketAddr, source: Source) -> io::Result<StreamConn<TcpStream>> {
        let source = source.address_for(address)?;
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        self.options.apply(&socket)?;
        if let Some(source) = source {
            socket.bind(source).map_err(|error| {
                let text = format!("source address {}: {error}", source.ip());
                io::Error::new(error.kind(), text)
            })?;
        }
        let stream = socket.connect(address).await?;
        // A peer that resets at once may take it away; that shows when the connection is used.
        let local = stream
            .local_addr()
            .map_or(Address::Unnamed, Address::Socket);
        let info = ConnInfo::new(ConnKind::Tcp, local, Address::Socket(address));
        let conn = StreamConn::new(stream, info);
        #[cfg(target_os = "linux")]
        // Best effort: without it the peer's packets wait a little longer.
        let conn = conn.with_acknowledge_at_once(|stream| drop(stream.set_quickack(true)));
        Ok(conn)
    }
}

impl Default for TcpConnector {
    fn default() -> Self {
        Self::new(TcpOptions::default())
    }
}

impl fmt::Debug for TcpConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpConnector")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Service<Endpoint> for TcpConnector {
    type Response = StreamConn<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(endpoint).await })
    }
}
