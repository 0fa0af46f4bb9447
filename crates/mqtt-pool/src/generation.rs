//! Generations of members: what was connected before a certain moment has to go.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::part;

#[derive(Debug, Default)]
pub(crate) struct Generation {
    current: AtomicU64,
    retirement: Mutex<Option<Retirement>>,
}

/// By when the members of older generations have to go, each at its own share of the time.
#[derive(Clone, Copy, Debug)]
struct Retirement {
    since: Instant,
    over: Duration,
}

impl Generation {
    pub(crate) fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// Begins a new generation, and retires what is older over this time. What is already
    /// retiring does not get longer than it had.
    pub(crate) fn advance(&self, over: Duration) {
        let now = Instant::now();
        let mut retirement = self.lock();
        let left = match *retirement {
            // Whether it has ended or not, only what is connected since then can be left.
            Some(before) if before.over > now.saturating_duration_since(before.since) => {
                before.over - now.saturating_duration_since(before.since)
            }
            Some(_) | None => over,
        };
        *retirement = Some(Retirement {
            since: now,
            over: over.min(left),
        });
        self.current.fetch_add(1, Ordering::Release);
    }

    /// Whether a member of this generation has to go, where `share`, from 0.0 to 1.0, is its own.
    pub(crate) fn is_over(&self, generation: u64, share: f64, now: Instant) -> bool {
        if generation == self.current() {
            return false;
        }
        self.lock().is_some_and(|retirement| {
            now.saturating_duration_since(retirement.since) >= part(retirement.over, share)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Retirement>> {
        self.retirement
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
