//! Members that many callers use at once.
//!
//! A [`SharedPool`] has a few positions, each with a member that it leases for as long as it
//! serves. The filler is the only one that changes them; callers read them without a lock.

mod config;
mod filler;
mod position;
mod status;

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    ops::Deref,
    sync::Arc,
};

use arc_swap::{ArcSwapOption, Guard};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

use crate::{AcquireError, ConfigErrors, Connect, Phase, Pool, pool::after, state::State};

use filler::Filler;
use position::{Occupant, Position};

pub use config::SharedConfig;
pub use status::SharedStatus;

/// A few members of a [`Pool`], each used by many callers at once. Clones are handles to the same.
///
/// It is for callers that need no more of a member than `&C::Connection`, as for publishing: a
/// session carries the work of many, where a lease would keep all others away from it until the
/// answer is there.
///
/// ```
/// use std::{convert::Infallible, sync::atomic::{AtomicU32, Ordering}};
/// use mqtt_pool::{Connect, ConnectContext, Pool, PoolConfig, Pooled, SharedConfig, SharedPool};
///
/// #[derive(Default)]
/// struct Line {
///     sent: AtomicU32,
/// }
///
/// impl Pooled for Line {
///     fn is_usable(&self) -> bool {
///         true
///     }
///     async fn close(self) {}
/// }
///
/// struct Dial;
///
/// impl Connect for Dial {
///     type Connection = Line;
///     type Error = Infallible;
///
///     async fn connect(&self, _: ConnectContext) -> Result<Line, Infallible> {
///         Ok(Line::default())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(Dial, PoolConfig::default().with_max_size(3))?;
/// let shared = SharedPool::new(pool, SharedConfig::default().with_size(2))?;
///
/// // Whichever has less to do.
/// shared.get().await?.sent.fetch_add(1, Ordering::Relaxed);
///
/// // Always the same one for a key, so that its messages stay in order.
/// let line = shared.by_key("device-7").await?;
/// line.sent.fetch_add(1, Ordering::Relaxed);
/// # Ok(())
/// # }
/// ```
///
/// **Make before break.** A member that is due, for its lifetime or its generation, serves until
/// its replacement is there, then until its last handle is dropped, and is closed; so the pool
/// needs room for one more than the positions. If there is none, because all the others are leased
/// or the servers do not let anybody connect, the member serves on. One that is
/// [not usable](crate::Pooled::is_usable) any more is taken out and replaced as soon as the pool
/// has another, at once if it sends a [`DeathNotice`](crate::DeathNotice).
///
/// The members are leased as by any caller of the pool, which others may use besides, but are
/// never [overdue](Pool::overdue_leases). When the last handle of this is dropped, and when the
/// pool is closed, each is given back as soon as the last [`Shared`] on it is dropped;
/// [`drain`](Pool::drain) waits for that.
pub struct SharedPool<C: Connect<Connection: Sync>> {
    inner: Arc<Inner<C>>,
}

/// What all handles share.
struct Inner<C: Connect> {
    pool: Pool<C>,
    /// As many as the options say, for ever.
    positions: Box<[Position<C>]>,
    /// Wakes who waits for a position.
    changed: Arc<Notify>,
    /// Set while the pool says that nobody is to wait for it.
    refused: ArcSwapOption<Refused>,
    /// Dropped with this, which ends the filler.
    _alive: oneshot::Sender<Infallible>,
}

/// The pool has no member, and there will be none before this is over.
struct Refused {
    retry_at: Option<Instant>,
    /// That in which the pool was asked.
    generation: u64,
}

impl Refused {
    fn is_over(&self, state: &State, now: Instant) -> bool {
        // With a new generation refusals may be forgiven.
        self.generation != state.generation.current()
            || self.retry_at.is_some_and(|retry_at| retry_at <= now)
    }
}

impl<C: Connect<Connection: Sync>> SharedPool<C> {
    /// Shares members of this pool, and begins to lease all of them.
    ///
    /// It starts a task on the pool's runtime, which ends with the last handle and when the pool is
    /// closed.
    ///
    /// # Errors
    ///
    /// Every rule that `config` breaks.
    pub fn new(pool: Pool<C>, config: SharedConfig) -> Result<Self, ConfigErrors> {
        config.validate(pool.config())?;
        let (alive, ended) = oneshot::channel();
        let changed = Arc::new(Notify::new());
        let inner = Arc::new(Inner {
            pool,
            positions: (0..config.size)
                .map(|_| Position::new(changed.clone()))
                .collect(),
            changed,
            refused: ArcSwapOption::empty(),
            _alive: alive,
        });
        let filler = Filler::new(&inner, ended);
        inner.pool.state().runtime.spawn(filler.run());
        Ok(Self { inner })
    }

    /// A handle on a member, if any is usable: of two positions taken at random, the one with less
    /// to do, by the handles that are held and [`Pooled::load`](crate::Pooled::load).
    ///
    /// It takes no lock and does not wait.
    pub fn pick(&self) -> Option<Shared<C>> {
        self.inner.pick().map(|member| Shared { member })
    }

    /// A handle as [`pick`](Self::pick) gives it, or as soon as any member is usable.
    ///
    /// It takes at most the pool's `acquire_timeout`. If the future is dropped, nothing is left
    /// behind.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: time is up, connecting is without hope, or the pool is closed.
    pub async fn get(&self) -> Result<Shared<C>, AcquireError<C::Error>> {
        self.inner.wait(None, Inner::any).await
    }

    /// A handle as [`get`](Self::get) gives it, with a deadline of its own in the place of
    /// `acquire_timeout`. One that has passed still gets what [`pick`](Self::pick) does.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn get_with(&self, deadline: Instant) -> Result<Shared<C>, AcquireError<C::Error>> {
        self.inner.wait(Some(deadline), Inner::any).await
    }

    /// A handle on the member of the position that this key has: always the same position in all
    /// clones, as [`DefaultHasher`] says.
    ///
    /// It is for work that has to stay in order for a key, where each waits for its turn to hand
    /// over its work, as MQTT keeps messages in order within a session only. While the position has
    /// no usable member this waits; and after a replacement, until every handle on the member before
    /// is dropped. So what was in flight there has been answered or given up, if its callers hold
    /// their handle until then. What they do not wait for, as a message at QoS 0, may still be on its
    /// way over the old connection; in which order it then comes is the server's affair.
    ///
    /// It takes at most the pool's `acquire_timeout`. If the future is dropped, nothing is left
    /// behind. Keys that share a position share its load, whatever the others have to do.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn by_key<'a, K: Hash + ?Sized>(
        &'a self,
        key: &K,
    ) -> impl Future<Output = Result<Shared<C>, AcquireError<C::Error>>> + Send + use<'a, K, C>
    {
        self.in_order(key, None)
    }

    /// A handle as [`by_key`](Self::by_key) gives it, with a deadline of its own in the place of
    /// `acquire_timeout`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn by_key_with<'a, K: Hash + ?Sized>(
        &'a self,
        key: &K,
        deadline: Instant,
    ) -> impl Future<Output = Result<Shared<C>, AcquireError<C::Error>>> + Send + use<'a, K, C>
    {
        self.in_order(key, Some(deadline))
    }

    fn in_order<'a, K: Hash + ?Sized>(
        &'a self,
        key: &K,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<Shared<C>, AcquireError<C::Error>>> + Send + use<'a, K, C>
    {
        // Without keys of its own, so that it is the same everywhere.
        let hash = BuildHasherDefault::<DefaultHasher>::new().hash_one(key);
        let positions = u64::try_from(self.inner.positions.len()).unwrap_or(u64::MAX);
        let index = usize::try_from(hash % positions).unwrap_or(0);
        self.inner
            .wait(deadline, move |inner| inner.in_order(index))
    }

    /// The shared pool in numbers, now.
    pub fn status(&self) -> SharedStatus {
        let positions = &self.inner.positions;
        SharedStatus {
            positions: positions.len(),
            usable: positions.iter().filter_map(Position::handles).count(),
            handles: positions.iter().filter_map(Position::handles).sum(),
            retiring: positions.iter().map(Position::retiring).sum(),
        }
    }

    /// The pool that the members are leased from.
    pub fn pool(&self) -> &Pool<C> {
        &self.inner.pool
    }
}

/// A member that may be picked.
struct Candidate<C: Connect> {
    member: Guard<Option<Arc<Occupant<C>>>>,
    weight: usize,
}

impl<C: Connect<Connection: Sync>> Inner<C> {
    fn pick(&self) -> Option<Arc<Occupant<C>>> {
        let count = self.positions.len();
        let first = fastrand::usize(..count);
        // Another one, if there is another.
        let second = first + 1 + fastrand::usize(..count.saturating_sub(1).max(1));
        let second = if second < count {
            second
        } else {
            second - count
        };
        let candidates = (self.candidate(first), self.candidate(second));
        let lighter = match candidates {
            (Some(first), Some(second)) if second.weight < first.weight => second,
            (Some(one), _) | (None, Some(one)) => one,
            (None, None) => (0..count)
                .filter_map(|index| self.candidate(index))
                .min_by_key(|candidate| candidate.weight)?,
        };
        Guard::into_inner(lighter.member)
    }

    fn candidate(&self, index: usize) -> Option<Candidate<C>> {
        let member = self.positions.get(index)?.look();
        let Some(weight) = member.as_ref()?.weight() else {
            // The filler has not seen it yet.
            self.pool.state().on_change();
            return None;
        };
        Some(Candidate { member, weight })
    }

    fn any(&self) -> Result<Arc<Occupant<C>>, Phase> {
        self.pick().ok_or(Phase::Connect)
    }

    fn in_order(&self, index: usize) -> Result<Arc<Occupant<C>>, Phase> {
        let position = self.positions.get(index).ok_or(Phase::Connect)?;
        position.in_order().inspect_err(|phase| {
            if *phase == Phase::Connect {
                self.pool.state().on_change();
            }
        })
    }

    /// Waits until `find` has a member. It says what it is waiting for else.
    async fn wait(
        &self,
        deadline: Option<Instant>,
        find: impl Fn(&Self) -> Result<Arc<Occupant<C>>, Phase>,
    ) -> Result<Shared<C>, AcquireError<C::Error>> {
        let state = self.pool.state();
        let mut times = None;
        loop {
            // First, so that no change is missed.
            let changed = self.changed.notified();
            if state.is_closed() {
                return Err(AcquireError::Closed);
            }
            let phase = match find(self) {
                Ok(member) => return Ok(Shared { member }),
                Err(phase) => phase,
            };
            if phase == Phase::Connect
                && let Some(refused) = self.refused.load_full()
            {
                return Err(self.pool.unavailable(refused.retry_at));
            }
            let (started, deadline) = *times.get_or_insert_with(|| {
                let now = Instant::now();
                let timeout = state.config.acquire_timeout;
                (now, deadline.unwrap_or_else(|| after(now, timeout)))
            });
            // The filler does not tell of a pool that was closed because their runtime is gone.
            let changed = async {
                tokio::select! {
                    () = changed => {}
                    () = state.closed() => {}
                }
            };
            if timeout_at(deadline, changed).await.is_err() {
                return Err(self.pool.timed_out(started.elapsed(), phase));
            }
        }
    }
}

impl<C: Connect<Connection: Sync>> Clone for SharedPool<C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<C: Connect<Connection: Sync>> fmt::Debug for SharedPool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedPool")
            .field("status", &self.status())
            .field("pool", &self.inner.pool)
            .finish_non_exhaustive()
    }
}

/// A handle on a member of a [`SharedPool`], which others use as well.
///
/// While it is held it counts as load of the member, and keeps it from being closed: hold it
/// until the work is answered, and no longer.
#[must_use = "a handle that is dropped holds nothing"]
pub struct Shared<C: Connect<Connection: Sync>> {
    member: Arc<Occupant<C>>,
}

impl<C: Connect<Connection: Sync>> Deref for Shared<C> {
    type Target = C::Connection;

    fn deref(&self) -> &Self::Target {
        &self.member.lease
    }
}

impl<C: Connect<Connection: Sync + fmt::Debug>> fmt::Debug for Shared<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&**self).finish()
    }
}
