//! Deadlines, stacked on connectors and connections.
//!
//! None pays for a timer per operation. An operation that is ready at once touches neither timer
//! nor clock; one that has to wait notes when it began, and a single timer, made when first
//! needed, is moved on when it fires and the present wait began later.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use thiserror::Error;
use tokio::time::{Instant, Sleep};

mod connect;
mod read;
mod write;

pub use connect::{ConnectDeadline, ConnectDeadlineLayer};
pub use read::ReadDeadline;
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

/// Changes the deadline of a live connection.
///
/// A change takes effect with the next operation that has to wait, and for one that waits already
/// when its timer next fires: a longer time then counts at once, a shorter one after the old.
#[derive(Clone, Debug)]
pub struct DeadlineHandle(Arc<AtomicU64>);

/// The stored form of no deadline.
const NONE: u64 = u64::MAX;

impl DeadlineHandle {
    fn new(timeout: Option<Duration>) -> Self {
        let handle = Self(Arc::new(AtomicU64::new(NONE)));
        handle.set(timeout);
        handle
    }

    /// Allows operations this long, in whole microseconds; `None` for ever.
    pub fn set(&self, timeout: Option<Duration>) {
        let micros = timeout.map_or(NONE, |timeout| {
            u64::try_from(timeout.as_micros()).unwrap_or(NONE)
        });
        self.0.store(micros, Ordering::Relaxed);
    }

    /// How long operations are allowed to take.
    pub fn timeout(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            NONE => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }
}

/// Watches operations of one direction.
#[derive(Debug)]
struct Watch {
    operation: Operation,
    handle: DeadlineHandle,
    /// When the present wait began; `None` while nothing waits.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    fn new(operation: Operation, timeout: Option<Duration>) -> Self {
        Self {
            operation,
            handle: DeadlineHandle::new(timeout),
            since: None,
            timer: None,
        }
    }

    /// Passes on what an operation came to, or its deadline if it waits too long.
    fn check<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.since = None;
            return outcome;
        }
        Poll::Ready(Err(ready!(self.poll_expired(cx)).into()))
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<DeadlineExceeded> {
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            let Some(timeout) = self.handle.timeout() else {
                return Poll::Pending;
            };
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + timeout)));
            if timer.deadline() > since + timeout || timer.is_elapsed() {
                timer.as_mut().reset(since + timeout);
            }
            ready!(timer.as_mut().poll(cx));
            // It may have been set for an earlier wait, or for a shorter time.
            if self
                .handle
                .timeout()
                .is_some_and(|timeout| timer.deadline() >= since + timeout)
            {
                self.since = None;
                return Poll::Ready(DeadlineExceeded {
                    operation: self.operation,
                    timeout,
                });
            }
        }
    }
}
