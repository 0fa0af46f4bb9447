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

/// How many retirements are told apart that run at the same time.
const MAX_RETIREMENTS: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Generation {
    current: AtomicU64,
    /// From the oldest, of which no more than the last has ended.
    retirements: Mutex<Vec<Retirement>>,
}

/// By when the members of some generations have to go, each at its own share of the time.
#[derive(Clone, Copy, Debug)]
struct Retirement {
    /// The youngest of them.
    youngest: u64,
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
        let since = Instant::now();
        let mut retirements = self.lock();
        // Under the lock, so that no member is of a generation that nobody will retire.
        let youngest = self.current.fetch_add(1, Ordering::AcqRel);
        let has_ended = |retirement: &Retirement| retirement.due(1.0).is_some_and(|at| at <= since);
        // What one that has ended says of its members, one that has ended since says as well.
        if let Some(last) = retirements.iter().rposition(has_ended) {
            retirements.drain(..last);
        }
        if over.is_zero() {
            retirements.clear();
        }
        let is_full = retirements.len() >= MAX_RETIREMENTS;
        match retirements.last_mut() {
            // Of one who retires without a pause: these go with those before them, by whichever
            // end is the earlier.
            Some(last) if is_full => {
                let since_then = since.saturating_duration_since(last.since);
                last.over = last.over.min(since_then.saturating_add(over));
                last.youngest = youngest;
            }
            Some(_) | None => retirements.push(Retirement {
                youngest,
                since,
                over,
            }),
        }
    }

    /// When a member of this generation has to go, if it has to, where `share`, from 0.0 to 1.0, is
    /// its own.
    pub(crate) fn due(&self, generation: u64, share: f64) -> Option<Instant> {
        if generation == self.current() {
            return None;
        }
        self.lock()
            .iter()
            .filter(|retirement| generation <= retirement.youngest)
            .filter_map(|retirement| retirement.due(share))
            .min()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Retirement>> {
        self.retirements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Retirement {
    fn due(&self, share: f64) -> Option<Instant> {
        self.since.checked_add(part(self.over, share))
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
        for (share, after) in [(0.0, Duration::ZERO), (0.5, HOUR / 2), (1.0, HOUR)] {
            assert_eq!(generation.due(born, share), Some(now + after));
        }
        assert_eq!(generation.due(generation.current(), 0.0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_retiring_does_not_get_longer_than_it_had() {
        let generation = Generation::default();
        let (born, begin) = (generation.current(), Instant::now());
        generation.advance(HOUR);
        tokio::time::advance(HOUR / 2).await;
        generation.advance(HOUR * 10);
        assert_eq!(generation.due(born, 1.0), Some(begin + HOUR));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_younger_has_the_whole_time_of_its_own() {
        let generation = Generation::default();
        generation.advance(HOUR);
        tokio::time::advance(HOUR - Duration::from_secs(1)).await;
        let younger = generation.current();
        generation.advance(HOUR);
        assert_eq!(
            generation.due(younger, 0.5),
            Some(Instant::now() + HOUR / 2)
        );
    }

    /// One that was in use all the time, and whose key has leaked.
    #[tokio::test(start_paused = true)]
    async fn what_had_to_go_stays_over_when_a_younger_one_retires() {
        let generation = Generation::default();
        let (born, begin) = (generation.current(), Instant::now());
        generation.advance(Duration::ZERO);
        let younger = generation.current();
        generation.advance(HOUR);
        assert_eq!(generation.due(born, 1.0), Some(begin));
        assert_eq!(generation.due(younger, 1.0), Some(begin + HOUR));
    }

    #[tokio::test(start_paused = true)]
    async fn who_retires_without_a_pause_does_not_fill_the_memory() {
        let generation = Generation::default();
        let begin = Instant::now();
        for _ in 0..1_000 {
            generation.advance(HOUR);
            assert!(generation.lock().len() <= MAX_RETIREMENTS);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let last = generation.current() - 1;
        assert!(
            generation
                .due(last, 1.0)
                .is_some_and(|at| at <= begin + HOUR * 2)
        );
        generation.advance(Duration::ZERO);
        assert_eq!(generation.lock().len(), 1);
        assert_eq!(generation.due(last, 1.0), Some(Instant::now()));
    }

    /// Its key has leaked, after a night of a script that was too eager.
    #[tokio::test(start_paused = true)]
    async fn a_short_retirement_is_short_after_any_number_of_long_ones() {
        let generation = Generation::default();
        for over in [HOUR * 24, Duration::MAX].repeat(MAX_RETIREMENTS) {
            generation.advance(over);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let last = generation.current();
        generation.advance(HOUR);
        let due = generation.due(last, 1.0);
        assert_eq!(due, Some(Instant::now() + HOUR));
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_that_is_too_long_is_for_ever() {
        let generation = Generation::default();
        generation.advance(Duration::MAX);
        assert_eq!(generation.due(0, 1.0), None);
    }
}
