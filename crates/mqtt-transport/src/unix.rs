//! Unix domain sockets.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::net::UnixStream;
use tower_service::Service;

use crate::{Address, ConnInfo, ConnKind, ConnectError, ConnectPhase, Endpoint, StreamConn};

/// Makes connections to Unix domain sockets.
///
/// Always ready. Dropping its future gives the attempt up.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnixConnector;

impl UnixConnector {
    /// Connects.
    pub async fn connect(
        &self,
        endpoint: Endpoint,
    ) -> Result<StreamConn<UnixStream>, ConnectError> {
        let failed = |source| ConnectError::new(ConnectPhase::Dial, &endpoint, source);
        let Some(path) = endpoint.socket_path() else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "a Unix socket needs a path");
            return Err(failed(source));
        };
        let stream = UnixStream::connect(path).await.map_err(failed)?;
        let info = ConnInfo::new(
            ConnKind::Unix,
            Address::Unnamed,
            Address::Path(path.to_owned()),
        );
        Ok(StreamConn::new(stream, info))
    }
}

impl Service<Endpoint> for UnixConnector {
    type Response = StreamConn<UnixStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let connector = *self;
        Box::pin(async move { connector.connect(endpoint).await })
    }
}
