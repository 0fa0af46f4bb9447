//! Publishing by key: in order, whatever happens to the session.
//!
//! Its one rule: of a key's messages one at a time is on its way to a session, from the search for it
//! until that has sent the message; the others wait in turn. So neither who waits for a session
//! nor who has to look for another can be overtaken.

use std::{
    fmt,
    future::poll_fn,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use mqtt_pool::{Shared, SharedPool};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use tower_service::Service;

use crate::{
    config::FOREVER,
    connector::Dial,
    error::PublishError,
    pooled::PooledSessions,
    publish::{Publish, PublishFuture, Published},
    session_pool::{PoolPublishError, PoolPublishFuture, SessionPool},
};

/// More than there are sessions, so that keys of one session seldom wait for each other; each is as
/// large as a few words.
const LANES: usize = 64;

/// Where messages wait for their turn. All of one key use the same lane.
#[derive(Debug)]
pub(super) struct Lanes([Semaphore; LANES]);

impl Default for Lanes {
    fn default() -> Self {
        Self([const { Semaphore::const_new(1) }; LANES])
    }
}

/// A message that a session has sent, or its outcome.
struct HandedOver<C: Dial + Sync> {
    session: Shared<PooledSessions<C>>,
    publishing: PublishFuture,
    outcome: Option<Result<Published, PublishError>>,
}

impl Lanes {
    pub(super) async fn publish<C: Dial + Sync, K: Hash + Sync + ?Sized>(
        &self,
        sessions: &SharedPool<PooledSessions<C>>,
        key: &K,
        publish: Publish,
    ) -> Result<Published, PoolPublishError> {
        let timeout = sessions.pool().config().acquire_timeout;
        let (turn, deadline) = self.turn(key, timeout).await;
        let spare = publish.clone();
        let mut handed_over = hand_over(sessions, key, deadline, publish).await?;
        if let Some(Err(PublishError::NotSent(_))) = handed_over.outcome {
            // Before the next is looked for, which waits for this one's end.
            drop(handed_over);
            handed_over = hand_over(sessions, key, None, spare).await?;
        }
        drop(turn);
        let HandedOver {
            session,
            publishing,
            outcome,
        } = handed_over;
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => publishing.await,
        };
        drop(session);
        Ok(outcome?)
    }

    /// Waits for the turn of a message, which lasts until the answer is dropped; and says until when a
    /// session is waited for, if it had to wait, so that a server that is away does not keep one after
    /// the other waiting.
    async fn turn<K: Hash + ?Sized>(
        &self,
        key: &K,
        timeout: Duration,
    ) -> (Option<SemaphorePermit<'_>>, Option<Instant>) {
        let hash = BuildHasherDefault::<DefaultHasher>::new().hash_one(key);
        let lanes = u64::try_from(LANES).unwrap_or(u64::MAX);
        // Not the part that chooses the session, or each session would have few lanes.
        let index = usize::try_from(hash.rotate_right(32) % lanes).unwrap_or(0);
        let Some(lane) = self.0.get(index) else {
            return (None, None);
        };
        if let Ok(turn) = lane.try_acquire() {
            return (Some(turn), None);
        }
        let deadline = Instant::now() + timeout.min(FOREVER);
        // It is never closed.
        (lane.acquire().await.ok(), Some(deadline))
    }
}

/// Waits for the session of the key, and until it has sent the message or refused it. What it has only
/// taken into its outbox may come back.
async fn hand_over<C: Dial + Sync, K: Hash + Sync + ?Sized>(
    sessions: &SharedPool<PooledSessions<C>>,
    key: &K,
    deadline: Option<Instant>,
    mut publish: Publish,
) -> Result<HandedOver<C>, PoolPublishError> {
    publish.is_told_when_sent = true;
    let session = match deadline {
        None => sessions.by_key(key).await?,
        Some(deadline) => sessions.by_key_with(key, deadline).await?,
    };
    let mut publishing = session.publisher().call(publish);
    let outcome = poll_fn(|cx| match Pin::new(&mut publishing).poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending if publishing.is_sent() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await;
    Ok(HandedOver {
        session,
        publishing,
        outcome,
    })
}

/// Publishes over a [`SessionPool`] by the key of each message: see
/// [`SessionPool::publish_keyed`]. Clones are cheap.
///
/// As a [`Service`] it is ready until the pool is closed. Messages of one key keep the order in which
/// their futures are first polled.
pub struct KeyedPublisher<C: Dial + Sync, F> {
    pool: SessionPool<C>,
    key: F,
}

impl<C: Dial + Sync, F> KeyedPublisher<C, F> {
    pub(super) fn new(pool: SessionPool<C>, key: F) -> Self {
        Self { pool, key }
    }
}

impl<C, F, K> Service<Publish> for KeyedPublisher<C, F>
where
    C: Dial + Sync,
    F: Fn(&Publish) -> K,
    K: Hash + Send + Sync + 'static,
{
    type Response = Published;
    type Error = PoolPublishError;
    type Future = PoolPublishFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PoolPublishError>> {
        self.pool.poll_ready()
    }

    fn call(&mut self, publish: Publish) -> PoolPublishFuture {
        let pool = self.pool.clone();
        let key = (self.key)(&publish);
        PoolPublishFuture::new(async move { pool.publish_keyed(&key, publish).await })
    }
}

impl<C: Dial + Sync, F: Clone> Clone for KeyedPublisher<C, F> {
    fn clone(&self) -> Self {
        Self::new(self.pool.clone(), self.key.clone())
    }
}

impl<C: Dial + Sync, F> fmt::Debug for KeyedPublisher<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedPublisher")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
