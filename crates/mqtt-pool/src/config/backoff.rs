//! How a pool goes on when an endpoint does not let it connect.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ConfigErrors, Limit};

/// How long a pool waits before it dials an endpoint again that it could not connect to; part of
/// a [`PoolConfig`](crate::PoolConfig), which checks it.
///
/// A pause is random, so that many pools do not come back together: from half of `base` up to a
/// bound, which is `base` after the first failure, twice as much after each further one, and `max`
/// at most. Each endpoint has its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BackoffConfig {
    /// The longest pause after the first failure. Default 250 ms: a server that restarts at once is
    /// hardly missed. Not zero.
    #[serde(with = "mqtt_transport::duration_text")]
    pub base: Duration,
    /// The longest pause after any number of failures, at least `base`. Default 30 s: a server
    /// that is away for long is not bothered, and found soon enough when it is back.
    #[serde(with = "mqtt_transport::duration_text")]
    pub max: Duration,
    /// How long an endpoint has to do well before its failures are forgotten, and `base` counts
    /// again. Default 30 s: there are servers that accept a connection and end it a moment later,
    /// which would otherwise be dialled without a pause. Zero forgets with the first connection.
    #[serde(with = "mqtt_transport::duration_text")]
    pub stable_after: Duration,
    /// After how long an endpoint is tried once more that has refused for good, as for bad
    /// credentials; until then it is not dialled. `never` leaves it at that until the pool is
    /// cleared. Default 5 minutes, which mends itself once the server's side is mended without
    /// looking like an attack on it. Not zero.
    pub retry_refused_after: Limit,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(250),
            max: Duration::from_secs(30),
            stable_after: Duration::from_secs(30),
            retry_refused_after: Limit::After(Duration::from_secs(5 * 60)),
        }
    }
}

impl BackoffConfig {
    /// With this [`base`](Self::base).
    #[must_use]
    pub fn with_base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// With this [`max`](Self::max).
    #[must_use]
    pub fn with_max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// With this [`stable_after`](Self::stable_after).
    #[must_use]
    pub fn with_stable_after(mut self, time: Duration) -> Self {
        self.stable_after = time;
        self
    }

    /// With this [`retry_refused_after`](Self::retry_refused_after).
    #[must_use]
    pub fn with_retry_refused_after(mut self, limit: impl Into<Limit>) -> Self {
        self.retry_refused_after = limit.into();
        self
    }

    /// Checks the values as part of the configuration at `path`.
    pub(crate) fn check(&self, path: &str, errors: &mut ConfigErrors) {
        let name = |option: &str| format!("{path}.{option}");
        if self.base.is_zero() {
            errors.push(
                name("base"),
                Limit::After(self.base),
                "must be longer than zero",
                "a server that is away must not be dialled without a pause",
            );
        }
        if self.max < self.base {
            errors.push(
                name("max"),
                Limit::After(self.max),
                "must not be shorter than base",
                "raise it, or lower base",
            );
        }
        if self.retry_refused_after == Limit::After(Duration::ZERO) {
            errors.push(
                name("retry_refused_after"),
                self.retry_refused_after,
                "must be longer than zero",
                "use minutes, or \"never\" to wait for a hand",
            );
        }
    }
}
