//! Whatever happens in whatever order, some things always hold.
//!
//! Each seed is one run of random actions against a server of random moods. A seed that fails is
//! printed with what was done; `MQTT_POOL_SEED` runs that one alone.

use std::{env, ops::RangeInclusive, thread, time::Duration};

use fastrand::Rng;
use mqtt_pool::{AcquireError, BackoffConfig, Lease, Limit, OnUnavailable, Pool, PoolConfig};
use tokio::{
    runtime::Builder,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::server::{Connection, Counts, Mood, Refused, Server, millis, seconds, settle, tasks};

const SEEDS: RangeInclusive<u64> = 1..=2_000;

const ACTIONS: usize = 60;

/// As many as may be: there are no more callers than this at a time.
const MAX_CALLERS: usize = 12;

#[test]
fn what_always_holds_holds_in_any_order_of_events() {
    let seeds = match env::var("MQTT_POOL_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a number");
            seed..=seed
        }
        Err(_) => SEEDS,
    };
    for seed in seeds {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        fastrand::seed(seed);
        runtime.block_on(run(seed));
    }
}

async fn run(seed: u64) {
    let mut model = Model::new(seed);
    for _ in 0..ACTIONS {
        model.act();
        settle().await;
        model.check().await;
    }
    if model.rng.bool() {
        model.recover().await;
    }
    model.end().await;
}

type Answer = Result<Lease<Server>, AcquireError<Refused>>;

struct Caller {
    deadline: Instant,
    /// With the time of the answer.
    call: JoinHandle<(Answer, Instant)>,
}

struct Model {
    rng: Rng,
    log: Log,
    server: Server,
    pool: Pool<Server>,
    leases: Vec<Lease<Server>>,
    detached: Vec<Connection>,
    callers: Vec<Caller>,
    warm_ups: Vec<JoinHandle<()>>,
    /// The most that the server has seen since it was last allowed to see more.
    seen: usize,
}

/// Tells a failing run.
struct Log {
    seed: u64,
    actions: Vec<String>,
}

impl Drop for Log {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("MQTT_POOL_SEED={}", self.seed);
            for action in &self.actions {
                println!("  {action}");
            }
        }
    }
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let max_size = rng.usize(1..=6);
        let max_idle = rng.usize(0..=max_size);
        let mut sometimes = |time: Duration| match rng.bool() {
            true => Limit::After(time),
            false => Limit::Never,
        };
        let idle_timeout = sometimes(millis(300));
        let max_lifetime = sometimes(seconds(2));
        let check_after = sometimes(millis(50));
        let on_unavailable = match rng.bool() {
            true => OnUnavailable::Wait,
            false => OnUnavailable::FailFast,
        };
        let backoff = BackoffConfig::default()
            .with_base(millis(20))
            .with_max(millis(500))
            .with_stable_after(millis(200))
            .with_retry_refused_after(seconds(1));
        let server = Server::default();
        server.with(|counts| counts.limit = Some(max_size));
        let config = |config: PoolConfig| {
            config
                .with_max_size(max_size)
                .with_max_idle(max_idle)
                .with_min_idle(rng.usize(0..=max_idle.min(2)))
                .with_max_connecting(rng.usize(1..=4))
                .with_idle_timeout(idle_timeout)
                .with_max_lifetime(max_lifetime)
                .with_lifetime_jitter(0.5)
                .with_connect_timeout(millis(500))
                .with_close_timeout(millis(400))
                .with_check_after(check_after)
                .with_check_timeout(millis(100))
                .with_on_unavailable(on_unavailable)
                .with_backoff(backoff)
        };
        let pool = server.pool(config);
        let actions = vec![format!("{:?}", pool.config())];
        Self {
            log: Log { seed, actions },
            rng,
            server,
            pool,
            leases: Vec::new(),
            detached: Vec::new(),
            callers: Vec::new(),
            warm_ups: Vec::new(),
            seen: 0,
        }
    }

    fn note(&mut self, action: impl Into<String>) {
        self.log.actions.push(action.into());
    }

    fn act(&mut self) {
        match self.rng.u8(0..100) {
            0..25 => self.call(),
            25..30 => self.cancel(),
            30..55 => self.end_a_lease(),
            55..60 => {
                self.note("try_get");
                self.leases.extend(self.pool.try_get());
            }
            60..72 => self.set_mood(),
            72..78 => {
                let place = self.rng.usize(0..6);
                self.note(format!("the server ends number {place}"));
                self.server.fail_one(place);
            }
            78..82 => {
                self.note("clear");
                self.pool.clear();
            }
            82..85 => {
                let over = millis(self.rng.u64(0..1_000));
                self.note(format!("retire over {over:?}"));
                self.pool.retire(over);
            }
            85..91 => self.resize(),
            91..94 => self.warm_up(),
            _ => self.note("nothing"),
        }
    }

    fn call(&mut self) {
        if self.callers.len() >= MAX_CALLERS {
            return;
        }
        let time = millis(self.rng.u64(0..400));
        self.note(format!("call for {time:?}"));
        let deadline = Instant::now() + time;
        let pool = self.pool.clone();
        let call = tokio::spawn(async move { (pool.get_with(deadline).await, Instant::now()) });
        self.callers.push(Caller { deadline, call });
    }

    fn cancel(&mut self) {
        if !self.callers.is_empty() {
            let caller = self
                .callers
                .swap_remove(self.rng.usize(0..self.callers.len()));
            self.note("cancel a call");
            caller.call.abort();
        }
    }

    fn end_a_lease(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let lease = self
            .leases
            .swap_remove(self.rng.usize(0..self.leases.len()));
        let id = lease.id;
        match self.rng.u8(0..10) {
            0 => {
                self.note(format!("discard {id}"));
                lease.discard();
            }
            1 => {
                self.note(format!("kill {id}"));
                lease.kill();
            }
            2 => {
                self.note(format!("fail {id}"));
                lease.fail();
            }
            3 => {
                self.note(format!("detach {id}"));
                let connection = lease.detach();
                self.server.forget(&connection);
                self.detached.push(connection);
            }
            4 => {
                self.note("return all");
                self.leases.clear();
            }
            _ => {
                self.note(format!("return {id}"));
                drop(lease);
            }
        }
    }

    fn set_mood(&mut self) {
        let time = millis(self.rng.u64(1..300));
        let mood = match self.rng.u8(0..8) {
            0 => Mood::Hangs,
            1 => Mood::Refuses,
            2 => Mood::RefusesAfter(time),
            3 => Mood::RefusesForGood,
            4 | 5 => Mood::Takes(time),
            _ => Mood::Prompt,
        };
        match self.rng.u8(0..4) {
            0 | 1 => {
                self.note(format!("connect: {mood:?}"));
                self.server.set_connect(mood);
            }
            2 => {
                self.note(format!("close: {mood:?}"));
                self.server.set_close(mood);
            }
            _ => {
                let kicks_after = self.rng.bool().then_some(time);
                self.note(format!("check: {mood:?}, kicks after {kicks_after:?}"));
                self.server.set_check(mood);
                self.server.with(|counts| counts.kicks_after = kicks_after);
            }
        }
    }

    fn resize(&mut self) {
        let max_size = self.rng.usize(1..=8);
        self.note(format!("resize to {max_size}"));
        let allow = |counts: &mut Counts| counts.limit = Some(max_size);
        if max_size > self.pool.status().max_size {
            self.server.with(allow);
            self.pool.resize(max_size).expect("it is in range");
        } else {
            self.pool.resize(max_size).expect("it is in range");
            self.server.with(allow);
        }
    }

    fn warm_up(&mut self) {
        let members = self.rng.usize(1..5);
        self.note(format!("warm up {members}"));
        let (pool, deadline) = (self.pool.clone(), Instant::now() + millis(200));
        self.warm_ups.push(tokio::spawn(async move {
            let _ = pool.warm_up(members, deadline).await;
        }));
    }

    /// Time goes on now and then; then what is due is taken, and all is compared.
    async fn check(&mut self) {
        if self.rng.u8(0..4) == 0 {
            let time = millis(self.rng.u64(1..400));
            self.note(format!("{time:?} pass"));
            sleep(time).await;
            settle().await;
        }
        self.collect().await;
        self.server.assert_sound();

        let status = self.pool.status();
        let checks = self.pool.config().check_after != Limit::Never;
        let warms_up = !self.warm_ups.is_empty();
        assert_eq!(status.size, status.idle + status.in_use, "{status}");
        assert!(status.in_use >= self.leases.len(), "{status}");
        assert!(status.in_use == self.leases.len() || warms_up, "{status}");
        assert!(status.waiting >= self.callers.len() || checks, "{status}");
        assert!(status.waiting <= self.callers.len() || warms_up, "{status}");
        assert!(status.waiting == 0 || status.idle == 0, "{status}");
        assert!(
            status.size <= status.max_size || status.idle == 0,
            "{status}"
        );

        let counts = |counts: &mut Counts| (counts.live, counts.dialling, counts.seen());
        let (live, dialling, seen) = self.server.with(counts);
        assert_eq!(status.connecting, dialling, "{status}");
        // What is being checked or closed is alive and not in the status.
        assert!(
            live >= status.size + self.detached.len(),
            "{live}, {status}"
        );
        // Above a new limit it only goes down.
        assert!(seen <= status.max_size.max(self.seen), "{seen}, {status}");
        self.seen = seen;
    }

    /// Takes the answers, and has nobody wait beyond the deadline.
    async fn collect(&mut self) {
        let now = Instant::now();
        for Caller { deadline, call } in std::mem::take(&mut self.callers) {
            if !call.is_finished() {
                assert!(now <= deadline + millis(1), "a caller still waits");
                self.callers.push(Caller { deadline, call });
                continue;
            }
            let (answer, at) = call.await.expect("no panic");
            match answer {
                Ok(lease) => self.leases.push(lease),
                Err(AcquireError::Timeout { .. }) => {
                    // To the tick of the timer.
                    assert!(at >= deadline && at <= deadline + millis(1), "{at:?}");
                }
                Err(AcquireError::Unavailable { .. }) => assert!(at <= deadline + millis(1)),
                Err(error) => panic!("{error:?}"),
            }
        }
        self.warm_ups.retain(|warm_up| !warm_up.is_finished());
    }

    /// The server is well again: soon there are as many leases as there may be, and no more.
    async fn recover(&mut self) {
        self.note("recover");
        self.server.with(|counts| {
            counts.connect = Mood::Prompt;
            counts.close = Mood::Prompt;
            counts.check = Mood::Prompt;
            counts.kicks_after = None;
        });
        self.leases.clear();
        sleep(seconds(1)).await;
        self.collect().await;
        self.leases.clear();
        self.pool.clear();
        settle().await;
        let max_size = self.pool.status().max_size;
        for _ in 0..max_size + 2 {
            let (pool, deadline) = (self.pool.clone(), Instant::now() + seconds(2));
            let call = tokio::spawn(async move { (pool.get_with(deadline).await, Instant::now()) });
            self.callers.push(Caller { deadline, call });
        }
        sleep(millis(1_900)).await;
        self.check().await;
        assert_eq!(self.leases.len(), max_size);
        sleep(millis(200)).await;
        self.collect().await;
        assert_eq!((self.leases.len(), self.callers.len()), (max_size, 0));
    }

    /// Whichever way the pool goes, nothing is left.
    async fn end(mut self) {
        let way = self.rng.u8(0..3);
        self.note(format!("end {way}"));
        match way {
            0 => {
                self.pool.close().await;
                self.leases.clear();
                sleep(seconds(1)).await;
            }
            1 => {
                self.leases.clear();
                self.callers.iter().for_each(|caller| caller.call.abort());
                let report = self.pool.drain(Instant::now() + seconds(2)).await;
                assert!(report.is_complete(), "{report:?}");
                assert!(report.took <= millis(401), "{report:?}");
            }
            _ => {
                self.leases.clear();
                let Self { callers, pool, .. } = &mut self;
                callers.iter().for_each(|caller| caller.call.abort());
                *pool = Server::default().pool(|config| config);
                sleep(seconds(1)).await;
            }
        }
        for caller in std::mem::take(&mut self.callers) {
            if let Ok((answer, _)) = caller.call.await {
                let closed = matches!(answer, Err(AcquireError::Closed));
                assert!(closed || way != 0, "{answer:?}");
            }
        }
        sleep(seconds(1)).await;
        let status = self.pool.status();
        assert_eq!((status.size, status.connecting, status.waiting), (0, 0, 0));
        let (live, dialling) = self.server.with(|counts| (counts.live, counts.dialling));
        assert_eq!((live, dialling), (self.detached.len(), 0));
        self.pool.close().await;
        settle().await;
        assert_eq!(tasks(), 0);
        self.server.assert_sound();
    }
}
