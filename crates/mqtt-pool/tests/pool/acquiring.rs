//! Getting a lease: its deadline, its errors, and giving up.

use std::{error::Error, sync::atomic::Ordering, time::Duration};

use futures_util::poll;
use mqtt_pool::{AcquireError, Lease, Phase};
use tokio::time::{Instant, sleep, timeout};

use crate::server::{Mood, Refused, Server, seconds, settle};

#[tokio::test(start_paused = true)]
async fn one_deadline_holds_over_many_dead_members() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_acquire_timeout(seconds(5)));
    let mut leases = Vec::new();
    for _ in 0..8 {
        leases.push(pool.get().await.unwrap());
    }
    let alive: Vec<_> = leases.iter().map(|lease| lease.alive.clone()).collect();
    drop(leases);
    for flag in alive {
        flag.store(false, Ordering::Relaxed);
    }
    server.set_connect(Mood::Hangs);
    server.set_close(Mood::Takes(seconds(1)));

    let begin = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert_eq!(begin.elapsed(), seconds(5));
    let AcquireError::Timeout {
        waited,
        phase,
        status,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((waited, phase), (seconds(5), Phase::Connect));
    assert_eq!((status.size, status.waiting), (0, 0));
    assert_eq!((server.live(), server.goodbyes()), (0, 8));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_the_queue_and_the_connect_together() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1).with_acquire_timeout(seconds(5)));
    let lease = pool.get().await.unwrap();
    server.set_connect(Mood::Hangs);
    let begin = Instant::now();
    let (result, ()) = tokio::join!(pool.get(), async {
        sleep(seconds(3)).await;
        lease.discard();
    });
    assert_eq!(begin.elapsed(), seconds(5));
    let error = result.unwrap_err();
    assert!(
        matches!(
            error,
            AcquireError::Timeout {
                phase: Phase::Connect,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_in_the_queue_says_so_in_numbers() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(2).with_acquire_timeout(seconds(5)));
    let _leases = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let error = pool.get().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "timed out after 5.000s waiting for a free connection (0 idle, 2 in use, 0 connecting, 0 waiting, at most 2)"
    );
    assert!(error.is_transient());
    assert!(error.source().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dial_ends_at_its_own_timeout_and_is_repeated() {
    let server = Server::default();
    server.set_connect(Mood::Hangs);
    let pool = server.pool(|config| {
        config
            .with_max_size(1)
            .with_acquire_timeout(seconds(60))
            .with_connect_timeout(seconds(2))
    });
    let begin = Instant::now();
    let (lease, ()) = tokio::join!(pool.get(), async {
        sleep(seconds(1)).await;
        server.set_connect(Mood::Prompt);
    });
    assert_eq!(lease.unwrap().slot, 0);
    // The first delay is half of the base at least, and the base at most.
    assert!(begin.elapsed() >= Duration::from_millis(2_125), "{begin:?}");
    assert!(begin.elapsed() <= Duration::from_millis(2_251), "{begin:?}");
    assert_eq!(server.with(|counts| counts.attempts), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dial_may_take_longer_than_its_caller_waits() {
    let server = Server::default();
    server.set_connect(Mood::Takes(seconds(8)));
    let pool = server.pool(|config| {
        config
            .with_acquire_timeout(seconds(5))
            .with_connect_timeout(seconds(10))
    });
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error:?}");
    assert_eq!(pool.get().await.unwrap().id, 0);
    assert_eq!(server.with(|counts| counts.attempts), 1);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_tells_why_the_last_dial_failed() {
    let server = Server::default();
    server.set_connect(Mood::Refuses);
    let pool = server.pool(|config| config.with_max_size(2).with_acquire_timeout(seconds(5)));
    let begin = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert_eq!(begin.elapsed(), seconds(5));
    let AcquireError::Timeout { phase, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*phase, Phase::Connect);
    let dial = error.source().unwrap();
    assert_eq!(dial.to_string(), "connecting failed");
    assert!(dial.source().unwrap().is::<Refused>());

    // Until one succeeds.
    server.set_connect(Mood::Prompt);
    let lease = pool.get_with(Instant::now() + seconds(60)).await;
    server.set_connect(Mood::Hangs);
    assert!(pool.get().await.unwrap_err().source().is_none());
    drop(lease.unwrap());
}

#[tokio::test(start_paused = true)]
async fn callers_that_give_up_leave_their_dials_to_others() {
    let server = Server::default();
    server.set_connect(Mood::Takes(seconds(1)));
    let pool = server.pool(|config| config.with_max_size(2));
    let mut first = Box::pin(pool.get());
    let mut second = Box::pin(pool.get());
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    settle().await;
    assert_eq!(server.with(|counts| counts.dialling), 2);
    let status = pool.status();
    assert_eq!((status.waiting, status.connecting), (2, 2));
    drop(first);
    drop(second);
    assert_eq!(pool.status().waiting, 0);
    sleep(seconds(2)).await;
    assert_eq!((pool.status().idle, server.live()), (2, 2));
    let _leases = (pool.try_get().unwrap(), pool.try_get().unwrap());
    assert_eq!(server.with(|counts| counts.attempts), 2);
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_and_go_leave_nothing_behind() {
    let server = Server::default();
    server.set_connect(Mood::Hangs);
    let pool = server.pool(|config| config.with_max_size(2));
    for _ in 0..1_000 {
        let mut call = Box::pin(pool.get());
        assert!(poll!(&mut call).is_pending());
    }
    settle().await;
    assert_eq!(pool.status().waiting, 0);
    server.set_connect(Mood::Prompt);
    let _leases = (pool.get().await.unwrap(), pool.get().await.unwrap());
    assert_eq!(server.live(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_leaks_nothing() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    let lease = pool.get().await.unwrap();
    for _ in 0..10 {
        assert!(
            timeout(Duration::from_millis(10), pool.get())
                .await
                .is_err()
        );
    }
    assert_eq!(pool.status().waiting, 0);

    // Also one that was already woken.
    let mut woken = Box::pin(pool.get());
    assert!(poll!(&mut woken).is_pending());
    drop(lease);
    drop(woken);
    assert_eq!(pool.get().await.unwrap().id, 0);
    assert_eq!(server.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_in_turn_by_what_is_returned() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    let lease = pool.get().await.unwrap();
    let (mut first, mut second) = (Box::pin(pool.get()), Box::pin(pool.get()));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    drop(lease);
    assert!(poll!(&mut second).is_pending());
    assert_eq!(first.await.unwrap().id, 0);
    assert_eq!(second.await.unwrap().id, 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_member_is_leased_at_the_first_poll() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    drop(pool.get().await.unwrap());
    assert!(poll!(Box::pin(pool.get())).is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_a_few_members() {
    fn sendable<T: Send>(future: T) -> T {
        future
    }
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(4).with_max_idle(2));
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let pool = pool.clone();
            tokio::spawn(sendable(async move {
                for round in 0..200 {
                    let lease: Lease<Server> = pool.get().await.unwrap();
                    tokio::task::yield_now().await;
                    if (task + round) % 7 == 0 {
                        lease.kill();
                    }
                }
            }))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let status = pool.status();
    assert_eq!((status.in_use, status.waiting), (0, 0));
    assert!(status.size <= 4, "{status:?}");
    pool.close().await;
    assert_eq!(server.live(), 0);
}
