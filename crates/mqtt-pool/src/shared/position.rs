//! A position of a shared pool: the member that serves it now, and those that have not left yet.
//!
//! Only the filler puts members in and takes them out. A member stays leased until the last handle
//! on it is dropped.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::Notify;

use crate::{Connect, Lease, Phase};

pub(super) struct Position<C: Connect> {
    current: ArcSwapOption<Occupant<C>>,
    /// The members that serve it or did, and are still leased.
    members: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

/// A member that serves a position, or did. Who has it in an [`Arc`] holds a handle.
pub(super) struct Occupant<C: Connect> {
    pub(super) lease: Lease<C>,
    members: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

impl<C: Connect> Position<C> {
    /// An empty position, which tells of its changes.
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            members: Arc::default(),
            changed,
        }
    }

    /// Its member, if there is one.
    pub(super) fn look(&self) -> Guard<Option<Arc<Occupant<C>>>> {
        self.current.load()
    }

    /// A handle on its member, unless one of those before has handles still.
    pub(super) fn in_order(&self) -> Result<Arc<Occupant<C>>, Phase> {
        // In this order, and the opposite of `put`'s: whoever finds the new member also finds that
        // the old one is there, as long as anybody has it.
        let occupant = self.current.load_full();
        let is_alone = self.members.load(Ordering::SeqCst) <= 1;
        match occupant.filter(|occupant| occupant.weight().is_some()) {
            Some(occupant) if is_alone => Ok(occupant),
            Some(_) => Err(Phase::Queue),
            None => Err(Phase::Connect),
        }
    }

    pub(super) fn put(&self, lease: Lease<C>) {
        self.members.fetch_add(1, Ordering::SeqCst);
        let occupant = Occupant {
            lease,
            members: self.members.clone(),
            changed: self.changed.clone(),
        };
        self.current.store(Some(Arc::new(occupant)));
        self.changed.notify_waiters();
    }

    pub(super) fn take_out(&self) {
        self.current.store(None);
    }

    /// The handles that are held on its member, if it is usable.
    pub(super) fn handles(&self) -> Option<usize> {
        let occupant = self.look();
        let occupant = occupant.as_ref()?;
        // One is the position's own.
        let handles = Arc::strong_count(occupant).saturating_sub(1);
        occupant.weight().map(|_| handles)
    }

    /// The members that have left it and are still leased.
    pub(super) fn retiring(&self) -> usize {
        let members = self.members.load(Ordering::SeqCst);
        members.saturating_sub(usize::from(self.look().is_some()))
    }
}

impl<C: Connect> Occupant<C> {
    /// How much there is to do for it, in comparison with others; `None` if it is not usable.
    pub(super) fn weight(self: &Arc<Self>) -> Option<usize> {
        let load = self.lease.load()?;
        Some(load.saturating_add(Arc::strong_count(self)))
    }
}

impl<C: Connect> Drop for Occupant<C> {
    fn drop(&mut self) {
        self.members.fetch_sub(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

impl<C: Connect> fmt::Debug for Position<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Position")
            .field("handles", &self.handles())
            .field("retiring", &self.retiring())
            .finish_non_exhaustive()
    }
}
