//! When an endpoint may be dialled again after it has failed.
//!
//! ```text
//!            failure                     time is up
//!   open -----------------> waiting ------------------> probing (one dial at a time)
//!    ^  ^                    ^   ^                        |   |
//!    |  '--- connected ------|---|------------------------'   |
//!    |                       |   '--------- failure ----------'
//!    '--- time is up ----- refused <----- refused for good
//! ```
//!
//! Its one rule: what failed is forgotten only after a stable period. A server that accepts and
//! then ends what it accepted is backed off from as one that refuses.

use std::time::Duration;

use tokio::time::Instant;

use crate::{BackoffConfig, Limit, part};

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// Failures since the last stable period, each with the delay it led to.
    failures: u32,
    /// When the last of them was counted. What began before belongs to it.
    failed_at: Option<Instant>,
    /// When the first dial after the last failure succeeded.
    healthy_since: Option<Instant>,
    /// When everything was forgiven. What began before is, too.
    forgiven_at: Option<Instant>,
    pause: Pause,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pause {
    #[default]
    None,
    /// After a failure that another attempt may mend.
    Until(Instant),
    /// After a refusal that it will not mend. `None`: for good.
    Refused(Option<Instant>),
}

/// Whether an endpoint may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    Open,
    /// One dial at a time, to see whether it is back.
    Probing,
    Waiting(Instant),
    /// Whoever waits for it should be told. The time is that of the next attempt, if any.
    Refused(Option<Instant>),
}

impl Backoff {
    /// One to which nothing counts that began before `now`.
    pub(crate) fn forgiven(now: Instant) -> Self {
        Self {
            forgiven_at: Some(now),
            ..Self::default()
        }
    }

    pub(crate) fn availability(&self, now: Instant) -> Availability {
        match self.pause {
            Pause::Until(at) if at > now => Availability::Waiting(at),
            Pause::Refused(None) => Availability::Refused(None),
            Pause::Refused(Some(at)) if at > now => Availability::Refused(Some(at)),
            Pause::None if self.healthy_since.is_some() || self.failures == 0 => Availability::Open,
            Pause::None | Pause::Until(_) | Pause::Refused(_) => Availability::Probing,
        }
    }

    pub(crate) fn on_connected(&mut self, began: Instant, now: Instant) {
        // A dial that began before the last failure says nothing about what came after it.
        if self.failed_at.is_none_or(|failed| began > failed) {
            self.pause = Pause::None;
            self.healthy_since.get_or_insert(now);
        }
    }

    /// A dial, or the short life of a connection, that began at `began` has failed. `chance`, from
    /// 0.0 to 1.0, decides how much of the delay is waited.
    pub(crate) fn on_failure(
        &mut self,
        config: &BackoffConfig,
        began: Instant,
        now: Instant,
        chance: f64,
    ) {
        if self.failed_at.is_some_and(|failed| began <= failed) || self.is_forgiven(began) {
            return;
        }
        self.count_failure(config, now);
        let shortest = config.base / 2;
        let longest = config
            .base
            .saturating_mul(2u32.saturating_pow(self.failures.saturating_sub(1)))
            .min(config.max);
        let delay = shortest + part(longest.saturating_sub(shortest), chance);
        self.pause = now
            .checked_add(delay)
            .map_or(Pause::Refused(None), Pause::Until);
    }

    /// The endpoint has refused a dial that began at `began` in a way that another attempt will
    /// not mend.
    pub(crate) fn on_refused(&mut self, config: &BackoffConfig, began: Instant, now: Instant) {
        if self.is_forgiven(began) {
            return;
        }
        self.count_failure(config, now);
        self.pause = Pause::Refused(match config.retry_refused_after {
            Limit::Never => None,
            Limit::After(after) => now.checked_add(after),
        });
    }

    /// Not what began at that very moment: a clock that stands still must not allow for dials
    /// without a pause.
    fn is_forgiven(&self, began: Instant) -> bool {
        self.forgiven_at.is_some_and(|forgiven| began < forgiven)
    }

    fn count_failure(&mut self, config: &BackoffConfig, now: Instant) {
        if let Some(since) = self.healthy_since.take()
            && now.saturating_duration_since(since) >= config.stable_after
        {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(now);
    }

    /// How long nothing is dialled from `now` on.
    pub(crate) fn remaining(&self, now: Instant) -> Duration {
        match self.pause {
            Pause::None => Duration::ZERO,
            Pause::Until(at) | Pause::Refused(Some(at)) => at.saturating_duration_since(now),
            Pause::Refused(None) => Duration::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> BackoffConfig {
        BackoffConfig::default()
            .with_base(SECOND)
            .with_max(SECOND * 10)
            .with_stable_after(SECOND * 30)
            .with_retry_refused_after(SECOND * 300)
    }

    /// A failure that begins now, with the longest delay that could be drawn.
    fn fail(backoff: &mut Backoff, now: Instant) -> Duration {
        backoff.on_failure(&config(), now, now, 1.0);
        backoff.remaining(now)
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(fail(&mut backoff, now), SECOND * seconds);
            assert_eq!(
                backoff.availability(now),
                Availability::Waiting(now + SECOND * seconds)
            );
            now += SECOND * seconds;
            assert_eq!(backoff.availability(now), Availability::Probing);
        }
    }

    #[test]
    fn chance_chooses_between_half_the_base_and_the_whole_delay() {
        for (chance, delay) in [(0.0, SECOND / 2), (0.5, SECOND * 9 / 4), (1.0, SECOND * 4)] {
            let (mut backoff, now) = (Backoff::default(), Instant::now());
            fail(&mut backoff, now);
            fail(&mut backoff, now + SECOND);
            let now = now + SECOND * 3;
            backoff.on_failure(&config(), now, now, chance);
            assert_eq!(backoff.remaining(now), delay);
        }
    }

    #[test]
    fn what_began_before_a_failure_belongs_to_it() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let later = now + SECOND;
        for _ in 0..4 {
            backoff.on_failure(&config(), now, later, 1.0);
        }
        assert_eq!(backoff.remaining(later), SECOND);
        backoff.on_connected(now, later);
        assert_eq!(
            backoff.availability(later),
            Availability::Waiting(later + SECOND)
        );
    }

    #[test]
    fn only_a_stable_period_makes_it_forget() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        fail(&mut backoff, now);
        now += SECOND;
        // It accepts and ends what it accepted, again and again.
        for delay in [2, 4, 8] {
            backoff.on_connected(now, now);
            assert_eq!(backoff.availability(now), Availability::Open);
            now += SECOND;
            assert_eq!(fail(&mut backoff, now), SECOND * delay);
            now += SECOND * delay;
        }
        backoff.on_connected(now, now);
        now += SECOND * 30;
        assert_eq!(fail(&mut backoff, now), SECOND);
    }

    #[test]
    fn a_refusal_stops_and_is_probed_once_in_a_while() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.on_refused(&config(), now, now);
        let again = now + SECOND * 300;
        assert_eq!(
            backoff.availability(now),
            Availability::Refused(Some(again))
        );
        assert_eq!(backoff.availability(again), Availability::Probing);

        let never = config().with_retry_refused_after(Limit::Never);
        backoff.on_refused(&never, again, again);
        assert_eq!(backoff.availability(again), Availability::Refused(None));
    }

    #[test]
    fn what_began_before_it_was_forgiven_is_forgiven() {
        let before = Instant::now();
        let now = before + SECOND;
        let mut backoff = Backoff::forgiven(now);
        backoff.on_failure(&config(), before, now, 1.0);
        backoff.on_refused(&config(), before, now);
        assert_eq!(backoff.availability(now), Availability::Open);
        assert_eq!(fail(&mut backoff, now), SECOND);
    }
}
