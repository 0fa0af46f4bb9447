//! Why there is no lease.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use crate::Status;

/// Why [`Pool::get`](crate::Pool::get) gave no lease. `E` is the error of
/// [`Connect`](crate::Connect).
#[derive(Debug)]
#[non_exhaustive]
pub enum AcquireError<E> {
    /// Time is up: `acquire_timeout` for the call, or `connect_timeout` for its connection.
    #[non_exhaustive]
    Timeout {
        /// How long the call took.
        waited: Duration,
        /// What it was doing at the end.
        phase: Phase,
        /// The pool at the end; the call itself is no longer counted as waiting.
        status: Status,
        /// Why the last connection of the pool failed, if none has succeeded since.
        last_connect_error: Option<Arc<E>>,
    },
    /// A new connection was needed, and failed.
    Connect(Arc<E>),
    /// The pool is closed.
    Closed,
}

/// What a call of [`Pool::get`](crate::Pool::get) is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// It waits for a member to be returned, because all there may be are leased or being
    /// connected.
    Queue,
    /// It connects a new member.
    Connect,
}

impl<E> fmt::Display for AcquireError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout {
                waited,
                phase,
                status,
                ..
            } => {
                let doing = match phase {
                    Phase::Queue => "waiting for a free connection",
                    Phase::Connect => "connecting",
                };
                write!(f, "timed out after {waited:.3?} {doing} ({status})")
            }
            Self::Connect(_) => f.write_str("connecting failed"),
            Self::Closed => f.write_str("the pool is closed"),
        }
    }
}

impl<E: Error + 'static> Error for AcquireError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Timeout {
                last_connect_error, ..
            } => last_connect_error.as_deref().map(|error| {
                let error: &(dyn Error + 'static) = error;
                error
            }),
            Self::Connect(error) => Some(&**error),
            Self::Closed => None,
        }
    }
}
