//! The end of a pool.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::poll;
use mqtt_pool::AcquireError;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use crate::server::{Mood, Server, seconds, settle};

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_the_idle_and_leaves_the_leased() {
    let server = Server::default();
    server.set_close(Mood::Takes(seconds(2)));
    let pool = server.pool(|config| config);
    let held = pool.get().await.unwrap();
    let idle = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    drop(idle);

    let begin = Instant::now();
    pool.close().await;
    assert_eq!(begin.elapsed(), seconds(2), "they close at the same time");
    assert_eq!((server.live(), server.goodbyes()), (1, 2));
    assert!(matches!(pool.get().await, Err(AcquireError::Closed)));
    assert!(pool.try_get().is_none());

    drop(held);
    assert_eq!(pool.status().size, 0);
    sleep(seconds(3)).await;
    assert_eq!((server.live(), server.goodbyes()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn close_takes_no_longer_than_its_timeout() {
    let server = Server::default();
    server.set_close(Mood::Hangs);
    let pool = server.pool(|config| config.with_close_timeout(seconds(3)));
    drop(pool.get().await.unwrap());
    let begin = Instant::now();
    pool.close().await;
    assert_eq!(begin.elapsed(), seconds(3));
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_second_close_waits_as_well() {
    let server = Server::default();
    server.set_close(Mood::Takes(seconds(2)));
    let pool = server.pool(|config| config);
    drop(pool.get().await.unwrap());
    // The first is dropped at its first await.
    assert!(poll!(Box::pin(pool.close())).is_pending());
    pool.close().await;
    assert_eq!((server.live(), server.goodbyes()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn who_waits_or_connects_is_told_at_once() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(2));
    let _held = pool.get().await.unwrap();
    server.set_connect(Mood::Hangs);
    let begin = Instant::now();
    let (connecting, waiting, ()) = tokio::join!(pool.get(), pool.get(), async {
        sleep(seconds(1)).await;
        pool.close().await;
    });
    assert!(matches!(connecting, Err(AcquireError::Closed)));
    assert!(matches!(waiting, Err(AcquireError::Closed)));
    assert_eq!(begin.elapsed(), seconds(1));
    assert_eq!(server.with(|counts| counts.dialling), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pool_can_go_before_its_leases() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let (held, detached, idle) = (
        pool.get().await.unwrap(),
        pool.get().await.unwrap(),
        pool.get().await.unwrap(),
    );
    drop(idle);
    drop(pool);
    settle().await;
    assert_eq!(
        (server.live(), server.goodbyes()),
        (2, 1),
        "the idle one is closed"
    );
    assert_eq!(held.slot, 0);
    drop(held);
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (1, 2));
    let connection = detached.detach();
    assert_eq!(server.live(), 1);
    drop(connection);
    assert_eq!((server.live(), server.goodbyes()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn the_maintainer_ends_with_the_last_handle() {
    let server = Server::default();
    let before = tasks();
    let pool = server.pool(|config| config);
    let clone = pool.clone();
    let lease = pool.get().await.unwrap();
    assert_eq!(tasks(), before + 1);
    drop(pool);
    settle().await;
    assert_eq!(tasks(), before + 1);
    drop(clone);
    settle().await;
    assert_eq!(tasks(), before);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn the_maintainer_ends_with_close() {
    let server = Server::default();
    let before = tasks();
    let pool = server.pool(|config| config);
    settle().await;
    pool.close().await;
    settle().await;
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn the_connector_is_dropped_with_the_pool() {
    struct Flagged(Server, Arc<AtomicBool>);
    impl Drop for Flagged {
        fn drop(&mut self) {
            self.1.store(true, Ordering::Relaxed);
        }
    }
    impl mqtt_pool::Connect for Flagged {
        type Connection = crate::server::Connection;
        type Error = crate::server::Refused;
        async fn connect(
            &self,
            context: mqtt_pool::ConnectContext,
        ) -> Result<Self::Connection, Self::Error> {
            self.0.connect(context).await
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let connector = Flagged(Server::default(), dropped.clone());
    let pool = mqtt_pool::Pool::new(connector, mqtt_pool::PoolConfig::default()).unwrap();
    let _lease = pool.get().await.unwrap();
    drop(pool);
    assert!(
        dropped.load(Ordering::Relaxed),
        "neither a task nor a lease holds it"
    );
}
