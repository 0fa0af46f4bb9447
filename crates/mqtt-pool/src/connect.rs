//! What a pool needs to know of its members: how to make, judge and close one.

use std::{
    error::Error,
    fmt,
    future::{Future, ready},
    sync::{Arc, Weak},
};

use mqtt_transport::Endpoint;

use crate::{WeightedEndpoint, state::State};

/// Makes the members of a pool.
pub trait Connect: Send + Sync + 'static {
    /// What is pooled.
    type Connection: Pooled;
    /// Why one could not be made.
    type Error: Error + Send + Sync + 'static;

    /// Makes a new member.
    ///
    /// It runs in a task of its own, for whichever caller is the first to wait when it is there.
    /// The future is dropped when `connect_timeout` has passed and when the pool is closed; nothing
    /// may be left behind then. A panic counts as a failure.
    fn connect(
        &self,
        context: ConnectContext,
    ) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Whether another attempt at the same endpoint may succeed with nothing changed on this side;
    /// by default it may.
    ///
    /// If not, as with credentials that are refused, the pool stops to dial the endpoint for
    /// `retry_refused_after`, and callers for whom there is no other are told at once.
    fn is_transient(&self, error: &Self::Error) -> bool {
        let _ = error;
        true
    }

    /// The servers that members may be connected to, asked once, when the pool is made. By default
    /// there is one, which has no name here.
    fn endpoints(&self) -> &[WeightedEndpoint] {
        &[]
    }
}

/// A member of a pool: a dialled connection, a connected session, or anything like them.
pub trait Pooled: Send + 'static {
    /// Whether the next holder can work with it.
    ///
    /// It is asked at each lease and at each return, and for idle members under the pool's lock:
    /// read a flag that whoever drives the connection sets, do no I/O, and do not call the pool. A panic counts as
    /// `false`.
    fn is_usable(&self) -> bool;

    /// Whether it became unusable by the server's or the network's doing, asked when it is not
    /// usable. By default it did.
    ///
    /// The pool backs off from an endpoint whose connections fail soon after they are made. Answer
    /// `false` for what its holder has ended: its peer may not know yet, so that it counts towards
    /// `max_size` until it is closed.
    fn has_failed(&self) -> bool {
        true
    }

    /// Whether its next holder finds it as one that was just made, asked when a lease of it is
    /// returned and it is usable. By default it is.
    ///
    /// If not, as with a session whose subscriptions are still open, it is closed and counted as
    /// discarded. Whoever shares it meanwhile is not asked. A panic counts as `false`.
    fn is_clean(&self) -> bool {
        true
    }

    /// Asks the peer whether it is still there, before a member that has lain idle for
    /// `check_after` is handed out. By default it is.
    ///
    /// The future is dropped, and the member with it, when `check_timeout` or the caller's deadline
    /// has passed.
    fn check(&mut self) -> impl Future<Output = bool> + Send {
        ready(true)
    }

    /// How much work is in flight on it, beside the handles that are held; 0 by default. Shared
    /// handles go to members that have less of it. Read a counter: it is asked at every pick. A panic
    /// counts as 0.
    fn load(&self) -> usize {
        0
    }

    /// Says goodbye to the peer.
    ///
    /// The future is dropped when `close_timeout` has passed. It runs in a task of its own, or not
    /// at all if the runtime is gone: what must happen in any case belongs in `Drop`.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// What is known about a member that is about to be made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectContext {
    pub(crate) slot: u32,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) notice: DeathNotice,
}

impl ConnectContext {
    /// A small number that no other live member of the pool has, the lowest that is free.
    ///
    /// The member keeps it until it is closed or dropped. Names that a server takes as an identity
    /// derive from it: an MQTT server ends the session whose client identifier comes a second
    /// time. As a dead member keeps its slot while it is closed and its successor is connected,
    /// slots can reach a little above `max_size`.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The endpoint to connect to, one of [`Connect::endpoints`]; `None` if that names none.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// By which the member can tell the pool that it is no longer usable.
    pub fn death_notice(&self) -> DeathNotice {
        self.notice.clone()
    }
}

/// Tells a pool that a member has died, so that it is replaced at once and not when somebody
/// wants it or the next sweep comes.
///
/// Whoever drives the connection keeps it. It holds nothing of the pool.
#[derive(Clone)]
pub struct DeathNotice(Weak<State>);

impl DeathNotice {
    pub(crate) fn new(state: &Arc<State>) -> Self {
        Self(Arc::downgrade(state))
    }

    /// Has the pool look at its idle members, where it finds the one that is
    /// [not usable](Pooled::is_usable). Never waits.
    pub fn send(&self) {
        if let Some(state) = self.0.upgrade() {
            state.on_death();
        }
    }
}

impl fmt::Debug for DeathNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeathNotice")
    }
}
