//! What a pool tells a recorder, and that it is what the pool itself says.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::poll;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use mqtt_pool::{
    BackoffConfig, Connect, ConnectContext, Limit, OnUnavailable, Pool, PoolConfig, Pooled,
    SECONDS_BUCKETS, WeightedEndpoint, describe_metrics,
};
use tokio::time::{Instant, sleep};

use crate::{
    server::{Connection, Mood, Refused, Server, seconds, settle},
    sharing::share,
};

/// What a recorder has been told: the value of a gauge or counter, all values of a histogram.
type Values = BTreeMap<String, Vec<f64>>;

/// Looks at a recorder whose gauges and counters begin anew with each look.
struct Recorded {
    snapshotter: Snapshotter,
    sums: RefCell<Values>,
}

impl Recorded {
    /// Counters and histograms since the beginning, and the gauges as they are told within a
    /// second from now; by names like `name{pool=east,state=idle}`.
    async fn look(&self) -> Values {
        self.snapshot();
        sleep(Duration::from_millis(1_001)).await;
        self.snapshot()
    }

    fn snapshot(&self) -> Values {
        let mut values = Values::new();
        let mut sums = self.sums.borrow_mut();
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let key = key.key();
            let labels = key.labels();
            let labels: Vec<_> = labels
                .map(|l| format!("{}={}", l.key(), l.value()))
                .collect();
            let name = format!("{}{{{}}}", key.name(), labels.join(","));
            let sum = sums.entry(name.clone()).or_default();
            match value {
                DebugValue::Counter(n) => {
                    let n = f64::from(u32::try_from(n).expect("a small number"));
                    *sum = vec![n + sum.first().unwrap_or(&0.0)];
                }
                DebugValue::Gauge(value) => *sum = vec![*value],
                DebugValue::Histogram(more) => sum.extend(more.iter().map(|value| **value)),
            }
            values.insert(name, sum.clone());
        }
        values
    }
}

/// Runs `test` on this thread, in virtual time, with a recorder of its own.
fn recorded(test: impl AsyncFnOnce(Recorded)) {
    let recorder = DebuggingRecorder::new();
    let recorded = Recorded {
        snapshotter: recorder.snapshotter(),
        sums: RefCell::default(),
    };
    metrics::with_local_recorder(&recorder, || run(test(recorded)));
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(test);
}

/// The values of one metric of a pool, by those of its labels that follow the pool's.
fn of<'a>(values: &'a Values, metric: &str, pool: &str) -> BTreeMap<&'a str, &'a [f64]> {
    let start = format!("{metric}{{pool={pool}");
    let found = values.iter().filter_map(|(name, values)| {
        let labels = name.strip_prefix(&start)?.strip_suffix('}')?;
        Some((labels.trim_start_matches(','), values.as_slice()))
    });
    found.collect()
}

#[track_caller]
fn check(values: &Values, metric: &str, expected: &[(&str, &[f64])]) {
    let expected = expected.iter().copied().collect();
    assert_eq!(of(values, metric, "east"), expected, "{metric}");
}

/// The counters of a metric that are not zero.
#[track_caller]
fn check_counters(values: &Values, metric: &str, expected: &[(&str, f64)]) {
    let mut found = of(values, metric, "east");
    found.retain(|_, values| values != &[0.0]);
    let expected: Vec<_> = expected.iter().map(|(labels, n)| (*labels, [*n])).collect();
    let expected = expected.iter().map(|(labels, n)| (*labels, n.as_slice()));
    assert_eq!(found, expected.collect(), "{metric}");
}

/// The server under names, with answers that a test sets.
#[derive(Clone, Debug, Default)]
struct Named {
    server: Server,
    endpoints: Vec<WeightedEndpoint>,
    is_final: Arc<AtomicBool>,
    is_deaf: Arc<AtomicBool>,
}

impl Named {
    fn new(endpoints: &[&str]) -> Self {
        let endpoint = |url: &&str| url.parse().expect("an endpoint");
        Self {
            endpoints: endpoints.iter().map(endpoint).collect(),
            ..Self::default()
        }
    }

    fn pool(&self, config: impl FnOnce(PoolConfig) -> PoolConfig) -> Pool<Self> {
        let config = config(
            PoolConfig::default()
                .with_name("east")
                .with_idle_timeout(Limit::Never)
                .with_max_lifetime(Limit::Never)
                .with_lifetime_jitter(0.0),
        );
        Pool::new(self.clone(), config).expect("the options are allowed")
    }
}

impl Connect for Named {
    type Connection = Line;
    type Error = Refused;

    async fn connect(&self, context: ConnectContext) -> Result<Line, Refused> {
        Ok(Line {
            connection: self.server.connect(context).await?,
            is_deaf: self.is_deaf.clone(),
        })
    }

    fn is_transient(&self, _: &Refused) -> bool {
        !self.is_final.load(Ordering::Relaxed)
    }

    fn endpoints(&self) -> &[WeightedEndpoint] {
        &self.endpoints
    }
}

#[derive(Debug)]
struct Line {
    connection: Connection,
    is_deaf: Arc<AtomicBool>,
}

impl Pooled for Line {
    fn is_usable(&self) -> bool {
        self.connection.is_usable()
    }

    async fn check(&mut self) -> bool {
        !self.is_deaf.load(Ordering::Relaxed)
    }

    async fn close(self) {
        self.connection.close().await;
    }
}

const STATES: [&str; 4] = ["idle", "in_use", "connecting", "closing"];
const CALLS: [&str; 7] = [
    "immediate",
    "waited",
    "dialled",
    "handed_over",
    "timeout",
    "unavailable",
    "closed",
];
const DIALS: [&str; 5] = ["connected", "failed", "refused", "timed_out", "panicked"];
const REASONS: [&str; 9] = [
    "idle",
    "lifetime",
    "dead",
    "check",
    "generation",
    "surplus",
    "discarded",
    "detached",
    "shutdown",
];

/// All that a pool of this name may tell.
fn names(pool: &str, endpoints: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    let mut add = |metric: &str, label: &str, values: &[&str]| {
        for value in values {
            names.push(format!("mqtt_pool_{metric}{{pool={pool},{label}={value}}}"));
        }
    };
    add("connections", "state", &STATES);
    add("acquire_total", "outcome", &CALLS);
    add("closed_total", "reason", &REASONS);
    for endpoint in endpoints {
        add(
            "connect_total",
            &format!("endpoint={endpoint},outcome"),
            &DIALS,
        );
        add("connect_seconds", "endpoint", &[endpoint]);
        add("backoff_seconds", "endpoint", &[endpoint]);
    }
    for metric in [
        "max_connections",
        "waiters",
        "leases_overdue",
        "acquire_wait_seconds",
        "hold_seconds",
    ] {
        names.push(format!("mqtt_pool_{metric}{{pool={pool}}}"));
    }
    names.sort();
    names
}

#[test]
fn a_pool_tells_these_and_nothing_else() {
    recorded(async |recorded| {
        let named = Named::new(&["mqtt://a", "wss://b/mqtt"]);
        let pool = named.pool(|config| config.with_record_hold(true));
        drop(pool.get().await.unwrap());
        named.server.set_connect(Mood::Panics);
        pool.get().await.unwrap().discard();
        let values = recorded.look().await;
        let found: Vec<_> = values.into_keys().collect();
        assert_eq!(found, names("east", &["mqtt://a:1883", "wss://b:443/mqtt"]));
        // What has no endpoints has one without a name.
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let _local = metrics::set_default_local_recorder(&recorder);
        let config = PoolConfig::default().with_record_hold(true);
        let _pool = Pool::new(Server::default(), config).unwrap();
        let recorded = Recorded {
            snapshotter,
            sums: RefCell::default(),
        };
        let found: Vec<_> = recorded.look().await.into_keys().collect();
        assert_eq!(found, names("default", &["default"]));
    });
}

#[test]
fn every_metric_has_a_unit_and_a_description() {
    recorded(async |recorded| {
        describe_metrics();
        let _pool = Named::default().pool(|config| config.with_record_hold(true));
        for (key, unit, description, _) in recorded.snapshotter.snapshot().into_vec() {
            let name = key.key().name();
            let expected = match name.ends_with("_seconds") {
                true => metrics::Unit::Seconds,
                false => metrics::Unit::Count,
            };
            assert_eq!(unit, Some(expected), "{name}");
            assert!(description.is_some_and(|text| !text.is_empty()), "{name}");
        }
        assert!(SECONDS_BUCKETS.is_sorted_by(|a, b| a < b));
    });
}

#[test]
fn calls_are_counted_by_what_came_of_them() {
    recorded(async |recorded| {
        let named = Named::default();
        let server = &named.server;
        let pool = named.pool(|config| config.with_max_size(2).with_acquire_timeout(seconds(5)));
        server.set_connect(Mood::Takes(seconds(1)));
        let first = pool.get().await.unwrap();
        drop(first);
        let first = pool.get().await.unwrap();
        let second = pool.get().await.unwrap();
        assert!(pool.get().await.is_err());
        // The third is returned to it by the first.
        let (third, ()) = tokio::join!(pool.get(), async {
            sleep(seconds(2)).await;
            drop(first);
        });
        // A dial that does not end, and a member that is returned meanwhile.
        server.set_connect(Mood::Hangs);
        second.discard();
        let (fourth, ()) = tokio::join!(pool.get(), async {
            sleep(seconds(3)).await;
            drop(third);
        });
        drop(fourth);
        // One that nobody waits for any more is no call.
        assert!(pool.try_get().is_some_and(|lease| {
            lease.discard();
            true
        }));
        assert!(pool.try_get().is_none());
        let mut given_up = Box::pin(pool.get());
        assert!(poll!(&mut given_up).is_pending());
        drop(given_up);

        let values = recorded.look().await;
        check_counters(
            &values,
            "mqtt_pool_acquire_total",
            &[
                ("outcome=dialled", 2.0),
                ("outcome=handed_over", 1.0),
                ("outcome=immediate", 2.0),
                ("outcome=timeout", 1.0),
                ("outcome=waited", 1.0),
            ],
        );
        check(
            &values,
            "mqtt_pool_acquire_wait_seconds",
            &[("", &[1.0, 1.0, 5.0, 2.0, 3.0])],
        );
        let totals = pool.totals().acquire;
        let waited = (totals.waited, totals.dialled, totals.handed_over);
        assert_eq!((totals.immediate, waited), (2, (1, 2, 1)));
        assert_eq!(
            (totals.timeout, totals.unavailable, totals.closed),
            (1, 0, 0)
        );
    });
}

#[test]
fn calls_without_a_lease_are_told_apart() {
    recorded(async |recorded| {
        let named = Named::default();
        let pool = named.pool(|config| {
            config
                .with_max_size(1)
                .with_on_unavailable(OnUnavailable::FailFast)
        });
        named.server.set_connect(Mood::Refuses);
        assert!(pool.get().await.is_err());
        named.server.set_connect(Mood::Prompt);
        pool.clear();
        let _held = pool.get().await.unwrap();
        let waits = pool.get();
        let (waited, ()) = tokio::join!(waits, async {
            sleep(seconds(2)).await;
            pool.close().await;
        });
        assert!(waited.is_err());
        assert!(pool.get().await.is_err());
        let values = recorded.snapshot();
        check_counters(
            &values,
            "mqtt_pool_acquire_total",
            &[
                ("outcome=closed", 2.0),
                ("outcome=dialled", 1.0),
                ("outcome=unavailable", 1.0),
            ],
        );
        // Also the one that was told at once: it had to wait for the dial to fail.
        check(
            &values,
            "mqtt_pool_acquire_wait_seconds",
            &[("", &[0.0, 0.0, 2.0])],
        );
        let totals = pool.totals().acquire;
        assert_eq!((totals.unavailable, totals.closed), (1, 2));
    });
}

#[test]
fn dials_are_counted_and_timed_by_their_endpoint() {
    recorded(async |recorded| {
        let named = Named::new(&["mqtt://a"]);
        let server = &named.server;
        let backoff = BackoffConfig::default()
            .with_base(seconds(60))
            .with_max(seconds(60))
            .with_retry_refused_after(Limit::Never);
        let pool = named.pool(|config| {
            config
                .with_backoff(backoff)
                .with_connect_timeout(seconds(3))
        });
        server.set_connect(Mood::Takes(seconds(2)));
        pool.get().await.unwrap().discard();
        // Nobody has to wait for a backoff, as `clear` ends it.
        for (mood, is_final) in [
            (Mood::Refuses, false),
            (Mood::Hangs, false),
            (Mood::Panics, false),
            (Mood::Refuses, true),
        ] {
            pool.clear();
            server.set_connect(mood);
            named.is_final.store(is_final, Ordering::Relaxed);
            assert!(pool.get().await.is_err());
            let values = recorded.look().await;
            let left = of(&values, "mqtt_pool_backoff_seconds", "east");
            let left = left["endpoint=mqtt://a:1883"][0];
            match is_final {
                true => assert!(left.is_infinite(), "{left}"),
                false => assert!(left > 20.0 && left < 60.0, "{left}"),
            }
        }

        // One that the pool ends is none.
        pool.clear();
        server.set_connect(Mood::Hangs);
        let mut waits = Box::pin(pool.get());
        assert!(poll!(&mut waits).is_pending());
        settle().await;
        pool.close().await;
        settle().await;
        let values = recorded.snapshot();
        let endpoint = "endpoint=mqtt://a:1883";
        let outcome = |outcome| format!("{endpoint},outcome={outcome}");
        let outcomes = DIALS.map(outcome);
        let outcomes: Vec<_> = outcomes
            .iter()
            .map(|labels| (labels.as_str(), 1.0))
            .collect();
        check_counters(&values, "mqtt_pool_connect_total", &outcomes);
        check(
            &values,
            "mqtt_pool_connect_seconds",
            &[(endpoint, &[2.0, 0.0, 3.0, 0.0, 0.0])],
        );
        let dials = pool.totals().connect;
        assert_eq!((dials.connected, dials.failed, dials.refused), (1, 1, 1));
        assert_eq!((dials.timed_out, dials.panicked), (1, 1));
    });
}

#[test]
fn members_are_counted_by_why_they_left() {
    recorded(async |recorded| {
        let named = Named::default();
        let pool = named.pool(|config| {
            config
                .with_idle_timeout(seconds(60))
                .with_max_lifetime(seconds(300))
                .with_check_after(seconds(30))
        });
        let two = async || [pool.get().await.unwrap(), pool.get().await.unwrap()];
        drop(pool.get().await.unwrap());
        sleep(seconds(90)).await; // idle
        let lease = pool.get().await.unwrap();
        sleep(seconds(301)).await;
        drop(lease); // lifetime
        let lease = pool.get().await.unwrap();
        lease.connection.kill();
        drop(lease); // dead
        drop(pool.get().await.unwrap());
        sleep(seconds(40)).await;
        named.is_deaf.store(true, Ordering::Relaxed);
        let lease = pool.get().await.unwrap(); // check
        pool.clear();
        drop(lease); // generation
        drop(two().await);
        pool.resize(1).unwrap();
        settle().await; // surplus
        pool.resize(9).unwrap();
        let [one, other] = two().await;
        one.discard();
        drop(other.detach());
        drop(two().await);
        pool.close().await; // shutdown, twice
        let values = recorded.snapshot();
        let labels = REASONS.map(|reason| format!("reason={reason}"));
        let count = |labels: &str| {
            if labels == "reason=shutdown" {
                2.0
            } else {
                1.0
            }
        };
        let expected: Vec<_> = labels.iter().map(|l| (l.as_str(), count(l))).collect();
        check_counters(&values, "mqtt_pool_closed_total", &expected);

        let gone = pool.totals().closed;
        assert_eq!((gone.idle, gone.lifetime, gone.dead), (1, 1, 1));
        assert_eq!((gone.check, gone.generation, gone.surplus), (1, 1, 1));
        assert_eq!((gone.discarded, gone.detached, gone.shutdown), (1, 1, 2));
    });
}

/// The gauges of a pool without endpoints, in the order of [`STATES`] and then the others.
#[track_caller]
fn check_gauges(values: &Values, states: [f64; 4], [max, waiters, overdue]: [f64; 3]) {
    for (state, value) in STATES.into_iter().zip(states) {
        let found = of(values, "mqtt_pool_connections", "east");
        let found = found.get(format!("state={state}").as_str());
        assert_eq!(found, Some(&[value].as_slice()), "{state}");
    }
    check(values, "mqtt_pool_max_connections", &[("", &[max])]);
    check(values, "mqtt_pool_waiters", &[("", &[waiters])]);
    check(values, "mqtt_pool_leases_overdue", &[("", &[overdue])]);
}

#[test]
fn gauges_are_what_the_status_says() {
    recorded(async |recorded| {
        let named = Named::default();
        let pool = named.pool(|config| {
            config
                .with_max_size(5)
                .with_leak_after(seconds(10))
                .with_close_timeout(seconds(90))
        });
        check_gauges(&recorded.look().await, [0.0; 4], [5.0, 0.0, 0.0]);

        let leases = [
            pool.get().await.unwrap(),
            pool.get().await.unwrap(),
            pool.get().await.unwrap(),
        ];
        named.server.set_close(Mood::Takes(seconds(60)));
        named.server.set_connect(Mood::Hangs);
        let [one, two, three] = leases;
        one.discard();
        sleep(seconds(10)).await;
        drop(pool.try_get());
        let mut waits: Vec<_> = (0..3).map(|_| Box::pin(pool.get())).collect();
        for wait in &mut waits {
            assert!(poll!(wait).is_pending());
        }
        pool.resize(6).unwrap();
        let values = recorded.look().await;
        let status = pool.status();
        assert_eq!((status.idle, status.in_use, status.connecting), (0, 2, 3));
        assert_eq!((status.waiting, status.max_size), (3, 6));
        check_gauges(&values, [0.0, 2.0, 3.0, 1.0], [6.0, 3.0, 2.0]);

        waits.clear();
        drop(three);
        let values = recorded.look().await;
        let status = pool.status();
        assert_eq!((status.idle, status.in_use, status.waiting), (1, 1, 0));
        check_gauges(&values, [1.0, 1.0, 3.0, 1.0], [6.0, 0.0, 1.0]);

        // Of a pool that is closed, what is not closed yet.
        pool.close().await;
        check_gauges(&recorded.snapshot(), [0.0, 1.0, 0.0, 0.0], [0.0; 3]);
        drop(two);
        check_gauges(&recorded.snapshot(), [0.0, 0.0, 0.0, 1.0], [0.0; 3]);
        sleep(seconds(60)).await;
        check_gauges(&recorded.snapshot(), [0.0; 4], [0.0; 3]);
    });
}

#[test]
fn gauges_are_zero_when_the_pool_is_gone() {
    recorded(async |recorded| {
        let named = Named::default();
        let backoff = BackoffConfig::default().with_retry_refused_after(Limit::Never);
        let pool = named.pool(|config| config.with_backoff(backoff).with_min_idle(2));
        sleep(seconds(2)).await;
        let lease = pool.get().await.unwrap();
        named.is_final.store(true, Ordering::Relaxed);
        named.server.set_connect(Mood::Refuses);
        lease.discard();
        sleep(seconds(2)).await;
        let is_told = |values: &Values, metric: &str, label: &str| {
            let value = of(values, metric, "east")[label][0];
            value > 0.0
        };
        let values = recorded.snapshot();
        assert!(is_told(&values, "mqtt_pool_connections", "state=idle"));
        assert!(is_told(&values, "mqtt_pool_max_connections", ""));
        let endpoint = "endpoint=default";
        assert!(is_told(&values, "mqtt_pool_backoff_seconds", endpoint));

        let begin = Instant::now();
        drop(pool);
        settle().await;
        let ended = recorded.snapshot();
        check_gauges(&ended, [0.0; 4], [0.0; 3]);
        check(&ended, "mqtt_pool_backoff_seconds", &[(endpoint, &[0.0])]);
        check_counters(
            &ended,
            "mqtt_pool_closed_total",
            &[("reason=discarded", 1.0), ("reason=shutdown", 1.0)],
        );
        // And nothing comes after that.
        assert_eq!(begin.elapsed(), Duration::from_millis(1));
        sleep(seconds(60)).await;
        assert_eq!(recorded.snapshot(), ended);
    });
}

#[test]
fn the_time_for_which_leases_are_held_is_told_on_demand() {
    recorded(async |recorded| {
        let named = Named::default();
        for (asked_for, expected) in [(false, &[][..]), (true, &[3.0, 4.0, 5.0][..])] {
            let pool = named.pool(|config| config.with_record_hold(asked_for));
            let lease = pool.get().await.unwrap();
            sleep(seconds(3)).await;
            drop(lease);
            let lease = pool.get().await.unwrap();
            sleep(seconds(4)).await;
            lease.discard();
            let lease = pool.get().await.unwrap();
            sleep(seconds(5)).await;
            drop(lease.detach());
            let values = recorded.snapshot();
            let told = of(&values, "mqtt_pool_hold_seconds", "east");
            let told: Vec<_> = told.into_values().flatten().copied().collect();
            assert_eq!(told, expected);
            let is_known = values.contains_key("mqtt_pool_hold_seconds{pool=east}");
            assert_eq!(is_known, asked_for);
        }
    });
}

/// It would drown what callers have to wait, and how long they keep what they lease.
#[test]
fn the_times_of_shared_positions_are_nobodys() {
    recorded(async |recorded| {
        let named = Named::default();
        let pool = named.pool(|config| config.with_record_hold(true));
        let shared = share(&pool, 2);
        drop(shared.get().await.unwrap());
        settle().await;
        drop(shared);
        settle().await;
        assert_eq!(pool.status().idle, 2);
        let values = recorded.snapshot();
        for metric in ["acquire_wait_seconds", "hold_seconds"] {
            let metric = format!("mqtt_pool_{metric}");
            check(&values, &metric, &[("", &[])]);
        }
    });
}

#[test]
fn a_recorder_that_comes_later_is_told_from_then_on() {
    run(async {
        let named = Named::default();
        let pool = named.pool(|config| config.with_max_size(3).with_record_hold(true));
        named.server.set_connect(Mood::Takes(seconds(1)));
        pool.get().await.unwrap().discard();
        settle().await;

        let recorder = DebuggingRecorder::new();
        let recorded = Recorded {
            snapshotter: recorder.snapshotter(),
            sums: RefCell::default(),
        };
        metrics::with_local_recorder(&recorder, || {
            pool.rebind_metrics();
            // Once more makes no difference.
            pool.rebind_metrics();
        });
        check_gauges(&recorded.snapshot(), [0.0; 4], [3.0, 0.0, 0.0]);
        let lease = pool.get().await.unwrap();
        sleep(seconds(2)).await;
        drop(lease);
        let values = recorded.look().await;
        check_gauges(&values, [1.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0]);
        check_counters(
            &values,
            "mqtt_pool_acquire_total",
            &[("outcome=dialled", 1.0)],
        );
        check_counters(
            &values,
            "mqtt_pool_connect_total",
            &[("endpoint=default,outcome=connected", 1.0)],
        );
        check(&values, "mqtt_pool_acquire_wait_seconds", &[("", &[1.0])]);
        check(&values, "mqtt_pool_hold_seconds", &[("", &[2.0])]);
        assert_eq!(pool.totals().acquire.dialled, 2);
    });
}

/// As after a change of its configuration.
#[test]
fn a_pool_that_is_made_anew_goes_on_counting() {
    recorded(async |recorded| {
        let named = Named::default();
        for _ in 0..2 {
            let pool = named.pool(|config| config);
            for _ in 0..3 {
                drop(pool.get().await.unwrap());
            }
            pool.close().await;
        }
        let values = recorded.snapshot();
        check_counters(
            &values,
            "mqtt_pool_acquire_total",
            &[("outcome=dialled", 2.0), ("outcome=immediate", 4.0)],
        );
    });
}
