//! The pools that are compared, behind one trait, so that they get the same work.

use std::{
    future::Future,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deadpool::managed::{self, Metrics, Object, RecycleError, RecycleResult};
use mqtt_pool::{Connect, ConnectContext, Lease, OnUnavailable, Pool, PoolConfig, Pooled};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::server::{Connection, Refused, Server};
use crate::Error;

/// A pool and its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A semaphore and a vector, which is as little as a pool can be.
    Bare,
    Deadpool,
    /// With its timeouts for waiting, creating and recycling, without which it may wait for ever.
    DeadpoolTimeouts,
    /// Without a test at checkout.
    Bb8,
    Ours,
    OursFailFast,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "semaphore and vector",
            Self::Deadpool => "deadpool",
            Self::DeadpoolTimeouts => "deadpool, timeouts",
            Self::Bb8 => "bb8",
            Self::Ours => "mqtt-pool",
            Self::OursFailFast => "mqtt-pool, fail fast",
        }
    }
}

/// Evaluates the expression with a new pool of this kind.
macro_rules! with_pool {
    ($kind:expr, $server:expr, $size:expr, |$pool:ident| $body:expr) => {{
        use $crate::pool::contender::{self, Kind};
        match $kind {
            Kind::Bare => {
                let $pool = std::sync::Arc::new(contender::Bare::new($server, $size));
                $body
            }
            Kind::Deadpool => {
                let $pool = std::sync::Arc::new(contender::deadpool($server, $size, None)?);
                $body
            }
            Kind::DeadpoolTimeouts => {
                let timeout = Some(contender::TIMEOUT);
                let $pool = std::sync::Arc::new(contender::deadpool($server, $size, timeout)?);
                $body
            }
            Kind::Bb8 => {
                let $pool = std::sync::Arc::new(contender::bb8($server, $size)?);
                $body
            }
            Kind::Ours | Kind::OursFailFast => {
                let fails_fast = $kind == Kind::OursFailFast;
                let $pool = std::sync::Arc::new(contender::ours($server, $size, fails_fast)?);
                $body
            }
        }
    }};
}
pub(super) use with_pool;

/// Timeouts that are never reached; the default of ours.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// A pool as its user sees it.
pub(super) trait Contender: Send + Sync + 'static {
    type Held<'a>: Deref<Target = Connection> + Send;

    fn get(&self) -> impl Future<Output = Result<Self::Held<'_>, Error>> + Send;

    /// Within a time of the call's own.
    fn get_within(
        &self,
        time: Duration,
    ) -> impl Future<Output = Result<Self::Held<'_>, Error>> + Send {
        let deadline = Instant::now() + time;
        async move { timeout_at(deadline, self.get()).await? }
    }

    /// Does not give it back.
    fn discard(held: Self::Held<'_>);
}

pub(super) struct Bare {
    server: Arc<Server>,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl Bare {
    pub(super) fn new(server: Arc<Server>, size: usize) -> Self {
        Self {
            server,
            permits: Semaphore::new(size),
            idle: Mutex::new(Vec::with_capacity(size)),
        }
    }

    fn take(&self) -> Option<Connection> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }
}

/// Its permit goes after its connection has been put back.
pub(super) struct BareHeld<'a> {
    connection: Option<Connection>,
    bare: &'a Bare,
    _permit: SemaphorePermit<'a>,
}

impl Drop for BareHeld<'_> {
    fn drop(&mut self) {
        let idle = self.bare.idle.lock();
        idle.unwrap_or_else(PoisonError::into_inner)
            .extend(self.connection.take());
    }
}

impl Deref for BareHeld<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("held until it is dropped")
    }
}

impl Contender for Bare {
    type Held<'a> = BareHeld<'a>;

    async fn get(&self) -> Result<BareHeld<'_>, Error> {
        let permit = self.permits.acquire().await?;
        let connection = match self.take() {
            Some(connection) => connection,
            None => self.server.connect().await?,
        };
        Ok(BareHeld {
            connection: Some(connection),
            bare: self,
            _permit: permit,
        })
    }

    fn discard(mut held: BareHeld<'_>) {
        held.connection = None;
    }
}

/// Makes members, for each of the libraries.
pub(super) struct Maker(Arc<Server>);

impl managed::Manager for Maker {
    type Type = Connection;
    type Error = Refused;

    async fn create(&self) -> Result<Connection, Refused> {
        self.0.connect().await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Refused> {
        match connection.is_usable() {
            true => Ok(()),
            false => Err(RecycleError::message("not usable")),
        }
    }
}

pub(super) fn deadpool(
    server: Arc<Server>,
    size: usize,
    timeout: Option<Duration>,
) -> Result<managed::Pool<Maker>, Error> {
    let mut builder = managed::Pool::builder(Maker(server)).max_size(size);
    if timeout.is_some() {
        builder = builder
            .runtime(deadpool::Runtime::Tokio1)
            .wait_timeout(timeout)
            .create_timeout(timeout)
            .recycle_timeout(timeout);
    }
    Ok(builder.build()?)
}

impl Contender for managed::Pool<Maker> {
    type Held<'a> = Object<Maker>;

    async fn get(&self) -> Result<Object<Maker>, Error> {
        Ok(Self::get(self).await?)
    }

    fn discard(held: Object<Maker>) {
        drop(Object::take(held));
    }
}

impl bb8::ManageConnection for Maker {
    type Connection = Connection;
    type Error = Refused;

    async fn connect(&self) -> Result<Connection, Refused> {
        self.0.connect().await
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Refused> {
        match connection.is_usable() {
            true => Ok(()),
            false => Err(Refused),
        }
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_usable()
    }
}

pub(super) fn bb8(server: Arc<Server>, size: usize) -> Result<bb8::Pool<Maker>, Error> {
    Ok(bb8::Pool::builder()
        .max_size(u32::try_from(size)?)
        .test_on_check_out(false)
        .build_unchecked(Maker(server)))
}

impl Contender for bb8::Pool<Maker> {
    type Held<'a> = bb8::PooledConnection<'a, Maker>;

    async fn get(&self) -> Result<bb8::PooledConnection<'_, Maker>, Error> {
        Ok(Self::get(self).await?)
    }

    fn discard(held: bb8::PooledConnection<'_, Maker>) {
        held.spoil();
    }
}

impl Connect for Maker {
    type Connection = Connection;
    type Error = Refused;

    async fn connect(&self, _: ConnectContext) -> Result<Connection, Refused> {
        self.0.connect().await
    }
}

impl Pooled for Connection {
    fn is_usable(&self) -> bool {
        self.is_usable()
    }

    async fn close(self) {
        self.close().await;
    }
}

/// With the defaults, but for the size.
pub(super) fn ours(
    server: Arc<Server>,
    size: usize,
    fails_fast: bool,
) -> Result<Pool<Maker>, Error> {
    let mut config = PoolConfig::default().with_max_size(size);
    if fails_fast {
        config = config.with_on_unavailable(OnUnavailable::FailFast);
    }
    Ok(Pool::new(Maker(server), config)?)
}

impl Contender for Pool<Maker> {
    type Held<'a> = Lease<Maker>;

    async fn get(&self) -> Result<Lease<Maker>, Error> {
        Ok(Self::get(self).await?)
    }

    async fn get_within(&self, time: Duration) -> Result<Lease<Maker>, Error> {
        Ok(self.get_with(Instant::now() + time).await?)
    }

    fn discard(held: Lease<Maker>) {
        held.discard();
    }
}
