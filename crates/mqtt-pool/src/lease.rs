//! A member in somebody's hands.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    panic::Location,
    sync::Arc,
};

use deadpool::managed::Object;
use tokio::time::Instant;

use crate::{Connect, manager::Manager, member::Source, state::State, totals::Reason};

/// A member of a [`Pool`](crate::Pool), leased until this is dropped.
///
/// On drop the member goes back, to be the next that is leased; or to the caller who waits for
/// longest, also if that one has been promised a dial. It is closed in the background instead if it
/// is unusable or [not clean](crate::Pooled::is_clean), has reached its lifetime or is of a
/// generation that is retired, if there are `max_idle` already, and if the pool is closed or gone.
///
/// That its holder panics makes no difference; a connection that is then in the middle of
/// something has to say so through [`is_usable`](crate::Pooled::is_usable).
#[must_use = "a lease that is dropped goes back to the pool at once"]
pub struct Lease<C: Connect> {
    /// There until the lease ends.
    object: Option<Object<Manager<C>>>,
    state: Arc<State>,
    /// Its number where leases are watched.
    watched: Option<u64>,
    /// Where `record_hold` asks for it.
    since: Option<Instant>,
}

impl<C: Connect> Lease<C> {
    pub(crate) fn new(
        object: Object<Manager<C>>,
        state: &Arc<State>,
        leased_at: Option<&'static Location<'static>>,
    ) -> Self {
        state.in_use.add();
        Self {
            watched: (state.leaks.as_ref().zip(leased_at))
                .map(|(leaks, leased_at)| leaks.begin(object.slot(), leased_at)),
            object: Some(object),
            since: (state.config.record_hold && leased_at.is_some()).then(Instant::now),
            state: state.clone(),
        }
    }

    /// Takes the connection out of the pool, which may connect another in its place.
    ///
    /// Its slot is free at once, although the connection lives on. The next member may get the
    /// same [`slot`](crate::ConnectContext::slot), and what derives from it: with client
    /// identifiers from slots, the server then ends the session that was detached. Detach what
    /// does not use its slot, or what is about to be closed.
    ///
    /// The pool's limits, of number, age and closing, no longer apply to it.
    pub fn detach(mut self) -> C::Connection {
        self.end()
            .map(Object::take)
            .and_then(|member| member.into_connection())
            .expect("a lease holds its connection until it ends")
    }

    /// Closes the member in the background instead of giving it back: for what its next holder
    /// could not work with, as a session with subscriptions of its own.
    pub fn discard(mut self) {
        if let Some(object) = self.end() {
            Object::take(object).retire(Reason::Discarded);
        }
    }

    /// The slot of the member; see [`ConnectContext::slot`](crate::ConnectContext::slot).
    pub fn slot(&self) -> u32 {
        self.object
            .as_ref()
            .map_or(u32::MAX, |object| object.slot())
    }

    /// Whether it may still be used, and why not; it is not taken away.
    pub(crate) fn fit(&self, now: Instant) -> Result<(), Reason> {
        let object = self.object.as_ref();
        object.map_or(Err(Reason::Dead), |object| object.fit_to_stay(now))
    }

    /// How much work is in flight on its member; `None` if that is not usable.
    pub(crate) fn load(&self) -> Option<usize> {
        self.object.as_ref().and_then(|object| object.load())
    }

    /// The end of the lease, on the books: what is left of it.
    fn end(&mut self) -> Option<Object<Manager<C>>> {
        let object = self.object.take()?;
        // First, so that a member is never counted as both leased and idle.
        self.state.in_use.remove();
        if let (Some(leaks), Some(number)) = (&self.state.leaks, self.watched.take()) {
            leaks.end(number);
        }
        // The second takes a lock.
        if let Some(since) = self.since
            && let Some(hold) = self.state.metrics.hold()
        {
            hold.record(since.elapsed());
        }
        Some(object)
    }
}

impl<C: Connect> Drop for Lease<C> {
    fn drop(&mut self) {
        let Some(mut object) = self.end() else {
            return;
        };
        let state = &self.state;
        // One that has died is told apart below.
        if !object.is_clean() && object.fit_to_stay(Instant::now()).is_ok() {
            Object::take(object).retire(Reason::Discarded);
        } else if state.expecting.value() > 0
            && object.fit_to_serve(Instant::now()).is_ok()
            && let Some(pool) = Object::pool(&object)
        {
            let mut member = Object::take(object);
            member.source = Source::Handover;
            pool.manager().handover.hand(member);
        } else {
            match object.park() {
                Ok(()) => {
                    drop(object);
                    // For a caller that found nothing idle and came to wait just now.
                    if state.expecting.value() > 0 {
                        state.wake();
                    }
                }
                Err(reason) => Object::take(object).retire(reason),
            }
        }
        if state.is_closed() {
            state.on_change();
        }
    }
}

impl<C: Connect> Deref for Lease<C> {
    type Target = C::Connection;

    fn deref(&self) -> &Self::Target {
        self.object
            .as_ref()
            .and_then(|object| object.connection())
            .expect("a lease holds its connection until it ends")
    }
}

impl<C: Connect> DerefMut for Lease<C> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.object
            .as_mut()
            .and_then(|object| object.connection_mut())
            .expect("a lease holds its connection until it ends")
    }
}

impl<C: Connect<Connection: fmt::Debug>> fmt::Debug for Lease<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&**self).finish()
    }
}
