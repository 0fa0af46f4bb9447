//! What is measured, and of whom.

use std::{fmt, str::FromStr};

use crate::Error;

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "not a published crate")]
pub enum Work {
    /// Publish at QoS 0; the last message at QoS 1, so that all of it has arrived at the end.
    Publish0,
    /// Publish at QoS 1 with so many unacknowledged; an operation ends at its PUBACK.
    Publish1(u16),
    /// Receive at QoS 0.
    Receive0,
    /// Receive at QoS 1, acknowledged, at most [`WINDOW`](crate::WINDOW) unacknowledged.
    Receive1,
    /// Connect, publish once at QoS 1, await the PUBACK, disconnect.
    Short,
    /// Hold idle connections: the figure is resident memory of each.
    Idle,
}

impl Work {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Publish0,
        Self::Publish1(1),
        Self::Publish1(100),
        Self::Publish1(1000),
        Self::Receive0,
        Self::Receive1,
        Self::Short,
        Self::Idle,
    ];

    /// Operations in one run: enough for about a second of the cheapest contender but raw.
    pub fn operations(self) -> u64 {
        match self {
            Self::Publish0 | Self::Receive0 => 2_000_000,
            Self::Publish1(1) => 50_000,
            Self::Publish1(_) | Self::Receive1 => 500_000,
            Self::Short => 5_000,
            Self::Idle => 1_000,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish0 => f.write_str("pub0"),
            Self::Publish1(in_flight) => write!(f, "pub1-k{in_flight}"),
            Self::Receive0 => f.write_str("recv0"),
            Self::Receive1 => f.write_str("recv1"),
            Self::Short => f.write_str("short"),
            Self::Idle => f.write_str("idle"),
        }
    }
}

impl FromStr for Work {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|work| work.to_string() == name);
        found.ok_or_else(|| format!("no work is called {name}").into())
    }
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "not a published crate")]
pub enum Contender {
    /// A socket and the bytes, no protocol: the floor.
    Raw,
    /// This project, MQTT 3.1.1.
    Ours3,
    /// This project, MQTT 5.0.
    Ours5,
    /// rumqttc, MQTT 3.1.1.
    Rumqttc,
}

impl Contender {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Ours3, Self::Ours5, Self::Rumqttc];
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Ours3 => "ours-3.1.1",
            Self::Ours5 => "ours-5.0",
            Self::Rumqttc => "rumqttc-3.1.1",
        })
    }
}

impl FromStr for Contender {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL
            .into_iter()
            .find(|contender| contender.to_string() == name);
        found.ok_or_else(|| format!("no contender is called {name}").into())
    }
}

/// What one run of a client says of itself: a line of numbers.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs, reason = "not a published crate")]
pub struct Report {
    /// Operations counted.
    pub operations: u64,
    /// CPU time of the process in them, in nanoseconds; for `idle`, bytes of resident memory.
    pub cost: u64,
    /// Wall time of them, in nanoseconds.
    pub wall: u64,
}

impl Report {
    /// A report.
    pub fn new(operations: u64, cost: u64, wall: u64) -> Self {
        Self {
            operations,
            cost,
            wall,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.operations, self.cost, self.wall)
    }
}

impl FromStr for Report {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self, Error> {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        match numbers.as_slice() {
            &[operations, cost, wall] => Ok(Self {
                operations,
                cost,
                wall,
            }),
            _ => Err(format!("not a report: {line:?}").into()),
        }
    }
}
