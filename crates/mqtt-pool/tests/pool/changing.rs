//! A pool that is resized, cleared and retired while it is used.

use futures_util::{future::join_all, poll};
use mqtt_pool::{Lease, Pool};
use tokio::time::{Instant, sleep};

use crate::server::{Mood, Server, millis, seconds, settle};

/// As many leases as there are to be had.
async fn lease_all(pool: &Pool<Server>) -> Vec<Lease<Server>> {
    let calls = (0..20).map(|_| pool.get_with(Instant::now() + millis(500)));
    join_all(calls).await.into_iter().flatten().collect()
}

#[tokio::test(start_paused = true)]
async fn an_empty_pool_that_was_resized_has_its_new_size() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(10));
    for size in [2, 10, 3, 10, 1, 7] {
        pool.resize(size).unwrap();
        let leases = lease_all(&pool).await;
        assert_eq!((leases.len(), server.live()), (size, size));
        drop(leases);
        settle().await;
        assert_eq!((pool.status().idle, pool.status().max_size), (size, size));
    }
    pool.resize(15).unwrap();
    assert_eq!(lease_all(&pool).await.len(), 15);
    assert!(pool.resize(0).is_err() && pool.resize(65_536).is_err());
    assert_eq!(pool.status().max_size, 15);
    server.assert_sound();
}

/// Neither more nor less is closed, however long the goodbyes take.
#[tokio::test(start_paused = true)]
async fn a_smaller_size_closes_what_is_too_much() {
    for goodbye in [Mood::Prompt, Mood::Takes(seconds(2)), Mood::Hangs] {
        let server = Server::default();
        server.set_close(goodbye);
        let pool = server.pool(|config| config.with_max_size(10));
        drop(lease_all(&pool).await);
        pool.resize(2).unwrap();
        settle().await;
        assert_eq!(pool.status().idle, 2, "{goodbye:?}");
        sleep(seconds(10)).await;
        assert_eq!((pool.status().idle, server.live()), (2, 2), "{goodbye:?}");

        // Leased ones as they come back.
        pool.resize(10).unwrap();
        let mut leases = lease_all(&pool).await;
        assert_eq!(leases.len(), 10);
        pool.resize(2).unwrap();
        sleep(seconds(60)).await;
        assert_eq!(server.live(), 10, "work is not interrupted");
        for held in (0..10).rev() {
            drop(leases.pop());
            assert_eq!(
                (pool.status().in_use, pool.status().idle),
                (held, 2_usize.saturating_sub(held))
            );
        }
        sleep(seconds(10)).await;
        assert_eq!(server.live(), 2, "{goodbye:?}");
        assert_eq!(lease_all(&pool).await.len(), 2);
        server.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn down_and_up_again_lets_no_more_out() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(10));
    let mut leases = lease_all(&pool).await;
    pool.resize(2).unwrap();
    leases.truncate(5);
    pool.resize(10).unwrap();
    leases.extend(lease_all(&pool).await);
    assert_eq!(leases.len(), 10);
    assert_eq!(server.with(|counts| counts.peak), 10);
    drop(leases);
    assert_eq!(lease_all(&pool).await.len(), 10);
}

/// Those that were let in by the larger size.
#[tokio::test(start_paused = true)]
async fn callers_share_what_a_smaller_size_leaves() {
    let server = Server::default();
    server.set_connect(Mood::Takes(millis(100)));
    let pool = server.pool(|config| config.with_max_size(10).with_max_connecting(10));
    let mut callers: Vec<_> = (0..10).map(|_| Box::pin(pool.get())).collect();
    for caller in &mut callers {
        assert!(poll!(caller).is_pending());
    }
    settle().await;
    pool.resize(2).unwrap();
    let begin = Instant::now();
    for (turn, caller) in callers.into_iter().enumerate() {
        let lease = caller.await.unwrap();
        assert!(pool.status().in_use <= 2 || turn == 0, "{}", pool.status());
        drop(lease);
    }
    assert!(begin.elapsed() <= millis(300), "{:?}", begin.elapsed());
    sleep(seconds(1)).await;
    assert_eq!((pool.status().idle, server.live()), (2, 2));
    server.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn clearing_closes_the_idle_at_once_and_the_leased_when_they_return() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let held = pool.get().await.unwrap();
    let idle = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    drop(idle);
    pool.clear();
    settle().await;
    assert_eq!((server.live(), pool.status().idle), (1, 0));
    assert_eq!(pool.get().await.unwrap().id, 3);
    drop(held);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (1, 3));
    // What was connected since then stays.
    sleep(seconds(600)).await;
    assert_eq!(pool.get().await.unwrap().id, 3);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_began_before_a_clear_is_handed_to_nobody() {
    let server = Server::default();
    server.set_connect(Mood::Takes(millis(100)));
    let pool = server.pool(|config| config);
    let mut caller = Box::pin(pool.get());
    assert!(poll!(&mut caller).is_pending());
    sleep(millis(50)).await;
    pool.clear();
    let begin = Instant::now();
    assert_eq!(caller.await.unwrap().id, 1);
    assert_eq!(begin.elapsed(), millis(150));
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retirement_leaves_no_member_and_takes_its_time() {
    fastrand::seed(1);
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(20));
    drop(lease_all(&pool).await);
    assert_eq!(pool.status().idle, 20);
    pool.retire(seconds(100));
    sleep(seconds(50)).await;
    let left = server.live();
    assert!((4..=16).contains(&left), "{left}");
    sleep(seconds(52)).await;
    assert_eq!((server.live(), server.goodbyes()), (0, 20));
}

/// The younger ones are not to go together because the older ones are nearly through.
#[tokio::test(start_paused = true)]
async fn a_second_retirement_gives_the_younger_ones_its_whole_time() {
    fastrand::seed(1);
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(20));
    drop(lease_all(&pool).await);
    pool.retire(seconds(100));
    sleep(seconds(99)).await;
    drop(lease_all(&pool).await);
    let younger = server.with(|counts| counts.connected);
    assert!(younger >= 35, "{younger}");
    pool.retire(seconds(100));
    sleep(seconds(50)).await;
    let left = server.live();
    assert!((4..=16).contains(&left), "{left}");
    sleep(seconds(52)).await;
    assert_eq!(server.live(), 0);
}
