//! The options of a pool and their rules.

use std::time::Duration;

use crate::{ConfigErrors, Limit};

/// The most members a pool may be configured for. deadpool allocates its queue up front.
const MAX_SIZE: usize = 65_535;

/// The options of a [`Pool`](crate::Pool).
///
/// ```
/// use std::time::Duration;
/// use mqtt_pool::{Limit, PoolConfig};
///
/// let config = PoolConfig::default()
///     .with_max_size(8)
///     .with_idle_timeout(Limit::Never)
///     .with_acquire_timeout(Duration::from_secs(1));
/// assert_eq!(config.validate(), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// How many members there may be, idle and leased together; 1 to 65,535, 100 by default.
    ///
    /// A server counts them all: their sum over all processes has to stay within its limit.
    pub max_size: usize,
    /// How many members may lie idle, at most `max_size`; 100 by default, so that none is closed
    /// only to be connected again.
    pub max_idle: usize,
    /// How long a member may lie idle, counted from its return; 5 minutes by default, which gives
    /// a peak's connections back without closing those of the next minute. Zero is refused.
    pub idle_timeout: Limit,
    /// How old a member may become; 30 minutes by default, so that load moves back to a server
    /// that has returned and credentials do not live for ever. At least 1 second. A leased member
    /// is never interrupted: it is closed when it is returned.
    pub max_lifetime: Limit,
    /// How much earlier than `max_lifetime` a member may be closed, as a share of it: 0.0 to 1.0,
    /// 0.25 by default, so that what was connected together does not expire together. It is drawn
    /// once for each member, when it is connected.
    pub lifetime_jitter: f64,
    /// How long [`get`](crate::Pool::get) takes at most, with all that it does; 5 s by default,
    /// more than a busy pool needs and less than a caller's own patience. Not zero.
    pub acquire_timeout: Duration,
    /// How long one [`connect`](crate::Connect::connect) takes at most; 10 s by default, enough
    /// for a handshake over a slow link. Not zero. Above `acquire_timeout` it has no effect, for
    /// then the caller has given up before.
    pub connect_timeout: Duration,
    /// How long one [`close`](crate::Pooled::close) takes at most; 5 s by default. The connection
    /// is dropped then, and its slot is free. Not zero.
    pub close_timeout: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_size: 100,
            max_idle: 100,
            idle_timeout: Limit::After(Duration::from_secs(5 * 60)),
            max_lifetime: Limit::After(Duration::from_secs(30 * 60)),
            lifetime_jitter: 0.25,
            acquire_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
        }
    }
}

impl PoolConfig {
    /// Checks every option against its rule.
    ///
    /// # Errors
    ///
    /// All the rules that are broken, not only the first.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        if self.max_size == 0 || self.max_size > MAX_SIZE {
            errors.push(
                "pool.max_size",
                self.max_size,
                "must be 1 to 65535",
                "use as many as work at the same time, often fewer than 100",
            );
        }
        if self.max_idle > self.max_size {
            errors.push(
                "pool.max_idle",
                self.max_idle,
                "must not be above max_size",
                "lower it, or raise max_size",
            );
        }
        if self.idle_timeout == Limit::After(Duration::ZERO) {
            errors.push(
                "pool.idle_timeout",
                self.idle_timeout,
                "must be longer than zero",
                "use \"never\" to switch it off, or set max_idle to 0 to keep nothing",
            );
        }
        if let Limit::After(lifetime) = self.max_lifetime
            && lifetime < Duration::from_secs(1)
        {
            errors.push(
                "pool.max_lifetime",
                self.max_lifetime,
                "must be at least 1s",
                "use \"never\" to switch it off, or minutes",
            );
        }
        if !(0.0..=1.0).contains(&self.lifetime_jitter) {
            errors.push(
                "pool.lifetime_jitter",
                self.lifetime_jitter,
                "must be a share from 0.0 to 1.0",
                "0.25 closes members up to a quarter of their lifetime early",
            );
        }
        for (path, timeout) in [
            ("pool.acquire_timeout", self.acquire_timeout),
            ("pool.connect_timeout", self.connect_timeout),
            ("pool.close_timeout", self.close_timeout),
        ] {
            if timeout.is_zero() {
                errors.push(
                    path,
                    Limit::After(timeout),
                    "must be longer than zero",
                    "use a long time to wait almost for ever",
                );
            }
        }
        errors.into_result()
    }

    /// Sets [`max_size`](Self::max_size), and lowers [`max_idle`](Self::max_idle) to it if it is
    /// above.
    #[must_use]
    pub fn with_max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self.max_idle = self.max_idle.min(max_size);
        self
    }

    /// Sets [`max_idle`](Self::max_idle).
    #[must_use]
    pub fn with_max_idle(mut self, max_idle: usize) -> Self {
        self.max_idle = max_idle;
        self
    }
}

macro_rules! setters {
    ($($setter:ident $field:ident: $type:ty,)*) => {
        impl PoolConfig {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $setter(mut self, $field: impl Into<$type>) -> Self {
                    self.$field = $field.into();
                    self
                }
            )*
        }
    };
}

setters! {
    with_idle_timeout idle_timeout: Limit,
    with_max_lifetime max_lifetime: Limit,
    with_lifetime_jitter lifetime_jitter: f64,
    with_acquire_timeout acquire_timeout: Duration,
    with_connect_timeout connect_timeout: Duration,
    with_close_timeout close_timeout: Duration,
}
