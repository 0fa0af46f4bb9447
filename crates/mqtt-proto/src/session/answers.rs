//! Answers that do not come: a server that is alive, and does not acknowledge.
//!
//! No request has a time of its own. Servers answer in order, so it is enough to watch the oldest open
//! one: while there is any, the session looks four times in the time that is allowed, and if it finds
//! the same one each time, that is overdue. A server that is slow and makes progress is not. So it is
//! found within one and a quarter of the time since it became the oldest, and neither a clock nor a timer
//! is touched for a request. Without open requests there are no looks.

use std::time::{Duration, Instant};

use super::{Phase, Session};
use crate::packet::PacketType;

/// After so many looks at the same oldest request it is overdue.
const LOOKS: u8 = 4;

/// The shortest time between two looks, so that they end however short a time is allowed.
const MIN_LOOK: Duration = Duration::from_millis(1);

/// The server has not answered the oldest request in the time that was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overdue {
    /// What it awaits: PUBACK, PUBREC, PUBCOMP, SUBACK or UNSUBACK.
    pub awaited: PacketType,
    /// The time that was allowed. It was exceeded by a quarter at most, if the timer was not late.
    pub timeout: Duration,
}

/// There while a request is open, or was at the last look.
#[derive(Debug)]
pub(super) struct Watch {
    timeout: Duration,
    next: Instant,
    /// The number of the request that was the oldest at the last look.
    oldest: u64,
    /// How many looks have found it still open.
    looks: u8,
    overdue: Option<PacketType>,
}

impl<T> Session<T> {
    /// Whether requests are open on this connection that nobody watches, which
    /// [`watch_answers`](Self::watch_answers) does. Takes no clock, and looks at no request.
    pub fn has_unwatched_requests(&self) -> bool {
        self.watch.is_none() && self.phase == Phase::Connected && self.sending.has_open()
    }

    /// Has [`take_overdue`](Self::take_overdue) tell when the oldest publish, subscribe or unsubscribe that
    /// was sent on this connection stays without an answer for this time. At QoS 2 either answer
    /// counts. The watch ends when nothing is open at a look, and with the connection, and is then to be begun anew.
    /// May bring [`next_deadline`](Self::next_deadline) forward.
    pub fn watch_answers(&mut self, timeout: Duration, now: Instant) {
        if !self.has_unwatched_requests() {
            return;
        }
        if let Some((oldest, _)) = self.sending.oldest_sent()
            && let Some(next) = now.checked_add(between_looks(timeout))
        {
            self.watch = Some(Box::new(Watch {
                timeout,
                next,
                oldest,
                looks: 0,
                overdue: None,
            }));
        }
    }

    /// The answer that [`handle_timeout`](Self::handle_timeout) has found overdue, if it has. The session
    /// goes on, and tells it again each time the same time has passed without it; whether the
    /// connection is to end for it is the caller's decision.
    pub fn take_overdue(&mut self) -> Option<Overdue> {
        let watch = self.watch.as_mut()?;
        Some(Overdue {
            awaited: watch.overdue.take()?,
            timeout: watch.timeout,
        })
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.watch.as_ref().map(|watch| watch.next)
    }

    pub(super) fn look_for_answers(&mut self, now: Instant) {
        let Some(watch) = self.watch.as_mut().filter(|watch| now >= watch.next) else {
            return;
        };
        let next = now.checked_add(between_looks(watch.timeout));
        let (Some((oldest, awaited)), Some(next)) = (self.sending.oldest_sent(), next) else {
            self.watch = None;
            return;
        };
        watch.next = next;
        watch.looks = if watch.oldest == oldest {
            watch.looks + 1
        } else {
            0
        };
        watch.oldest = oldest;
        if watch.looks >= LOOKS {
            watch.looks = 0;
            watch.overdue = Some(awaited);
        }
    }
}

fn between_looks(timeout: Duration) -> Duration {
    (timeout / u32::from(LOOKS)).max(MIN_LOOK)
}
