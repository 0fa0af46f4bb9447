//! A connection with what the pool knows of it.
//!
//! Its one rule: a connection that the pool lets go of, by whatever path, is closed through
//! [`Pooled::close`] in a task of its own. `Drop` holds it, because deadpool drops members in
//! several places without asking.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{Limit, Pooled, part, place::Place, state::State, totals::Reason};

#[derive(Debug)]
pub(crate) struct Member<T: Pooled> {
    /// There until it is detached or closed; before `place`, so that it is dropped before.
    connection: Option<T>,
    place: Option<Place>,
    /// When its dial began.
    born: Instant,
    /// Drawn once, at birth. `None`: never.
    expires_at: Option<Instant>,
    generation: u64,
    /// How much of the time in which its generation retires it may take, from 0.0 to 1.0.
    share: f64,
    /// Set while idle, when it counts as such.
    idle_since: Option<Instant>,
    pub(crate) source: Source,
    /// Why it leaves, as far as that has been said.
    reason: Option<Reason>,
    state: Arc<State>,
}

/// Where the member of a lease comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Idle,
    Dial,
    /// From a holder straight to a caller that waited for a dial.
    Handover,
}

impl<T: Pooled> Member<T> {
    /// In a box, for each lease moves it through several hands of deadpool's.
    pub(crate) fn new(
        connection: T,
        place: Place,
        born: Instant,
        generation: u64,
        state: Arc<State>,
    ) -> Box<Self> {
        let now = Instant::now();
        let config = &state.config;
        let expires_at = match config.max_lifetime {
            Limit::Never => None,
            Limit::After(lifetime) => now.checked_add(part(
                lifetime,
                1.0 - config.lifetime_jitter * fastrand::f64(),
            )),
        };
        Box::new(Self {
            connection: Some(connection),
            place: Some(place),
            born,
            expires_at,
            generation,
            share: fastrand::f64(),
            idle_since: None,
            source: Source::Dial,
            reason: None,
            state,
        })
    }

    pub(crate) fn connection(&self) -> Option<&T> {
        self.connection.as_ref()
    }

    pub(crate) fn connection_mut(&mut self) -> Option<&mut T> {
        self.connection.as_mut()
    }

    pub(crate) fn slot(&self) -> u32 {
        self.place.as_ref().map_or(u32::MAX, Place::slot)
    }

    /// Takes the connection out; the slot is free at once.
    pub(crate) fn into_connection(mut self) -> Option<T> {
        self.count_out(Reason::Detached);
        self.connection.take()
    }

    /// Closes it, for this reason.
    pub(crate) fn retire(mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    /// Has its drop say why, where deadpool is who drops it.
    pub(crate) fn condemn(&mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    /// Takes back what [`condemn`](Self::condemn) said.
    pub(crate) fn pardon(&mut self) {
        self.reason = None;
    }

    /// Has its endpoint answer for it if it is dead already. That its holder has ended it is not
    /// possible, for it has had none.
    pub(crate) fn blame_if_stillborn(&self) {
        if !self.is_usable()
            && let Some(place) = &self.place
        {
            self.state.endpoints.on_failure(place.endpoint(), self.born);
        }
    }

    /// Whether it may be leased after it has lain idle.
    pub(crate) fn fit(&self, now: Instant) -> Result<(), Reason> {
        self.fit_to_serve(now)?;
        // What is kept warm may lie idle for longer.
        if self.has_idled_out(now) && self.state.idle.value() > self.state.config.min_idle {
            return Err(Reason::Idle);
        }
        Ok(())
    }

    /// Whether it may be handed to a caller, or become idle.
    pub(crate) fn fit_to_serve(&self, now: Instant) -> Result<(), Reason> {
        self.fit_to_stay(now)?;
        match self.state.above_max_size() {
            0 => Ok(()),
            _ => Err(Reason::Surplus),
        }
    }

    /// Whether it is not dead, too old or retired.
    pub(crate) fn fit_to_stay(&self, now: Instant) -> Result<(), Reason> {
        if !self.is_usable() {
            return Err(Reason::Dead);
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(Reason::Lifetime);
        }
        let retired_at = self.state.generation.due(self.generation, self.share);
        if retired_at.is_some_and(|at| at <= now) {
            return Err(Reason::Generation);
        }
        Ok(())
    }

    /// When it has to go for its age, as far as that is known.
    pub(crate) fn due(&self) -> Option<Instant> {
        let retired_at = self.state.generation.due(self.generation, self.share);
        self.expires_at.into_iter().chain(retired_at).min()
    }

    /// Marks it idle, if it may be kept.
    pub(crate) fn park(&mut self) -> Result<(), Reason> {
        let now = Instant::now();
        self.fit_to_serve(now)?;
        let state = &self.state;
        if !state.idle.add_below(state.idle_room()) {
            return Err(Reason::Surplus);
        }
        self.idle_since = Some(now);
        Ok(())
    }

    /// The opposite of [`park`](Self::park): for how long it was idle.
    pub(crate) fn unpark(&mut self, now: Instant) -> Duration {
        self.source = Source::Idle;
        match self.idle_since.take() {
            Some(since) => {
                self.state.idle.remove();
                now.saturating_duration_since(since)
            }
            None => Duration::ZERO,
        }
    }

    pub(crate) fn has_idled_out(&self, now: Instant) -> bool {
        match (self.idle_since, self.state.config.idle_timeout) {
            (Some(since), Limit::After(timeout)) => now.saturating_duration_since(since) >= timeout,
            (None, _) | (_, Limit::Never) => false,
        }
    }

    /// A panic of the user's code is contained here, for this runs under deadpool's lock and in
    /// `Drop`, where it would take the whole pool or the process with it.
    fn is_usable(&self) -> bool {
        self.ask(Pooled::is_usable)
    }

    /// Whether the next holder can have it.
    pub(crate) fn is_clean(&self) -> bool {
        self.ask(Pooled::is_clean)
    }

    /// How much work is in flight on it; `None` if it is not usable.
    pub(crate) fn load(&self) -> Option<usize> {
        self.is_usable().then(|| self.ask(Pooled::load))
    }

    fn ask<A: Default>(&self, question: impl Fn(&T) -> A) -> A {
        self.connection
            .as_ref()
            .map_or_else(A::default, |connection| {
                catch_unwind(AssertUnwindSafe(|| question(connection))).unwrap_or_default()
            })
    }

    /// The end of the membership, on the books.
    fn count_out(&mut self, reason: Reason) {
        if self.idle_since.take().is_some() {
            self.state.idle.remove();
        }
        self.state.totals.gone(reason).add();
        if reason == Reason::Dead {
            let is_young = self.born.elapsed() < self.state.config.backoff.stable_after;
            if let Some(place) = &mut self.place
                && self.connection.as_ref().is_some_and(has_failed)
            {
                if is_young {
                    self.state.endpoints.on_failure(place.endpoint(), self.born);
                }
                // Its server does not have it any more.
                place.vacate();
            }
        }
    }
}

fn has_failed<T: Pooled>(connection: &T) -> bool {
    catch_unwind(AssertUnwindSafe(|| connection.has_failed())).unwrap_or(true)
}

impl<T: Pooled> Drop for Member<T> {
    fn drop(&mut self) {
        if self.connection.is_none() {
            return;
        }
        let reason = match self.reason {
            Some(reason) => reason,
            None if !self.is_usable() => Reason::Dead,
            None if self.state.is_closed() => Reason::Shutdown,
            None => Reason::Surplus,
        };
        // Before its place is free, so that a drain never finds neither.
        let closing = Closing::begin(self.state.clone());
        self.count_out(reason);
        if let Some(place) = &mut self.place {
            place.leave();
        }
        let Some(connection) = self.connection.take() else {
            return;
        };
        let place = self.place.take();
        let close_timeout = self.state.config.close_timeout;
        self.state.runtime.spawn(async move {
            // In this order, so that whoever waits for the closing finds the place free.
            let _closing = closing;
            let _place = place;
            // A connection that takes longer is dropped, which is all that is left to do.
            let _ = timeout(close_timeout, connection.close()).await;
        });
    }
}

/// Counts a member that is being closed, until this is dropped.
struct Closing(Arc<State>);

impl Closing {
    fn begin(state: Arc<State>) -> Self {
        state.closing.add();
        Self(state)
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closing.remove();
        self.0.on_change();
    }
}
