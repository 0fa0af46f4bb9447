//! Where user name and password come from: a source that is asked at every attempt to connect, so
//! that a token that has been exchanged meanwhile is the one that is used.

use std::{env, fmt, io, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use mqtt_proto::{Secret, Utf8String, packet::Connect};
use mqtt_transport::Endpoint;
use thiserror::Error;
use tokio::{io::AsyncReadExt, time::Instant};

use crate::reconnect::Cause;

/// Who a session says it is. The password never prints.
///
/// As a [`CredentialsSource`] it is always the same.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Credentials {
    /// User name. 3.1.1 allows no password without one `[MQTT3-3.1.2-22]`.
    pub user_name: Option<Utf8String>,
    /// Password, or a token in its place.
    pub password: Option<Secret>,
    /// How long they are good for, counted from the moment they are given; `None`, the default, for as
    /// long as the connection holds.
    ///
    /// The source is asked again when three quarters to nine tenths of it are over, at random, so
    /// that a fleet does not do so together, but not within 10 s. A session with new credentials
    /// then makes a new connection with them, in order: see [`CredentialsSource`].
    pub expires_in: Option<Duration>,
}

impl Credentials {
    /// These, for as long as the connection holds.
    ///
    /// # Errors
    ///
    /// That one of them is longer than 65,535 bytes, or the name has a null character; permanent.
    pub fn new(
        user_name: impl Into<String>,
        password: impl Into<Vec<u8>>,
    ) -> Result<Self, CredentialsError> {
        Ok(Self {
            user_name: Some(Utf8String::new(user_name.into()).map_err(not_allowed)?),
            password: Some(Secret::new(password.into()).map_err(not_allowed)?),
            expires_in: None,
        })
    }

    /// Good for so long, from the moment they are given.
    #[must_use]
    pub fn with_expires_in(mut self, expires_in: Duration) -> Self {
        self.expires_in = Some(expires_in);
        self
    }

    /// Those of a CONNECT.
    pub(crate) fn of(connect: &Connect) -> Self {
        Self {
            user_name: connect.user_name.clone(),
            password: connect.password.clone(),
            expires_in: None,
        }
    }

    /// Puts them into a CONNECT, in the place of those it has.
    pub(crate) fn put_into(self, connect: &mut Connect) {
        connect.user_name = self.user_name;
        connect.password = self.password;
    }
}

fn not_allowed(error: mqtt_proto::TextError) -> CredentialsError {
    CredentialsError::permanent(io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Gives credentials to the sessions of a [connector](crate::SessionConnector::with_credentials).
///
/// It is asked at every attempt of every session, first or repeated, of a pool or not, and twice where
/// the attempt [waited long](crate::SessionConnector::with_dial_gate) to be made. It may be asked by many at once; `credentials_timeout` bounds each answer. Closures that take a
/// [`CredentialsRequest`] and return a future are sources.
///
/// A server that refuses what it gave (0x86, 0x87), or ends an open session with 0x87, may have met
/// credentials that have run out: the source is asked once more, and the attempt repeated with its
/// answer at once. If that is refused too, or again before the next stable period, the
/// refusal counts as any other, which is permanent.
///
/// When credentials [expire](Credentials::expires_in), the source is asked beforehand, while the
/// connection still holds, and again after 5 to 10 s if it fails. With its answer the session makes
/// a new connection: it sends DISCONNECT and connects at once. A session that the server keeps goes
/// on where it was. Otherwise publishes wait from then on, and those at QoS 1 and 2 that are in
/// flight are waited for, up to `quiesce`. A session of a pool is not handed out any more instead,
/// and leaves when it is idle.
pub trait CredentialsSource: Send + Sync + 'static {
    /// Gives credentials. The future is dropped when the time is up and when the session is told to
    /// leave.
    ///
    /// # Errors
    ///
    /// That there are none now. The attempt has failed then, with
    /// [`ConnectCause::Credentials`](crate::ConnectCause::Credentials).
    fn credentials<'a>(
        &'a self,
        request: &'a CredentialsRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Credentials, CredentialsError>> + Send + 'a>>;

    /// Whether asking again can bring others. By default it can.
    fn can_renew(&self) -> bool {
        true
    }
}

/// What a source is told of the attempt it is asked for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CredentialsRequest<'a> {
    /// Where the session connects.
    pub endpoint: &'a Endpoint,
    /// Its client identifier; empty if the server is to choose one.
    pub client_id: &'a str,
    /// How many attempts there were since the last stable period.
    pub attempt: u32,
    /// Why the last connection has ended or the last attempt has failed; `None` at the first attempt
    /// and for credentials that are about to expire.
    pub last: Option<Cause<'a>>,
}

impl<'a> CredentialsRequest<'a> {
    /// That of a first attempt: for sources that ask others, and to try one out.
    pub fn new(endpoint: &'a Endpoint, client_id: &'a str) -> Self {
        Self {
            endpoint,
            client_id,
            attempt: 0,
            last: None,
        }
    }
}

impl<F, Fut> CredentialsSource for F
where
    F: Fn(&CredentialsRequest<'_>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Credentials, CredentialsError>> + Send + 'static,
{
    fn credentials<'a>(
        &'a self,
        request: &'a CredentialsRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Credentials, CredentialsError>> + Send + 'a>> {
        Box::pin(self(request))
    }
}

impl CredentialsSource for Credentials {
    fn credentials<'a>(
        &'a self,
        _: &'a CredentialsRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Credentials, CredentialsError>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(self.clone())))
    }

    fn can_renew(&self) -> bool {
        false
    }
}

/// Credentials in environment variables, which are read at every attempt.
#[derive(Clone, Debug)]
pub struct EnvCredentials {
    user_name: String,
    password: String,
}

impl EnvCredentials {
    /// In variables of these names. One that is not set is a permanent error.
    pub fn new(user_name: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user_name: user_name.into(),
            password: password.into(),
        }
    }
}

impl CredentialsSource for EnvCredentials {
    fn credentials<'a>(
        &'a self,
        _: &'a CredentialsRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Credentials, CredentialsError>> + Send + 'a>> {
        Box::pin(std::future::ready(variable(&self.user_name).and_then(
            |name| Credentials::new(name, variable(&self.password)?),
        )))
    }
}

/// The error names the variable and not what is in it.
fn variable(name: &str) -> Result<String, CredentialsError> {
    env::var(name).map_err(|error| {
        let reason = match error {
            env::VarError::NotPresent => "is not set",
            env::VarError::NotUnicode(_) => "is not UTF-8",
        };
        let source = format!("the environment variable {name} {reason}");
        CredentialsError::permanent(io::Error::new(io::ErrorKind::NotFound, source))
    })
}

/// A user name, and a password in a file that is read at every attempt, as secret stores mount them.
///
/// One line feed at its end, with a carriage return before it or not, is not part of the password.
#[derive(Clone, Debug)]
pub struct FileCredentials {
    user_name: String,
    password: PathBuf,
}

impl FileCredentials {
    /// This user, with the password in the file of this path. A file that cannot be read is a
    /// transient error: it may be about to be exchanged.
    pub fn new(user_name: impl Into<String>, password: impl Into<PathBuf>) -> Self {
        Self {
            user_name: user_name.into(),
            password: password.into(),
        }
    }

    async fn read(&self) -> Result<Credentials, CredentialsError> {
        let named = |error: io::Error| {
            let path = self.password.display();
            CredentialsError::new(io::Error::new(error.kind(), format!("{path}: {error}")))
        };
        let file = tokio::fs::File::open(&self.password).await.map_err(named)?;
        let mut password = Vec::new();
        let mut file = file.take(MAX_FILE);
        file.read_to_end(&mut password).await.map_err(named)?;
        if password.last() == Some(&b'\n') {
            password.pop();
            if password.last() == Some(&b'\r') {
                password.pop();
            }
        }
        Credentials::new(&*self.user_name, password)
    }
}

/// The longest password there is, with a line end: what is longer is seen to be too long.
const MAX_FILE: u64 = 65_535 + 2;

impl CredentialsSource for FileCredentials {
    fn credentials<'a>(
        &'a self,
        _: &'a CredentialsRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Credentials, CredentialsError>> + Send + 'a>> {
        Box::pin(self.read())
    }
}

/// A source has no credentials to give.
#[derive(Debug, Error)]
#[error("no credentials")]
pub struct CredentialsError {
    #[source]
    source: io::Error,
    is_transient: bool,
}

impl CredentialsError {
    /// For now: another attempt may find some. Any error is one of [`io::Error::other`]; it must not
    /// repeat secrets, as it is printed.
    pub fn new(source: io::Error) -> Self {
        Self {
            source,
            is_transient: true,
        }
    }

    /// For good: a person has to mend it.
    pub fn permanent(source: io::Error) -> Self {
        Self {
            source,
            is_transient: false,
        }
    }

    /// Whether asking again can help.
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }
}

impl From<io::Error> for CredentialsError {
    fn from(source: io::Error) -> Self {
        Self::new(source)
    }
}

/// The source of a connector, and how long it may take.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) source: Arc<dyn CredentialsSource>,
    pub(crate) timeout: Duration,
}

impl Source {
    pub(crate) fn can_renew(&self) -> bool {
        self.source.can_renew()
    }

    pub(crate) async fn ask(
        &self,
        request: &CredentialsRequest<'_>,
    ) -> Result<Given, CredentialsError> {
        let answer = tokio::time::timeout(self.timeout, self.source.credentials(request));
        let answer = answer.await.unwrap_or_else(|_| {
            let reason = format!("the source did not answer within {:?}", self.timeout);
            Err(io::Error::new(io::ErrorKind::TimedOut, reason).into())
        });
        answer.map(|credentials| Given {
            credentials,
            at: Instant::now(),
        })
    }
}

/// Credentials, and when they were given.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) credentials: Credentials,
    at: Instant,
}

impl Given {
    /// When others are to be asked for, where `chance`, from 0.0 to 1.0, spreads a fleet.
    pub(crate) fn renew_at(&self, chance: f64) -> Option<Instant> {
        let lifetime = self.credentials.expires_in?;
        let share = EARLIEST + (LATEST - EARLIEST) * chance;
        let after = Duration::try_from_secs_f64(lifetime.as_secs_f64() * share);
        self.at
            .checked_add(after.unwrap_or(Duration::MAX).max(SHORTEST))
    }
}

/// The part of their lifetime after which credentials are renewed: what is left is time for a source
/// that fails at first.
const EARLIEST: f64 = 0.75;
const LATEST: f64 = 0.9;

/// Credentials that say they expire sooner do not make a session reconnect all the time.
const SHORTEST: Duration = Duration::from_secs(10);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn they_are_renewed_in_the_last_quarter_of_their_time() {
        for (lifetime, chance, seconds) in [
            (1000, 0.0, 750.0),
            (1000, 0.5, 825.0),
            (1000, 1.0, 900.0),
            (3, 0.0, 10.0),
            (0, 1.0, 10.0),
        ] {
            let credentials = Credentials::default().with_expires_in(Duration::from_secs(lifetime));
            let given = Given {
                credentials,
                at: Instant::now(),
            };
            let after = given.renew_at(chance).unwrap() - given.at;
            assert!((after.as_secs_f64() - seconds).abs() < 1e-6, "{after:?}");
        }
        for expires_in in [None, Some(Duration::MAX)] {
            let credentials = Credentials {
                expires_in,
                ..Credentials::default()
            };
            let at = Instant::now();
            assert_eq!(Given { credentials, at }.renew_at(0.5), None);
        }
    }
}
