//! Messages of an adopted session that came before anybody subscribed to them.
//!
//! The server begins to send what it kept from an earlier process at once. A message that no subscription
//! wants yet waits here, unacknowledged, and goes to the first that does; what is left is acknowledged
//! only when the program says that it has subscribed to all it wants.

use std::{collections::VecDeque, mem, task::Waker};

use mqtt_proto::{AckId, Message};

use crate::{session::Session, shared::State, subscription::Delivery};

/// What an adopted session has for subscriptions that were not made yet: [`Session::unclaimed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unclaimed {
    /// Messages of QoS 1 and 2 that are held. At most
    /// [`receive_maximum`](crate::SessionConfig::receive_maximum), and if it is as many, the server sends
    /// no more of them.
    pub held: usize,
    /// Messages of QoS 0 that were dropped, since they cannot be held back.
    pub dropped: u64,
}

/// What is held, behind the lock.
#[derive(Debug)]
pub(crate) struct Hold {
    /// In order of arrival; each is owed something.
    messages: VecDeque<Delivery>,
    dropped: u64,
    /// Whether more is taken in. Not when the server has lost the session: what comes then, this
    /// process has subscribed to.
    is_open: bool,
}

impl Session {
    /// What has come of an [adopted session](crate::SessionConfig::adopt_session) and is not
    /// subscribed to yet. Nothing in other sessions, and after
    /// [`release_unclaimed`](Self::release_unclaimed).
    pub fn unclaimed(&self) -> Unclaimed {
        let state = self.shared().lock();
        let hold = state.ledger.as_ref().and_then(|it| it.hold.as_ref());
        hold.map_or_else(Unclaimed::default, |hold| Unclaimed {
            held: hold.messages.len(),
            dropped: hold.dropped,
        })
    }

    /// Says that an [adopted session](crate::SessionConfig::adopt_session) has all its
    /// subscriptions: messages that none of them wanted are acknowledged, and from now on at once.
    /// Returns how many they were. Does nothing in other sessions, and when called again.
    ///
    /// Until it is called what nobody subscribes to stays unacknowledged, acknowledgements of later
    /// messages wait behind it, and the server stops sending at receive maximum.
    pub fn release_unclaimed(&self) -> usize {
        let mut state = self.shared().lock();
        let Some(hold) = state.ledger.as_mut().and_then(|it| it.hold.take()) else {
            return 0;
        };
        if state.core.is_connected() {
            state.lend_buffer();
        }
        for ack in hold.messages.iter().filter_map(|delivery| delivery.ack) {
            state.taken(ack);
        }
        state.forget_ledger_if_empty();
        let driver = state.wake_driver();
        drop(state);
        driver.into_iter().for_each(Waker::wake);
        let released = hold.messages.len();
        tracing::debug!(released, "acknowledged what nobody has claimed");
        released
    }
}

impl State {
    /// The server has a session that this process did not begin: messages may come before their
    /// subscriptions.
    pub(crate) fn adopt(&mut self) {
        self.ledger.get_or_insert_default().hold = Some(Hold {
            messages: VecDeque::new(),
            dropped: 0,
            is_open: true,
        });
    }

    fn open_hold(&mut self) -> Option<&mut Hold> {
        let hold = self.ledger.as_mut()?.hold.as_mut()?;
        hold.is_open.then_some(hold)
    }

    /// Keeps a message that no subscription wants, if one may still be made. Of QoS 0 it keeps the
    /// count.
    pub(crate) fn hold(&mut self, message: Message, ack: Option<AckId>) -> bool {
        let Some(hold) = self.open_hold() else {
            return false;
        };
        if ack.is_some() {
            hold.messages.push_back(Delivery { message, ack });
        } else {
            hold.dropped += 1;
        }
        true
    }

    /// Gives a subscription that was just made what is held for it.
    pub(crate) fn claim(&mut self, key: usize, wakers: &mut Vec<Waker>) {
        let hold = self.ledger.as_mut().and_then(|it| it.hold.as_mut());
        let (Some(hold), Some(queue)) = (hold, self.subscriptions.get_mut(key)) else {
            return;
        };
        for delivery in mem::take(&mut hold.messages) {
            if queue.wants(&delivery.message) {
                queue.push(delivery.message, delivery.ack, wakers);
            } else {
                hold.messages.push_back(delivery);
            }
        }
        self.close_empty_hold();
    }

    /// Takes back what a subscription has left unread, if another may still be made for it.
    pub(crate) fn hold_again(&mut self, unread: &mut VecDeque<Delivery>) {
        let (Some(ledger), core) = (&mut self.ledger, &self.core) else {
            return;
        };
        let Some(hold) = ledger.hold.as_mut().filter(|hold| hold.is_open) else {
            return;
        };
        // Others come again by themselves.
        let open = |delivery: &Delivery| delivery.ack.is_some_and(|ack| core.is_open(ack));
        hold.messages.extend(unread.drain(..).filter(open));
        let messages = hold.messages.make_contiguous();
        messages.sort_by_key(|delivery| delivery.ack);
    }

    /// There is a new connection. What the server has still it sends again, and what it has lost
    /// stays for who subscribes.
    pub(crate) fn resume_hold(&mut self, session_present: bool) {
        let (Some(ledger), core) = (&mut self.ledger, &self.core) else {
            return;
        };
        if let Some(hold) = &mut ledger.hold {
            if session_present {
                hold.messages
                    .retain(|delivery| delivery.ack.is_some_and(|ack| core.is_open(ack)));
            } else {
                hold.is_open = false;
            }
        }
        self.close_empty_hold();
    }

    fn close_empty_hold(&mut self) {
        if let Some(ledger) = &mut self.ledger
            && let Some(hold) = &ledger.hold
            && !hold.is_open
            && hold.messages.is_empty()
        {
            ledger.hold = None;
            self.forget_ledger_if_empty();
        }
    }
}
