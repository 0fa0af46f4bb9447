//! Answering requests (5.0 section 4.10): a tower service is called for each message of a
//! subscription, and what it says is published where the message wants it.
//!
//! ```text
//! subscription --> service is ready --> call, one task each --> reply published
//!                  (at most `max_running` at a time)             to the response topic
//! ```
//!
//! `responder` is the handle and the task behind it, `requests` what it takes and owes, `answering` what
//! becomes of one request.

mod answering;
mod config;
mod requests;
mod responder;

use bytes::Bytes;
use mqtt_proto::packet::{Properties, PublishProperties};

pub use answering::ResponderTotals;
pub use config::ResponderConfig;
pub use responder::{Responder, ResponderEnd, ResponderError, Unfinished};

/// What is answered to a request. Its response topic, correlation data and QoS come from the request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// What.
    pub payload: Bytes,
    /// The correlation data of the request takes the place of any given here. Without an expiry the
    /// reply has what is left of that of the request.
    pub properties: Properties<PublishProperties>,
}

impl Reply {
    /// With this payload.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            properties: Properties::default(),
        }
    }

    /// With these properties.
    #[must_use]
    pub fn with_properties(mut self, properties: PublishProperties) -> Self {
        self.properties = properties.into();
        self
    }
}
