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
    routes::Routes,
};
use crate::{
    error::{ConnectionLost, SubscribeError},
    manual::ManualSubscription,
    session::Session,
};

/// How many messages are taken before other tasks of the thread get their turn.
const MESSAGES_PER_POLL: usize = 128;

/// Why routes are not served any more.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeEnd {
    /// They were told to shut down.
    ShutDown(Subscribed),
    /// The session is over, for this reason.
    SessionEnded(Arc<ConnectionLost>),
    /// On a later connection the server did not grant a subscription any more.
    Refused(ServeError),
}

/// The subscriptions of routes that were shut down. They are still open, and what comes for them waits unread.
///
/// Dropping it unsubscribes without waiting. To have the server keep the subscriptions, and the messages, for the next
/// process that takes the session up, [disconnect](Session::disconnect) before that. On a session that goes on, what is unread
/// counts as not processed, as [`ManualSubscription`] says.
#[derive(Debug)]
#[must_use = "dropping it unsubscribes without waiting"]
pub struct Subscribed {
    sources: Vec<Source>,
}

impl Subscribed {
    /// Unsubscribes, and waits for the server's answers. If the future is dropped, all are given up all the same.
    ///
    /// # Errors
    ///
    /// The first one; the others are given up in spite of it.
    pub async fn unsubscribe(self) -> Result<(), SubscribeError> {
        let mut outcome = Ok(());
        for source in self.sources {
            outcome = outcome.and(source.stream.unsubscribe().await);
        }
        outcome
    }
}

/// A subscription, and a message of it that there was no room for.
#[derive(Debug)]
struct Source {
    /// The route that it is of, if it is.
    route: Option<usize>,
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

/// Whether serving goes on after what is in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    ShutDown,
    Ended,
}

impl Routes {
    /// Subscribes to all routes, and serves them until the session is over.
    ///
    /// It outlives connections as subscriptions do. At the end what was received is still handled.
    ///
    /// If the future is dropped, handlers are aborted at their next await, what is not acknowledged counts as not
    /// processed, and the routes are unsubscribed from without waiting.
    ///
    /// # Errors
    ///
    /// If a route cannot be subscribed to. None is served then, and those that were granted are given up again.
    pub async fn serve(&self, session: &Session) -> Result<ServeEnd, ServeError> {
        self.serve_until(session, std::future::pending()).await
    }

    /// The same, until `shutdown` completes: then no more messages are taken, and it waits for handlers of those that
    /// were. How long, a [timeout](tokio::time::timeout) around it may say.
    ///
    /// # Errors
    ///
    /// Those of [`serve`](Self::serve); a `shutdown` that comes before the server's answers is none.
    pub async fn serve_until(
        &self,
        session: &Session,
        shutdown: impl Future<Output = ()>,
    ) -> Result<ServeEnd, ServeError> {
        let mut shutdown = pin!(shutdown);
        let sources = tokio::select! {
            biased;
            sources = self.subscribe(session) => sources?,
            () = &mut shutdown => return Ok(ServeEnd::ShutDown(Subscribed { sources: Vec::new() })),
        };
        Ok(Serving::new(self, sources).run(session, shutdown).await)
    }

    /// Serves one subscription of the session that was made elsewhere, until `shutdown` completes or the session is
    /// over. What no route matches goes to the fallback.
    ///
    /// One filter for many patterns saves subscriptions, and copies where patterns overlap. The routes share its queue: one whose bound
    /// is reached holds up the others. For the rest it is as [`serve_until`](Self::serve_until).
    pub async fn serve_on(
        &self,
        session: &Session,
        subscription: ManualSubscription,
        shutdown: impl Future<Output = ()>,
    ) -> ServeEnd {
        let source = Source::new(None, subscription);
        let shutdown = pin!(shutdown);
        Serving::new(self, vec![source])
            .run(session, shutdown)
            .await
    }

    /// All routes at the same time: one after the other each would wait for the server.
    async fn subscribe(&self, session: &Session) -> Result<Vec<Source>, ServeError> {
        let has_identifiers = session.version() == Version::V5
            && session
                .connack()
                .properties
                .subscription_identifiers_available
                != Some(false);
        let mut answers = JoinSet::new();
        for (route, served) in self.plan().served.iter().enumerate() {
            let subscribed = session
                .subscriber()
                .subscribe(served.subscribe(has_identifiers));
            answers.spawn(async move { (route, subscribed.await) });
        }
        let mut sources = Vec::with_capacity(answers.len());
        while let Some(answer) = answers.join_next().await {
            let (route, subscribed) = match answer {
                Ok(answer) => answer,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is shutting down, and polls this no more.
                    Err(_) => std::future::pending().await,
                },
            };
            let stream = subscribed.map_err(|cause| self.error(Some(route), cause))?;
            sources.push(Source::new(Some(route), stream.into_manual()));
        }
        Ok(sources)
    }

    fn error(&self, route: Option<usize>, cause: SubscribeError) -> ServeError {
        let served = route.and_then(|route| self.plan().served.get(route));
        ServeError {
            pattern: served.map_or_else(String::new, |served| served.pattern.as_str().to_owned()),
            cause,
        }
    }
}

struct Serving<'a> {
    routes: &'a Routes,
    sources: Vec<Source>,
    /// Which one is looked at first, so that all get their turn.
    first: usize,
    in_hand: InHand,
}

impl<'a> Serving<'a> {
    fn new(routes: &'a Routes, sources: Vec<Source>) -> Self {
        Self {
            routes,
            sources,
            first: 0,
            in_hand: InHand::new(routes.clone()),
        }
    }

    async fn run(
        mut self,
        session: &Session,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> ServeEnd {
        let stop = if self.sources.is_empty() {
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
            return ServeEnd::ShutDown(Subscribed {
                sources: self.sources,
            });
        }
        let refused = |source: &Source| Some((source.route, source.stream.refused()?));
        match self.sources.iter().find_map(refused) {
            Some((route, cause)) => ServeEnd::Refused(self.routes.error(route, cause)),
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
        self.first = (self.first + 1) % self.sources.len().max(1);
        let (before, after) = self.sources.split_at_mut(self.first);
        let mut budget = MESSAGES_PER_POLL;
        for source in after.iter_mut().chain(before) {
            source.take(cx, &mut self.in_hand, &mut budget);
        }
        let mut ends = self.sources.iter().filter_map(|source| source.end);
        if ends.any(|end| end == End::Refused)
            || self.sources.iter().all(|source| source.end.is_some())
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
        for source in &mut self.sources {
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
    fn new(route: Option<usize>, stream: ManualSubscription) -> Self {
        Self {
            route,
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
                        let Some(job) = in_hand.job(received, self.route) else {
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
