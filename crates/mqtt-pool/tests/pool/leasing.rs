//! What happens to a member in somebody's hands, and on its way back.

use std::{sync::atomic::Ordering, thread};

use futures_util::poll;
use tokio::time::sleep;

use crate::server::{Server, seconds, settle};

#[tokio::test(start_paused = true)]
async fn what_is_unusable_does_not_go_back() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let lease = pool.get().await.unwrap();
    lease.kill();
    drop(lease);
    assert_eq!(pool.status().idle, 0);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_became_unusable_while_idle_is_not_leased() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let lease = pool.get().await.unwrap();
    let alive = lease.alive.clone();
    drop(lease);
    alive.store(false, Ordering::Relaxed);
    let lease = pool.get().await.unwrap();
    assert_eq!(lease.id, 1);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (1, 1));
    assert_eq!((pool.status().size, pool.status().in_use), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_detached_connection_leaves_its_place_and_its_slot() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    let lease = pool.get().await.unwrap();
    let slot = lease.slot;
    let connection = lease.detach();
    assert_eq!(pool.status().size, 0);
    assert_eq!((server.live(), server.goodbyes()), (1, 0));

    // The server stands in for one that would not mind: it forgets the slot.
    server.forget(&connection);
    let next = pool.get().await.unwrap();
    assert_eq!(next.slot, slot);
    assert_eq!(server.live(), 2);
    drop(connection);
    assert_eq!((server.live(), server.goodbyes()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_discarded_member_is_closed() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    pool.get().await.unwrap().discard();
    assert_eq!(pool.status().size, 0);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (0, 1));
    assert_eq!(pool.get().await.unwrap().id, 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_holder_gives_the_member_back() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    let holder = pool.clone();
    let panicked = tokio::spawn(async move {
        let _lease = holder.get().await.unwrap();
        panic!("the holder");
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!((pool.status().idle, pool.status().in_use), (1, 0));
    assert_eq!(pool.get().await.unwrap().id, 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_is_usable_costs_only_its_member() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    let lease = pool.get().await.unwrap();
    lease.panics.store(true, Ordering::Relaxed);
    drop(lease);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (0, 1));

    // Also when the maintainer asks, under the pool's lock.
    let lease = pool.get().await.unwrap();
    let panics = lease.panics.clone();
    drop(lease);
    panics.store(true, Ordering::Relaxed);
    sleep(seconds(31)).await;
    assert_eq!((server.live(), server.goodbyes()), (0, 2));
    assert_eq!(pool.get().await.unwrap().id, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_clean_does_not_go_back() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    let lease = pool.get().await.unwrap();
    let dirty = lease.dirty.clone();
    drop(lease);
    // Only its return counts.
    dirty.store(true, Ordering::Relaxed);
    let lease = pool.get().await.unwrap();
    assert_eq!(lease.id, 0);
    drop(lease);
    assert_eq!(pool.status().size, 0);
    assert_eq!(pool.get().await.unwrap().id, 1);
    assert_eq!(server.goodbyes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_may_end_where_there_is_no_runtime() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(2));
    let (kept, killed) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    killed.kill();
    thread::spawn(move || drop((kept, killed))).join().unwrap();
    assert_eq!((pool.status().idle, pool.status().size), (1, 1));
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn try_get_neither_connects_nor_waits() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    assert!(pool.try_get().is_none());
    assert_eq!(server.with(|counts| counts.attempts), 0);
    drop(pool.get().await.unwrap());
    let lease = pool.try_get().unwrap();
    assert!(pool.try_get().is_none());
    drop(lease);
    assert!(pool.try_get().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_status_counts() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(2));
    let (a, b) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    {
        let mut waiting = Box::pin(pool.get());
        assert!(poll!(&mut waiting).is_pending());
        let status = pool.status();
        assert_eq!((status.size, status.idle, status.in_use), (2, 0, 2));
        assert_eq!((status.waiting, status.max_size), (1, 2));
    }
    drop(a);
    let status = pool.status();
    assert_eq!((status.size, status.idle, status.in_use), (2, 1, 1));
    assert_eq!(status.waiting, 0);
    drop(b);
}
