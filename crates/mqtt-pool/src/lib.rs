//! A pool of connections or sessions with idle and lifetime recycling.
//!
//! What is pooled is anything that can say whether it [is usable](Pooled::is_usable) and can be
//! [closed](Pooled::close); a [`Connect`] makes it. A [`Pool`] hands it out as a [`Lease`], which
//! gives it back on drop.
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use mqtt_pool::{Connect, ConnectContext, Limit, Pool, PoolConfig, Pooled};
//!
//! struct Line(String);
//!
//! impl Pooled for Line {
//!     fn is_usable(&self) -> bool {
//!         true
//!     }
//!     async fn close(self) {}
//! }
//!
//! struct Dial;
//!
//! impl Connect for Dial {
//!     type Connection = Line;
//!     type Error = Infallible;
//!
//!     async fn connect(&self, context: ConnectContext) -> Result<Line, Infallible> {
//!         // No two live members have the same slot.
//!         Ok(Line(format!("gateway-{}", context.slot())))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = PoolConfig::default()
//!     .with_max_size(4)
//!     .with_idle_timeout(Limit::After(Duration::from_secs(60)));
//! let pool = Pool::new(Dial, config)?;
//!
//! let first = pool.get().await?;
//! assert_eq!(first.0, "gateway-0");
//! drop(first); // goes back
//! assert_eq!(pool.get().await?.0, "gateway-0");
//!
//! pool.close().await;
//! assert!(pool.get().await.is_err());
//! # Ok(())
//! # }
//! ```
//!
//! Its one contract: **work is never interrupted, and nothing is left behind.** A member's age and
//! health are looked at when it is leased, returned or idle, not while somebody holds it. Whatever
//! leaves the pool is closed in a task of its own, bounded by `close_timeout`, and a call that
//! fails or is dropped gives back its place and its slot.
//!
//! - **Dials are the pool's, not the caller's.** At most `max_connecting` run at once; a caller that
//!   gives up leaves its dial to the next; a member that is returned goes to the caller that waits for
//!   longest, also if that one was waiting for a dial. So a herd of callers is not a herd of handshakes.
//! - **A server that refuses is left in peace.** Each endpoint has one backoff with full jitter, and
//!   only a stable period resets it. A refusal that another attempt will not mend stops the dialling
//!   and is told to the callers at once.
//! - **The server never sees more than `max_size`.** What is being connected counts, and what is
//!   saying goodbye.
//! - **Members are young and few.** Idle time counts from the return, lifetimes are drawn once and only
//!   early, `min_idle` are kept warm, generations are [retired](Pool::retire).
//!
//! A lease is for work that needs a member to itself. A [`SharedPool`] lets many callers use a few
//! members at once, as for publishing, and replaces each before the old one goes.
//!
//! Leasing an idle member does no I/O and arms no timer. All times are tokio's, so that tests can
//! pause them.

mod backoff;
mod budget;
mod config;
mod connect;
mod dialled;
mod endpoint;
mod endpoints;
mod error;
mod gate;
mod generation;
mod handover;
mod keeper;
mod leaks;
mod lease;
mod manager;
mod member;
mod metrics;
mod place;
mod pool;
mod service;
mod shared;
mod state;
mod status;
mod totals;

use std::time::Duration;

pub use self::metrics::{SECONDS_BUCKETS, describe_metrics};
pub use budget::DialBudget;
pub use config::{BackoffConfig, OnUnavailable, PoolConfig};
pub use connect::{Connect, ConnectContext, DeathNotice, Pooled};
pub use dialled::Dialled;
pub use endpoint::WeightedEndpoint;
pub use error::{AcquireError, DialError, Phase};
pub use gate::{DialGate, DialOutcome, DialTurn};
pub use leaks::OverdueLease;
pub use lease::Lease;
pub use pool::Pool;
pub use service::{ServiceConnect, ServiceError};
pub use shared::{Shared, SharedConfig, SharedPool, SharedStatus};
pub use status::{DrainReport, Status};
pub use totals::{AcquireTotals, ClosedTotals, ConnectTotals, Totals};

#[doc(no_inline)]
pub use mqtt_transport::{ConfigError, ConfigErrors, Endpoint, Limit, ParseLimitError};

/// This share, from 0.0 to 1.0, of a time.
fn part(time: Duration, share: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * share).map_or(time, |part| part.min(time))
}
