//! A message on its way to a handler.

use std::sync::Arc;

use bytes::Bytes;
use mqtt_proto::Message;

use super::pattern::Pattern;

/// A message on its way to a handler: the request of the services and layers of a router.
#[derive(Clone, Debug)]
pub struct Incoming {
    message: Message,
    /// Of the route that it was given to.
    pattern: Option<Arc<Pattern>>,
}

impl Incoming {
    /// A message that no route has been found for: what is given to [`Routes`](super::Routes) as a service.
    pub fn new(message: Message) -> Self {
        Self {
            message,
            pattern: None,
        }
    }

    pub(super) fn set_pattern(&mut self, pattern: Option<Arc<Pattern>>) {
        self.pattern = pattern;
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The message, without what is known of its route.
    pub fn into_message(self) -> Message {
        self.message
    }

    /// The pattern of its route; `None` before one was found, and in the fallback. Unlike the topic it is of a
    /// small set, and so fit for metrics.
    pub fn pattern(&self) -> Option<&str> {
        self.pattern.as_deref().map(Pattern::as_str)
    }

    /// The names of the pattern's captures, each with what it has taken of the topic, in order. What takes
    /// the rest is empty on the level above, which `#` matches too.
    pub fn captures(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let pattern = self.pattern.iter();
        pattern.flat_map(|pattern| pattern.captures(&self.message.topic))
    }

    /// What the capture of this name has taken.
    pub fn capture(&self, name: &str) -> Option<&str> {
        self.captures()
            .find_map(|(known, taken)| (known == name).then_some(taken))
    }

    /// With another payload: for layers that decompress or decrypt.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.message.payload = payload.into();
        self
    }
}

impl From<Message> for Incoming {
    fn from(message: Message) -> Self {
        Self::new(message)
    }
}
