//! When a session that has lost its connection, or could not be opened, is to try again.

use std::{fmt, sync::Arc, time::Duration};

use mqtt_pool::{ConfigErrors, Limit};
use mqtt_transport::Endpoint;
use tokio::time::Instant;

use crate::error::{ConnectError, ConnectionLost};

/// The options of reconnecting.
///
/// The delay before attempt `n`, counted from 0, is `base` times 2 to the power of `n`, at most
/// `max`, and a random part of `jitter` more. Only what is transient is tried again: a refusal that
/// only a person can mend ends the session, unless a
/// [policy](crate::SessionConnector::with_reconnect_policy) says otherwise.
///
/// # What is transient
///
/// An answer to CONNECT that complains about the CONNECT is permanent, as the same CONNECT would
/// come again. A complaint on an open session need not come again, and what a server does wrong may
/// be mended there: a server that is broken for good gets one attempt in each `max`.
///
/// | code | | in CONNACK | in DISCONNECT |
/// | --- | --- | --- | --- |
/// | 0x00 | success | | transient |
/// | 0x80 | unspecified error | transient | transient |
/// | 0x81 | malformed packet | permanent | transient |
/// | 0x82 | protocol error | permanent | transient |
/// | 0x83 | implementation specific error | transient | transient |
/// | 0x84 | unsupported protocol version (3.1.1: 1) | permanent | |
/// | 0x85 | client identifier not valid (3.1.1: 2) | permanent | |
/// | 0x86 | bad user name or password (3.1.1: 4) | permanent | |
/// | 0x87 | not authorized (3.1.1: 5) | permanent | permanent |
/// | 0x88 | server unavailable (3.1.1: 3) | transient | |
/// | 0x89 | server busy | transient | transient |
/// | 0x8A | banned | permanent | |
/// | 0x8B | server shutting down | | transient |
/// | 0x8C | bad authentication method | permanent | permanent |
/// | 0x8D | keep alive timeout | | transient |
/// | 0x8E | session taken over: two clients would kick each other for ever | | permanent |
/// | 0x8F | topic filter invalid | | transient |
/// | 0x90 | topic name invalid: in CONNACK that of the will | permanent | transient |
/// | 0x93 | receive maximum exceeded | | transient |
/// | 0x94 | topic alias invalid | | transient |
/// | 0x95 | packet too large | permanent | transient |
/// | 0x96 | message rate too high | | transient |
/// | 0x97 | quota exceeded | transient | transient |
/// | 0x98 | administrative action | | transient |
/// | 0x99 | payload format invalid: in CONNACK that of the will | permanent | transient |
/// | 0x9A | retain not supported: in CONNACK that of the will | permanent | transient |
/// | 0x9B | QoS not supported: in CONNACK that of the will | permanent | transient |
/// | 0x9C | use another server, which is not [followed](crate::RedirectPolicy) | transient | transient |
/// | 0x9D | server moved, and is not followed | permanent | permanent |
/// | 0x9E | shared subscriptions not supported | | transient |
/// | 0x9F | connection rate exceeded | transient | transient |
/// | 0xA0 | maximum connect time | | transient |
/// | 0xA1 | subscription identifiers not supported | | transient |
/// | 0xA2 | wildcard subscriptions not supported | | transient |
///
/// | what else | |
/// | --- | --- |
/// | the server closed without a word, as servers of 3.1.1 do | transient |
/// | refused, reset, unreachable, timed out, a name that is not found | transient |
/// | no CONNACK in time, nothing heard for one and a half keep-alive | transient |
/// | the server sent what is not a packet, or broke a rule | transient |
/// | the server [does not answer](crate::OnStall::Reconnect) | transient |
/// | TLS failed on the way: cut off, timed out | transient |
/// | a certificate was refused, either way; TLS cannot do what is asked | permanent |
/// | not supported, not permitted, not a valid address | permanent |
/// | the source of credentials has none | as it says |
/// | the options are not allowed | permanent |
/// | this side has cut the connection | transient |
/// | this side has left | permanent |
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReconnectConfig {
    /// The first delay. Default 1 s. Not zero.
    pub base: Duration,
    /// The longest delay, before jitter. Default 60 s; at least `base`.
    pub max: Duration,
    /// How much longer a delay may be, at random. Default 1 s, so that clients which lost the same
    /// server do not come back together.
    pub jitter: Duration,
    /// How often opening a session is tried again before its caller is told. Default 5, which is
    /// about half a minute.
    pub max_connect_retries: u32,
    /// How often a session that was open is tried to be opened again, counted anew after each
    /// stable period. `None`, the default, for ever: a gateway is there when its server comes back.
    pub max_retries: Option<u32>,
    /// How long a connection has to hold before the delays begin anew. Default 30 s, because
    /// servers accept and then kick.
    pub stable_after: Duration,
    /// After how many connections in a row that a server ends before they are stable, each with the
    /// same publish as the first it has not acknowledged, that publish is set aside: its future
    /// ends with [`PublishError::SetAside`](crate::PublishError::SetAside), and it is not sent
    /// again. Default 3, at least 2; `None` sends it for ever.
    ///
    /// Only where the server keeps the session, as otherwise nothing is sent again. Before the last
    /// of those connections is given anything again it has to hold for 2 s, and then gets one
    /// publish at a time, so that none is blamed for another, or for a server that is away. What
    /// stays: a publish that a server takes longer than `stable_after` to fail at is not found, and
    /// one is blamed wrongly if the connection happens to break in the moment after it each time.
    pub set_aside_after: Option<u32>,
}

impl Default for ReconnectConfig {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            max: Duration::from_secs(60),
            jitter: Duration::from_secs(1),
            max_connect_retries: 5,
            max_retries: None,
            stable_after: Duration::from_secs(30),
            set_aside_after: Some(3),
        }
    }
}

macro_rules! setters {
    ($($with:ident $name:ident: $type:ty,)*) => {
        impl ReconnectConfig {$(
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
    with_base base: Duration,
    with_max max: Duration,
    with_jitter jitter: Duration,
    with_max_connect_retries max_connect_retries: u32,
    with_max_retries max_retries: Option<u32>,
    with_stable_after stable_after: Duration,
    with_set_aside_after set_aside_after: Option<u32>,
}

impl ReconnectConfig {
    pub(crate) fn check(&self, path: &str, errors: &mut ConfigErrors) {
        if self.base.is_zero() {
            errors.push(
                format!("{path}.base"),
                "0s",
                "must be longer than zero",
                "one second suits most servers",
            );
        }
        if self.set_aside_after.is_some_and(|after| after < 2) {
            errors.push(
                format!("{path}.set_aside_after"),
                self.set_aside_after.unwrap_or_default(),
                "must be at least 2",
                "3 is the default",
            );
        }
        if self.max < self.base {
            errors.push(
                format!("{path}.max"),
                Limit::After(self.max),
                "must be at least base",
                "raise it, or lower base",
            );
        }
    }

    /// The delay before the attempt of this number, where `chance`, from 0.0 to 1.0, is how much of
    /// the jitter is taken.
    fn delay(&self, attempt: u32, chance: f64) -> Duration {
        let doubled = self.base.saturating_mul(2_u32.saturating_pow(attempt));
        let jitter = Duration::try_from_secs_f64(self.jitter.as_secs_f64() * chance);
        doubled
            .min(self.max)
            .saturating_add(jitter.unwrap_or(self.jitter))
    }

    /// What is done without a policy of one's own.
    pub fn plan(&self, interruption: &Interruption<'_>) -> Plan {
        let retries = match interruption.cause {
            Cause::NotOpened(_) if !interruption.was_open => Some(self.max_connect_retries),
            Cause::NotOpened(_) | Cause::Lost(_) => self.max_retries,
        };
        if !interruption.cause.is_transient()
            || retries.is_some_and(|retries| interruption.attempt >= retries)
        {
            return Plan::GiveUp;
        }
        Plan::retry(self.delay(interruption.attempt, fastrand::f64()))
    }
}

/// What a decision about another attempt is made from.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Interruption<'a> {
    /// Where the connection was, or the attempt was made.
    pub endpoint: &'a Endpoint,
    /// How many attempts there were since the last stable period.
    pub attempt: u32,
    /// Why there is no connection.
    pub cause: Cause<'a>,
    /// Whether the session was open before. Its first opening is over when the caller is told.
    pub was_open: bool,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a connection was there or it was not"
)]
pub enum Cause<'a> {
    /// The one there was has ended.
    Lost(&'a ConnectionLost),
    /// An attempt to open one has failed.
    NotOpened(&'a ConnectError),
}

impl Cause<'_> {
    /// Whether another attempt can help without a change by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Lost(lost) => lost.is_transient(),
            Self::NotOpened(error) => error.is_transient(),
        }
    }

    /// Who ended the connection or the attempt.
    pub fn closed_by(&self) -> ClosedBy {
        match self {
            Self::Lost(lost) => lost.closed_by(),
            Self::NotOpened(error) => error.closed_by(),
        }
    }

    /// Where it was.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Lost(lost) => &lost.endpoint,
            Self::NotOpened(error) => &error.endpoint,
        }
    }
}

/// Who ended a connection, or an attempt to open one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClosedBy {
    /// This side: the application, or options that are not allowed.
    Client,
    /// The server: it said so, closed, or broke a rule.
    Server,
    /// Something between the two, or nobody knows: an error of the system, or silence.
    Network,
}

/// What to do about an [`Interruption`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Plan {
    /// Try again after this time.
    #[non_exhaustive]
    Retry {
        /// From now. [`Session::reconnect`](crate::Session::reconnect) cuts it short.
        after: Duration,
        /// Where, if not where the session belongs.
        endpoint: Option<Endpoint>,
    },
    /// Stay without a connection until [`Session::reconnect`](crate::Session::reconnect) is called:
    /// publishes and subscribes wait, within the bounds there are without it. A session that is
    /// only being opened cannot be told so, and gives up instead.
    Hold,
    /// End the session, or tell the caller who wanted to open one.
    GiveUp,
}

impl Plan {
    /// Try again after this time.
    pub fn retry(after: Duration) -> Self {
        Self::Retry {
            after,
            endpoint: None,
        }
    }

    /// The same attempt at another endpoint, with the same credentials. It holds for this one attempt:
    /// those after it go where the session belongs, unless their plans say otherwise too. It changes no
    /// other plan.
    #[must_use]
    pub fn at(mut self, at: Endpoint) -> Self {
        if let Self::Retry { endpoint, .. } = &mut self {
            *endpoint = Some(at);
        }
        self
    }
}

/// Decides about another attempt.
pub(crate) type Policy = Arc<dyn Fn(&Interruption<'_>) -> Plan + Send + Sync>;

/// The policy of a configuration.
#[derive(Clone)]
pub(crate) struct Reconnect {
    pub(crate) policy: Policy,
    pub(crate) stable_after: Duration,
    pub(crate) set_aside_after: Option<u32>,
}

impl fmt::Debug for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect")
            .field("stable_after", &self.stable_after)
            .field("set_aside_after", &self.set_aside_after)
            .finish_non_exhaustive()
    }
}

impl From<ReconnectConfig> for Reconnect {
    fn from(config: ReconnectConfig) -> Self {
        Self {
            stable_after: config.stable_after,
            set_aside_after: config.set_aside_after,
            policy: Arc::new(move |interruption| config.plan(interruption)),
        }
    }
}

/// Where a session stands with its server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionState {
    /// The server has accepted it.
    #[non_exhaustive]
    Connected {
        /// Whether the server still had the session. `false`: what it had of it is lost, and
        /// subscriptions are asked for again.
        resumed: bool,
    },
    /// Its connection is lost, and the next attempt comes at this time.
    #[non_exhaustive]
    Waiting {
        /// When.
        until: Instant,
        /// The number of that attempt, counted from 1 since the last stable period.
        attempt: u32,
        /// Why the last connection has ended, or the last attempt has failed.
        cause: Arc<ConnectionLost>,
    },
    /// Its connection is lost, and there is no attempt before
    /// [`Session::reconnect`](crate::Session::reconnect) is called, since a policy said
    /// [`Plan::Hold`].
    #[non_exhaustive]
    Held {
        /// Why the last connection has ended, or the last attempt has failed.
        cause: Arc<ConnectionLost>,
    },
    /// An attempt is being made.
    #[non_exhaustive]
    Connecting {
        /// Its number, counted from 1 since the last stable period.
        attempt: u32,
    },
    /// It was told to leave, and has left.
    Disconnected,
    /// It is over, and this is why.
    Failed(Arc<ConnectionLost>),
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_up_to_the_longest_and_jitter_comes_on_top() {
        let config = ReconnectConfig::default();
        for (attempt, seconds) in [
            (0, 1),
            (1, 2),
            (2, 4),
            (5, 32),
            (6, 60),
            (40, 60),
            (u32::MAX, 60),
        ] {
            assert_eq!(config.delay(attempt, 0.0), SECOND * seconds);
            assert_eq!(config.delay(attempt, 1.0), SECOND * (seconds + 1));
        }
    }
}
