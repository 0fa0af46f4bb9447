//! The task that keeps the positions of a shared pool filled.
//!
//! Its one rule: make before break. A member that is due is replaced when its successor is there,
//! not before; one that is dead is taken out at once. The task holds the shared pool weakly, and
//! ends with its last handle and when the pool is closed.

use std::{
    convert::Infallible,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use crate::{
    AcquireError, Connect, Lease,
    pool::after,
    shared::{Inner, Refused},
    state::State,
    totals::Reason,
};

/// How long a member that is due, or died without a notice, may go unseen.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct Filler<C: Connect> {
    inner: Weak<Inner<C>>,
    state: Arc<State>,
    /// Ends with the last handle.
    alive: oneshot::Receiver<Infallible>,
    leases: JoinSet<Leased<C>>,
    /// For each position the task that gets a lease for it, while there is one, and the
    /// generation in which that began.
    pending: Vec<Option<(Id, u64)>>,
}

type Leased<C> = Result<Lease<C>, AcquireError<<C as Connect>::Error>>;

impl<C: Connect> Filler<C> {
    pub(super) fn new(inner: &Arc<Inner<C>>, alive: oneshot::Receiver<Infallible>) -> Self {
        Self {
            inner: Arc::downgrade(inner),
            state: inner.pool.state().clone(),
            alive,
            leases: JoinSet::new(),
            pending: vec![None; inner.positions.len()],
        }
    }

    pub(super) async fn run(mut self) {
        let state = self.state.clone();
        loop {
            let changed = state.changed();
            let Some(next) = self.round() else { return };
            tokio::select! {
                biased;
                () = state.closed() => break,
                _ = &mut self.alive => return,
                Some(leased) = self.leases.join_next_with_id() => self.on_leased(leased),
                () = changed => {}
                () = sleep_until(next) => {}
            }
        }
        if let Some(inner) = self.inner.upgrade() {
            for position in &inner.positions {
                position.take_out();
            }
            inner.changed.notify_waiters();
        }
    }

    /// Takes out what is dead and asks for what is missing. It says when to come back; `None`: the
    /// last handle is gone.
    fn round(&mut self) -> Option<Instant> {
        let inner = self.inner.upgrade()?;
        let now = Instant::now();
        let mut next = now + TICK;
        let refused = inner.refused.load_full();
        let may_ask = match refused {
            Some(refused) if !refused.is_over(&self.state, now) => {
                next = refused.retry_at.map_or(next, |retry_at| next.min(retry_at));
                false
            }
            Some(_) => {
                inner.refused.store(None);
                true
            }
            None => true,
        };
        for (position, pending) in inner.positions.iter().zip(&mut self.pending) {
            let fit = position
                .look()
                .as_ref()
                .map_or(Err(Reason::Dead), |member| member.lease.fit(now));
            if fit == Err(Reason::Dead) {
                position.take_out();
            }
            if fit.is_err() && may_ask && pending.is_none() {
                let pool = inner.pool.clone();
                // It waits in the pool's queue like any caller, without haste.
                let deadline = after(now, Duration::MAX);
                let lease = async move { pool.acquire(Some(deadline), None).await };
                let generation = self.state.generation.current();
                let task = self.leases.spawn_on(lease, &self.state.runtime);
                *pending = Some((task.id(), generation));
            }
        }
        Some(next)
    }

    fn on_leased(&mut self, leased: Result<(Id, Leased<C>), JoinError>) {
        let (id, leased) = match leased {
            Ok((id, leased)) => (id, Some(leased)),
            // The user's check has panicked.
            Err(error) => (error.id(), None),
        };
        let Some(inner) = self.inner.upgrade() else {
            return;
        };
        for (position, pending) in inner.positions.iter().zip(&mut self.pending) {
            if let Some((_, generation)) = pending.take_if(|(pending, _)| *pending == id) {
                // The next round asks again for what is not put in.
                match leased {
                    Some(Ok(lease)) => {
                        inner.refused.store(None);
                        if lease.fit(Instant::now()).is_ok() {
                            position.put(lease);
                        }
                    }
                    Some(Err(AcquireError::Unavailable { retry_at, .. })) => {
                        let refused = Refused {
                            retry_at,
                            generation,
                        };
                        inner.refused.store(Some(Arc::new(refused)));
                        inner.changed.notify_waiters();
                    }
                    Some(Err(AcquireError::Timeout { .. } | AcquireError::Closed)) | None => {}
                }
                return;
            }
        }
    }
}
