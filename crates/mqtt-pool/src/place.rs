//! The place of a member in its pool: one of `max_size`, a slot, and one of its endpoint's.
//!
//! Slots are small numbers, each held by one live member, the lowest free one first.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::state::State;

#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<Free>);

/// Every number below `next` is either held or in `returned`.
#[derive(Debug, Default)]
struct Free {
    returned: BinaryHeap<Reverse<u32>>,
    next: u32,
}

impl Slots {
    fn lease(&self) -> u32 {
        let mut free = self.lock();
        if let Some(Reverse(slot)) = free.returned.pop() {
            return slot;
        }
        let slot = free.next;
        free.next += 1;
        slot
    }

    fn give_back(&self, slot: u32) {
        self.lock().returned.push(Reverse(slot));
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by a member from the beginning of its dial to the end of its goodbye.
#[derive(Debug)]
pub(crate) struct Place {
    slot: u32,
    endpoint: usize,
    counts: bool,
    leaves: bool,
    state: Arc<State>,
}

impl Place {
    /// A place for a member at an endpoint that already counts it.
    pub(crate) fn take(state: &Arc<State>, endpoint: usize) -> Self {
        state.places.add();
        Self {
            slot: state.slots.lease(),
            endpoint,
            counts: true,
            leaves: false,
            state: state.clone(),
        }
    }

    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    /// The index of its endpoint.
    pub(crate) fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// Its member is saying goodbye; the place stays taken.
    pub(crate) fn leave(&mut self) {
        if self.counts && !self.leaves {
            self.leaves = true;
            self.state.leaving.add();
        }
    }

    /// Makes room for another member; the slot stays taken. For a member that its server no
    /// longer has.
    pub(crate) fn vacate(&mut self) {
        if self.counts {
            self.counts = false;
            self.state.places.remove();
            if self.leaves {
                self.state.leaving.remove();
            }
            self.state.endpoints.on_member_gone(self.endpoint);
            self.state.wake();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before there is room, so that whoever is connected next can have it.
        self.state.slots.give_back(self.slot);
        self.vacate();
        self.state.on_change();
    }
}
