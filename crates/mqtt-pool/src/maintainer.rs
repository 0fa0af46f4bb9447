//! The task that closes idle members which are no longer fit, or too many.
//!
//! It holds the pool weakly and ends as soon as the pool is closed or its last handle is dropped.

use std::{sync::Arc, time::Duration};

use deadpool::managed::{Pool, WeakPool};
use tokio::time::{Instant, sleep};

use crate::{Connect, PoolConfig, manager::Manager, state::State};

pub(crate) async fn maintain<C: Connect>(pool: WeakPool<Manager<C>>, state: Arc<State>) {
    let period = period(&state.config);
    loop {
        tokio::select! {
            biased;
            () = state.closed() => return,
            () = sleep(period) => {}
        }
        let Some(pool) = pool.upgrade() else { return };
        sweep(&pool, &state);
    }
}

/// Often enough that nothing outlives its limit by more than a quarter.
fn period(config: &PoolConfig) -> Duration {
    [config.idle_timeout, config.max_lifetime]
        .into_iter()
        .filter_map(|limit| limit.duration())
        .map(|limit| limit / 4)
        .fold(Duration::from_secs(30), Duration::min)
        .max(Duration::from_secs(1))
}

fn sweep<C: Connect>(pool: &Pool<Manager<C>>, state: &State) {
    let now = Instant::now();
    let wanted = state.config.max_idle.saturating_add(state.queued.value());
    let mut surplus = state.idle.value().saturating_sub(wanted);
    let swept = pool.retain(|member, _| {
        // The members come from the one that is idle for longest.
        if surplus > 0 {
            surplus -= 1;
            return false;
        }
        member.is_fit(now)
    });
    // The lock is free again; each closes in a task of its own as it is dropped.
    drop(swept.removed);
}
