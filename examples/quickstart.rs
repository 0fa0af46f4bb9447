//! Thousands of messages through a pool of sessions, and an account of every one of them.
//!
//! ```text
//! cargo quickstart                                  # on an embedded server, nothing else needed
//! cargo quickstart --server mqtt://localhost:1883   # on any server
//! ```
//!
//! Many tasks publish numbered messages, each to a topic of its own, at QoS 0, 1 and 2, through
//! sessions that they lease from a pool. A subscriber checks what arrives: nothing lost, nothing
//! twice at QoS 2, the order of each topic kept. Ends with status 1 if any of that fails.

use std::{cmp::Ordering, collections::HashMap, error::Error, process::ExitCode, time::Duration};

use mqtt_client::{
    Endpoint, PooledSessions, Publish, QoS, Session, SessionConfig, SessionConnector, Subscribe,
    Subscription, TopicName, Version,
    pool::{Pool, PoolConfig},
};
use mqtt_testkit::EmbeddedServer;
use tokio::{task::JoinSet, time::Instant};

const HELP: &str = "\
quickstart [--server URL] [--messages N] [--tasks N] [--sessions N] [--mqtt 3|5]
  --server URL   a server to use instead of the embedded one: mqtt://host:port or unix:///path
  --messages N   messages at each QoS (3000)
  --tasks N      tasks that publish (30)
  --sessions N   sessions in the pool (6)
  --mqtt 3|5     MQTT 3.1.1 or 5.0 (5)";

/// How long the subscriber waits for the next message before it takes the rest for lost.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Options {
    server: Option<String>,
    messages: usize,
    tasks: usize,
    sessions: usize,
    version: Version,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            server: None,
            messages: 3_000,
            tasks: 30,
            sessions: 6,
            version: Version::V5,
        };
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .ok_or_else(|| format!("{arg} needs a value\n{HELP}"))
            };
            match arg.as_str() {
                "--server" => options.server = Some(value()?),
                "--messages" => options.messages = value()?.parse()?,
                "--tasks" => options.tasks = value()?.parse::<usize>()?.max(1),
                "--sessions" => options.sessions = value()?.parse::<usize>()?.max(1),
                "--mqtt" => {
                    options.version = match value()?.as_str() {
                        "3" | "3.1.1" => Version::V3,
                        "5" | "5.0" => Version::V5,
                        other => return Err(format!("--mqtt {other}: 3 or 5\n{HELP}").into()),
                    }
                }
                _ => return Err(HELP.into()),
            }
        }
        Ok(options)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => run(options).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs it all; false if a message is not accounted for.
pub(crate) async fn run(options: Options) -> Result<bool, Box<dyn Error>> {
    let embedded = match &options.server {
        Some(_) => None,
        None => Some(EmbeddedServer::start().await?),
    };
    let url = options
        .server
        .clone()
        .or_else(|| embedded.as_ref().map(EmbeddedServer::url))
        .unwrap_or_default();
    let endpoint: Endpoint = url.parse()?;
    println!("server   {endpoint}, MQTT {}", options.version);

    // The name of this run keeps it apart from others on the same server.
    let run = format!("quickstart-{}", std::process::id());
    let config = SessionConfig::new(&run).with_version(options.version);
    let connector = SessionConnector::new(config.clone())?;

    let pool_config = PoolConfig::default()
        .with_max_size(options.sessions)
        .with_max_idle(options.sessions);
    let pool = Pool::new(
        PooledSessions::new(connector, endpoint.clone()),
        pool_config,
    )?;
    let subscriber = SessionConnector::new(config.with_client_id(format!("{run}-subscriber")))?
        .connect(endpoint)
        .await?;

    let mut all_well = true;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        all_well &= exchange(&pool, &subscriber, &run, qos, &options).await?;
    }

    println!("pool     {}", pool.status());
    pool.close().await;
    subscriber.disconnect().await?;
    if let Some(embedded) = embedded {
        embedded.stop().await?;
    }
    println!(
        "{}",
        if all_well {
            "every message accounted for"
        } else {
            "NOT every message is accounted for"
        }
    );
    Ok(all_well)
}

/// Publishes and receives the messages of one QoS, and prints the account.
async fn exchange(
    pool: &Pool<PooledSessions>,
    subscriber: &Session,
    run: &str,
    qos: QoS,
    options: &Options,
) -> Result<bool, Box<dyn Error>> {
    let base = format!("{run}/{}", qos.bits());
    // Room for every message, so that none of QoS 0 is dropped however slowly this reader runs.
    let subscribe = Subscribe::new(format!("{base}/+"))?.with_max_messages(options.messages.max(1));
    let messages = subscriber.subscribe(subscribe).await?;

    let start = Instant::now();
    let mut publishers = JoinSet::new();
    for task in 0..options.tasks {
        let pool = pool.clone();
        let topic = TopicName::new(format!("{base}/{task}"))?;
        let count =
            options.messages / options.tasks + usize::from(task < options.messages % options.tasks);
        publishers.spawn(async move {
            // One lease for all messages of a topic: order is a promise of one session.
            let session = pool.get().await.map_err(|error| error.to_string())?;
            for number in 0..count {
                let payload = format!("{number} {}", start.elapsed().as_nanos());
                let publish = Publish::new(&topic, payload)
                    .map_err(|error| error.to_string())?
                    .with_qos(qos);
                session
                    .publish(publish)
                    .await
                    .map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        });
    }
    let account = tokio::spawn(receive(messages, options.messages, start));
    while let Some(published) = publishers.join_next().await {
        published??;
    }
    let account = account.await?;
    account.print(qos, options.messages);
    Ok(account.is_well(qos, options.messages))
}

/// What arrived.
#[derive(Default)]
struct Account {
    received: usize,
    duplicates: usize,
    out_of_order: usize,
    latencies: Vec<Duration>,
    elapsed: Duration,
}

async fn receive(mut messages: Subscription, expected: usize, start: Instant) -> Account {
    let mut account = Account::default();
    let mut next: HashMap<TopicName, usize> = HashMap::new();
    while account.received < expected {
        let Ok(Some(message)) = tokio::time::timeout(PATIENCE, messages.recv()).await else {
            break;
        };
        let text = String::from_utf8_lossy(&message.payload);
        let mut numbers = text.split(' ').map(str::parse::<u64>);
        let (Some(Ok(number)), Some(Ok(sent))) = (numbers.next(), numbers.next()) else {
            continue;
        };
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let expected = next.entry(message.topic.clone()).or_default();
        match number.cmp(expected) {
            Ordering::Less => account.duplicates += 1,
            order @ (Ordering::Equal | Ordering::Greater) => {
                account.received += 1;
                account.out_of_order += usize::from(order.is_gt());
                *expected = number + 1;
            }
        }
        account
            .latencies
            .push(start.elapsed().saturating_sub(Duration::from_nanos(sent)));
    }
    account.elapsed = start.elapsed();
    account.latencies.sort_unstable();
    account
}

impl Account {
    /// QoS 1 may bring a message twice; nothing else may go wrong.
    fn is_well(&self, qos: QoS, expected: usize) -> bool {
        let duplicates_allowed = qos == QoS::AtLeastOnce || self.duplicates == 0;
        self.received == expected && self.out_of_order == 0 && duplicates_allowed
    }

    fn print(&self, qos: QoS, expected: usize) {
        let percentile = |percent: usize| {
            let index =
                (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
            self.latencies.get(index).copied().unwrap_or_default()
        };
        let seconds = self.elapsed.as_secs_f64();
        let rate = f64::from(u32::try_from(self.received).unwrap_or(u32::MAX)) / seconds;
        println!(
            "QoS {}    {} of {expected} arrived, {} twice, {} out of order; {rate:.0}/s; latency p50 {:.1?} p99 {:.1?} max {:.1?}",
            qos.bits(),
            self.received,
            self.duplicates,
            self.out_of_order,
            percentile(50),
            percentile(99),
            percentile(100),
        );
    }
}
