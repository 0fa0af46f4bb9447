//! TCP.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::net::TcpStream;
use tower_service::Service;

use crate::{Address, ConnInfo, ConnKind, ConnectError, ConnectPhase, Endpoint, StreamConn};

/// Options of TCP connections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpOptions {
    /// Send small packets at once rather than wait for more. Default true: what is written was
    /// batched above, and an acknowledgement that waits costs a round trip.
    pub nodelay: bool,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { nodelay: true }
    }
}

impl TcpOptions {
    /// With this [`nodelay`](Self::nodelay).
    #[must_use]
    pub fn with_nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }
}

/// Makes TCP connections: resolves the name and tries its addresses in their order.
///
/// Always ready. Dropping its future gives the attempt up.
#[derive(Clone, Debug, Default)]
pub struct TcpConnector {
    options: TcpOptions,
}

impl TcpConnector {
    /// With these options.
    pub fn new(options: TcpOptions) -> Self {
        Self { options }
    }

    /// Connects. Any endpoint with a host will do: what to speak is the caller's business.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<StreamConn<TcpStream>, ConnectError> {
        let failed = |phase, source| ConnectError::new(phase, &endpoint, source);
        let (Some(host), Some(port)) = (endpoint.host(), endpoint.port()) else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "TCP needs a host and a port");
            return Err(failed(ConnectPhase::Dial, source));
        };
        let addresses = tokio::net::lookup_host((host, port))
            .await
            .map_err(|source| failed(ConnectPhase::Resolve, source))?;
        let mut last = None;
        for address in addresses {
            match self.dial(address).await {
                Ok(conn) => return Ok(conn),
                Err(error) => last = Some(at(address, &error)),
            }
        }
        Err(match last {
            Some(source) => failed(ConnectPhase::Dial, source),
            None => {
                let source = io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
                failed(ConnectPhase::Resolve, source)
            }
        })
    }

    async fn dial(&self, address: std::net::SocketAddr) -> io::Result<StreamConn<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(self.options.nodelay)?;
        let local = Address::Socket(stream.local_addr()?);
        let info = ConnInfo::new(ConnKind::Tcp, local, Address::Socket(address));
        let conn = StreamConn::new(stream, info);
        #[cfg(target_os = "linux")]
        // Best effort: without it the peer's packets wait a little longer.
        let conn = conn.with_acknowledge_at_once(|stream| drop(stream.set_quickack(true)));
        Ok(conn)
    }
}

/// The error of one address among several.
fn at(address: std::net::SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
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
