//! Measurements beside other clients, in one run.
//!
//! `measures` is one program with three roles. The parent starts, for each work and each contender,
//! a [`sink`] and a client, both pinned to one processor, and reads what the client reports: its own
//! CPU time and wall time per operation. A contender is a module of [`contender`]; a work is a
//! [`Work`].
//!
//! [`tls`] and [`mod@pool`] are programs of their own: what the TLS backends cost beside each other, and
//! what pools do.

pub mod contender;
pub mod pool;
pub mod process;
pub mod role;
pub mod sink;
mod table;
pub mod tls;
mod work;

pub use work::{Contender, Report, Work};

/// What any part of a measurement may fail with.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The payload of every message, in bytes.
pub const PAYLOAD: usize = 64;

/// The topic of published messages.
pub const TOPIC: &str = "bench/telemetry/7";

/// The window of the contenders, and of the sink when it sends at QoS 1.
pub const WINDOW: u16 = 1000;

/// Any number of operations as a float, for ratios.
pub fn float(n: u64) -> f64 {
    f64::from(u32::try_from(n >> 16).unwrap_or(u32::MAX)) * 65_536.0
        + f64::from(u32::try_from(n & 0xFFFF).unwrap_or(0))
}
