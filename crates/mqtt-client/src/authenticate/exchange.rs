//! One exchange, bounded in rounds and in time, and the part of it that belongs to connecting.

use std::{sync::Arc, time::Duration};

use mqtt_proto::{
    ReasonCode, Secret, Utf8String,
    packet::{Auth, AuthProperties, ConnAck, Connect, Packet},
};
use mqtt_transport::Endpoint;
use tokio::time::{Instant, timeout_at};

use super::{AnyAuthenticator, AuthenticationAttempt, AuthenticationError, AuthenticatorFactory};
use crate::{error::ConnectCause, shared::Shared};

/// How often a server may ask in one exchange: the methods in use need one to three rounds.
const MAX_ROUNDS: usize = 16;

pub(crate) struct Exchange {
    authenticator: Box<dyn AnyAuthenticator>,
    pub(super) method: Utf8String,
    rounds: usize,
    deadline: Instant,
    timeout: Duration,
}

impl Exchange {
    /// An exchange and the data that it begins with.
    pub(super) async fn begin(
        factory: &AuthenticatorFactory,
        attempt: &AuthenticationAttempt<'_>,
    ) -> Result<(Self, Option<Secret>), AuthenticationError> {
        let mut authenticator = (factory.make)(attempt);
        let timeout = factory.timeout;
        let deadline = Instant::now() + timeout;
        let first = timeout_at(deadline, authenticator.begin())
            .await
            .map_err(|_| AuthenticationError::TimedOut { timeout })??;
        tracing::debug!(endpoint = %attempt.endpoint, again = attempt.is_again, "authenticating");
        let exchange = Self {
            method: authenticator.method(),
            authenticator,
            rounds: 0,
            deadline,
            timeout,
        };
        Ok((exchange, first))
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn timed_out(&self) -> AuthenticationError {
        AuthenticationError::TimedOut {
            timeout: self.timeout,
        }
    }

    pub(super) async fn answer(&mut self, auth: &Auth) -> Result<Auth, AuthenticationError> {
        if self.rounds == MAX_ROUNDS {
            return Err(AuthenticationError::TooManyRounds { max: MAX_ROUNDS });
        }
        self.rounds += 1;
        let data = auth.properties.authentication_data.as_ref();
        let answer = self.authenticator.answer(data.map(Secret::expose));
        match timeout_at(self.deadline, answer).await {
            Ok(answer) => Ok(self.auth(ReasonCode::CONTINUE_AUTHENTICATION, answer?)),
            Err(_) => Err(self.timed_out()),
        }
    }

    pub(super) async fn finish(
        &mut self,
        data: Option<&Secret>,
    ) -> Result<(), AuthenticationError> {
        let finish = self.authenticator.finish(data.map(Secret::expose));
        match timeout_at(self.deadline, finish).await {
            Ok(finished) => finished,
            Err(_) => Err(self.timed_out()),
        }
    }

    pub(super) fn auth(&self, reason_code: ReasonCode, data: Option<Secret>) -> Auth {
        let properties = AuthProperties {
            authentication_method: Some(self.method.clone()),
            authentication_data: data,
            ..AuthProperties::default()
        };
        Auth {
            reason_code,
            properties: properties.into(),
        }
    }

    pub(crate) fn valid_for(&self) -> Option<Duration> {
        self.authenticator.valid_for()
    }
}

/// Connecting.
impl Exchange {
    /// Begins it, where there is an authenticator, and names it in CONNECT.
    pub(crate) async fn begin_connect(
        factory: Option<&Arc<AuthenticatorFactory>>,
        endpoint: &Endpoint,
        connect: &mut Connect,
    ) -> Result<Option<Self>, ConnectCause> {
        let Some(factory) = factory else {
            return Ok(None);
        };
        let attempt = AuthenticationAttempt {
            endpoint,
            client_id: &connect.client_id,
            is_again: false,
        };
        let begun = Self::begin(factory, &attempt).await;
        let (exchange, first) = begun.map_err(ConnectCause::Authentication)?;
        connect.properties.authentication_method = Some(exchange.method.clone());
        connect.properties.authentication_data = first;
        Ok(Some(exchange))
    }

    /// It ends by then, from here on.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Looks at a packet before the core does. The server's proof comes first: what it says with
    /// CONNACK would change the session, and let loose what waits to be sent.
    pub(crate) async fn check(
        &mut self,
        packet: &Packet,
        shared: &Shared,
    ) -> Result<(), ConnectCause> {
        let Packet::ConnAck(connack) = packet else {
            return Ok(());
        };
        // The core tells of these.
        if connack.reason_code.is_error() || !self.is_of_method(connack) {
            return Ok(());
        }
        let proof = connack.properties.authentication_data.as_ref();
        let finished = self.finish(proof).await;
        finished.map_err(|error| failed(shared, error))
    }

    fn is_of_method(&self, connack: &ConnAck) -> bool {
        connack.properties.authentication_method.as_ref() == Some(&self.method)
    }

    /// Lets the core answer the server's AUTH.
    pub(crate) async fn go_on(&mut self, auth: &Auth, shared: &Shared) -> Result<(), ConnectCause> {
        let answer = self.answer(auth).await;
        let written = answer.and_then(|answer| Ok(shared.lock().core.authenticate(answer)?));
        written.map_err(|error| failed(shared, error))
    }
}

/// This side ends the connection, and a 5.0 server is told that it does.
fn failed(shared: &Shared, error: AuthenticationError) -> ConnectCause {
    shared.lock().core.abort(ReasonCode::UNSPECIFIED_ERROR);
    ConnectCause::Authentication(error)
}
