//! Turns of dials, for many that dial one server by themselves.
//!
//! A pool decides about its dials because it owns its members. Sessions that outlive their connections
//! own themselves, and ask here before each dial. Its one rule: who asks waits in one line, and only the
//! first of it looks whether the server may be dialled.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Mutex as Line, Notify, OwnedSemaphorePermit},
    time::{Instant, sleep_until},
};

use crate::{
    BackoffConfig, ConfigErrors, DialBudget,
    backoff::{Availability, Backoff},
};

/// One place that decides when a server is dialled, for all that share it. Clones are handles to the
/// same.
///
/// Dials [come in turn](Self::enter), as many at once as a [`DialBudget`] allows, which pools may share
/// as well. Once the server has failed it is left in peace as [`BackoffConfig`] says, by all, and then
/// probed by one dial at a time; so ten thousand that have lost a server cost it one attempt per pause.
/// What one of them is refused for does not keep the others away.
#[derive(Clone)]
pub struct DialGate(Arc<Gate>);

struct Gate {
    config: BackoffConfig,
    budget: DialBudget,
    line: Line<()>,
    server: Mutex<Server>,
    /// Wakes the first of the line.
    changed: Notify,
}

/// What is known of the server.
#[derive(Debug, Default)]
struct Server {
    backoff: Backoff,
    is_probed: bool,
    /// Connections that were accepted and have not ended.
    open: usize,
}

/// What a dial has shown of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialOutcome {
    /// It has accepted the connection, which is open [until it is said to have ended](DialGate::on_ended).
    Accepted,
    /// It has answered, if with a refusal that is about who asked.
    Answered,
    /// It was out of reach, or said that it takes nobody now.
    Failed,
    /// It has ended the connection without a word, or not as it should: its own failure if it has no
    /// other open connection, else about who asked.
    Doubtful,
}

impl DialGate {
    /// A gate before a server, for dials within this budget. Of `config`, `retry_refused_after` has no
    /// effect, as what is refused for good does not come again.
    ///
    /// # Errors
    ///
    /// Every rule that `config` breaks, under paths that begin with `backoff`.
    pub fn new(config: BackoffConfig, budget: DialBudget) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        config.check("backoff", &mut errors);
        errors.into_result()?;
        Ok(Self(Arc::new(Gate {
            config,
            budget,
            line: Line::default(),
            server: Mutex::default(),
            changed: Notify::new(),
        })))
    }

    /// Waits until a dial may begin, which then has its turn until [`DialTurn`] is ended or dropped.
    ///
    /// It waits as long as the server is away: put a timeout around it where that is too long. If the
    /// future is dropped, its place in the line is given up.
    pub async fn enter(&self) -> DialTurn {
        let _first = self.0.line.lock().await;
        loop {
            let mut turn = self.permission().await;
            let is_probe = turn.is_probe;
            let may_begin = || self.may_begin(is_probe);
            if let Some(within) = self.0.budget.turn(may_begin).await {
                turn.began = Instant::now();
                turn._within = Some(within);
                return turn;
            }
        }
    }

    /// Waits for the server to be one that may be dialled.
    async fn permission(&self) -> DialTurn {
        loop {
            // First, so that no change is missed.
            let changed = self.0.changed.notified();
            let now = Instant::now();
            let until = {
                let mut server = self.lock();
                match server.backoff.availability(now) {
                    Availability::Open => return self.turn(now, false),
                    Availability::Probing if !server.is_probed => {
                        server.is_probed = true;
                        return self.turn(now, true);
                    }
                    Availability::Waiting(at) | Availability::Refused(Some(at)) => Some(at),
                    Availability::Probing | Availability::Refused(None) => None,
                }
            };
            match until {
                Some(until) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(until) => {}
                },
                None => changed.await,
            }
        }
    }

    fn turn(&self, began: Instant, is_probe: bool) -> DialTurn {
        DialTurn {
            gate: self.clone(),
            began,
            is_probe,
            _within: None,
        }
    }

    /// Whether a dial that was permitted before may begin now: the server may have failed since.
    fn may_begin(&self, is_probe: bool) -> bool {
        match self.lock().backoff.availability(Instant::now()) {
            Availability::Open => true,
            Availability::Probing => is_probe,
            Availability::Waiting(_) | Availability::Refused(_) => false,
        }
    }

    /// A connection that was [accepted](DialOutcome::Accepted) has ended; `failed`: by the server's or
    /// the network's doing. If it was young and there is no other, the server has failed.
    pub fn on_ended(&self, began: Instant, failed: bool) {
        let now = Instant::now();
        let mut server = self.lock();
        server.open = server.open.saturating_sub(1);
        let is_young = now.saturating_duration_since(began) < self.0.config.stable_after;
        if failed && is_young && server.open == 0 {
            server.on_failure(&self.0.config, began, now);
        }
    }

    /// How many connections are open, of those that came through here.
    pub fn open(&self) -> usize {
        self.lock().open
    }

    fn lock(&self) -> MutexGuard<'_, Server> {
        self.0.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    fn on_failure(&mut self, config: &BackoffConfig, began: Instant, now: Instant) {
        self.backoff.on_failure(config, began, now, fastrand::f64());
    }
}

impl fmt::Debug for DialGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialGate")
            .field("server", &*self.lock())
            .field("budget", &self.0.budget)
            .finish_non_exhaustive()
    }
}

/// The turn of a dial. Dropped without an [end](Self::end), the dial was given up and says nothing of
/// the server.
#[must_use = "the turn is over when it is dropped"]
pub struct DialTurn {
    gate: DialGate,
    began: Instant,
    is_probe: bool,
    _within: Option<OwnedSemaphorePermit>,
}

impl DialTurn {
    /// The dial has ended so.
    pub fn end(self, outcome: DialOutcome) {
        let (config, now) = (&self.gate.0.config, Instant::now());
        let mut server = self.gate.lock();
        match outcome {
            DialOutcome::Accepted => {
                server.open += 1;
                server.backoff.on_connected(self.began, now);
            }
            DialOutcome::Answered => server.backoff.on_connected(self.began, now),
            DialOutcome::Doubtful if server.open > 0 => {}
            DialOutcome::Failed | DialOutcome::Doubtful => {
                server.on_failure(config, self.began, now);
            }
        }
    }
}

impl Drop for DialTurn {
    fn drop(&mut self) {
        if self.is_probe {
            self.gate.lock().is_probed = false;
            self.gate.0.changed.notify_waiters();
        }
    }
}

impl fmt::Debug for DialTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialTurn")
            .field("is_probe", &self.is_probe)
            .finish_non_exhaustive()
    }
}
