//! A member in somebody's hands.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use deadpool::managed::Object;

use crate::{
    Connect,
    manager::Manager,
    member::Member,
    state::{Counted, State},
};

/// A member of a [`Pool`](crate::Pool), leased until this is dropped.
///
/// On drop the member goes back, to be the next that is leased. It is closed in the background
/// instead if it is unusable or has reached its lifetime, if there are `max_idle` already, or if
/// the pool is closed or gone. That needs a current tokio runtime; without one it is dropped.
///
/// That its holder panics makes no difference; a connection that is then in the middle of
/// something has to say so through [`is_usable`](crate::Pooled::is_usable).
#[must_use = "a lease that is dropped goes back to the pool at once"]
pub struct Lease<C: Connect> {
    /// There until the lease ends.
    object: Option<Object<Manager<C>>>,
    in_use: Option<Counted>,
}

impl<C: Connect> Lease<C> {
    pub(crate) fn new(object: Object<Manager<C>>, state: &Arc<State>) -> Self {
        Self {
            object: Some(object),
            in_use: Some(state.in_use.count()),
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
        self.take()
            .and_then(Member::into_connection)
            .expect("a lease holds its connection until it ends")
    }

    /// Closes the member in the background instead of giving it back.
    pub fn discard(mut self) {
        drop(self.take());
    }

    /// Takes the member out of the pool.
    fn take(&mut self) -> Option<Member<C::Connection>> {
        self.in_use = None;
        self.object.take().map(Object::take)
    }
}

impl<C: Connect> Drop for Lease<C> {
    fn drop(&mut self) {
        // First, so that a member is never counted as both leased and idle.
        self.in_use = None;
        let Some(mut object) = self.object.take() else {
            return;
        };
        if object.park() {
            drop(object);
        } else {
            drop(Object::take(object));
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
