//! Who has which session: the table of a registry, behind one short lock.
//!
//! ```text
//!             find                  put_in                 expire, make room, remove
//!   (absent) ------> opening ------------------> open --------------------------> closing
//!      ^                |  failed, given up       |  ^                               |
//!      |                v                   find  v  |  release                      |
//!      '----------- (refused, or nothing)        in use                              |
//!      '-------------------------------------- has left -----------------------------'
//! ```
//!
//! Its one rule: a client identifier is in one entry until its session has left, so that a server never
//! sees it twice. Sessions and places are dropped, and tasks begun, without the lock.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use mqtt_pool::{DialError, Limit};
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, futures::Notified, watch},
    time::Instant,
};

use crate::{
    error::ConnectError,
    registry::{
        RegisteredSession, RegistryConfig, RegistryError, RegistryStatus, error::is_transient,
        opening::Opening,
    },
    session::Session,
};

/// How many idle sessions are looked at, at most, to find one that has nothing open.
const LOOKS: usize = 128;

pub(super) type Failure = Arc<DialError<ConnectError>>;

/// Why an opening has failed. Of what went well the table tells.
pub(super) type Outcome = Option<Failure>;

pub(super) struct Book {
    pub(super) config: RegistryConfig,
    pub(super) runtime: Handle,
    /// As many as there may be sessions; each has one until it has left.
    places: Arc<Semaphore>,
    table: Mutex<Table>,
    /// How many openings wait for a place.
    wanted: AtomicUsize,
    waiting: AtomicUsize,
    /// Wakes the keeper.
    wake: Notify,
    /// Wakes who waits for a number to change.
    changed: Notify,
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Arc<str>, Entry>,
    /// The sessions on which there is no handle, and since when; the longest first.
    idle: BTreeSet<(Instant, Arc<str>)>,
    /// Devices that are refused, at most as many as there may be sessions.
    refused: HashMap<Arc<str>, (Failure, Option<Instant>)>,
    open: usize,
    closing: usize,
    is_closed: bool,
}

enum Entry {
    Opening(Arc<watch::Sender<Outcome>>),
    Open(Open),
    Closing(Arc<watch::Sender<Outcome>>),
}

struct Open {
    session: Session,
    handles: usize,
    /// Since when, if there are none.
    idle_since: Instant,
    place: OwnedSemaphorePermit,
}

/// What there is of a session.
pub(super) enum Found {
    Open(RegisteredSession),
    Refused(RegistryError),
    /// It is being opened or closed: wait, and look again.
    Coming(watch::Receiver<Outcome>),
    /// It is to be opened by whoever asked.
    Missing(Opening, watch::Receiver<Outcome>),
}

/// A session that is to be told to leave, which the table has as closing.
struct Leaving {
    client_id: Arc<str>,
    session: Session,
    place: OwnedSemaphorePermit,
    left: Arc<watch::Sender<Outcome>>,
}

impl Book {
    pub(super) fn new(config: RegistryConfig, runtime: Handle) -> Self {
        Self {
            places: Arc::new(Semaphore::new(config.max_sessions)),
            config,
            runtime,
            table: Mutex::default(),
            wanted: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            wake: Notify::new(),
            changed: Notify::new(),
            closed: watch::Sender::new(false),
        }
    }

    /// The session, or what is to be waited for. One that is over is closed.
    pub(super) fn find(self: &Arc<Self>, client_id: &str) -> Found {
        let mut guard = self.lock();
        let table = &mut *guard;
        if table.is_closed {
            return Found::Refused(RegistryError::Closed);
        }
        let key = match table.entries.get_key_value(client_id) {
            None => return self.missing(guard, client_id),
            Some((_, Entry::Opening(outcome) | Entry::Closing(outcome))) => {
                return Found::Coming(outcome.subscribe());
            }
            Some((key, Entry::Open(_))) => key.clone(),
        };
        if let Some(Entry::Open(open)) = table.entries.get_mut(client_id)
            && open.session.is_usable()
        {
            if open.handles == 0 {
                table.idle.remove(&(open.idle_since, key.clone()));
            }
            open.handles += 1;
            let session = open.session.clone();
            drop(guard);
            return Found::Open(RegisteredSession::new(session, key, self.clone()));
        }
        let leaving = table.close(&key);
        let left = leaving.as_ref().map(|leaving| leaving.left.subscribe());
        drop(guard);
        leaving
            .into_iter()
            .for_each(|leaving| self.say_goodbye(leaving));
        match left {
            Some(left) => Found::Coming(left),
            None => self.find(client_id),
        }
    }

    fn missing(self: &Arc<Self>, mut table: MutexGuard<'_, Table>, client_id: &str) -> Found {
        if let Some((cause, until)) = table.refused.get(client_id) {
            if until.is_none_or(|until| until > Instant::now()) {
                return Found::Refused(RegistryError::Connect {
                    cause: cause.clone(),
                    retry_at: *until,
                });
            }
            table.refused.remove(client_id);
        }
        let client_id: Arc<str> = client_id.into();
        let (outcome, receiver) = watch::channel(None);
        let outcome = Arc::new(outcome);
        let entry = Entry::Opening(outcome.clone());
        table.entries.insert(client_id.clone(), entry);
        drop(table);
        Found::Missing(Opening::new(self.clone(), client_id, outcome), receiver)
    }

    /// Waits for a place, in turn, and has the keeper make room if there is none.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return place;
        }
        let _wanted = Counted::begin(&self.wanted);
        self.wake.notify_one();
        let place = self.places.clone().acquire_owned().await;
        place.expect("the semaphore is never closed")
    }

    /// What was opened, in the place of its opening. The first handle is whose who opened it.
    pub(super) fn put_in(
        self: &Arc<Self>,
        client_id: &Arc<str>,
        session: Session,
        place: OwnedSemaphorePermit,
    ) -> RegisteredSession {
        let open = Entry::Open(Open {
            session: session.clone(),
            handles: 1,
            idle_since: Instant::now(),
            place,
        });
        let mut table = self.lock();
        table.open += 1;
        let entry = table.entries.insert(client_id.clone(), open);
        drop(table);
        drop(entry);
        self.changed.notify_waiters();
        RegisteredSession::new(session, client_id.clone(), self.clone())
    }

    /// An opening was given up, or has failed so: its entry goes, if it still is.
    pub(super) fn take_out(
        &self,
        client_id: &Arc<str>,
        outcome: &Arc<watch::Sender<Outcome>>,
        failure: Option<&Failure>,
    ) {
        let now = Instant::now();
        let mut table = self.lock();
        let entry = match table.entries.get(client_id) {
            Some(Entry::Opening(mine)) if Arc::ptr_eq(mine, outcome) => {
                table.entries.remove(client_id)
            }
            Some(Entry::Opening(_) | Entry::Open(_) | Entry::Closing(_)) | None => return,
        };
        let refusal = failure.filter(|failure| !is_transient(failure));
        if let Some(refusal) = refusal {
            table.refuse(client_id, refusal.clone(), now, &self.config);
        }
        drop(table);
        drop(entry);
        self.changed.notify_waiters();
    }

    /// One more handle.
    pub(super) fn retain(&self, client_id: &Arc<str>, session: &Session) {
        if let Some(open) = self.lock().open_entry(client_id, session) {
            open.handles += 1;
        }
    }

    /// One handle less.
    pub(super) fn release(self: &Arc<Self>, client_id: &Arc<str>, session: &Session) {
        let mut guard = self.lock();
        let table = &mut *guard;
        let Some(open) = table.open_entry(client_id, session) else {
            return;
        };
        open.handles = open.handles.saturating_sub(1);
        if open.handles > 0 {
            return;
        }
        open.idle_since = Instant::now();
        let idle = (open.idle_since, client_id.clone());
        table.idle.insert(idle);
        let leaving = if table.is_closed {
            table.close(client_id)
        } else {
            None
        };
        let is_first = table.idle.len() == 1;
        drop(guard);
        leaving
            .into_iter()
            .for_each(|leaving| self.say_goodbye(leaving));
        if is_first || self.is_wanted() {
            self.wake.notify_one();
        }
    }

    /// Closes what is idle for too long. Says when the next will be.
    pub(super) fn expire(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let Limit::After(timeout) = self.config.idle_timeout else {
            return None;
        };
        let mut leaving = Vec::new();
        let next = {
            let mut table = self.lock();
            loop {
                let next = table
                    .idle
                    .first()
                    .map(|(since, _)| since.checked_add(timeout));
                match next.flatten() {
                    Some(at) if at <= now => leaving.extend(table.close_idle(now)),
                    next => break next,
                }
            }
        };
        leaving
            .into_iter()
            .for_each(|leaving| self.say_goodbye(leaving));
        next
    }

    /// Closes as many idle sessions as there are openings that wait for a place, those idle for longest.
    pub(super) fn make_room(self: &Arc<Self>, now: Instant) {
        let wanted = self.wanted.load(Ordering::SeqCst);
        let mut leaving = Vec::new();
        {
            let mut table = self.lock();
            for _ in 0..LOOKS.saturating_add(wanted) {
                if table.closing >= wanted || table.idle.is_empty() {
                    break;
                }
                leaving.extend(table.close_idle(now));
            }
        }
        leaving
            .into_iter()
            .for_each(|leaving| self.say_goodbye(leaving));
    }

    /// Closes sessions that are over, and forgets refusals that are.
    pub(super) fn sweep(self: &Arc<Self>, now: Instant) {
        let leaving: Vec<_> = {
            let mut table = self.lock();
            let is_current = |until: &Option<Instant>| until.is_none_or(|until| until > now);
            table.refused.retain(|_, (_, until)| is_current(until));
            let over: Vec<_> = table
                .entries
                .iter()
                .filter(
                    |(_, entry)| matches!(entry, Entry::Open(open) if !open.session.is_usable()),
                )
                .map(|(client_id, _)| client_id.clone())
                .collect();
            over.iter()
                .filter_map(|client_id| table.close(client_id))
                .collect()
        };
        leaving
            .into_iter()
            .for_each(|leaving| self.say_goodbye(leaving));
    }

    /// Closes one session and forgets that it was refused. It gives what tells when the next look is due,
    /// and whether the session is leaving; `None` if there is none.
    pub(super) fn close_one(
        self: &Arc<Self>,
        client_id: &str,
    ) -> Option<(watch::Receiver<Outcome>, bool)> {
        let mut guard = self.lock();
        let table = &mut *guard;
        table.refused.remove(client_id);
        let (key, entry) = table.entries.get_key_value(client_id)?;
        match entry {
            Entry::Opening(outcome) => Some((outcome.subscribe(), false)),
            Entry::Closing(left) => Some((left.subscribe(), true)),
            Entry::Open(_) => {
                let key = key.clone();
                let leaving = table.close(&key)?;
                drop(guard);
                let left = leaving.left.subscribe();
                self.say_goodbye(leaving);
                Some((left, true))
            }
        }
    }

    /// Takes no more calls, and closes what nobody has a handle on.
    pub(super) fn close(self: &Arc<Self>) {
        let leaving: Vec<_> = {
            let mut guard = self.lock();
            let table = &mut *guard;
            table.is_closed = true;
            let idle: Vec<_> = table.idle.iter().map(|(_, id)| id.clone()).collect();
            idle.iter()
                .filter_map(|client_id| table.close(client_id))
                .collect()
        };
        self.closed.send_replace(true);
        leaving
            .into_iter()
            .for_each(|leaving| self.say_goodbye(leaving));
    }

    pub(super) async fn closed(&self) {
        // The sender is here, so that this does not fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(super) fn woken(&self) -> Notified<'_> {
        self.wake.notified()
    }

    pub(super) fn count_waiting(&self) -> Counted<'_> {
        Counted::begin(&self.waiting)
    }

    /// Has the session leave, in a task of its own, and frees its place then.
    fn say_goodbye(self: &Arc<Self>, leaving: Leaving) {
        let session = leaving.session;
        // Made here, so that it is dropped also where no task runs any more.
        let gone = Gone {
            book: self.clone(),
            client_id: leaving.client_id,
            left: leaving.left,
            place: Some(leaving.place),
        };
        self.runtime.spawn(async move {
            let _gone = gone;
            // What was in flight is told to those who wait for it; there is nobody else to tell.
            let _ = session.disconnect().await;
            drop(session);
        });
    }

    /// Whether openings wait for a place.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) > 0
    }

    pub(super) fn status(&self) -> RegistryStatus {
        let table = self.lock();
        RegistryStatus {
            open: table.open,
            idle: table.idle.len(),
            opening: table
                .entries
                .len()
                .saturating_sub(table.open + table.closing),
            closing: table.closing,
            waiting: self.waiting.load(Ordering::Relaxed),
            refused: table.refused.len(),
            max_sessions: self.config.max_sessions,
        }
    }

    /// Waits until the numbers are as wanted.
    pub(super) async fn until(&self, is_reached: impl Fn(&RegistryStatus) -> bool) {
        loop {
            // First, so that no change is missed.
            let changed = self.changed.notified();
            if is_reached(&self.status()) {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The entry of this very session, and not of a later one with its name.
    fn open_entry(&mut self, client_id: &str, session: &Session) -> Option<&mut Open> {
        match self.entries.get_mut(client_id)? {
            Entry::Open(open) if open.session.is_same(session) => Some(open),
            Entry::Open(_) | Entry::Opening(_) | Entry::Closing(_) => None,
        }
    }

    /// Has an open session leave.
    fn close(&mut self, client_id: &Arc<str>) -> Option<Leaving> {
        let entry = self.entries.get_mut(client_id)?;
        if !matches!(entry, Entry::Open(_)) {
            return None;
        }
        let left = Arc::new(watch::Sender::new(None));
        let Entry::Open(open) = std::mem::replace(entry, Entry::Closing(left.clone())) else {
            return None;
        };
        if open.handles == 0 {
            self.idle.remove(&(open.idle_since, client_id.clone()));
        }
        self.open -= 1;
        self.closing += 1;
        Some(Leaving {
            client_id: client_id.clone(),
            session: open.session,
            place: open.place,
            left,
        })
    }

    /// Closes the session that is idle for longest, unless it has something open: then it is idle from
    /// now on.
    fn close_idle(&mut self, now: Instant) -> Option<Leaving> {
        let (_, client_id) = self.idle.pop_first()?;
        let Some(Entry::Open(open)) = self.entries.get_mut(&client_id) else {
            return None;
        };
        if !open.session.is_usable() || open.session.is_clean() {
            return self.close(&client_id);
        }
        open.idle_since = now;
        self.idle.insert((now, client_id));
        None
    }

    fn refuse(
        &mut self,
        client_id: &Arc<str>,
        failure: Failure,
        now: Instant,
        config: &RegistryConfig,
    ) {
        let until = match config.backoff.retry_refused_after {
            Limit::Never => None,
            Limit::After(after) => now.checked_add(after),
        };
        if self.refused.len() >= config.max_sessions
            && let Some(any) = self.refused.keys().next().cloned()
        {
            self.refused.remove(&any);
        }
        self.refused.insert(client_id.clone(), (failure, until));
    }
}

/// Counts while it lives.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A session has left when this is dropped, also with its runtime.
struct Gone {
    book: Arc<Book>,
    client_id: Arc<str>,
    left: Arc<watch::Sender<Outcome>>,
    place: Option<OwnedSemaphorePermit>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        let mut table = self.book.lock();
        let is_mine = matches!(
            table.entries.get(&self.client_id),
            Some(Entry::Closing(left)) if Arc::ptr_eq(left, &self.left)
        );
        let entry = if is_mine {
            table.closing -= 1;
            table.entries.remove(&self.client_id)
        } else {
            None
        };
        drop(table);
        drop(entry);
        drop(self.place.take());
        self.book.wake.notify_one();
        self.book.changed.notify_waiters();
    }
}
