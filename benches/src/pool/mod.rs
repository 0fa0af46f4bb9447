//! What pools cost and how they behave: `mqtt-pool` beside deadpool, on which it is built, and bb8.
//!
//! A part is a module and prints its own tables. In each round every pool has its turn with a new
//! pool and a new server, so that what disturbs the machine disturbs them alike.

pub mod checkout;
mod contender;
pub mod dialling;
pub mod fairness;
mod server;
pub mod sharing;

use std::time::Duration;

/// How much is done.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs, reason = "not a published crate")]
pub struct Effort {
    /// Turns of each pool with each work of `checkout`, and of each handle in `sharing`.
    pub rounds: u32,
    /// Checkouts in one turn, over all tasks; handles in one turn, for each thread.
    pub checkouts: usize,
    /// Turns of each pool in each scenario of `dialling` and in `fairness`.
    pub scenarios: u32,
    /// How long one turn of `fairness` lasts.
    pub contended: Duration,
    /// Whether it is only seen that everything works.
    pub is_smoke: bool,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            rounds: 15,
            checkouts: 256_000,
            scenarios: 3,
            contended: Duration::from_secs(2),
            is_smoke: false,
        }
    }
}

impl Effort {
    /// That everything works, not how fast.
    pub fn smoke() -> Self {
        Self {
            rounds: 1,
            checkouts: 1_000,
            scenarios: 1,
            contended: Duration::from_millis(100),
            is_smoke: true,
        }
    }
}
