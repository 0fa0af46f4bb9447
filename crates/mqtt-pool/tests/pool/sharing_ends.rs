//! The end of a shared pool, and what goes on while its members are killed.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use mqtt_pool::{AcquireError, BackoffConfig, Limit};
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    server::{Mood, Server, seconds, settle},
    sharing::share,
};

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_task_and_the_leases() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    settle().await;
    let before = tasks();
    let shared = share(&pool, 2);
    let clone = shared.clone();
    let held = shared.get().await.unwrap();
    settle().await;
    assert_eq!(tasks(), before + 1);
    drop(shared);
    settle().await;
    assert_eq!((tasks(), pool.status().in_use), (before + 1, 2));
    drop(clone);
    settle().await;
    assert_eq!(tasks(), before);
    assert_eq!((pool.status().in_use, pool.status().idle), (1, 1));
    drop(held);
    assert_eq!((pool.status().in_use, pool.status().idle), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_what_is_being_leased() {
    let server = Server::default();
    server.set_connect(Mood::Hangs);
    let pool = server.pool(|config| config);
    settle().await;
    let before = tasks();
    let shared = share(&pool, 2);
    settle().await;
    assert_eq!(pool.status().waiting, 2);
    drop(shared);
    settle().await;
    assert_eq!(pool.status().waiting, 0);
    // The dials are the pool's.
    assert_eq!(tasks(), before + 2);
    drop(pool);
    settle().await;
    assert_eq!(server.with(|counts| counts.dialling), 0);
}

#[tokio::test(start_paused = true)]
async fn it_keeps_its_pool_alive_and_no_longer() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let shared = share(&pool, 2);
    drop(pool);
    sleep(seconds(60)).await;
    assert_eq!(shared.status().usable, 2);
    let held = shared.pick().unwrap();
    drop(shared);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (1, 1));
    drop(held);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (0, 2));
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn close_ends_it() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let shared = share(&pool, 2);
    let held = shared.get().await.unwrap();
    settle().await;
    pool.close().await;
    assert!(matches!(shared.get().await, Err(AcquireError::Closed)));
    assert!(matches!(
        shared.by_key("a").await,
        Err(AcquireError::Closed)
    ));
    settle().await;
    assert!(shared.pick().is_none());
    assert_eq!(tasks(), 0);
    assert_eq!((server.live(), server.goodbyes()), (1, 1));
    assert_eq!(shared.status().retiring, 1);
    drop(held);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_of_the_end() {
    let server = Server::default();
    server.set_connect(Mood::Hangs);
    let pool = server.pool(|config| config);
    let shared = share(&pool, 2);
    let begin = Instant::now();
    let (any, one, ()) = tokio::join!(shared.get(), shared.by_key("a"), async {
        sleep(seconds(1)).await;
        pool.close().await;
    });
    assert!(matches!(any, Err(AcquireError::Closed)));
    assert!(matches!(one, Err(AcquireError::Closed)));
    assert_eq!(begin.elapsed(), seconds(1));
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_the_handles() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let shared = share(&pool, 2);
    let (held, stuck) = (shared.get().await.unwrap(), shared.get().await.unwrap());
    settle().await;
    let begin = Instant::now();
    let (report, ()) = tokio::join!(pool.drain(begin + seconds(3)), async {
        sleep(seconds(1)).await;
        drop(held);
    });
    assert_eq!(report.took, seconds(3));
    assert_eq!(report.in_use, 1);

    let (report, ()) = tokio::join!(pool.drain(begin + seconds(60)), async {
        sleep(seconds(1)).await;
        drop(stuck);
    });
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(begin.elapsed(), seconds(4));
    assert_eq!((server.live(), server.goodbyes()), (0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_members_are_killed() {
    const CALLERS: u32 = 8;
    const CALLS: u32 = 2_000;
    let server = Server::default();
    let backoff = BackoffConfig::default().with_stable_after(Duration::ZERO);
    let pool = server.pool(|config| {
        let config = config.with_max_size(4).with_backoff(backoff);
        config.with_acquire_timeout(seconds(60))
    });
    let shared = Arc::new(share(&pool, 3));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let shared = shared.clone();
        let pool = pool.clone();
        callers.spawn(async move {
            for call in 0..CALLS {
                let handle = match call % 3 {
                    0 => shared.pick(),
                    1 => shared.get().await.ok(),
                    _ => shared.by_key(&(caller * CALLS + call)).await.ok(),
                };
                if call % 3 != 0 {
                    assert!(handle.is_some());
                }
                let fate = handle.as_ref().map(|handle| handle.fate());
                match (call % 97, fate) {
                    (13, Some(fate)) => fate.fail(),
                    (29, _) if caller == 0 => pool.clear(),
                    (31 | 32, _) => tokio::task::yield_now().await,
                    _ => {}
                }
            }
        });
    }
    while let Some(caller) = timeout(seconds(60), callers.join_next())
        .await
        .expect("nobody is stuck")
    {
        caller.unwrap();
    }

    let is_whole = async {
        while shared.status().usable < 3 || server.live() > 3 || shared.status().retiring > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(seconds(60), is_whole)
        .await
        .expect("all are replaced");
    assert_eq!(shared.status().handles, 0);
    let connected = server.with(|counts| counts.connected);
    assert!(connected > 100, "{connected}");
    assert!(pool.drain(Instant::now() + seconds(60)).await.is_complete());
    assert_eq!(server.live(), 0);
}

/// The refusal was on its way to the positions when it was forgiven.
#[tokio::test(start_paused = true)]
async fn a_clear_reaches_the_positions_at_any_moment() {
    for moment in 0..16 {
        let server = Server::default();
        server.set_connect(Mood::RefusesForGood);
        let backoff = BackoffConfig::default().with_retry_refused_after(Limit::Never);
        let pool = server.pool(|config| config.with_backoff(backoff));
        let shared = share(&pool, 1);
        // In turn with the tasks of the pool.
        let (server, clone) = (server.clone(), pool.clone());
        let clearing = tokio::spawn(async move {
            for _ in 0..moment {
                let mut is_over = false;
                poll_fn(|context| {
                    context.waker().wake_by_ref();
                    match std::mem::replace(&mut is_over, true) {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                })
                .await;
            }
            server.set_connect(Mood::Prompt);
            clone.clear();
        });
        clearing.await.unwrap();
        sleep(seconds(2)).await;
        assert!(shared.pick().is_some(), "cleared at {moment}");
        pool.close().await;
    }
}
