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
    fmt, io,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use thiserror::Error;
use tokio::{sync::watch, task::AbortHandle};

use super::{
    Backend, CertificateFacts, ConfiguredSource, MaterialError, MaterialSource, TlsConfig,
    TlsMaterial, Trust, audit, backend::Ready, parsed, revocation,
};
use crate::{ConfigErrors, Limit};

/// The options and the present material of TLS, shared by connectors. Cheap to clone.
///
/// Reads its source again as [`TlsConfig::reload`] says, in a task that ends with the last clone.
#[derive(Clone)]
pub struct Tls(Arc<Handle>);

/// What the clones share. The task that looks again has the material only, and ends with this.
struct Handle {
    inner: Arc<Inner>,
    task: Option<AbortHandle>,
}

struct Inner {
    config: Arc<TlsConfig>,
    source: Box<dyn MaterialSource>,
    current: watch::Sender<Arc<Generation>>,
    /// Digest of the material in use; held while it is being replaced, so that one is at a time.
    reloading: tokio::sync::Mutex<[u8; 32]>,
}

/// In DER, a server's own first.
type Certificates = [Vec<u8>];

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
    /// The certificates of servers, shared by all connections that see the same.
    pub(super) peers: Arc<Mutex<Vec<Weak<Certificates>>>>,
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
    /// The task that builds it was cancelled, as when the runtime shuts down, or panicked.
    #[error("the TLS material was not read to its end: {0}")]
    Unfinished(String),
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
            Self::Unfinished(reason) => errors.push(
                "tls",
                reason,
                "its material must be read to the end",
                "make the connector while its runtime runs",
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
        let material = load(&source, &config).await?;
        let (digest, material) = blocking(move || (material.digest(), material)).await?;
        let version = material.version.clone();
        let first = build(config.clone(), material, 1).await?;
        audit::renewed(source.name(), version.as_deref(), &first);
        let inner = Arc::new(Inner {
            config,
            source: Box::new(source),
            current: watch::Sender::new(Arc::new(first)),
            reloading: tokio::sync::Mutex::new(digest),
        });
        let task = inner
            .config
            .reload
            .interval
            .duration()
            .map(|interval| tokio::spawn(inner.clone().look(interval)).abort_handle());
        Ok(Self(Arc::new(Handle { inner, task })))
    }

    /// The options.
    pub fn config(&self) -> &TlsConfig {
        &self.0.inner.config
    }

    /// The material in use.
    pub fn generation(&self) -> Arc<Generation> {
        self.0.inner.current.borrow().clone()
    }

    /// Follows the generations, to retire connections of older ones: their number is in
    /// [`TlsInfo::generation`](super::TlsInfo::generation).
    pub fn subscribe(&self) -> watch::Receiver<Arc<Generation>> {
        self.0.inner.current.subscribe()
    }

    /// Reads the source again now. Calls wait for each other; dropping the future leaves everything
    /// as it is.
    ///
    /// # Errors
    ///
    /// The last good generation stays.
    pub async fn reload(&self) -> Result<Reload, TlsError> {
        self.0.inner.reload().await
    }

    /// Says that connections of older generations must go at once. To be called after a
    /// [`reload`](Self::reload) that has replaced what was leaked or withdrawn; who keeps connections
    /// learns of it from [`subscribe`](Self::subscribe).
    pub fn retire_older(&self) {
        let inner = &self.0.inner;
        inner.current.send_modify(|current| {
            let number = current.number;
            *current = Arc::new(current.with_oldest_allowed(number));
        });
        audit::retired(inner.source.name(), self.generation().oldest_allowed);
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
    /// Looks again and again, until it is aborted.
    async fn look(self: Arc<Self>, interval: Duration) {
        let mut unchanged = 0;
        loop {
            tokio::time::sleep(self.until_next_look(interval, unchanged)).await;
            unchanged = match self.reload().await {
                Ok(Reload::Renewed(_)) => 0,
                Ok(Reload::Unchanged) | Err(_) => unchanged + 1,
            };
        }
    }

    fn until_next_look(&self, interval: Duration, unchanged: u32) -> Duration {
        let jitter = self.config.reload.jitter * fastrand::f64();
        let wait = interval.mul_f64(1.0 - jitter);
        let Some(update) = self.current.borrow().next_revocation_update else {
            return wait;
        };
        // Lists that end soon and are not renewed are asked for less and less often.
        let left = revocation::refresh_at(update, SystemTime::now());
        wait.min(left.max(MIN_REFRESH * 2_u32.pow(unchanged.min(12))))
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
        let material = load(&*self.source, &self.config).await?;
        let (new, material) = blocking(move || (material.digest(), material)).await?;
        if *digest == new {
            return Ok(Reload::Unchanged);
        }
        let version = material.version.clone();
        let number = self.current.borrow().number + 1;
        let mut next = build(self.config.clone(), material, number).await?;
        *digest = new;
        audit::renewed(self.source.name(), version.as_deref(), &next);
        self.current.send_modify(|current| {
            // What was withdrawn meanwhile stays so.
            next.oldest_allowed = current.oldest_allowed;
            *current = Arc::new(next);
        });
        Ok(Reload::Renewed(number))
    }
}

/// The shortest time between two looks on behalf of revocation lists that are about to end.
const MIN_REFRESH: Duration = Duration::from_secs(1);

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Asks the source, which may take its time but not for ever, and may be anybody's code.
async fn load(source: &dyn MaterialSource, config: &TlsConfig) -> Result<TlsMaterial, TlsError> {
    let timeout = config.reload.timeout;
    let loaded = AssertUnwindSafe(async { source.load().await }).catch_unwind();
    let failed = match tokio::time::timeout(timeout, loaded).await {
        Ok(Ok(material)) => return material.map_err(TlsError::Material),
        Ok(Err(_)) => io::Error::other("the source panicked"),
        Err(_) => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("it took longer than {timeout:?}"),
        ),
    };
    Err(TlsError::Material(MaterialError::new(
        source.name(),
        failed,
    )))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TlsError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| TlsError::Unfinished(error.to_string()))
}

/// Off the reactor: a backend may take tens of milliseconds.
async fn build(
    config: Arc<TlsConfig>,
    material: TlsMaterial,
    number: u64,
) -> Result<Generation, TlsError> {
    let built = blocking(move || {
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
                oldest_allowed: 0,
                identities,
                since: SystemTime::now(),
                next_revocation_update,
                ready,
                peers: Arc::default(),
            }),
            _ => Err(errors),
        }
    });
    built.await?.map_err(TlsError::Config)
}

/// What a source of the user's brings is held to the same rules as the configured places.
fn check_amount(config: &TlsConfig, material: &TlsMaterial, errors: &mut ConfigErrors) {
    if config.trust == Trust::System && !material.roots.is_empty() {
        errors.push(
            "tls.roots",
            format!("{} from the source", material.roots.len()),
            "are not used while tls.trust is system",
            "set tls.trust to own, or to both",
        );
    }
    if config.wants_revocation() && material.revocation_lists.is_empty() {
        errors.push(
            "tls.revocation",
            "no lists",
            "the material must have one",
            "without any, nothing would be looked up: the source must bring them",
        );
    }
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
            peers: self.peers.clone(),
        }
    }

    /// The same certificates in the same memory, as long as there are not too many servers.
    pub(crate) fn share_peer(&self, certificates: Vec<Vec<u8>>) -> Arc<[Vec<u8>]> {
        let mut known = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let same = known
            .iter()
            .filter_map(Weak::upgrade)
            .find(|known| **known == *certificates);
        same.unwrap_or_else(|| {
            let new = certificates.into();
            known.retain(|known| known.strong_count() > 0);
            if known.len() < MAX_SHARED_PEERS {
                known.push(Arc::downgrade(&new));
            }
            new
        })
    }
}

/// Servers whose certificates are looked through at each handshake.
const MAX_SHARED_PEERS: usize = 64;

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
            .field("config", self.config())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}
