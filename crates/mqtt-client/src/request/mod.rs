//! Request and response (5.0 section 4.10): a message that says where its answer is wanted, and the
//! answer that is matched to it.
//!
//! ```text
//! call --> line for a place --> open --> published --> acknowledged --> reply
//!                                 |          |              |            (the first that comes)
//!                                 +----------+--------------+--------> deadline, or the end
//! ```
//!
//! `requester` is the service, `exchange` sees one request through, `open` holds those without a reply
//! and `correlation` tells replies from what only looks like one. Who answers stands in `respond`.

mod config;
mod correlation;
mod error;
mod exchange;
mod open;
mod requester;

use std::time::Duration;

use bytes::Bytes;
use mqtt_proto::{Message, QoS, TopicError, TopicName, packet::PublishProperties};

pub use config::RequesterConfig;
pub use error::{RequestError, RequesterError};
pub use requester::{RequestFuture, Requester};

/// A request: a message that is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The message. Its response topic and correlation data are the requester's to set, and it is
    /// not retained: [`RequestError::Reserved`] and [`RequestError::Retained`] otherwise.
    pub message: Message,
    /// How long the reply may take, from the first poll. `None` is [`RequesterConfig::timeout`].
    pub timeout: Option<Duration>,
}

impl Request {
    /// At QoS 1, so that it outlives a connection where the server keeps the session, and the server
    /// can say that nobody is there to answer. A responder may then see it twice.
    pub fn new(
        topic: impl TryInto<TopicName, Error: Into<TopicError>>,
        payload: impl Into<Bytes>,
    ) -> Result<Self, TopicError> {
        Message::new(topic, payload).map(|message| message.with_qos(QoS::AtLeastOnce).into())
    }

    /// At this QoS. A responder of this crate answers at the same.
    #[must_use]
    pub fn with_qos(mut self, qos: QoS) -> Self {
        self.message.qos = qos;
        self
    }

    /// With these properties, without response topic and correlation data.
    #[must_use]
    pub fn with_properties(mut self, properties: PublishProperties) -> Self {
        self.message.properties = properties.into();
        self
    }

    /// With a reply within this time.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// At the QoS of the message.
impl From<Message> for Request {
    fn from(message: Message) -> Self {
        Self {
            message,
            timeout: None,
        }
    }
}
