//! A server that counts its live connections by their drop, and whose moods a test sets.

use std::{
    collections::BTreeSet,
    fmt,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mqtt_pool::{Connect, ConnectContext, DeathNotice, Limit, Pool, PoolConfig, Pooled};
use tokio::time::{Instant, sleep};

#[derive(Clone, Debug, Default)]
pub(crate) struct Server(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Calls of `connect`, answered or not.
    pub(crate) attempts: u32,
    /// Connections made so far; the next one's id.
    pub(crate) connected: u32,
    /// Connections that exist.
    pub(crate) live: usize,
    /// The most that have existed together.
    pub(crate) most: usize,
    /// The fewest that were left when one ended, since a test has set this.
    pub(crate) fewest: usize,
    /// Calls of `connect` that are running.
    pub(crate) dialling: usize,
    /// Goodbyes that were heard to their end.
    pub(crate) goodbyes: u32,
    /// The slots of what is live or being dialled.
    pub(crate) slots: BTreeSet<u32>,
    /// How old each connection was when it ended.
    pub(crate) ages: Vec<Duration>,
    pub(crate) connect: Mood,
    pub(crate) close: Mood,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Mood {
    #[default]
    Prompt,
    Takes(Duration),
    Hangs,
    Refuses,
    Panics,
}

#[derive(Debug)]
pub(crate) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused by the server")
    }
}

impl std::error::Error for Refused {}

impl Server {
    /// A pool of connections to it that never expire, unless `config` changes that.
    pub(crate) fn pool(&self, config: impl FnOnce(PoolConfig) -> PoolConfig) -> Pool<Self> {
        let eternal = PoolConfig::default()
            .with_idle_timeout(Limit::Never)
            .with_max_lifetime(Limit::Never);
        Pool::new(self.clone(), config(eternal)).expect("the options are allowed")
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Counts) -> R) -> R {
        f(&mut self.0.lock().expect("no test panics in here"))
    }

    pub(crate) fn live(&self) -> usize {
        self.with(|counts| counts.live)
    }

    pub(crate) fn goodbyes(&self) -> u32 {
        self.with(|counts| counts.goodbyes)
    }

    pub(crate) fn set_connect(&self, mood: Mood) {
        self.with(|counts| counts.connect = mood);
    }

    pub(crate) fn set_close(&self, mood: Mood) {
        self.with(|counts| counts.close = mood);
    }

    async fn behave(mood: Mood) -> Result<(), Refused> {
        match mood {
            Mood::Prompt => Ok(()),
            Mood::Takes(time) => {
                sleep(time).await;
                Ok(())
            }
            Mood::Hangs => pending().await,
            Mood::Refuses => Err(Refused),
            Mood::Panics => panic!("the server's mood"),
        }
    }
}

impl Connect for Server {
    type Connection = Connection;
    type Error = Refused;

    async fn connect(&self, context: ConnectContext) -> Result<Connection, Refused> {
        let mood = self.with(|counts| {
            counts.attempts += 1;
            counts.connect
        });
        let dialling = Dialling::new(self.clone(), context.slot());
        Self::behave(mood).await?;
        Ok(Connection::new(dialling, context.death_notice()))
    }
}

/// Holds a slot, and asserts that it is the only one to hold it.
#[derive(Debug)]
struct Dialling {
    server: Server,
    slot: u32,
}

impl Dialling {
    fn new(server: Server, slot: u32) -> Self {
        let is_free = server.with(|counts| counts.slots.insert(slot));
        assert!(is_free, "slot {slot} is taken");
        server.with(|counts| counts.dialling += 1);
        Self { server, slot }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.server.with(|counts| counts.dialling -= 1);
        self.server.with(|counts| counts.slots.remove(&self.slot));
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u32,
    pub(crate) slot: u32,
    pub(crate) alive: Arc<AtomicBool>,
    pub(crate) panics: Arc<AtomicBool>,
    /// Its holder has left something behind.
    pub(crate) dirty: Arc<AtomicBool>,
    pub(crate) load: Arc<AtomicUsize>,
    failed: Arc<AtomicBool>,
    notice: DeathNotice,
    born: Instant,
    server: Server,
}

impl Connection {
    fn new(dialling: Dialling, notice: DeathNotice) -> Self {
        let (server, slot) = (dialling.server.clone(), dialling.slot);
        drop(dialling);
        let id = server.with(|counts| {
            counts.slots.insert(slot);
            counts.live += 1;
            counts.connected += 1;
            counts.most = counts.most.max(counts.live);
            counts.connected - 1
        });
        Self {
            id,
            slot,
            alive: Arc::new(AtomicBool::new(true)),
            panics: Arc::default(),
            dirty: Arc::default(),
            load: Arc::default(),
            failed: Arc::default(),
            notice,
            born: Instant::now(),
            server,
        }
    }

    /// Its holder ends it.
    pub(crate) fn kill(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    /// The server ends it.
    pub(crate) fn fail(&self) {
        self.fate().fail();
    }

    /// By which it can be ended while somebody else has it.
    pub(crate) fn fate(&self) -> Fate {
        Fate {
            alive: self.alive.clone(),
            failed: self.failed.clone(),
            notice: self.notice.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Fate {
    alive: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
    notice: DeathNotice,
}

impl Fate {
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
        self.alive.store(false, Ordering::Relaxed);
        self.notice.send();
    }
}

impl Pooled for Connection {
    fn is_usable(&self) -> bool {
        assert!(!self.panics.load(Ordering::Relaxed), "the user's code");
        self.alive.load(Ordering::Relaxed)
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn is_clean(&self) -> bool {
        !self.dirty.load(Ordering::Relaxed)
    }

    fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    async fn close(self) {
        let mood = self.server.with(|counts| counts.close);
        let _ = Server::behave(mood).await;
        self.server.with(|counts| counts.goodbyes += 1);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let age = self.born.elapsed();
        self.server.with(|counts| {
            counts.live -= 1;
            counts.fewest = counts.fewest.min(counts.live);
            counts.slots.remove(&self.slot);
            counts.ages.push(age);
        });
    }
}

/// Lets every task do what it can do now.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
