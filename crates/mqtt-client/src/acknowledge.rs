//! What is said of messages: by hand, with an [`Ack`] that comes with each, and for several
//! subscriptions together.
//!
//! Its one rule: what is acknowledged was processed, and nothing else is. The core knows which messages
//! are still to be acknowledged and keeps the order, so an acknowledgement may come from anywhere, at
//! any time, and at worst is stale.

use std::{collections::HashMap, fmt, sync::Arc, task::Waker};

use mqtt_proto::{AckId, Message, ReasonCode};
use thiserror::Error;

use crate::{
    shared::{Shared, State},
    unclaimed::Hold,
};

/// A message that is acknowledged by hand.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received {
    /// The message.
    pub message: Message,
    /// By which it is acknowledged. Dropped, it says that the message was not processed.
    pub ack: Ack,
}

impl Received {
    pub(crate) fn new(shared: &Arc<Shared>, message: Message, ack: Option<AckId>) -> Self {
        let owed = ack.map(|ack| (shared.clone(), ack));
        Self {
            message,
            ack: Ack { owed },
        }
    }

    /// Acknowledges the message, whether or not that still counts, and hands it out.
    pub fn accept(self) -> Message {
        // A stale one has nobody to tell.
        let _ = self.ack.accept();
        self.message
    }
}

/// What is owed for one message: to be accepted, rejected, or dropped.
///
/// It can be used on any thread, long after the stream it came from is gone, and does not keep the
/// session open. Acknowledgements leave in the order in which the messages came, whatever the order in
/// which they are given `[MQTT5-4.6.0-2]` `[MQTT3-4.6.0-2]`.
///
/// It belongs to one message for good: after its connection is lost it never acknowledges another
/// that came under the same packet identifier. A QoS 2 message is not handed out again when the server
/// repeats it on the next connection, so its `Ack` goes on counting there.
///
/// **Dropping it says that the message was not processed.** It is not acknowledged on this connection,
/// and a server that keeps the session sends it again on the next, at QoS 2 too. Until then
/// the acknowledgements of all messages of the session that came later wait behind it, whichever stream
/// they went to, and the server stops sending at QoS 1 and 2 when it has sent
/// [`receive_maximum`](crate::SessionConfig::receive_maximum) of them;
/// [`Session::unprocessed`](crate::Session::unprocessed) tells of it. To get on without the message,
/// [`reject`](Self::reject) it.
///
/// A message of several subscriptions is acknowledged when all of them have accepted it; those that
/// are not manual do when they hand it out. One that is dropped decides: the message is not
/// acknowledged and comes again to all. Where one rejects it the server is told so, with the first
/// code.
///
/// At QoS 0 nothing is owed, and nothing happens.
#[must_use = "dropping it says that the message was not processed"]
pub struct Ack {
    owed: Option<(Arc<Shared>, AckId)>,
}

/// An acknowledgement that did not count, and changed nothing. The connection the message came on is
/// gone, and a server that keeps the session sends it again; or another subscription gave it back; or
/// the session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the message is not to be acknowledged any more")]
pub struct Stale;

impl Ack {
    /// The message was processed: PUBACK or PUBREC leaves in its turn.
    ///
    /// An error says that it did not count. Without one it may still be lost with the connection, and
    /// at QoS 1 the message then comes again.
    pub fn accept(mut self) -> Result<(), Stale> {
        self.settle(Verdict::Taken(ReasonCode::SUCCESS))
    }

    /// The message cannot be processed and is not to come again: the server is told this code with PUBACK
    /// or PUBREC, in its turn, and forgets the message. In 3.1.1, where acknowledgements have no
    /// codes, this is [`accept`](Self::accept).
    ///
    /// A code that these packets cannot carry `[MQTT5-3.4.2-1]` `[MQTT5-3.5.2-1]`, or that is no
    /// error, is told as [`ReasonCode::UNSPECIFIED_ERROR`]. Errors are those of `accept`.
    pub fn reject(mut self, reason_code: ReasonCode) -> Result<(), Stale> {
        let reason_code = if reason_code.is_error() {
            reason_code
        } else {
            ReasonCode::UNSPECIFIED_ERROR
        };
        self.settle(Verdict::Taken(reason_code))
    }

    fn settle(&mut self, verdict: Verdict) -> Result<(), Stale> {
        let Some((shared, ack)) = self.owed.take() else {
            return Ok(());
        };
        let mut state = shared.lock();
        if state.has_said_goodbye() {
            return Err(Stale);
        }
        if state.core.is_connected() {
            state.lend_buffer();
        }
        let counts = state.settle(ack, verdict);
        let driver = state.wake_driver();
        drop(state);
        driver.into_iter().for_each(Waker::wake);
        if !counts {
            return Err(Stale);
        }
        if verdict == Verdict::GivenBack {
            tracing::debug!("a message was not processed: acknowledgements wait behind it");
        }
        Ok(())
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        let _ = self.settle(Verdict::GivenBack);
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owed = self.owed.as_ref().map(|(_, ack)| ack);
        f.debug_tuple("Ack").field(&owed).finish()
    }
}

/// What becomes of a message that was handed out, or will not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is acknowledged with this code.
    Taken(ReasonCode),
    /// It is not acknowledged on this connection.
    GivenBack,
}

/// What acknowledgements take beside the core. It is there only while there is something in it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Messages of several subscriptions.
    shares: HashMap<AckId, Share>,
    /// Messages that nobody has claimed, in a session that was adopted.
    pub(crate) hold: Option<Hold>,
}

#[derive(Debug)]
struct Share {
    /// How many subscriptions have not taken it.
    owing: usize,
    /// What is said when all have.
    reason_code: ReasonCode,
}

impl State {
    /// So many subscriptions have this message.
    pub(crate) fn share(&mut self, ack: AckId, owing: usize) {
        let share = Share {
            owing,
            reason_code: ReasonCode::SUCCESS,
        };
        let ledger = self.ledger.get_or_insert_default();
        ledger.shares.insert(ack, share);
    }

    /// A subscription has handed a message to the application.
    #[inline]
    pub(crate) fn taken(&mut self, ack: AckId) {
        if self.ledger.is_none() {
            // As nearly always.
            self.core.acknowledge(ack, ReasonCode::SUCCESS);
        } else {
            self.settle(ack, Verdict::Taken(ReasonCode::SUCCESS));
        }
    }

    /// One subscription's word on a message. Says whether it counts.
    pub(crate) fn settle(&mut self, ack: AckId, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Taken(mut reason_code) => {
                if let Some(ledger) = &mut self.ledger
                    && let Some(share) = ledger.shares.get_mut(&ack)
                {
                    share.owing -= 1;
                    if !share.reason_code.is_error() {
                        share.reason_code = reason_code;
                    }
                    if share.owing > 0 {
                        return self.core.is_open(ack);
                    }
                    reason_code = share.reason_code;
                    self.forget_share(ack);
                }
                self.core.acknowledge(ack, reason_code)
            }
            Verdict::GivenBack => {
                // What the others say after this is stale.
                self.forget_share(ack);
                self.core.give_back(ack)
            }
        }
    }

    fn forget_share(&mut self, ack: AckId) {
        if let Some(ledger) = &mut self.ledger {
            ledger.shares.remove(&ack);
            self.forget_ledger_if_empty();
        }
    }

    pub(crate) fn forget_ledger_if_empty(&mut self) {
        let ledger = self.ledger.as_ref();
        if ledger.is_some_and(|ledger| ledger.shares.is_empty() && ledger.hold.is_none()) {
            self.ledger = None;
        }
    }

    /// There is a new connection: forgets what is not to be acknowledged any more.
    pub(crate) fn forget_closed(&mut self) {
        if let Some(ledger) = &mut self.ledger {
            ledger.shares.retain(|ack, _| self.core.is_open(*ack));
            self.forget_ledger_if_empty();
        }
    }

    /// Whether nothing is sent any more, on this connection or another.
    fn has_said_goodbye(&self) -> bool {
        self.end.is_some() || (self.closing && !self.core.is_connected())
    }
}
