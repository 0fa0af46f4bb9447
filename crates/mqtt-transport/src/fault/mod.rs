//! Connections that fail on purpose, for tests.
//!
//! A [`FaultPlan`] says what goes wrong and after which byte; [`Faulty`] does it to a connection,
//! [`FaultyConnector`] to those of a connector, by their number. The same plan does the same
//! thing every time: offsets are bytes since the connection was made, randomness has a seed, and
//! time is tokio's, which tests can pause.

mod conn;
mod connector;
mod plan;

pub use conn::Faulty;
pub use connector::{FaultyConnector, FaultyFuture};
pub use plan::{FaultHandle, FaultPlan};
