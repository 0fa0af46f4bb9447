//! What a pool has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a pool has done since it was made; the numbers of the counters that
/// [`describe_metrics`](crate::describe_metrics) tells of, for programs without a recorder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Calls for a lease, by what came of them.
    pub acquire: AcquireTotals,
    /// Dials that have ended, over all endpoints, by what came of them.
    pub connect: ConnectTotals,
    /// Members that have left the pool, by why.
    pub closed: ClosedTotals,
}

/// Calls for a lease that have ended. Those whose future was dropped are not counted, nor is a
/// [`try_get`](crate::Pool::try_get) that found nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcquireTotals {
    /// Got an idle member at once.
    pub immediate: u64,
    /// Waited for a member to be returned, or for the check of one that was idle.
    pub waited: u64,
    /// Waited for a member that was dialled.
    pub dialled: u64,
    /// Waited for a dial, and got a member that was returned meanwhile.
    pub handed_over: u64,
    /// Got [`AcquireError::Timeout`](crate::AcquireError::Timeout).
    pub timeout: u64,
    /// Got [`AcquireError::Unavailable`](crate::AcquireError::Unavailable).
    pub unavailable: u64,
    /// Got [`AcquireError::Closed`](crate::AcquireError::Closed).
    pub closed: u64,
}

impl AcquireTotals {
    /// With the values of the metrics' label.
    pub(crate) fn by_outcome(&self) -> [(&'static str, u64); 7] {
        [
            ("immediate", self.immediate),
            ("waited", self.waited),
            ("dialled", self.dialled),
            ("handed_over", self.handed_over),
            ("timeout", self.timeout),
            ("unavailable", self.unavailable),
            ("closed", self.closed),
        ]
    }
}

/// Dials that have ended. One that was given up, because nobody needed it any more when its turn
/// came or because the pool was closed, is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectTotals {
    /// Made a member.
    pub connected: u64,
    /// Failed, in a way that another attempt may mend.
    pub failed: u64,
    /// Were refused, in a way that another attempt will not mend; see
    /// [`Connect::is_transient`](crate::Connect::is_transient).
    pub refused: u64,
    /// Took longer than `connect_timeout`.
    pub timed_out: u64,
    /// Panicked.
    pub panicked: u64,
}

impl ConnectTotals {
    /// With the values of the metrics' label.
    pub(crate) fn by_outcome(&self) -> [(&'static str, u64); 5] {
        [
            ("connected", self.connected),
            ("failed", self.failed),
            ("refused", self.refused),
            ("timed_out", self.timed_out),
            ("panicked", self.panicked),
        ]
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            connected: self.connected + other.connected,
            failed: self.failed + other.failed,
            refused: self.refused + other.refused,
            timed_out: self.timed_out + other.timed_out,
            panicked: self.panicked + other.panicked,
        }
    }
}

/// Members that have left their pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosedTotals {
    /// Lay idle for `idle_timeout`.
    pub idle: u64,
    /// Reached their lifetime.
    pub lifetime: u64,
    /// Were not usable any more.
    pub dead: u64,
    /// Failed their check.
    pub check: u64,
    /// Were [retired](crate::Pool::retire).
    pub generation: u64,
    /// Were more than the pool may have, or keep.
    pub surplus: u64,
    /// Were [discarded](crate::Lease::discard) by their holders.
    pub discarded: u64,
    /// Were [taken out](crate::Lease::detach) by their holders, and live on.
    pub detached: u64,
    /// Were closed with the pool.
    pub shutdown: u64,
}

impl ClosedTotals {
    /// With the values of the metrics' label.
    pub(crate) fn by_reason(&self) -> [(&'static str, u64); 9] {
        [
            ("idle", self.idle),
            ("lifetime", self.lifetime),
            ("dead", self.dead),
            ("check", self.check),
            ("generation", self.generation),
            ("surplus", self.surplus),
            ("discarded", self.discarded),
            ("detached", self.detached),
            ("shutdown", self.shutdown),
        ]
    }
}

/// Why a member has left its pool, as in [`ClosedTotals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Idle,
    Lifetime,
    Dead,
    Check,
    Generation,
    Surplus,
    Discarded,
    Detached,
    Shutdown,
}

/// The same while it is being counted; what dials come to is counted with their endpoints.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) immediate: Count,
    pub(crate) waited: Count,
    pub(crate) dialled: Count,
    pub(crate) handed_over: Count,
    pub(crate) timeout: Count,
    pub(crate) unavailable: Count,
    pub(crate) closed: Count,
    gone: [Count; 9],
}

impl Counts {
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

    /// The totals, with these of the dials.
    pub(crate) fn with(&self, connect: ConnectTotals) -> Totals {
        let gone = |reason| self.gone(reason).value();
        Totals {
            acquire: AcquireTotals {
                immediate: self.immediate.value(),
                waited: self.waited.value(),
                dialled: self.dialled.value(),
                handed_over: self.handed_over.value(),
                timeout: self.timeout.value(),
                unavailable: self.unavailable.value(),
                closed: self.closed.value(),
            },
            connect,
            closed: ClosedTotals {
                idle: gone(Reason::Idle),
                lifetime: gone(Reason::Lifetime),
                dead: gone(Reason::Dead),
                check: gone(Reason::Check),
                generation: gone(Reason::Generation),
                surplus: gone(Reason::Surplus),
                discarded: gone(Reason::Discarded),
                detached: gone(Reason::Detached),
                shutdown: gone(Reason::Shutdown),
            },
        }
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
