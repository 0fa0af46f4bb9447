//! Connections that a stack of tower services dials ahead.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    error::Error,
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mqtt_pool::{
    AcquireError, Connect, Dialled, Endpoint, Pool, PoolConfig, Pooled, ServiceConnect,
    WeightedEndpoint,
};
use mqtt_transport::{ConnInfo, ConnectError, ConnectPhase, StreamConn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, sleep, timeout},
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn, timeout::error::Elapsed};

type Memory = StreamConn<DuplexStream>;

/// Accepts connections in memory, each after a while.
#[derive(Clone, Default)]
struct Server {
    /// The other ends of what was dialled.
    accepted: Arc<Mutex<Vec<DuplexStream>>>,
    dialling: Arc<AtomicUsize>,
    most_dialling: Arc<AtomicUsize>,
    takes: Duration,
}

impl Server {
    fn taking(takes: Duration) -> Self {
        Self {
            takes,
            ..Self::default()
        }
    }

    async fn dial(self) -> Result<Memory, ConnectError> {
        let dialling = self.dialling.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_dialling.fetch_max(dialling, Ordering::Relaxed);
        sleep(self.takes).await;
        self.dialling.fetch_sub(1, Ordering::Relaxed);
        let (near, far) = duplex(64);
        self.accepted.lock().unwrap().push(far);
        Ok(StreamConn::new(near, ConnInfo::memory()))
    }

    /// As a user would stack it.
    fn stack(
        self,
    ) -> impl Service<Endpoint, Response = Dialled<Memory>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static {
        ServiceBuilder::new()
            .concurrency_limit(2)
            .timeout(Duration::from_secs(3))
            .service(service_fn(move |_| self.clone().dial()))
            .map_response(Dialled::new)
    }

    fn pool(&self, config: PoolConfig) -> Pool<impl Connect<Connection = Dialled<Memory>> + use<>> {
        let connect = ServiceConnect::new(self.clone().stack(), endpoint());
        Pool::new(connect, config).unwrap()
    }

    fn accept(&self) -> DuplexStream {
        self.accepted.lock().unwrap().remove(0)
    }
}

fn endpoint() -> Endpoint {
    "mqtt://server.test".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_layers_of_a_stack_hold_for_the_pool() {
    let server = Server::taking(Duration::from_secs(1));
    let pool = server.pool(PoolConfig::default().with_max_connecting(8));
    let start = Instant::now();
    let deadline = start + Duration::from_secs(60);
    pool.warm_up(6, deadline).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    assert_eq!(server.most_dialling.load(Ordering::Relaxed), 2);
    assert_eq!(pool.status().idle, 6);
}

#[tokio::test(start_paused = true)]
async fn a_layer_may_end_a_dial() {
    let server = Server::taking(Duration::from_secs(4));
    let config = PoolConfig::default().with_acquire_timeout(Duration::from_millis(3_050));
    let error = server.pool(config).get().await.unwrap_err();
    let AcquireError::Timeout {
        last_dial_error: Some(dial),
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    let mqtt_pool::DialError::Connect(error) = &*dial else {
        panic!("{dial:?}");
    };
    let text = error.to_string();
    assert!(text.contains("timed out"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_is_detached_is_the_bare_connection() {
    let server = Server::default();
    let pool = server.pool(PoolConfig::default().with_min_idle(1));
    sleep(Duration::from_millis(1)).await;
    let mut conn = pool.try_get().unwrap().detach().into_conn();
    let mut far = server.accept();
    conn.write_all(b"CONNECT").await.unwrap();
    let mut read = [0; 7];
    far.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"CONNECT");
    far.write_all(b"CONNACK").await.unwrap();
    conn.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"CONNACK");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_gone_or_speaks_first_is_not_handed_out() {
    for speaks in [false, true] {
        let server = Server::default();
        let pool = server.pool(PoolConfig::default());
        pool.warm_up(1, Instant::now() + Duration::from_secs(1))
            .await
            .unwrap();
        // It goes back as it came.
        drop(pool.try_get().unwrap());
        let mut far = server.accept();
        if speaks {
            far.write_all(b"hello").await.unwrap();
        } else {
            drop(far);
        }
        assert!(pool.try_get().is_none());
        assert_eq!(pool.status().size, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_has_said_is_remembered() {
    let (near, mut far) = duplex(64);
    let dialled = Dialled::new(StreamConn::new(near, ConnInfo::memory()));
    assert!(dialled.is_usable());
    far.write_all(b"x").await.unwrap();
    assert!(!dialled.is_usable());
    assert!(!dialled.is_usable());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_used_is_closed_in_order() {
    let server = Server::default();
    let pool = server.pool(PoolConfig::default());
    drop(pool.get().await.unwrap());
    let mut far = server.accept();
    pool.close().await;
    let closed = timeout(Duration::from_secs(1), far.read(&mut [0])).await;
    assert_eq!(closed.unwrap().unwrap(), 0);
}

/// As a layer of the user's would put it.
#[derive(Debug)]
struct Around(ConnectError);

impl fmt::Display for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection today")
    }
}

impl Error for Around {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_is_told_at_once() {
    let refuse = |kind: io::ErrorKind| {
        ServiceBuilder::new()
            .timeout(Duration::from_secs(3))
            .service_fn(move |endpoint: Endpoint| async move {
                let error = ConnectError::new(ConnectPhase::Dial, &endpoint, kind.into());
                Err::<Dialled<Memory>, _>(Around(error))
            })
    };
    let config = PoolConfig::default();
    for (kind, is_refusal) in [
        (io::ErrorKind::PermissionDenied, true),
        (io::ErrorKind::ConnectionRefused, false),
    ] {
        let connect = ServiceConnect::new(refuse(kind), endpoint());
        let error = Pool::new(connect, config.clone()).unwrap().get().await;
        let error = error.unwrap_err();
        let is_told = matches!(error, AcquireError::Unavailable { .. });
        assert_eq!(is_told, is_refusal, "{error:?}");
    }
    // One's own answer, which sees the error through the layers.
    let connect = ServiceConnect::new(refuse(io::ErrorKind::ConnectionRefused), endpoint())
        .with_is_transient(|error| error.find::<Elapsed>().is_some());
    let error = Pool::new(connect, config).unwrap().get().await.unwrap_err();
    assert!(
        matches!(error, AcquireError::Unavailable { .. }),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn endpoints_have_their_share_of_the_dials() {
    let asked: Arc<Mutex<Vec<Endpoint>>> = Arc::default();
    let (into, server) = (asked.clone(), Server::default());
    let dial = service_fn(move |endpoint| {
        into.lock().unwrap().push(endpoint);
        server.clone().dial()
    });
    let dial = dial.map_response(Dialled::new);
    let (a, b): (WeightedEndpoint, WeightedEndpoint) =
        ("mqtt://a".parse().unwrap(), "mqtt://b".parse().unwrap());
    let errors = ServiceConnect::spread(dial.clone(), []).unwrap_err();
    assert!(errors.to_string().contains("endpoints"), "{errors}");
    let connect = ServiceConnect::spread(dial, [a.clone(), b.with_weight(2)]).unwrap();
    let pool = Pool::new(connect, PoolConfig::default()).unwrap();
    pool.warm_up(6, Instant::now() + Duration::from_secs(1))
        .await
        .unwrap();
    let at_a = asked
        .lock()
        .unwrap()
        .iter()
        .filter(|endpoint| **endpoint == a.endpoint)
        .count();
    assert_eq!(at_a, 2);
}

/// As after a certificate was renewed.
#[tokio::test(start_paused = true)]
async fn what_was_refused_is_tried_again_when_what_is_older_retires() {
    let is_welcome = Arc::new(AtomicBool::new(false));
    let (welcome, server) = (is_welcome.clone(), Server::default());
    let dial = service_fn(move |endpoint: Endpoint| {
        let (is_welcome, server) = (welcome.load(Ordering::Relaxed), server.clone());
        async move {
            if is_welcome {
                return server.dial().await;
            }
            let refused = io::ErrorKind::PermissionDenied.into();
            Err(ConnectError::new(ConnectPhase::Tls, &endpoint, refused))
        }
    });
    let connect = ServiceConnect::new(dial.map_response(Dialled::new), endpoint());
    let pool = Pool::new(connect, PoolConfig::default()).unwrap();
    pool.get().await.unwrap_err();
    is_welcome.store(true, Ordering::Relaxed);
    pool.get().await.unwrap_err();
    pool.retire(Duration::from_secs(3_600));
    drop(pool.get().await.unwrap());
}
