//! One request: whether it is answered, the service's word, and the reply on its way.

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use mqtt_proto::{BinaryData, Message, QoS, TopicFilter, TopicName};

use crate::{
    publish::{Publish, Publisher},
    respond::{Reply, ResponderConfig},
};

/// What the requests of one responder share.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) config: ResponderConfig,
    /// Those of the requests.
    pub(super) filters: Vec<TopicFilter>,
    pub(super) publisher: Publisher,
    pub(super) counts: Counts,
}

/// Where the reply to one request goes.
#[derive(Debug)]
pub(super) struct Address {
    /// Nowhere, if absent.
    topic: Option<TopicName>,
    correlation_data: Option<BinaryData>,
    qos: QoS,
    expiry: Option<u32>,
}

impl Answering {
    /// Where the reply to `request` is to go; `None`, and counted, if there is to be none.
    pub(super) fn address(&self, request: &Message) -> Option<Address> {
        let properties = &request.properties;
        let topic = match &properties.response_topic {
            Some(topic) if self.may_answer_to(topic) => Some(topic.clone()),
            Some(_) => {
                Counts::add(&self.counts.refused_response_topic);
                tracing::debug!("a request has a response topic that is not answered to");
                return None;
            }
            None if self.config.serve_without_response_topic => None,
            None => {
                Counts::add(&self.counts.without_response_topic);
                return None;
            }
        };
        Some(Address {
            topic,
            correlation_data: properties.correlation_data.clone(),
            qos: request.qos,
            expiry: properties.message_expiry_interval,
        })
    }

    fn may_answer_to(&self, topic: &TopicName) -> bool {
        let is_allowed = match &self.config.response_filter {
            Some(filter) => filter.matches(topic),
            None => !topic.starts_with('$'),
        };
        is_allowed && !self.filters.iter().any(|filter| filter.matches(topic))
    }

    /// Waits for the service's word and publishes it.
    pub(super) async fn answer<F, R, E>(&self, word: F, address: Address)
    where
        F: Future<Output = Result<R, E>>,
        R: Into<Option<Reply>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let reply = match word.await.map_err(Into::into) {
            Ok(reply) => reply.into(),
            Err(error) => {
                Counts::add(&self.counts.failed);
                tracing::debug!(%error, "a request has failed");
                self.config.error_reply(&*error)
            }
        };
        let (Some(reply), Some(topic)) = (reply, address.topic) else {
            Counts::add(&self.counts.unanswered);
            return;
        };
        let Reply {
            payload,
            mut properties,
        } = reply;
        properties.correlation_data = address.correlation_data;
        if properties.message_expiry_interval.is_none() {
            properties.message_expiry_interval = address.expiry;
        }
        let message = Message {
            topic,
            payload,
            qos: address.qos,
            retain: false,
            properties,
        };
        match self.publisher.publish(Publish::from(message)).await {
            Ok(_) => Counts::add(&self.counts.answered),
            Err(error) => {
                Counts::add(&self.counts.not_published);
                tracing::debug!(%error, "a reply was not published");
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    answered: AtomicU64,
    unanswered: AtomicU64,
    pub(super) failed: AtomicU64,
    not_published: AtomicU64,
    without_response_topic: AtomicU64,
    refused_response_topic: AtomicU64,
}

impl Counts {
    pub(super) fn add(count: &AtomicU64) {
        count.fetch_add(1, Relaxed);
    }

    pub(super) fn totals(&self) -> ResponderTotals {
        ResponderTotals {
            answered: self.answered.load(Relaxed),
            unanswered: self.unanswered.load(Relaxed),
            failed: self.failed.load(Relaxed),
            not_published: self.not_published.load(Relaxed),
            without_response_topic: self.without_response_topic.load(Relaxed),
            refused_response_topic: self.refused_response_topic.load(Relaxed),
        }
    }
}

/// What a responder has done since it was made. A request that fails counts as that and, by its error's
/// reply, once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponderTotals {
    /// Replies that were published: at QoS 1 and 2 the server has them.
    pub answered: u64,
    /// Requests that the service had no reply to, or that wanted none.
    pub unanswered: u64,
    /// Requests whose service failed or panicked.
    pub failed: u64,
    /// Replies that were not published: refused by the server, or lost with the session.
    pub not_published: u64,
    /// Messages that were ignored because they have no response topic.
    pub without_response_topic: u64,
    /// Requests that were ignored because of their response topic.
    pub refused_response_topic: u64,
}
