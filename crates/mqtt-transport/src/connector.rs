//! One connector for every scheme.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tower_service::Service;

use crate::{BoxConn, ConnectError, ConnectPhase, Endpoint, Scheme, TcpConnector, TcpOptions};

/// Makes the connection that the scheme of an endpoint asks for.
///
/// A scheme it cannot honour is refused; never is a plain connection made where another was asked
/// for. Always ready. Dropping its future gives the attempt up.
#[derive(Clone, Debug, Default)]
pub struct Connector {
    tcp: TcpConnector,
}

impl Connector {
    /// With these options for TCP.
    pub fn new(tcp: TcpOptions) -> Self {
        Self {
            tcp: TcpConnector::new(tcp),
        }
    }

    /// Connects.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<BoxConn, ConnectError> {
        match endpoint.scheme() {
            Scheme::Tcp => Ok(Box::new(self.tcp.connect(endpoint).await?)),
            #[cfg(unix)]
            Scheme::Unix => Ok(Box::new(crate::UnixConnector.connect(endpoint).await?)),
            scheme => {
                let reason = format!("{}:// is not supported by this build", scheme.as_str());
                let source = io::Error::new(io::ErrorKind::Unsupported, reason);
                Err(ConnectError::new(ConnectPhase::Choose, &endpoint, source))
            }
        }
    }
}

impl Service<Endpoint> for Connector {
    type Response = BoxConn;
    type Error = ConnectError;
    type Future = ConnectFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> ConnectFuture {
        let connector = self.clone();
        ConnectFuture(Box::pin(async move { connector.connect(endpoint).await }))
    }
}

/// The future of [`Connector`] as a service.
#[must_use = "a connect does nothing until polled"]
pub struct ConnectFuture(Pin<Box<dyn Future<Output = Result<BoxConn, ConnectError>> + Send>>);

impl Future for ConnectFuture {
    type Output = Result<BoxConn, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ConnectFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectFuture").finish_non_exhaustive()
    }
}
