//! Where material comes from: a trait, and the source that a [`TlsConfig`] describes.

use std::{
    env, fmt,
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use secrecy::SecretString;
use tokio::io::AsyncReadExt;

use super::{IdentityMaterial, Location, MaterialError, TlsConfig, TlsMaterial};

/// A boxed future, as the traits here return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where certificates, keys and revocation lists come from.
///
/// Asked again and again; what it gives is compared with what was given before, so it need not know
/// whether anything has changed. An error keeps what there is. A source that reads from a secret
/// store is a closure in [`material_from`].
pub trait MaterialSource: Send + Sync + 'static {
    /// What audit events and metrics call it. One of a few fixed names.
    fn name(&self) -> &str;

    /// Brings all of it, from one point in time as far as it can be told. The future may be dropped.
    fn load(&self) -> BoxFuture<'_, Result<TlsMaterial, MaterialError>>;
}

/// A source that asks a closure.
///
/// ```
/// use mqtt_transport::tls::{material_from, TlsMaterial};
///
/// let source = material_from("vault", || async {
///     // Ask the secret store here.
///     Ok(TlsMaterial::default())
/// });
/// ```
pub fn material_from<F, Fut>(name: impl Into<String>, load: F) -> impl MaterialSource
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<TlsMaterial, MaterialError>> + Send + 'static,
{
    FromFn {
        name: name.into(),
        load,
    }
}

struct FromFn<F> {
    name: String,
    load: F,
}

impl<F, Fut> MaterialSource for FromFn<F>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<TlsMaterial, MaterialError>> + Send + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn load(&self) -> BoxFuture<'_, Result<TlsMaterial, MaterialError>> {
        Box::pin((self.load)())
    }
}

/// Brings revocation lists from URLs that the operator configured; with the application's HTTP
/// client, for instance. Each call may take 10 s and bring 64 MiB.
pub trait CrlFetcher: Send + Sync + 'static {
    /// Brings the list at `url`, PEM or DER. The future may be dropped.
    fn fetch(&self, url: &str) -> BoxFuture<'_, io::Result<Vec<u8>>>;
}

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_FILE: u64 = 1024 * 1024;
const MAX_LIST: u64 = 64 * 1024 * 1024;

/// The files, variables and URLs of a [`TlsConfig`].
pub struct ConfiguredSource {
    config: Arc<TlsConfig>,
    fetcher: Option<Arc<dyn CrlFetcher>>,
    /// The last good revocation list of each entry, which serves while no place has a newer one: a
    /// list out of reach must not keep a new certificate from being taken.
    lists: Mutex<Vec<Option<KnownList>>>,
}

#[derive(Clone)]
struct KnownList {
    content: Arc<[u8]>,
    until: SystemTime,
}

impl ConfiguredSource {
    /// What `config` names. URLs of revocation lists cannot be reached without a fetcher.
    pub fn new(config: TlsConfig) -> Self {
        Self {
            lists: Mutex::new(vec![None; config.revocation.lists.len()]),
            config: Arc::new(config),
            fetcher: None,
        }
    }

    /// With this for URLs.
    #[must_use]
    pub fn with_fetcher(mut self, fetcher: impl CrlFetcher) -> Self {
        self.fetcher = Some(Arc::new(fetcher));
        self
    }

    async fn material(&self) -> Result<TlsMaterial, MaterialError> {
        let mut material = TlsMaterial::default();
        for root in &self.config.roots {
            material.roots.push(read(root).await?);
        }
        for identity in &self.config.identities {
            let password = match &identity.password {
                Some(location) => Some(read_text(location).await?),
                None => None,
            };
            if let (Some(certificate), Some(key)) = (&identity.certificate, &identity.key) {
                material.identities.push(IdentityMaterial::Pem {
                    certificate: read(certificate).await?,
                    key: read(key).await?.into(),
                    password,
                });
            } else if let Some(archive) = &identity.pkcs12 {
                material.identities.push(IdentityMaterial::Pkcs12 {
                    archive: read(archive).await?.into(),
                    password: password.unwrap_or_default(),
                });
            }
        }
        for (entry, places) in self.config.revocation.lists.iter().enumerate() {
            let list = self.list(entry, places).await?;
            material.revocation_lists.push(list.to_vec());
        }
        Ok(material)
    }

    fn known(&self) -> MutexGuard<'_, Vec<Option<KnownList>>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first place that has a list which is well-formed and current, or else the last such.
    async fn list(&self, entry: usize, places: &[Location]) -> Result<Arc<[u8]>, MaterialError> {
        let known = self.known().get(entry).cloned().flatten();
        let known = known.filter(|known| known.until > SystemTime::now());
        let mut first = None;
        for place in places {
            let list = match place {
                Location::Url(url) => self.fetch(url).await,
                Location::File(path) => read_file(path, MAX_LIST).await,
                Location::Env(_) => read(place).await.map_err(|error| error.source),
            };
            let list = match list {
                Ok(list) => check_list(list, known.as_ref()).await,
                Err(error) => Err(error),
            };
            match list {
                Ok(list) => {
                    if let Some(slot) = self.known().get_mut(entry) {
                        *slot = Some(list.clone());
                    }
                    return Ok(list.content);
                }
                Err(source) => {
                    tracing::warn!(%place, error = %source, "no revocation list from this place");
                    first.get_or_insert_with(|| MaterialError::new(place, source));
                }
            }
        }
        if let Some(known) = known {
            return Ok(known.content);
        }
        Err(first.unwrap_or_else(|| {
            MaterialError::new("a revocation list", io::ErrorKind::NotFound.into())
        }))
    }

    async fn fetch(&self, url: &str) -> io::Result<Vec<u8>> {
        let Some(fetcher) = &self.fetcher else {
            let reason = "nothing fetches URLs: give ConfiguredSource a CrlFetcher";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        };
        let list = tokio::time::timeout(FETCH_TIMEOUT, fetcher.fetch(url)).await??;
        if u64::try_from(list.len()).is_ok_and(|len| len <= MAX_LIST) {
            Ok(list)
        } else {
            Err(too_large(MAX_LIST))
        }
    }
}

impl fmt::Debug for ConfiguredSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfiguredSource")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl MaterialSource for ConfiguredSource {
    fn name(&self) -> &str {
        "configuration"
    }

    fn load(&self) -> BoxFuture<'_, Result<TlsMaterial, MaterialError>> {
        Box::pin(self.material())
    }
}

/// Reads a list that is new, off the reactor: a large one takes a while.
async fn check_list(content: Vec<u8>, known: Option<&KnownList>) -> io::Result<KnownList> {
    if let Some(known) = known.filter(|known| *known.content == *content) {
        return Ok(known.clone());
    }
    let checked = tokio::task::spawn_blocking(move || {
        let until = super::revocation::check_current(&content)?;
        Ok(KnownList {
            content: content.into(),
            until,
        })
    });
    checked.await.map_err(io::Error::other)?
}

async fn read(location: &Location) -> Result<Vec<u8>, MaterialError> {
    let content = match location {
        Location::File(path) => read_file(path, MAX_FILE).await,
        Location::Env(name) => match env::var_os(name) {
            Some(value) => Ok(value.into_encoded_bytes()),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "it is not set")),
        },
        Location::Url(_) => Err(io::ErrorKind::Unsupported.into()),
    };
    content.map_err(|source| MaterialError::new(location, source))
}

/// A password, without the line end that editors and `echo` leave.
async fn read_text(location: &Location) -> Result<SecretString, MaterialError> {
    let text = String::from_utf8(read(location).await?).map_err(|_| {
        let reason = io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
        MaterialError::new(location, reason)
    })?;
    let text = SecretString::from(text);
    let trimmed = secrecy::ExposeSecret::expose_secret(&text).trim_end_matches(['\r', '\n']);
    Ok(trimmed.into())
}

async fn read_file(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = tokio::fs::File::open(path).await?;
    // As large as it gets: a key that is moved while it grows leaves copies behind.
    let len = file.metadata().await?.len().min(max) + 1;
    let mut content = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
    file.take(max + 1).read_to_end(&mut content).await?;
    if u64::try_from(content.len()).is_ok_and(|len| len <= max) {
        Ok(content)
    } else {
        Err(too_large(max))
    }
}

fn too_large(max: u64) -> io::Error {
    let reason = format!("larger than {max} bytes");
    io::Error::new(io::ErrorKind::FileTooLarge, reason)
}
