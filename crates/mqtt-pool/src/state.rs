//! What the handles, the members, the leases and the maintainer of one pool know in common.
//!
//! It holds no member: when the last handle goes, the idle members go, whoever still holds this.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

use crate::{PoolConfig, Status, slots::Slots};

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: PoolConfig,
    pub(crate) slots: Slots,
    pub(crate) idle: Gauge,
    pub(crate) in_use: Gauge,
    /// Callers of `get` that wait for room.
    pub(crate) queued: Gauge,
    /// Callers of `get` that connect.
    pub(crate) connecting: Gauge,
    /// Set once, by `close` or by the drop of the last handle.
    closed: watch::Sender<bool>,
    /// How many members are being closed in tasks of their own.
    closing: watch::Sender<usize>,
}

impl State {
    pub(crate) fn new(config: PoolConfig) -> Self {
        Self {
            config,
            slots: Slots::default(),
            idle: Gauge::default(),
            in_use: Gauge::default(),
            queued: Gauge::default(),
            connecting: Gauge::default(),
            closed: watch::Sender::new(false),
            closing: watch::Sender::new(0),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let (idle, in_use) = (self.idle.value(), self.in_use.value());
        Status {
            size: idle + in_use,
            idle,
            in_use,
            waiting: self.queued.value() + self.connecting.value(),
            max_size: self.config.max_size,
        }
    }

    pub(crate) fn set_closed(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    pub(crate) async fn closed(&self) {
        // It cannot fail, for the sender is in `self`.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(crate) fn begin_closing(self: &Arc<Self>) -> Closing {
        self.closing.send_modify(|closing| *closing += 1);
        Closing(self.clone())
    }

    /// Waits until no member is being closed.
    pub(crate) async fn quiet(&self) {
        let _ = self
            .closing
            .subscribe()
            .wait_for(|closing| *closing == 0)
            .await;
    }
}

/// Counts a member that is being closed, until this is dropped.
#[derive(Debug)]
pub(crate) struct Closing(Arc<State>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closing.send_modify(|closing| *closing -= 1);
    }
}

/// A number of things, each of which holds a [`Counted`].
#[derive(Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    pub(crate) fn value(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.0.clone())
    }

    /// Counts one more unless there are already `max`.
    pub(crate) fn count_below(&self, max: usize) -> Option<Counted> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| {
                (value < max).then(|| value + 1)
            })
            .ok()
            .map(|_| Counted(self.0.clone()))
    }
}

/// One of the things that a [`Gauge`] counts, until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
