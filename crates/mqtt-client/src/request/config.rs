//! How requests are made, as a plain struct.

use std::time::Duration;

use mqtt_pool::ConfigErrors;
use mqtt_proto::{QoS, TopicError, TopicName};

use crate::{config::FOREVER, request::correlation::unguessable, session::Session};

/// Options of a [`Requester`](crate::Requester).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequesterConfig {
    /// How long a reply may take, with the wait for a place and for the acknowledgement. Default 10 s:
    /// enough for a lost connection and the next one, and less than most who wait for it have patience.
    pub timeout: Duration,
    /// How many requests may be without a reply at a time; others wait. Default 1,024: each holds some
    /// hundred bytes, and more than that says that those who answer do not keep up.
    pub max_open: usize,
    /// The first level, or levels, of the response topic where the server gives no response
    /// information; the client identifier and a level that cannot be guessed follow. Default
    /// `responses`. The server's permissions decide who else may listen there: keep it to this client.
    ///
    /// A server gives response information only if
    /// [`SessionConfig::request_response_information`](crate::SessionConfig::request_response_information)
    /// asks for it.
    pub response_prefix: String,
    /// At which QoS replies may come at most. Default 2: at that of the responder.
    pub max_reply_qos: QoS,
    /// Whether requests expire at the server when their time is over, so that nobody works for one
    /// who has given up (5.0 section 3.3.2.3.3). In whole seconds, rounded up. Default true; an expiry
    /// that a request has already is kept.
    pub expire_requests: bool,
}

impl Default for RequesterConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            max_open: 1_024,
            response_prefix: "responses".to_owned(),
            max_reply_qos: QoS::ExactlyOnce,
            expire_requests: true,
        }
    }
}

macro_rules! setters {
    ($($with:ident $name:ident: $type:ty,)*) => {
        impl RequesterConfig {$(
            #[doc = concat!("With this [`", stringify!($name), "`](Self::", stringify!($name), ").")]
            #[must_use]
            pub fn $with(mut self, $name: impl Into<$type>) -> Self {
                self.$name = $name.into();
                self
            }
        )*}
    };
}

setters! {
    with_timeout timeout: Duration,
    with_max_open max_open: usize,
    with_response_prefix response_prefix: String,
    with_max_reply_qos max_reply_qos: QoS,
    with_expire_requests expire_requests: bool,
}

impl RequesterConfig {
    /// Everything that is wrong with the options, at once.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        if self.timeout.is_zero() {
            let hint = "ask for a long time instead of none";
            errors.push("requester.timeout", "0s", "more than zero", hint);
        }
        if self.max_open == 0 {
            let hint = "1 makes one request at a time";
            errors.push("requester.max_open", 0, "at least 1", hint);
        }
        if TopicName::new(self.response_prefix.clone()).is_err() {
            errors.push(
                "requester.response_prefix",
                format!("{:?}", self.response_prefix),
                "a topic name",
                "use levels without wildcards",
            );
        }
        errors.into_result()
    }

    /// The time of a request that asks for this much, or for none.
    pub(super) fn timeout_of(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.timeout).min(FOREVER)
    }

    /// A response topic of its own for a requester on this session.
    pub(super) fn response_topic(&self, session: &Session) -> Result<TopicName, TopicError> {
        let own = unguessable();
        let information = session.connack().properties.response_information.clone();
        let topic = match information.filter(|information| !information.is_empty()) {
            Some(information) => format!("{}/{own}", information.trim_end_matches('/')),
            None => {
                let client_id = session.client_id();
                format!("{}/{}/{own}", self.response_prefix, level(&client_id))
            }
        };
        TopicName::new(topic)
    }
}

/// A client identifier as one level of a topic.
fn level(client_id: &str) -> String {
    client_id.replace(['/', '+', '#'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_at_once() {
        let config = RequesterConfig::default()
            .with_timeout(Duration::ZERO)
            .with_max_open(0_usize)
            .with_response_prefix("a/#");
        assert_eq!(config.validate().unwrap_err().iter().count(), 3);
        RequesterConfig::default().validate().unwrap();
    }

    #[test]
    fn a_client_identifier_is_one_level() {
        assert_eq!(level("plant/7+#"), "plant_7__");
    }
}
