//! Serving: messages are taken from subscriptions as there is room, handled, and acknowledged.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use mqtt_proto::Version;
use tokio::task::JoinSet;

use super::{
    error::ServeError,
    in_hand::{InHand, Job},
    routes::{Brings, Routes},
};
use crate::{
    error::{ConnectionLost, SubscribeError},
    manual::ManualSubscription,
    session::Session,
};

/// How many messages are taken before other tasks of the thread get their turn.
const MESSAGES_PER_POLL: usize = 128;

/// Routes that are subscribed to. Messages wait until they are [served](Self::serve_until).
///
/// Dropping it unsubscribes without waiting. To have the server keep the subscriptions, and the messages, for
/// the next process that takes the session up, [disconnect](Session::disconnect) before that. On a session
/// that goes on, what is unread counts as not processed, as [`ManualSubscription`] says.
#[derive(Debug)]
#[must_use = "dropping it unsubscribes without waiting"]
pub struct Subscribed {
    routes: Routes,
    session: Session,
    sources: Vec<Source>,
}

/// Why routes are not served any more.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeEnd {
    /// They were told to shut down. Their subscriptions are still there, to be served again, given up or left.
    ShutDown(Subscribed),
    /// The session is over, for this reason.
    SessionEnded(Arc<ConnectionLost>),
    /// On a later connection the server did not grant a subscription any more.
    Refused(ServeError),
}

/// A subscription, and a message of it that there was no room for.
#[derive(Debug)]
struct Source {
    brings: Brings,
    stream: ManualSubscription,
    held: Option<Job>,
    end: Option<End>,
}

/// Why a subscription has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Session,
    Refused,
}

/// Why no more messages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    ShutDown,
    Ended,
}

impl Routes {
    /// Subscribes to all routes and serves them until the session is over:
    /// [`subscribe`](Self::subscribe) and [`Subscribed::serve_until`], whose errors and cancellation it has.
    ///
    /// # Errors
    ///
    /// Those of `subscribe`.
    pub async fn serve(&self, session: &Session) -> Result<ServeEnd, ServeError> {
        self.serve_until(session, std::future::pending()).await
    }

    /// The same, until `shutdown` completes.
    ///
    /// # Errors
    ///
    /// Those of `subscribe`. A `shutdown` that comes before the server's answers is none: what was asked for
    /// is given up.
    pub async fn serve_until(
        &self,
        session: &Session,
        shutdown: impl Future<Output = ()>,
    ) -> Result<ServeEnd, ServeError> {
        let mut shutdown = pin!(shutdown);
        let subscribed = tokio::select! {
            biased;
            subscribed = self.subscribe(session) => subscribed?,
            () = &mut shutdown => return Ok(ServeEnd::ShutDown(self.subscribed(session, Vec::new()))),
        };
        Ok(subscribed.serve_until(shutdown).await)
    }

    /// Subscribes to all routes, and resolves when the server has granted them.
    ///
    /// If the future is dropped, what was granted is given up again.
    ///
    /// # Errors
    ///
    /// If a route cannot be subscribed to. Those that were granted are given up again.
    pub async fn subscribe(&self, session: &Session) -> Result<Subscribed, ServeError> {
        let sources = self.ask(session).await?;
        Ok(self.subscribed(session, sources))
    }

    /// The routes on a subscription of the session that was made elsewhere. What no route matches goes to the
    /// fallback.
    ///
    /// One filter for many patterns saves subscriptions, and copies where patterns overlap. The routes share
    /// its queue: one whose bound is reached holds up the others.
    pub fn attach(&self, session: &Session, subscription: ManualSubscription) -> Subscribed {
        self.subscribed(session, vec![Source::new(Brings::All, subscription)])
    }

    fn subscribed(&self, session: &Session, sources: Vec<Source>) -> Subscribed {
        Subscribed {
            routes: self.clone(),
            session: session.clone(),
            sources,
        }
    }

    /// All routes at the same time: one after the other each would wait for the server.
    async fn ask(&self, session: &Session) -> Result<Vec<Source>, ServeError> {
        let has_identifiers = session.version() == Version::V5
            && session
                .connack()
                .properties
                .subscription_identifiers_available
                != Some(false);
        let mut answers = JoinSet::new();
        for (brings, subscribe) in self.plan().subscribes(has_identifiers) {
            let subscribed = session.subscriber().subscribe(subscribe);
            answers.spawn(async move { (brings, subscribed.await) });
        }
        let mut sources = Vec::with_capacity(answers.len());
        while let Some(answer) = answers.join_next().await {
            let (brings, subscribed) = match answer {
                Ok(answer) => answer,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is shutting down, and polls this no more.
                    Err(_) => std::future::pending().await,
                },
            };
            let stream = subscribed.map_err(|cause| self.error(brings, cause))?;
            sources.push(Source::new(brings, stream.into_manual()));
        }
        Ok(sources)
    }

    fn error(&self, brings: Brings, cause: SubscribeError) -> ServeError {
        let served = brings
            .route()
            .and_then(|route| self.plan().served.get(route));
        ServeError {
            pattern: served.map_or_else(String::new, |served| served.pattern.as_str().to_owned()),
            cause,
        }
    }
}

impl Subscribed {
    /// Serves the routes, until `shutdown` completes or the session is over. It outlives connections as
    /// subscriptions do.
    ///
    /// After `shutdown` no more messages are taken, and it waits for the handlers of those that were. How
    /// long, a [timeout](tokio::time::timeout) around it may say. At the end of the session what was received
    /// is still handled.
    ///
    /// If the future is dropped, handlers are aborted at their next await, what is not acknowledged counts as not
    /// processed, and the routes are unsubscribed from without waiting.
    pub async fn serve_until(self, shutdown: impl Future<Output = ()>) -> ServeEnd {
        let shutdown = pin!(shutdown);
        Serving {
            in_hand: InHand::new(self.routes.clone()),
            subscribed: self,
            first: 0,
        }
        .run(shutdown)
        .await
    }

    /// Unsubscribes, and waits for the server's answers. If the future is dropped, all are given up all the same.
    ///
    /// # Errors
    ///
    /// The first one; the others are given up in spite of it.
    pub async fn unsubscribe(self) -> Result<(), SubscribeError> {
        let mut outcome = Ok(());
        for source in self.sources {
            outcome = outcome.and(source.stream.unsubscribe().await.map(|_| ()));
        }
        outcome
    }
}

struct Serving {
    subscribed: Subscribed,
    /// Which subscription is looked at first, so that all get their turn.
    first: usize,
    in_hand: InHand,
}

impl Serving {
    async fn run(mut self, mut shutdown: Pin<&mut impl Future<Output = ()>>) -> ServeEnd {
        let session = self.subscribed.session.clone();
        let stop = if self.subscribed.sources.is_empty() {
            tokio::select! {
                biased;
                () = shutdown => Stop::ShutDown,
                _ = session.closed() => Stop::Ended,
            }
        } else {
            std::future::poll_fn(|cx| self.poll_taking(cx, shutdown.as_mut())).await
        };
        std::future::poll_fn(|cx| self.poll_finishing(cx)).await;
        if stop == Stop::ShutDown {
            return ServeEnd::ShutDown(self.subscribed);
        }
        let Subscribed {
            routes, sources, ..
        } = self.subscribed;
        let refused = |source: &Source| Some((source.brings, source.stream.refused()?));
        match sources.iter().find_map(refused) {
            Some((brings, cause)) => ServeEnd::Refused(routes.error(brings, cause)),
            None => ServeEnd::SessionEnded(session.closed().await),
        }
    }

    /// Takes messages as there is room, until it is to stop.
    fn poll_taking(
        &mut self,
        cx: &mut Context<'_>,
        shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Stop> {
        if shutdown.poll(cx).is_ready() {
            return Poll::Ready(Stop::ShutDown);
        }
        self.in_hand.poll(cx);
        self.first = (self.first + 1) % self.subscribed.sources.len().max(1);
        let (before, after) = self.subscribed.sources.split_at_mut(self.first);
        let mut budget = MESSAGES_PER_POLL;
        for source in after.iter_mut().chain(before) {
            source.take(cx, &mut self.in_hand, &mut budget);
        }
        let mut ends = self
            .subscribed
            .sources
            .iter()
            .filter_map(|source| source.end);
        if ends.any(|end| end == End::Refused)
            || self
                .subscribed
                .sources
                .iter()
                .all(|source| source.end.is_some())
        {
            return Poll::Ready(Stop::Ended);
        }
        // Handlers that were just begun are to wake this task, and one that has ended has made room.
        if self.in_hand.poll(cx) || budget == 0 {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Ready when all that was taken is handled.
    fn poll_finishing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.in_hand.poll(cx);
        for source in &mut self.subscribed.sources {
            if let Some(job) = source.held.take() {
                source.held = self.in_hand.take(job).err();
            }
        }
        if self.in_hand.poll(cx) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.in_hand.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Source {
    fn new(brings: Brings, stream: ManualSubscription) -> Self {
        Self {
            brings,
            stream,
            held: None,
            end: None,
        }
    }

    /// Takes what there is room for. Without room it waits for nothing: there are handlers then, and the one that
    /// ends wakes the task.
    fn take(&mut self, cx: &mut Context<'_>, in_hand: &mut InHand, budget: &mut usize) {
        while !in_hand.is_full() && *budget > 0 {
            let job = match self.held.take() {
                Some(job) => job,
                None if self.end.is_some() => return,
                None => match Pin::new(&mut self.stream).poll_next(cx) {
                    Poll::Ready(Some(received)) => {
                        *budget -= 1;
                        let Some(job) = in_hand.job(received, self.brings) else {
                            continue;
                        };
                        job
                    }
                    Poll::Ready(None) => {
                        let refused = self.stream.refused();
                        self.end = Some(refused.map_or(End::Session, |_| End::Refused));
                        return;
                    }
                    Poll::Pending => return,
                },
            };
            if let Err(job) = in_hand.take(job) {
                self.held = Some(job);
                return;
            }
        }
    }
}
