//! The task that keeps a pool as its configuration wants it.
//!
//! It is the only one that dials. It closes idle members that are no longer fit, or too many. It
//! holds the pool weakly and ends as soon as the pool is closed or its last handle is dropped.

use std::{error::Error, sync::Arc, thread, time::Duration};

use deadpool::managed::{Pool, WeakPool};
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tracing::field;

use crate::{
    Connect, ConnectContext, DeathNotice, DialError, OnUnavailable, OverdueLease, PoolConfig,
    endpoints::Choice,
    handover::Refusal,
    manager::Manager,
    member::{Member, Source},
    place::Place,
    pool::shut,
    state::State,
    totals::{ConnectTotals, Reason},
};

/// How long the numbers that others see may be behind.
const TICK: Duration = Duration::from_secs(1);

pub(crate) struct Keeper<C: Connect> {
    pool: WeakPool<Manager<C>>,
    state: Arc<State>,
    dials: JoinSet<Option<Dialled<C>>>,
    period: Duration,
    next_sweep: Instant,
}

/// What became of a dial.
type Dialled<C> = Result<Box<Member<<C as Connect>::Connection>>, DialError<<C as Connect>::Error>>;

impl<C: Connect> Keeper<C> {
    pub(crate) fn new(pool: WeakPool<Manager<C>>, state: Arc<State>) -> Self {
        let period = period(&state.config);
        Self {
            pool,
            state,
            dials: JoinSet::new(),
            period,
            next_sweep: Instant::now() + period,
        }
    }

    pub(crate) async fn run(mut self) {
        while let Some(next) = self.round() {
            tokio::select! {
                biased;
                () = self.state.closed() => return,
                Some(dialled) = self.dials.join_next() => self.on_dialled(dialled),
                () = self.state.woken() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Does all that is to be done now, and says when to come back. `None`: the pool is gone.
    fn round(&mut self) -> Option<Instant> {
        let pool = self.pool.upgrade()?;
        let now = Instant::now();
        let has_death = self.state.take_death();
        if has_death || now >= self.next_sweep || self.has_surplus() {
            self.sweep(&pool, now);
        }
        self.offer(&pool, now);
        let mut next = (now + TICK).min(self.next_sweep);
        if let Some(retry_at) = self.dial(&pool, now) {
            next = next.min(retry_at);
        }
        self.report();
        self.state.publish();
        Some(next)
    }

    fn has_surplus(&self) -> bool {
        self.state.idle.value() > 0 && self.surplus() > 0
    }

    /// How many idle members there are too many.
    fn surplus(&self) -> usize {
        let state = &self.state;
        let unwanted = state.idle.value().saturating_sub(state.idle_room());
        unwanted.max(state.above_max_size())
    }

    /// Closes the idle members that have to go, and counts those that are missing.
    fn sweep(&mut self, pool: &Pool<Manager<C>>, now: Instant) {
        let wanted = self.state.wanted_idle();
        let mut surplus = self.surplus();
        let mut above_wanted = self.state.idle.value().saturating_sub(wanted);
        // One that will be gone a second after the next sweep is replaced now, so that it is not
        // missed while its successor is dialled.
        let next_sweep = now + self.period;
        let (mut expiring, mut first_due) = (0, next_sweep);
        // The members come from the one that is idle for longest.
        let mut keep = |member: &Member<C::Connection>| {
            if member.fit_to_stay(now).is_err() {
                above_wanted = above_wanted.saturating_sub(1);
                return false;
            }
            if surplus > 0 || above_wanted > 0 && member.has_idled_out(now) {
                surplus = surplus.saturating_sub(1);
                above_wanted = above_wanted.saturating_sub(1);
                return false;
            }
            if let Some(due) = member.due() {
                expiring += usize::from(due <= next_sweep + TICK);
                first_due = first_due.min(due);
            }
            true
        };
        let mut swept = pool.manager().handover.retain(&mut keep);
        swept.extend(pool.retain(|member, _| keep(member)).removed);
        self.state.set_expiring(expiring);
        // Each at its own time and not all at the sweep, or their spread would be in vain.
        self.next_sweep = first_due.max(now + TICK);
        // The locks are free again; each closes in a task of its own.
        for member in swept {
            let reason = match member.fit_to_stay(now) {
                Err(reason) => reason,
                Ok(()) if member.has_idled_out(now) => Reason::Idle,
                Ok(()) => Reason::Surplus,
            };
            member.retire(reason);
        }
    }

    /// Gives idle members to callers that came to wait at the moment they were returned.
    fn offer(&self, pool: &Pool<Manager<C>>, now: Instant) {
        let handover = &pool.manager().handover;
        let mut wanted = self.state.expecting.value();
        if wanted == 0 || self.state.idle.value() == 0 {
            return;
        }
        while wanted > 0
            && let Some(spare) = handover.take_spare()
        {
            wanted -= 1;
            handover.hand(spare);
        }
        // Also what is not fit, which makes room where `hand` finds that out.
        let taken = pool.retain(|_, _| {
            let is_taken = wanted > 0;
            wanted -= usize::from(is_taken);
            !is_taken
        });
        for mut member in taken.removed {
            member.unpark(now);
            member.source = Source::Handover;
            handover.hand(member);
        }
    }

    /// Begins the dials that are wanted and allowed, and says when to try again.
    fn dial(&mut self, pool: &Pool<Manager<C>>, now: Instant) -> Option<Instant> {
        let manager = pool.manager();
        while self.counted_on() < self.state.demand()
            && self.dials.len() < self.state.config.max_connecting
            && self.state.places.value() < self.state.max_size()
        {
            match self.state.endpoints.choose(now) {
                Choice::Dial { endpoint, is_probe } => self.begin(manager, endpoint, is_probe),
                Choice::Wait(retry_at) => {
                    let fails_fast = self.state.config.on_unavailable == OnUnavailable::FailFast;
                    if fails_fast && self.dials.is_empty() {
                        manager.handover.refuse(Refusal::Unavailable { retry_at });
                    }
                    return retry_at;
                }
                Choice::Refused(retry_at) => {
                    if self.dials.is_empty() {
                        manager.handover.refuse(Refusal::Unavailable { retry_at });
                    }
                    return retry_at;
                }
            }
        }
        None
    }

    /// How many of the dials are as good as a member.
    fn counted_on(&self) -> usize {
        self.dials.len().saturating_sub(self.state.probing.value())
    }

    fn begin(&mut self, manager: &Manager<C>, endpoint: usize, is_probe: bool) {
        let dial = Dial::new(&self.state, endpoint, is_probe);
        let place = Place::take(&self.state, endpoint);
        let connect = manager.connect.clone();
        self.dials
            .spawn_on(dial.run(connect, place), &self.state.runtime);
    }

    fn on_dialled(&self, dialled: Result<Option<Dialled<C>>, JoinError>) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let handover = &pool.manager().handover;
        match dialled {
            Ok(None) => {}
            Ok(Some(Ok(member))) => {
                member.blame_if_stillborn();
                handover.set_last_error(None);
                handover.hand(member);
                self.state.on_change();
            }
            Ok(Some(Err(error))) => handover.set_last_error(Some(error)),
            Err(_panicked) => handover.set_last_error(Some(DialError::Panicked)),
        }
    }

    /// Tells of leases that are held too long, once each.
    fn report(&self) {
        let Some(leaks) = &self.state.leaks else {
            return;
        };
        for OverdueLease {
            slot,
            held,
            leased_at,
        } in leaks.newly_overdue()
        {
            tracing::warn!(
                pool = self.state.config.name,
                slot,
                ?held,
                %leased_at,
                "a lease is held for longer than leak_after"
            );
        }
    }
}

/// A keeper that ends before its pool, because its runtime was shut down, takes the pool with it:
/// nobody would dial for those who wait.
impl<C: Connect> Drop for Keeper<C> {
    fn drop(&mut self) {
        if !self.state.is_closed()
            && let Some(pool) = self.pool.upgrade()
        {
            shut(&pool, &self.state);
        }
    }
}

/// A dial that is counted, until this is dropped.
struct Dial {
    state: Arc<State>,
    endpoint: usize,
    is_probe: bool,
    /// When it began to connect, until its end is known. With a panic it never is.
    began: Option<Instant>,
}

impl Dial {
    fn new(state: &Arc<State>, endpoint: usize, is_probe: bool) -> Self {
        state.dialling.add();
        if is_probe {
            state.probing.add();
        }
        Self {
            state: state.clone(),
            endpoint,
            is_probe,
            began: None,
        }
    }

    /// `None`: when its turn came nobody needed it any more, the pool had been resized, or the
    /// endpoint had failed.
    async fn run<C: Connect>(mut self, connect: Arc<C>, place: Place) -> Option<Dialled<C>> {
        let state = self.state.clone();
        let (endpoint, is_probe) = (self.endpoint, self.is_probe);
        let is_needed = || {
            let is_wanted = if is_probe {
                state.demand() > 0
            } else {
                let counted_on = state.dialling.value().saturating_sub(state.probing.value());
                counted_on <= state.demand()
            };
            is_wanted
                && state.places.value() <= state.max_size()
                && (state.endpoints).may_begin(endpoint, is_probe, Instant::now())
        };
        let _turn = match &state.budget {
            Some(budget) => Some(budget.turn(is_needed).await?),
            None if is_needed() => None,
            None => return None,
        };
        let began = Instant::now();
        self.began = Some(began);
        let generation = state.generation.current();
        let context = ConnectContext {
            slot: place.slot(),
            endpoint: state.endpoints.endpoint(self.endpoint),
            notice: DeathNotice::new(&state),
        };
        let connect_timeout = state.config.connect_timeout;
        let result = match timeout(connect_timeout, connect.connect(context)).await {
            Ok(Ok(connection)) => {
                state.endpoints.on_connected(self.endpoint, began);
                self.record(began, |totals| &mut totals.connected);
                let state = state.clone();
                Ok(Member::new(connection, place, began, generation, state))
            }
            Ok(Err(error)) if !connect.is_transient(&error) => {
                state.endpoints.on_refused(self.endpoint, began);
                self.record(began, |totals| &mut totals.refused);
                Err(DialError::Connect(error))
            }
            Ok(Err(error)) => {
                state.endpoints.on_failure(self.endpoint, began);
                self.record(began, |totals| &mut totals.failed);
                Err(DialError::Connect(error))
            }
            Err(_elapsed) => {
                state.endpoints.on_failure(self.endpoint, began);
                self.record(began, |totals| &mut totals.timed_out);
                Err(DialError::TimedOut(connect_timeout))
            }
        };
        self.began = None;
        if let Err(error) = &result {
            self.warn(error);
        }
        Some(result)
    }

    /// The only place where each failure is told: a caller learns of the last one at most.
    fn warn<E: Error + 'static>(&self, error: &DialError<E>) {
        let error: &(dyn Error + 'static) = error;
        let endpoints = &self.state.endpoints;
        tracing::warn!(
            pool = self.state.config.name,
            endpoint = endpoints.endpoint(self.endpoint).map(field::display),
            error,
            retry_in = endpoints.remaining(self.endpoint).map(field::debug),
            "a dial has failed"
        );
    }

    fn record(&self, began: Instant, total: fn(&mut ConnectTotals) -> &mut u64) {
        self.state.endpoints.count(self.endpoint, total);
        if let Some(time) = self.state.metrics.connect_time(self.endpoint) {
            time.record(began.elapsed());
        }
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        if let Some(began) = self.began {
            self.state.endpoints.on_failure(self.endpoint, began);
            // Otherwise the pool was closed and has ended it.
            if thread::panicking() {
                self.record(began, |totals| &mut totals.panicked);
            }
        }
        self.state.endpoints.on_dial_ended(self.endpoint);
        if self.is_probe {
            self.state.probing.remove();
        }
        self.state.dialling.remove();
    }
}

/// Often enough that nothing outlives its limit by more than a quarter.
fn period(config: &PoolConfig) -> Duration {
    [config.idle_timeout, config.max_lifetime]
        .into_iter()
        .filter_map(|limit| limit.duration())
        .map(|limit| limit / 4)
        .fold(Duration::from_secs(30), Duration::min)
        .max(Duration::from_secs(1))
}
