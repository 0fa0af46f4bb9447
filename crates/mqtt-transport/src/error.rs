//! Why there is no connection.

use std::{fmt, io};

use thiserror::Error;

use crate::Endpoint;

/// A connection could not be made: in which phase, to where, why.
#[derive(Debug, Error)]
#[error("cannot {phase} {endpoint}")]
pub struct ConnectError {
    phase: ConnectPhase,
    endpoint: Endpoint,
    source: io::Error,
}

/// The steps of connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectPhase {
    /// Choosing how to connect.
    Choose,
    /// Finding the addresses of a name.
    Resolve,
    /// Reaching an address.
    Dial,
    /// Asking a proxy for the way on.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// Turning the connection into a WebSocket.
    Upgrade,
}

impl fmt::Display for ConnectPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Choose => "choose a connector for",
            Self::Resolve => "resolve the name of",
            Self::Dial => "dial",
            Self::Proxy => "get through the proxy to",
            Self::Tls => "agree on TLS with",
            Self::Upgrade => "open a WebSocket at",
        })
    }
}

impl ConnectError {
    /// An error of a connector.
    pub fn new(phase: ConnectPhase, endpoint: &Endpoint, source: io::Error) -> Self {
        Self {
            phase,
            endpoint: endpoint.clone(),
            source,
        }
    }

    /// In which phase.
    pub fn phase(&self) -> ConnectPhase {
        self.phase
    }

    /// To where.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What the system said.
    pub fn io_error(&self) -> &io::Error {
        &self.source
    }

    /// Whether another attempt can help without a change by a person.
    ///
    /// A server that is away comes back, so refused, reset, timed out and unreachable are
    /// transient, and so is a socket file that is not there yet. So is a name that is not found:
    /// the system does not tell a name that does not exist from a name server that is away. What is
    /// not supported or not permitted stays so.
    pub fn is_transient(&self) -> bool {
        is_transient(&self.source)
    }
}

/// Whether an error of a connection, or of making one, may be gone with another attempt: all are,
/// but those that say that something is not supported, not permitted or not a valid request. A
/// server's refusal of our certificate is one of them, though it may show with the first read only.
pub fn is_transient(error: &io::Error) -> bool {
    is_transient_kind(error.kind())
}

pub(crate) fn is_transient_kind(kind: io::ErrorKind) -> bool {
    !matches!(
        kind,
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
    )
}
