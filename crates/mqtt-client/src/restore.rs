//! What a new connection takes over from the one before: subscriptions, and requests that the
//! server has not answered.
//!
//! Subscriptions are asked for again a few at a time, so that a session with thousands of them does
//! not flood the server that has just come back, and each learns what the server says.

use std::{collections::VecDeque, sync::Arc, task::Waker};

use mqtt_proto::{
    QoS, ReasonCode, TopicFilter,
    packet::{AckProperties, Properties, SubscribeFilter, SubscribeProperties},
};

use crate::{
    error::{ConnectionLost, SubscribeError},
    shared::{Answer, State, Waiter},
};

/// Filters in one SUBSCRIBE: what the strictest public services take.
const MAX_FILTERS: usize = 8;

/// SUBSCRIBEs that the server has not answered.
const MAX_UNANSWERED: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Restore {
    /// Keys of the subscriptions that are still to be asked for.
    due: VecDeque<usize>,
    unanswered: usize,
    /// Unsubscribes that the server has not answered, by the key of their waiter.
    unsubscribing: Vec<(usize, Vec<TopicFilter>)>,
}

impl Restore {
    fn is_done(&self) -> bool {
        self.due.is_empty() && self.unanswered == 0 && self.unsubscribing.is_empty()
    }
}

impl State {
    /// The connection is gone and another is tried: requests that cannot go on without it are told.
    pub(crate) fn interrupt(&mut self, lost: &Arc<ConnectionLost>, wakers: &mut Vec<Waker>) {
        let tokens = self.core.connection_lost();
        self.forget_sample();
        self.lose(tokens, lost, wakers);
        self.stop_authenticating(lost, wakers);
        if let Some(restore) = &mut self.restore {
            restore.due.clear();
            restore.unanswered = 0;
        }
        self.pressing = 0;
    }

    /// Requests that ended with their connection. Subscribes and unsubscribes are asked again on the
    /// next one.
    pub(crate) fn lose(
        &mut self,
        tokens: Vec<usize>,
        lost: &Arc<ConnectionLost>,
        wakers: &mut Vec<Waker>,
    ) {
        for token in tokens {
            if let Some(Waiter::Restoring(_)) = self.waiters.get(token) {
                self.waiters.remove(token);
            } else if !self.is_asked_again(token) {
                self.answer(token, Answer::Lost(lost.clone()), wakers);
            }
        }
    }

    fn is_asked_again(&mut self, token: usize) -> bool {
        let mut unsubscribes = self.restore.iter().flat_map(|it| &it.unsubscribing);
        if unsubscribes.any(|(key, _)| *key == token) {
            return true;
        }
        let mut queues = self.subscriptions.iter_mut().map(|(_, queue)| queue);
        let subscribes = queues.find(|queue| queue.asked == Some(token));
        subscribes.is_some_and(|queue| {
            queue.is_cut_off = true;
            true
        })
    }

    /// An unsubscribe was sent, or is to be when there is a connection.
    pub(crate) fn note_unsubscribe(&mut self, key: usize, filters: Vec<TopicFilter>) {
        let restore = self.restore.get_or_insert_default();
        restore.unsubscribing.push((key, filters));
    }

    /// There is a new connection, on which the server has the session still, or not.
    pub(crate) fn resume(&mut self, session_present: bool, wakers: &mut Vec<Waker>) {
        self.lend_buffer();
        let unsubscribing = self.restore.take().map(|restore| restore.unsubscribing);
        for (key, filters) in unsubscribing.unwrap_or_default() {
            self.unsubscribe_again(key, filters, session_present, wakers);
        }
        let mut due = VecDeque::new();
        for (key, queue) in &mut self.subscriptions {
            if session_present {
                // What was not acknowledged comes again.
                queue.forget_closed(&self.core);
            } else {
                queue.drop_excess();
                queue.is_granted = false;
            }
            if queue.is_due() {
                due.push_back(key);
            }
        }
        self.forget_closed();
        self.resume_hold(session_present);
        if !due.is_empty() {
            self.restore.get_or_insert_default().due = due;
        }
        self.restore_next(wakers);
    }

    fn unsubscribe_again(
        &mut self,
        key: usize,
        mut filters: Vec<TopicFilter>,
        session_present: bool,
        wakers: &mut Vec<Waker>,
    ) {
        filters.retain(|filter| {
            session_present
                && !self
                    .subscriptions
                    .iter()
                    .any(|(_, queue)| queue.has_filter(filter))
        });
        if !filters.is_empty()
            && self
                .core
                .unsubscribe(filters.clone(), Properties::default(), key)
                .is_ok()
        {
            self.note_unsubscribe(key, filters);
            return;
        }
        let answer = Answer::Answered {
            // Nothing was asked of this server.
            reason_codes: Vec::new(),
            properties: Properties::default(),
        };
        self.answer(key, answer, wakers);
    }

    /// Asks for the next subscriptions, as far as there is room; for one at least, whose answer leads
    /// to the next.
    pub(crate) fn restore_next(&mut self, wakers: &mut Vec<Waker>) {
        while let Some(restore) = &self.restore
            && restore.unanswered < MAX_UNANSWERED
            && !restore.due.is_empty()
            && (restore.unanswered == 0 || self.core.has_room(QoS::AtMostOnce))
        {
            self.restore_batch(wakers);
        }
        self.forget_if_done();
    }

    fn forget_if_done(&mut self) {
        let restore = self.restore.as_ref();
        if restore.is_some_and(|restore| restore.is_done()) {
            self.restore = None;
        }
    }

    /// Asks for one subscription, and for those after it that fit into the same packet.
    fn restore_batch(&mut self, wakers: &mut Vec<Waker>) {
        let mut batch: Vec<(usize, usize)> = Vec::new();
        let mut filters = 0;
        let mut properties = None;
        let Some(restore) = &mut self.restore else {
            return;
        };
        while let Some(&key) = restore.due.front() {
            // It may have been given up since, and its key be another's.
            let queue = self.subscriptions.get(key).filter(|queue| queue.is_due());
            let Some(queue) = queue else {
                restore.due.pop_front();
                continue;
            };
            let is_full = filters + queue.filters.len() > MAX_FILTERS;
            let is_alike = properties
                .as_ref()
                .is_none_or(|properties| *properties == &queue.properties);
            if !batch.is_empty() && (is_full || !is_alike) {
                break;
            }
            restore.due.pop_front();
            batch.push((key, queue.filters.len()));
            filters += queue.filters.len();
            properties.get_or_insert(&queue.properties);
        }
        if !batch.is_empty() {
            self.ask_again(batch, wakers);
        }
    }

    fn ask_again(&mut self, batch: Vec<(usize, usize)>, wakers: &mut Vec<Waker>) {
        let mut filters: Vec<SubscribeFilter> = Vec::new();
        let mut properties = SubscribeProperties::default();
        let token = self.waiters.insert(Waiter::Restoring(batch.clone()));
        for (key, _) in &batch {
            if let Some(queue) = self.subscriptions.get_mut(*key) {
                queue.restoring = Some(token);
                filters.extend(queue.filters.iter().cloned());
                properties.clone_from(&queue.properties);
            }
        }
        let Err(error) = self.core.subscribe(filters, properties.into(), token) else {
            self.restore.get_or_insert_default().unanswered += 1;
            return;
        };
        self.waiters.remove(token);
        if let &[(key, _)] = batch.as_slice() {
            // The server takes less than the one before.
            let queue = self.subscriptions.get_mut(key);
            match queue.and_then(|queue| queue.asked.take()) {
                Some(asked) => self.answer(asked, Answer::NotAllowed(error), wakers),
                None => self.refuse(key, error.into(), wakers),
            }
            return;
        }
        // One that it does not take, or that makes the packet too large, costs no other.
        for one in batch {
            self.ask_again(vec![one], wakers);
        }
    }

    /// The server has answered a SUBSCRIBE or UNSUBSCRIBE.
    pub(crate) fn on_answered(
        &mut self,
        token: usize,
        reason_codes: Vec<ReasonCode>,
        properties: Properties<AckProperties>,
        wakers: &mut Vec<Waker>,
    ) {
        if let Some(Waiter::Restoring(_)) = self.waiters.get(token) {
            if let Waiter::Restoring(batch) = self.waiters.remove(token) {
                if let Some(restore) = &mut self.restore {
                    restore.unanswered = restore.unanswered.saturating_sub(1);
                }
                let mut codes = reason_codes.as_slice();
                for (key, count) in batch {
                    let (mine, rest) = codes.split_at(count.min(codes.len()));
                    codes = rest;
                    self.on_restored(key, token, mine, &properties, wakers);
                }
                self.restore_next(wakers);
            }
            return;
        }
        if let Some(restore) = &mut self.restore {
            restore.unsubscribing.retain(|(key, _)| *key != token);
        }
        self.forget_if_done();
        for (_, queue) in &mut self.subscriptions {
            if queue.asked == Some(token) {
                queue.asked = None;
                queue.on_answered(&reason_codes, &properties);
            }
        }
        let answer = Answer::Answered {
            reason_codes,
            properties,
        };
        self.answer(token, answer, wakers);
    }

    fn on_restored(
        &mut self,
        key: usize,
        token: usize,
        codes: &[ReasonCode],
        properties: &Properties<AckProperties>,
        wakers: &mut Vec<Waker>,
    ) {
        // It may have been given up since, and its key be another's.
        let Some(queue) = self
            .subscriptions
            .get_mut(key)
            .filter(|queue| queue.restoring == Some(token))
        else {
            return;
        };
        queue.restoring = None;
        if let Some(asked) = queue.asked.take() {
            // The answer that the one who subscribed is still waiting for.
            queue.on_answered(codes, properties);
            let answer = Answer::Answered {
                reason_codes: codes.to_vec(),
                properties: properties.clone(),
            };
            self.answer(asked, answer, wakers);
        } else if codes.iter().any(|code| code.is_error()) {
            let error = SubscribeError::Refused {
                reason_codes: codes.to_vec(),
                properties: properties.clone(),
            };
            self.refuse(key, error, wakers);
        } else {
            queue.on_answered(codes, properties);
        }
    }

    /// A subscription is over: the server does not take it any more.
    fn refuse(&mut self, key: usize, error: SubscribeError, wakers: &mut Vec<Waker>) {
        let Some(queue) = self.subscriptions.get_mut(key) else {
            return;
        };
        queue.restoring = None;
        queue.refused = Some(error);
        wakers.extend(queue.waker.take());
        self.count(|counts| counts.refused += 1);
    }
}
