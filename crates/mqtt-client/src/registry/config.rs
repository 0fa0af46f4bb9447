//! The options of a registry and their rules.

use std::time::Duration;

use mqtt_pool::{BackoffConfig, ConfigErrors, DialBudget, DialGate, Limit};

/// The options of a [`SessionRegistry`](crate::SessionRegistry).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// How many sessions there may be: open, being opened and saying goodbye together; 1 to 1,000,000.
    /// Default 10,000, which occupy some 30 MB. Each takes a connection of the server and a file of the
    /// process, whose own limits are often lower.
    pub max_sessions: usize,
    /// How long a session stays open that nobody has a handle on. Default 5 minutes, as a pool's: long
    /// enough for a device that reports each minute, short enough to give a peak's sessions back. Not
    /// zero; with `never` sessions are closed only to make room.
    pub idle_timeout: Limit,
    /// How long [`get`](crate::SessionRegistry::get) takes at most, with all that it does; 5 s by default,
    /// as a pool's. Not zero.
    pub acquire_timeout: Duration,
    /// How many sessions are connected at once, new ones and those that reconnect; 1 to 65,535. Default
    /// 16: a server that comes back has some thousand handshakes before it, and should answer each
    /// before it gives up.
    pub max_connecting: u32,
    /// How the server is left in peace when it has failed, and for how long a device that it has refused
    /// for good.
    pub backoff: BackoffConfig,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            max_sessions: 10_000,
            idle_timeout: Limit::After(Duration::from_secs(5 * 60)),
            acquire_timeout: Duration::from_secs(5),
            max_connecting: 16,
            backoff: BackoffConfig::default(),
        }
    }
}

macro_rules! setters {
    ($($with:ident $name:ident: $type:ty,)*) => {
        impl RegistryConfig {$(
            #[doc = concat!("With this [`", stringify!($name), "`](Self::", stringify!($name), ").")]
            #[must_use]
            pub fn $with(mut self, $name: impl Into<$type>) -> Self {
                self.$name = $name.into();
                self
            }
        )*}
    };
}

setters! {
    with_max_sessions max_sessions: usize,
    with_idle_timeout idle_timeout: Limit,
    with_acquire_timeout acquire_timeout: Duration,
    with_max_connecting max_connecting: u32,
    with_backoff backoff: BackoffConfig,
}

/// More than one address has ports, many times over.
const MAX_SESSIONS: usize = 1_000_000;

const MAX_CONNECTING: u32 = 65_535;

impl RegistryConfig {
    /// Everything that is wrong with the options, at once.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        if !(1..=MAX_SESSIONS).contains(&self.max_sessions) {
            errors.push(
                "registry.max_sessions",
                self.max_sessions,
                "must be 1 to 1000000",
                "10000 is the default",
            );
        }
        if self.idle_timeout == Limit::After(Duration::ZERO) {
            errors.push(
                "registry.idle_timeout",
                self.idle_timeout,
                "must be longer than zero",
                "use \"never\" to close sessions only to make room",
            );
        }
        if self.acquire_timeout.is_zero() {
            errors.push(
                "registry.acquire_timeout",
                Limit::After(self.acquire_timeout),
                "must be longer than zero",
                "use a long time to wait almost for ever",
            );
        }
        if !(1..=MAX_CONNECTING).contains(&self.max_connecting) {
            errors.push(
                "registry.max_connecting",
                self.max_connecting,
                "must be 1 to 65535",
                "16 is the default",
            );
        }
        // The gate knows the rules of a backoff.
        let budget = DialBudget::new(std::num::NonZeroU32::MIN);
        if let Err(problems) = DialGate::new(self.backoff.clone(), budget) {
            errors.append(problems);
        }
        errors.into_result()
    }
}
