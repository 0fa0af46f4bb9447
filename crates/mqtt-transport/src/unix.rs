//! Unix domain sockets.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::net::UnixStream;
use tower_service::Service;

use crate::{
    Address, ConnInfo, ConnKind, ConnectError, ConnectPhase, Endpoint, StreamConn,
    progress::in_phase,
};

/// Makes connections to Unix domain sockets: by path, and on Linux by abstract name.
///
/// A socket that is not there yet, or that nobody listens on, is a transient error; one that may not
/// be used is not. Always ready. Dropping its future gives the attempt up.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnixConnector;

impl UnixConnector {
    /// Connects.
    ///
    /// # Errors
    ///
    /// In phase [`Choose`](ConnectPhase::Choose) for an abstract name on a system without them,
    /// otherwise in phase [`Dial`](ConnectPhase::Dial).
    pub async fn connect(
        &self,
        endpoint: Endpoint,
    ) -> Result<StreamConn<UnixStream>, ConnectError> {
        let (path, peer) = named(&endpoint)?;
        let stream = in_phase(ConnectPhase::Dial, UnixStream::connect(path))
            .await
            .map_err(|source| {
                ConnectError::new(ConnectPhase::Dial, &endpoint, explained(source))
            })?;
        let info = ConnInfo::new(ConnKind::Unix, Address::Unnamed, peer);
        Ok(StreamConn::new(stream, info))
    }
}

/// The path of a socket as tokio takes it, which is a NUL before an abstract name.
fn named(endpoint: &Endpoint) -> Result<(PathBuf, Address), ConnectError> {
    if let Some(path) = endpoint.socket_path() {
        return Ok((path.to_owned(), Address::Path(path.to_owned())));
    }
    let (phase, kind, text) = match endpoint.abstract_name() {
        Some(name) if HAS_ABSTRACT_NAMES => {
            let path = PathBuf::from(format!("\0{name}"));
            return Ok((path, Address::Abstract(name.to_owned())));
        }
        Some(_) => (
            ConnectPhase::Choose,
            io::ErrorKind::Unsupported,
            "only Linux has abstract names of Unix sockets",
        ),
        None => (
            ConnectPhase::Dial,
            io::ErrorKind::InvalidInput,
            "a Unix socket needs a path",
        ),
    };
    let source = io::Error::new(kind, text);
    Err(ConnectError::new(phase, endpoint, source))
}

const HAS_ABSTRACT_NAMES: bool = cfg!(any(target_os = "android", target_os = "linux"));

/// Puts words to the one error whose own text misleads.
fn explained(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        let text = "too many connections wait to be accepted there";
        return io::Error::new(io::ErrorKind::WouldBlock, text);
    }
    error
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
