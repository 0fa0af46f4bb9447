//! What goes wrong when authenticating, by whose fault it is.

use std::{error::Error, sync::Arc, time::Duration};

use mqtt_proto::UsageError;
use thiserror::Error;

use crate::error::ConnectionLost;

/// This side could not go on with enhanced authentication, or did not want to. That the *server*
/// refuses is told elsewhere: with its CONNACK or DISCONNECT.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// The authenticator could not have what it needs, such as a token from a service.
    #[error("what authentication needs cannot be had")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// The server has not proved that it is the right one, or its data are none of the method's.
    #[error("the server is not trusted")]
    Untrusted(#[source] Arc<dyn Error + Send + Sync>),
    /// The server sent more AUTH than any method needs.
    #[error("the server asked more than {max} times")]
    TooManyRounds {
        /// How often it may.
        max: usize,
    },
    /// Neither side came to an end in time.
    #[error("not authenticated within {timeout:?}")]
    TimedOut {
        /// The time allowed.
        timeout: Duration,
    },
    /// What the authenticator gave cannot be sent.
    #[error("the authenticator's data cannot be sent")]
    Usage(#[from] UsageError),
    /// A re-authentication was dropped half-way: its authenticator panicked, or the runtime is
    /// shutting down.
    #[error("the re-authentication was not brought to an end")]
    Abandoned,
}

impl AuthenticationError {
    /// What is needed cannot be had now; another attempt can help.
    pub fn unavailable(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Unavailable(Arc::new(source))
    }

    /// The server is not the right one, or what it sent makes no sense; another attempt is not made.
    pub fn untrusted(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Untrusted(Arc::new(source))
    }

    /// Whether another attempt can help without a change by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::TimedOut { .. } | Self::Abandoned => true,
            Self::Untrusted(_) | Self::TooManyRounds { .. } | Self::Usage(_) => false,
        }
    }
}

/// A connection could not be authenticated again.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ReauthenticateError {
    /// There is no connection now (the next one authenticates by itself), or none with an
    /// authentication method `[MQTT5-4.12.0-7]`, or the authenticator changed the method. Nothing was
    /// sent, and the connection goes on.
    #[error("cannot authenticate again")]
    Usage(#[from] UsageError),
    /// One is under way.
    #[error("a re-authentication is under way")]
    InProgress,
    /// The authenticator did not begin. Nothing was sent, and the connection goes on.
    #[error("the re-authentication was not begun")]
    NotBegun(#[source] AuthenticationError),
    /// It ended with its connection: the server has refused with a DISCONNECT, or this side has with
    /// [`LostCause::Authentication`](crate::LostCause::Authentication), or the connection broke.
    #[error("the connection ended before it was authenticated again")]
    Lost(#[source] Arc<ConnectionLost>),
}
