//! The material in use, and its change while connections come and go.
//!
//! ```text
//! source -> load -> changed? -> parse, check -> build -> new generation -> audit
//!                     no: nothing     |  error: the last good one stays
//! ```
//!
//! A generation is all or nothing. Only handshakes that begin later use it; a connection carries the
//! number of its own, so that whoever keeps connections can retire the older ones.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use thiserror::Error;
use tokio::{sync::watch, time::Instant};

use super::{
    Backend, CertificateFacts, ConfiguredSource, MaterialError, MaterialSource, TlsConfig,
    TlsMaterial, audit, backend::Ready, parsed, revocation,
};
use crate::{ConfigErrors, Limit};

/// The options and the present material of TLS, shared by connectors. Cheap to clone.
///
/// Reads its source again as [`TlsConfig::reload`] says, in a task that ends with the last clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    config: Arc<TlsConfig>,
    source: Box<dyn MaterialSource>,
    current: watch::Sender<Arc<Generation>>,
    /// Digest of the material in use; held while it is being replaced, so that one is at a time.
    reloading: tokio::sync::Mutex<[u8; 32]>,
    task: Mutex<Option<tokio::task::AbortHandle>>,
}

/// One state of the material.
#[non_exhaustive]
pub struct Generation {
    /// Counts up from 1.
    pub number: u64,
    /// Connections of older generations are to be closed at once rather than little by little:
    /// a key was leaked or an authority withdrawn. At most [`number`](Self::number).
    pub oldest_allowed: u64,
    /// Our certificates, the own one of each identity.
    pub identities: Vec<CertificateFacts>,
    /// When it was made.
    pub since: SystemTime,
    /// When the first of its revocation lists ends.
    pub next_revocation_update: Option<SystemTime>,
    pub(super) ready: Ready,
    /// The certificates last seen, shared by all connections that see the same.
    pub(super) peer: Arc<Mutex<Arc<[Vec<u8>]>>>,
}

/// What reading the material again came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reload {
    /// It is the same as before.
    Unchanged,
    /// It has changed, and this is the new generation.
    Renewed(u64),
}

/// There is no usable material.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The options, or what was read, are not allowed; all problems of them.
    #[error("the TLS configuration is not allowed:\n{0}")]
    Config(ConfigErrors),
    /// The source failed.
    #[error("the TLS material cannot be had")]
    Material(#[source] MaterialError),
    /// The task that builds it was cancelled, as when the runtime shuts down.
    #[error("the runtime is shutting down")]
    Cancelled,
}

impl TlsError {
    /// As problems of a configuration, to be told with others.
    pub(crate) fn into_config_errors(self) -> ConfigErrors {
        let mut errors = ConfigErrors::default();
        match self {
            Self::Config(errors) => return errors,
            Self::Material(error) => errors.push(
                "tls",
                format!("{error}: {}", error.source),
                "its material must be readable",
                "does it exist, and may this process read it?",
            ),
            Self::Cancelled => errors.push(
                "tls",
                "not read",
                "the runtime must not be shutting down",
                "make the connector before",
            ),
        }
        errors
    }
}

impl Tls {
    /// Reads what `config` names. Within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Options that the backend lacks, material that cannot be read or used: all that is wrong with
    /// either, before anything was connected.
    pub async fn new(mut config: TlsConfig) -> Result<Self, TlsError> {
        if config.has_no_places() {
            // There is nothing to look at.
            config.reload.interval = Limit::Never;
        }
        let source = ConfiguredSource::new(config.clone());
        Self::with_source(config, source).await
    }

    /// Takes material from `source`; the places in `config` are then not read.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub async fn with_source(
        config: TlsConfig,
        source: impl MaterialSource,
    ) -> Result<Self, TlsError> {
        config.validate().map_err(TlsError::Config)?;
        audit::describe();
        let config = Arc::new(config);
        let material = source.load().await.map_err(TlsError::Material)?;
        let (digest, version) = (material.digest(), material.version.clone());
        let first = build(config.clone(), material, 1, 0).await?;
        audit::renewed(source.name(), version.as_deref(), &first);
        let tls = Self(Arc::new(Inner {
            config,
            source: Box::new(source),
            current: watch::Sender::new(Arc::new(first)),
            reloading: tokio::sync::Mutex::new(digest),
            task: Mutex::new(None),
        }));
        tls.watch_source();
        Ok(tls)
    }

    /// The options.
    pub fn config(&self) -> &TlsConfig {
        &self.0.config
    }

    /// The material in use.
    pub fn generation(&self) -> Arc<Generation> {
        self.0.current.borrow().clone()
    }

    /// Follows the generations, to retire connections of older ones: their number is in
    /// [`TlsInfo::generation`](super::TlsInfo::generation).
    pub fn subscribe(&self) -> watch::Receiver<Arc<Generation>> {
        self.0.current.subscribe()
    }

    /// Reads the source again now. Calls wait for each other; dropping the future leaves everything
    /// as it is.
    ///
    /// # Errors
    ///
    /// The last good generation stays.
    pub async fn reload(&self) -> Result<Reload, TlsError> {
        self.0.reload().await
    }

    /// Says that connections of older generations must go at once. To be called after a
    /// [`reload`](Self::reload) that has replaced what was leaked or withdrawn; who keeps connections
    /// learns of it from [`subscribe`](Self::subscribe).
    pub fn retire_older(&self) {
        self.0.current.send_modify(|current| {
            let number = current.number;
            *current = Arc::new(current.with_oldest_allowed(number));
        });
        audit::retired(self.0.source.name(), self.generation().number);
    }

    /// A task that holds nothing alive.
    fn watch_source(&self) {
        let Limit::After(interval) = self.0.config.reload.interval else {
            return;
        };
        let inner = Arc::downgrade(&self.0);
        let task = tokio::spawn(async move {
            let mut failures = 0;
            loop {
                let Some(until) = inner
                    .upgrade()
                    .map(|inner| inner.next_look(interval, failures))
                else {
                    return;
                };
                tokio::time::sleep_until(until).await;
                let Some(inner) = inner.upgrade() else {
                    return;
                };
                failures = match inner.reload().await {
                    Ok(_) => 0,
                    Err(_) => failures + 1,
                };
            }
        });
        *self.0.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }
}

#[cfg(feature = "quic")]
impl Tls {
    /// The present configuration of rustls and its generation, if that is the backend.
    pub(crate) fn rustls_config(&self) -> Option<(Arc<rustls::ClientConfig>, Arc<Generation>)> {
        let generation = self.generation();
        let config = match &generation.ready {
            Ready::Rustls(config) => config.clone(),
            #[cfg(feature = "native-tls")]
            Ready::Native(_) => return None,
        };
        Some((config, generation))
    }
}

impl Inner {
    fn next_look(&self, interval: Duration, failures: u32) -> Instant {
        let jitter = self.config.reload.jitter * fastrand::f64();
        let mut wait = interval.mul_f64(1.0 - jitter);
        if let Some(update) = self.current.borrow().next_revocation_update {
            let left = revocation::refresh_at(update, SystemTime::now());
            // Lists that end soon and cannot be renewed are asked for at a bearable pace.
            wait = wait.min(left.max(MIN_REFRESH * 2_u32.pow(failures.min(6))));
        }
        Instant::now() + wait
    }

    async fn reload(&self) -> Result<Reload, TlsError> {
        let outcome = self.try_reload().await;
        let current = self.current.borrow().clone();
        audit::looked(
            self.source.name(),
            &current,
            &outcome,
            self.config.reload.warn_before_expiry,
        );
        outcome
    }

    async fn try_reload(&self) -> Result<Reload, TlsError> {
        let mut digest = self.reloading.lock().await;
        let material = self.source.load().await.map_err(TlsError::Material)?;
        let (new, version) = (material.digest(), material.version.clone());
        if *digest == new {
            return Ok(Reload::Unchanged);
        }
        let (number, oldest_allowed) = {
            let current = self.current.borrow();
            (current.number + 1, current.oldest_allowed)
        };
        let next = build(self.config.clone(), material, number, oldest_allowed).await?;
        *digest = new;
        audit::renewed(self.source.name(), version.as_deref(), &next);
        self.current.send_replace(Arc::new(next));
        Ok(Reload::Renewed(number))
    }
}

/// The shortest time between two looks on behalf of revocation lists that are about to end.
const MIN_REFRESH: Duration = Duration::from_secs(1);

impl Drop for Inner {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

/// Off the reactor: a backend may take tens of milliseconds.
async fn build(
    config: Arc<TlsConfig>,
    material: TlsMaterial,
    number: u64,
    oldest_allowed: u64,
) -> Result<Generation, TlsError> {
    let built = tokio::task::spawn_blocking(move || {
        let mut errors = ConfigErrors::default();
        check_amount(&config, &material, &mut errors);
        let parsed = parsed::parse(material, config.trust, config.backend, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let identities = parsed
            .identities
            .iter()
            .filter_map(|identity| identity.facts.clone())
            .collect();
        let next_revocation_update = parsed.revocation.next_update;
        match Ready::build(&config, parsed, &mut errors) {
            Some(ready) if errors.is_empty() => Ok(Generation {
                number,
                oldest_allowed,
                identities,
                since: SystemTime::now(),
                next_revocation_update,
                ready,
                peer: Arc::default(),
            }),
            _ => Err(errors),
        }
    });
    built
        .await
        .map_err(|_| TlsError::Cancelled)?
        .map_err(TlsError::Config)
}

/// What a source of the user's brings is held to the same rules as the configured places.
fn check_amount(config: &TlsConfig, material: &TlsMaterial, errors: &mut ConfigErrors) {
    if config.backend == Backend::NativeTls {
        if material.identities.len() > 1 {
            errors.push(
                "tls.identities",
                format!("{} identities", material.identities.len()),
                "native-tls takes one",
                "set tls.backend to rustls",
            );
        }
        if !material.revocation_lists.is_empty() {
            errors.push(
                "tls.revocation.lists",
                format!("{} lists", material.revocation_lists.len()),
                "native-tls takes no revocation lists",
                "set tls.backend to rustls",
            );
        }
    }
}

impl Generation {
    fn with_oldest_allowed(&self, oldest_allowed: u64) -> Self {
        Self {
            number: self.number,
            oldest_allowed,
            identities: self.identities.clone(),
            since: self.since,
            next_revocation_update: self.next_revocation_update,
            ready: self.ready.clone(),
            peer: self.peer.clone(),
        }
    }

    /// The same certificates in the same memory.
    pub(crate) fn share_peer(&self, certificates: Vec<Vec<u8>>) -> Arc<[Vec<u8>]> {
        let mut known = self.peer.lock().unwrap_or_else(PoisonError::into_inner);
        if **known != *certificates {
            *known = certificates.into();
        }
        known.clone()
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("number", &self.number)
            .field("oldest_allowed", &self.oldest_allowed)
            .field("identities", &self.identities)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("config", &self.0.config)
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}
