//! A pool in numbers.

use std::{fmt, time::Duration};

/// A pool in numbers, at one moment. While others use the pool they need not add up exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The members there are, idle and leased. One that is still being connected, or already
    /// being closed, is not among them.
    pub size: usize,
    /// The members that lie idle.
    pub idle: usize,
    /// The members that are leased.
    pub in_use: usize,
    /// The members that are being connected.
    pub connecting: usize,
    /// The callers without an answer yet, whether they wait for a member to be returned or to be
    /// connected.
    pub waiting: usize,
    /// The members there may be.
    pub max_size: usize,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} idle, {} in use, {} connecting, {} waiting, at most {}",
            self.idle, self.in_use, self.connecting, self.waiting, self.max_size
        )
    }
}

/// What `drain` has left undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// How long it took.
    pub took: Duration,
    /// Members that have been closed, or are being [closed](Self::closing).
    pub closed: u64,
    /// Leases that are still held. Their members are closed when they are returned.
    pub in_use: usize,
    /// Members whose goodbye has not come to its end, and dials that have not been dropped yet.
    pub closing: usize,
}

impl DrainReport {
    /// A report of something else that drains, in the same words.
    pub fn new(took: Duration, closed: u64, in_use: usize, closing: usize) -> Self {
        Self {
            took,
            closed,
            in_use,
            closing,
        }
    }

    /// Whether nothing is left.
    pub fn is_complete(&self) -> bool {
        self.in_use == 0 && self.closing == 0
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            took,
            closed,
            in_use,
            closing,
        } = self;
        write!(
            f,
            "{closed} closed in {took:.3?}, {in_use} still in use, {closing} still closing"
        )
    }
}
