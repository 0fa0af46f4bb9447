//! The task of a registry: it closes sessions that are idle for too long, or in the way.

use std::{convert::Infallible, sync::Arc, time::Duration};

use mqtt_pool::Limit;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use crate::registry::book::Book;

/// How long who waits for room may wait for a session unseen.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    book: Arc<Book>,
    /// Ends with the last handle.
    alive: oneshot::Receiver<Infallible>,
    period: Duration,
    next_sweep: Instant,
}

impl Keeper {
    pub(super) fn new(book: Arc<Book>, alive: oneshot::Receiver<Infallible>) -> Self {
        let period = period(book.config.idle_timeout);
        Self {
            book,
            alive,
            period,
            next_sweep: Instant::now() + period,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let now = Instant::now();
            if now >= self.next_sweep {
                self.book.sweep(now);
                self.next_sweep = now + self.period;
            }
            let expiry = self.book.expire(now);
            self.book.make_room(now);
            let mut next = expiry.map_or(self.next_sweep, |expiry| expiry.min(self.next_sweep));
            if self.book.is_wanted() {
                // What had something open may have nothing open soon.
                next = next.min(now + TICK);
            }
            tokio::select! {
                biased;
                () = self.book.closed() => return,
                _ = &mut self.alive => return,
                () = self.book.woken() => {}
                () = sleep_until(next) => {}
            }
        }
    }
}

/// Also when the runtime goes: nobody would make room for those who wait.
impl Drop for Keeper {
    fn drop(&mut self) {
        self.book.close();
    }
}

/// How long a session that is over may occupy its place unseen.
fn period(idle_timeout: Limit) -> Duration {
    let quarter = idle_timeout.duration().map(|timeout| timeout / 4);
    quarter.unwrap_or(Duration::MAX).clamp(TICK, TICK * 10)
}
