//! What the application says about the connection of a session: to cut it, and to open another one
//! now.
//!
//! Each is a flag that whoever drives the session takes down when it has acted on it, and that means
//! nothing at other times.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::Waker,
};

use crate::shared::Shared;

/// What was said and not acted on yet.
#[derive(Debug, Default)]
pub(crate) struct Control {
    cut: AtomicBool,
    reconnect: AtomicBool,
}

impl Shared {
    /// Has the connection, or the attempt to open one, end at once.
    pub(crate) fn cut(&self) {
        self.control.cut.store(true, Ordering::Release);
        let driver = self.lock().driver.take();
        driver.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
    }

    /// Whether it is to end at once.
    pub(crate) fn is_cut(&self) -> bool {
        self.control.cut.load(Ordering::Acquire)
    }

    /// That has been acted on, or does not concern what begins now.
    pub(crate) fn forget_cut(&self) {
        self.control.cut.store(false, Ordering::Release);
    }

    /// Waits until it is to end at once.
    pub(crate) async fn was_cut(&self) {
        loop {
            let changed = self.changed.notified();
            if self.control.cut.swap(false, Ordering::AcqRel) {
                return;
            }
            changed.await;
        }
    }

    /// Has the session wait no longer for its next attempt.
    pub(crate) fn reconnect(&self) {
        self.control.reconnect.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// What was said before it began to wait means nothing.
    pub(crate) fn forget_reconnect(&self) {
        self.control.reconnect.store(false, Ordering::Release);
    }

    /// Waits until it is to wait no longer.
    pub(crate) async fn was_told_to_reconnect(&self) {
        loop {
            let changed = self.changed.notified();
            if self.control.reconnect.swap(false, Ordering::AcqRel) {
                return;
            }
            changed.await;
        }
    }
}
