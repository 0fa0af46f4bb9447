//! What the handles, the members, the leases and the keeper of one pool know in common.
//!
//! It holds no member: when the last handle goes, the idle members go, whoever still holds this.

use std::{
    ops::Deref,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    runtime::Handle,
    sync::{Notify, futures::Notified, watch},
    time::Instant,
};

use crate::{
    DialBudget, PoolConfig, Status, Totals, WeightedEndpoint,
    endpoints::Endpoints,
    generation::Generation,
    leaks::Leaks,
    metrics::{Labels, Metrics, Numbers, OfEndpoint},
    place::Slots,
    totals::{ConnectTotals, Counts},
};

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: PoolConfig,
    pub(crate) budget: Option<DialBudget>,
    pub(crate) endpoints: Endpoints,
    pub(crate) generation: Generation,
    pub(crate) leaks: Option<Leaks>,
    pub(crate) slots: Slots,
    pub(crate) totals: Apart<Counts>,
    pub(crate) metrics: Metrics,
    /// Where what outlives its caller runs: dials and goodbyes.
    pub(crate) runtime: Handle,
    /// `max_size` until it is resized.
    max_size: AtomicUsize,
    /// How many idle members will have to go before long.
    expiring: AtomicUsize,
    pub(crate) idle: Apart<Gauge>,
    pub(crate) in_use: Apart<Gauge>,
    /// Members that count towards `max_size`: connected, being connected, or saying goodbye.
    pub(crate) places: Gauge,
    /// Those of them that are saying goodbye.
    pub(crate) leaving: Gauge,
    pub(crate) dialling: Gauge,
    /// Those dials that see whether an endpoint is back. Nobody counts on them: a server that does
    /// not answer at all would hold up a caller for whom another has a member.
    pub(crate) probing: Gauge,
    pub(crate) closing: Gauge,
    /// Callers that wait for room.
    pub(crate) queued: Apart<Gauge>,
    /// Callers that wait for a connection.
    pub(crate) expecting: Apart<Gauge>,
    /// Held while deadpool's size is changed: to grow and to close at once would undo the closing.
    pub(crate) resizing: Mutex<()>,
    /// Set once, by `close` or by the drop of the last handle.
    closed: watch::Sender<bool>,
    /// The same, where only a look is wanted.
    is_closed: AtomicBool,
    /// Wakes the keeper.
    wake: Notify,
    /// A member has died, which the keeper should see at once.
    death: AtomicBool,
    /// Wakes who waits for a number to change, of members or of what is left after closing, or for
    /// a member to die.
    changed: Notify,
}

impl State {
    pub(crate) fn new(
        config: PoolConfig,
        endpoints: &[WeightedEndpoint],
        budget: Option<DialBudget>,
        runtime: Handle,
    ) -> Self {
        let endpoints = Endpoints::new(endpoints, config.backoff.clone());
        Self {
            metrics: Metrics::new(&labels(&config, &endpoints)),
            budget,
            endpoints,
            generation: Generation::default(),
            leaks: config.leak_after.duration().map(Leaks::new),
            slots: Slots::default(),
            totals: Apart::default(),
            runtime,
            max_size: AtomicUsize::new(config.max_size),
            expiring: AtomicUsize::new(0),
            idle: Apart::default(),
            in_use: Apart::default(),
            places: Gauge::default(),
            leaving: Gauge::default(),
            dialling: Gauge::default(),
            probing: Gauge::default(),
            closing: Gauge::default(),
            queued: Apart::default(),
            expecting: Apart::default(),
            resizing: Mutex::new(()),
            closed: watch::Sender::new(false),
            is_closed: AtomicBool::new(false),
            wake: Notify::new(),
            death: AtomicBool::new(false),
            changed: Notify::new(),
            config,
        }
    }

    pub(crate) fn status(&self) -> Status {
        let (idle, in_use) = (self.idle.value(), self.in_use.value());
        Status {
            size: idle + in_use,
            idle,
            in_use,
            connecting: self.dialling.value(),
            waiting: self.queued.value() + self.expecting.value(),
            max_size: self.max_size(),
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals_with(&self.endpoints.numbers(Instant::now()))
    }

    fn totals_with(&self, endpoints: &[OfEndpoint]) -> Totals {
        let connect = endpoints.iter().map(|endpoint| endpoint.connect);
        self.totals
            .with(connect.fold(ConnectTotals::default(), ConnectTotals::plus))
    }

    /// Tells the recorder where the pool stands.
    pub(crate) fn publish(&self) {
        self.metrics.publish(|| {
            let mut endpoints = self.endpoints.numbers(Instant::now());
            let (mut status, mut leases_overdue) = (self.status(), 0);
            if self.is_closed() {
                // What is left of the pool is what is leased and what is being closed.
                status.idle = 0;
                status.connecting = 0;
                status.waiting = 0;
                status.max_size = 0;
                for endpoint in &mut endpoints {
                    endpoint.backoff = 0.0;
                }
            } else if let Some(leaks) = &self.leaks {
                leases_overdue = leaks.count_overdue();
            }
            Numbers {
                status,
                closing: self.closing.value(),
                leases_overdue,
                totals: self.totals_with(&endpoints),
                endpoints,
            }
        });
    }

    /// Has the numbers go to the recorder that there is now, from now on.
    pub(crate) fn rebind_metrics(&self) {
        self.metrics.rebind(&labels(&self.config, &self.endpoints));
        self.publish();
    }

    pub(crate) fn max_size(&self) -> usize {
        self.max_size.load(Ordering::Relaxed)
    }

    /// How many members there are too many. One that is leaving is not among them: nobody else has
    /// to go in its place.
    pub(crate) fn above_max_size(&self) -> usize {
        let staying = self.places.value().saturating_sub(self.leaving.value());
        staying.saturating_sub(self.max_size())
    }

    pub(crate) fn set_max_size(&self, max_size: usize) {
        self.max_size.store(max_size, Ordering::Relaxed);
        self.wake();
    }

    /// How many members are to be dialled, those that are being dialled included.
    pub(crate) fn demand(&self) -> usize {
        let expiring = self.expiring.load(Ordering::Relaxed);
        let lasting = self.idle.value().saturating_sub(expiring);
        self.expecting.value() + self.wanted_idle().saturating_sub(lasting)
    }

    /// How many members are to lie idle at least.
    pub(crate) fn wanted_idle(&self) -> usize {
        self.config.min_idle.min(self.max_size())
    }

    pub(crate) fn set_expiring(&self, members: usize) {
        self.expiring.store(members, Ordering::Relaxed);
    }

    /// How many members may lie idle: more while callers wait, who will come for them, and while
    /// the successors of those that will have to go lie beside them.
    pub(crate) fn idle_room(&self) -> usize {
        let with_successors = self.wanted_idle() + self.expiring.load(Ordering::Relaxed);
        let room = self.config.max_idle.max(with_successors);
        room.saturating_add(self.queued.value())
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn on_death(&self) {
        self.death.store(true, Ordering::Relaxed);
        self.wake();
        self.on_change();
    }

    pub(crate) fn take_death(&self) -> bool {
        self.death.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn set_closed(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.closed.send_replace(true);
        self.publish();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    pub(crate) async fn closed(&self) {
        // It cannot fail, for the sender is in `self`.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(crate) fn on_change(&self) {
        self.changed.notify_waiters();
        if self.is_closed() {
            // The keeper, who did that, has ended.
            self.publish();
        }
    }

    /// Ends at the next change after this call.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Waits until `is_reached`, which is asked again at every change of a number.
    pub(crate) async fn until(&self, is_reached: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_reached(self) {
                return;
            }
            changed.await;
        }
    }
}

fn labels<'a>(config: &'a PoolConfig, endpoints: &Endpoints) -> Labels<'a> {
    Labels {
        pool: &config.name,
        endpoints: endpoints.labels(),
        record_hold: config.record_hold,
    }
}

/// On a cache line of its own, or rather on the pair of them that processors fetch together: what
/// is written by all callers, and would hold up those who only read what lies beside it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A number of things, each of which counts itself.
///
/// Sequentially consistent: a caller that begins to wait and then looks for idle members, and a
/// member that becomes idle and then looks for callers, must not miss each other.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    pub(crate) fn value(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// Counts one more unless there are already `max`.
    pub(crate) fn add_below(&self, max: usize) -> bool {
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |value| {
                (value < max).then(|| value + 1)
            })
            .is_ok()
    }
}
