//! How old members become.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::server::{Server, seconds, settle};

#[tokio::test(start_paused = true)]
async fn what_expires_while_leased_retires_on_return() {
    let server = Server::default();
    let pool = server.pool(|config| {
        config
            .with_max_lifetime(seconds(60))
            .with_lifetime_jitter(0.0)
    });
    let lease = pool.get().await.unwrap();
    sleep(seconds(600)).await;
    assert_eq!(
        (server.live(), server.goodbyes()),
        (1, 0),
        "work is not interrupted"
    );
    drop(lease);
    assert_eq!(pool.status().size, 0);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn use_does_not_prolong_a_lifetime() {
    let server = Server::default();
    let pool = server.pool(|config| {
        config
            .with_max_lifetime(seconds(2))
            .with_connect_timeout(seconds(1))
            .with_lifetime_jitter(0.0)
    });
    let begin = Instant::now();
    while pool.get().await.unwrap().id == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(begin.elapsed(), seconds(2));
}

#[tokio::test(start_paused = true)]
async fn the_maintainer_closes_what_is_too_old() {
    let server = Server::default();
    let pool = server.pool(|config| {
        config
            .with_max_lifetime(seconds(40))
            .with_lifetime_jitter(0.0)
    });
    drop(pool.get().await.unwrap());
    sleep(seconds(39)).await;
    assert_eq!(server.live(), 1);
    sleep(seconds(12)).await;
    assert_eq!((server.live(), server.goodbyes()), (0, 1));
}

/// Drawn at each look instead of once, the lifetimes would all come out near the shortest: each
/// member is looked at 250 times in the quarter in which it may expire.
#[tokio::test(start_paused = true)]
async fn lifetimes_are_spread_over_the_jitter_and_drawn_once() {
    const MEMBERS: usize = 100;
    let server = Server::default();
    let pool = server.pool(|config| {
        config
            .with_max_lifetime(seconds(1_000))
            .with_lifetime_jitter(0.25)
    });
    let mut leases = Vec::new();
    for _ in 0..MEMBERS {
        leases.push(pool.get().await.unwrap());
    }
    drop(leases);
    for _ in 0..1_010 {
        sleep(seconds(1)).await;
        let mut leases = Vec::new();
        while let Some(lease) = pool.try_get() {
            leases.push(lease);
        }
    }

    let ages = server.with(|counts| counts.ages.clone());
    assert_eq!(ages.len(), MEMBERS);
    let (shortest, longest) = (*ages.iter().min().unwrap(), *ages.iter().max().unwrap());
    assert!(shortest >= seconds(750), "{shortest:?}");
    assert!(longest <= seconds(1_001), "{longest:?}");
    // Each fails by chance once in more than a million runs: 0.8 to the power of 100 is 2e-10.
    assert!(shortest < seconds(800), "{shortest:?}");
    assert!(longest > seconds(950), "{longest:?}");
}
