//! Building a router: routes are collected, then checked together.

use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{
    error::{HandlerError, PatternError, PatternErrors},
    handler::{Handler, HandlerService},
    route::{FailurePolicy, MakeService, OnFailure, Route, Rules},
    routes::{Plan, Routes, Served, note_overlaps},
    service::{Dispatch, MessageService, RouteService},
    table::Table,
};

/// The default of [`Router::with_max_in_hand`].
const MAX_IN_HAND: usize = 256;

/// Routes in the making: see [the module](super).
///
/// `S` is the state that handlers take as [`State<S>`](super::State).
#[must_use = "a router does nothing until it is built and served"]
pub struct Router<S = ()> {
    state: S,
    routes: Vec<Route<S>>,
    fallback: Option<MakeService<S>>,
    layers: Option<Layers>,
    on_failure: FailurePolicy,
    max_in_hand: usize,
}

type Layers = Box<dyn FnOnce(RouteService) -> RouteService + Send>;

impl Router {
    /// Without routes and state.
    pub fn new() -> Self {
        Self::with_state(())
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Router<S> {
    /// Without routes, with a state that handlers get clones of.
    pub fn with_state(state: S) -> Self {
        Self {
            state,
            routes: Vec::new(),
            fallback: None,
            layers: None,
            on_failure: Arc::new(|_| OnFailure::default()),
            max_in_hand: MAX_IN_HAND,
        }
    }

    /// With this handler for the messages of a pattern: `with_route(Route::new(pattern, handler))`.
    pub fn route<T: 'static>(self, pattern: &str, handler: impl Handler<T, S>) -> Self {
        self.with_route(Route::new(pattern, handler))
    }

    /// With this route.
    pub fn with_route(mut self, route: Route<S>) -> Self {
        self.routes.push(route);
        self
    }

    /// With this handler for what no route matches; without one it is not handled, and acknowledged when served.
    ///
    /// It subscribes to nothing: it is for [`Routes`] as a service, and on
    /// [a subscription of one's own](Routes::attach).
    pub fn with_fallback<T: 'static>(mut self, handler: impl Handler<T, S>) -> Self {
        self.fallback = Some(Box::new(move |state| {
            RouteService::new(HandlerService::new(handler, state))
        }));
        self
    }

    /// With a layer around all routes and the fallback together, whether they are added before or after it:
    /// the limit of a layer is one for all. One that is added later is around those added before; errors and
    /// limits are as [those of a route](Route::with_layer).
    ///
    /// [`Incoming::pattern`](super::Incoming::pattern) is not known yet to it.
    pub fn with_layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<RouteService, Service: MessageService> + Send + 'static,
    {
        let inner = self.layers.take();
        self.layers = Some(Box::new(move |service| {
            let service = match inner {
                Some(inner) => inner(service),
                None => service,
            };
            RouteService::new(layer.layer(service))
        }));
        self
    }

    /// With this when a message is not handled, for routes that do not [say it](Route::with_on_failure)
    /// themselves. Default [`OnFailure::Leave`].
    pub fn with_on_failure(self, on_failure: OnFailure) -> Self {
        self.with_failure_policy(move |_| on_failure)
    }

    /// The same, decided by the error.
    ///
    /// ```
    /// use mqtt_client::{ReasonCode, router::{HandlerError, OnFailure, Router}};
    ///
    /// let router = Router::new().with_failure_policy(|error| match error {
    ///     // It will not be understood the next time either.
    ///     HandlerError::Rejected(_) => OnFailure::Reject(ReasonCode::PAYLOAD_FORMAT_INVALID),
    ///     _ => OnFailure::Leave,
    /// });
    /// # drop(router);
    /// ```
    pub fn with_failure_policy(
        mut self,
        policy: impl Fn(&HandlerError) -> OnFailure + Send + Sync + 'static,
    ) -> Self {
        self.on_failure = Arc::new(policy);
        self
    }

    /// With so many messages in hand at the same time, over all routes: being handled, or waiting for one of
    /// the same topic that is. 0 counts as 1. Default 256: over two thousand messages a second where each
    /// waits 100 ms for a back end.
    pub fn with_max_in_hand(mut self, max_in_hand: usize) -> Self {
        self.max_in_hand = max_in_hand.max(1);
        self
    }

    /// Checks the patterns.
    ///
    /// # Errors
    ///
    /// All that is wrong with them, each by itself and beside the others.
    pub fn build(self) -> Result<Routes, PatternErrors> {
        let mut parts = Vec::with_capacity(self.routes.len());
        let mut errors = Vec::new();
        let mut table = Table::default();
        for Route {
            parsed,
            service,
            rules,
        } in self.routes
        {
            match parsed {
                Ok((pattern, subscribe)) => {
                    parts.push((Arc::new(pattern), subscribe, service, rules))
                }
                Err(error) => errors.push(error),
            }
        }
        for (route, (pattern, ..)) in parts.iter().enumerate() {
            let Err(first) = table.insert(pattern, route) else {
                continue;
            };
            if let Some((first, ..)) = parts.get(first) {
                errors.push(PatternError::Conflict {
                    first: first.as_str().to_owned(),
                    second: pattern.as_str().to_owned(),
                });
            }
        }
        if !errors.is_empty() {
            return Err(PatternErrors(errors));
        }
        let mut services = Vec::with_capacity(parts.len());
        let mut served = Vec::with_capacity(parts.len());
        for (pattern, subscribe, service, rules) in parts {
            services.push((pattern.clone(), service(self.state.clone())));
            served.push(Served {
                pattern,
                subscribe,
                overlaps: false,
                carrier: served.len(),
                rules,
            });
        }
        note_overlaps(&mut served);
        let fallback = self.fallback.map(|make| make(self.state));
        let has_fallback = fallback.is_some();
        let table = Arc::new(table);
        let mut service = RouteService::new(Dispatch {
            table: table.clone(),
            routes: services.into(),
            fallback,
        });
        if let Some(layers) = self.layers {
            service = layers(service);
        }
        Ok(Routes::new(
            service,
            Plan {
                table,
                served,
                has_fallback,
                fallback_rules: Rules::default(),
                on_failure: self.on_failure,
                max_in_hand: self.max_in_hand,
            },
        ))
    }
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("routes", &self.routes)
            .field("max_in_hand", &self.max_in_hand)
            .finish_non_exhaustive()
    }
}
