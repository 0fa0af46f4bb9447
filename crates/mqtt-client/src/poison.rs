//! Publishes that a server does not survive: sent again at each resume, one of them would end every
//! connection for ever.
//!
//! ```text
//! nobody -- ends young, m is the first unacknowledged --> m, once -- again --> m, twice ...
//!   m, all but once of the limit: the next connection first has to hold for a while without resends,
//!   and then gets them one at a time. Ends with m alone on the wire --> m is set aside
//! ```
//!
//! A connection that is stable, or that ends before it was given m, acquits m; so a server or a
//! network that is merely unwell blames nobody, unless it happens to fall ill again and again in
//! the moment after m.

use std::{io, sync::Arc, task::Waker, time::Duration};

use mqtt_proto::ReasonCode;

use crate::{
    error::{ConnectionLost, LostCause},
    shared::{Answer, Shared},
};

/// How long a connection has to hold without the suspect before it is given it. Long enough for a
/// server that is going down or a network that flaps to show it.
pub(crate) const PROBATION: Duration = Duration::from_secs(2);

/// What is known against a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    /// The core's number of it.
    number: u64,
    /// The connections in a row that ended with it as the first unacknowledged one.
    connections: u32,
}

/// What a connection that has ended says about the publishes that were sent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing against anybody.
    Acquitted,
    Suspected(Suspect),
    /// It is the one.
    Guilty(Suspect),
}

/// Whether a connection is to be given its resends with care, with this one under suspicion.
pub(crate) fn is_careful(suspect: Option<Suspect>, limit: u32) -> bool {
    suspect.is_some_and(|suspect| suspect.connections.saturating_add(1) >= limit)
}

/// `oldest` is the first publish that was sent on the connection and not acknowledged.
pub(crate) fn judge(
    suspect: Option<Suspect>,
    oldest: Option<u64>,
    was_careful: bool,
    limit: u32,
) -> Verdict {
    let Some(number) = oldest else {
        return Verdict::Acquitted;
    };
    let before = suspect.filter(|suspect| suspect.number == number);
    let suspect = Suspect {
        number,
        connections: before.map_or(0, |it| it.connections).saturating_add(1),
    };
    if was_careful && suspect.connections >= limit {
        Verdict::Guilty(suspect)
    } else {
        Verdict::Suspected(suspect)
    }
}

/// Whether a connection that ended like this may have been ended for what was sent on it. A server that
/// says that it is busy, shuts down or takes the session elsewhere has another reason.
pub(crate) fn may_be_for_a_publish(cause: &LostCause) -> bool {
    match cause {
        LostCause::ClosedByServer => true,
        LostCause::Disconnected(disconnect) => [
            ReasonCode::UNSPECIFIED_ERROR,
            ReasonCode::MALFORMED_PACKET,
            ReasonCode::PROTOCOL_ERROR,
            ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
            ReasonCode::NOT_AUTHORIZED,
            ReasonCode::TOPIC_NAME_INVALID,
            ReasonCode::TOPIC_ALIAS_INVALID,
            ReasonCode::PACKET_TOO_LARGE,
            ReasonCode::PAYLOAD_FORMAT_INVALID,
            ReasonCode::RETAIN_NOT_SUPPORTED,
            ReasonCode::QOS_NOT_SUPPORTED,
        ]
        .contains(&disconnect.reason_code),
        LostCause::Io { source, .. } => [
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::UnexpectedEof,
        ]
        .contains(&source.kind()),
        LostCause::Closed
        | LostCause::Cut
        | LostCause::Renewed
        | LostCause::Authentication(_)
        | LostCause::Malformed(_)
        | LostCause::Protocol(_)
        | LostCause::Stalled { .. }
        | LostCause::SessionLost
        | LostCause::NotReopened(_)
        | LostCause::TaskDropped => false,
    }
}

impl Shared {
    /// The first publish that was sent on the connection and not acknowledged, if it is sent again on
    /// the next; and how old the connection is.
    pub(crate) fn oldest_unacknowledged(&self) -> (Option<u64>, Duration) {
        let state = self.lock();
        let oldest = state
            .core
            .outlives_connection()
            .then(|| state.core.oldest_unacknowledged());
        let facts = state.facts.as_ref();
        let age = facts.map_or(Duration::ZERO, |facts| facts.conn.dialled.elapsed());
        (oldest.flatten(), age)
    }

    /// Sends again what was held back.
    pub(crate) fn release_resends(&self) {
        let mut state = self.lock();
        state.lend_buffer();
        state.core.release_resends();
    }

    /// Ends a publish that is not sent again.
    pub(crate) fn set_aside(&self, suspect: Suspect, lost: &Arc<ConnectionLost>) {
        let Suspect {
            number,
            connections,
        } = suspect;
        let mut wakers = Vec::new();
        let mut state = self.lock();
        if let Some(token) = state.core.abandon_publish(number) {
            let answer = Answer::SetAside {
                connections,
                lost: lost.clone(),
            };
            state.answer(token, answer, &mut wakers);
        }
        self.note_in_flight(&state);
        drop(state);
        tracing::warn!(
            endpoint = %lost.endpoint,
            connections,
            "a publish that ends every connection is set aside"
        );
        wakers.into_iter().for_each(Waker::wake);
        // It may have been the last that those who leave wait for.
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect(number: u64, connections: u32) -> Suspect {
        Suspect {
            number,
            connections,
        }
    }

    #[test]
    fn who_is_blamed() {
        let once = Verdict::Suspected(suspect(7, 1));
        for (before, oldest, was_careful, verdict) in [
            (None, None, false, Verdict::Acquitted),
            (Some(suspect(7, 2)), None, true, Verdict::Acquitted),
            (None, Some(7), false, once),
            (Some(suspect(6, 2)), Some(7), false, once),
            // Sent alone, it was another one.
            (Some(suspect(6, 2)), Some(7), true, once),
            (
                Some(suspect(7, 1)),
                Some(7),
                false,
                Verdict::Suspected(suspect(7, 2)),
            ),
            // Not without having been alone.
            (
                Some(suspect(7, 9)),
                Some(7),
                false,
                Verdict::Suspected(suspect(7, 10)),
            ),
            (
                Some(suspect(7, 2)),
                Some(7),
                true,
                Verdict::Guilty(suspect(7, 3)),
            ),
        ] {
            assert_eq!(judge(before, oldest, was_careful, 3), verdict, "{before:?}");
        }
        for (before, is) in [(None, false), (Some(1), false), (Some(2), true)] {
            let before = before.map(|connections| suspect(7, connections));
            assert_eq!(is_careful(before, 3), is);
        }
    }
}
