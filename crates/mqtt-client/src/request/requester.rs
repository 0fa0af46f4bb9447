//! The service that makes requests, and the task that takes their replies.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use mqtt_proto::{Message, TopicName, Version};
use tokio::task::AbortHandle;
use tower_service::Service;

use crate::{
    error::{ConnectionLost, Delivery, LostCause},
    publish::Publisher,
    request::{
        Request, RequestError, RequesterConfig, RequesterError,
        exchange::exchange,
        open::{End, OpenRequests},
    },
    session::Session,
    subscribe::Subscribe,
    subscription::Subscription,
};

/// Makes requests on a session, and resolves each to its reply. Clones are cheap and share the
/// response topic and the bound on open requests.
///
/// As a [`Service`], `poll_ready` waits until a request would go in at once: fewer than
/// [`max_open`](RequesterConfig::max_open) are without a reply, and a
/// [`Publisher`] is ready. It reserves nothing; if others take the place first, the future of `call`
/// waits for one, first come, first served, within its time.
///
/// Replies are matched by correlation data alone. What comes on the response topic and belongs to no
/// open request is dropped and counted. The subscription outlives connections as every one does: a
/// request whose reply can still come keeps waiting over a reconnect.
///
/// A future may be dropped at any time: its request is forgotten, withdrawn if it was not sent, and its
/// reply dropped. When the last clone and the last future are gone the response topic is unsubscribed
/// from.
///
/// A server that leaves Nagle's algorithm on, as mosquitto does by default, adds some 40 ms to a request
/// made alone: it writes its acknowledgement and the reply apart, and the second write waits until
/// TCP has acknowledged the first. mosquitto's `set_tcp_nodelay true` ends that.
///
/// Each requester belongs to one session. To spread requests over the sessions of a pool make one on
/// each of a few leases that are kept, and choose between them as between any services; a session
/// with a requester has a subscription, so that the pool discards it when its lease ends.
#[derive(Debug)]
pub struct Requester {
    inner: Arc<Inner>,
    publisher: Publisher,
    /// Where this clone waits in `poll_ready`.
    ready: Option<usize>,
}

/// What the clones and futures of a requester share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: RequesterConfig,
    pub(super) response_topic: TopicName,
    pub(super) publisher: Publisher,
    pub(super) open: Arc<OpenRequests>,
    /// The task that takes the replies.
    replies: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.replies.abort();
    }
}

impl Session {
    /// A service that makes requests: subscribes to a response topic of its own.
    ///
    /// Needs MQTT 5.0. The topic is unguessable; it begins with the server's response information if
    /// there is any `[MQTT5 3.2.2.3.15]`, else with the configured prefix and the client identifier.
    /// If the future is dropped the subscription is given up.
    pub async fn requester(&self, config: RequesterConfig) -> Result<Requester, RequesterError> {
        config.validate()?;
        if self.version() != Version::V5 {
            return Err(RequesterError::Version);
        }
        let response_topic = config
            .response_topic(self)
            .map_err(RequesterError::ResponseTopic)?;
        let subscribe = Subscribe::new(response_topic.as_str())
            .map_err(RequesterError::ResponseTopic)?
            .with_qos(config.max_reply_qos);
        let replies = self.subscribe(subscribe).await;
        let replies = replies.map_err(RequesterError::Subscribe)?;
        let open = Arc::new(OpenRequests::new(config.max_open));
        let taking = TakesReplies {
            session: self.clone(),
            open: open.clone(),
        };
        let inner = Inner {
            config,
            response_topic,
            publisher: self.publisher(),
            open,
            replies: tokio::spawn(taking.run(replies)).abort_handle(),
        };
        Ok(Requester::new(Arc::new(inner)))
    }
}

impl Requester {
    fn new(inner: Arc<Inner>) -> Self {
        Self {
            publisher: inner.publisher.clone(),
            inner,
            ready: None,
        }
    }

    /// Makes a request and resolves to its reply.
    ///
    /// Its time begins with the first poll. Dropping the future forgets the request: it is withdrawn
    /// if it was not sent, and its reply is dropped.
    pub fn request(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Message, RequestError>> + Send + use<> {
        exchange(self.inner.clone(), request)
    }

    /// Where its replies come.
    pub fn response_topic(&self) -> &TopicName {
        &self.inner.response_topic
    }

    /// How many requests have no reply yet, over all clones.
    pub fn open(&self) -> usize {
        self.inner.open.len()
    }

    /// How many replies came to requests that were over: answered before, given up or out of time.
    pub fn late_replies(&self) -> u64 {
        self.inner.open.late()
    }

    /// How many messages came on the response topic that reply to nothing this requester has asked.
    pub fn unknown_replies(&self) -> u64 {
        self.inner.open.unknown()
    }
}

impl Clone for Requester {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        if let Some(key) = self.ready {
            self.inner.open.forget_ready(key);
        }
    }
}

impl Service<Request> for Requester {
    type Response = Message;
    type Error = RequestError;
    type Future = RequestFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        let room = ready!(self.inner.open.poll_ready(&mut self.ready, cx));
        room.map_err(|end| end.into_error(Delivery::NotSent))?;
        self.publisher.poll_ready(cx).map_err(RequestError::Publish)
    }

    fn call(&mut self, request: Request) -> RequestFuture {
        RequestFuture(Box::pin(exchange(self.inner.clone(), request)))
    }
}

/// The future of [`Requester`] as a service.
#[must_use = "a request does nothing until polled"]
pub struct RequestFuture(Pin<Box<dyn Future<Output = Result<Message, RequestError>> + Send>>);

impl Future for RequestFuture {
    type Output = Result<Message, RequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for RequestFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFuture").finish_non_exhaustive()
    }
}

/// Takes what comes on the response topic, whether or not anybody polls a request.
struct TakesReplies {
    session: Session,
    open: Arc<OpenRequests>,
}

impl TakesReplies {
    async fn run(self, mut replies: Subscription) {
        while let Some(reply) = replies.recv().await {
            self.open.deliver(reply);
        }
        let end = match replies.refused() {
            Some(refused) => End::Refused(refused),
            None => End::Lost(self.session.closed().await),
        };
        tracing::debug!(?end, "no more replies");
        self.open.end(end);
    }
}

impl Drop for TakesReplies {
    fn drop(&mut self) {
        // The first end counts; this is that of a task whose runtime shuts down.
        self.open.end(End::Lost(Arc::new(ConnectionLost {
            endpoint: self.session.endpoint().clone(),
            cause: LostCause::TaskDropped,
        })));
    }
}
