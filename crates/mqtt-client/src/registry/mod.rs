//! A session for each device, opened when it is wanted and closed when it is not.
//!
//! The registry knows who has which session and how many there may be. When a server is dialled is not
//! its affair: sessions reconnect by themselves, and all of them ask one gate.

mod book;
mod config;
mod error;
mod keeper;
mod opening;
mod session;
mod status;

use std::{convert::Infallible, fmt, num::NonZeroU32, sync::Arc};

use mqtt_pool::{ConfigErrors, DialBudget, DialGate, DrainReport};
use mqtt_transport::{ConnectDeadline, Connector, Endpoint};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    config::FOREVER,
    connector::{Dial, SessionConnector},
};

use book::{Book, Found};
use keeper::Keeper;
use opening::Opening;

pub use config::RegistryConfig;
pub use error::RegistryError;
pub use session::RegisteredSession;
pub use status::RegistryStatus;

/// Sessions by their client identifiers, for a process that speaks as each of its devices. Clones share
/// them.
///
/// ```no_run
/// use mqtt_client::{Publish, RegistryConfig, SessionConfig, SessionConnector, SessionRegistry};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = SessionConnector::new(SessionConfig::new(""))?;
/// let endpoint = "mqtt://localhost".parse()?;
/// let devices = SessionRegistry::new(connector, endpoint, RegistryConfig::default())?;
///
/// let session = devices.get("device-7").await?;
/// session.publish(Publish::new("devices/7/state", "on")?).await?;
/// # Ok(())
/// # }
/// ```
///
/// **A session is opened once,** however many ask for it, and stays open for `idle_timeout` after the
/// last [`RegisteredSession`] was dropped. It is not idle while it has subscriptions or publishes in
/// flight. It outlives its connections as [`SessionConfig::reconnect`](crate::SessionConfig::reconnect)
/// says; one that is over is opened anew when it is asked for.
///
/// **There are at most `max_sessions`,** from the first dial to the end of the goodbye. Who wants one
/// more has the one closed that is idle for longest; if none is, it waits for one, in turn.
///
/// **One gate decides about all dials,** of new sessions and of those that reconnect: a few at a time,
/// and while the server is away a single one now and then. What one device is refused for, as for its
/// password, holds up no other. The device itself is not tried again for
/// [`retry_refused_after`](mqtt_pool::BackoffConfig::retry_refused_after).
pub struct SessionRegistry<C: Dial + Sync = ConnectDeadline<Connector>> {
    connector: SessionConnector<C>,
    endpoint: Endpoint,
    book: Arc<Book>,
    /// Dropped with the last handle, which ends the keeper.
    _alive: Arc<oneshot::Sender<Infallible>>,
}

impl<C: Dial + Sync> SessionRegistry<C> {
    /// Sessions that `connector` opens at `endpoint`, each under the client identifier that it is asked
    /// for by; all else they share.
    ///
    /// Dials go through a gate of the registry's own, unless the connector
    /// [has one](SessionConnector::with_dial_gate) already, as registries for one server should. It
    /// starts a task on the current tokio runtime, which ends with the last handle.
    ///
    /// # Errors
    ///
    /// Every rule that `config` breaks, and that there is no current runtime.
    pub fn new(
        connector: SessionConnector<C>,
        endpoint: Endpoint,
        config: RegistryConfig,
    ) -> Result<Self, ConfigErrors> {
        let mut errors = config.validate().err().unwrap_or_default();
        let runtime = Handle::try_current()
            .map_err(|error| {
                errors.push(
                    "runtime",
                    error,
                    "a registry is made inside a tokio runtime",
                    "make it in an async function, or after Runtime::enter",
                );
            })
            .ok();
        let (Some(runtime), true) = (runtime, errors.is_empty()) else {
            return Err(errors);
        };
        let connector = if connector.has_gate() {
            connector
        } else {
            let at_once = NonZeroU32::new(config.max_connecting).unwrap_or(NonZeroU32::MIN);
            let gate = DialGate::new(config.backoff.clone(), DialBudget::new(at_once))?;
            connector.with_dial_gate(gate)
        };
        let book = Arc::new(Book::new(config, runtime.clone()));
        let (alive, ended) = oneshot::channel();
        runtime.spawn(Keeper::new(book.clone(), ended).run());
        Ok(Self {
            connector,
            endpoint,
            book,
            _alive: Arc::new(alive),
        })
    }

    /// The session of this client identifier: the one there is, or a new one.
    ///
    /// It takes at most `acquire_timeout`. If the future is dropped, opening goes on for the others that
    /// wait, or for that long if there are none.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]: time is up, the session cannot be opened, or the registry is closed.
    pub async fn get(&self, client_id: &str) -> Result<RegisteredSession, RegistryError> {
        let mut wait = None;
        loop {
            let mut outcome = match self.book.find(client_id) {
                Found::Open(session) => return Ok(session),
                Found::Refused(error) => return Err(error),
                Found::Coming(outcome) => outcome,
                Found::Missing(opening, outcome) => {
                    self.begin(opening);
                    outcome
                }
            };
            let timeout = self.book.config.acquire_timeout;
            let (started, deadline, _waiting) = wait.get_or_insert_with(|| {
                let now = Instant::now();
                (now, now + timeout.min(FOREVER), self.book.count_waiting())
            });
            match timeout_at(*deadline, outcome.changed()).await {
                Err(_) => {
                    return Err(RegistryError::Timeout {
                        waited: started.elapsed(),
                        status: self.status(),
                    });
                }
                Ok(Ok(())) => {
                    if let Some(cause) = outcome.borrow().clone() {
                        return Err(RegistryError::Connect {
                            cause,
                            retry_at: None,
                        });
                    }
                }
                // It is open, or gone: another look tells.
                Ok(Err(_)) => {}
            }
        }
    }

    fn begin(&self, opening: Opening) {
        let run = opening.run(self.connector.clone(), self.endpoint.clone());
        self.book.runtime.spawn(run);
    }

    /// Closes the session of this client identifier, whoever has a handle on it, and forgets that it was
    /// refused. Says whether there was one. It waits for the end of the opening and of the goodbye.
    ///
    /// If the future is dropped, a session that was open is closed all the same.
    pub async fn remove(&self, client_id: &str) -> bool {
        while let Some((mut outcome, is_leaving)) = self.book.close_one(client_id) {
            // Whatever it is, the next look says what has come of it.
            let _ = outcome.changed().await;
            if is_leaving {
                return true;
            }
        }
        false
    }

    /// The registry in numbers, now.
    pub fn status(&self) -> RegistryStatus {
        self.book.status()
    }

    /// The options it was made with.
    pub fn config(&self) -> &RegistryConfig {
        &self.book.config
    }

    /// Closes the registry: sessions without a handle now, the others when the last one is dropped. New
    /// calls and those that wait get [`RegistryError::Closed`].
    ///
    /// Waits for the goodbyes of the first, each as long as
    /// [`Session::disconnect`](crate::Session::disconnect) takes. If the future is dropped, the registry
    /// is closed all the same.
    pub async fn close(&self) {
        self.book.close();
        self.book
            .until(|status| status.opening + status.closing == 0)
            .await;
    }

    /// Closes the registry as [`close`](Self::close) does, and waits until every handle is dropped and
    /// every session has left, or until the deadline. It says what is left then.
    ///
    /// If the future is dropped, the registry is closed all the same.
    pub async fn drain(&self, deadline: Instant) -> DrainReport {
        let started = Instant::now();
        let before = self.book.status();
        self.book.close();
        let empty = self.book.until(|status| status.sessions() == 0);
        let _ = timeout_at(deadline, empty).await;
        let left = self.book.status();
        let closed = before.open.saturating_sub(left.open);
        DrainReport::new(
            started.elapsed(),
            u64::try_from(closed).unwrap_or(u64::MAX),
            left.open,
            left.closing + left.opening,
        )
    }
}

impl<C: Dial + Sync> Clone for SessionRegistry<C> {
    fn clone(&self) -> Self {
        Self {
            connector: self.connector.clone(),
            endpoint: self.endpoint.clone(),
            book: self.book.clone(),
            _alive: self._alive.clone(),
        }
    }
}

impl<C: Dial + Sync> fmt::Debug for SessionRegistry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRegistry")
            .field("endpoint", &self.endpoint)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
