//! The handle of a pool.

use std::{
    fmt,
    future::{Future, poll_fn},
    panic::{Location, resume_unwind},
    pin::pin,
    sync::{Arc, PoisonError},
    task::{self, Poll, Waker},
    time::Duration,
};

use deadpool::managed::{self, Object, PoolError, QueueMode, TimeoutType, Timeouts};
use tokio::{
    runtime::Handle,
    task::{JoinError, JoinSet},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    AcquireError, ConfigErrors, Connect, DialBudget, DrainReport, Lease, OverdueLease, Phase,
    PoolConfig, Status, Totals, WeightedEndpoint,
    handover::Refusal,
    keeper::Keeper,
    leaks::Leaks,
    manager::{ATTEMPT, Attempt, CreateError, Manager},
    member::Source,
    state::State,
    totals::{Count, Counts},
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
    /// A pool, empty at first. It connects when a lease is wanted, and at once if there is a
    /// `min_idle`.
    ///
    /// It starts a task on the current tokio runtime, whose timers have to be enabled. The task
    /// ends with the pool.
    ///
    /// # Errors
    ///
    /// Every rule that `config` and the endpoints of `connect` break, and that there is no current
    /// runtime.
    pub fn new(connect: C, config: PoolConfig) -> Result<Self, ConfigErrors> {
        Self::build(connect, config, None)
    }

    /// A pool that dials within a budget that it shares with others.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_budget(
        connect: C,
        config: PoolConfig,
        budget: DialBudget,
    ) -> Result<Self, ConfigErrors> {
        Self::build(connect, config, Some(budget))
    }

    fn build(
        connect: C,
        config: PoolConfig,
        budget: Option<DialBudget>,
    ) -> Result<Self, ConfigErrors> {
        let mut errors = config.validate().err().unwrap_or_default();
        let endpoints = connect.endpoints();
        if !endpoints.is_empty()
            && let Err(problems) = WeightedEndpoint::validate_all(endpoints)
        {
            errors.append(problems);
        }
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

        let state = Arc::new(State::new(config, endpoints, budget, runtime));
        let pool = managed::Pool::builder(Manager::new(Arc::new(connect), state.clone()))
            .max_size(state.config.max_size)
            // The most recently used first: the others get a chance to reach their idle timeout.
            .queue_mode(QueueMode::Lifo)
            .build()
            .expect("deadpool refuses only timeouts of its own without a runtime");
        let keeper = Keeper::new(pool.weak(), state.clone());
        state.runtime.spawn(keeper.run());
        Ok(Self {
            handles: Arc::new(Handles { pool, state }),
        })
    }

    /// Leases a member: the one returned last of those that are idle and fit, else whichever is
    /// there first, a new one if there is room or one that is returned. Callers are served in turn.
    ///
    /// It takes at most `acquire_timeout`, whatever it does. If the future is dropped, its place
    /// in the queue is given up; a connection that was being made for it goes to the next caller.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: time is up, connecting is without hope, or the pool is closed.
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<Lease<C>, AcquireError<C::Error>>> + Send {
        self.acquire(None, Some(Location::caller()))
    }

    /// Leases a member as [`get`](Self::get) does, with a deadline of its own in the place of
    /// `acquire_timeout`. One that has passed still gets an idle member.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn get_with(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<Lease<C>, AcquireError<C::Error>>> + Send {
        self.acquire(Some(deadline), Some(Location::caller()))
    }

    /// Leases a member. Without a `leased_at` it may be held for ever: it is never overdue, and its
    /// times are not recorded.
    pub(crate) async fn acquire(
        &self,
        deadline: Option<Instant>,
        leased_at: Option<&'static Location<'static>>,
    ) -> Result<Lease<C>, AcquireError<C::Error>> {
        let Handles { pool, state, .. } = &*self.handles;
        let mut direct = pin!(Some(pool.timeout_get(&DO_NOT_WAIT)));
        // An idle member is there at once, without a timer.
        let first = poll_fn(|context| {
            let direct = direct.as_mut().as_pin_mut();
            Poll::Ready(direct.map_or(Poll::Pending, |direct| direct.poll(context)))
        });
        let phase = match first.await {
            Poll::Ready(Ok(object)) => {
                return self.lease(object, leased_at, |totals| &totals.immediate);
            }
            Poll::Ready(Err(PoolError::Timeout(TimeoutType::Wait))) => Phase::Queue,
            Poll::Ready(Err(error)) => return Err(self.refuse(error)),
            Poll::Pending => Phase::Connect,
        };

        let started = Instant::now();
        let deadline = deadline.unwrap_or_else(|| after(started, state.config.acquire_timeout));
        let result = if let (Phase::Connect, Some(call)) = (phase, direct.as_mut().as_pin_mut()) {
            timeout_at(deadline, call).await.map_err(|_| phase)
        } else {
            let patient = Attempt::patient(state.clone());
            let mut queued = pin!(ATTEMPT.scope(patient, pool.timeout_get(&WAIT)));
            timeout_at(deadline, queued.as_mut()).await.map_err(|_| {
                let attempt = queued.as_mut().take_value();
                attempt.map_or(phase, |attempt| attempt.phase())
            })
        };
        // From here on the call no longer counts as waiting.
        direct.set(None);
        let waited = started.elapsed();
        // A shared position waits without anybody who does.
        if leased_at.is_some() {
            state.metrics.acquire_wait().record(waited);
        }
        match result {
            Ok(Ok(object)) => {
                let source = object.source;
                self.lease(object, leased_at, |totals| match source {
                    Source::Idle => &totals.waited,
                    Source::Dial => &totals.dialled,
                    Source::Handover => &totals.handed_over,
                })
            }
            Ok(Err(error)) => Err(self.refuse(error)),
            Err(phase) => {
                state.totals.timeout.add();
                Err(self.timed_out(waited, phase))
            }
        }
    }

    pub(crate) fn timed_out(&self, waited: Duration, phase: Phase) -> AcquireError<C::Error> {
        AcquireError::Timeout {
            waited,
            phase,
            status: self.status(),
            last_dial_error: self.handles.pool.manager().handover.last_error(),
        }
    }

    pub(crate) fn unavailable(&self, retry_at: Option<Instant>) -> AcquireError<C::Error> {
        AcquireError::Unavailable {
            last_dial_error: self.handles.pool.manager().handover.last_error(),
            retry_at,
            status: self.status(),
        }
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.handles.state
    }

    fn lease(
        &self,
        object: Object<Manager<C>>,
        leased_at: Option<&'static Location<'static>>,
        outcome: impl FnOnce(&Counts) -> &Count,
    ) -> Result<Lease<C>, AcquireError<C::Error>> {
        let state = &self.handles.state;
        let lease = Lease::new(object, state, leased_at);
        // deadpool hands out what was on its way when it was closed.
        if state.is_closed() {
            return Err(self.refuse_closed());
        }
        outcome(&state.totals).add();
        Ok(lease)
    }

    fn refuse_closed(&self) -> AcquireError<C::Error> {
        let state = &self.handles.state;
        state.totals.closed.add();
        // There is no keeper any more to do it.
        state.publish();
        AcquireError::Closed
    }

    fn refuse(&self, error: PoolError<CreateError>) -> AcquireError<C::Error> {
        match error {
            PoolError::Backend(CreateError::Refused(Refusal::Unavailable { retry_at })) => {
                self.handles.state.totals.unavailable.add();
                self.unavailable(retry_at)
            }
            // The others need timeouts or hooks of deadpool's, or an attempt that may not connect.
            PoolError::Backend(CreateError::Refused(Refusal::Closed) | CreateError::NotAllowed)
            | PoolError::Closed
            | PoolError::Timeout(_)
            | PoolError::NoRuntimeSpecified
            | PoolError::PostCreateHook(_) => self.refuse_closed(),
        }
    }

    /// Leases an idle member, if there is one that is fit; it neither waits nor connects. One that
    /// lay idle for `check_after` and does not answer its check without waiting is closed.
    #[track_caller]
    pub fn try_get(&self) -> Option<Lease<C>> {
        let leased_at = Location::caller();
        let Handles { pool, state, .. } = &*self.handles;
        let immediate = Attempt::immediate(state.clone());
        let attempt = pin!(ATTEMPT.scope(immediate, pool.timeout_get(&DO_NOT_WAIT)));
        // What is pending is a check, of a member that is closed if it is not awaited.
        match attempt.poll(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(object)) => self
                .lease(object, Some(leased_at), |totals| &totals.immediate)
                .ok(),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }

    /// Has this many members connected, at most `max_size`, and idle at the end: it leases them
    /// all at once and gives them back. No more than `max_idle` of them stay.
    ///
    /// If the future is dropped, what is connected stays.
    ///
    /// # Errors
    ///
    /// As [`get_with`](Self::get_with), at the first that fails. What is connected stays.
    #[track_caller]
    pub fn warm_up(
        &self,
        members: usize,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), AcquireError<C::Error>>> + Send {
        let leased_at = Location::caller();
        let members = members.min(self.handles.state.max_size());
        async move {
            let mut leases = JoinSet::new();
            for _ in 0..members {
                let pool = self.clone();
                let lease = async move { pool.acquire(Some(deadline), Some(leased_at)).await };
                leases.spawn_on(lease, &self.handles.state.runtime);
            }
            let mut leased = Vec::new();
            while let Some(lease) = leases.join_next().await {
                match lease.map_err(JoinError::try_into_panic) {
                    Ok(lease) => leased.push(lease),
                    // The user's check has panicked.
                    Err(Ok(panic)) => resume_unwind(panic),
                    // The pool's runtime is gone.
                    Err(Err(_cancelled)) => leased.push(Err(self.refuse_closed())),
                }
            }
            leased.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
        }
    }

    /// The pool in numbers, now.
    pub fn status(&self) -> Status {
        self.handles.state.status()
    }

    /// What the pool has done so far.
    pub fn totals(&self) -> Totals {
        self.handles.state.totals()
    }

    /// Has the pool's metrics go to the recorder of the calling thread, or of the process, as it is
    /// now: for a recorder that was installed after the pool was made.
    ///
    /// Counters count from this call on. See [`describe_metrics`](crate::describe_metrics).
    pub fn rebind_metrics(&self) {
        self.handles.state.rebind_metrics();
    }

    /// The options it was made with.
    pub fn config(&self) -> &PoolConfig {
        &self.handles.state.config
    }

    /// The leases that are held for longer than `leak_after`, the longest first; none if that is
    /// `never`.
    pub fn overdue_leases(&self) -> Vec<OverdueLease> {
        let leaks = self.handles.state.leaks.as_ref();
        leaks.map(Leaks::overdue).unwrap_or_default()
    }

    /// Changes how many members there may be, from 1 to 65,535.
    ///
    /// If there are more, idle ones are closed at once and leased ones when they are returned.
    ///
    /// # Errors
    ///
    /// That `max_size` is out of range; nothing is changed then.
    pub fn resize(&self, max_size: usize) -> Result<(), ConfigErrors> {
        let Handles { pool, state, .. } = &*self.handles;
        let mut config = state.config.clone();
        config.max_size = max_size;
        config.min_idle = config.min_idle.min(max_size);
        config.validate()?;
        let _resizing = (state.resizing.lock()).unwrap_or_else(PoisonError::into_inner);
        // deadpool only ever grows: its shrinking loses count of permits. A call that gets one of
        // those that are too many waits for a connection instead, in the same order.
        if pool.status().max_size < max_size {
            pool.resize(max_size);
        }
        state.set_max_size(max_size);
        Ok(())
    }

    /// Retires every member there is: idle ones at once, leased ones when they are returned; and
    /// forgets all failures, so that endpoints that have refused are dialled again.
    ///
    /// For when something has changed that every member depends on: credentials were wrong and have
    /// been mended, a key has leaked.
    pub fn clear(&self) {
        self.retire(Duration::ZERO);
    }

    /// Retires every member there is now, spread over this time, so that the servers do not see
    /// them all connect again at once. Leased ones go when they are returned. As with
    /// [`clear`](Self::clear), failures are forgotten: what has been refused may now be welcome.
    ///
    /// For what old connections may live with for a while: a certificate has been renewed. What is
    /// retiring already does not get longer than it had.
    pub fn retire(&self, over: Duration) {
        // In this order: a refusal that is of the new generation is one that came after this.
        self.handles.state.endpoints.forgive();
        self.handles.state.generation.advance(over);
        self.handles.state.on_death();
    }

    /// Waits until the pool is closed by one of its handles; its members may still be closing. For
    /// tasks that look after it, which keep it alive by having a handle themselves.
    pub async fn closed(&self) {
        self.handles.state.closed().await;
    }

    /// Whether the pool is closed, by one of its handles or because its runtime is gone.
    pub fn is_closed(&self) -> bool {
        self.handles.state.is_closed()
    }

    /// Closes the pool.
    ///
    /// From now on calls get [`AcquireError::Closed`], those that wait included. Idle members are
    /// closed now, leased ones when they are returned; this waits for the idle ones, at most
    /// `close_timeout`. If the future is dropped, the pool is closed all the same.
    pub async fn close(&self) {
        shut(&self.handles.pool, &self.handles.state);
        let state = &self.handles.state;
        let _ = timeout(
            state.config.close_timeout,
            state.until(|state| state.closing.value() == 0),
        )
        .await;
    }

    /// Closes the pool as [`close`](Self::close) does, and waits until the leases are returned and
    /// every member is closed, or until the deadline. It says what is left then.
    ///
    /// If the future is dropped, the pool is closed all the same.
    pub async fn drain(&self, deadline: Instant) -> DrainReport {
        let (state, started) = (&self.handles.state, Instant::now());
        let before = state.totals.all_gone();
        shut(&self.handles.pool, &self.handles.state);
        // A place is held from the beginning of a dial to the end of a goodbye.
        let empty = state.until(|state| state.places.value() == 0 && state.closing.value() == 0);
        let _ = timeout_at(deadline, empty).await;
        // In the order in which a member goes through them, so that none is missed. One that was
        // returned just now is neither leased any more nor closing yet, but has its place.
        let in_use = state.in_use.value();
        let leaving = state.places.value().saturating_sub(in_use);
        // The program may end now: let its recorder have the end of it.
        state.publish();
        DrainReport {
            took: started.elapsed(),
            closed: state.totals.all_gone() - before,
            in_use,
            closing: state.closing.value().max(leaving),
        }
    }
}

/// Closes a pool, without waiting.
pub(crate) fn shut<C: Connect>(pool: &managed::Pool<Manager<C>>, state: &State) {
    state.set_closed();
    pool.manager().handover.close();
    // Before deadpool's `close`, which drops idle members under its lock; and after it, for what
    // was returned in between.
    drop(pool.retain(|_, _| false).removed);
    {
        let _resizing = (state.resizing.lock()).unwrap_or_else(PoisonError::into_inner);
        pool.close();
    }
    drop(pool.retain(|_, _| false).removed);
}

/// As far ahead as is sensible, where the time is too long.
pub(crate) fn after(now: Instant, time: Duration) -> Instant {
    const YEARS: Duration = Duration::from_secs(30 * 365 * 86_400);
    now + time.min(YEARS)
}

impl<C: Connect> Drop for Handles<C> {
    fn drop(&mut self) {
        // Ends the keeper. The idle members go with `pool` and with the shelf.
        self.state.set_closed();
        self.pool.manager().handover.close();
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
