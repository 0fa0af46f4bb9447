//! The three deadlines at once.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    ConnectDeadline, ConnectDeadlineFuture, DeadlineConfig, DeadlineHandle, ReadDeadline,
    WriteDeadline,
};
use crate::{ConfigErrors, ConnectError, Endpoint};

/// A connection of [`Deadlines`].
pub type DeadlineConn<C> = ReadDeadline<WriteDeadline<C>>;

/// Puts [`Deadlines`] on connectors.
///
/// ```
/// use std::time::Duration;
/// use mqtt_transport::{Connector, DeadlineConfig, DeadlinesLayer};
/// use tower::ServiceBuilder;
///
/// # fn main() -> Result<(), mqtt_transport::ConfigErrors> {
/// let config = DeadlineConfig::default();
/// let deadlines = DeadlinesLayer::new(&config)?;
/// let connector = ServiceBuilder::new()
///     .layer(&deadlines)
///     .service(Connector::default());
/// // Later, for all connections it made, and for attempts under way:
/// deadlines.set(&config.with_write(Duration::from_secs(30)))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeadlinesLayer {
    handles: Handles,
}

impl DeadlinesLayer {
    /// With these times.
    ///
    /// # Errors
    ///
    /// Those of [`DeadlineConfig::validate`].
    pub fn new(config: &DeadlineConfig) -> Result<Self, ConfigErrors> {
        config.validate()?;
        Ok(Self {
            handles: Handles {
                connect: DeadlineHandle::new(config.connect.duration()),
                read: DeadlineHandle::new(config.read.duration()),
                write: DeadlineHandle::new(config.write.duration()),
            },
        })
    }

    /// Changes the times of all connectors and connections that came of this layer or a clone of
    /// it, at once.
    ///
    /// # Errors
    ///
    /// Those of [`DeadlineConfig::validate`]; then nothing has changed.
    pub fn set(&self, config: &DeadlineConfig) -> Result<(), ConfigErrors> {
        config.validate()?;
        let Handles {
            connect,
            read,
            write,
        } = &self.handles;
        connect.set(config.connect.duration());
        read.set(config.read.duration());
        write.set(config.write.duration());
        Ok(())
    }
}

impl<S> Layer<S> for DeadlinesLayer {
    type Service = Deadlines<S>;

    fn layer(&self, inner: S) -> Deadlines<S> {
        Deadlines {
            inner: ConnectDeadline::with_handle(inner, self.handles.connect.clone()),
            handles: self.handles.clone(),
        }
    }
}

#[derive(Clone, Debug)]
struct Handles {
    connect: DeadlineHandle,
    read: DeadlineHandle,
    write: DeadlineHandle,
}

/// A connector under a [`ConnectDeadline`], whose connections are under a [`ReadDeadline`] and a
/// [`WriteDeadline`]. Made by [`DeadlinesLayer`], and changed there for all its connections.
#[derive(Clone, Debug)]
pub struct Deadlines<S> {
    inner: ConnectDeadline<S>,
    handles: Handles,
}

impl<S: Service<Endpoint, Error = ConnectError>> Service<Endpoint> for Deadlines<S> {
    type Response = DeadlineConn<S::Response>;
    type Error = ConnectError;
    type Future = DeadlinesFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        DeadlinesFuture {
            connect: self.inner.call(endpoint),
            handles: self.handles.clone(),
        }
    }
}

pin_project! {
    /// The future of [`Deadlines`]. Dropping it gives the attempt up.
    #[derive(Debug)]
    #[must_use = "a connect does nothing until polled"]
    pub struct DeadlinesFuture<F> {
        #[pin]
        connect: ConnectDeadlineFuture<F>,
        handles: Handles,
    }
}

impl<F, C> Future for DeadlinesFuture<F>
where
    F: Future<Output = Result<C, ConnectError>>,
{
    type Output = Result<DeadlineConn<C>, ConnectError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let conn = ready!(this.connect.poll(cx))?;
        let conn = WriteDeadline::with_handle(conn, this.handles.write.clone());
        let conn = ReadDeadline::with_handle(conn, this.handles.read.clone());
        Poll::Ready(Ok(conn))
    }
}
