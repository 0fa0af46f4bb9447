//! Publishing over a few sessions as over one.
//!
//! Each publish is handed to a session picked for it: the one with less in flight, or that of its key.
//! Its one rule: a handle on the session is held until the outcome is there, so that a session which is
//! replaced stays open for what it carries, and a key's next session waits for it.

mod error;
mod keyed;

use std::{
    fmt,
    hash::Hash,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use mqtt_pool::{
    AcquireError, ConfigErrors, DrainReport, Pool, PoolConfig, SharedConfig, SharedPool,
    SharedStatus,
};
use mqtt_proto::TopicName;
use mqtt_transport::{ConnectDeadline, Connector};
use tokio::time::Instant;
use tower_service::Service;

use crate::{
    connector::Dial,
    error::PublishError,
    pooled::PooledSessions,
    publish::{Publish, Published},
};

use keyed::Lanes;

pub use error::PoolPublishError;
pub use keyed::KeyedPublisher;

/// Publishes over a few sessions, which a pool connects and replaces. Clones share them.
///
/// As a [`Service`] it is ready until the pool is closed, and picks a session when its future is
/// polled, so that a session that died is not one that was promised. A limit on what waits is that
/// of a layer: `ServiceBuilder::concurrency_limit`, with `load_shed` to refuse what is above it.
///
/// ```no_run
/// use mqtt_client::{
///     PooledSessions, Publish, QoS, SessionConfig, SessionConnector, SessionPool,
///     pool::{PoolConfig, SharedConfig},
/// };
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = SessionConnector::new(SessionConfig::new("gateway"))?;
/// let sessions = PooledSessions::new(connector, "mqtt://localhost".parse()?);
/// let pool = SessionPool::new(sessions, PoolConfig::default(), SharedConfig::default())?;
///
/// let state = Publish::new("devices/7/state", "on")?.with_qos(QoS::AtLeastOnce);
/// // On whichever session has less to do, or in order with what else device 7 says.
/// pool.publish(state.clone()).await?;
/// pool.publish_keyed("device-7", state).await?;
/// # Ok(())
/// # }
/// ```
///
/// # When a session ends
///
/// A member that is due, for its lifetime or its generation, is replaced before it goes, and goes when
/// it carries nothing more: no publish fails for it, except that one at QoS 0 has no answer to be waited
/// for. When a session is lost, what it carried at QoS 1 and 2 is [lost](PublishError::Lost) with it,
/// since only its server knows. What was still waiting for room on it was not sent: the pool hands it to
/// another session, once, and nobody notices. If that one ends as well the caller is told, and may
/// decide with [`delivery`](PoolPublishError::delivery).
///
/// # Deadlines
///
/// Waiting for a session takes at most the pool's `acquire_timeout`. A session that is there but has no
/// room, or does not answer, is waited for as [`Publisher`](crate::Publisher) does: put a timeout around
/// it if that is too long.
pub struct SessionPool<C: Dial + Sync = ConnectDeadline<Connector>> {
    sessions: SharedPool<PooledSessions<C>>,
    lanes: Arc<Lanes>,
}

impl<C: Dial + Sync> SessionPool<C> {
    /// Publishes over `shared.size` sessions of a pool of its own, and begins to connect them.
    ///
    /// Must be called within a tokio runtime, which gets two tasks for it beside those of the sessions.
    ///
    /// # Errors
    ///
    /// Every rule that the options break.
    pub fn new(
        sessions: PooledSessions<C>,
        pool: PoolConfig,
        shared: SharedConfig,
    ) -> Result<Self, ConfigErrors> {
        // Both at once, so that all problems are told together.
        let mut errors = pool.validate().err().unwrap_or_default();
        if let Err(problems) = shared.validate(&pool) {
            errors.append(problems);
        }
        errors.into_result()?;
        Ok(SharedPool::new(Pool::new(sessions, pool)?, shared)?.into())
    }

    /// Publishes on the session with less in flight, of two taken at random.
    ///
    /// Messages published one after the other may arrive in any order, as they may go over different
    /// sessions.
    ///
    /// # Errors
    ///
    /// [`PoolPublishError`]: there is no session in time, or the publish did not succeed on it. If the
    /// future is dropped, what was not admitted is not sent, and what was is completed by its session.
    pub async fn publish(&self, publish: Publish) -> Result<Published, PoolPublishError> {
        match self.publish_once(publish.clone()).await {
            Err(PoolPublishError::Publish(PublishError::NotSent(_))) => {
                self.publish_once(publish).await
            }
            outcome => outcome,
        }
    }

    async fn publish_once(&self, publish: Publish) -> Result<Published, PoolPublishError> {
        let session = self.sessions.get().await?;
        Ok(session.publish(publish).await?)
    }

    /// Publishes on the session of this key, in order with everything else that has it.
    ///
    /// Messages of one key reach the server in the order in which their futures are first polled, at
    /// whatever QoS and however many are under way at once; also over the replacement of their session,
    /// for which the next one waits until what went over the one before is answered or given up. What
    /// nobody waits for does not count there: a message at QoS 0, and one whose future was dropped.
    ///
    /// Keys share sessions and the order of them, so a key may have to wait for another one's messages.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish); dropping the future does the same too.
    pub async fn publish_keyed<K: Hash + Sync + ?Sized>(
        &self,
        key: &K,
        publish: Publish,
    ) -> Result<Published, PoolPublishError> {
        self.lanes.publish(&self.sessions, key, publish).await
    }

    /// A service that publishes each message by the key that `key` finds in it, as
    /// [`publish_keyed`](Self::publish_keyed) does.
    pub fn by_key<K, F>(&self, key: F) -> KeyedPublisher<C, F>
    where
        F: Fn(&Publish) -> K,
        K: Hash + Send + Sync + 'static,
    {
        KeyedPublisher::new(self.clone(), key)
    }

    /// A service that keeps the order within each topic, which is as much as one session promises
    /// `[MQTT5-4.6.0-6]`.
    pub fn by_topic(&self) -> KeyedPublisher<C, fn(&Publish) -> TopicName> {
        self.by_key(|publish| publish.message.topic.clone())
    }

    /// The shared sessions in numbers, now. Those of the pool below are in
    /// [`pool`](Self::pool)`().status()`.
    pub fn status(&self) -> SharedStatus {
        self.sessions.status()
    }

    /// The pool that the sessions are leased from, which others may use besides.
    pub fn pool(&self) -> &Pool<PooledSessions<C>> {
        self.sessions.pool()
    }

    /// The shared sessions, for what is not publishing.
    pub fn sessions(&self) -> &SharedPool<PooledSessions<C>> {
        &self.sessions
    }

    /// Closes the pool and waits until everything that was handed over is answered and the sessions
    /// have left, or until the deadline: [`Pool::drain`].
    ///
    /// New publishes are refused with [`AcquireError::Closed`], also those that wait for a session. If
    /// the future is dropped, the pool is closed all the same.
    pub async fn drain(&self, deadline: Instant) -> DrainReport {
        self.pool().drain(deadline).await
    }

    /// Closes the pool, without waiting for what is under way: [`Pool::close`].
    pub async fn close(&self) {
        self.pool().close().await;
    }

    fn poll_ready(&self) -> Poll<Result<(), PoolPublishError>> {
        if self.pool().is_closed() {
            return Poll::Ready(Err(AcquireError::Closed.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: Dial + Sync> From<SharedPool<PooledSessions<C>>> for SessionPool<C> {
    fn from(sessions: SharedPool<PooledSessions<C>>) -> Self {
        Self {
            sessions,
            lanes: Arc::default(),
        }
    }
}

impl<C: Dial + Sync> Clone for SessionPool<C> {
    fn clone(&self) -> Self {
        Self {
            sessions: self.sessions.clone(),
            lanes: self.lanes.clone(),
        }
    }
}

impl<C: Dial + Sync> fmt::Debug for SessionPool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPool")
            .field("status", &self.status())
            .field("pool", &self.pool().status())
            .finish_non_exhaustive()
    }
}

impl<C: Dial + Sync> Service<Publish> for SessionPool<C> {
    type Response = Published;
    type Error = PoolPublishError;
    type Future = PoolPublishFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PoolPublishError>> {
        Self::poll_ready(self)
    }

    fn call(&mut self, publish: Publish) -> PoolPublishFuture {
        let pool = self.clone();
        PoolPublishFuture::new(async move { pool.publish(publish).await })
    }
}

/// The future of [`SessionPool`] and [`KeyedPublisher`] as services.
#[must_use = "a publish does nothing until polled"]
pub struct PoolPublishFuture(
    Pin<Box<dyn Future<Output = Result<Published, PoolPublishError>> + Send>>,
);

impl PoolPublishFuture {
    fn new(
        publishing: impl Future<Output = Result<Published, PoolPublishError>> + Send + 'static,
    ) -> Self {
        Self(Box::pin(publishing))
    }
}

impl Future for PoolPublishFuture {
    type Output = Result<Published, PoolPublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for PoolPublishFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolPublishFuture").finish_non_exhaustive()
    }
}
