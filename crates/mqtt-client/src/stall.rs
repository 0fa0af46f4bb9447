//! A server that answers pings and never acknowledges: what is done about it.
//!
//! That it does not answer the core finds, with a few looks while anything is open; here is when the
//! looks begin, and what follows.

use std::time::Duration;

use mqtt_proto::{Overdue, ReasonCode};
use tokio::time::Instant;

use crate::{error::LostCause, shared::State};

/// What is done when a server does not answer in time, see
/// [`SessionConfig::ack_timeout`](crate::SessionConfig::ack_timeout).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStall {
    /// It is logged as a warning and counted in [`Session::stalls`](crate::Session::stalls); the session
    /// goes on. The default: a server that is overloaded is not helped by connecting anew, and where it
    /// does not keep the session, as by default, that would lose what is in flight.
    #[default]
    Report,
    /// The same, and the connection ends with [`LostCause::Stalled`](crate::LostCause::Stalled), which
    /// is transient: a session that reconnects goes on with another one, and where the server has
    /// kept it sends again what was not acknowledged. In 5.0 a DISCONNECT says "implementation specific
    /// error"; either way the server publishes the will. Delays double from one such connection to
    /// the next, unless it was stable before.
    Reconnect,
}

/// When a server takes too long to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    pub(crate) timeout: Duration,
    pub(crate) then: OnStall,
}

impl State {
    /// Something is about to be written: says when the core is to look at the time, if that has changed.
    pub(crate) fn watch_answers(&mut self) -> Option<Instant> {
        let stall = self.options.stall?;
        if !self.core.has_unwatched_requests() {
            return None;
        }
        self.core
            .watch_answers(stall.timeout, Instant::now().into_std());
        self.core.next_deadline().map(Instant::from_std)
    }

    /// What the core has found at its look, and whether the connection ends for it. To be
    /// [reported](report) without the lock.
    pub(crate) fn take_stall(&mut self) -> Option<(Overdue, OnStall)> {
        let overdue = self.core.take_overdue()?;
        let then = self.options.stall?.then;
        self.stalls = self.stalls.saturating_add(1);
        if then == OnStall::Reconnect {
            self.core.abort(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
        }
        Some((overdue, then))
    }
}

/// Says so, and why the connection ends if it does.
pub(crate) fn report((overdue, then): (Overdue, OnStall)) -> Option<LostCause> {
    let Overdue {
        awaited, timeout, ..
    } = overdue;
    tracing::warn!(%awaited, ?timeout, "the server does not answer");
    (then == OnStall::Reconnect).then_some(LostCause::Stalled { awaited, timeout })
}

impl LostCause {
    /// For how long at most the connection was of no use before it ended so.
    pub(crate) fn useless_for(&self) -> Duration {
        if let Self::Stalled { timeout, .. } = self {
            timeout.saturating_add(*timeout / 4)
        } else {
            Duration::ZERO
        }
    }
}
