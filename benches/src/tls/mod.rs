//! What TLS costs a client, by backend: handshakes, suites, and the time until a server's first word.
//!
//! The program is the client, pinned to processor 0; each server is the same program in another role
//! (`server`), pinned to processor 1. A table is a module and does its own rounds: in each, every
//! cell has its turn, so that what disturbs the machine disturbs them alike.

mod client;
pub mod connack;
pub mod handshakes;
mod pki;
pub mod server;
pub mod suites;

use std::{
    process,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use crate::{
    Error,
    role::{self, Placing},
};

/// The provider of rustls; a program has one.
pub const PROVIDER: &str = if cfg!(feature = "aws-lc-rs") {
    "aws-lc-rs"
} else {
    "ring"
};

/// How much is done.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs, reason = "not a published crate")]
pub struct Effort {
    /// Turns of each cell.
    pub rounds: u32,
    /// Handshakes in one turn.
    pub handshakes: u32,
    /// Connections to mosquitto in one turn.
    pub connacks: u32,
    /// Bytes after which the other side answers, in a measurement of throughput.
    pub exchange: usize,
    /// How long one lasts at least.
    pub bulk: Duration,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            rounds: 10,
            handshakes: 30,
            connacks: 3,
            exchange: 16 << 20,
            bulk: Duration::from_millis(300),
        }
    }
}

impl Effort {
    /// That everything works, not how fast.
    pub fn smoke() -> Self {
        Self {
            rounds: 1,
            handshakes: 2,
            connacks: 1,
            exchange: 1 << 20,
            bulk: Duration::ZERO,
        }
    }
}

/// What the tables share.
#[derive(Debug)]
pub struct Bench {
    effort: Effort,
    servers: Placing,
    /// Of one thread, this one: what it does is what a client is charged for.
    runtime: Runtime,
    failures: u32,
}

impl Bench {
    /// Pins this process, and says where processes run.
    pub fn new(effort: Effort) -> Result<Self, Error> {
        let pid = process::id().to_string();
        let pinned = role::works("taskset", &["--cpu-list", "--pid", "0", &pid]);
        let servers = Placing {
            processor: role::works("taskset", &["--cpu-list", "1", "true"]).then_some("1"),
            batch: false,
        };
        println!(
            "client {}, servers {}; rustls with {PROVIDER}; {} rounds",
            if pinned {
                "on processor 0"
            } else {
                "not pinned"
            },
            match servers.processor {
                Some(_) => "on processor 1",
                // They inherit it.
                None if pinned => "on processor 0 too",
                None => "not pinned",
            },
            effort.rounds
        );
        Ok(Self {
            effort,
            servers,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            failures: 0,
        })
    }

    /// How many things failed so far. Each was reported when it did.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Runs `work` in a task, as most programs do.
    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.runtime.block_on(async { tokio::spawn(work).await })?
    }

    /// What `outcome` holds, or a report of the failure.
    fn noted<T>(&mut self, what: &str, outcome: Result<T, Error>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                self.failures += 1;
                eprintln!("{what}: {}", with_causes(&*error));
                None
            }
        }
    }
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[allow(clippy::disallowed_methods, reason = "real time is what is measured")]
fn now() -> Instant {
    Instant::now()
}
