//! What the caller holds back: new publishes before it leaves, and old ones that a server may not
//! survive.
//!
//! A publish that makes a server drop the connection is sent again on the next one, and so does it
//! again. Such a one is found by sending one at a time, and given up.

use super::{Phase, Session};

/// How publishes of earlier connections are sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caution {
    /// As many as the window has room for.
    None,
    /// Not yet.
    Hold,
    /// One at a time.
    Singly,
}

impl<T> Session<T> {
    /// Takes no more publishes until the next connection; what is in flight goes on.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Whether it takes no more publishes until the next connection.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Has the next connection send nothing again before
    /// [`release_resends`](Self::release_resends). New publishes wait behind it. To be called between
    /// connections; without anything to send again it changes nothing.
    pub fn hold_resends(&mut self) {
        if self.phase == Phase::Disconnected {
            self.caution = Caution::Hold;
        }
    }

    /// Sends again what was held back, each publish when the one before is acknowledged.
    pub fn release_resends(&mut self) {
        self.caution = Caution::Singly;
        if self.phase == Phase::Connected {
            self.resend();
        }
    }

    /// The first publish that was sent on this connection and whose PUBACK or PUBREC has not come. The
    /// number is that of no other publish of the session, and stays.
    pub fn oldest_unacknowledged(&self) -> Option<u64> {
        self.sending.oldest_unacknowledged()
    }

    /// Gives up an open publish by that number: it is not sent again. Its token comes back, unless the
    /// server has acknowledged it meanwhile.
    ///
    /// Its packet identifier rests until the session ends, since no acknowledgement has set it free
    /// (5.0 section 2.2.1, 3.1.1 section 2.3.1): a server that has the message at QoS 2 would take another one under
    /// it for a repetition.
    pub fn abandon_publish(&mut self, number: u64) -> Option<T> {
        self.sending.abandon(number)
    }
}
