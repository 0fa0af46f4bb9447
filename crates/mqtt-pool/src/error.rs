//! Why there is no lease.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::Status;

/// Why there is no lease. `E` is the error of [`Connect`](crate::Connect).
///
/// Its text has the pool's numbers; why connecting fails is among its sources.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcquireError<E> {
    /// Time is up.
    #[non_exhaustive]
    Timeout {
        /// How long the call took.
        waited: Duration,
        /// What it was doing at the end.
        phase: Phase,
        /// The pool at the end; the call itself is no longer counted as waiting.
        status: Status,
        /// Why the last dial of the pool failed, if none has succeeded since.
        last_dial_error: Option<Arc<DialError<E>>>,
    },
    /// Dialling fails, and callers are not to wait: the servers refuse for good, or `on_unavailable`
    /// says so.
    #[non_exhaustive]
    Unavailable {
        /// Why the last dial of the pool failed.
        last_dial_error: Option<Arc<DialError<E>>>,
        /// When the pool dials again; `None`: not before it is [cleared](crate::Pool::clear).
        retry_at: Option<Instant>,
        /// The pool at the end.
        status: Status,
    },
    /// The pool is closed.
    Closed,
}

/// What a caller is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// A member to be returned, because all there may be are leased or being connected; or, in
    /// [`SharedPool::by_key`](crate::SharedPool::by_key), the last handle on the member before.
    Queue,
    /// A new member, which is being connected or may not be yet because its endpoints have failed,
    /// or one that is returned before; or the check of an old one.
    Connect,
}

/// Why a dial of a pool has failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum DialError<E> {
    /// [`Connect::connect`](crate::Connect::connect) says so.
    Connect(E),
    /// It took longer than `connect_timeout`, which is given.
    TimedOut(Duration),
    /// It panicked.
    Panicked,
}

impl<E> AcquireError<E> {
    /// Whether another attempt may succeed with nothing changed on this side: not if the pool is
    /// closed, nor if it dials again only after it was [cleared](crate::Pool::clear).
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Unavailable { retry_at, .. } => retry_at.is_some(),
            Self::Closed => false,
        }
    }

    /// Why the last dial of the pool failed, if that is known and none has succeeded since.
    pub fn last_dial_error(&self) -> Option<&DialError<E>> {
        match self {
            Self::Timeout {
                last_dial_error, ..
            }
            | Self::Unavailable {
                last_dial_error, ..
            } => last_dial_error.as_deref(),
            Self::Closed => None,
        }
    }
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
                    Phase::Connect => "waiting for a new connection",
                };
                write!(f, "timed out after {waited:.3?} {doing} ({status})")
            }
            Self::Unavailable {
                retry_at: Some(at),
                status,
                ..
            } => {
                let left = at.saturating_duration_since(Instant::now());
                write!(f, "connecting fails, next attempt in {left:.1?} ({status})")
            }
            Self::Unavailable {
                retry_at: None,
                status,
                ..
            } => write!(f, "connecting fails, no further attempt is made ({status})"),
            Self::Closed => f.write_str("the pool is closed"),
        }
    }
}

impl<E: Error + 'static> Error for AcquireError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let error = self.last_dial_error()?;
        Some(error)
    }
}

impl<E> fmt::Display for DialError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(_) => f.write_str("connecting failed"),
            Self::TimedOut(after) => write!(f, "connecting took longer than {after:?}"),
            Self::Panicked => f.write_str("connecting panicked"),
        }
    }
}

impl<E: Error + 'static> Error for DialError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(error) => Some(error),
            Self::TimedOut(_) | Self::Panicked => None,
        }
    }
}
