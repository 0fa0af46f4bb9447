//! What a pool tells a recorder.
//!
//! Its one rule: leasing and returning touch numbers of the pool's own, which the keeper tells the
//! recorder. Only what is slow anyway, a wait or a dial that ended, is told at once; and all that
//! happens after the pool was closed, when there is no keeper.

use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Histogram, Unit};

use crate::{
    Status,
    totals::{AcquireTotals, ClosedTotals, ConnectTotals, Totals},
};

const CONNECTIONS: &str = "mqtt_pool_connections";
const MAX_CONNECTIONS: &str = "mqtt_pool_max_connections";
const WAITERS: &str = "mqtt_pool_waiters";
const LEASES_OVERDUE: &str = "mqtt_pool_leases_overdue";
const ACQUIRE: &str = "mqtt_pool_acquire_total";
const ACQUIRE_WAIT: &str = "mqtt_pool_acquire_wait_seconds";
const HOLD: &str = "mqtt_pool_hold_seconds";
const CONNECT: &str = "mqtt_pool_connect_total";
const CONNECT_TIME: &str = "mqtt_pool_connect_seconds";
const CLOSED: &str = "mqtt_pool_closed_total";
const BACKOFF: &str = "mqtt_pool_backoff_seconds";

/// Bounds in seconds that suit the histograms of [`describe_metrics`], from one millisecond, less
/// than which no dial takes, to the minute after which nobody waits any more.
///
/// An exporter has to be told of them: that for Prometheus makes summaries of histograms without.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Tells the recorder what the metrics of pools are. Once, after it was installed.
///
/// | metric | type | unit | labels beside `pool` | meaning |
/// | --- | --- | --- | --- | --- |
/// | `mqtt_pool_connections` | gauge | | `state` | members that are `idle`, `in_use`, `connecting` or `closing` |
/// | `mqtt_pool_max_connections` | gauge | | | members there may be |
/// | `mqtt_pool_waiters` | gauge | | | callers without an answer yet |
/// | `mqtt_pool_leases_overdue` | gauge | | | leases held for longer than `leak_after`; 0 if that is `never` |
/// | `mqtt_pool_acquire_total` | counter | | `outcome` | calls for a lease, by the fields of [`AcquireTotals`] |
/// | `mqtt_pool_acquire_wait_seconds` | histogram | seconds | | how long a call took that waited, with a lease at the end or without |
/// | `mqtt_pool_hold_seconds` | histogram | seconds | | how long a lease was held; only with [`record_hold`](crate::PoolConfig::record_hold) |
/// | `mqtt_pool_connect_total` | counter | | `endpoint`, `outcome` | dials that ended, by the fields of [`ConnectTotals`] |
/// | `mqtt_pool_connect_seconds` | histogram | seconds | `endpoint` | how long a dial took, however it ended |
/// | `mqtt_pool_closed_total` | counter | | `reason` | members that left, by the fields of [`ClosedTotals`] |
/// | `mqtt_pool_backoff_seconds` | gauge | seconds | `endpoint` | how long the endpoint is not dialled from now on; infinite if it refuses for good |
///
/// `pool` is the [name](crate::PoolConfig::name) of the pool; pools of the same name add to the
/// same counters and write over each other's gauges. `endpoint` is the URL that
/// [`Connect::endpoints`](crate::Connect::endpoints) names, which has no credentials, or `default`
/// if that names none. All labels are from short lists: no address, client identifier or topic is
/// among them.
///
/// Two to watch:
///
/// - `mqtt_pool_waiters` above 0 with none `idle` for longer than a dial takes: callers starve.
///   Leases are held too long, the pool is too small, or its servers are away (see
///   `mqtt_pool_backoff_seconds`).
/// - The share of `immediate` in `mqtt_pool_acquire_total`: how well the pool is sized. If it falls,
///   raise `max_size`, or `min_idle` where most of the rest is `dialled`.
///
/// Gauges and counters are at most a second behind. Of a pool that is closed they follow what is
/// still `in_use` or `closing` to its end; all its other gauges are 0.
///
/// A [`SharedPool`](crate::SharedPool) is seen by the leases it takes for its positions. Its handles
/// are neither counted nor timed; [`SharedPool::status`](crate::SharedPool::status) has their
/// number.
///
/// The recorder must be installed before the pool is made; see
/// [`Pool::rebind_metrics`](crate::Pool::rebind_metrics) if it cannot be. [`SECONDS_BUCKETS`] are
/// for the histograms.
pub fn describe_metrics() {
    metrics::describe_gauge!(
        CONNECTIONS,
        Unit::Count,
        "Connections of the pool, by state"
    );
    metrics::describe_gauge!(
        MAX_CONNECTIONS,
        Unit::Count,
        "Connections that the pool may have"
    );
    metrics::describe_gauge!(WAITERS, Unit::Count, "Callers that wait for a connection");
    metrics::describe_gauge!(
        LEASES_OVERDUE,
        Unit::Count,
        "Leases that are held for longer than leak_after"
    );
    metrics::describe_counter!(ACQUIRE, Unit::Count, "Calls for a lease, by outcome");
    metrics::describe_histogram!(
        ACQUIRE_WAIT,
        Unit::Seconds,
        "How long the calls for a lease took that waited"
    );
    metrics::describe_histogram!(HOLD, Unit::Seconds, "How long leases were held");
    metrics::describe_counter!(
        CONNECT,
        Unit::Count,
        "Dials that ended, by endpoint and outcome"
    );
    metrics::describe_histogram!(
        CONNECT_TIME,
        Unit::Seconds,
        "How long dials took, by endpoint"
    );
    metrics::describe_counter!(
        CLOSED,
        Unit::Count,
        "Connections that left the pool, by reason"
    );
    metrics::describe_gauge!(
        BACKOFF,
        Unit::Seconds,
        "How long an endpoint is not dialled from now on"
    );
}

/// The metrics of one pool.
#[derive(Debug)]
pub(crate) struct Metrics(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    handles: Handles,
    /// How much the recorder has been told of each counter. Counters are told what came since: an
    /// absolute value would stand still where a pool is made anew under the same name.
    told: Vec<u64>,
}

/// What was looked up in the recorder, which costs much more than using it.
#[derive(Debug)]
struct Handles {
    idle: Gauge,
    in_use: Gauge,
    connecting: Gauge,
    closing: Gauge,
    max_connections: Gauge,
    waiters: Gauge,
    leases_overdue: Gauge,
    acquire_wait: Histogram,
    /// `None` if it is not asked for.
    hold: Option<Histogram>,
    /// In the order of [`Numbers::counters`].
    counters: Vec<Counter>,
    /// For each endpoint.
    backoff: Vec<Gauge>,
    connect_time: Vec<Histogram>,
}

/// What the metrics are about: the configuration's part in it.
#[derive(Debug)]
pub(crate) struct Labels<'a> {
    pub(crate) pool: &'a str,
    pub(crate) endpoints: Vec<String>,
    pub(crate) record_hold: bool,
}

/// What a recorder is told of a pool, at one moment.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) status: Status,
    pub(crate) closing: usize,
    pub(crate) leases_overdue: usize,
    pub(crate) totals: Totals,
    pub(crate) endpoints: Vec<OfEndpoint>,
}

/// The part of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfEndpoint {
    pub(crate) connect: ConnectTotals,
    /// In seconds.
    pub(crate) backoff: f64,
}

impl Numbers {
    fn counters(&self) -> impl Iterator<Item = u64> {
        let acquire = self.totals.acquire.by_outcome().into_iter();
        let closed = self.totals.closed.by_reason().into_iter();
        let connect = self.endpoints.iter();
        let connect = connect.flat_map(|endpoint| endpoint.connect.by_outcome());
        acquire.chain(closed).chain(connect).map(|(_, total)| total)
    }
}

impl Metrics {
    pub(crate) fn new(labels: &Labels<'_>) -> Self {
        let handles = Handles::new(labels);
        Self(Mutex::new(Inner {
            told: vec![0; handles.counters.len()],
            handles,
        }))
    }

    pub(crate) fn rebind(&self, labels: &Labels<'_>) {
        self.lock().handles = Handles::new(labels);
    }

    /// Tells the recorder all but histograms. The numbers are asked for under the lock, so that
    /// the last to tell has the latest.
    pub(crate) fn publish(&self, numbers: impl FnOnce() -> Numbers) {
        let mut inner = self.lock();
        let Inner { handles, told } = &mut *inner;
        let numbers = numbers();
        let Numbers { status, .. } = numbers;
        for (gauge, value) in [
            (&handles.idle, status.idle),
            (&handles.in_use, status.in_use),
            (&handles.connecting, status.connecting),
            (&handles.closing, numbers.closing),
            (&handles.max_connections, status.max_size),
            (&handles.waiters, status.waiting),
            (&handles.leases_overdue, numbers.leases_overdue),
        ] {
            gauge.set(u32::try_from(value).unwrap_or(u32::MAX));
        }
        for (gauge, endpoint) in handles.backoff.iter().zip(&numbers.endpoints) {
            gauge.set(endpoint.backoff);
        }
        let counters = handles.counters.iter().zip(told);
        for ((counter, told), total) in counters.zip(numbers.counters()) {
            // Also by nothing: exporters that drop what is idle see that it is not.
            counter.increment(total.saturating_sub(*told));
            *told = total.max(*told);
        }
    }

    pub(crate) fn acquire_wait(&self) -> Histogram {
        self.lock().handles.acquire_wait.clone()
    }

    pub(crate) fn hold(&self) -> Option<Histogram> {
        self.lock().handles.hold.clone()
    }

    pub(crate) fn connect_time(&self, endpoint: usize) -> Option<Histogram> {
        self.lock().handles.connect_time.get(endpoint).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handles {
    fn new(labels: &Labels<'_>) -> Self {
        let pool = || labels.pool.to_owned();
        let endpoints = || labels.endpoints.iter();
        let state =
            |state: &'static str| metrics::gauge!(CONNECTIONS, "pool" => pool(), "state" => state);
        let acquire = AcquireTotals::default().by_outcome().into_iter();
        let acquire = acquire
            .map(|(outcome, _)| metrics::counter!(ACQUIRE, "pool" => pool(), "outcome" => outcome));
        let closed = ClosedTotals::default().by_reason().into_iter();
        let closed = closed
            .map(|(reason, _)| metrics::counter!(CLOSED, "pool" => pool(), "reason" => reason));
        let connect = endpoints().flat_map(|endpoint| {
            let outcomes = ConnectTotals::default().by_outcome().into_iter();
            outcomes.map(move |(outcome, _)| {
                metrics::counter!(
                    CONNECT,
                    "pool" => pool(), "endpoint" => endpoint.clone(), "outcome" => outcome
                )
            })
        });
        Self {
            idle: state("idle"),
            in_use: state("in_use"),
            connecting: state("connecting"),
            closing: state("closing"),
            max_connections: metrics::gauge!(MAX_CONNECTIONS, "pool" => pool()),
            waiters: metrics::gauge!(WAITERS, "pool" => pool()),
            leases_overdue: metrics::gauge!(LEASES_OVERDUE, "pool" => pool()),
            acquire_wait: metrics::histogram!(ACQUIRE_WAIT, "pool" => pool()),
            hold: labels
                .record_hold
                .then(|| metrics::histogram!(HOLD, "pool" => pool())),
            counters: acquire.chain(closed).chain(connect).collect(),
            backoff: endpoints()
                .map(|endpoint| {
                    metrics::gauge!(BACKOFF, "pool" => pool(), "endpoint" => endpoint.clone())
                })
                .collect(),
            connect_time: endpoints()
                .map(|endpoint| {
                    metrics::histogram!(
                        CONNECT_TIME,
                        "pool" => pool(), "endpoint" => endpoint.clone()
                    )
                })
                .collect(),
        }
    }
}
