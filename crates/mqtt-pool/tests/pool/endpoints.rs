//! Several servers in one pool, each with moods of its own.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use mqtt_pool::{
    AcquireError, BackoffConfig, Connect, ConnectContext, Limit, OnUnavailable, Pool, PoolConfig,
    WeightedEndpoint,
};
use tokio::time::{Instant, sleep};

use crate::{
    server::{Connection, Mood, Refused, Server, millis, seconds, settle},
    warnings::Warnings,
};

/// Servers `mqtt://a`, `mqtt://b` and so on.
#[derive(Clone)]
struct Servers {
    endpoints: Vec<WeightedEndpoint>,
    each: Vec<Server>,
}

impl Servers {
    fn new(weights: &[u32]) -> Self {
        let names = 'a'..='z';
        let endpoint = |(name, weight): (char, &u32)| {
            let url = format!("mqtt://{name}").parse().expect("a URL");
            WeightedEndpoint::new(url).with_weight(*weight)
        };
        Self {
            endpoints: names.zip(weights).map(endpoint).collect(),
            each: weights.iter().map(|_| Server::default()).collect(),
        }
    }

    fn pool(&self, config: impl FnOnce(PoolConfig) -> PoolConfig) -> Pool<Self> {
        let eternal = PoolConfig::default()
            .with_idle_timeout(Limit::Never)
            .with_max_lifetime(Limit::Never);
        Pool::new(self.clone(), config(eternal)).expect("the options are allowed")
    }

    fn live(&self) -> Vec<usize> {
        self.each.iter().map(Server::live).collect()
    }

    fn attempts(&self) -> Vec<u32> {
        self.each.iter().map(Server::attempts).collect()
    }
}

impl Connect for Servers {
    type Connection = Connection;
    type Error = Refused;

    async fn connect(&self, context: ConnectContext) -> Result<Connection, Refused> {
        let index = self
            .endpoints
            .iter()
            .position(|known| Some(&known.endpoint) == context.endpoint())
            .expect("an endpoint that was named");
        let server = self.each.get(index).expect("one for each endpoint");
        server.connect(context).await
    }

    fn is_transient(&self, error: &Refused) -> bool {
        !error.for_good
    }

    fn endpoints(&self) -> &[WeightedEndpoint] {
        &self.endpoints
    }
}

async fn warm(pool: &Pool<Servers>, members: usize) {
    let deadline = Instant::now() + seconds(60);
    pool.warm_up(members, deadline).await.expect("it is filled");
}

#[tokio::test(start_paused = true)]
async fn weights_hold_within_one_member() {
    for weights in [
        &[1][..],
        &[1, 1],
        &[1, 2],
        &[3, 1, 1],
        &[5, 3, 2],
        &[10, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        &[1000, 1],
    ] {
        for seed in 0..20 {
            fastrand::seed(seed);
            let servers = Servers::new(weights);
            let pool = servers.pool(|config| config);
            let sum: u32 = weights.iter().sum();
            let mut leases = Vec::new();
            for members in 1..=40_u32 {
                leases.push(pool.get().await.unwrap());
                for (live, weight) in servers.live().iter().zip(weights) {
                    let live = u32::try_from(*live).unwrap();
                    let off = (live * sum).abs_diff(members * weight);
                    assert!(off <= sum, "{:?} of {weights:?}", servers.live());
                }
            }
        }
    }
}

/// Or a fleet of small processes would begin with the same server.
#[tokio::test(start_paused = true)]
async fn pools_of_one_member_are_spread_by_weight() {
    fastrand::seed(1);
    for (weights, expected) in [([1, 1], 100), ([3, 1], 150)] {
        let mut at_the_first = 0_usize;
        for _ in 0..200 {
            let servers = Servers::new(&weights);
            let pool = servers.pool(|config| config.with_max_size(1));
            drop(pool.get().await.unwrap());
            at_the_first += servers.live()[0];
        }
        // Three times the deviation of chance is 21 and 18.
        assert!(at_the_first.abs_diff(expected) <= 25, "{at_the_first}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_does_not_fill_up_in_one_order() {
    fastrand::seed(1);
    let mut orders = BTreeSet::new();
    for _ in 0..50 {
        let servers = Servers::new(&[1, 1, 1]);
        let pool = servers.pool(|config| config);
        let (mut order, mut leases) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let before = servers.live();
            leases.push(pool.get().await.unwrap());
            order.extend((0..3).filter(|index| servers.live()[*index] > before[*index]));
        }
        orders.insert(order);
    }
    assert_eq!(orders.len(), 6, "{orders:?}");
}

#[tokio::test(start_paused = true)]
async fn callers_do_not_notice_a_server_that_refuses() {
    fastrand::seed(1);
    let servers = Servers::new(&[1, 1]);
    let pool = servers.pool(|config| config.with_on_unavailable(OnUnavailable::FailFast));
    servers.each[0].set_connect(Mood::Refuses);
    let begin = Instant::now();
    let leases = join_all((0..20).map(|_| pool.get())).await;
    assert!(leases.iter().all(Result::is_ok));
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(servers.live(), [0, 20]);
    assert!(servers.attempts()[0] <= 4, "{:?}", servers.attempts());
}

#[tokio::test(start_paused = true)]
async fn a_server_comes_back_by_one_probe() {
    fastrand::seed(1);
    let servers = Servers::new(&[1, 1]);
    let pool = servers.pool(|config| config);
    servers.each[0].set_connect(Mood::Refuses);
    warm(&pool, 10).await;
    assert_eq!(servers.live(), [0, 10]);

    // Its time to refuse is over, and it takes its time to accept.
    let before = servers.attempts()[0];
    servers.each[0].set_connect(Mood::Takes(millis(100)));
    sleep(seconds(60)).await;
    let begin = Instant::now();
    let leases = join_all((0..14).map(|_| pool.get())).await;
    assert!(begin.elapsed() <= millis(100), "{:?}", begin.elapsed());
    assert_eq!(servers.attempts()[0], before + 1);
    assert_eq!(servers.each[0].with(|counts| counts.peak_dialling), 1);
    // From here on it is as good as the other.
    sleep(millis(200)).await;
    drop(leases);
    warm(&pool, 28).await;
    assert_eq!(servers.live(), [14, 14]);
}

/// A node that drops what it is sent costs its dials their whole time, but not the callers.
#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_holds_up_nobody() {
    fastrand::seed(1);
    let servers = Servers::new(&[1, 1]);
    let pool = servers.pool(|config| config);
    servers.each[0].set_connect(Mood::Refuses);
    warm(&pool, 4).await;
    servers.each[0].set_connect(Mood::Hangs);
    sleep(seconds(60)).await;
    let mut leases = Vec::new();
    for _ in 0..12 {
        let begin = Instant::now();
        leases.push(pool.get().await.unwrap());
        assert_eq!(begin.elapsed(), Duration::ZERO);
        sleep(seconds(7)).await;
    }
    assert_eq!(servers.live(), [0, 12]);
    let probes = servers.each[0].with(|counts| counts.peak_dialling);
    assert_eq!(probes, 1);
}

#[tokio::test(start_paused = true)]
async fn if_all_refuse_callers_wait_for_the_first_that_is_back() {
    fastrand::seed(1);
    let servers = Servers::new(&[1, 1]);
    let pool = servers.pool(|config| config);
    for server in &servers.each {
        server.set_connect(Mood::Refuses);
    }
    let begin = Instant::now();
    let (lease, ()) = tokio::join!(pool.get(), async {
        sleep(seconds(1)).await;
        servers.each[1].set_connect(Mood::Prompt);
    });
    assert!(lease.is_ok() && begin.elapsed() > seconds(1));
    assert_eq!(servers.live(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn one_may_refuse_for_good_and_the_other_not() {
    fastrand::seed(1);
    let servers = Servers::new(&[1, 1]);
    let pool = servers.pool(|config| config);
    servers.each[0].set_connect(Mood::RefusesForGood);
    warm(&pool, 10).await;
    assert_eq!(servers.live(), [0, 10]);

    // The other one only is away: callers wait for it.
    servers.each[1].set_connect(Mood::Refuses);
    pool.clear();
    let begin = Instant::now();
    let (lease, ()) = tokio::join!(pool.get(), async {
        sleep(seconds(1)).await;
        servers.each[1].set_connect(Mood::Prompt);
    });
    assert!(lease.is_ok() && begin.elapsed() > seconds(1));

    drop(lease);

    // Both refuse for good: callers are told, with the time of the first that is tried again.
    servers.each[1].set_connect(Mood::RefusesForGood);
    pool.clear();
    let first = Instant::now() + seconds(300);
    let answers = join_all((0..20).map(|_| pool.get())).await;
    for answer in answers {
        let Err(AcquireError::Unavailable { retry_at, .. }) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(retry_at, Some(first));
    }
    assert_eq!(servers.live(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn lifetimes_move_the_load_back_within_one() {
    fastrand::seed(2);
    let servers = Servers::new(&[1, 1]);
    let _pool = servers.pool(|config| {
        config
            .with_min_idle(20)
            .with_max_size(40)
            .with_max_lifetime(seconds(600))
            .with_backoff(BackoffConfig::default().with_max(seconds(10)))
    });
    servers.each[0].set_connect(Mood::Refuses);
    sleep(seconds(300)).await;
    assert_eq!(servers.live(), [0, 20]);
    servers.each[0].set_connect(Mood::Prompt);
    sleep(seconds(600)).await;
    let live = servers.live();
    assert!(live[0].abs_diff(live[1]) <= 6, "{live:?}");
}

#[tokio::test(start_paused = true)]
async fn a_death_of_one_server_is_its_own() {
    fastrand::seed(1);
    let servers = Servers::new(&[1, 1]);
    let pool = servers.pool(|config| config.with_min_idle(10));
    settle().await;
    assert_eq!(servers.live(), [5, 5]);
    servers.each[0].set_connect(Mood::Refuses);
    servers.each[0].fail_all();
    settle().await;
    assert_eq!(servers.live(), [0, 10]);
    assert_eq!(pool.status().idle, 10);
    assert_eq!(servers.attempts()[1], 10);
}

#[tokio::test(start_paused = true)]
async fn each_dial_that_fails_is_told_with_its_endpoint_and_its_cause() {
    let (warnings, _dispatches, _guard) = Warnings::listen();
    let servers = Servers::new(&[1, 1]);
    let [first, second] = &servers.each[..] else {
        panic!("there are two");
    };
    let pool = servers.pool(|config| {
        let never = BackoffConfig::default().with_retry_refused_after(Limit::Never);
        config.with_name("east").with_backoff(never)
    });
    first.set_connect(Mood::RefusesForGood);
    second.set_connect(Mood::Hangs);
    pool.get_with(Instant::now() + seconds(11))
        .await
        .unwrap_err();
    let mut told = warnings.take();
    told.sort_by_key(|text| text.contains("mqtt://b"));
    assert_eq!(told.len(), 2, "{told:?}");
    for text in &told {
        assert!(
            text.starts_with("message=a dial has failed;pool=\"east\";"),
            "{text}"
        );
    }
    for part in ["endpoint=mqtt://a:1883;", "\"refused by the server\""] {
        assert!(told[0].contains(part), "{part} in {told:?}");
    }
    // It is not dialled again.
    assert!(!told[0].contains("retry_in"), "{told:?}");
    for part in [
        "endpoint=mqtt://b:1883;",
        "took longer than 10s",
        "retry_in=",
    ] {
        assert!(told[1].contains(part), "{part} in {told:?}");
    }
}
