//! The user's code that uses pools while a pool calls it.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use mqtt_pool::{AcquireError, Connect, ConnectContext, Lease, Limit, Pool, PoolConfig, Pooled};
use tokio::{runtime::Runtime, time::sleep};

use crate::server::{Server, seconds, settle};

/// An error that keeps what its dial has used.
struct NoTunnel(
    #[expect(dead_code, reason = "what matters is when it is dropped")]
    Mutex<Option<Lease<Tunnels>>>,
);

impl fmt::Debug for NoTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoTunnel")
    }
}

impl fmt::Display for NoTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no tunnel")
    }
}

impl std::error::Error for NoTunnel {}

/// Fails as long as there is something for its errors to keep.
#[derive(Clone, Default)]
struct Tunnels(Arc<Mutex<Option<Lease<Self>>>>);

struct Tunnel;

impl Pooled for Tunnel {
    fn is_usable(&self) -> bool {
        true
    }

    async fn close(self) {}
}

impl Connect for Tunnels {
    type Connection = Tunnel;
    type Error = NoTunnel;

    async fn connect(&self, _: ConnectContext) -> Result<Tunnel, NoTunnel> {
        match self.0.lock().expect("no panic").take() {
            Some(lease) => Err(NoTunnel(Mutex::new(Some(lease)))),
            None => Ok(Tunnel),
        }
    }
}

/// On a thread of its own, so that a test can fail that would hang.
#[test]
fn an_error_of_the_last_dial_may_keep_a_lease() {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let tunnels = Tunnels::default();
            let pool = Pool::new(tunnels.clone(), PoolConfig::default()).unwrap();
            let lease = pool.get().await.unwrap();
            *tunnels.0.lock().unwrap() = Some(lease);
            // The first dial fails, and what its error keeps goes back with the second.
            let lease = pool.get().await.unwrap();
            drop(lease);
            assert_eq!(pool.status().in_use, 0);
        });
        done.send(()).unwrap();
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(()));
}

/// Connections whose check takes a connection of another pool.
#[derive(Clone)]
struct Through {
    pool: Pool<Server>,
    refused: Arc<AtomicBool>,
}

impl Pooled for Through {
    fn is_usable(&self) -> bool {
        true
    }

    async fn check(&mut self) -> bool {
        let lease = self.pool.get().await;
        if matches!(lease, Err(AcquireError::Closed)) {
            self.refused.store(true, Ordering::Relaxed);
        }
        lease.is_ok()
    }

    async fn close(self) {}
}

impl Connect for Through {
    type Connection = Self;
    type Error = Infallible;

    async fn connect(&self, _: ConnectContext) -> Result<Self, Infallible> {
        Ok(self.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_may_wait_for_another_pool() {
    let through = Through {
        pool: Server::default().pool(|config| config),
        refused: Arc::default(),
    };
    let config = PoolConfig::default().with_check_after(Limit::After(seconds(1)));
    let pool = Pool::new(through.clone(), config).unwrap();
    drop(pool.get().await.unwrap());
    sleep(seconds(2)).await;
    // A check that is not done at once is given up, with its member.
    assert!(pool.try_get().is_none());
    assert!(!through.refused.load(Ordering::Relaxed), "it is not closed");
    assert_eq!(through.pool.totals().acquire.closed, 0);
}

type Hook = Box<dyn FnOnce() + Send>;

/// Connections that do something when they are asked whether they are usable.
#[derive(Clone, Default)]
struct Asked {
    next: Arc<Mutex<Option<Hook>>>,
    is_dead: Arc<AtomicBool>,
}

impl Pooled for Asked {
    fn is_usable(&self) -> bool {
        let hook = self.next.lock().expect("no panic").take();
        if let Some(hook) = hook {
            hook();
        }
        !self.is_dead.load(Ordering::Relaxed)
    }

    async fn close(self) {}
}

impl Connect for Asked {
    type Connection = Self;
    type Error = Infallible;

    async fn connect(&self, _: ConnectContext) -> Result<Self, Infallible> {
        self.is_dead.store(false, Ordering::Relaxed);
        Ok(self.clone())
    }
}

/// It came to wait while the member was on its way back, which then died without a notice.
#[tokio::test(start_paused = true)]
async fn nobody_waits_beside_an_idle_member_that_is_not_fit() {
    let asked = Asked::default();
    let config = PoolConfig::default()
        .with_max_size(2)
        .with_acquire_timeout(seconds(5));
    let pool = Pool::new(asked.clone(), config).unwrap();
    let lease = pool.get().await.unwrap();
    // No room to dial, so that all depends on the member.
    pool.resize(1).unwrap();
    settle().await;
    let mut caller = Box::pin({
        let pool = pool.clone();
        async move { pool.get().await.map(drop) }
    });
    let (sender, receiver) = mpsc::channel();
    *asked.next.lock().unwrap() = Some(Box::new(move || {
        assert!(futures_util::FutureExt::now_or_never(&mut caller).is_none());
        sender.send(caller).unwrap();
    }));
    drop(lease);
    asked.is_dead.store(true, Ordering::Relaxed);
    let caller = receiver.recv().unwrap();
    assert!(caller.await.is_ok());
}
