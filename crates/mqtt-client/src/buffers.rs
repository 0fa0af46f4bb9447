//! Buffers that belong to the thread and not to a session, so that an idle session holds none.

use std::{cell::RefCell, task::Waker};

use bytes::BytesMut;
use mqtt_proto::Outbound;

use crate::tally::Tally;

/// How much a read asks for. Large enough that under load a system call brings hundreds of
/// messages; one such buffer serves all sessions of a thread.
const READ_SIZE: usize = 64 * 1024;

/// A read goes ahead with less room than asked for, down to this, before the buffer is renewed.
const MIN_READ: usize = 16 * 1024;

/// Outbound buffers kept for reuse, and the size beyond which one is not worth keeping.
const SPARES: usize = 8;
const MAX_SPARE: usize = 256 * 1024;

#[derive(Default)]
struct Buffers {
    read: BytesMut,
    wakers: Vec<Waker>,
    outbound: Vec<Vec<u8>>,
    tally: Option<Box<Tally>>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// `None` while the thread is ending.
fn with<R>(f: impl FnOnce(&mut Buffers) -> R) -> Option<R> {
    BUFFERS
        .try_with(|buffers| f(&mut buffers.borrow_mut()))
        .ok()
}

/// What a driver works with while it runs.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) read: BytesMut,
    pub(crate) wakers: Vec<Waker>,
}

impl Scratch {
    /// The thread's; empty if a driver is being polled within another.
    pub(crate) fn take() -> Self {
        with(|buffers| Self {
            read: std::mem::take(&mut buffers.read),
            wakers: std::mem::take(&mut buffers.wakers),
        })
        .unwrap_or_default()
    }

    pub(crate) fn give_back(mut self) {
        self.wakers.clear();
        with(|buffers| {
            buffers.read = self.read;
            buffers.wakers = self.wakers;
        });
    }

    /// Makes room for a read. Bytes still referenced from earlier reads stay where they are.
    pub(crate) fn reserve_read(&mut self) {
        if self.read.capacity() - self.read.len() < MIN_READ {
            self.read.reserve(READ_SIZE);
        }
    }
}

/// A buffer to encode into.
pub(crate) fn outbound() -> Outbound {
    with(|buffers| buffers.outbound.pop())
        .flatten()
        .unwrap_or_default()
        .into()
}

/// Keeps the buffer of `empty` for another.
pub(crate) fn keep(empty: Outbound) {
    let buffer = Vec::from(empty);
    if (1..=MAX_SPARE).contains(&buffer.capacity()) {
        with(|buffers| {
            if buffers.outbound.len() < SPARES {
                buffers.outbound.push(buffer);
            }
        });
    }
}

/// A tally to count on.
pub(crate) fn tally() -> Box<Tally> {
    with(|buffers| buffers.tally.take())
        .flatten()
        .unwrap_or_default()
}

/// Keeps a tally that has nothing on it for another.
pub(crate) fn keep_tally(tally: Box<Tally>) {
    with(|buffers| {
        buffers.tally.get_or_insert(tally);
    });
}
