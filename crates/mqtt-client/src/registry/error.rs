//! Why there is no session of a device.

use std::{sync::Arc, time::Duration};

use mqtt_pool::DialError;
use thiserror::Error;
use tokio::time::Instant;

use crate::{error::ConnectError, registry::RegistryStatus};

/// There is no session of a device. Every caller that waited for it is told.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Time is up. Opening goes on if others wait for it.
    #[error("timed out after {waited:.3?} ({status})")]
    #[non_exhaustive]
    Timeout {
        /// How long the call took.
        waited: Duration,
        /// The registry at the end; the call itself still counts as waiting.
        status: RegistryStatus,
    },
    /// It could not be opened.
    #[error("the session cannot be opened")]
    #[non_exhaustive]
    Connect {
        /// Why.
        #[source]
        cause: Arc<DialError<ConnectError>>,
        /// The server has refused this device before, and is not asked again until then.
        retry_at: Option<Instant>,
    },
    /// The registry is closed.
    #[error("the registry is closed")]
    Closed,
}

impl RegistryError {
    /// Whether another attempt may succeed with nothing changed on this side.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Connect { cause, .. } => is_transient(cause),
            Self::Closed => false,
        }
    }
}

pub(super) fn is_transient(cause: &DialError<ConnectError>) -> bool {
    match cause {
        DialError::Connect(error) => error.is_transient(),
        DialError::TimedOut(_) => true,
        DialError::Panicked | _ => false,
    }
}
