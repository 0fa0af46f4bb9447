//! One request, from its line to its outcome.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use mqtt_proto::{Message, ReasonCode};
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use crate::{
    error::{Delivery, PublishError},
    publish::{Publish, Published},
    request::{Request, RequestError, open::End, requester::Inner},
};

/// Makes a request and waits for its reply, or for its deadline.
pub(super) async fn exchange(inner: Arc<Inner>, request: Request) -> Result<Message, RequestError> {
    let Request { message, timeout } = request;
    if message.retain {
        return Err(RequestError::Retained);
    }
    let properties = &message.properties;
    if properties.response_topic.is_some() || properties.correlation_data.is_some() {
        return Err(RequestError::Reserved);
    }
    let timeout = inner.config.timeout_of(timeout);
    let deadline = Instant::now() + timeout;
    let mut delivery = Delivery::NotSent;
    let outcome = reply(&inner, message, deadline, &mut delivery);
    match timeout_at(deadline, outcome).await {
        // It was good for as long as that, and had not been sent.
        Ok(Err(RequestError::Publish(PublishError::Expired))) if Instant::now() >= deadline => {
            Err(RequestError::TimedOut { timeout, delivery })
        }
        Ok(outcome) => outcome,
        Err(_) => Err(RequestError::TimedOut { timeout, delivery }),
    }
}

/// What came first.
enum First {
    Reply(Result<Message, End>),
    Published(Result<Published, PublishError>),
}

/// The reply; `delivery` is what is known of the request at any time.
async fn reply(
    inner: &Inner,
    mut message: Message,
    deadline: Instant,
    delivery: &mut Delivery,
) -> Result<Message, RequestError> {
    let entered = inner.open.enter().await;
    let mut open = entered.map_err(|end| end.into_error(*delivery))?;
    message.properties.response_topic = Some(inner.response_topic.clone());
    message.properties.correlation_data = Some(open.correlation_data());
    if inner.config.expire_requests {
        let left = deadline.saturating_duration_since(Instant::now());
        let expiry = &mut message.properties.message_expiry_interval;
        expiry.get_or_insert(whole_seconds(left));
    }
    let mut publishing = inner.publisher.clone().call(Publish::from(message));
    // The reply may overtake the acknowledgement.
    let first = poll_fn(|cx| {
        if let Poll::Ready(reply) = open.poll_reply(cx) {
            return Poll::Ready(First::Reply(reply));
        }
        let published = Pin::new(&mut publishing).poll(cx);
        if publishing.is_sent() {
            *delivery = Delivery::Unknown;
        }
        published.map(First::Published)
    })
    .await;
    match first {
        First::Reply(reply) => return reply.map_err(|end| end.into_error(*delivery)),
        First::Published(Ok(Published::Acknowledged { reason_code, .. })) => {
            if reason_code == ReasonCode::NO_MATCHING_SUBSCRIBERS {
                return Err(RequestError::NoSubscribers);
            }
            *delivery = Delivery::Acknowledged;
        }
        First::Published(Ok(Published::Sent)) => *delivery = Delivery::Unknown,
        // It may have arrived, and the subscription to its reply outlives the connection.
        First::Published(Err(PublishError::Lost(_))) => *delivery = Delivery::Unknown,
        First::Published(Err(error)) => return Err(RequestError::Publish(error)),
    }
    drop(publishing);
    let reply = poll_fn(|cx| open.poll_reply(cx)).await;
    reply.map_err(|end| end.into_error(*delivery))
}

/// In whole seconds, rounded up, and one at least: zero would expire at once.
fn whole_seconds(left: Duration) -> u32 {
    let part = u64::from(left.subsec_nanos() > 0);
    let seconds = left.as_secs().saturating_add(part);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (9_999, 10)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
        assert_eq!(whole_seconds(Duration::MAX), u32::MAX);
    }
}
