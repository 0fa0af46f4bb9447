//! Opening sessions: dial, CONNECT, CONNACK, and the task that drives what comes after.

use std::{
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use mqtt_pool::{ConfigErrors, DeathNotice, DialGate, DialOutcome};
use mqtt_proto::{
    Connected, DecodeError, Decoder, Event, ProtocolError, ReasonCode, Utf8String, Version,
    packet::{Connect, Disconnect},
};
use mqtt_transport::{Conn, ConnectDeadline, Connector, DeadlineHandle, Endpoint, WriteDeadline};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tower_service::Service;
use tracing::{Instrument, Span};

use crate::{
    authenticate::{AuthenticationAttempt, Authenticator, AuthenticatorFactory, Exchange},
    config::SessionConfig,
    credentials::{
        Credentials, CredentialsError, CredentialsRequest, CredentialsSource, Given, Source,
    },
    driver::Driver,
    error::{ConnectCause, ConnectError, LostCause},
    life::Life,
    metrics::Metrics,
    notes::{Due, Notes},
    outbox::Overflow,
    poison::{PROBATION, Suspect, Verdict, is_careful, judge, may_be_for_a_publish},
    reconnect::{Cause, Interruption, Plan, Reconnect},
    redirect::{RedirectPolicy, Route, is_redirect, withhold},
    renewal::{renew, retire},
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
    config: SessionConfig,
    /// That of all sessions: one is enough, and smaller than one for each.
    write_deadline: DeadlineHandle,
    options: Arc<Options>,
    reconnect: Option<Reconnect>,
    credentials: Option<Source>,
    authenticator: Option<Arc<AuthenticatorFactory>>,
    redirects: Option<RedirectPolicy>,
    /// Those of the configuration, which hold where there is no source.
    configured: Credentials,
    /// What dials for the connections after the first.
    template: Mutex<C>,
    /// Which they all go through, if they are to.
    gate: Option<DialGate>,
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

/// Opens the connections of one session, one after the other.
pub(crate) struct Opener<C> {
    common: Arc<Common<C>>,
    /// How many attempts there were since the last stable period.
    attempt: u32,
    was_open: bool,
    /// Whether the gate counts it as open.
    is_open: bool,
    notes: Option<Box<Notes>>,
}

impl<C: Dial> Opener<C> {
    fn new(common: Arc<Common<C>>) -> Self {
        Self {
            common,
            attempt: 0,
            was_open: false,
            is_open: false,
            notes: None,
        }
    }

    /// Whether there is to be a connection after this one.
    pub(crate) fn reopens(&self) -> bool {
        self.common.reconnect.is_some()
    }

    /// What is to be done about this: what the policy says, unless it is plain.
    pub(crate) fn plan(&mut self, cause: Cause<'_>) -> Plan {
        let common = self.common.clone();
        let plan = match &common.reconnect {
            _ if self.goes_on_at_once(cause) => Plan::retry(Duration::ZERO),
            None => Plan::GiveUp,
            Some(Reconnect { policy, .. }) => policy(&Interruption {
                endpoint: cause.endpoint(),
                attempt: self.attempt,
                cause,
                was_open: self.was_open,
            }),
        };
        self.attempt = self.attempt.saturating_add(1);
        plan
    }

    /// The connection has ended so: the recorder is told, and the gate if it counts it.
    pub(crate) fn on_ended(&mut self, shared: &Shared, cause: &LostCause) {
        self.common.options.metrics.ended(cause);
        if let (Some(gate), true) = (&self.common.gate, std::mem::take(&mut self.is_open)) {
            let facts = shared.lock().facts.clone();
            let began = facts.map_or_else(Instant::now, |facts| facts.conn.dialled);
            gate.on_ended(began, crate::gate::has_failed(cause));
        }
    }

    /// Whether there are or may be new credentials, or a server to go on to, and no policy need be
    /// asked.
    fn goes_on_at_once(&mut self, cause: Cause<'_>) -> bool {
        if let Cause::Lost(lost) = cause {
            if matches!(lost.cause, LostCause::Renewed) {
                return true;
            }
            if let LostCause::Disconnected(disconnect) = &lost.cause
                && self.is_sent_on(&lost.endpoint, disconnect)
            {
                return true;
            }
        }
        let source = self.common.credentials.as_ref();
        if !cause.is_about_credentials() || !source.is_some_and(Source::can_renew) {
            return false;
        }
        let notes = self.notes.get_or_insert_default();
        !std::mem::replace(&mut notes.has_asked_anew, true)
    }

    /// Whether a DISCONNECT names a server to go on to.
    fn is_sent_on(&mut self, from: &Endpoint, disconnect: &Disconnect) -> bool {
        let code = disconnect.reason_code;
        let Some(policy) = self.common.redirects.as_ref().filter(|_| is_redirect(code)) else {
            return false;
        };
        let reference = disconnect.properties.server_reference.as_ref();
        match policy.targets(from, code, reference) {
            Ok(targets) => {
                let has_moved = code == ReasonCode::SERVER_MOVED;
                let max_hops = policy.max_hops();
                let notes = self.notes.get_or_insert_default();
                if notes.hops >= max_hops {
                    return false;
                }
                notes.hops += 1;
                notes.sent_on = Some(Route::sent_on(from.clone(), targets, has_moved));
                true
            }
            Err(error) => {
                tracing::warn!(endpoint = %from, %error, "a server that names another is not followed");
                false
            }
        }
    }

    /// That of the present connection, if a subscriber wants it.
    pub(crate) fn span(&self) -> Option<&Span> {
        self.notes.as_ref()?.span.as_ref()
    }

    /// Begins a span in which the connection is driven. It is kept among the notes: without a
    /// subscriber that wants it, a session has no memory for it.
    fn begin_span(&mut self, endpoint: &Endpoint, client_id: &Utf8String) {
        let number = self.notes.as_ref().map_or(0, |notes| notes.connections) + 1;
        let span = tracing::info_span!(parent: None, "connection", %endpoint, %client_id, number);
        if !span.is_disabled() {
            let notes = self.notes.get_or_insert_default();
            notes.connections = number;
            notes.span = Some(span);
        }
    }

    /// What is to be done with the connection now, if anything is.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>) -> Option<Due> {
        self.notes.as_mut()?.poll_due(cx)
    }

    /// The connection is gone, and with it what was begun on it; one that was stable ends the count of
    /// failures. Returns the publish that has ended it, if one is found guilty.
    pub(crate) fn on_connection_lost(
        &mut self,
        shared: &Shared,
        cause: &LostCause,
    ) -> Option<Suspect> {
        let was_careful = self.is_careful();
        if let Some(notes) = &mut self.notes {
            notes.on_connection_lost();
        }
        let common = self.common.clone();
        let reconnect = common.reconnect.as_ref()?;
        let (oldest, age) = shared.oldest_unacknowledged();
        if age >= reconnect.stable_after.saturating_add(cause.useless_for()) {
            self.attempt = 0;
            if let Some(notes) = &mut self.notes {
                notes.forget_failures();
            }
        }
        let limit = reconnect.set_aside_after?;
        let before = self.notes.as_ref().and_then(|notes| notes.suspect);
        let probation = if was_careful {
            PROBATION
        } else {
            Duration::ZERO
        };
        let verdict = if age >= reconnect.stable_after.saturating_add(probation) {
            Verdict::Acquitted
        } else if may_be_for_a_publish(cause) {
            judge(before, oldest, was_careful, limit)
        } else {
            return None;
        };
        let (suspect, culprit) = match verdict {
            Verdict::Acquitted => (None, None),
            Verdict::Suspected(suspect) => (Some(suspect), None),
            Verdict::Guilty(culprit) => (None, Some(culprit)),
        };
        if before != suspect {
            self.notes.get_or_insert_default().suspect = suspect;
        }
        culprit
    }

    fn is_careful(&self) -> bool {
        self.notes.as_ref().is_some_and(|notes| notes.is_careful)
    }

    /// Whether the next connection is to be given its resends with care.
    fn has_to_be_careful(&self) -> bool {
        let reconnect = self.common.reconnect.as_ref();
        let limit = reconnect.and_then(|reconnect| reconnect.set_aside_after);
        let suspect = self.notes.as_ref().and_then(|notes| notes.suspect);
        limit.is_some_and(|limit| is_careful(suspect, limit))
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempt
    }

    /// Opens another connection of a session that was open: there, or where it belongs.
    pub(crate) async fn reopen(
        &mut self,
        to: Option<Endpoint>,
        last: Cause<'_>,
        shared: &Arc<Shared>,
    ) -> Result<Driver<WriteDeadline<C::Response>>, ConnectError> {
        let template = self.common.template.lock();
        let mut connector = template.unwrap_or_else(PoisonError::into_inner).clone();
        let connect = shared.lock().core.last_connect().cloned();
        let connect = connect.expect("a session that was open had a CONNECT");
        self.attempt(&mut connector, connect, to, Some(last), shared)
            .await
    }

    /// Opens a connection there, or where the session belongs, or where the servers on the way name
    /// others.
    async fn attempt(
        &mut self,
        connector: &mut C,
        connect: Connect,
        to: Option<Endpoint>,
        last: Option<Cause<'_>>,
        shared: &Arc<Shared>,
    ) -> Result<Driver<WriteDeadline<C::Response>>, ConnectError> {
        let home = to.as_ref().unwrap_or(&shared.endpoint).clone();
        let mut route = self.route(to, shared);
        let mut failed = None;
        while let Some(hop) = route.next() {
            let (client_id, attempt) = (&connect.client_id, self.attempt);
            let span = tracing::info_span!("connect", endpoint = %hop.to, %client_id, attempt);
            let result = self
                .attempt_at(connector, connect.clone(), &home, &hop.to, last, shared)
                .instrument(span)
                .await;
            let cause = match result {
                Ok(driver) => {
                    self.begin_span(&hop.to, client_id);
                    if hop.is_new_home() {
                        self.notes.get_or_insert_default().moved_to = Some(hop.to);
                    }
                    return Ok(driver);
                }
                Err(cause) => cause,
            };
            self.common.options.metrics.not_connected(&cause);
            let cause = match (&self.common.redirects, cause) {
                (Some(policy), ConnectCause::Refused(connack))
                    if is_redirect(connack.reason_code) =>
                {
                    match route.follow(policy, &hop, &connack) {
                        Ok(()) => ConnectCause::Refused(connack),
                        Err(source) => ConnectCause::NotFollowed { connack, source },
                    }
                }
                (_, cause) => cause,
            };
            tracing::debug!(endpoint = %hop.to, %cause, "no connection");
            if let Some(notes) = &mut self.notes {
                // It may have moved back.
                notes.moved_to = None;
            }
            failed = Some(ConnectError {
                endpoint: hop.to,
                cause,
            });
        }
        Err(failed.expect("a route leads somewhere"))
    }

    /// Where an attempt begins.
    fn route(&mut self, to: Option<Endpoint>, shared: &Shared) -> Route {
        let notes = self.notes.as_deref_mut();
        let sent_on = notes.and_then(|notes| notes.sent_on.take());
        let moved_to = || self.notes.as_ref()?.moved_to.clone();
        match (to, sent_on) {
            (Some(to), _) => Route::new(to),
            (None, Some(route)) => route,
            (None, None) => Route::new(moved_to().unwrap_or_else(|| shared.endpoint.clone())),
        }
    }

    /// Asks for credentials, dials, shakes hands and hands over to a driver.
    async fn attempt_at(
        &mut self,
        connector: &mut C,
        connect: Connect,
        home: &Endpoint,
        endpoint: &Endpoint,
        last: Option<Cause<'_>>,
        shared: &Arc<Shared>,
    ) -> Result<Driver<WriteDeadline<C::Response>>, ConnectCause> {
        let mut prepared = self.prepare(connect.clone(), home, endpoint, last).await?;
        let turn = match self.common.gate.clone() {
            Some(gate) => {
                let begin = Instant::now();
                let turn = gate.enter().await;
                if begin.elapsed() > LONG_WAIT {
                    prepared = self.prepare(connect, home, endpoint, last).await?;
                }
                Some(turn)
            }
            None => None,
        };
        let is_careful = self.has_to_be_careful();
        if is_careful {
            shared.lock().core.hold_resends();
        }
        let renew_at = prepared.renew_at;
        let result = self.establish(connector, prepared, endpoint, shared).await;
        let outcome = crate::gate::outcome(result.as_ref().map(|_| ()));
        if let (Some(turn), Some(outcome)) = (turn, outcome) {
            self.is_open = outcome == DialOutcome::Accepted;
            turn.end(outcome);
        }
        match &result {
            Ok(_) => {
                if is_careful {
                    let notes = self.notes.get_or_insert_default();
                    notes.is_careful = true;
                    notes.probation = Some(Box::pin(tokio::time::sleep(PROBATION)));
                }
                if let Some(at) = renew_at {
                    self.begin_renewal(at, shared);
                }
                if !self.was_open {
                    // Those of the opening have their own number.
                    self.attempt = 0;
                }
                self.was_open = true;
            }
            Err(cause) => {
                let may_be_accepted = matches!(
                    cause,
                    ConnectCause::Closed
                        | ConnectCause::Io(_)
                        | ConnectCause::Protocol(_)
                        | ConnectCause::Authentication(_)
                );
                shared.abandon_connect(endpoint, may_be_accepted);
            }
        }
        result
    }

    /// What is to be said to the server at this endpoint. It may take as long as those take that are
    /// asked, so nobody is kept waiting meanwhile.
    async fn prepare(
        &mut self,
        mut connect: Connect,
        home: &Endpoint,
        endpoint: &Endpoint,
        last: Option<Cause<'_>>,
    ) -> Result<Prepared, ConnectCause> {
        let redirects = self.common.redirects.as_ref();
        if redirects.is_some_and(|policy| policy.withholds(home, endpoint)) {
            withhold(&mut connect);
            return Ok(Prepared {
                connect,
                authenticating: None,
                renew_at: None,
            });
        }
        let given = self
            .credentials(&connect, endpoint, last)
            .await
            .map_err(ConnectCause::Credentials)?;
        let renew_at = given
            .as_ref()
            .and_then(|given| given.renew_at(fastrand::f64()));
        // The configured ones may have been withheld from the server before.
        let credentials = given.map_or_else(|| self.common.configured.clone(), |it| it.credentials);
        credentials.put_into(&mut connect);
        let factory = self.common.authenticator.as_ref();
        let authenticating = Exchange::begin_connect(factory, endpoint, &mut connect).await?;
        Ok(Prepared {
            connect,
            authenticating,
            renew_at,
        })
    }

    /// What the source gives, or has given for this attempt already; `None` without a source.
    async fn credentials(
        &mut self,
        connect: &Connect,
        endpoint: &Endpoint,
        last: Option<Cause<'_>>,
    ) -> Result<Option<Given>, CredentialsError> {
        let renewed = self.notes.as_mut().and_then(|notes| notes.renewed.take());
        let Some(source) = self
            .common
            .credentials
            .as_ref()
            .filter(|_| renewed.is_none())
        else {
            return Ok(renewed);
        };
        let request = CredentialsRequest {
            endpoint,
            client_id: &connect.client_id,
            attempt: self.attempt,
            last,
        };
        source.ask(&request).await.map(Some)
    }

    /// Has the connection that was just opened given up before its credentials expire.
    fn begin_renewal(&mut self, at: Instant, shared: &Arc<Shared>) {
        let (source, shared) = (self.common.credentials.clone(), shared.clone());
        let (reopens, is_pooled) = (self.reopens(), shared.is_pooled());
        self.notes.get_or_insert_default().renewal = match source {
            Some(source) if reopens => {
                let renewal = renew(source, shared, at);
                Some(Box::pin(async { Some(renewal.await) }))
            }
            _ if is_pooled => Some(Box::pin(async move {
                retire(shared, at).await;
                None
            })),
            _ => None,
        };
    }

    async fn establish(
        &mut self,
        connector: &mut C,
        prepared: Prepared,
        endpoint: &Endpoint,
        shared: &Arc<Shared>,
    ) -> Result<Driver<WriteDeadline<C::Response>>, ConnectCause> {
        let common = &*self.common;
        let Prepared {
            connect,
            mut authenticating,
            ..
        } = prepared;
        std::future::poll_fn(|cx| connector.poll_ready(cx))
            .await
            .map_err(ConnectCause::Dial)?;
        let began = Instant::now();
        // Kept until the session is open: the future of a limit on dials holds its permit so long.
        let mut dialled = pin!(connector.call(endpoint.clone()));
        let conn = dialled.as_mut().await.map_err(ConnectCause::Dial)?;
        let info = conn.info().clone();
        let mut conn = WriteDeadline::with_handle(conn, common.write_deadline.clone());
        let now = Instant::now();
        let version = connect.version;
        shared
            .begin_connect(connect, now)
            .map_err(ConnectCause::Options)?;
        let mut decoder = Decoder::new(version, common.config.max_packet_size);
        let deadline = now + common.config.connack_timeout;
        if let Some(authenticating) = &mut authenticating {
            authenticating.set_deadline(deadline);
        }
        let exchanged = exchange(&mut conn, shared, &mut decoder, authenticating.as_mut());
        let exchanged = tokio::time::timeout_at(deadline, exchanged)
            .await
            .unwrap_or_else(|_| {
                let error = ProtocolError::ConnAckTimeout {
                    timeout: common.config.connack_timeout,
                };
                Err(ConnectCause::Protocol(error))
            });
        let (connected, input) = match exchanged {
            Ok(exchanged) => exchanged,
            Err(cause) => {
                say_goodbye(&mut conn, shared).await;
                return Err(cause);
            }
        };
        shared.on_connected(*connected, info, endpoint.clone());
        if let (Some(factory), Some(authenticated)) = (&common.authenticator, authenticating) {
            shared.authenticated(factory, authenticated.valid_for());
        }
        common.options.metrics.connected(began.elapsed());
        Ok(Driver::new(conn, shared.clone(), decoder, input))
    }
}

/// What an attempt begins with, once its server is known.
struct Prepared {
    connect: Connect,
    authenticating: Option<Exchange>,
    /// When its credentials are to be renewed.
    renew_at: Option<Instant>,
}

/// After a longer wait for the gate, which may last as long as the server is away, credentials and
/// authenticators are asked anew: what they gave may have run out.
const LONG_WAIT: Duration = Duration::from_secs(10);

/// The session is over, however that came.
impl<C> Drop for Opener<C> {
    fn drop(&mut self) {
        if let (Some(gate), true) = (&self.common.gate, self.is_open) {
            gate.on_ended(Instant::now(), false);
        }
    }
}

/// In 5.0 the server is told why, if the connection still takes it [MQTT5 4.13.1]. What has
/// happened is known already, so this has a time of its own and changes nothing about it.
async fn say_goodbye<C: Conn>(conn: &mut C, shared: &Shared) {
    let mut out = shared.lock().core.take_outbound(Default::default());
    let goodbye = async {
        conn.write_all_buf(&mut out).await?;
        conn.shutdown().await
    };
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

/// Enough for a round trip to anywhere.
const GOODBYE: Duration = Duration::from_millis(500);

/// CONNECT to CONNACK, with AUTH between them. Returns what came behind the CONNACK too.
async fn exchange<C: Conn>(
    conn: &mut C,
    shared: &Shared,
    decoder: &mut Decoder,
    mut authenticating: Option<&mut Exchange>,
) -> Result<(Box<Connected<usize>>, Bytes), ConnectCause> {
    let mut unwritten = write(conn, shared).await.err();
    let mut read = BytesMut::with_capacity(READ_SIZE);
    loop {
        match conn.read_buf(&mut read).await {
            Ok(0) => return Err(unwritten.map_or(ConnectCause::Closed, ConnectCause::Io)),
            Ok(_) => {}
            // A server that took no CONNECT may have said why before, with an alert of TLS or with
            // a packet; if not, the first error tells more.
            Err(error) if mqtt_transport::is_transient(&error) => {
                return Err(ConnectCause::Io(unwritten.unwrap_or(error)));
            }
            Err(error) => return Err(ConnectCause::Io(error)),
        }
        let mut input = read.split().freeze();
        while let Some(packet) = decoder
            .decode(&mut input)
            .map_err(|error| malformed(shared, error))?
        {
            if let Some(authenticating) = &mut authenticating {
                authenticating.check(&packet, shared).await?;
            }
            let now = Instant::now().into_std();
            let event = shared.lock().core.handle_packet(packet, now);
            match event.map_err(ConnectCause::Protocol)? {
                Some(Event::Connected(connected)) => {
                    // Copied, if there is any, so that the session does not keep the buffer.
                    return Ok((connected, Bytes::copy_from_slice(&input)));
                }
                Some(Event::Refused(connack)) => return Err(ConnectCause::Refused(connack)),
                Some(Event::Auth(auth)) => {
                    if let Some(authenticating) = &mut authenticating {
                        authenticating.go_on(&auth, shared).await?;
                        unwritten = write(conn, shared).await.err().or(unwritten);
                    }
                }
                _ => {}
            }
        }
        read.reserve(READ_SIZE);
    }
}

/// Writes what the core has to say.
async fn write<C: Conn>(conn: &mut C, shared: &Shared) -> io::Result<()> {
    let mut out = shared.lock().core.take_outbound(Default::default());
    conn.write_all_buf(&mut out).await?;
    conn.flush().await
}

/// A CONNACK with all its properties is smaller; it is freed when the session is open.
const READ_SIZE: usize = 1024;

fn malformed(shared: &Shared, error: DecodeError) -> ConnectCause {
    shared.lock().core.abort(error.reason_code());
    ConnectCause::Malformed(error)
}
