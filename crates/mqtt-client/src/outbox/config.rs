//! How much waits to be sent, for how long, and what gives way.

use std::time::Duration;

use mqtt_pool::{ConfigErrors, Limit};

/// The bounds of what a session has taken and cannot send yet: while its window of unacknowledged
/// publishes is full, or while it has no connection.
///
/// Publishes that can be sent at once do not pass through it. A session of a pool takes none with
/// [`Overflow::Wait`]: what it could not send before it ended, another one can.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxConfig {
    /// How many messages. Default 1,024, some ten windows. With 0 nothing is taken before it can be
    /// sent.
    pub max_messages: usize,
    /// How many bytes of topics and payloads. Default 1 MiB; a message larger than that waits alone.
    pub max_bytes: usize,
    /// What happens to one more than that. Default [`Overflow::Wait`].
    pub overflow: Overflow,
    /// How long a message may wait, if neither its
    /// [`max_age`](crate::Publish::with_max_age) nor its message expiry interval is shorter. Default
    /// never too long: what is worth sending late, only the program knows.
    pub max_age: Limit,
}

/// What happens to a publish that finds the outbox full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// It waits for room, and its message stays its caller's until then.
    Wait,
    /// It is refused with [`PublishError::Full`](crate::PublishError::Full).
    Reject,
    /// It takes the place of the oldest message of its lane, or if that has none, of the oldest of
    /// all, with QoS 0 before the others; that ends as [`PublishError::Displaced`](crate::PublishError::Displaced). QoS 0 never
    /// takes the place of QoS 1 and 2.
    DropOldest,
    /// It is taken, and ends as [`PublishError::Displaced`](crate::PublishError::Displaced) at once: for
    /// producers that do not look at outcomes and must not be held up.
    DropNewest,
    /// The outbox has one message of a topic at most, also while it is not full: a newer one takes the place of
    /// the one that waits. QoS 0 is apart from QoS 1 and 2, so that there may be one of each. When it is full all the same, the oldest gives way as with `DropOldest`.
    KeepLatest,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            max_messages: 1_024,
            max_bytes: 1024 * 1024,
            overflow: Overflow::Wait,
            max_age: Limit::Never,
        }
    }
}

impl OutboxConfig {
    pub(crate) fn check(&self, path: &str, errors: &mut ConfigErrors) {
        if self.max_messages > 0 && self.max_bytes == 0 {
            errors.push(
                format!("{path}.max_bytes"),
                0,
                "at least 1",
                "1 MiB is the default; max_messages = 0 keeps nothing",
            );
        }
        if self.max_age == Limit::After(Duration::ZERO) {
            errors.push(
                format!("{path}.max_age"),
                "0s",
                "more than zero, or never",
                "max_messages = 0 keeps nothing",
            );
        }
    }
}

macro_rules! setters {
    ($($with:ident $name:ident: $type:ty,)*) => {
        impl OutboxConfig {$(
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
    with_max_messages max_messages: usize,
    with_max_bytes max_bytes: usize,
    with_overflow overflow: Overflow,
    with_max_age max_age: Limit,
}

/// What waits in a session's outbox, and what was given up there since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxStatus {
    /// Messages that were taken and are not sent yet.
    pub messages: usize,
    /// Bytes of their topics and payloads.
    pub bytes: usize,
    /// Publishes that wait to be taken.
    pub waiting: usize,
    /// Refused because it was full.
    pub rejected: u64,
    /// Gave way to another message.
    pub displaced: u64,
    /// Waited for too long.
    pub expired: u64,
}
