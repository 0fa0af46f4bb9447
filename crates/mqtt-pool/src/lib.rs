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
//! Leasing an idle member does no I/O and arms no timer. All times are tokio's, so that tests can
//! pause them.

mod config;
mod connect;
mod endpoint;
mod error;
mod lease;
mod maintainer;
mod manager;
mod member;
mod pool;
mod slots;
mod state;
mod status;

pub use config::{BackoffConfig, OnUnavailable, PoolConfig};
pub use connect::{Connect, ConnectContext, Pooled};
pub use endpoint::WeightedEndpoint;
pub use error::{AcquireError, Phase};
pub use lease::Lease;
pub use pool::Pool;
pub use status::Status;

#[doc(no_inline)]
pub use mqtt_transport::{ConfigError, ConfigErrors, Endpoint, Limit, ParseLimitError};
