//! Leases that are held too long.

use std::{
    collections::HashMap,
    panic::Location,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// A lease that is held for longer than `leak_after`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverdueLease {
    /// The slot of the member.
    pub slot: u32,
    /// For how long it has been held.
    pub held: Duration,
    /// Where it was asked for.
    pub leased_at: &'static Location<'static>,
}

#[derive(Debug)]
pub(crate) struct Leaks {
    after: Duration,
    next: AtomicU64,
    leases: Mutex<HashMap<u64, Outstanding>>,
}

#[derive(Debug)]
struct Outstanding {
    slot: u32,
    since: Instant,
    leased_at: &'static Location<'static>,
    reported: bool,
}

impl Leaks {
    pub(crate) fn new(after: Duration) -> Self {
        Self {
            after,
            next: AtomicU64::new(0),
            leases: Mutex::default(),
        }
    }

    /// Notes a lease, until [`end`](Self::end) is called with the answer.
    pub(crate) fn begin(&self, slot: u32, leased_at: &'static Location<'static>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let outstanding = Outstanding {
            slot,
            since: Instant::now(),
            leased_at,
            reported: false,
        };
        self.lock().insert(number, outstanding);
        number
    }

    pub(crate) fn end(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// Those that are held too long, the longest first.
    pub(crate) fn overdue(&self) -> Vec<OverdueLease> {
        let now = Instant::now();
        let leases = self.lock();
        let mut overdue: Vec<_> = leases
            .values()
            .filter(|lease| lease.is_overdue(self.after, now))
            .map(|lease| lease.report(now))
            .collect();
        drop(leases);
        overdue.sort_unstable_by_key(|lease| std::cmp::Reverse(lease.held));
        overdue
    }

    pub(crate) fn count_overdue(&self) -> usize {
        let now = Instant::now();
        let leases = self.lock();
        let leases = leases.values();
        leases
            .filter(|lease| lease.is_overdue(self.after, now))
            .count()
    }

    /// Those that are held too long and have not been answered here before.
    pub(crate) fn newly_overdue(&self) -> Vec<OverdueLease> {
        let now = Instant::now();
        let mut leases = self.lock();
        leases
            .values_mut()
            .filter(|lease| !lease.reported && lease.is_overdue(self.after, now))
            .map(|lease| {
                lease.reported = true;
                lease.report(now)
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Outstanding>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outstanding {
    fn is_overdue(&self, after: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= after
    }

    fn report(&self, now: Instant) -> OverdueLease {
        OverdueLease {
            slot: self.slot,
            held: now.saturating_duration_since(self.since),
            leased_at: self.leased_at,
        }
    }
}
