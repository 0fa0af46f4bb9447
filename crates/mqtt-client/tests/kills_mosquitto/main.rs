//! A hundred kills under traffic of every QoS: the server with SIGKILL, all links at once, and all links
//! going silent first; over a pool by key, sessions that reconnect, and a registry. At the end the
//! account holds, and nothing is left.
//!
//! `KILLS` says how many; 100 if it is not set, which takes about as many seconds. `KILLS_SEED` repeats
//! what a run printed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod account;
#[path = "../common/mod.rs"]
mod common;
mod front;
mod producers;

use std::{
    env, fs,
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};

use account::{Account, Arrived, Id, ServerKill};
use front::Front;
use mqtt_client::{
    PooledSessions, Publish, QoS, ReconnectConfig, RegistryConfig, Session, SessionConfig,
    SessionConnector, SessionPool, SessionRegistry, SessionState, Subscribe,
    pool::{BackoffConfig, Limit, PoolConfig, SharedConfig},
};
use mqtt_testkit::Mosquitto;
use producers::{Way, produce};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const KEYS: usize = 10;
const LANES: usize = 4;
const DEVICES: usize = 4;

/// A link that is silent for longer is given up by this side.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// For what waits for the reader to be on its way to it, once it is connected.
const SETTLING: Duration = Duration::from_secs(1);

/// What the process may grow by in the second half: the log of the messages, and what allocators keep.
const GROWTH_KIB: u64 = 24 * 1024;

fn config(client_id: &str) -> SessionConfig {
    SessionConfig::new(client_id).with_keep_alive(KEEP_ALIVE)
}

/// A session that goes on for ever, and is kept by the server. Mosquitto 2.0 writes no session down whose
/// last CONNECT said clean start, whatever its expiry.
fn kept(client_id: &str) -> SessionConfig {
    let reconnect = ReconnectConfig::default()
        .with_base(Duration::from_millis(20))
        .with_max(Duration::from_millis(100))
        .with_jitter(Duration::from_millis(20));
    config(client_id)
        .with_clean_start(false)
        .with_session_expiry(Limit::After(Duration::from_secs(3_600)))
        .with_reconnect(Some(reconnect))
}

fn backoff() -> BackoffConfig {
    BackoffConfig::default()
        .with_base(Duration::from_millis(20))
        .with_max(Duration::from_millis(200))
}

async fn open(config: SessionConfig, url: &str) -> Session {
    let connector = SessionConnector::new(config).unwrap();
    connector.connect(url.parse().unwrap()).await.unwrap()
}

/// All that publishes, and what has to be closed after it.
async fn ways(url: &str) -> (Vec<Way>, SessionPool, SessionRegistry, Session) {
    let connector = SessionConnector::new(config("pooled")).unwrap();
    let sessions = PooledSessions::new(connector, url.parse().unwrap());
    let options = PoolConfig::default().with_backoff(backoff());
    let shared = SharedConfig::default().with_size(3);
    let pool = SessionPool::new(sessions, options, shared).unwrap();

    let connector = SessionConnector::new(kept("")).unwrap();
    let options = RegistryConfig::default().with_backoff(backoff());
    let registry = SessionRegistry::new(connector, url.parse().unwrap(), options).unwrap();

    let session = open(kept("lanes"), url).await;
    let mut ways = vec![Way::Pool(pool.clone()); KEYS];
    ways.extend(vec![Way::Session(session.clone()); LANES]);
    ways.extend((0..DEVICES).map(|n| Way::Registry(registry.clone(), format!("device-{n}"))));
    (ways, pool, registry, session)
}

/// Memory in use, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.map_or(0, |kib| kib.parse().unwrap())
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// What is killed, and the kills of each kind.
struct Killer {
    server: Mosquitto,
    front: Front,
    /// Connected past the front.
    probe: Session,
    reader: Session,
    random: fastrand::Rng,
    server_kills: Vec<ServerKill>,
    cuts: usize,
    silences: usize,
}

impl Killer {
    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.u64(range))
    }

    async fn kill(&mut self, number: usize) {
        sleep(self.millis(200..500)).await;
        match number % 3 {
            0 => {
                let probed = Instant::now();
                let probe = Publish::new("probe", "")
                    .unwrap()
                    .with_qos(QoS::AtLeastOnce);
                let answered = timeout(PATIENCE, self.probe.publish(probe)).await;
                let answered = answered.expect("the server is there").is_ok();
                // Not known to be answered, it says nothing about what was before.
                assert!(answered, "{:?}", self.probe.state());
                self.server.kill();
                let links = self.front.links.load(SeqCst);
                let killed = Instant::now();
                sleep(self.millis(50..300)).await;
                self.server.restart().await.unwrap();
                // Whoever has not noticed yet that the link has ended is not there again.
                let mut states = self.reader.watch_state();
                let is_there = async {
                    loop {
                        let state = states.borrow_and_update().clone();
                        let is_new = self.front.links.load(SeqCst) > links;
                        if is_new && matches!(state, SessionState::Connected { .. }) {
                            break;
                        }
                        let _ = timeout(SETTLING / 10, states.changed()).await;
                    }
                };
                timeout(PATIENCE, is_there)
                    .await
                    .expect("the reader comes back");
                let settled = Instant::now() + SETTLING;
                let kill = ServerKill {
                    probed,
                    killed,
                    settled,
                };
                self.server_kills.push(kill);
            }
            1 => {
                self.front.cut();
                self.cuts += 1;
            }
            _ => {
                self.front.swallow(true);
                // Every fourth for so long that nobody has to be told of the end.
                let long = number % 12 == 2;
                sleep(if long {
                    KEEP_ALIVE * 2
                } else {
                    self.millis(100..600)
                })
                .await;
                self.front.cut();
                self.front.swallow(false);
                self.silences += 1;
            }
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT5-4.4.0-1] [MQTT5-4.6.0-1]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_hundred_kills_the_account_holds() {
    let builder = Mosquitto::builder().persistence(true);
    let name = "after_a_hundred_kills_the_account_holds";
    let Some(server) = builder.start_or_skip(name).await else {
        return;
    };
    let files_before = open_files();
    let (kills, seed) = (
        usize::try_from(number("KILLS", 100)).unwrap(),
        number("KILLS_SEED", 1),
    );
    let front = Front::start(server.addr()).await;
    let url = format!("mqtt://{}", front.addr);

    let arrived = Arc::<Mutex<Arrived>>::default();
    let reader = open(kept("reader"), &url).await;
    let mut stream = reader
        .subscribe(Subscribe::new("kills/#").unwrap())
        .await
        .unwrap();
    let reading = tokio::spawn({
        let arrived = arrived.clone();
        async move {
            while let Some(message) = stream.recv().await {
                let id = Id::parse(&message.topic, &message.payload);
                arrived
                    .lock()
                    .unwrap()
                    .entry(id)
                    .or_default()
                    .push(Instant::now());
            }
        }
    });
    let probe = open(kept("probe"), &server.tcp_url()).await;
    let (ways, pool, registry, session) = ways(&url).await;

    let (stop, stopped) = watch::channel(false);
    let mut producers = JoinSet::new();
    for ((source, way), offset) in ways.into_iter().enumerate().zip(1_u64..) {
        producers.spawn(produce(
            way,
            source,
            seed.wrapping_add(offset),
            stopped.clone(),
        ));
    }
    let mut killer = Killer {
        server,
        front,
        probe,
        reader: reader.clone(),
        random: fastrand::Rng::with_seed(seed),
        server_kills: Vec::new(),
        cuts: 0,
        silences: 0,
    };
    let begun = Instant::now();
    let mut warm = (resident(), open_files());
    for number in 0..kills {
        killer.kill(number).await;
        if number == kills / 2 {
            warm = (resident(), open_files());
        }
    }
    stop.send_replace(true);
    let mut told = Vec::new();
    while let Some(log) = producers.join_next().await {
        told.extend(log.unwrap());
    }
    let settled = Instant::now() + PATIENCE;
    let is_complete =
        || Account::is_complete(&told, &arrived.lock().unwrap(), &killer.server_kills);
    while !is_complete() && Instant::now() < settled {
        sleep(Duration::from_millis(50)).await;
    }
    // What comes again comes now.
    sleep(Duration::from_millis(500)).await;
    let grown = resident().saturating_sub(warm.0);
    let files = open_files();

    let account = Account::settle(&told, &arrived.lock().unwrap(), &killer.server_kills);
    println!(
        "seed {seed}, {:.0?}: {} messages; {account}; kills: {} of the server, {} cuts, {} silences; \
         {} connections; grown by {grown} KiB; {} then {files} files",
        begun.elapsed(),
        told.len(),
        killer.server_kills.len(),
        killer.cuts,
        killer.silences,
        killer.front.links.load(SeqCst),
        warm.1,
    );
    assert!(account.wrong.is_empty(), "{:#?}", account.wrong);
    assert!(grown < GROWTH_KIB, "{grown} KiB");

    let deadline = Instant::now() + PATIENCE;
    assert!(pool.drain(deadline).await.is_complete());
    assert!(registry.drain(deadline).await.is_complete());
    for session in [&session, &reader, &killer.probe] {
        session.disconnect().await.unwrap();
    }
    timeout(PATIENCE, reading)
        .await
        .expect("the stream ends")
        .unwrap();
    drop(killer.front);
    while open_files() > files_before {
        assert!(
            Instant::now() < deadline,
            "{} files, not {files_before}",
            open_files()
        );
        sleep(Duration::from_millis(20)).await;
    }
}
