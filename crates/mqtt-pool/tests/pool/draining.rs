//! How a pool goes, with what is still under way.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use futures_util::poll;
use mqtt_pool::AcquireError;
use tokio::time::{Instant, sleep};

use crate::server::{Mood, Server, millis, seconds, settle, tasks};

#[tokio::test(start_paused = true)]
async fn a_drain_of_what_is_idle_is_complete() {
    let server = Server::default();
    server.set_close(Mood::Takes(millis(200)));
    let pool = server.pool(|config| config);
    pool.warm_up(3, Instant::now() + seconds(5)).await.unwrap();
    pool.get().await.unwrap().discard();
    let report = pool.drain(Instant::now() + seconds(10)).await;
    assert!(report.is_complete());
    assert_eq!((report.in_use, report.closing), (0, 0));
    assert_eq!((report.closed, report.took), (2, millis(200)));
    assert_eq!((server.live(), server.goodbyes()), (0, 3));
    // Once more there is nothing to do.
    let report = pool.drain(Instant::now()).await;
    assert!(report.is_complete() && report.closed == 0, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_leases_until_its_deadline() {
    let server = Server::default();
    server.set_close(Mood::Takes(millis(200)));
    let pool = server.pool(|config| config);
    let (early, late) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(pool.get().await.unwrap());
    let drain = pool.drain(Instant::now() + seconds(2));
    let (report, ()) = tokio::join!(drain, async {
        sleep(seconds(1)).await;
        drop(early);
    });
    assert!(!report.is_complete());
    assert_eq!((report.in_use, report.closing), (1, 0));
    assert_eq!((report.closed, report.took), (2, seconds(2)));
    assert_eq!(
        report.to_string(),
        "2 closed in 2.000s, 1 still in use, 0 still closing"
    );

    let drain = pool.drain(Instant::now() + seconds(2));
    let (report, ()) = tokio::join!(drain, async {
        sleep(seconds(1)).await;
        drop(late);
    });
    assert!(report.is_complete());
    assert_eq!((report.closed, report.took), (1, millis(1_200)));
    assert_eq!(server.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_reports_goodbyes_that_hang() {
    let server = Server::default();
    server.set_close(Mood::Hangs);
    let pool = server.pool(|config| config.with_close_timeout(seconds(3)));
    pool.warm_up(4, Instant::now() + seconds(5)).await.unwrap();
    let report = pool.drain(Instant::now() + seconds(1)).await;
    assert_eq!((report.in_use, report.closing), (0, 4));
    assert_eq!((report.closed, report.took), (4, seconds(1)));
    let report = pool.drain(Instant::now() + seconds(10)).await;
    assert!(report.is_complete());
    assert_eq!((report.closed, report.took), (0, seconds(2)));
    assert_eq!((server.live(), server.goodbyes()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_dials_and_callers() {
    let server = Server::default();
    let before = tasks();
    server.set_connect(Mood::Hangs);
    let pool = server.pool(|config| config.with_max_size(2));
    let mut callers: Vec<_> = (0..5).map(|_| Box::pin(pool.get())).collect();
    for caller in &mut callers {
        assert!(poll!(caller).is_pending());
    }
    settle().await;
    let begin = Instant::now();
    let report = pool.drain(begin + seconds(10)).await;
    assert!(report.is_complete() && report.closed == 0, "{report:?}");
    for caller in callers {
        assert!(matches!(caller.await, Err(AcquireError::Closed)));
    }
    assert!(begin.elapsed() <= millis(1), "{:?}", begin.elapsed());
    assert_eq!(server.with(|counts| counts.dialling), 0);
    settle().await;
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_goes_ends_its_dials() {
    let server = Server::default();
    let before = tasks();
    server.set_connect(Mood::Takes(seconds(1)));
    let pool = server.pool(|config| config.with_min_idle(3));
    let caller = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    settle().await;
    assert_eq!(server.with(|counts| counts.dialling), 4);
    drop(pool);
    sleep(millis(100)).await;
    assert_eq!(
        server.with(|counts| counts.dialling),
        4,
        "its caller has it still"
    );
    caller.abort();
    settle().await;
    assert_eq!(server.with(|counts| counts.dialling), 0);
    assert_eq!((server.live(), tasks()), (0, before));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_goes_closes_what_was_dialled_and_what_is_returned() {
    let server = Server::default();
    let before = tasks();
    let pool = server.pool(|config| config);
    let held = pool.get().await.unwrap();
    server.set_connect(Mood::Takes(millis(100)));
    {
        let mut caller = Box::pin(pool.get());
        assert!(poll!(&mut caller).is_pending());
        settle().await;
    }
    // On the shelf, not in deadpool.
    sleep(millis(200)).await;
    assert_eq!(pool.status().idle, 1);
    drop(pool);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (1, 1));
    drop(held);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (0, 2));
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_panics_serves_who_waits() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    let lease = pool.get().await.unwrap();
    let holder = tokio::spawn(async move {
        let _lease = lease;
        sleep(millis(10)).await;
        panic!("the holder");
    });
    assert_eq!(pool.get().await.unwrap().id, 0);
    assert!(holder.await.unwrap_err().is_panic());
}

/// A lease that returns while the pool is closed, at whichever step of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_returns_during_a_close_is_closed() {
    for round in 0..500 {
        let server = Server::default();
        let pool = server.pool(|config| config.with_max_size(4));
        let mut leases = Vec::new();
        for _ in 0..3 {
            leases.push(pool.get().await.unwrap());
        }
        drop(leases.pop());
        let start = Arc::new(Barrier::new(2));
        let returning = thread::spawn({
            let start = start.clone();
            move || {
                start.wait();
                for _ in 0..round % 50 {
                    std::hint::spin_loop();
                }
                leases.pop();
                drop(leases);
            }
        });
        start.wait();
        if round % 2 == 0 {
            pool.close().await;
        } else {
            let report = pool.drain(Instant::now() + seconds(10)).await;
            assert!(report.is_complete(), "{report:?}");
            assert_eq!((report.closed, server.live()), (3, 0));
        }
        returning.join().unwrap();
        // A goodbye is on its way still, but nothing lies idle.
        let report = pool.drain(Instant::now() + seconds(10)).await;
        assert!(report.is_complete(), "{report:?}");
        let status = pool.status();
        assert_eq!((status.size, server.live()), (0, 0), "{status}");
    }
}

/// A caller that finds nothing idle at the moment when a member becomes idle gets that one. No
/// dial will help it here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_beside_an_idle_member() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(2));
    let mut lease = pool.get().await.unwrap();
    server.set_connect(Mood::Hangs);
    for round in 0..2_000 {
        let start = Arc::new(Barrier::new(2));
        let returning = thread::spawn({
            let start = start.clone();
            move || {
                start.wait();
                for _ in 0..round % 200 {
                    std::hint::spin_loop();
                }
                drop(lease);
            }
        });
        start.wait();
        let begin = Instant::now();
        lease = pool.get().await.unwrap();
        // The keeper comes by every second.
        assert!(begin.elapsed() < millis(900), "{:?}", begin.elapsed());
        returning.join().unwrap();
    }
}

/// One that its server has ended makes room before its goodbye; it must not be missed in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_is_complete_has_seen_the_dead_go() {
    for _ in 0..2_000 {
        let server = Server::default();
        let pool = server.pool(|config| config);
        let lease = pool.get().await.unwrap();
        lease.fail();
        let returning = thread::spawn(move || drop(lease));
        while !pool.drain(Instant::now()).await.is_complete() {}
        assert_eq!(server.live(), 0);
        returning.join().unwrap();
    }
}
