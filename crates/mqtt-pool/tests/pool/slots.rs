//! The numbers of live members. The server itself asserts that no two share one.

use std::error::Error;

use tokio::time::{Instant, sleep};

use crate::server::{Mood, Server, seconds, settle};

#[tokio::test(start_paused = true)]
async fn the_lowest_free_slot_comes_first() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let mut leases = Vec::new();
    for slot in 0..5 {
        leases.push(pool.get().await.unwrap());
        assert_eq!(leases[slot].slot, u32::try_from(slot).unwrap());
    }
    leases.remove(3).discard();
    leases.remove(1).discard();
    settle().await;
    assert_eq!(pool.get().await.unwrap().slot, 1);
    let _one = pool.get().await.unwrap();
    assert_eq!(pool.get().await.unwrap().slot, 3);
    let _three = pool.get().await.unwrap();
    assert_eq!(pool.get().await.unwrap().slot, 5);
}

/// The server has it until it has said goodbye, and must not see more than `max_size`.
#[tokio::test(start_paused = true)]
async fn a_closing_member_keeps_its_place() {
    let server = Server::default();
    server.set_close(Mood::Takes(seconds(2)));
    let pool = server.pool(|config| config.with_max_size(1));
    pool.get().await.unwrap().discard();
    let begin = Instant::now();
    let successor = pool.get().await.unwrap();
    assert_eq!(begin.elapsed(), seconds(2));
    assert_eq!((successor.slot, server.goodbyes()), (0, 1));
}

/// Its server no longer has it, but the slot is not free before its connection is gone.
#[tokio::test(start_paused = true)]
async fn a_dead_member_keeps_only_its_slot() {
    let server = Server::default();
    server.set_close(Mood::Takes(seconds(2)));
    let pool = server.pool(|config| config.with_max_size(1));
    let lease = pool.get().await.unwrap();
    sleep(seconds(60)).await;
    lease.fail();
    drop(lease);
    let successor = pool.get().await.unwrap();
    assert_eq!((successor.slot, server.goodbyes()), (1, 0));
    sleep(seconds(3)).await;
    assert_eq!(server.goodbyes(), 1);
    successor.discard();
    sleep(seconds(3)).await;
    assert_eq!(pool.get().await.unwrap().slot, 0);
}

/// Its server may still have it.
#[tokio::test(start_paused = true)]
async fn a_member_that_its_holder_ended_keeps_its_place() {
    let server = Server::default();
    server.set_close(Mood::Takes(seconds(2)));
    let pool = server.pool(|config| config.with_max_size(1));
    pool.get().await.unwrap().kill();
    let begin = Instant::now();
    let successor = pool.get().await.unwrap();
    assert_eq!(begin.elapsed(), seconds(2));
    assert_eq!((successor.slot, server.goodbyes()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_without_an_end_frees_the_slot_in_time() {
    let server = Server::default();
    server.set_close(Mood::Hangs);
    let pool = server.pool(|config| config.with_close_timeout(seconds(3)));
    pool.get().await.unwrap().discard();
    sleep(seconds(4)).await;
    assert_eq!((server.live(), server.goodbyes()), (0, 0));
    assert_eq!(pool.get().await.unwrap().slot, 0);
}

#[tokio::test(start_paused = true)]
async fn connecting_together_they_are_unique() {
    let server = Server::default();
    server.set_connect(Mood::Takes(seconds(1)));
    let pool = server.pool(|config| config.with_max_size(8));
    let leases = futures_util::future::join_all((0..8).map(|_| pool.get())).await;
    let mut slots: Vec<u32> = leases
        .iter()
        .map(|lease| lease.as_ref().unwrap().slot)
        .collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_or_panicked_dial_frees_its_slot() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    for mood in [Mood::Refuses, Mood::Panics] {
        server.set_connect(mood);
        let error = pool.get().await.unwrap_err();
        assert!(error.source().is_some(), "{error:?}");
    }
    server.set_connect(Mood::Prompt);
    let lease = pool.get_with(Instant::now() + seconds(60)).await;
    assert_eq!(lease.unwrap().slot, 0);
    assert_eq!(pool.status().waiting, 0);
}
