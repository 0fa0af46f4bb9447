//! The end of a pool.

use std::{
    sync::{
        Arc, Barrier, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use futures_util::{FutureExt, poll};
use mqtt_pool::{AcquireError, Connect, ConnectContext, Pool, PoolConfig};
use tokio::{
    runtime::{Builder, Runtime},
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::server::{Connection, Mood, Refused, Server, seconds, settle, tasks};

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
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, AcquireError::Closed) && !error.is_transient());
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
async fn close_does_not_wait_for_what_is_returned_late() {
    let server = Server::default();
    server.set_close(Mood::Hangs);
    let pool = server.pool(|config| config.with_close_timeout(seconds(3)));
    let (held, idle) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(idle);
    let begin = Instant::now();
    tokio::join!(pool.close(), async {
        sleep(seconds(2)).await;
        drop(held);
    });
    assert_eq!(begin.elapsed(), seconds(3));
    sleep(seconds(3)).await;
    assert_eq!(server.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_at_once() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    let _held = pool.get().await.unwrap();
    let begin = Instant::now();
    let (waiting, ()) = tokio::join!(pool.get(), async {
        sleep(seconds(1)).await;
        pool.close().await;
    });
    assert!(matches!(waiting, Err(AcquireError::Closed)));
    assert_eq!(begin.elapsed(), seconds(1));
}

#[tokio::test(start_paused = true)]
async fn who_connects_is_told_at_once() {
    let server = Server::default();
    server.set_connect(Mood::Hangs);
    let pool = server.pool(|config| config);
    let begin = Instant::now();
    let (connecting, ()) = tokio::join!(pool.get(), async {
        sleep(seconds(1)).await;
        pool.close().await;
    });
    assert!(matches!(connecting, Err(AcquireError::Closed)));
    assert_eq!(begin.elapsed(), seconds(1));
    settle().await;
    assert_eq!(server.with(|counts| counts.dialling), 0);
}

#[tokio::test(start_paused = true)]
async fn who_was_woken_and_gave_up_leaves_nothing() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(1));
    let held = pool.get().await.unwrap();
    let mut woken = Box::pin(pool.get());
    assert!(poll!(&mut woken).is_pending());
    drop(held);
    pool.close().await;
    drop(woken);
    assert_eq!((server.live(), server.goodbyes()), (0, 1));
}

/// Closes its own pool at the very moment a connection is there.
struct Closer(Server, Arc<OnceLock<Pool<Self>>>);

impl Connect for Closer {
    type Connection = Connection;
    type Error = Refused;

    async fn connect(&self, context: ConnectContext) -> Result<Connection, Refused> {
        let connection = self.0.connect(context).await;
        if let Some(pool) = self.1.get() {
            assert!(pool.close().now_or_never().is_some());
        }
        connection
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_connected_too_late_is_closed() {
    let (server, later) = (Server::default(), Arc::default());
    let closer = Closer(server.clone(), Arc::clone(&later));
    let pool = Pool::new(closer, PoolConfig::default()).unwrap();
    assert!(later.set(pool.clone()).is_ok());
    assert!(matches!(pool.get().await, Err(AcquireError::Closed)));
    settle().await;
    assert_eq!((server.live(), server.goodbyes()), (0, 1));
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

/// Tells when it is dropped.
struct Flagged(Server, Arc<AtomicBool>);

impl Drop for Flagged {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

impl Connect for Flagged {
    type Connection = Connection;
    type Error = Refused;

    async fn connect(&self, context: ConnectContext) -> Result<Connection, Refused> {
        self.0.connect(context).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_connector_is_dropped_with_the_pool() {
    let dropped = Arc::new(AtomicBool::new(false));
    let connector = Flagged(Server::default(), dropped.clone());
    let pool = Pool::new(connector, PoolConfig::default()).unwrap();
    let _lease = pool.get().await.unwrap();
    settle().await;
    drop(pool);
    assert!(
        dropped.load(Ordering::Relaxed),
        "neither a task nor a lease holds it"
    );
}

/// A pool whose runtime is gone, while others go on.
fn orphan(server: &Server) -> Pool<Server> {
    let runtime = runtime();
    let _inside = runtime.enter();
    server.pool(|config| config.with_acquire_timeout(seconds(3_600)))
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build();
    runtime.expect("there are resources for it")
}

#[test]
fn nobody_waits_for_a_pool_whose_runtime_is_gone() {
    let pool = orphan(&Server::default());
    runtime().block_on(async {
        let begin = Instant::now();
        assert!(matches!(pool.get().await, Err(AcquireError::Closed)));
        let deadline = begin + seconds(60);
        let warm = pool.warm_up(2, deadline).await;
        assert!(matches!(warm, Err(AcquireError::Closed)));
        assert!(pool.drain(deadline).await.is_complete());
        assert_eq!(begin.elapsed(), seconds(0));
    });
}

#[test]
fn who_waits_is_told_when_the_runtime_goes() {
    let (server, dying) = (Server::default(), runtime());
    server.set_connect(Mood::Hangs);
    let pool = dying.block_on(async {
        let pool = server.pool(|config| config.with_acquire_timeout(seconds(3_600)));
        settle().await;
        pool
    });
    runtime().block_on(async {
        let begin = Instant::now();
        let mut caller = Box::pin(pool.get());
        assert!(poll!(&mut caller).is_pending());
        spawn_blocking(|| drop(dying)).await.unwrap();
        assert!(matches!(caller.await, Err(AcquireError::Closed)));
        assert_eq!(begin.elapsed(), seconds(0));
        assert_eq!(pool.status().waiting, 0);
    });
}

/// What is returned just then must not lie idle in a pool that is closed.
#[test]
fn a_size_that_is_changed_at_the_end_keeps_nothing() {
    let runtime = Runtime::new().unwrap();
    for round in 0..2_000 {
        let server = Server::default();
        let pool = runtime.block_on(async { server.pool(|config| config.with_max_size(1)) });
        let lease = runtime.block_on(pool.get()).unwrap();
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                for size in 2..40 {
                    pool.resize(size).unwrap();
                }
            });
            barrier.wait();
            assert!(runtime.block_on(pool.drain(Instant::now())).in_use > 0);
        });
        drop(lease);
        assert_eq!(pool.status().idle, 0, "round {round}");
    }
}
