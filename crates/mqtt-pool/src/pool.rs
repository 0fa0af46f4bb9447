//! The handle of a pool.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{self, Poll, Waker},
    time::Duration,
};

use deadpool::managed::{self, Object, PoolError, QueueMode, Timeouts};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

use crate::{
    AcquireError, ConfigErrors, Connect, Lease, Phase, PoolConfig, Status,
    maintainer::maintain,
    manager::{ATTEMPT, Attempt, CreateError, Manager},
    state::State,
};

/// A pool of what `C` connects. Clones are handles to the same pool.
///
/// When the last handle is dropped the idle members are closed in the background; leased ones are
/// closed when they are returned.
pub struct Pool<C: Connect> {
    handles: Arc<Handles<C>>,
}

/// What all handles share; its drop is the drop of the last one.
struct Handles<C: Connect> {
    pool: managed::Pool<Manager<C>>,
    state: Arc<State>,
}

/// deadpool's own timeouts are not used: there is one for the whole call, ours.
const WAIT: Timeouts = Timeouts {
    wait: None,
    create: None,
    recycle: None,
};

const DO_NOT_WAIT: Timeouts = Timeouts {
    wait: Some(Duration::ZERO),
    create: None,
    recycle: None,
};

impl<C: Connect> Pool<C> {
    /// An empty pool, which connects when a lease is wanted.
    ///
    /// It starts a task on the current tokio runtime, whose timers have to be enabled. The task
    /// ends with the pool.
    ///
    /// # Errors
    ///
    /// Every rule that `config` breaks, and that there is no current runtime.
    pub fn new(connect: C, config: PoolConfig) -> Result<Self, ConfigErrors> {
        let mut errors = config.validate().err().unwrap_or_default();
        let runtime = Handle::try_current()
            .map_err(|error| {
                errors.push(
                    "runtime",
                    error,
                    "a pool is made inside a tokio runtime",
                    "make it in an async function, or after Runtime::enter",
                );
            })
            .ok();
        let (Some(runtime), true) = (runtime, errors.is_empty()) else {
            return Err(errors);
        };

        let state = Arc::new(State::new(config));
        let pool = managed::Pool::builder(Manager::new(connect, state.clone()))
            .max_size(state.config.max_size)
            // The most recently used first: the others get a chance to reach their idle timeout.
            .queue_mode(QueueMode::Lifo)
            .build()
            .expect("deadpool refuses only timeouts of its own without a runtime");
        runtime.spawn(maintain(pool.weak(), state.clone()));
        Ok(Self {
            handles: Arc::new(Handles { pool, state }),
        })
    }

    /// Leases a member: the one returned last of those that are idle and fit, else a new one if
    /// there is room, else the next one that is returned. Callers are served in turn.
    ///
    /// It takes at most `acquire_timeout`, whatever it does. If the future is dropped, its place
    /// in the queue is given up and a connection that is being made is abandoned; nothing leaks.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: time is up, connecting failed, or the pool is closed.
    pub async fn get(&self) -> Result<Lease<C>, AcquireError<C::Error>> {
        let Handles { pool, state } = &*self.handles;
        let (result, waited) = self.acquire().await;
        match result {
            Ok(object) => {
                let lease = Lease::new(object, state);
                // deadpool hands out what was being connected when it was closed.
                if state.is_closed() {
                    lease.discard();
                    return Err(AcquireError::Closed);
                }
                Ok(lease)
            }
            Err(Failure::TimedOut(phase)) => Err(AcquireError::Timeout {
                waited,
                phase,
                status: self.status(),
                last_connect_error: pool.manager().last_error(),
            }),
            Err(Failure::Connect(error)) => Err(AcquireError::Connect(error)),
            Err(Failure::Closed) => Err(AcquireError::Closed),
        }
    }

    /// The first half of `get`: deadpool's answer, and how long it took. At its end the call is no
    /// longer counted as waiting.
    async fn acquire(&self) -> (Result<Object<Manager<C>>, Failure<C::Error>>, Duration) {
        let Handles { pool, state } = &*self.handles;
        let mut attempt = pin!(ATTEMPT.scope(Attempt::patient(state), pool.timeout_get(&WAIT)));

        // An idle member is there at once, without a timer or a second look at the clock.
        let first = poll_fn(|context| Poll::Ready(attempt.as_mut().poll(context))).await;
        if let Poll::Ready(result) = first {
            return (result.map_err(Failure::from), Duration::ZERO);
        }
        let started = Instant::now();
        let result = match timeout(state.config.acquire_timeout, attempt.as_mut()).await {
            Ok(result) => result.map_err(Failure::from),
            Err(_elapsed) => {
                let attempt = attempt.as_mut().take_value();
                let phase = attempt.map_or(Phase::Queue, |attempt| attempt.phase());
                Err(Failure::TimedOut(phase))
            }
        };
        (result, started.elapsed())
    }

    /// Leases an idle member, if there is one that is fit; it neither waits nor connects.
    pub fn try_get(&self) -> Option<Lease<C>> {
        let Handles { pool, state } = &*self.handles;
        let attempt = pin!(ATTEMPT.scope(Attempt::immediate(), pool.timeout_get(&DO_NOT_WAIT)));
        // Without waiting and connecting there is nothing in it that could be pending.
        match attempt.poll(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(object)) => Some(Lease::new(object, state)),
            Poll::Ready(_) | Poll::Pending => None,
        }
    }

    /// The pool in numbers, now.
    pub fn status(&self) -> Status {
        self.handles.state.status()
    }

    /// The options it was made with.
    pub fn config(&self) -> &PoolConfig {
        &self.handles.state.config
    }

    /// Closes the pool, for all its handles.
    ///
    /// From now on there are no new leases, and who waits for one is told
    /// [`Closed`](AcquireError::Closed). Idle members are closed, all at the same time. Leased
    /// ones are left alone and closed when they are returned.
    ///
    /// It waits for the members that are being closed, also by an earlier call, and takes
    /// `close_timeout` at most. If the future is dropped, the pool is closed all the same.
    pub async fn close(&self) {
        let Handles { pool, state } = &*self.handles;
        state.set_closed();
        // Before deadpool's `close`, which drops idle members under its lock, and keeps the one
        // that a waiter has been woken for.
        drop(pool.retain(|_, _| false).removed);
        pool.close();
        let _ = timeout(state.config.close_timeout, state.quiet()).await;
    }
}

/// Why [`Pool::acquire`] gave nothing.
enum Failure<E> {
    TimedOut(Phase),
    Connect(Arc<E>),
    Closed,
}

impl<E> From<PoolError<CreateError<E>>> for Failure<E> {
    fn from(error: PoolError<CreateError<E>>) -> Self {
        match error {
            PoolError::Backend(CreateError::Connect(error)) => Self::Connect(error),
            PoolError::Backend(CreateError::TimedOut) => Self::TimedOut(Phase::Connect),
            PoolError::Backend(CreateError::Closed) | PoolError::Closed => Self::Closed,
            // These need timeouts or hooks of deadpool's, or an attempt that may not connect.
            PoolError::Timeout(_)
            | PoolError::NoRuntimeSpecified
            | PoolError::PostCreateHook(_)
            | PoolError::Backend(CreateError::NotAllowed) => Self::TimedOut(Phase::Queue),
        }
    }
}

impl<C: Connect> Drop for Handles<C> {
    fn drop(&mut self) {
        // Ends the maintainer. The idle members go with `pool`.
        self.state.set_closed();
    }
}

impl<C: Connect> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self {
            handles: self.handles.clone(),
        }
    }
}

impl<C: Connect> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("status", &self.status())
            .field("config", self.config())
            .finish_non_exhaustive()
    }
}
