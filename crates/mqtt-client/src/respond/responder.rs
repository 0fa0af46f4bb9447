//! The handle of those who answer, and the task behind it.
//!
//! The task takes a request only when the service is ready and a place is free, so that what is too
//! much waits in the subscription, whose bounds hold the server back.

use std::{error::Error, future::poll_fn, sync::Arc, task::ready, time::Duration};

use mqtt_pool::ConfigErrors;
use mqtt_proto::{Message, Version};
use thiserror::Error;
use tokio::{
    sync::{oneshot, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tower_service::Service;

use crate::{
    config::FOREVER,
    error::{ConnectionLost, SubscribeError},
    respond::{
        Reply, ResponderConfig, ResponderTotals,
        answering::{Answering, Counts},
        requests::{Owed, Requests},
    },
    session::Session,
    subscribe::Subscribe,
};

/// A responder could not be made.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ResponderError {
    /// Its options are not allowed.
    #[error("the configuration is not allowed")]
    Config(#[from] ConfigErrors),
    /// The session speaks 3.1.1, which has no response topics.
    #[error("answering requests needs MQTT 5.0")]
    Version,
    /// The server refused the subscription.
    #[error("not subscribed to requests")]
    Subscribe(#[source] SubscribeError),
}

/// Why a responder takes no more requests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ResponderEnd {
    /// It was told to stop, its runtime has shut down, or its service has panicked when it was called.
    Stopped,
    /// The session is over.
    SessionOver(Arc<ConnectionLost>),
    /// On a later connection the server does not grant the subscription.
    Refused(SubscribeError),
    /// The service will not become ready any more, and this is why.
    ServiceFailed(Arc<dyn Error + Send + Sync>),
}

/// [`Responder::shutdown`] gave up waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{requests} requests were not answered within {timeout:?}")]
#[non_exhaustive]
pub struct Unfinished {
    /// How many requests were given up.
    pub requests: usize,
    /// How long was waited.
    pub timeout: Duration,
}

/// Answers the requests of one subscription with a service, in a task of the runtime.
///
/// Made by [`Session::respond`]. Dropping it gives up what runs; [`shutdown`](Self::shutdown) lets that
/// finish.
#[derive(Debug)]
pub struct Responder {
    answering: Arc<Answering>,
    stop: Option<oneshot::Sender<Instant>>,
    end: watch::Receiver<Option<(ResponderEnd, usize)>>,
    task: AbortHandle,
}

impl Session {
    /// Answers the messages of `subscribe` with `service`, each with what the service makes of it: a
    /// [`Reply`], or `None`.
    ///
    /// Needs MQTT 5.0. A reply goes to the response topic of its request, with its correlation data and
    /// at its QoS. Requests run side by side, so that replies may leave in another order; layers of
    /// tower on the service say how long one may take. Several responders share the work by a filter
    /// of the form `$share/name/filter`.
    ///
    /// A request at QoS 1 or 2 is acknowledged when its reply was published, or there is to be none. One
    /// that is being worked on when the process or the connection dies comes again, if the server keeps
    /// the session: the service may be called twice for it. Until then it counts against the
    /// receive maximum, and acknowledgements leave in order.
    ///
    /// If the future is dropped the subscription is given up.
    pub async fn respond<S, R>(
        &self,
        subscribe: Subscribe,
        service: S,
        config: ResponderConfig,
    ) -> Result<Responder, ResponderError>
    where
        S: Service<Message, Response = R> + Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>> + Send,
        S::Future: Send + 'static,
        R: Into<Option<Reply>> + Send + 'static,
    {
        config.validate()?;
        if self.version() != Version::V5 {
            return Err(ResponderError::Version);
        }
        let filters = subscribe.filters.iter().map(|it| it.filter.clone());
        let answering = Arc::new(Answering {
            config,
            filters: filters.collect(),
            publisher: self.publisher(),
            counts: Counts::default(),
        });
        let requests = self.subscribe(subscribe).await;
        let requests = requests.map_err(ResponderError::Subscribe)?;
        let requests = Requests::new(requests, answering.config.gives_back);
        let (stop, stopped) = oneshot::channel();
        let (ended, end) = watch::channel(None);
        let serving = Serving {
            session: self.clone(),
            service,
            answering: answering.clone(),
            running: JoinSet::new(),
        };
        let task = tokio::spawn(async move {
            let end = serving.run(requests, stopped).await;
            tracing::debug!(?end, "no more requests are answered");
            ended.send_replace(Some(end));
        });
        Ok(Responder {
            answering,
            stop: Some(stop),
            end,
            task: task.abort_handle(),
        })
    }
}

impl Responder {
    /// What it has done so far.
    pub fn totals(&self) -> ResponderTotals {
        self.answering.counts.totals()
    }

    /// Waits until it takes no more requests and has answered those it took, and says why.
    ///
    /// Cancel safe: it may be asked again.
    pub async fn ended(&self) -> ResponderEnd {
        self.wait_for_end().await.0
    }

    /// Unsubscribes, lets the requests that run finish for `timeout` at most, and gives up the others.
    ///
    /// What becomes of these, and of requests that were not begun, is said by
    /// [`ResponderConfig::gives_back`]. Dropping the future gives up what runs.
    pub async fn shutdown(mut self, timeout: Duration) -> Result<(), Unfinished> {
        if let Some(stop) = self.stop.take() {
            // One that has ended needs not be told.
            let _ = stop.send(Instant::now() + timeout.min(FOREVER));
        }
        match self.wait_for_end().await.1 {
            0 => Ok(()),
            requests => Err(Unfinished { requests, timeout }),
        }
    }

    async fn wait_for_end(&self) -> (ResponderEnd, usize) {
        let mut end = self.end.clone();
        let told = end.wait_for(Option::is_some).await;
        let told = told.ok().and_then(|end| end.clone());
        // The task was dropped, with what it ran.
        told.unwrap_or((ResponderEnd::Stopped, 0))
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task does.
struct Serving<S> {
    session: Session,
    service: S,
    answering: Arc<Answering>,
    /// Dropped, it gives up its tasks.
    running: JoinSet<()>,
}

impl<S, R> Serving<S>
where
    S: Service<Message, Response = R>,
    S::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    S::Future: Send + 'static,
    R: Into<Option<Reply>> + Send + 'static,
{
    /// Takes requests until there are no more, and lets those that run finish. Says why, and how many
    /// were given up.
    async fn run(
        mut self,
        mut requests: Requests,
        mut stopped: oneshot::Receiver<Instant>,
    ) -> (ResponderEnd, usize) {
        let max_running = self.answering.config.max_running;
        let mut deadline = None;
        let end = loop {
            tokio::select! {
                biased;
                stop = &mut stopped => {
                    deadline = Some(until(stop));
                    break ResponderEnd::Stopped;
                }
                Some(ended) = self.running.join_next() => self.note(ended),
                next = next(&mut self.service, &mut requests), if self.running.len() < max_running => {
                    match next {
                        Ok(Some((request, owed))) => self.begin(request, owed),
                        Ok(None) => break end_of(&self.session, &requests).await,
                        Err(error) => break ResponderEnd::ServiceFailed(error.into().into()),
                    }
                }
            }
        };
        drop(requests);
        while !self.running.is_empty() {
            let patience = sleep_until(deadline.unwrap_or_else(|| Instant::now() + FOREVER));
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => self.note(ended),
                stop = &mut stopped, if deadline.is_none() => deadline = Some(until(stop)),
                () = patience => break,
            }
        }
        (end, self.running.len())
    }

    fn begin(&mut self, request: Message, owed: Owed) {
        let Some(address) = self.answering.address(&request) else {
            return owed.accept();
        };
        let word = self.service.call(request);
        let answering = self.answering.clone();
        self.running.spawn(async move {
            answering.answer(word, address).await;
            owed.accept();
        });
    }

    fn note(&self, ended: Result<(), JoinError>) {
        if ended.is_err() {
            Counts::add(&self.answering.counts.failed);
            tracing::warn!("a request has panicked");
        }
    }
}

async fn end_of(session: &Session, requests: &Requests) -> ResponderEnd {
    match requests.refused() {
        Some(refused) => ResponderEnd::Refused(refused),
        None => ResponderEnd::SessionOver(session.closed().await),
    }
}

/// Until when those that run may finish: not at all where nobody is left who would be told.
fn until(stop: Result<Instant, oneshot::error::RecvError>) -> Instant {
    stop.unwrap_or_else(|_| Instant::now())
}

/// The next request, taken when the service is ready for it.
async fn next<S: Service<Message>>(
    service: &mut S,
    requests: &mut Requests,
) -> Result<Option<(Message, Owed)>, S::Error> {
    poll_fn(|cx| {
        ready!(service.poll_ready(cx))?;
        requests.poll_next(cx).map(Ok)
    })
    .await
}
