//! deadpool's [`Manager`]: connects new members and judges idle ones, without I/O.

use std::{
    cell::Cell,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use tokio::time::{Instant, timeout};

use crate::{
    Connect, Phase,
    connect::ConnectContext,
    member::Member,
    state::{Counted, State},
};

#[derive(Debug)]
pub(crate) struct Manager<C: Connect> {
    connect: C,
    state: Arc<State>,
    last_error: Mutex<Option<Arc<C::Error>>>,
}

/// Why there is no new member.
#[derive(Debug)]
pub(crate) enum CreateError<E> {
    Connect(Arc<E>),
    TimedOut,
    Closed,
    /// The attempt takes idle members only.
    NotAllowed,
}

tokio::task_local! {
    /// The call of the pool on whose behalf deadpool calls the manager. deadpool does not tell.
    pub(crate) static ATTEMPT: Attempt;
}

/// One call that wants a lease.
pub(crate) struct Attempt {
    may_connect: bool,
    phase: Cell<Phase>,
    queued: Cell<Option<Counted>>,
}

impl Attempt {
    /// An attempt that waits and connects.
    pub(crate) fn patient(state: &State) -> Self {
        Self {
            may_connect: true,
            phase: Cell::new(Phase::Queue),
            queued: Cell::new(Some(state.queued.count())),
        }
    }

    /// An attempt that takes an idle member or none.
    pub(crate) fn immediate() -> Self {
        Self {
            may_connect: false,
            phase: Cell::new(Phase::Queue),
            queued: Cell::new(None),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Leaves the queue to connect, if that is allowed.
    fn begin_connect(&self) -> bool {
        self.phase.set(Phase::Connect);
        self.queued.set(None);
        self.may_connect
    }
}

impl<C: Connect> Manager<C> {
    pub(crate) fn new(connect: C, state: Arc<State>) -> Self {
        Self {
            connect,
            state,
            last_error: Mutex::new(None),
        }
    }

    pub(crate) fn last_error(&self) -> Option<Arc<C::Error>> {
        self.lock_last_error().clone()
    }

    fn lock_last_error(&self) -> MutexGuard<'_, Option<Arc<C::Error>>> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Connect> managed::Manager for Manager<C> {
    type Type = Member<C::Connection>;
    type Error = CreateError<C::Error>;

    async fn create(&self) -> Result<Self::Type, Self::Error> {
        if !ATTEMPT.try_with(Attempt::begin_connect).unwrap_or(true) {
            return Err(CreateError::NotAllowed);
        }
        let state = &self.state;
        let _connecting = state.connecting.count();
        // Declared before the connection, so that it is free only when the connection is gone.
        let slot = state.slots.lease();
        let context = ConnectContext {
            slot: slot.number(),
        };
        let connect = timeout(state.config.connect_timeout, self.connect.connect(context));
        let result = tokio::select! {
            biased;
            () = state.closed() => return Err(CreateError::Closed),
            result = connect => result,
        };
        match result {
            Ok(Ok(connection)) => {
                *self.lock_last_error() = None;
                Ok(Member::new(connection, slot, state.clone()))
            }
            Ok(Err(error)) => {
                let error = Arc::new(error);
                *self.lock_last_error() = Some(error.clone());
                Err(CreateError::Connect(error))
            }
            Err(_elapsed) => Err(CreateError::TimedOut),
        }
    }

    async fn recycle(&self, member: &mut Self::Type, _: &Metrics) -> RecycleResult<Self::Error> {
        let fit = member.is_fit(Instant::now());
        member.unpark();
        if fit {
            Ok(())
        } else {
            Err(RecycleError::message("not fit to be handed out"))
        }
    }
}
