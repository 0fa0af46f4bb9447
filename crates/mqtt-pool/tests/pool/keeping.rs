//! What the pool keeps: how many idle members, how fit they are and how they grow old.

use std::time::Duration;

use mqtt_pool::{Lease, Limit, Pool};
use tokio::time::{Instant, sleep};

use crate::server::{Mood, Server, millis, seconds, settle};

async fn warm(pool: &Pool<Server>, members: usize) {
    let deadline = Instant::now() + seconds(60);
    pool.warm_up(members, deadline).await.expect("it is filled");
}

/// The most of these that lie within one window of this length.
fn most_within(window: Duration, times: &[Duration]) -> usize {
    let within = |from: &Duration| {
        let window = *from..*from + window;
        times.iter().filter(|time| window.contains(*time)).count()
    };
    times.iter().map(within).max().unwrap_or(0)
}

/// Each one hundredth of the time has one of the hundred members, on average.
#[tokio::test(start_paused = true)]
async fn members_that_were_connected_together_do_not_expire_together() {
    fastrand::seed(1);
    let server = Server::default();
    let pool = server.pool(|config| {
        config
            .with_max_lifetime(seconds(1_000))
            .with_lifetime_jitter(0.25)
    });
    warm(&pool, 100).await;
    sleep(seconds(1_010)).await;
    let ages = server.with(|counts| counts.ages.clone());
    assert_eq!(ages.len(), 100);
    let most = most_within(millis(2_500), &ages);
    assert!(most <= 8, "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_retirement_is_spread_over_its_time() {
    fastrand::seed(1);
    let server = Server::default();
    let pool = server.pool(|config| config);
    warm(&pool, 100).await;
    pool.retire(seconds(600));
    sleep(seconds(610)).await;
    let ages = server.with(|counts| counts.ages.clone());
    assert_eq!(ages.len(), 100);
    let most = most_within(seconds(6), &ages);
    assert!(most <= 8, "{most}");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_warm_does_not_idle_out() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_min_idle(2).with_idle_timeout(seconds(10)));
    sleep(seconds(3_600)).await;
    assert_eq!((pool.status().idle, server.attempts()), (2, 2));
    // Not if it is looked at, either.
    let lease = pool.try_get().unwrap();
    assert!(lease.id < 2);
    drop(lease);
    // And what is above it goes.
    warm(&pool, 5).await;
    sleep(seconds(60)).await;
    assert_eq!((pool.status().idle, server.live()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_or_has_died_is_replaced_soon() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_min_idle(2));
    settle().await;
    assert_eq!(pool.status().idle, 2);
    let lease = pool.get().await.unwrap();
    sleep(millis(1_010)).await;
    assert_eq!((pool.status().idle, pool.status().in_use), (2, 1));
    drop(lease);

    let lease = pool.get().await.unwrap();
    let fate = lease.fate();
    drop(lease);
    fate.fail();
    // No waiting for the next sweep: a stable period has not passed, so there is a backoff.
    settle().await;
    assert_eq!(server.live(), 2);
    sleep(seconds(1)).await;
    assert_eq!(pool.status().idle, 2);
}

#[tokio::test(start_paused = true)]
async fn a_death_is_swept_at_once() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let lease = pool.get().await.unwrap();
    let fate = lease.fate();
    drop(lease);
    sleep(millis(100)).await;
    fate.fail();
    settle().await;
    assert_eq!((server.live(), pool.status().size), (0, 0));
}

/// Also if `max_idle` has no room for its successor beside it.
#[tokio::test(start_paused = true)]
async fn what_is_kept_warm_is_replaced_before_it_expires() {
    for max_idle in [100, 3] {
        fastrand::seed(1);
        let server = Server::default();
        server.set_connect(Mood::Takes(millis(200)));
        let pool = server.pool(|config| {
            config
                .with_min_idle(3)
                .with_max_idle(max_idle)
                .with_max_lifetime(seconds(60))
        });
        sleep(seconds(1)).await;
        for _ in 0..6_000 {
            sleep(millis(100)).await;
            assert!(pool.status().idle >= 3, "{}", pool.status());
            let leases: Vec<Lease<Server>> = std::iter::from_fn(|| pool.try_get()).collect();
            assert!(leases.len() >= 3, "only {} are fit", leases.len());
        }
        // Ten lifetimes, each of which may be half as long.
        assert!(server.attempts() <= 60, "{}", server.attempts());
        assert!(server.live() <= 6, "{}", server.live());
        server.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn warmth_respects_max_size_and_the_backoff() {
    fastrand::seed(1);
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(3).with_min_idle(2));
    let mut leases = Vec::new();
    for idle in [2, 1, 0] {
        leases.push(pool.get().await.unwrap());
        sleep(seconds(2)).await;
        assert_eq!(
            (pool.status().idle, server.live()),
            (idle.min(3 - leases.len()), 3)
        );
    }
    drop(leases);
    assert_eq!(
        (pool.status().idle, server.with(|counts| counts.peak)),
        (3, 3)
    );

    server.set_connect(Mood::Refuses);
    pool.clear();
    let before = server.attempts();
    sleep(seconds(600)).await;
    let attempts = server.attempts() - before;
    assert!((20..=80).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn what_was_held_for_long_is_not_idle() {
    let server = Server::default();
    let pool = server.pool(|config| {
        config
            .with_idle_timeout(seconds(10))
            .with_check_after(seconds(5))
    });
    let lease = pool.get().await.unwrap();
    sleep(seconds(3_600)).await;
    drop(lease);
    sleep(seconds(4)).await;
    assert_eq!(pool.get().await.unwrap().id, 0);
    assert_eq!(server.with(|counts| counts.checks), 0);
}

#[tokio::test(start_paused = true)]
async fn only_what_was_idle_for_long_is_checked() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_check_after(seconds(10)));
    drop(pool.get().await.unwrap());
    for (idle, checks) in [(9, 0), (9, 0), (10, 1), (9, 1), (11, 2)] {
        sleep(seconds(idle)).await;
        assert_eq!(pool.get().await.unwrap().id, 0);
        assert_eq!(server.with(|counts| counts.checks), checks);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_check_costs_its_member_and_not_its_caller() {
    for (mood, wait) in [
        (Mood::Refuses, Duration::ZERO),
        (Mood::Hangs, seconds(1)),
        (Mood::Takes(seconds(2)), seconds(1)),
    ] {
        let server = Server::default();
        let pool = server.pool(|config| {
            config
                .with_check_after(seconds(10))
                .with_check_timeout(seconds(1))
        });
        drop(pool.get().await.unwrap());
        sleep(seconds(10)).await;
        server.set_check(mood);
        let begin = Instant::now();
        assert_eq!(pool.get().await.unwrap().id, 1, "{mood:?}");
        assert_eq!(begin.elapsed(), wait, "{mood:?}");
        settle().await;
        assert_eq!((server.live(), server.goodbyes()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn one_deadline_holds_over_many_checks_that_hang() {
    let server = Server::default();
    let pool = server.pool(|config| {
        config
            .with_check_after(Duration::ZERO)
            .with_check_timeout(millis(400))
    });
    warm(&pool, 8).await;
    server.set_check(Mood::Hangs);
    server.set_connect(Mood::Hangs);
    let begin = Instant::now();
    let deadline = begin + millis(2_100);
    assert!(pool.get_with(deadline).await.is_err());
    assert_eq!(begin.elapsed(), millis(2_100));
    // The sixth was being checked when time was up.
    assert_eq!((pool.status().idle, pool.status().waiting), (2, 0));
    settle().await;
    assert_eq!(server.live(), 2);

    let begin = Instant::now();
    assert!(pool.get_with(begin + seconds(3)).await.is_err());
    assert_eq!(begin.elapsed(), seconds(3));
    settle().await;
    assert_eq!(
        (server.live(), server.with(|counts| counts.dialling)),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_recycled_where_all_limits_are_off() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_check_after(Limit::Never));
    warm(&pool, 3).await;
    sleep(seconds(10_000)).await;
    assert_eq!((pool.status().idle, server.attempts()), (3, 3));
}
