//! What happens to members that nobody uses.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::poll;
use mqtt_pool::Limit;
use tokio::time::sleep;

use crate::server::{Server, seconds, settle};

#[tokio::test(start_paused = true)]
async fn idle_time_counts_from_the_return() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_idle_timeout(seconds(10)));
    let lease = pool.get().await.unwrap();
    sleep(seconds(60)).await;
    drop(lease);

    // Long past its checkout, and just returned: it is neither swept nor refused.
    sleep(seconds(9)).await;
    assert_eq!(server.live(), 1);
    assert_eq!(pool.get().await.unwrap().id, 0);

    // That lease has counted as use.
    sleep(seconds(9)).await;
    assert_eq!(pool.get().await.unwrap().id, 0);
}

#[tokio::test(start_paused = true)]
async fn the_maintainer_closes_what_idles_too_long() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_idle_timeout(seconds(8)));
    drop(pool.get().await.unwrap());
    sleep(Duration::from_millis(7_900)).await;
    assert_eq!(server.live(), 1);
    // A sweep comes every quarter of the timeout.
    sleep(Duration::from_millis(2_200)).await;
    assert_eq!((server.live(), server.goodbyes()), (0, 1));
    assert_eq!(pool.status().size, 0);
}

#[tokio::test(start_paused = true)]
async fn what_idles_too_long_is_not_leased_between_sweeps() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_idle_timeout(Duration::from_millis(300)));
    drop(pool.get().await.unwrap());
    sleep(Duration::from_millis(299)).await;
    assert_eq!(pool.try_get().map(|lease| lease.id), Some(0));
    sleep(Duration::from_millis(300)).await;
    assert!(pool.try_get().is_none());
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_max_idle_are_kept() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(5).with_max_idle(2));
    let mut leases = Vec::new();
    for _ in 0..5 {
        leases.push(pool.get().await.unwrap());
    }
    drop(leases);
    assert_eq!((pool.status().idle, pool.status().size), (2, 2));
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_waited_for_is_not_surplus() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1).with_max_idle(0));
    let lease = pool.get().await.unwrap();
    let (next, ()) = tokio::join!(pool.get(), async {
        settle().await;
        drop(lease);
    });
    assert_eq!(next.unwrap().id, 0);
    settle().await;
    assert_eq!(server.live(), 0, "nobody waited the second time");
}

#[tokio::test(start_paused = true)]
async fn a_surplus_that_nobody_came_for_is_swept() {
    let server = Server::default();
    let pool = server.pool(|config| {
        config
            .with_max_size(1)
            .with_max_idle(0)
            .with_idle_timeout(Limit::Never)
    });
    let lease = pool.get().await.unwrap();
    {
        let mut waiting = Box::pin(pool.get());
        assert!(poll!(&mut waiting).is_pending());
        drop(lease);
    }
    assert_eq!(pool.status().idle, 1);
    sleep(seconds(31)).await;
    assert_eq!((server.live(), server.goodbyes()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_most_recently_returned_is_leased_first() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let (a, b, c) = (
        pool.get().await.unwrap(),
        pool.get().await.unwrap(),
        pool.get().await.unwrap(),
    );
    drop(b);
    drop(c);
    drop(a);
    let mut order = Vec::new();
    let mut leases = Vec::new();
    for _ in 0..3 {
        let lease = pool.get().await.unwrap();
        order.push(lease.id);
        leases.push(lease);
    }
    assert_eq!(order, [0, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_dies_while_idle_is_swept() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let lease = pool.get().await.unwrap();
    let alive = lease.alive.clone();
    drop(lease);
    alive.store(false, Ordering::Relaxed);
    sleep(seconds(31)).await;
    assert_eq!((server.live(), server.goodbyes()), (0, 1));
}
