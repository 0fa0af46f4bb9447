//! What a pool needs to know of its members: how to make, judge and close one.

use std::{error::Error, future::Future};

/// Makes the members of a pool.
pub trait Connect: Send + Sync + 'static {
    /// What is pooled.
    type Connection: Pooled;
    /// Why one could not be made.
    type Error: Error + Send + Sync + 'static;

    /// Makes a new member.
    ///
    /// The future is dropped when `connect_timeout` or the caller's `acquire_timeout` has passed,
    /// when the caller gives up, and when the pool is closed; nothing may be left behind then.
    fn connect(
        &self,
        context: ConnectContext,
    ) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;
}

/// A member of a pool: a dialled connection, a connected session, or anything like them.
pub trait Pooled: Send + 'static {
    /// Whether the next holder can work with it.
    ///
    /// It is asked at each lease and at each return, and for idle members under the pool's lock:
    /// read a flag that whoever drives the connection sets, and do no I/O. A panic counts as
    /// `false`.
    fn is_usable(&self) -> bool;

    /// Says goodbye to the peer.
    ///
    /// The future is dropped when `close_timeout` has passed. It runs in a task of its own, or not
    /// at all if there is no runtime: what must happen in any case belongs in `Drop`.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// What is known about a member that is about to be made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectContext {
    pub(crate) slot: u32,
}

impl ConnectContext {
    /// A small number that no other live member of the pool has, the lowest that is free.
    ///
    /// The member keeps it until it is closed or dropped. Names that a server takes as an identity
    /// derive from it: an MQTT server ends the session whose client identifier comes a second
    /// time. As a member that is still closing keeps its slot while its successor is connected,
    /// slots can reach a little above `max_size`.
    pub fn slot(&self) -> u32 {
        self.slot
    }
}
