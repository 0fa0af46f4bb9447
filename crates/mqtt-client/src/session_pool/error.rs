//! Why a publish over a pool did not succeed.

use mqtt_pool::AcquireError;
use thiserror::Error;

use crate::error::{ConnectError, Delivery, PublishError};

/// A publish over a [`SessionPool`](crate::SessionPool) did not succeed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PoolPublishError {
    /// There was no session for it. Nothing was sent.
    #[error("no session to publish on")]
    Acquire(#[from] AcquireError<ConnectError>),
    /// It did not succeed on the session that it was handed to.
    #[error("not published")]
    Publish(#[from] PublishError),
}

impl PoolPublishError {
    /// What became of the message.
    pub fn delivery(&self) -> Delivery {
        match self {
            Self::Acquire(_) => Delivery::NotSent,
            Self::Publish(error) => error.delivery(),
        }
    }

    /// Whether publishing it again may succeed with nothing changed on this side. Whether that may
    /// duplicate it, [`delivery`](Self::delivery) says.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Acquire(error) => error.is_transient(),
            // Whatever has ended a session, there will be another.
            Self::Publish(PublishError::NotSent(_) | PublishError::Lost(_)) => true,
            Self::Publish(error) => error.is_transient(),
        }
    }
}
