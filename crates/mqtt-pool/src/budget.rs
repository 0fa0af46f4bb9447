//! A bound on dials that several pools share.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

/// How many dials may run at once, and begin per second, over all pools that share it.
///
/// Servers count handshakes by the address they come from, and so does a gateway's processor,
/// whichever pool they are for. A dial that waits here waits in turn with those of the other
/// pools, its `connect_timeout` has not begun, and it is given up if nobody needs it any more.
///
/// Clones are handles to the same budget.
#[derive(Clone)]
pub struct DialBudget(Arc<Budget>);

struct Budget {
    at_once: Arc<Semaphore>,
    /// The time from one dial to the next, and when the next may begin.
    pace: Option<(Duration, Mutex<Option<Instant>>)>,
}

impl DialBudget {
    /// At most this many dials at once.
    pub fn new(at_once: NonZeroU32) -> Self {
        Self(Arc::new(Budget::new(at_once, None)))
    }

    /// At most this many dials at once, and at most this many begun per second, evenly spaced.
    pub fn with_rate(at_once: NonZeroU32, per_second: NonZeroU32) -> Self {
        let pace = Duration::from_secs(1) / per_second.get();
        Self(Arc::new(Budget::new(at_once, Some(pace))))
    }

    /// Waits for the turn of a dial, which lasts until the answer is dropped. `None`: it is not
    /// needed any more, and takes nothing from those that are.
    pub(crate) async fn turn(&self, is_needed: impl Fn() -> bool) -> Option<OwnedSemaphorePermit> {
        let Budget { at_once, pace } = &*self.0;
        // The semaphore is never closed.
        let turn = at_once.clone().acquire_owned().await.ok()?;
        let Some((pace, next)) = pace else {
            return is_needed().then_some(turn);
        };
        let mut next = next.lock().await;
        if let Some(next) = *next {
            sleep_until(next).await;
        }
        if !is_needed() {
            return None;
        }
        *next = Some(Instant::now() + *pace);
        Some(turn)
    }
}

impl Budget {
    fn new(at_once: NonZeroU32, pace: Option<Duration>) -> Self {
        let at_once = usize::try_from(at_once.get()).unwrap_or(usize::MAX);
        Self {
            at_once: Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS))),
            pace: pace.map(|pace| (pace, Mutex::new(None))),
        }
    }
}

impl fmt::Debug for DialBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pace = self.0.pace.as_ref().map(|(pace, _)| pace);
        f.debug_struct("DialBudget")
            .field("free", &self.0.at_once.available_permits())
            .field("pace", &pace)
            .finish()
    }
}
