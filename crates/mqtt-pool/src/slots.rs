//! Small numbers, each held by one live member, the lowest free one first.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Clone, Debug, Default)]
pub(crate) struct Slots(Arc<Mutex<Free>>);

/// Every number below `next` is either held or in `returned`.
#[derive(Debug, Default)]
struct Free {
    returned: BinaryHeap<Reverse<u32>>,
    next: u32,
}

impl Slots {
    pub(crate) fn lease(&self) -> Slot {
        let mut free = self.lock();
        let number = match free.returned.pop() {
            Some(Reverse(number)) => number,
            None => {
                let number = free.next;
                free.next += 1;
                number
            }
        };
        drop(free);
        Slot {
            number,
            slots: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u32,
    slots: Slots,
}

impl Slot {
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().returned.push(Reverse(self.number));
    }
}
