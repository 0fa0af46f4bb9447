//! What a pool has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a member has left its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It lay idle for `idle_timeout`.
    Idle,
    /// It reached its lifetime.
    Lifetime,
    /// It was not usable any more.
    Dead,
    /// It failed its check.
    Check,
    /// It was of an older generation.
    Generation,
    /// There were more than the pool may have, or keep.
    Surplus,
    /// Its holder discarded it.
    Discarded,
    /// Its holder took it out.
    Detached,
    /// The pool was closed.
    Shutdown,
}

impl Reason {
    pub(crate) const ALL: [Self; 9] = [
        Self::Idle,
        Self::Lifetime,
        Self::Dead,
        Self::Check,
        Self::Generation,
        Self::Surplus,
        Self::Discarded,
        Self::Detached,
        Self::Shutdown,
    ];

    /// The value of the metrics' label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Dead => "dead",
            Self::Check => "check",
            Self::Generation => "generation",
            Self::Surplus => "surplus",
            Self::Discarded => "discarded",
            Self::Detached => "detached",
            Self::Shutdown => "shutdown",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Leases of an idle member, given at once.
    pub(crate) immediate: Count,
    /// Leases of a member that the caller waited for until it was returned.
    pub(crate) waited: Count,
    /// Leases of a member that was dialled.
    pub(crate) dialled: Count,
    /// Leases of a member that was returned while its caller waited for a dial.
    pub(crate) handed_over: Count,
    pub(crate) timeout: Count,
    pub(crate) unavailable: Count,
    pub(crate) connected: Count,
    pub(crate) connect_failed: Count,
    pub(crate) connect_timed_out: Count,
    gone: [Count; Reason::ALL.len()],
}

impl Totals {
    pub(crate) fn gone(&self, reason: Reason) -> &Count {
        let [
            idle,
            lifetime,
            dead,
            check,
            generation,
            surplus,
            discarded,
            detached,
            shutdown,
        ] = &self.gone;
        match reason {
            Reason::Idle => idle,
            Reason::Lifetime => lifetime,
            Reason::Dead => dead,
            Reason::Check => check,
            Reason::Generation => generation,
            Reason::Surplus => surplus,
            Reason::Discarded => discarded,
            Reason::Detached => detached,
            Reason::Shutdown => shutdown,
        }
    }

    /// All members that have left, whatever for.
    pub(crate) fn all_gone(&self) -> u64 {
        self.gone.iter().map(Count::value).sum()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
