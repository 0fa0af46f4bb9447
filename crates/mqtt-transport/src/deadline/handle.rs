//! The time that operations may take, shared between those who watch and those who change it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, futures::OwnedNotified};

/// How long operations may wait, and the means to change that at any time.
///
/// Its clones are the same deadline. Every decorator has one of its own unless it is given one;
/// one that is given to several changes for all of them at once.
///
/// A change counts for operations that wait already: they are woken, and what they have waited
/// so far counts too. One that has waited longer than the new time allows expires at once.
#[derive(Clone, Debug)]
pub struct DeadlineHandle {
    micros: Arc<AtomicU64>,
    changed: Arc<Notify>,
}

/// The stored form of no deadline.
const NONE: u64 = u64::MAX;

impl DeadlineHandle {
    /// A deadline of `timeout`; `None` for ever. Kept in whole microseconds; what is too long to
    /// count in them, half a million years, is for ever as well.
    pub fn new(timeout: impl Into<Option<Duration>>) -> Self {
        Self {
            micros: Arc::new(AtomicU64::new(stored(timeout.into()))),
            changed: Arc::default(),
        }
    }

    /// Allows operations this long from now on, as in [`new`](Self::new).
    pub fn set(&self, timeout: impl Into<Option<Duration>>) {
        let micros = stored(timeout.into());
        if self.micros.swap(micros, Ordering::Release) != micros {
            self.changed.notify_waiters();
        }
    }

    /// How long operations may wait; `None` for ever.
    pub fn timeout(&self) -> Option<Duration> {
        match self.micros.load(Ordering::Acquire) {
            NONE => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    /// Ends with the first change after this call.
    pub(super) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }
}

fn stored(timeout: Option<Duration>) -> u64 {
    timeout.map_or(NONE, |timeout| {
        u64::try_from(timeout.as_micros()).unwrap_or(NONE)
    })
}
