//! The options of a pool and their rules.

mod backoff;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ConfigErrors, Limit};

pub use backoff::BackoffConfig;

/// The most members a pool may be configured for, and dials at a time. What counts them allocates
/// up front or has a largest count.
const MAX_SIZE: usize = 65_535;

const MAX_NAME: usize = 64;

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
///
/// In configuration, times are text with a unit:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config: mqtt_pool::PoolConfig = toml::from_str(
///     r#"
///     max_size = 8
///     idle_timeout = "never"
///     acquire_timeout = "1s"
///     "#,
/// )?;
/// config.validate()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PoolConfig {
    /// What the pool is called in metrics (the label `pool`) and traces: 1 to 64 letters, digits,
    /// `_`, `-` and `.`. Default `default`; of several pools in a process each wants its own.
    pub name: String,
    /// How many members there may be, idle and leased together; 1 to 65,535, 100 by default.
    ///
    /// A server counts them all: their sum over all processes has to stay within its limit.
    pub max_size: usize,
    /// How many members are kept idle without being asked for, so that a caller after a quiet
    /// time need not wait for a handshake; not above `max_idle` nor `max_size`. Default 0:
    /// connections are made when they are wanted.
    pub min_idle: usize,
    /// How many members may lie idle; 100 by default, so that none is closed only to be connected
    /// again. Above `max_size` it is never reached, and 0 keeps nothing.
    pub max_idle: usize,
    /// How long a member may lie idle, counted from its return; 5 minutes by default, which gives
    /// a peak's connections back without closing those of the next minute. Zero is refused.
    pub idle_timeout: Limit,
    /// How old a member may become; 30 minutes by default, so that load moves back to a server
    /// that has returned and credentials do not live for ever. At least 1 second, and longer than
    /// `connect_timeout`. A leased member is never interrupted: it is closed when it is returned.
    pub max_lifetime: Limit,
    /// How much earlier than `max_lifetime` a member may be closed, as a share of it: 0.0 to 1.0,
    /// 0.25 by default, so that what was connected together does not expire together. It is drawn
    /// once for each member, when it is connected.
    pub lifetime_jitter: f64,
    /// How long [`get`](crate::Pool::get) takes at most, with all that it does; 5 s by default,
    /// more than a busy pool needs and less than a caller's own patience. Not zero.
    #[serde(with = "mqtt_transport::duration_text")]
    pub acquire_timeout: Duration,
    /// How long one [`connect`](crate::Connect::connect) takes at most; 10 s by default, enough
    /// for a handshake over a slow link. Not zero. It may be longer than `acquire_timeout`: a dial
    /// outlives the caller that asked for it and serves the next.
    #[serde(with = "mqtt_transport::duration_text")]
    pub connect_timeout: Duration,
    /// How long one [`close`](crate::Pooled::close) takes at most; 5 s by default. The connection
    /// is dropped then, and its slot is free. Not zero.
    #[serde(with = "mqtt_transport::duration_text")]
    pub close_timeout: Duration,
    /// How many dials run at once; 1 to 65,535, 4 by default, so that a herd of callers does not
    /// become a herd of handshakes at a server that has just come back.
    pub max_connecting: usize,
    /// What a caller is told while connecting keeps failing; by default
    /// [`Wait`](OnUnavailable::Wait).
    pub on_unavailable: OnUnavailable,
    /// How long a member may have lain idle and still be handed out without asking it whether it
    /// is alive; one that lay for longer is [asked](crate::Pooled::check) first, if it can be. Zero
    /// asks always. `never` by default: the driver of a session notices by itself when its peer is
    /// gone, and the question costs a round trip.
    pub check_after: Limit,
    /// How long a member has to answer that question; one that does not is closed, and another is
    /// taken. Default 1 s, a fifth of what a caller waits. Not zero.
    #[serde(with = "mqtt_transport::duration_text")]
    pub check_timeout: Duration,
    /// After how long a lease that is still held is reported as perhaps forgotten; it is not taken
    /// away. It is warned of in a trace, once and at most a second late, with the place in the source
    /// that asked for it; [`overdue_leases`](crate::Pool::overdue_leases) and the metric
    /// `mqtt_pool_leases_overdue` have it while it lasts. `never` by default, for only the caller
    /// knows what is long. Not zero.
    pub leak_after: Limit,
    /// Whether the time for which each lease was held is recorded, in `mqtt_pool_hold_seconds` (see
    /// [`describe_metrics`](crate::describe_metrics)). Default `false`, because it costs every lease
    /// two looks at the clock and an entry in a histogram.
    pub record_hold: bool,
    /// How the pool goes on when it cannot connect.
    pub backoff: BackoffConfig,
}

/// What callers of a [`Pool`](crate::Pool) get while connecting keeps failing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnUnavailable {
    /// They wait, up to their deadline, for the server to come back. The default: a restart of a
    /// server is over before most deadlines, and nobody has to try again.
    #[default]
    Wait,
    /// They are told at once, for callers that have somewhere else to go.
    FailFast,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            max_size: 100,
            min_idle: 0,
            max_idle: 100,
            idle_timeout: Limit::After(Duration::from_secs(5 * 60)),
            max_lifetime: Limit::After(Duration::from_secs(30 * 60)),
            lifetime_jitter: 0.25,
            acquire_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            max_connecting: 4,
            on_unavailable: OnUnavailable::Wait,
            check_after: Limit::Never,
            check_timeout: Duration::from_secs(1),
            leak_after: Limit::Never,
            record_hold: false,
            backoff: BackoffConfig::default(),
        }
    }
}

impl PoolConfig {
    /// Checks every option against its rule.
    ///
    /// # Errors
    ///
    /// All the rules that are broken, not only the first, under paths that begin with `pool`.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        self.check_sizes(&mut errors);
        self.check_times(&mut errors);
        self.backoff.check("pool.backoff", &mut errors);
        errors.into_result()
    }

    fn check_sizes(&self, errors: &mut ConfigErrors) {
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if !(1..=MAX_NAME).contains(&self.name.len()) || !self.name.bytes().all(is_name_byte) {
            errors.push(
                "pool.name",
                format_args!("{:?}", self.name),
                "must be 1 to 64 letters, digits, '_', '-' and '.'",
                "it is a label of metrics: name the pool for what it is for",
            );
        }
        if !(1..=MAX_SIZE).contains(&self.max_size) {
            errors.push(
                "pool.max_size",
                self.max_size,
                "must be 1 to 65535",
                "use as many as work at the same time, often fewer than 100",
            );
        }
        if self.min_idle > self.max_idle.min(self.max_size) {
            errors.push(
                "pool.min_idle",
                self.min_idle,
                "must not be above max_idle nor max_size",
                "lower it, or raise what is below it",
            );
        }
        if !(1..=MAX_SIZE).contains(&self.max_connecting) {
            errors.push(
                "pool.max_connecting",
                self.max_connecting,
                "must be 1 to 65535",
                "4 is the default; max_size is as good as no limit",
            );
        }
    }

    fn check_times(&self, errors: &mut ConfigErrors) {
        if self.idle_timeout == Limit::After(Duration::ZERO) {
            errors.push(
                "pool.idle_timeout",
                self.idle_timeout,
                "must be longer than zero",
                "use \"never\" to switch it off, or set max_idle to 0 to keep nothing",
            );
        }
        if let Limit::After(lifetime) = self.max_lifetime {
            if lifetime < Duration::from_secs(1) {
                errors.push(
                    "pool.max_lifetime",
                    self.max_lifetime,
                    "must be at least 1s",
                    "use \"never\" to switch it off, or minutes",
                );
            } else if lifetime <= self.connect_timeout {
                errors.push(
                    "pool.max_lifetime",
                    self.max_lifetime,
                    "must be longer than connect_timeout",
                    "raise it, or lower connect_timeout",
                );
            }
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
            ("pool.check_timeout", self.check_timeout),
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
        if self.leak_after == Limit::After(Duration::ZERO) {
            errors.push(
                "pool.leak_after",
                self.leak_after,
                "must be longer than zero",
                "use \"never\" to switch it off, or much more than a lease should take",
            );
        }
    }

    /// Sets [`max_size`](Self::max_size).
    #[must_use]
    pub fn with_max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// Sets [`min_idle`](Self::min_idle).
    #[must_use]
    pub fn with_min_idle(mut self, min_idle: usize) -> Self {
        self.min_idle = min_idle;
        self
    }

    /// Sets [`max_idle`](Self::max_idle).
    #[must_use]
    pub fn with_max_idle(mut self, max_idle: usize) -> Self {
        self.max_idle = max_idle;
        self
    }

    /// Sets [`max_connecting`](Self::max_connecting).
    #[must_use]
    pub fn with_max_connecting(mut self, max_connecting: usize) -> Self {
        self.max_connecting = max_connecting;
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
    with_name name: String,
    with_idle_timeout idle_timeout: Limit,
    with_max_lifetime max_lifetime: Limit,
    with_lifetime_jitter lifetime_jitter: f64,
    with_acquire_timeout acquire_timeout: Duration,
    with_connect_timeout connect_timeout: Duration,
    with_close_timeout close_timeout: Duration,
    with_on_unavailable on_unavailable: OnUnavailable,
    with_check_after check_after: Limit,
    with_check_timeout check_timeout: Duration,
    with_leak_after leak_after: Limit,
    with_record_hold record_hold: bool,
    with_backoff backoff: BackoffConfig,
}
