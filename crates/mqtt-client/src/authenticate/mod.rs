//! Enhanced authentication of MQTT 5.0 (section 4.12): what a method implements.
//!
//! ```text
//! begin  --CONNECT-->  server  --AUTH-->     answer  --AUTH-->  server  ...
//!                              --CONNACK-->  finish
//! ```
//!
//! A re-authentication is the same exchange on an open connection, with AUTH in the place of
//! CONNECT and CONNACK.

mod again;
mod error;
mod exchange;
#[cfg(feature = "scram")]
mod scram;

use std::{fmt, pin::Pin, time::Duration};

use mqtt_proto::{Secret, Utf8String};
use mqtt_transport::Endpoint;

pub(crate) use again::Authentication;
pub use error::{AuthenticationError, ReauthenticateError};
pub(crate) use exchange::Exchange;
#[cfg(feature = "scram")]
pub use scram::{Scram, ScramAuthenticator, ScramError};

/// One exchange of enhanced authentication, as its client. Made anew for each connection and each
/// re-authentication by what [`with_authenticator`](crate::SessionConnector::with_authenticator) was
/// given.
///
/// Its futures may wait, for a service that signs or issues tokens; they are dropped when the time is
/// up, which is the configured `connack_timeout` for [`begin`](Self::begin), and again for all that
/// follows. They run in the task that connects or re-authenticates, and should not block it. What
/// they return is never printed.
///
/// ```
/// use mqtt_client::{AuthenticationError, Authenticator, Secret, proto::Utf8String};
///
/// /// A token that the server takes or refuses, without a word more.
/// struct Bearer(Secret);
///
/// impl Authenticator for Bearer {
///     fn method(&self) -> Utf8String {
///         Utf8String::new("OAUTH2-JWT").unwrap_or_default()
///     }
///
///     async fn begin(&mut self) -> Result<Option<Secret>, AuthenticationError> {
///         Ok(Some(self.0.clone()))
///     }
///
///     async fn answer(&mut self, _: Option<&[u8]>) -> Result<Option<Secret>, AuthenticationError> {
///         Err(AuthenticationError::untrusted(std::io::Error::other("the token is all there is")))
///     }
///
///     async fn finish(&mut self, _: Option<&[u8]>) -> Result<(), AuthenticationError> {
///         Ok(())
///     }
/// }
/// ```
pub trait Authenticator: Send + 'static {
    /// The name of the method, which CONNECT carries and every packet after it repeats
    /// `[MQTT5-4.12.0-5]`. A re-authentication keeps that of its connection `[MQTT5-4.12.1-1]`.
    fn method(&self) -> Utf8String;

    /// The data that CONNECT begins with, or the AUTH that begins a re-authentication.
    ///
    /// Asked before anything is dialled or sent, so that a failure costs no connection.
    fn begin(&mut self)
    -> impl Future<Output = Result<Option<Secret>, AuthenticationError>> + Send;

    /// Answers the data of a server's AUTH `[MQTT5-4.12.0-3]`. An error ends the connection.
    fn answer(
        &mut self,
        challenge: Option<&[u8]>,
    ) -> impl Future<Output = Result<Option<Secret>, AuthenticationError>> + Send;

    /// Checks the server's last word: the data of the CONNACK that accepts, or of the AUTH that says
    /// success. An error ends the connection, and nothing that the server said with it counts: a
    /// method by which the server has to prove itself returns one for a wrong or missing proof.
    fn finish(
        &mut self,
        proof: Option<&[u8]>,
    ) -> impl Future<Output = Result<(), AuthenticationError>> + Send;

    /// How long what was proved holds, from now; asked after [`finish`](Self::finish). The session
    /// re-authenticates by itself when 70 to 80 % of it have passed, by chance, so that a fleet does
    /// not do so at once. `None`, the default: as long as the connection.
    fn valid_for(&self) -> Option<Duration> {
        None
    }
}

/// What an [`Authenticator`] is made for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AuthenticationAttempt<'a> {
    /// The server.
    pub endpoint: &'a Endpoint,
    /// The session's name; empty until the server has chosen one.
    pub client_id: &'a str,
    /// Whether it is a connection that is open already which is authenticated again.
    pub is_again: bool,
}

type Step<'a, T> = Pin<Box<dyn Future<Output = Result<T, AuthenticationError>> + Send + 'a>>;

/// An [`Authenticator`] of whatever type, so that sessions have one type.
pub(crate) trait AnyAuthenticator: Send {
    fn method(&self) -> Utf8String;
    fn begin(&mut self) -> Step<'_, Option<Secret>>;
    fn answer<'a>(&'a mut self, challenge: Option<&'a [u8]>) -> Step<'a, Option<Secret>>;
    fn finish<'a>(&'a mut self, proof: Option<&'a [u8]>) -> Step<'a, ()>;
    fn valid_for(&self) -> Option<Duration>;
}

impl<A: Authenticator> AnyAuthenticator for A {
    fn method(&self) -> Utf8String {
        Authenticator::method(self)
    }

    fn begin(&mut self) -> Step<'_, Option<Secret>> {
        Box::pin(Authenticator::begin(self))
    }

    fn answer<'a>(&'a mut self, challenge: Option<&'a [u8]>) -> Step<'a, Option<Secret>> {
        Box::pin(Authenticator::answer(self, challenge))
    }

    fn finish<'a>(&'a mut self, proof: Option<&'a [u8]>) -> Step<'a, ()> {
        Box::pin(Authenticator::finish(self, proof))
    }

    fn valid_for(&self) -> Option<Duration> {
        Authenticator::valid_for(self)
    }
}

type Make = dyn Fn(&AuthenticationAttempt<'_>) -> Box<dyn AnyAuthenticator> + Send + Sync;

/// Makes an authenticator for each exchange of a connector's sessions.
pub(crate) struct AuthenticatorFactory {
    make: Box<Make>,
    /// How long an exchange may take.
    timeout: Duration,
}

impl AuthenticatorFactory {
    pub(crate) fn new<A: Authenticator>(
        make: impl Fn(&AuthenticationAttempt<'_>) -> A + Send + Sync + 'static,
        timeout: Duration,
    ) -> Self {
        Self {
            make: Box::new(move |attempt| Box::new(make(attempt))),
            timeout,
        }
    }
}

impl fmt::Debug for AuthenticatorFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticatorFactory")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
