//! A server that counts its live connections by their drop, and whose moods a test sets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mqtt_pool::{Connect, ConnectContext, DeathNotice, Limit, Pool, PoolConfig, Pooled};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

/// More than any pool of these tests has members.
const MAX_ATTEMPTS_AT_ONCE: u32 = 1_000;

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
    /// Connections that were asked whether they are there.
    pub(crate) checks: u32,
    /// Goodbyes that were heard to their end.
    pub(crate) goodbyes: u32,
    /// The slots of what is live or being dialled.
    pub(crate) slots: BTreeSet<u32>,
    /// How old each connection was when it ended.
    pub(crate) ages: Vec<Duration>,
    /// When `connect` was called last, and how often at that very moment.
    last_attempts: Option<(Instant, u32)>,
    /// The connections that a server would know of, by their id, and whether they are alive.
    known: BTreeMap<u32, Fate>,
    /// The most that a server has ever seen at once.
    pub(crate) peak: usize,
    /// The most dials at once.
    pub(crate) peak_dialling: usize,
    /// The most it may see at once, if that is watched.
    pub(crate) limit: Option<usize>,
    /// What should never have happened. A panic in a dial is but a failed dial.
    pub(crate) faults: Vec<String>,
    pub(crate) connect: Mood,
    pub(crate) close: Mood,
    /// What it answers to a check: `Refuses` is no.
    pub(crate) check: Mood,
    /// How long it lets a connection live, if it does not like it.
    pub(crate) kicks_after: Option<Duration>,
}

impl Counts {
    /// What the server sees: what is being dialled, and what it does not know to be dead.
    pub(crate) fn seen(&self) -> usize {
        let alive = |fate: &&Fate| fate.alive.load(Ordering::Relaxed);
        self.known.values().filter(alive).count() + self.dialling
    }

    /// Virtual time does not go on while somebody dials without a pause: a test would hang.
    fn mood_for_a_dial(&mut self) -> Mood {
        let now = Instant::now();
        let attempts = match self.last_attempts {
            Some((at, attempts)) if at == now => attempts + 1,
            Some(_) | None => 1,
        };
        self.last_attempts = Some((now, attempts));
        if attempts > MAX_ATTEMPTS_AT_ONCE {
            self.faults.push("dials without a pause".to_owned());
            return Mood::Hangs;
        }
        self.connect
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Mood {
    #[default]
    Prompt,
    Takes(Duration),
    Hangs,
    Refuses,
    RefusesAfter(Duration),
    /// As for a wrong password.
    RefusesForGood,
    Panics,
}

#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) for_good: bool,
}

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

    pub(crate) fn set_check(&self, mood: Mood) {
        self.with(|counts| counts.check = mood);
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.with(|counts| counts.attempts)
    }

    /// Ends all connections there are.
    pub(crate) fn fail_all(&self) {
        let fates = self.with(|counts| counts.known.values().cloned().collect::<Vec<_>>());
        fates.iter().for_each(Fate::fail);
    }

    /// Ends the connection that is at this place of those there are, if there are so many.
    pub(crate) fn fail_one(&self, place: usize) {
        let fate = self.with(|counts| counts.known.values().nth(place).cloned());
        fate.iter().for_each(Fate::fail);
    }

    /// Forgets a connection that has left its pool for good; its slot is free.
    pub(crate) fn forget(&self, connection: &Connection) {
        self.with(|counts| {
            counts.known.remove(&connection.id);
            counts.slots.remove(&connection.slot);
        });
    }

    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        self.with(|counts| assert!(counts.faults.is_empty(), "{:?}", counts.faults));
    }

    async fn behave(mood: Mood) -> Result<(), Refused> {
        match mood {
            Mood::Prompt => Ok(()),
            Mood::Takes(time) => {
                sleep(time).await;
                Ok(())
            }
            Mood::Hangs => pending().await,
            Mood::Refuses => Err(Refused { for_good: false }),
            Mood::RefusesAfter(time) => {
                sleep(time).await;
                Err(Refused { for_good: false })
            }
            Mood::RefusesForGood => Err(Refused { for_good: true }),
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
            counts.mood_for_a_dial()
        });
        let dialling = Dialling::new(self.clone(), context.slot());
        Self::behave(mood).await?;
        let connection = Connection::new(dialling, context.death_notice());
        if let Some(after) = self.with(|counts| counts.kicks_after) {
            let fate = connection.fate();
            tokio::spawn(async move {
                sleep(after).await;
                fate.fail();
            });
        }
        Ok(connection)
    }

    fn is_transient(&self, error: &Refused) -> bool {
        !error.for_good
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
        let is_free = server.with(|counts| {
            let is_free = counts.slots.insert(slot);
            if !is_free {
                counts.faults.push(format!("slot {slot} is taken"));
                return false;
            }
            counts.dialling += 1;
            counts.peak_dialling = counts.peak_dialling.max(counts.dialling);
            let seen = counts.seen();
            counts.peak = counts.peak.max(seen);
            if counts.limit.is_some_and(|limit| seen > limit) {
                let limit = counts.limit;
                counts
                    .faults
                    .push(format!("{seen} at once, more than {limit:?}"));
            }
            true
        });
        assert!(is_free, "slot {slot} is taken");
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
        let fate = Fate {
            alive: Arc::new(AtomicBool::new(true)),
            failed: Arc::default(),
            notice: notice.clone(),
        };
        let id = server.with(|counts| {
            let id = counts.connected;
            counts.known.insert(id, fate.clone());
            counts.slots.insert(slot);
            counts.live += 1;
            counts.connected += 1;
            counts.most = counts.most.max(counts.live);
            id
        });
        Self {
            id,
            slot,
            alive: fate.alive,
            panics: Arc::default(),
            dirty: Arc::default(),
            load: Arc::default(),
            failed: fate.failed,
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

    async fn check(&mut self) -> bool {
        let mood = self.server.with(|counts| {
            counts.checks += 1;
            counts.check
        });
        Server::behave(mood).await.is_ok()
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
            if counts.known.remove(&self.id).is_some() {
                counts.slots.remove(&self.slot);
            }
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

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The tasks there are, beside the test itself.
pub(crate) fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}
