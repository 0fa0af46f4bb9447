//! Opening sessions: dial, CONNECT, CONNACK, and the task that drives what comes after.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use mqtt_pool::{ConfigErrors, DeathNotice, DialGate};
use mqtt_proto::{Version, packet::Connect};
use mqtt_transport::{Conn, ConnectDeadline, Connector, DeadlineHandle, Endpoint};
use tower_service::Service;

use crate::{
    authenticate::{AuthenticationAttempt, Authenticator, AuthenticatorFactory},
    config::SessionConfig,
    credentials::{Credentials, CredentialsSource, Source},
    error::{ConnectCause, ConnectError},
    life::Life,
    metrics::Metrics,
    opener::Opener,
    outbox::Overflow,
    reconnect::{Cause, Interruption, Plan, Reconnect},
    redirect::RedirectPolicy,
    session::Session,
    shared::{Core, Options, Shared},
};

/// Opens sessions, over any service that makes connections.
///
/// As a [`Service`] it takes the [`Endpoint`] to connect to. Must be called within a tokio
/// runtime, which gets one task for each session. Dropping its future closes what was dialled.
#[derive(Debug)]
pub struct SessionConnector<C = ConnectDeadline<Connector>> {
    connector: C,
    connect: Arc<Connect>,
    common: Arc<Common<C>>,
}

/// What the sessions of a connector have in common, and hold as long as they live.
#[derive(Debug)]
pub(crate) struct Common<C> {
    pub(crate) config: SessionConfig,
    /// That of all sessions: one is enough, and smaller than one for each.
    pub(crate) write_deadline: DeadlineHandle,
    pub(crate) options: Arc<Options>,
    pub(crate) reconnect: Option<Reconnect>,
    pub(crate) credentials: Option<Source>,
    pub(crate) authenticator: Option<Arc<AuthenticatorFactory>>,
    pub(crate) redirects: Option<RedirectPolicy>,
    /// Those of the configuration, which hold where there is no source.
    pub(crate) configured: Credentials,
    /// What dials for the connections after the first.
    pub(crate) template: Mutex<C>,
    /// Which they all go through, if they are to.
    pub(crate) gate: Option<DialGate>,
}

impl<C: Clone> Clone for SessionConnector<C> {
    fn clone(&self) -> Self {
        Self {
            connector: self.connector.clone(),
            connect: self.connect.clone(),
            common: self.common.clone(),
        }
    }
}

impl SessionConnector {
    /// Dials by the scheme of the endpoint, within the configured `connect_timeout`; with TLS, the
    /// system's authorities are trusted.
    pub fn new(config: SessionConfig) -> Result<Self, ConfigErrors> {
        Self::with_transport(Connector::default(), config)
    }

    /// Dials with `connector`, which knows the options of TCP, TLS, proxies and the rest, within the
    /// configured `connect_timeout`.
    pub fn with_transport(
        connector: Connector,
        config: SessionConfig,
    ) -> Result<Self, ConfigErrors> {
        let config = config.bounded();
        let connector = ConnectDeadline::new(connector, config.connect_timeout);
        Self::with_connector(connector, config)
    }
}

impl<C: Clone> SessionConnector<C> {
    /// Dials with this service. `connect_timeout` is then its business.
    pub fn with_connector(connector: C, config: SessionConfig) -> Result<Self, ConfigErrors> {
        let connect = Arc::new(config.connect()?);
        let config = config.bounded();
        let common = Common {
            write_deadline: DeadlineHandle::new(config.write_timeout),
            options: Arc::new(Options::of(&config)),
            reconnect: config.reconnect.clone().map(Reconnect::from),
            credentials: None,
            authenticator: None,
            redirects: None,
            configured: Credentials::of(&connect),
            template: Mutex::new(connector.clone()),
            gate: None,
            config,
        };
        Ok(Self {
            connector,
            connect,
            common: Arc::new(common),
        })
    }

    /// Asks `policy` whether and when to try again, in the place of what
    /// [`ReconnectConfig`](crate::ReconnectConfig) says; it may ask
    /// [`ReconnectConfig::plan`](crate::ReconnectConfig::plan) in turn. It is called in the session's
    /// task and should not block.
    ///
    /// Nothing is tried again if the configured `reconnect` is `None`.
    #[must_use]
    pub fn with_reconnect_policy(
        self,
        policy: impl Fn(&Interruption<'_>) -> Plan + Send + Sync + 'static,
    ) -> Self {
        let reconnect = self.common.reconnect.clone().map(|reconnect| Reconnect {
            policy: Arc::new(policy),
            ..reconnect
        });
        self.with_common(|common| common.reconnect = reconnect)
    }

    pub(crate) fn with_gate(self, gate: Option<DialGate>) -> Self {
        self.with_common(|common| common.gate = gate)
    }

    /// Asks `source` for user name and password at every attempt to connect, of every session, in
    /// the place of the configured ones. See [`CredentialsSource`].
    #[must_use]
    pub fn with_credentials(self, source: impl CredentialsSource) -> Self {
        let source = Source {
            source: Arc::new(source),
            timeout: self.common.config.credentials_timeout,
        };
        self.with_common(|common| common.credentials = Some(source))
    }

    /// Authenticates with what `make` makes for each connection and each
    /// [re-authentication](Session::reauthenticate), in the enhanced authentication of MQTT 5.0
    /// (section 4.12). It is called in the task that connects and should not block. User name and
    /// password of the configuration are sent too, if there are any.
    ///
    /// # Errors
    ///
    /// The configured version is not 5.0.
    pub fn with_authenticator<A: Authenticator>(
        self,
        make: impl Fn(&AuthenticationAttempt<'_>) -> A + Send + Sync + 'static,
    ) -> Result<Self, ConfigErrors> {
        let config = &self.common.config;
        if config.version != Version::V5 {
            let mut errors = ConfigErrors::default();
            let rule = "5.0 for enhanced authentication";
            let hint = "set version, or use user name and password";
            errors.push("session.version", config.version, rule, hint);
            return Err(errors);
        }
        let factory = Arc::new(AuthenticatorFactory::new(make, config.connack_timeout));
        Ok(self.with_common(|common| common.authenticator = Some(factory)))
    }

    /// Follows servers that name another one, as `policy` says. By default none is followed.
    #[must_use]
    pub fn with_redirects(self, policy: RedirectPolicy) -> Self {
        self.with_common(|common| common.redirects = Some(policy))
    }

    fn with_common(self, change: impl FnOnce(&mut Common<C>)) -> Self {
        let mut common = Common {
            config: self.common.config.clone(),
            write_deadline: self.common.write_deadline.clone(),
            options: self.common.options.clone(),
            template: Mutex::new(self.connector.clone()),
            reconnect: self.common.reconnect.clone(),
            credentials: self.common.credentials.clone(),
            authenticator: self.common.authenticator.clone(),
            gate: self.common.gate.clone(),
            redirects: self.common.redirects.clone(),
            configured: self.common.configured.clone(),
        };
        change(&mut common);
        Self {
            common: Arc::new(common),
            ..self
        }
    }

    /// The same under another client identifier: for a process with a session for each of its
    /// devices, which then share everything else.
    ///
    /// # Errors
    ///
    /// That it is not allowed, alone or with the other options.
    pub fn with_client_id(&self, client_id: impl Into<String>) -> Result<Self, ConfigErrors> {
        let config = SessionConfig {
            client_id: client_id.into(),
            ..self.common.config.clone()
        };
        Ok(Self {
            connect: Arc::new(config.connect()?),
            ..self.clone()
        })
    }

    /// The same for a pool, which replaces sessions that have lost their connection. What waits for
    /// one of them stays its caller's, so that another session can send it.
    pub(crate) fn for_pool(self) -> Self {
        self.with_common(|common| {
            common.reconnect = None;
            common.gate = None;
            if common.options.outbox.overflow == Overflow::Wait {
                common.config.outbox.max_messages = 0;
                common.options = Arc::new(Options::of(&common.config));
            }
        })
    }
}

impl<C> SessionConnector<C> {
    /// The options of the sessions it opens; the client identifier may be [another](Self::with_client_id).
    pub fn config(&self) -> &SessionConfig {
        &self.common.config
    }

    pub(crate) fn has_gate(&self) -> bool {
        self.common.gate.is_some()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.common.options.metrics
    }
}

impl<C> SessionConnector<C>
where
    C: Dial,
{
    /// Opens a session.
    ///
    /// An attempt that failed for what may pass is repeated as the configured `reconnect` says; the
    /// error is that of the last one. Dropping the future gives up.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<Session, ConnectError> {
        self.connect_for(endpoint, None).await
    }

    /// Opens a session whose end a pool is told of.
    pub(crate) async fn connect_for(
        &self,
        endpoint: Endpoint,
        notice: Option<DeathNotice>,
    ) -> Result<Session, ConnectError> {
        open(self.clone(), endpoint, notice).await
    }
}

impl<C: Dial> Service<Endpoint> for SessionConnector<C> {
    type Response = Session;
    type Error = ConnectError;
    type Future = ConnectFuture;

    /// Ready when the service below is: a limit on dials is a limit on sessions being opened.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        // The endpoint is not known yet; connectors are not refused before it is.
        self.connector.poll_ready(cx).map_err(|error| ConnectError {
            endpoint: error.endpoint().clone(),
            cause: ConnectCause::Dial(error),
        })
    }

    fn call(&mut self, endpoint: Endpoint) -> ConnectFuture {
        // The one that was ready makes the connection; its clone stays to become ready again.
        let clone = self.clone();
        let ready = std::mem::replace(self, clone);
        ConnectFuture(Box::pin(open(ready, endpoint, None)))
    }
}

/// The future of [`SessionConnector`] as a service.
#[must_use = "a connect does nothing until polled"]
pub struct ConnectFuture(Pin<Box<dyn Future<Output = Result<Session, ConnectError>> + Send>>);

impl Future for ConnectFuture {
    type Output = Result<Session, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for ConnectFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectFuture").finish_non_exhaustive()
    }
}

/// A service that makes connections, as [`SessionConnector`] needs it. Every such service is one.
pub trait Dial:
    Service<Endpoint, Response: Conn, Error = mqtt_transport::ConnectError, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Dial for S where
    S: Service<Endpoint, Response: Conn, Error = mqtt_transport::ConnectError, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Opens a session.
async fn open<C: Dial>(
    connector: SessionConnector<C>,
    endpoint: Endpoint,
    notice: Option<DeathNotice>,
) -> Result<Session, ConnectError> {
    let SessionConnector {
        mut connector,
        connect,
        common,
    } = connector;
    let core = Core::new(common.config.options());
    let options = common.options.clone();
    let shared = Arc::new(Shared::new(endpoint, core, notice, options));
    let mut opener = Opener::new(common);
    let (mut to, mut last) = (None, None);
    let driver = loop {
        let connect = (*connect).clone();
        let cause = last.as_ref().map(Cause::NotOpened);
        let attempt = opener.attempt(&mut connector, connect, to, cause, &shared);
        match attempt.await {
            Ok(driver) => break driver,
            Err(error) => match opener.plan(Cause::NotOpened(&error)) {
                Plan::Retry { after, endpoint } => {
                    tracing::warn!(%error, cause = ?error.cause, ?after, "no session yet");
                    tokio::time::sleep(after).await;
                    (to, last) = (endpoint, Some(error));
                }
                // Nobody has the session yet who could end the hold.
                Plan::Hold | Plan::GiveUp => return Err(error),
            },
        }
    };
    tokio::spawn(Life::new(driver, opener));
    Ok(Session::new(shared))
}
