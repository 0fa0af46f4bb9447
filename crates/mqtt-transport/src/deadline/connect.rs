use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use super::{DeadlineExceeded, Operation};
use crate::{ConnectError, ConnectPhase, Endpoint, progress};

/// A connector that may take only so long for a connection.
///
/// Unlike tower's own timeout it keeps the type of the error, and names in it the endpoint and the
/// phase in which the time ran out; [`Dial`](ConnectPhase::Dial) if `inner` is not of this crate.
#[derive(Clone, Debug)]
pub struct ConnectDeadline<S> {
    inner: S,
    timeout: Duration,
}

impl<S> ConnectDeadline<S> {
    /// Lets `inner` take `timeout` for a connection, from the call on.
    pub fn new(inner: S, timeout: Duration) -> Self {
        Self { inner, timeout }
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
            timer: tokio::time::sleep(self.timeout),
            timeout: self.timeout,
            endpoint,
        }
    }
}

/// Puts a [`ConnectDeadline`] on connectors.
#[derive(Clone, Copy, Debug)]
pub struct ConnectDeadlineLayer {
    timeout: Duration,
}

impl ConnectDeadlineLayer {
    /// With this timeout.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout }
    }
}

impl<S> Layer<S> for ConnectDeadlineLayer {
    type Service = ConnectDeadline<S>;

    fn layer(&self, inner: S) -> ConnectDeadline<S> {
        ConnectDeadline::new(inner, self.timeout)
    }
}

pin_project! {
    /// The future of [`ConnectDeadline`].
    #[derive(Debug)]
    #[must_use = "a connect does nothing until polled"]
    pub struct ConnectDeadlineFuture<F> {
        #[pin]
        connect: F,
        #[pin]
        timer: Sleep,
        timeout: Duration,
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
        ready!(this.timer.poll(cx));
        let exceeded = DeadlineExceeded {
            operation: Operation::Connect,
            timeout: *this.timeout,
        };
        Poll::Ready(Err(ConnectError::new(
            phase.unwrap_or(ConnectPhase::Dial),
            this.endpoint,
            exceeded.into(),
        )))
    }
}
