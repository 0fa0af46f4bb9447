//! Make before break: how the members of a shared pool are replaced.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use mqtt_pool::{Connect, ConnectContext, Pool, PoolConfig, Pooled};
use tokio::time::{Instant, sleep};

use crate::{
    server::{Mood, Server, seconds, settle},
    sharing::share,
};

#[tokio::test(start_paused = true)]
async fn the_server_never_sees_fewer_than_the_size_nor_more_than_the_pool_may() {
    let server = Server::default();
    server.set_connect(Mood::Takes(Duration::from_millis(300)));
    let pool = server.pool(|config| {
        config
            .with_max_size(4)
            .with_max_lifetime(seconds(20))
            .with_connect_timeout(seconds(1))
    });
    let shared = share(&pool, 3);
    sleep(seconds(1)).await;
    assert_eq!(server.live(), 3);
    server.with(|counts| counts.fewest = usize::MAX);

    let begin = Instant::now();
    while begin.elapsed() < seconds(200) {
        assert!(shared.pick().is_some());
        assert!(shared.status().usable == 3);
        sleep(Duration::from_millis(10)).await;
    }
    let (connected, fewest, most) =
        server.with(|counts| (counts.connected, counts.fewest, counts.most));
    assert!((30..45).contains(&connected), "{connected}");
    assert_eq!((fewest, most), (3, 4));
    let ages = server.with(|counts| counts.ages.clone());
    assert!(ages.iter().all(|age| *age < seconds(23)), "{ages:?}");
}

#[tokio::test(start_paused = true)]
async fn all_are_replaced_when_a_generation_is_cleared() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(4));
    let shared = share(&pool, 3);
    settle().await;
    server.with(|counts| counts.fewest = usize::MAX);
    pool.clear();
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (3, 3));
    assert_eq!(server.with(|counts| (counts.fewest, counts.most)), (3, 4));
    let ids: Vec<_> = (0..50).map(|_| shared.pick().unwrap().id).collect();
    assert!(ids.iter().all(|id| (3..6).contains(id)), "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_is_retired_is_replaced_over_its_time() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(41));
    let shared = share(&pool, 40);
    settle().await;
    server.with(|counts| counts.fewest = usize::MAX);
    pool.retire(seconds(1_000));
    sleep(seconds(500)).await;
    // None or all by chance: 2 to the power of -39.
    let goodbyes = server.goodbyes();
    assert!((1..40).contains(&goodbyes), "{goodbyes}");
    sleep(seconds(502)).await;
    assert_eq!((server.live(), server.goodbyes()), (40, 40));
    assert_eq!(server.with(|counts| (counts.fewest, counts.most)), (40, 41));
    assert_eq!(shared.status().usable, 40);
}

#[tokio::test(start_paused = true)]
async fn an_old_member_goes_with_its_last_handle() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let shared = share(&pool, 1);
    let (one, other) = (shared.get().await.unwrap(), shared.get().await.unwrap());
    pool.clear();
    settle().await;
    assert_eq!(shared.pick().unwrap().id, 1);
    let status = shared.status();
    assert_eq!((status.usable, status.handles, status.retiring), (1, 0, 1));
    drop(one);
    sleep(seconds(600)).await;
    assert_eq!((server.live(), server.goodbyes()), (2, 0));
    assert_eq!(other.id, 0);
    drop(other);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (1, 1));
    assert_eq!(shared.status().retiring, 0);
    assert_eq!(pool.status().idle, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_serves_on_while_there_is_no_replacement() {
    let server = Server::default();
    let pool = server.pool(|config| {
        config
            .with_max_lifetime(seconds(20))
            .with_lifetime_jitter(0.0)
    });
    let shared = share(&pool, 2);
    settle().await;
    server.set_connect(Mood::Refuses);
    sleep(seconds(100)).await;
    assert!(server.with(|counts| counts.attempts) > 3);
    assert_eq!((server.live(), shared.status().usable), (2, 2));
    assert!(shared.pick().unwrap().id < 2);

    server.set_connect(Mood::Prompt);
    sleep(seconds(31)).await;
    assert_eq!((server.live(), shared.status().usable), (2, 2));
    assert!(shared.pick().unwrap().id >= 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_serves_on_while_there_is_no_room() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(3));
    let shared = share(&pool, 2);
    settle().await;
    let lease = pool.get().await.unwrap();
    pool.clear();
    sleep(seconds(100)).await;
    assert_eq!((server.live(), shared.status().usable), (3, 2));
    drop(lease);
    settle().await;
    assert!(shared.pick().unwrap().id > 2);
    assert_eq!((server.live(), server.goodbyes()), (2, 3));
    assert_eq!(server.with(|counts| counts.most), 3);
}

#[tokio::test(start_paused = true)]
async fn what_died_before_it_could_serve_replaces_nothing() {
    let server = Server::default();
    let pool = server.pool(|config| {
        config
            .with_max_size(2)
            .with_max_lifetime(seconds(20))
            .with_lifetime_jitter(0.0)
    });
    let shared = share(&pool, 1);
    sleep(seconds(10)).await;
    let lease = pool.get().await.unwrap();
    sleep(seconds(15)).await;
    // The first is due, and there is no room for another.
    server.set_connect(Mood::Hangs);
    let fate = lease.fate();
    drop(lease);
    // One task waits for the lease, and another puts in what it gets. This runs between the two.
    let killer = tokio::spawn(async move { fate.fail() });
    killer.await.unwrap();
    settle().await;
    assert_eq!(shared.pick().unwrap().id, 0);
    assert_eq!(pool.status().in_use, 1);
}

/// Panics when it is asked whether it is alive, until that is over.
struct Touchy {
    dials: AtomicU32,
    panics: Arc<AtomicBool>,
}

struct Line {
    id: u32,
    panics: Arc<AtomicBool>,
}

impl Connect for Touchy {
    type Connection = Line;
    type Error = Infallible;

    async fn connect(&self, _: ConnectContext) -> Result<Line, Infallible> {
        Ok(Line {
            id: self.dials.fetch_add(1, Ordering::Relaxed),
            panics: self.panics.clone(),
        })
    }
}

impl Pooled for Line {
    fn is_usable(&self) -> bool {
        true
    }

    async fn check(&mut self) -> bool {
        assert!(
            !self.panics.swap(false, Ordering::Relaxed),
            "the user's code"
        );
        true
    }

    async fn close(self) {}
}

#[tokio::test(start_paused = true)]
async fn a_check_that_panics_is_not_the_end_of_its_position() {
    let panics = Arc::new(AtomicBool::new(true));
    let touchy = Touchy {
        dials: AtomicU32::new(0),
        panics: panics.clone(),
    };
    let config = PoolConfig::default().with_check_after(Duration::ZERO);
    let pool = Pool::new(touchy, config).unwrap();
    drop(pool.get().await.unwrap());
    let shared = share(&pool, 1);
    assert_eq!(shared.get().await.unwrap().id, 1);
    assert!(!panics.load(Ordering::Relaxed));
}
