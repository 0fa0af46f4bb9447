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
    /// What is older than this generation had to go before.
    oldest_allowed: u64,
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
        // Under the lock, so that no member is of a generation that nobody will retire.
        let ended = self.current.fetch_add(1, Ordering::AcqRel);
        *retirement = Some(match *retirement {
            None => Retirement {
                since: now,
                over,
                oldest_allowed: 0,
            },
            Some(before) => match before.left(now) {
                Duration::ZERO => Retirement {
                    since: now,
                    over,
                    oldest_allowed: ended,
                },
                left => Retirement {
                    since: now,
                    over: over.min(left),
                    oldest_allowed: before.oldest_allowed,
                },
            },
        });
    }

    /// Whether a member of this generation has to go, where `share`, from 0.0 to 1.0, is its own.
    pub(crate) fn is_over(&self, generation: u64, share: f64, now: Instant) -> bool {
        if generation == self.current() {
            return false;
        }
        self.lock().is_some_and(|retirement| {
            generation < retirement.oldest_allowed
                || now.saturating_duration_since(retirement.since) >= part(retirement.over, share)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Retirement>> {
        self.retirement
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Retirement {
    fn left(&self, now: Instant) -> Duration {
        self.over
            .saturating_sub(now.saturating_duration_since(self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn each_member_goes_at_its_share_of_the_time() {
        let generation = Generation::default();
        let born = generation.current();
        generation.advance(HOUR);
        let now = Instant::now();
        for (share, after, is_over) in [
            (0.0, Duration::ZERO, true),
            (0.5, HOUR / 4, false),
            (0.5, HOUR / 2, true),
            (1.0, HOUR / 2, false),
            (1.0, HOUR, true),
        ] {
            assert_eq!(generation.is_over(born, share, now + after), is_over);
        }
        assert!(!generation.is_over(generation.current(), 0.0, now + HOUR));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_retiring_does_not_get_longer_than_it_had() {
        let generation = Generation::default();
        let born = generation.current();
        generation.advance(HOUR);
        tokio::time::advance(HOUR / 2).await;
        generation.advance(HOUR * 10);
        assert!(generation.is_over(born, 1.0, Instant::now() + HOUR / 2));
    }

    /// One that was in use all the time, and whose key has leaked.
    #[tokio::test(start_paused = true)]
    async fn what_had_to_go_stays_over_when_a_younger_one_retires() {
        let generation = Generation::default();
        let born = generation.current();
        generation.advance(Duration::ZERO);
        let younger = generation.current();
        generation.advance(HOUR);
        let now = Instant::now();
        assert!(generation.is_over(born, 1.0, now));
        assert!(!generation.is_over(younger, 1.0, now));
    }
}
