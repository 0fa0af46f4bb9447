//! Attempts to connect a session: where to, with what, and what came of them.

use std::{
    pin::pin,
    sync::{Arc, PoisonError},
    task::Context,
    time::Duration,
};

use mqtt_pool::DialOutcome;
use mqtt_proto::{
    Decoder, ProtocolError, ReasonCode, Utf8String,
    packet::{Connect, Disconnect},
};
use mqtt_transport::{Conn, Endpoint, WriteDeadline};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::{
    authenticate::Exchange,
    connector::{Common, Dial},
    credentials::{CredentialsError, CredentialsRequest, Given, Source},
    driver::Driver,
    error::{ConnectCause, ConnectError, LostCause},
    handshake::{exchange, say_goodbye},
    notes::{Due, Notes},
    poison::{PROBATION, Suspect, Verdict, is_careful, judge, may_be_for_a_publish},
    reconnect::{Cause, Interruption, Plan, Reconnect},
    redirect::{Route, is_redirect, withhold},
    renewal::{renew, retire},
    shared::Shared,
};

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
    pub(crate) fn new(common: Arc<Common<C>>) -> Self {
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
    pub(crate) async fn attempt(
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
