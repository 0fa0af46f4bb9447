//! A router: messages to handlers by their topics, in the manner of axum.
//!
//! A [`Router`] is built of patterns and handlers. [`build`](Router::build) checks all patterns, each by itself and
//! beside the others, and makes [`Routes`], which are served on a session: subscribed to, and their messages handled
//! and acknowledged.
//!
//! ```
//! use mqtt_client::{
//!     QoS, Session,
//!     router::{OnFailure, Order, Path, Route, Router, ServeEnd, State},
//! };
//!
//! #[derive(Clone)]
//! struct App { /* a pool of database connections, ... */ }
//!
//! async fn on_state(Path(device): Path<u32>, State(app): State<App>, state: String) -> Result<(), std::io::Error> {
//!     println!("device {device} is {state}");
//!     Ok(())
//! }
//!
//! async fn on_log(Path((device, levels)): Path<(u32, Vec<String>)>, line: String) {
//!     println!("device {device}, {}: {line}", levels.join("."));
//! }
//!
//! # async fn example(session: Session, app: App) -> Result<(), Box<dyn std::error::Error>> {
//! let routes = Router::with_state(app)
//!     .route("devices/{id}/state", on_state)
//!     .with_route(Route::new("devices/{id}/log/{*levels}", on_log).with_qos(QoS::AtMostOnce).with_order(Order::Route))
//!     .with_on_failure(OnFailure::Acknowledge)
//!     .build()?;
//!
//! let interrupt = async { /* a signal, ... */ };
//! match routes.serve_until(&session, interrupt).await? {
//!     ServeEnd::ShutDown(subscribed) => subscribed.unsubscribe().await?,
//!     end => eprintln!("{end:?}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Patterns
//!
//! `{name}` captures exactly one level, which may be empty (`a//b` has three levels), as `+` matches it. `{*name}` at
//! the end captures the rest, as `#` matches it: any number of levels, **and none of them**, since MQTT's `a/#` matches
//! `a` too; the capture is empty then. `+` and `#` do the same without a name. A pattern is subscribed to as the filter that it
//! stands for; `$share/group/` in front makes that a shared subscription. Braces of a topic are written `{{` and `}}`.
//!
//! **Each message is handled by one route**: where several patterns match, at the first level where they differ a literal
//! goes before `{name}`, and that before `{*name}`. Two patterns for exactly the same topics are an error of `build`, also if one of
//! them is shared. A topic that begins with `$` is not matched by a leading `{name}` or `{*name}`.
//!
//! For patterns that overlap a server may send a message once for each of them (section 3.3.4), and at subscribing it sends retained messages so.
//! In 5.0 the overlapping routes are subscribed to under subscription identifiers, and of these copies only the winner's is handled. Where there are no
//! identifiers, in 3.1.1 and on servers without them, each copy counts as a message and is handled; to avoid that, let the patterns not overlap, or make one subscription
//! that covers all of them and [serve it](Routes::serve_on). The same goes for
//! other subscriptions on the session that overlap with the routes.
//!
//! # Handlers
//!
//! A [`Handler`] is an async function of up to eight arguments, each of which is [taken of the message](FromMessage), and that returns `()` or
//! a `Result<(), E>`. Any tower [service](MessageService) is one too, by [`Route::from_service`]. Layers go around [a route](Route::with_layer)
//! or [all of them](Router::with_layer), and [`Routes`] is itself a service.
//!
//! Each message is handled in a task of its own, so that a handler that computes or panics stops no other. How many there
//! are is bounded, for [each route](Route::with_max_in_hand) and [together](Router::with_max_in_hand); messages of one topic are handled
//! [one after the other](Order). Messages beyond the bound wait in their route's
//! [`Subscription`](crate::Subscription), whose bounds say what becomes of QoS 0; keep-alive does not wait for handlers.
//!
//! # Acknowledgements
//!
//! A QoS 1 or 2 message is acknowledged when its handler has succeeded. What happens when it has failed says [`OnFailure`]; a message that does not have what
//! the handler takes, an error, an error of a layer and a panic are failures. The default is to **leave** it unacknowledged:
//! it comes again on the next connection, if the server keeps the session. Acknowledgements leave in the order
//! of the messages, so that those behind it wait, and when there are [receive maximum](crate::SessionConfig::receive_maximum) of them
//! the server sends no more at QoS 1 and 2: where a handler can fail for good, say with
//! [`with_failure_policy`](Router::with_failure_policy) what is to be rejected.
//! A slow handler holds up acknowledgements in the same way, and no handlers.
//!
//! A message may come twice at QoS 1, and at QoS 2 it is handled twice if its acknowledgement was lost with the whole session.

use std::{fmt, sync::Arc};

use tower_layer::Layer;

mod error;
mod extract;
mod handler;
mod in_hand;
mod incoming;
mod path;
mod pattern;
mod route;
mod routes;
mod serve;
mod service;
mod table;

pub use self::{
    error::{BoxError, HandlerError, PatternError, PatternErrors, ServeError},
    extract::{FromMessage, Path, State},
    handler::{Handler, Outcome},
    incoming::Incoming,
    path::PathError,
    route::{OnFailure, Order, Route},
    routes::Routes,
    serve::{ServeEnd, Subscribed},
    service::{HandlerFuture, MessageService, RouteService},
};
use self::{
    handler::HandlerService,
    route::{FailurePolicy, MakeService, Rules},
};
#[cfg(feature = "json")]
pub use extract::Json;

/// The default of [`Router::with_max_in_hand`].
const MAX_IN_HAND: usize = 256;

/// Routes in the making: see [the module](self).
///
/// `S` is the state that handlers take as [`State<S>`](State).
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
    /// [a subscription of one's own](Routes::serve_on).
    pub fn with_fallback<T: 'static>(mut self, handler: impl Handler<T, S>) -> Self {
        self.fallback = Some(Box::new(move |state| {
            RouteService::new(HandlerService::new(handler, state))
        }));
        self
    }

    /// With a layer around all routes and the fallback together, whether they are added before or after it: the limit of a layer
    /// is one for all. One that is added later is around those added before; errors and limits are as
    /// [those of a route](Route::with_layer).
    ///
    /// [`Incoming::pattern`] is not known yet to it.
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

    /// With this when a message is not handled, for routes that do not [say it](Route::with_on_failure) themselves. Default
    /// [`OnFailure::Leave`].
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

    /// With so many messages in hand at the same time, over all routes: being handled, or waiting for one of the same topic
    /// that is. 0 counts as 1. Default 256: some thousand messages a second where each waits a tenth of one for a back end, in memory that is no matter.
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
        let mut table = table::Table::default();
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
            served.push(routes::Served {
                pattern,
                subscribe,
                overlaps: false,
                rules,
            });
        }
        routes::note_overlaps(&mut served);
        let fallback = self.fallback.map(|make| make(self.state));
        let has_fallback = fallback.is_some();
        let table = Arc::new(table);
        let mut service = RouteService::new(service::Dispatch {
            table: table.clone(),
            routes: services.into(),
            fallback,
        });
        if let Some(layers) = self.layers {
            service = layers(service);
        }
        Ok(Routes::new(
            service,
            routes::Plan {
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
