//! What deadpool asks for: a member where it has none, and whether one that it has is fit.

use std::{cell::Cell, sync::Arc};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use tokio::time::{Instant, timeout};

use crate::{
    Connect, Limit, Phase, Pooled,
    handover::{Handover, Refusal},
    member::Member,
    state::State,
    totals::Reason,
};

#[derive(Debug)]
pub(crate) struct Manager<C: Connect> {
    pub(crate) connect: Arc<C>,
    pub(crate) handover: Arc<Handover<C>>,
    state: Arc<State>,
}

/// Why there is no new member.
#[derive(Debug)]
pub(crate) enum CreateError {
    Refused(Refusal),
    /// The call takes idle members only.
    NotAllowed,
}

tokio::task_local! {
    /// The call of the pool on whose behalf deadpool calls the manager. deadpool does not tell.
    pub(crate) static ATTEMPT: Attempt;
}

/// A call that is slower than most, or takes idle members only.
pub(crate) struct Attempt {
    state: Arc<State>,
    may_connect: bool,
    phase: Cell<Phase>,
}

impl Attempt {
    /// An attempt that waits and connects.
    pub(crate) fn patient(state: Arc<State>) -> Self {
        state.queued.add();
        Self {
            state,
            may_connect: true,
            phase: Cell::new(Phase::Queue),
        }
    }

    /// An attempt that takes an idle member or none.
    pub(crate) fn immediate(state: Arc<State>) -> Self {
        Self {
            state,
            may_connect: false,
            phase: Cell::new(Phase::Connect),
        }
    }

    /// What the user's check asks of pools: it is no part of the attempt that checks.
    fn of_check(state: Arc<State>) -> Self {
        Self {
            state,
            may_connect: true,
            phase: Cell::new(Phase::Connect),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Leaves the queue to wait for a connection, if that is allowed.
    fn begin_connect(&self) -> bool {
        if self.phase.replace(Phase::Connect) == Phase::Queue {
            self.state.queued.remove();
        }
        self.may_connect
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.begin_connect();
    }
}

impl<C: Connect> Manager<C> {
    pub(crate) fn new(connect: Arc<C>, state: Arc<State>) -> Self {
        Self {
            connect,
            handover: Arc::new(Handover::new(state.clone())),
            state,
        }
    }
}

impl<C: Connect> managed::Manager for Manager<C> {
    type Type = Box<Member<C::Connection>>;
    type Error = CreateError;

    async fn create(&self) -> Result<Self::Type, Self::Error> {
        if let Some(member) = self.handover.take_spare() {
            return Ok(member);
        }
        if !ATTEMPT.try_with(Attempt::begin_connect).unwrap_or(true) {
            return Err(CreateError::NotAllowed);
        }
        self.handover.wait().await.map_err(CreateError::Refused)
    }

    async fn recycle(&self, member: &mut Self::Type, _: &Metrics) -> RecycleResult<Self::Error> {
        let now = Instant::now();
        let fit = member.fit(now);
        let idle = member.unpark(now);
        if let Err(reason) = fit {
            member.condemn(reason);
            return Err(RecycleError::message("not fit to be handed out"));
        }
        if let Limit::After(after) = self.state.config.check_after
            && idle >= after
        {
            // If the caller gives up meanwhile, what it was checking goes as well.
            member.condemn(Reason::Check);
            let check_timeout = self.state.config.check_timeout;
            let answers = match member.connection_mut() {
                Some(connection) => {
                    let attempt = Attempt::of_check(self.state.clone());
                    let check = ATTEMPT.scope(attempt, connection.check());
                    timeout(check_timeout, check).await.unwrap_or(false)
                }
                None => false,
            };
            if !answers {
                return Err(RecycleError::message("failed its check"));
            }
            member.pardon();
        }
        Ok(())
    }
}
