//! A route's services in one type, and the service that finds the route of a message.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    error::{BoxError, HandlerError},
    incoming::Incoming,
    pattern::Pattern,
    table::Table,
};

/// The future of a message's handling.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

/// The service of a route, or of a whole router: what its layers are given.
pub struct RouteService(Box<dyn ErasedService>);

/// A service that handles messages: any [`Service<Incoming>`](Service) whose response is `()`, whose error is
/// an error, and which can be cloned and shared between threads. Implemented for all of them.
pub trait MessageService:
    Service<Incoming, Response = (), Error: Into<BoxError>, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> MessageService for T where
    T: Service<Incoming, Response = (), Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

trait ErasedService: Send + Sync {
    fn clone_box(&self) -> Box<dyn ErasedService>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HandlerError>>;
    fn call(&mut self, incoming: Incoming) -> HandlerFuture;
}

impl<T: MessageService> ErasedService for T {
    fn clone_box(&self) -> Box<dyn ErasedService> {
        Box::new(self.clone())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        Service::poll_ready(self, cx).map_err(HandlerError::from_layers)
    }

    fn call(&mut self, incoming: Incoming) -> HandlerFuture {
        let handled = Service::call(self, incoming);
        Box::pin(async move { handled.await.map_err(HandlerError::from_layers) })
    }
}

impl RouteService {
    pub(super) fn new(service: impl MessageService) -> Self {
        Self(Box::new(service))
    }

    /// Handles one message, once the service is ready for it.
    pub(super) async fn handle(mut self, incoming: Incoming) -> Result<(), HandlerError> {
        std::future::poll_fn(|cx| self.0.poll_ready(cx)).await?;
        self.0.call(incoming).await
    }
}

impl Clone for RouteService {
    fn clone(&self) -> Self {
        Self(self.0.clone_box())
    }
}

impl Service<Incoming> for RouteService {
    type Response = ();
    type Error = HandlerError;
    type Future = HandlerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, incoming: Incoming) -> HandlerFuture {
        self.0.call(incoming)
    }
}

impl fmt::Debug for RouteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteService").finish_non_exhaustive()
    }
}

/// Gives each message to its route.
#[derive(Clone, Debug)]
pub(super) struct Dispatch {
    pub(super) table: Arc<Table>,
    pub(super) routes: Arc<[(Arc<Pattern>, RouteService)]>,
    pub(super) fallback: Option<RouteService>,
}

impl Service<Incoming> for Dispatch {
    type Response = ();
    type Error = HandlerError;
    type Future = HandlerFuture;

    /// Which service is to be ready only the message says: its future waits for that.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut incoming: Incoming) -> HandlerFuture {
        let route = self.table.find(&incoming.message().topic);
        let route = route.and_then(|route| self.routes.get(route));
        incoming.set_pattern(route.map(|(pattern, _)| pattern.clone()));
        match route.map(|(_, service)| service).or(self.fallback.as_ref()) {
            Some(service) => Box::pin(service.clone().handle(incoming)),
            None => Box::pin(std::future::ready(Err(HandlerError::NotRouted))),
        }
    }
}
