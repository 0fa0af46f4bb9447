//! Why there is no requester, or no reply.

use std::{sync::Arc, time::Duration};

use mqtt_pool::ConfigErrors;
use mqtt_proto::TopicError;
use thiserror::Error;

use crate::error::{ConnectionLost, Delivery, PublishError, SubscribeError};

/// A requester could not be made.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum RequesterError {
    /// Its options are not allowed.
    #[error("the configuration is not allowed")]
    Config(#[from] ConfigErrors),
    /// The session speaks 3.1.1, which has no response topics.
    #[error("requests need MQTT 5.0")]
    Version,
    /// The server's response information, or the prefix with the client identifier, makes no topic.
    #[error("no response topic")]
    ResponseTopic(#[source] TopicError),
    /// The response topic could not be subscribed to.
    #[error("not subscribed to the response topic")]
    Subscribe(#[source] SubscribeError),
}

/// A request has no reply.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request names a response topic or correlation data, which are the requester's: a reply
    /// would go elsewhere, or not be known again.
    #[error("the response topic and the correlation data are the requester's to set")]
    Reserved,
    /// The request is retained: it would be answered again and again.
    #[error("a request is not retained")]
    Retained,
    /// The request was not published, or the server refused it.
    #[error("the request was not published")]
    Publish(#[source] PublishError),
    /// The server says that nobody subscribes to the topic of the request, so that nobody will
    /// answer. At QoS 1 and 2, from servers that tell.
    #[error("nobody is there to answer")]
    NoSubscribers,
    /// No reply came in time.
    #[error("no reply within {timeout:?}")]
    TimedOut {
        /// The time it had.
        timeout: Duration,
        /// What is known of the request.
        delivery: Delivery,
    },
    /// On a later connection the server does not let this session have replies. The requester is over.
    #[error("the response topic was refused")]
    Refused {
        /// What it said.
        #[source]
        refused: SubscribeError,
        /// What is known of the request.
        delivery: Delivery,
    },
    /// The session is over, and the requester with it.
    #[error("the session ended before the reply came")]
    Lost {
        /// Why.
        #[source]
        lost: Arc<ConnectionLost>,
        /// What is known of the request.
        delivery: Delivery,
    },
}

impl RequestError {
    /// What is known of the request: whether making it again may have it done twice.
    pub fn delivery(&self) -> Delivery {
        match self {
            Self::Reserved | Self::Retained => Delivery::NotSent,
            Self::Publish(error) => error.delivery(),
            Self::NoSubscribers => Delivery::Rejected,
            Self::TimedOut { delivery, .. }
            | Self::Refused { delivery, .. }
            | Self::Lost { delivery, .. } => *delivery,
        }
    }
}
