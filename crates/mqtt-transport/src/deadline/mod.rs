//! Deadlines, stacked on connectors and connections.
//!
//! None pays for a timer per operation. An operation that is ready at once touches neither timer
//! nor clock; one that has to wait notes when it began, and a single timer, made when first
//! needed, is moved on when it fires and the present wait began later. [`DeadlineHandle`] changes
//! any of them at any time, for whoever waits already too.

use std::{fmt, io, time::Duration};

use thiserror::Error;

mod config;
mod connect;
mod handle;
mod read;
mod stack;
mod watch;
mod write;

pub use config::DeadlineConfig;
pub use connect::{ConnectDeadline, ConnectDeadlineFuture, ConnectDeadlineLayer};
pub use handle::DeadlineHandle;
pub use read::ReadDeadline;
pub use stack::{DeadlineConn, Deadlines, DeadlinesFuture, DeadlinesLayer};
pub use write::WriteDeadline;

/// A deadline has passed. Found as the source of an [`io::Error`] of kind
/// [`TimedOut`](io::ErrorKind::TimedOut).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{operation} made no progress for {timeout:?}")]
#[non_exhaustive]
pub struct DeadlineExceeded {
    /// What took too long.
    pub operation: Operation,
    /// How long it was allowed to take.
    pub timeout: Duration,
}

impl From<DeadlineExceeded> for io::Error {
    fn from(exceeded: DeadlineExceeded) -> Self {
        Self::new(io::ErrorKind::TimedOut, exceeded)
    }
}

/// What a deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Connecting, from resolving the name on.
    Connect,
    /// Reading.
    Read,
    /// Writing, flushing or closing.
    Write,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Read => "reading",
            Self::Write => "writing",
        })
    }
}
