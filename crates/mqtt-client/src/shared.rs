//! What the handles and the driver of one session share, behind one short lock.
//!
//! A request takes the lock, lets the protocol core encode it straight into the outbound buffer,
//! and wakes the driver only if it sleeps. The driver takes the whole buffer at once, so requests
//! that come while it is busy leave in one write. Wakers are collected under the lock and woken
//! or dropped after it, and nothing is logged under it: each may run the code of others, which may
//! take the lock itself.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::Waker,
    time::Duration,
};

use mqtt_pool::DeathNotice;
use mqtt_proto::{
    AckId, Event, Message, ReasonCode, UsageError,
    packet::{AckProperties, ConnAck, Disconnect, Properties},
};
use mqtt_transport::{ConnInfo, Endpoint};
use slab::Slab;
use tokio::sync::{Notify, watch};

use crate::{
    acknowledge::Ledger,
    authenticate::Authentication,
    buffers,
    config::SessionConfig,
    control::Control,
    error::{ConnectionLost, LostCause},
    line::Line,
    metrics::Metrics,
    outbox::{Outbox, OutboxConfig},
    reconnect::SessionState,
    restore::Restore,
    stall::Stall,
    standing::News,
    subscription::Queue,
    tally::{Tally, Untold},
};

/// The protocol core; its tokens are keys of [`State::waiters`].
pub(crate) type Core = mqtt_proto::Session<usize>;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) endpoint: Endpoint,
    /// That the connection has ended, to be read without the lock.
    ended: AtomicBool,
    /// That the session was told to leave, likewise.
    pub(crate) leaving: AtomicBool,
    /// That the pool it belongs to is to replace it, likewise.
    retired: AtomicBool,
    /// How many publishes were taken and have not ended, likewise; as of when the lock was last held to change it.
    in_flight: AtomicU32,
    pub(crate) control: Control,
    /// By which the pool it belongs to is told that the connection has ended.
    notice: Option<DeathNotice>,
    /// Told when the session has ended or is to leave, and when the last publish in flight has ended.
    pub(crate) changed: Notify,
    state: Mutex<State>,
}

/// What the sessions of a connector have in common.
#[derive(Debug)]
pub(crate) struct Options {
    /// How long leaving waits for acknowledgements.
    pub(crate) quiesce: Duration,
    pub(crate) outbox: OutboxConfig,
    /// When the server is taken for stalled, if ever.
    pub(crate) stall: Option<Stall>,
    pub(crate) metrics: Metrics,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) options: Arc<Options>,
    /// Requests that were taken.
    pub(crate) waiters: Slab<Waiter>,
    /// Publishes that cannot be sent yet. There while there are any.
    pub(crate) outbox: Option<Box<Outbox>>,
    /// Subscribes that wait for a connection, or for room in the outbound buffer.
    pub(crate) subscribes: Line,
    /// Publishers in `poll_ready`. Boxed, as most programs call the methods instead.
    pub(crate) ready: Option<Box<Slab<Option<Waker>>>>,
    pub(crate) subscriptions: Slab<Queue>,
    /// What is out of the ordinary about acknowledgements. Boxed, as little is.
    pub(crate) ledger: Option<Box<Ledger>>,
    /// The driver's waker while it sleeps.
    pub(crate) driver: Option<Waker>,
    /// It sleeps until the connection takes more, and requests need not wake it.
    pub(crate) is_blocked: bool,
    /// What is counted and not told yet. There while there is any.
    pub(crate) tally: Option<Box<Tally>>,
    /// How often it did not answer in time.
    pub(crate) stalls: u32,
    /// How many subscriptions' queues fill faster than their readers have run: the driver pauses.
    pub(crate) pressing: u32,
    /// There once a connection was lost. Boxed, as most sessions do without.
    pub(crate) restore: Option<Box<Restore>>,
    /// There if the session authenticates.
    pub(crate) authentication: Option<Box<Authentication>>,
    /// Of the present connection, or the last one.
    pub(crate) facts: Option<Arc<Facts>>,
    /// How it stands while it has no connection.
    pub(crate) interruption: Option<Box<SessionState>>,
    /// Where those learn how it stands who ever asked.
    pub(crate) watch: Option<watch::Sender<SessionState>>,
    /// No new requests: the session is leaving.
    pub(crate) closing: bool,
    /// No other connection: it says goodbye.
    pub(crate) departing: bool,
    pub(crate) end: Option<Arc<ConnectionLost>>,
}

/// What is known of a connection since it was opened.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Where it was opened, which may be elsewhere than where the session belongs.
    pub(crate) endpoint: Endpoint,
    pub(crate) connack: ConnAck,
    pub(crate) conn: ConnInfo,
}

/// Who waits for the answer to a request that was sent.
#[derive(Debug)]
pub(crate) enum Waiter {
    Waiting(Waker),
    Answered(Answer),
    /// Nobody: the future was dropped.
    Abandoned,
    /// These subscriptions, each with so many filters, which are asked for again.
    Restoring(Vec<(usize, usize)>),
}

#[derive(Debug)]
pub(crate) enum Answer {
    Published {
        reason_code: ReasonCode,
        properties: Properties<AckProperties>,
    },
    Answered {
        reason_codes: Vec<ReasonCode>,
        properties: Properties<AckProperties>,
    },
    /// The server of a later connection does not take the request.
    NotAllowed(UsageError),
    /// A QoS 0 publish that had to wait was sent.
    Sent,
    /// A publish was given up before it was sent.
    NotSent(Unsent),
    Lost(Arc<ConnectionLost>),
    /// The publish ended so many connections, the last of them like this.
    SetAside {
        connections: u32,
        lost: Arc<ConnectionLost>,
    },
}

/// Why a publish that was taken is not sent.
#[derive(Debug)]
pub(crate) enum Unsent {
    Displaced,
    Expired,
    Lost(Arc<ConnectionLost>),
}

impl Options {
    pub(crate) fn of(config: &SessionConfig) -> Self {
        Self {
            quiesce: config.quiesce,
            outbox: config.outbox.clone(),
            stall: config.stall(),
            metrics: Metrics::new(config.metrics_name.clone()),
        }
    }
}

impl Shared {
    pub(crate) fn new(
        endpoint: Endpoint,
        core: Core,
        notice: Option<DeathNotice>,
        options: Arc<Options>,
    ) -> Self {
        Self {
            endpoint,
            ended: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            control: Control::default(),
            notice,
            changed: Notify::new(),
            state: Mutex::new(State {
                core,
                options,
                waiters: Slab::new(),
                outbox: None,
                subscribes: Line::default(),
                ready: None,
                subscriptions: Slab::new(),
                ledger: None,
                driver: None,
                is_blocked: false,
                tally: None,
                stalls: 0,
                pressing: 0,
                restore: None,
                authentication: None,
                facts: None,
                interruption: None,
                watch: None,
                closing: false,
                departing: false,
                end: None,
            }),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether requests are refused for good. Takes no lock.
    pub(crate) fn refuses(&self) -> bool {
        self.has_ended() || self.leaving.load(Ordering::Acquire)
    }

    /// Whether the connection has ended though nobody on this side wanted it to.
    pub(crate) fn has_failed(&self) -> bool {
        if self.leaving.load(Ordering::Acquire) {
            return false;
        }
        match self.lock().end.as_deref().map(|lost| &lost.cause) {
            None
            | Some(
                LostCause::Closed | LostCause::Cut | LostCause::Renewed | LostCause::TaskDropped,
            ) => false,
            Some(
                LostCause::ClosedByServer
                | LostCause::Disconnected(_)
                | LostCause::Io { .. }
                | LostCause::Malformed(_)
                | LostCause::Protocol(_)
                | LostCause::Stalled { .. }
                | LostCause::Authentication(_)
                | LostCause::SessionLost
                | LostCause::NotReopened(_),
            ) => true,
        }
    }

    /// How many publishes are in flight or wait in the outbox. Takes no lock: a pool asks several
    /// sessions before each publish, and the driver holds theirs for up to a hundred packets at a time.
    pub(crate) fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// To be called with the lock still held when it may have changed.
    pub(crate) fn note_in_flight(&self, state: &State) {
        let in_flight = u32::try_from(state.open_publishes()).unwrap_or(u32::MAX);
        self.in_flight.store(in_flight, Ordering::Relaxed);
    }

    /// Wakes those that wait: one that has left may have been woken for room that it does not take, or
    /// have been the last to be waited for.
    pub(crate) fn leave_room_to_others(&self, mut state: MutexGuard<'_, State>) {
        let mut wakers = Vec::new();
        state.wake_for_room(&mut wakers);
        self.note_in_flight(&state);
        let is_quiet = state.is_quiet();
        let untold = state.take_untold_in_time();
        drop(state);
        Untold::tell(untold);
        wakers.into_iter().for_each(Waker::wake);
        if is_quiet {
            self.changed.notify_waiters();
        }
    }

    /// Has the pool it belongs to replace it.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        if let Some(notice) = &self.notice {
            notice.send();
        }
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(crate) fn is_pooled(&self) -> bool {
        self.notice.is_some()
    }

    /// Waits until no publish is in flight or the session is over.
    pub(crate) async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if state.end.is_some() || state.core.in_flight() == 0 {
                    return;
                }
            }
            changed.await;
        }
    }

    /// The session is over: tells everyone, once.
    pub(crate) fn end(&self, cause: LostCause) {
        let mut wakers = Vec::new();
        let (news, ledger, untold) = {
            let mut state = self.lock();
            if state.end.is_some() {
                return;
            }
            let lost = Arc::new(ConnectionLost {
                endpoint: state.endpoint(&self.endpoint).clone(),
                cause,
            });
            let in_flight = u64::try_from(state.core.in_flight()).unwrap_or(u64::MAX);
            if in_flight > 0 {
                state.count(|counts| counts.lost += in_flight);
            }
            state.forget_sample();
            state.core.connection_lost();
            state.clear_outbox(&lost, &mut wakers);
            state.restore = None;
            state.stop_authenticating(&lost, &mut wakers);
            state.waiters.retain(|_, waiter| match waiter {
                Waiter::Waiting(_) => {
                    let answer = Waiter::Answered(Answer::Lost(lost.clone()));
                    if let Waiter::Waiting(waker) = std::mem::replace(waiter, answer) {
                        wakers.push(waker);
                    }
                    true
                }
                // Answered before the end, and not yet picked up.
                Waiter::Answered(_) => true,
                Waiter::Abandoned | Waiter::Restoring(_) => false,
            });
            state.close_intake(&mut wakers);
            wakers.extend(
                state
                    .subscriptions
                    .iter_mut()
                    .filter_map(|(_, queue)| queue.waker.take()),
            );
            self.note_in_flight(&state);
            let standing = if matches!(lost.cause, LostCause::Closed) {
                SessionState::Disconnected
            } else {
                SessionState::Failed(lost.clone())
            };
            state.end = Some(lost);
            self.ended.store(true, Ordering::Release);
            let news = state.stand(standing);
            (news, state.ledger.take(), state.take_untold())
        };
        Untold::tell(untold);
        drop(ledger);
        News::tell(news);
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
        if let Some(notice) = &self.notice {
            notice.send();
        }
    }
}

impl State {
    /// Where the present connection is, or the last one was, of a session that belongs `home`.
    pub(crate) fn endpoint<'a>(&'a self, home: &'a Endpoint) -> &'a Endpoint {
        self.facts.as_ref().map_or(home, |facts| &facts.endpoint)
    }

    /// Why no request is taken, if none is.
    pub(crate) fn refusal(&self, endpoint: &Endpoint) -> Option<Arc<ConnectionLost>> {
        if let Some(end) = &self.end {
            return Some(end.clone());
        }
        self.closing.then(|| {
            Arc::new(ConnectionLost {
                endpoint: endpoint.clone(),
                cause: LostCause::Closed,
            })
        })
    }

    /// Gives the core a buffer to encode into, if it has none.
    pub(crate) fn lend_buffer(&mut self) {
        if self.core.outbound_capacity() == 0 {
            self.core.take_outbound(buffers::outbound());
        }
    }

    /// Takes the driver's waker if there is something for it to write.
    pub(crate) fn wake_driver(&mut self) -> Option<Waker> {
        if self.core.unsent() == 0 || self.is_blocked {
            None
        } else {
            self.driver.take()
        }
    }

    /// Sends what waits, as far as there is room, and wakes those that may be taken then.
    pub(crate) fn wake_for_room(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.next_subscribe());
        if self.outbox.is_some() {
            self.send_queued(wakers);
        }
        if self.ready.is_some() && self.is_ready() {
            self.wake_ready(wakers);
        }
    }

    /// The first of the subscribes that wait, if there is room for it.
    pub(crate) fn next_subscribe(&mut self) -> Option<Waker> {
        if !self.core.has_room_for_subscribe() {
            return None;
        }
        self.subscribes.next()
    }

    /// Takes no more requests, and tells those that wait to be admitted.
    pub(crate) fn close_intake(&mut self, wakers: &mut Vec<Waker>) {
        self.closing = true;
        if let Some(outbox) = &mut self.outbox {
            wakers.extend(outbox.all_waiting());
        }
        self.subscribes.first(usize::MAX, wakers);
        self.wake_ready(wakers);
    }

    fn wake_ready(&mut self, wakers: &mut Vec<Waker>) {
        if let Some(ready) = &mut self.ready {
            wakers.extend(ready.iter_mut().filter_map(|(_, waker)| waker.take()));
        }
    }

    /// Says goodbye, if still connected; the driver closes when that is written.
    pub(crate) fn disconnect(&mut self) {
        let normal = Disconnect::new(ReasonCode::SUCCESS);
        if self.core.disconnect(normal).is_err() {
            // Not connected any more, or the server takes no packet as large as a DISCONNECT.
            self.core.abort(ReasonCode::SUCCESS);
        }
    }

    /// Acts on what came of a packet; the DISCONNECT of a server ends the connection.
    pub(crate) fn on_event(
        &mut self,
        event: Event<usize>,
        wakers: &mut Vec<Waker>,
    ) -> Result<(), LostCause> {
        match event {
            Event::Message { message, ack, .. } => self.deliver(message, ack, wakers),
            Event::Published {
                token,
                reason_code,
                properties,
            } => {
                self.answer(
                    token,
                    Answer::Published {
                        reason_code,
                        properties,
                    },
                    wakers,
                );
            }
            Event::Answered {
                token,
                reason_codes,
                properties,
            } => {
                self.on_answered(token, reason_codes, properties, wakers);
            }
            Event::Disconnected(disconnect) => return Err(LostCause::Disconnected(disconnect)),
            Event::Auth(auth) => self.on_auth(auth, wakers),
            // These are over when the driver begins.
            Event::Connected(_) | Event::Refused(_) | _ => {}
        }
        Ok(())
    }

    pub(crate) fn answer(&mut self, key: usize, answer: Answer, wakers: &mut Vec<Waker>) {
        self.count_answer(key, &answer);
        let Some(waiter) = self.waiters.get_mut(key) else {
            return;
        };
        match std::mem::replace(waiter, Waiter::Answered(answer)) {
            Waiter::Waiting(waker) => wakers.push(waker),
            Waiter::Abandoned | Waiter::Answered(_) | Waiter::Restoring(_) => {
                self.waiters.remove(key);
            }
        }
    }

    /// Nobody waits for the answer any more. Returns what waited for it.
    pub(crate) fn abandon(&mut self, key: usize) -> Option<Waiter> {
        match self.waiters.get_mut(key)? {
            waiter @ Waiter::Waiting(_) => Some(std::mem::replace(waiter, Waiter::Abandoned)),
            Waiter::Answered(_) => self.waiters.try_remove(key),
            Waiter::Abandoned | Waiter::Restoring(_) => None,
        }
    }

    /// Hands a message to every subscription it belongs to, and acknowledges one that nobody
    /// wants `[MQTT5-4.5.0-2]`, unless somebody may still subscribe to it.
    fn deliver(&mut self, message: Message, ack: Option<AckId>, wakers: &mut Vec<Waker>) {
        self.count_received(&message);
        let mut last = None;
        let mut takers = 0;
        let mut dropped = 0;
        for (key, queue) in &mut self.subscriptions {
            if queue.wants(&message) {
                takers += 1;
                last = Some(key);
            }
        }
        let Some(last) = last else {
            if !self.hold(message, ack) {
                if let Some(ack) = ack {
                    self.core.acknowledge(ack, ReasonCode::SUCCESS);
                }
                self.count(|counts| counts.unwanted += 1);
            }
            return;
        };
        if takers > 1 {
            if let Some(ack) = ack {
                self.share(ack, takers);
            }
            for (key, queue) in &mut self.subscriptions {
                if key != last && queue.wants(&message) {
                    let before = queue.dropped;
                    self.pressing += u32::from(queue.push(message.clone(), ack, wakers));
                    dropped += queue.dropped - before;
                }
            }
        }
        if let Some(queue) = self.subscriptions.get_mut(last) {
            let before = queue.dropped;
            self.pressing += u32::from(queue.push(message, ack, wakers));
            dropped += queue.dropped - before;
        }
        if dropped > 0 {
            self.count(|counts| counts.dropped += dropped);
        }
    }

    /// The readers of filling queues had their time: what comes now may be dropped.
    pub(crate) fn stop_pausing(&mut self) {
        self.pressing = 0;
        for (_, queue) in &mut self.subscriptions {
            queue.lag();
        }
    }
}

/// Keeps a session's connection open; when the last one goes, the session leaves.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// Puts `waker` in the place of `known`. Returns that, if it is another.
pub(crate) fn renew(known: &mut Waker, waker: &Waker) -> Option<Waker> {
    (!known.will_wake(waker)).then(|| std::mem::replace(known, waker.clone()))
}
