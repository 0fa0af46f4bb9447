//! What goes wrong, as a test says it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

/// What goes wrong with a connection. By default nothing.
///
/// Byte counts and offsets are per direction and begin with 0 when the connection is made; the
/// faults of one plan add up. Flushing is not delayed, split or stalled, and closing only fails
/// once the connection is cut.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    pub(super) dial: Option<io::ErrorKind>,
    pub(super) ends_cleanly: bool,
    pub(super) read: Faults,
    pub(super) write: Faults,
    pub(super) handle: FaultHandle,
}

/// What goes wrong in one direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) cut_after: Option<u64>,
    pub(super) stall_after: Option<u64>,
    pub(super) corrupt: Vec<u64>,
    pub(super) delay: Option<Duration>,
    pub(super) max: Option<usize>,
    pub(super) random: Option<fastrand::Rng>,
}

/// How many bytes an operation of a seeded plan moves at most, where no other maximum is set.
pub(super) const RANDOM_MAX: usize = 16;

impl FaultPlan {
    /// Nothing goes wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// Each operation moves a random number of bytes, from one to what [`split`](Self::split)
    /// says, 16 if it says nothing. The same seed leads to the same numbers.
    pub fn seeded(seed: u64) -> Self {
        let mut plan = Self::new();
        let mut random = fastrand::Rng::with_seed(seed);
        // One for each direction, so that neither depends on when the other moves.
        plan.read.random = Some(random.fork());
        plan.write.random = Some(random);
        plan
    }

    /// Dialling fails with this error and the connection is given up. Only a [`FaultyConnector`](super::FaultyConnector)
    /// does this.
    #[must_use]
    pub fn fail_dial(mut self, kind: io::ErrorKind) -> Self {
        self.dial = Some(kind);
        self
    }

    /// The connection is cut as soon as `n` bytes were read: it is dropped, so that its peer sees
    /// it end, and every operation, also one that waits, fails with
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset).
    #[must_use]
    pub fn cut_after_read(mut self, n: u64) -> Self {
        self.read.cut_after = Some(n);
        self
    }

    /// The connection is cut as soon as `n` bytes were written, as in
    /// [`cut_after_read`](Self::cut_after_read).
    #[must_use]
    pub fn cut_after_write(mut self, n: u64) -> Self {
        self.write.cut_after = Some(n);
        self
    }

    /// A cut looks like a peer that closes: reads come to the end of file, and writes fail with
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe).
    #[must_use]
    pub fn ends_cleanly(mut self) -> Self {
        self.ends_cleanly = true;
        self
    }

    /// After `n` bytes reads wait until [released](FaultHandle::release).
    #[must_use]
    pub fn stall_after_read(mut self, n: u64) -> Self {
        self.read.stall_after = Some(n);
        self
    }

    /// After `n` bytes writes wait until [released](FaultHandle::release).
    #[must_use]
    pub fn stall_after_write(mut self, n: u64) -> Self {
        self.write.stall_after = Some(n);
        self
    }

    /// An operation moves at most `max` bytes, at least one.
    #[must_use]
    pub fn split(mut self, max: usize) -> Self {
        let max = Some(max.max(1));
        (self.read.max, self.write.max) = (max, max);
        self
    }

    /// Inverts the bits of the byte at this offset of what is read. Can be repeated.
    #[must_use]
    pub fn corrupt_read(mut self, at: u64) -> Self {
        self.read.corrupt.push(at);
        self
    }

    /// Inverts the bits of the byte at this offset of what is written. Can be repeated.
    #[must_use]
    pub fn corrupt_write(mut self, at: u64) -> Self {
        self.write.corrupt.push(at);
        self
    }

    /// Each read and each write begins only this long after it was asked for, by tokio's clock.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        (self.read.delay, self.write.delay) = (Some(delay), Some(delay));
        self
    }

    /// Releases what stalls. A plan and its clones have one, and so have all connections made
    /// from them.
    pub fn handle(&self) -> FaultHandle {
        self.handle.clone()
    }
}

/// Releases what a [`FaultPlan`] stalls.
#[derive(Clone, Debug, Default)]
pub struct FaultHandle(pub(super) Arc<Release>);

#[derive(Debug, Default)]
pub(super) struct Release {
    pub(super) done: AtomicBool,
    pub(super) notify: Arc<Notify>,
}

impl FaultHandle {
    /// Lets reads and writes that stall go on, now and for good.
    pub fn release(&self) {
        self.0.done.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }
}
