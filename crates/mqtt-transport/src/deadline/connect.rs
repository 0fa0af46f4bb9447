//! How long connecting may take.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::{DeadlineExceeded, DeadlineHandle, Operation, watch::Expiry};
use crate::{ConnectError, ConnectPhase, Endpoint, progress};

/// A connector that may take only so long for a connection.
///
/// Unlike tower's own timeout it keeps the type of the error, and names in it the endpoint and the
/// phase in which the time ran out; [`Dial`](ConnectPhase::Dial) if `inner` is not of this crate. It
/// can be changed while it runs: clones share one [`handle`](Self::handle).
#[derive(Clone, Debug)]
pub struct ConnectDeadline<S> {
    inner: S,
    handle: DeadlineHandle,
}

impl<S> ConnectDeadline<S> {
    /// Lets `inner` take `timeout` for a connection, from the call on; `None` for ever.
    pub fn new(inner: S, timeout: impl Into<Option<Duration>>) -> Self {
        Self::with_handle(inner, DeadlineHandle::new(timeout))
    }

    /// Lets `inner` take as long as `handle` says.
    pub fn with_handle(inner: S, handle: DeadlineHandle) -> Self {
        Self { inner, handle }
    }

    /// Changes the deadline later, for attempts that are under way too.
    pub fn handle(&self) -> DeadlineHandle {
        self.handle.clone()
    }
}

impl<S: Service<Endpoint, Error = ConnectError>> Service<Endpoint> for ConnectDeadline<S> {
    type Response = S::Response;
    type Error = ConnectError;
    type Future = ConnectDeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        ConnectDeadlineFuture {
            connect: self.inner.call(endpoint.clone()),
            since: Instant::now(),
            expiry: Expiry::new(self.handle.clone()),
            endpoint,
        }
    }
}

/// Puts a [`ConnectDeadline`] on connectors, the same [`handle`](Self::handle) on all.
#[derive(Clone, Debug)]
pub struct ConnectDeadlineLayer {
    handle: DeadlineHandle,
}

impl ConnectDeadlineLayer {
    /// With this timeout; `None` for ever.
    pub fn new(timeout: impl Into<Option<Duration>>) -> Self {
        Self {
            handle: DeadlineHandle::new(timeout),
        }
    }

    /// Changes the deadline later.
    pub fn handle(&self) -> DeadlineHandle {
        self.handle.clone()
    }
}

impl<S> Layer<S> for ConnectDeadlineLayer {
    type Service = ConnectDeadline<S>;

    fn layer(&self, inner: S) -> ConnectDeadline<S> {
        ConnectDeadline::with_handle(inner, self.handle())
    }
}

pin_project! {
    /// The future of [`ConnectDeadline`]. Dropping it gives the attempt up.
    #[derive(Debug)]
    #[must_use = "a connect does nothing until polled"]
    pub struct ConnectDeadlineFuture<F> {
        #[pin]
        connect: F,
        since: Instant,
        #[pin]
        expiry: Expiry,
        endpoint: Endpoint,
    }
}

impl<F, C> Future for ConnectDeadlineFuture<F>
where
    F: Future<Output = Result<C, ConnectError>>,
{
    type Output = Result<C, ConnectError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (outcome, phase) = progress::poll_phase(this.connect, cx);
        if outcome.is_ready() {
            return outcome;
        }
        let exceeded = DeadlineExceeded {
            operation: Operation::Connect,
            timeout: ready!(this.expiry.poll_expired(*this.since, cx)),
        };
        Poll::Ready(Err(ConnectError::new(
            phase.unwrap_or(ConnectPhase::Dial),
            this.endpoint,
            exceeded.into(),
        )))
    }
}
