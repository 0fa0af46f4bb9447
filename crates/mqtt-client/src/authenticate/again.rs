//! Re-authentication: an exchange on an open connection, while everything else goes on.
//!
//! ```text
//! Idle --claim--> Busy --AUTH--> Waiting --AUTH--> Came --taken--> Busy ... --> Idle
//!                  any of them --connection ends--> Lost --told--> Idle
//!                          Busy --this side fails--> Failed --connection ends--> Idle
//! ```
//!
//! It runs in a task of its own, so that one who stops waiting for it does not leave the server with
//! half an exchange.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use mqtt_proto::{ReasonCode, UsageError, packet::Auth};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    AuthenticationAttempt, AuthenticationError, AuthenticatorFactory, Exchange, ReauthenticateError,
};
use crate::{
    config::FOREVER,
    error::{ConnectionLost, LostCause},
    session::Session,
    shared::{Shared, State},
};

/// A validity that is shorter is taken for this long, so that nobody is asked without a pause.
const MIN_VALIDITY: Duration = Duration::from_secs(1);

/// What a session that authenticates has besides, under its lock.
#[derive(Debug)]
pub(crate) struct Authentication {
    factory: Arc<AuthenticatorFactory>,
    step: Step,
    /// When the session is to re-authenticate by itself; names the task that waits for it.
    renew_at: Option<Instant>,
}

#[derive(Debug)]
enum Step {
    Idle,
    /// It is this side's turn.
    Busy,
    /// It is the server's.
    Waiting(Option<Waker>),
    Came(Box<Auth>),
    Lost(Arc<ConnectionLost>),
    /// The connection is to end for it.
    Failed(AuthenticationError),
}

impl Session {
    /// Authenticates its connection again, with an authenticator made for that. Publishing and all
    /// else goes on meanwhile `[MQTT5 4.12.1]`.
    ///
    /// Once it has begun a failure ends the connection, as the specification asks
    /// `[MQTT5-4.12.1-2]`, and the session reconnects or not as for any other. It may take the
    /// configured `connack_timeout`. If the future is dropped before it was polled nothing happens;
    /// after that the exchange goes on without it. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// There is no connection or no [authenticator](crate::SessionConnector::with_authenticator), one
    /// exchange is under way, or it failed.
    pub async fn reauthenticate(&self) -> Result<(), ReauthenticateError> {
        self.shared().reauthenticate().await
    }
}

impl Shared {
    async fn reauthenticate(self: &Arc<Self>) -> Result<(), ReauthenticateError> {
        let again = Again::claim(self)?;
        let outcome = tokio::spawn(again.run()).await;
        outcome.unwrap_or_else(|_| Err(self.lost_for(AuthenticationError::Abandoned)))
    }

    fn lost_for(&self, error: AuthenticationError) -> ReauthenticateError {
        ReauthenticateError::Lost(Arc::new(ConnectionLost {
            endpoint: self.endpoint.clone(),
            cause: LostCause::Authentication(error),
        }))
    }

    /// A connection was authenticated, for so long.
    pub(crate) fn authenticated(
        self: &Arc<Self>,
        factory: &Arc<AuthenticatorFactory>,
        valid_for: Option<Duration>,
    ) {
        let validity = valid_for.map(|it| it.clamp(MIN_VALIDITY, FOREVER));
        let now = Instant::now();
        let renew_at = validity.map(|it| now + it.mul_f64(0.7 + 0.1 * fastrand::f64()));
        {
            let mut state = self.lock();
            if !state.core.is_connected() {
                return;
            }
            let authentication = state.authentication.get_or_insert_with(|| {
                Box::new(Authentication {
                    factory: factory.clone(),
                    step: Step::Idle,
                    renew_at: None,
                })
            });
            authentication.renew_at = renew_at;
        }
        self.changed.notify_waiters();
        if let (Some(renew_at), Some(validity)) = (renew_at, validity) {
            tokio::spawn(renew(self.clone(), renew_at, now + validity));
        }
    }

    /// Waits until the session is not to re-authenticate at that time any more.
    async fn is_not_due(&self, renew_at: Instant) {
        loop {
            let changed = self.changed.notified();
            let due = self
                .lock()
                .authentication
                .as_ref()
                .and_then(|it| it.renew_at);
            if due != Some(renew_at) {
                return;
            }
            changed.await;
        }
    }
}

/// Re-authenticates in time, unless the connection ends before that or somebody else has done so. An
/// authenticator that cannot begin is asked again after half of what is left.
async fn renew(shared: Arc<Shared>, renew_at: Instant, expires: Instant) {
    let mut next = renew_at;
    loop {
        tokio::select! {
            biased;
            () = shared.is_not_due(renew_at) => return,
            () = sleep_until(next) => {}
        }
        // A success sees to the next time itself, and any other end does so with its connection.
        let Err(ReauthenticateError::NotBegun(error)) = shared.reauthenticate().await else {
            return;
        };
        let now = Instant::now();
        let rest = expires.saturating_duration_since(now);
        tracing::warn!(endpoint = %shared.endpoint, %error, ?rest, "not authenticated again");
        if rest < MIN_VALIDITY {
            return;
        }
        next = now + rest / 2;
    }
}

impl State {
    /// The server's AUTH, which is its answer: the core takes no other.
    pub(crate) fn on_auth(&mut self, auth: Box<Auth>, wakers: &mut Vec<Waker>) {
        if let Some(authentication) = &mut self.authentication
            && let Step::Waiting(waker) = &mut authentication.step
        {
            wakers.extend(waker.take());
            authentication.step = Step::Came(auth);
        }
    }

    /// The connection has ended, and what was under way with it.
    pub(crate) fn stop_authenticating(
        &mut self,
        lost: &Arc<ConnectionLost>,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(authentication) = &mut self.authentication else {
            return;
        };
        authentication.renew_at = None;
        let next = match &mut authentication.step {
            Step::Idle | Step::Failed(_) => Step::Idle,
            Step::Busy | Step::Came(_) => Step::Lost(lost.clone()),
            Step::Waiting(waker) => {
                wakers.extend(waker.take());
                Step::Lost(lost.clone())
            }
            Step::Lost(earlier) => Step::Lost(earlier.clone()),
        };
        authentication.step = next;
    }

    /// Why this side ends the connection, if a re-authentication has failed.
    pub(crate) fn failed_authentication(&self) -> Option<LostCause> {
        match &self.authentication.as_deref()?.step {
            Step::Failed(error) => Some(LostCause::Authentication(error.clone())),
            Step::Idle | Step::Busy | Step::Waiting(_) | Step::Came(_) | Step::Lost(_) => None,
        }
    }
}

/// A re-authentication under way. Dropped before its end, it ends the connection if it has begun.
struct Again {
    shared: Arc<Shared>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The server knows nothing of it.
    Claimed,
    Begun,
    /// The step is not this one's any more.
    Over,
}

impl Again {
    fn claim(shared: &Arc<Shared>) -> Result<Self, ReauthenticateError> {
        let mut state = shared.lock();
        if let Some(lost) = state.refusal(&shared.endpoint) {
            return Err(ReauthenticateError::Lost(lost));
        }
        let is_connected = state.core.is_connected();
        // A server that credentials are withheld from knows of no method.
        let connect = state.core.last_connect();
        let has_method = connect.is_some_and(|it| it.properties.authentication_method.is_some());
        let authentication = state
            .authentication
            .as_mut()
            .filter(|_| has_method)
            .ok_or(UsageError::NoAuthenticationMethod)?;
        if !is_connected {
            return Err(UsageError::NotConnected.into());
        }
        if !matches!(authentication.step, Step::Idle) {
            return Err(ReauthenticateError::InProgress);
        }
        authentication.step = Step::Busy;
        drop(state);
        Ok(Self {
            shared: shared.clone(),
            stage: Stage::Claimed,
        })
    }

    async fn run(mut self) -> Result<(), ReauthenticateError> {
        let (factory, client_id, endpoint) = {
            let state = self.shared.lock();
            let factory = authentication(&state).factory.clone();
            let client_id = state.core.client_id().cloned().unwrap_or_default();
            let endpoint = state.endpoint(&self.shared.endpoint).clone();
            (factory, client_id, endpoint)
        };
        let attempt = AuthenticationAttempt {
            endpoint: &endpoint,
            client_id: &client_id,
            is_again: true,
        };
        let begun = Exchange::begin(&factory, &attempt).await;
        let (mut exchange, first) = begun.map_err(ReauthenticateError::NotBegun)?;
        let first = exchange.auth(ReasonCode::RE_AUTHENTICATE, first);
        self.send(first)?.map_err(ReauthenticateError::Usage)?;
        loop {
            let auth = match timeout_at(exchange.deadline(), self.answered()).await {
                Ok(auth) => auth?,
                Err(_) => return Err(self.fail(exchange.timed_out())),
            };
            if auth.reason_code == ReasonCode::SUCCESS {
                let proof = auth.properties.authentication_data.as_ref();
                if let Err(error) = exchange.finish(proof).await {
                    return Err(self.fail(error));
                }
                break;
            }
            let answer = match exchange.answer(&auth).await {
                Ok(answer) => answer,
                Err(error) => return Err(self.fail(error)),
            };
            if let Err(error) = self.send(answer)? {
                return Err(self.fail(error.into()));
            }
        }
        self.succeed()?;
        tracing::debug!(endpoint = %self.shared.endpoint, "authenticated again");
        self.shared.authenticated(&factory, exchange.valid_for());
        Ok(())
    }

    /// Gives the server its turn.
    fn send(&mut self, auth: Auth) -> Result<Result<(), UsageError>, ReauthenticateError> {
        let mut state = self.shared.lock();
        state.lend_buffer();
        if let Some(lost) = take_lost(&mut state, &mut self.stage) {
            return Err(lost);
        }
        if let Err(error) = state.core.authenticate(auth) {
            return Ok(Err(error));
        }
        authentication_mut(&mut state).step = Step::Waiting(None);
        self.stage = Stage::Begun;
        let driver = state.driver.take();
        drop(state);
        driver.into_iter().for_each(Waker::wake);
        Ok(Ok(()))
    }

    /// Waits for the server's answer, and takes the turn.
    async fn answered(&mut self) -> Result<Box<Auth>, ReauthenticateError> {
        std::future::poll_fn(|cx| self.poll_answered(cx)).await
    }

    fn poll_answered(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Box<Auth>, ReauthenticateError>> {
        let mut state = self.shared.lock();
        if let Some(lost) = take_lost(&mut state, &mut self.stage) {
            return Poll::Ready(Err(lost));
        }
        let step = &mut authentication_mut(&mut state).step;
        match mem::replace(step, Step::Busy) {
            Step::Came(auth) => Poll::Ready(Ok(auth)),
            Step::Waiting(replaced) => {
                *step = Step::Waiting(Some(cx.waker().clone()));
                drop(state);
                drop(replaced);
                Poll::Pending
            }
            Step::Idle | Step::Busy | Step::Lost(_) | Step::Failed(_) => {
                unreachable!("the server has its turn until it answers or the connection ends")
            }
        }
    }

    fn succeed(&mut self) -> Result<(), ReauthenticateError> {
        let mut state = self.shared.lock();
        if let Some(lost) = take_lost(&mut state, &mut self.stage) {
            return Err(lost);
        }
        authentication_mut(&mut state).step = Step::Idle;
        self.stage = Stage::Over;
        Ok(())
    }

    /// Ends the connection: the server is told with a DISCONNECT, and the session with this error
    /// `[MQTT5-4.12.1-2]`.
    fn fail(&mut self, error: AuthenticationError) -> ReauthenticateError {
        let mut state = self.shared.lock();
        if let Some(lost) = take_lost(&mut state, &mut self.stage) {
            return lost;
        }
        state.lend_buffer();
        state.core.abort(ReasonCode::UNSPECIFIED_ERROR);
        let failed = Step::Failed(error.clone());
        let step = mem::replace(&mut authentication_mut(&mut state).step, failed);
        self.stage = Stage::Over;
        let driver = state.driver.take();
        drop(state);
        drop(step);
        driver.into_iter().for_each(Waker::wake);
        self.shared.lost_for(error)
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        match self.stage {
            Stage::Over => {}
            Stage::Begun => {
                self.fail(AuthenticationError::Abandoned);
            }
            Stage::Claimed => {
                let mut state = self.shared.lock();
                let lost = take_lost(&mut state, &mut self.stage);
                if lost.is_none() {
                    authentication_mut(&mut state).step = Step::Idle;
                }
            }
        }
    }
}

/// That the connection has ended meanwhile: then there is nothing left to do.
fn take_lost(state: &mut State, stage: &mut Stage) -> Option<ReauthenticateError> {
    let step = &mut authentication_mut(state).step;
    let Step::Lost(lost) = &*step else {
        return None;
    };
    let lost = lost.clone();
    *step = Step::Idle;
    *stage = Stage::Over;
    Some(ReauthenticateError::Lost(lost))
}

const CLAIMED: &str = "what was claimed is never taken away";

fn authentication(state: &State) -> &Authentication {
    state.authentication.as_deref().expect(CLAIMED)
}

fn authentication_mut(state: &mut State) -> &mut Authentication {
    state.authentication.as_deref_mut().expect(CLAIMED)
}
