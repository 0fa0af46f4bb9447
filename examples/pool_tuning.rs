//! A pool that is tuned by a file and the environment, and how to choose its numbers.
//!
//! ```text
//! cargo run -p examples --example pool_tuning                # with pool_tuning.toml
//! GATEWAY_POOL__MAX_SIZE=2 cargo run -p examples --example pool_tuning
//! GATEWAY_POOL__MAX_SIZE=0 GATEWAY_POOL__IDLE_TIMEOUT=30 \
//!     cargo run -p examples --example pool_tuning -- --check # every problem at once
//! ```
//!
//! `pool_tuning.toml` beside this file has every option. The variable for `max_size` in the section
//! `pool` is `GATEWAY_POOL__MAX_SIZE`: two underscores step into a section. Ends with status 1 if
//! anything is wrong, and then lists all of it.
//!
//! # How large a pool
//!
//! - **Leases that are held** for a request and its answer: `max_size` is at least the rate times the
//!   time that a lease is held (Little's law). 2,000 requests a second of 5 ms each keep 10 sessions
//!   busy; half as many again leaves room for peaks.
//! - **Sessions that are shared** need far fewer, since one session has many messages on their way:
//!   at least the rate times the time of an acknowledgement, divided by how many messages may wait
//!   for theirs (`max_in_flight`, or what the server allows if that is less). Begin with two to four
//!   for each server, and watch how callers wait.
//! - **Tasks that hold several leases at a time** can all wait for one another: with T tasks of M
//!   leases each, `max_size` is at least T × (M − 1) + 1, so that one of them always goes on. It is
//!   better to hold one.
//! - **Callers that wait for a small pool are cheaper than a large pool.** A server has a limit for
//!   the sessions of all processes together, each one costs it a handshake and memory, and more of
//!   them than it can serve at a time only wait there instead of here.
//!
//! # How configuration is read
//!
//! The crate `config` lays the variables over the file, and knows of each value where it is from.
//! What cannot be read is taken out and told, until the rest can be; then the rules of the rest are
//! checked, for which what was taken out is as if left out. So there is one account of everything.

use std::{
    error::Error, future::poll_fn, io::Write, pin::pin, process::ExitCode, task::Poll,
    time::Duration,
};

use config::{Config, ConfigError, Environment, File, FileFormat, Map, Value, ValueKind};
use mqtt_client::{
    PooledSessions, Publish, QoS, SessionConfig, SessionConnector,
    pool::{ConfigErrors, Pool, PoolConfig, WeightedEndpoint},
    transport::{ConnectorConfig, duration_text},
};
use mqtt_testkit::EmbeddedServer;
use serde::Deserialize;
use serde_path_to_error::Segment;
use tokio::time::Instant;

const HELP: &str = "\
pool_tuning [--config FILE] [--check]
  --config FILE   TOML (examples/pool_tuning.toml)
  --check         only says whether the configuration is right";

/// The most leases that are taken at a time.
const MAX_LEASES: usize = 4;

/// The messages whose leases are measured.
const MESSAGES: u32 = 1_000;

/// The whole configuration of a gateway.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Gateway {
    pub(crate) pool: PoolConfig,
    pub(crate) endpoints: Vec<WeightedEndpoint>,
    pub(crate) session: SessionSection,
    pub(crate) transport: ConnectorConfig,
}

/// What this gateway lets be chosen of its sessions.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SessionSection {
    client_id: String,
    #[serde(with = "duration_text")]
    keep_alive: Duration,
    max_in_flight: u16,
}

impl Default for SessionSection {
    fn default() -> Self {
        let config = SessionConfig::new("gateway");
        Self {
            client_id: config.client_id,
            keep_alive: config.keep_alive,
            max_in_flight: config.max_in_flight,
        }
    }
}

impl SessionSection {
    fn config(&self) -> SessionConfig {
        SessionConfig::new(&self.client_id)
            .with_keep_alive(self.keep_alive)
            .with_max_in_flight(self.max_in_flight)
    }
}

impl Gateway {
    /// Reads `file`, and over it the variables of this process, or those given instead.
    pub(crate) fn load(
        file: &str,
        variables: Option<Map<String, String>>,
    ) -> Result<Self, Vec<String>> {
        // Not `try_parsing`, which would make a number of a password that looks like one.
        let environment = Environment::with_prefix("GATEWAY")
            .prefix_separator("_")
            .separator("__")
            .source(variables);
        let values = Config::builder()
            .add_source(File::new(file, FileFormat::Toml))
            .add_source(environment)
            .build()
            // Not deserialised, which would lose where the values are from.
            .and_then(|config| config.cache.into_table())
            .map_err(|error| vec![error.to_string()])?;

        let mut problems = Vec::new();
        let gateway = Self::read(values, &mut problems);
        // Tables are not in the order of the file.
        problems.sort();
        gateway.check(&mut problems);
        if problems.is_empty() {
            Ok(gateway)
        } else {
            Err(problems)
        }
    }

    fn read(mut values: Map<String, Value>, problems: &mut Vec<String>) -> Self {
        if let Some(endpoints) = values.get_mut("endpoints") {
            split_at_commas(endpoints);
        }
        // Each turn takes a value out, so that it ends.
        loop {
            let error = match serde_path_to_error::deserialize(Value::from(values.clone())) {
                Ok(gateway) => return gateway,
                Err(error) => error,
            };
            let keys: Vec<&str> = error.path().iter().map_while(key).collect();
            let Some(value) = take_out(&mut values, &keys) else {
                problems.push(error.to_string());
                return Self::default();
            };
            let origin = value.origin().map(|origin| format!(" in {origin}"));
            problems.push(format!(
                "{}{}: {}",
                error.path(),
                origin.unwrap_or_default(),
                reason(error.inner())
            ));
        }
    }

    /// The rules, of each part under its own path.
    fn check(&self, problems: &mut Vec<String>) {
        let unreadable = |section: &str| problems.iter().any(|one| one.starts_with(section));
        let endpoints = if unreadable("endpoints") {
            Ok(())
        } else {
            WeightedEndpoint::validate_all(&self.endpoints)
        };
        let mut tell = |within: &str, result: Result<(), ConfigErrors>| {
            let errors = result.err().unwrap_or_default();
            problems.extend(errors.iter().map(|error| format!("{within}{error}")));
        };
        tell("", self.pool.validate());
        tell("", endpoints);
        tell("", self.session.config().validate());
        tell("transport.", self.transport.validate());
    }
}

/// A variable is one text: its commas make the list that a file has.
fn split_at_commas(value: &mut Value) {
    if let ValueKind::String(text) = &value.kind {
        let origin = value.origin().map(str::to_owned);
        let parts = text.split(',').map(str::trim);
        let list = parts.map(|part| Value::new(origin.as_ref(), part));
        value.kind = ValueKind::Array(list.collect());
    }
}

fn key(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Map { key } => Some(key),
        Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => None,
    }
}

/// Takes out what the keys lead to.
fn take_out(table: &mut Map<String, Value>, keys: &[&str]) -> Option<Value> {
    let (key, rest) = keys.split_first()?;
    if let ValueKind::Table(inner) = &mut table.get_mut(*key)?.kind
        && !rest.is_empty()
    {
        return take_out(inner, rest);
    }
    table.remove(*key)
}

/// What is wrong, without the path and the origin, which are told beside it.
fn reason(error: &ConfigError) -> String {
    if let ConfigError::At { error, .. } = error {
        return reason(error);
    }
    if let ConfigError::Type {
        unexpected,
        expected,
        ..
    } = error
    {
        return format!("{unexpected} where {expected} is expected");
    }
    error.to_string()
}

#[tokio::main]
async fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    run(std::env::args().skip(1), None, &mut out, &mut err).await
}

/// The program; `variables` are taken instead of those of the process.
pub(crate) async fn run(
    args: impl Iterator<Item = String>,
    variables: Option<Map<String, String>>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> ExitCode {
    let Some((file, only_check)) = parse(args) else {
        let _ = writeln!(err, "{HELP}");
        return ExitCode::FAILURE;
    };
    let problems = match Gateway::load(&file, variables) {
        Ok(gateway) => match show(gateway, only_check, out).await {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => chain(&*error),
        },
        Err(problems) => problems,
    };
    for problem in problems {
        let _ = writeln!(err, "{problem}");
    }
    ExitCode::FAILURE
}

fn chain(error: &dyn Error) -> Vec<String> {
    std::iter::successors(Some(error), |&error| error.source())
        .map(ToString::to_string)
        .collect()
}

/// The file, and whether it is only to be checked.
fn parse(mut args: impl Iterator<Item = String>) -> Option<(String, bool)> {
    let mut file = concat!(env!("CARGO_MANIFEST_DIR"), "/pool_tuning.toml").to_owned();
    let mut only_check = false;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--config" => file = args.next()?,
            "--check" => only_check = true,
            _ => return None,
        }
    }
    Some((file, only_check))
}

async fn show(
    gateway: Gateway,
    only_check: bool,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let max_size = gateway.pool.max_size;
    let weights: u32 = gateway.endpoints.iter().map(|one| one.weight).sum();
    writeln!(
        out,
        "pool      {}, at most {max_size} sessions",
        gateway.pool.name
    )?;
    for WeightedEndpoint {
        endpoint, weight, ..
    } in &gateway.endpoints
    {
        writeln!(
            out,
            "endpoint  {endpoint}, {weight} of {weights} parts of them"
        )?;
    }
    if only_check {
        writeln!(out, "the configuration is right")?;
        return Ok(());
    }

    let server = EmbeddedServer::start().await?;
    writeln!(
        out,
        "server    {}, in the place of all of them",
        server.url()
    )?;
    let transport = gateway.transport.connector().await?;
    let connector = SessionConnector::with_transport(transport, gateway.session.config())?;
    let sessions = PooledSessions::new(connector, server.url().parse()?);
    let pool = Pool::new(sessions, gateway.pool)?;

    watch(&pool, out).await?;
    measure(&pool, out).await?;

    pool.close().await;
    writeln!(out, "closed    {}", pool.status())?;
    server.stop().await?;
    Ok(())
}

/// The status of the pool while leases are taken, waited for and given back.
async fn watch(pool: &Pool<PooledSessions>, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    writeln!(out, "new       {}", pool.status())?;
    let few = pool.config().max_size.min(MAX_LEASES);
    let mut leases = Vec::new();
    for _ in 0..few {
        leases.push(pool.get().await?);
    }
    writeln!(out, "leased    {}", pool.status())?;

    // One more than there may be, if the pool is as small as that.
    let mut next = pin!(pool.get());
    let first = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
    writeln!(out, "wanted    {}", pool.status())?;
    leases.pop();
    let lease = match first {
        Poll::Ready(lease) => lease?,
        Poll::Pending => next.await?,
    };
    writeln!(out, "served    {}", pool.status())?;
    drop((lease, leases));
    writeln!(out, "returned  {}", pool.status())?;
    Ok(())
}

/// How long a lease is held for a message, and what follows for the size of the pool.
async fn measure(pool: &Pool<PooledSessions>, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut held = Duration::ZERO;
    for number in 0..MESSAGES {
        let session = pool.get().await?;
        let start = Instant::now();
        let publish = Publish::new("pool_tuning", number.to_string())?.with_qos(QoS::AtLeastOnce);
        session.publish(publish).await?;
        held += start.elapsed();
    }
    let mean = held / MESSAGES;
    let max_size = f64::from(u32::try_from(pool.config().max_size)?);
    writeln!(
        out,
        "measured  a lease is held for {mean:.1?}: by Little's law {max_size} sessions carry {:.0} such leases a second",
        max_size / mean.as_secs_f64(),
    )?;
    Ok(())
}
