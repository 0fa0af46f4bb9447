//! Dials under load, and before servers that are not well.

use std::{error::Error, time::Duration};

use futures_util::{future::join_all, poll};
use mqtt_pool::{
    AcquireError, BackoffConfig, Connect, ConnectContext, Limit, OnUnavailable, Pool, PoolConfig,
    WeightedEndpoint,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::server::{Connection, Mood, Refused, Server, millis, seconds, settle};

/// Leases a member, holds it for this time and says how long it waited.
async fn use_one(pool: Pool<Server>, hold: Duration) -> Duration {
    let begin = Instant::now();
    let lease = pool.get().await.expect("it is served");
    let waited = begin.elapsed();
    sleep(hold).await;
    drop(lease);
    waited
}

#[tokio::test(start_paused = true)]
async fn a_herd_of_callers_is_not_a_herd_of_dials() {
    let server = Server::default();
    server.set_connect(Mood::Takes(millis(50)));
    let pool = server.pool(|config| config.with_max_connecting(4));
    let mut callers = JoinSet::new();
    for _ in 0..1_000 {
        callers.spawn(use_one(pool.clone(), millis(2)));
    }
    assert_eq!(callers.join_all().await.len(), 1_000);
    assert_eq!(server.with(|counts| counts.peak_dialling), 4);
    assert!(server.attempts() <= 40, "{}", server.attempts());
}

/// HikariCP's spike test: those that are served by returns do not wait for a dial.
#[tokio::test(start_paused = true)]
async fn a_spike_is_served_by_those_that_are_there() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_connecting(4));
    pool.warm_up(5, Instant::now() + seconds(5)).await.unwrap();
    server.set_connect(Mood::Takes(millis(150)));
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        callers.spawn(use_one(pool.clone(), millis(2)));
    }
    let longest = callers.join_all().await.into_iter().max().unwrap();
    assert!(longest <= millis(40), "{longest:?}");
    assert!(server.attempts() <= 5 + 4, "{}", server.attempts());
}

#[tokio::test(start_paused = true)]
async fn callers_that_give_up_do_not_waste_their_dials() {
    let server = Server::default();
    server.set_connect(Mood::Takes(millis(50)));
    let pool = server.pool(|config| config.with_max_connecting(4));
    let begin = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let pool = pool.clone();
        callers.spawn(async move {
            while let Err(error) = pool.get_with(Instant::now() + millis(20)).await {
                assert!(matches!(error, AcquireError::Timeout { .. }), "{error:?}");
            }
        });
    }
    sleep(millis(49)).await;
    assert_eq!(server.attempts(), 4, "the third try of each is running");
    callers.join_all().await;
    assert!(begin.elapsed() < millis(60), "{:?}", begin.elapsed());
    // When the first four were there, sixteen were still waiting for that moment.
    assert!(server.attempts() <= 8, "{}", server.attempts());
}

#[tokio::test(start_paused = true)]
async fn a_return_goes_to_who_waits_for_a_dial_for_longest() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(4));
    let lease = pool.get().await.unwrap();
    server.set_connect(Mood::Takes(millis(300)));
    let mut first = Box::pin(pool.get());
    assert!(poll!(&mut first).is_pending());
    settle().await;
    let mut second = Box::pin(pool.get());
    assert!(poll!(&mut second).is_pending());
    sleep(millis(9)).await;

    let begin = Instant::now();
    drop(lease);
    assert!(poll!(&mut second).is_pending());
    let lease = first.await.unwrap();
    assert_eq!((lease.id, begin.elapsed()), (0, Duration::ZERO));
    sleep(millis(10)).await;
    drop(lease);
    assert_eq!(second.await.unwrap().id, 0);
    assert_eq!(begin.elapsed(), millis(10));

    // What was dialled for them is kept.
    sleep(millis(300)).await;
    assert_eq!((pool.status().idle, server.attempts()), (3, 3));
}

/// What is saying goodbye or being dialled counts.
#[tokio::test(start_paused = true)]
async fn the_server_never_sees_more_than_max_size() {
    fastrand::seed(1);
    let server = Server::default();
    server.set_connect(Mood::Takes(millis(50)));
    server.set_close(Mood::Takes(millis(300)));
    let pool = server.pool(|config| {
        config
            .with_max_size(8)
            .with_min_idle(2)
            .with_max_idle(4)
            .with_idle_timeout(seconds(1))
            .with_max_lifetime(seconds(3))
            .with_connect_timeout(seconds(1))
            .with_lifetime_jitter(0.5)
    });
    server.with(|counts| counts.limit = Some(8));
    let end = Instant::now() + seconds(60);
    let mut users = JoinSet::new();
    for _ in 0..32 {
        let pool = pool.clone();
        users.spawn(async move {
            while Instant::now() < end {
                let patience = millis(fastrand::u64(1..400));
                if let Ok(lease) = pool.get_with(Instant::now() + patience).await {
                    sleep(millis(fastrand::u64(0..100))).await;
                    match fastrand::u8(0..10) {
                        0 => lease.discard(),
                        1 => lease.kill(),
                        2 => lease.fail(),
                        _ => drop(lease),
                    }
                }
                sleep(millis(fastrand::u64(0..200))).await;
            }
        });
    }
    while Instant::now() < end {
        sleep(millis(fastrand::u64(1..2_000))).await;
        match fastrand::u8(0..3) {
            0 => pool.clear(),
            1 => pool.retire(seconds(1)),
            _ => {
                let max_size = fastrand::usize(2..=8);
                let grows = max_size > pool.status().max_size;
                let limit = |counts: &mut crate::server::Counts| counts.limit = Some(max_size);
                if grows {
                    server.with(limit);
                }
                pool.resize(max_size).unwrap();
                if !grows {
                    server.with(limit);
                }
            }
        }
        server.assert_sound();
    }
    users.join_all().await;
    server.assert_sound();
    assert_eq!(server.with(|counts| counts.peak), 8);
    assert!(server.attempts() > 100, "{}", server.attempts());
}

/// How many leases each of 64 tasks gets of 4 members in this time: the least and the most.
async fn shares(time: Duration) -> (u32, u32) {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(4));
    let warm = pool.warm_up(4, Instant::now() + seconds(5)).await;
    warm.expect("it is filled");
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut leases = 0;
            while Instant::now() < end {
                let _lease = pool.get().await.expect("it is served");
                sleep(millis(1)).await;
                leases += 1;
            }
            leases
        });
    }
    let leases = tasks.join_all().await;
    let (least, most) = (leases.iter().min(), leases.iter().max());
    (*least.expect("a task"), *most.expect("a task"))
}

#[tokio::test(start_paused = true)]
async fn all_are_served_alike() {
    let (least, most) = shares(seconds(2)).await;
    assert!(least >= 100, "{least}");
    assert!(most * 10 <= least * 11, "{least} to {most}");
}

/// Looser than in virtual time, where no task is kept waiting for a processor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_served_alike_by_two_threads() {
    let (least, most) = shares(seconds(1)).await;
    assert!(most * 2 <= least * 3, "{least} to {most}");
}

/// 64 callers that try again and again for this time.
async fn besiege(pool: &Pool<Server>, time: Duration) {
    let end = Instant::now() + time;
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let pool = pool.clone();
        callers.spawn(async move {
            while Instant::now() < end {
                let answer = pool.get_with(Instant::now() + millis(50)).await;
                assert!(answer.is_err());
                sleep(millis(50)).await;
            }
        });
    }
    callers.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_is_left_in_peace() {
    for on_unavailable in [OnUnavailable::Wait, OnUnavailable::FailFast] {
        fastrand::seed(1);
        let server = Server::default();
        server.set_connect(Mood::RefusesAfter(millis(1)));
        let pool = server.pool(|config| {
            config
                .with_max_size(16)
                .with_max_connecting(4)
                .with_on_unavailable(on_unavailable)
        });
        // Four at once, and one after each delay, which is half of the base at least.
        besiege(&pool, millis(500)).await;
        assert!(server.attempts() <= 8, "{}", server.attempts());
        besiege(&pool, seconds(60)).await;
        assert!(server.attempts() <= 30, "{}", server.attempts());
        assert!(server.attempts() >= 8, "{}", server.attempts());
    }
}

#[track_caller]
fn assert_refused_until(answer: AcquireError<Refused>, at: Option<Instant>) {
    let AcquireError::Unavailable { retry_at, .. } = &answer else {
        panic!("{answer:?}");
    };
    assert_eq!(*retry_at, at);
    assert_eq!(answer.is_transient(), at.is_some());
    assert!(answer.last_dial_error().is_some());
    let refused = answer.source().and_then(Error::source);
    assert!(refused.is_some_and(|error| error.is::<Refused>()));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_is_told_at_once_and_probed_once_in_a_while() {
    let server = Server::default();
    server.set_connect(Mood::RefusesForGood);
    let pool = server.pool(|config| config.with_max_size(64));
    let begin = Instant::now();
    let again = begin + seconds(300);
    assert_refused_until(pool.get().await.unwrap_err(), Some(again));
    for answer in join_all((0..64).map(|_| pool.get())).await {
        assert_refused_until(answer.unwrap_err(), Some(again));
    }
    assert_eq!((begin.elapsed(), server.attempts()), (Duration::ZERO, 1));
    sleep(seconds(299)).await;
    assert_refused_until(pool.get().await.unwrap_err(), Some(again));
    assert_eq!(server.attempts(), 1);

    sleep(seconds(1)).await;
    let begin = Instant::now();
    for answer in join_all((0..64).map(|_| pool.get())).await {
        assert_refused_until(answer.unwrap_err(), Some(begin + seconds(300)));
    }
    assert_eq!((begin.elapsed(), server.attempts()), (Duration::ZERO, 2));
}

#[tokio::test(start_paused = true)]
async fn clearing_dials_again_what_has_refused_for_good() {
    let server = Server::default();
    server.set_connect(Mood::RefusesForGood);
    let backoff = BackoffConfig::default().with_retry_refused_after(Limit::Never);
    let pool = server.pool(|config| config.with_min_idle(1).with_backoff(backoff));
    settle().await;
    assert_refused_until(pool.get().await.unwrap_err(), None);
    sleep(seconds(10_000)).await;
    assert_eq!(server.attempts(), 1);

    server.set_connect(Mood::Prompt);
    pool.clear();
    settle().await;
    assert_eq!((pool.status().idle, server.attempts()), (1, 2));
}

/// With the old credentials, which the hand that clears has just mended.
#[tokio::test(start_paused = true)]
async fn a_dial_from_before_a_clear_does_not_spoil_it() {
    let server = Server::default();
    server.set_connect(Mood::RefusesAfter(millis(100)));
    let backoff = BackoffConfig::default()
        .with_base(seconds(100))
        .with_max(seconds(100));
    let pool = server.pool(|config| config.with_backoff(backoff));
    let mut caller = Box::pin(pool.get());
    assert!(poll!(&mut caller).is_pending());
    sleep(millis(50)).await;
    server.set_connect(Mood::Prompt);
    pool.clear();
    let begin = Instant::now();
    assert_eq!(caller.await.unwrap().id, 0);
    assert_eq!(begin.elapsed(), millis(50));
    assert_eq!(server.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn callers_wait_for_a_server_that_comes_back() {
    let server = Server::default();
    server.set_connect(Mood::Refuses);
    let pool = server.pool(|config| config.with_acquire_timeout(seconds(5)));
    let begin = Instant::now();
    let (lease, ()) = tokio::join!(pool.get(), async {
        sleep(millis(100)).await;
        server.set_connect(Mood::Prompt);
    });
    assert_eq!(lease.unwrap().id, 0);
    assert!(begin.elapsed() <= millis(251), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn or_they_are_told_at_once() {
    let server = Server::default();
    server.set_connect(Mood::RefusesAfter(millis(10)));
    let pool = server.pool(|config| config.with_on_unavailable(OnUnavailable::FailFast));
    let begin = Instant::now();
    let error = pool.get().await.unwrap_err();
    let AcquireError::Unavailable {
        retry_at: Some(at), ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(begin.elapsed(), millis(10));
    assert!(
        *at >= begin + millis(135) && *at <= begin + millis(260),
        "{:?}",
        *at - begin
    );
    assert_refused_until(pool.get().await.unwrap_err(), Some(*at));
    assert_eq!((begin.elapsed(), server.attempts()), (millis(10), 1));
}

fn slow_backoff() -> BackoffConfig {
    BackoffConfig::default()
        .with_base(seconds(1))
        .with_max(seconds(3_600))
        .with_stable_after(seconds(30))
}

#[tokio::test(start_paused = true)]
async fn a_server_that_kicks_what_it_accepts_is_backed_off_from() {
    fastrand::seed(1);
    let server = Server::default();
    server.with(|counts| counts.kicks_after = Some(millis(10)));
    let _pool = server.pool(|config| config.with_min_idle(1));
    sleep(seconds(600)).await;
    // Half of the longest delay on average, which is 30 s.
    let attempts = server.attempts();
    assert!((20..=80).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn only_a_stable_period_makes_it_forget_the_kicks() {
    fastrand::seed(1);
    let server = Server::default();
    server.with(|counts| counts.kicks_after = Some(millis(10)));
    let pool = server.pool(|config| config.with_backoff(slow_backoff()));
    for _ in 0..14 {
        let deadline = Instant::now() + seconds(3_700);
        drop(pool.get_with(deadline).await.unwrap());
        settle().await;
        sleep(millis(10)).await;
    }
    server.with(|counts| counts.kicks_after = None);

    // Not quite stable.
    let lease = pool.get_with(Instant::now() + seconds(3_700)).await;
    sleep(seconds(29)).await;
    lease.unwrap().fail();
    let begin = Instant::now();
    let lease = pool.get_with(Instant::now() + seconds(3_700)).await;
    assert!(begin.elapsed() > seconds(2), "{:?}", begin.elapsed());

    // Stable: its end is no failure.
    sleep(seconds(30)).await;
    lease.unwrap().fail();
    let begin = Instant::now();
    let lease = pool.get().await.unwrap();
    assert_eq!(begin.elapsed(), Duration::ZERO);

    // And the next one is the first.
    sleep(seconds(1)).await;
    lease.fail();
    drop(lease);
    let begin = Instant::now();
    let _lease = pool.get().await.unwrap();
    assert!(begin.elapsed() >= millis(500), "{:?}", begin.elapsed());
    assert!(begin.elapsed() <= millis(1_001), "{:?}", begin.elapsed());
}

/// Nobody has ended it: a server that accepts is not dialled without a pause for that.
#[tokio::test(start_paused = true)]
async fn what_is_dead_on_arrival_is_not_handed_out() {
    fastrand::seed(1);
    let server = Server::default();
    let pool = Pool::new(Stillborn(server.clone()), PoolConfig::default()).unwrap();
    let begin = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error:?}");
    assert_eq!(begin.elapsed(), seconds(5));
    assert!(server.attempts() <= 12, "{}", server.attempts());
    settle().await;
    assert_eq!(server.live(), 0);
}

/// Connects what is dead, and does not know why.
struct Stillborn(Server);

impl Connect for Stillborn {
    type Connection = Connection;
    type Error = Refused;

    async fn connect(&self, context: ConnectContext) -> Result<Connection, Refused> {
        let connection = self.0.connect(context).await?;
        connection.kill();
        Ok(connection)
    }
}

/// Panics where a test wants it.
struct Panicky {
    server: Server,
    is_transient: bool,
    endpoints: bool,
}

impl Connect for Panicky {
    type Connection = Connection;
    type Error = Refused;

    async fn connect(&self, context: ConnectContext) -> Result<Connection, Refused> {
        self.server.connect(context).await
    }

    fn is_transient(&self, error: &Refused) -> bool {
        assert!(!self.is_transient, "the user's code");
        !error.for_good
    }

    fn endpoints(&self) -> &[WeightedEndpoint] {
        assert!(!self.endpoints, "the user's code");
        &[]
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_connector_is_a_failure_of_its_dial() {
    for (mood, is_transient) in [(Mood::Panics, false), (Mood::Refuses, true)] {
        let server = Server::default();
        let connector = Panicky {
            server: server.clone(),
            is_transient,
            endpoints: false,
        };
        let pool = Pool::new(connector, PoolConfig::default().with_max_size(1)).unwrap();
        let held = pool.get().await.unwrap();
        server.set_connect(mood);
        held.discard();
        let error = pool.get().await.unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "connecting panicked");
        let attempts = server.attempts();
        assert!((2..=12).contains(&attempts), "{attempts}");
        let status = pool.status();
        assert_eq!((status.connecting, status.waiting), (0, 0));

        server.set_connect(Mood::Prompt);
        let lease = pool.get_with(Instant::now() + seconds(60)).await.unwrap();
        assert_eq!(lease.slot, 0);
    }
}

/// It is the caller's own call.
#[tokio::test(start_paused = true)]
async fn a_panic_over_the_endpoints_leaves_nothing() {
    let before = crate::server::tasks();
    let connector = Panicky {
        server: Server::default(),
        is_transient: false,
        endpoints: true,
    };
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Pool::new(connector, PoolConfig::default()).map(drop)
    }));
    assert!(made.is_err());
    assert_eq!(crate::server::tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn warming_up_fills_the_pool_and_says_if_it_cannot() {
    let server = Server::default();
    server.set_connect(Mood::Takes(millis(50)));
    let pool = server.pool(|config| config.with_max_size(10).with_max_connecting(4));
    let begin = Instant::now();
    pool.warm_up(6, begin + seconds(5)).await.unwrap();
    assert_eq!((pool.status().idle, server.attempts()), (6, 6));
    assert_eq!(begin.elapsed(), millis(100));
    // What is there already counts, and no more than may be there are wanted.
    pool.warm_up(1_000, begin + seconds(5)).await.unwrap();
    assert_eq!((pool.status().idle, server.attempts()), (10, 10));

    pool.clear();
    server.set_connect(Mood::Hangs);
    let begin = Instant::now();
    let error = pool.warm_up(2, begin + seconds(2)).await.unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error:?}");
    assert_eq!((begin.elapsed(), pool.status().waiting), (seconds(2), 0));
}
