//! A router: messages to handlers by their topics, in the manner of axum.
//!
//! A [`Router`] is built of patterns and handlers. [`build`](Router::build) checks all patterns, each by
//! itself and beside the others, and makes [`Routes`], which are served on a session: subscribed to, and
//! their messages handled and acknowledged.
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
//! async fn on_state(
//!     Path(device): Path<u32>,
//!     State(app): State<App>,
//!     state: String,
//! ) -> Result<(), std::io::Error> {
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
//! `{name}` captures exactly one level, as `+` matches it; it may be empty, since `a//b` has three levels. `{*name}`
//! at the end captures the rest, as `#` matches it: any number of levels, **and none of them**, since MQTT's
//! `a/#` matches `a` too; the capture is empty then. `+` and `#` do the same without a name. What is
//! subscribed to is the filter that a pattern stands for; `$share/group/` in front makes that a shared
//! subscription. Braces of a topic are written `{{` and `}}`. A topic that begins with `$` is not matched by
//! a leading `{name}` or `{*name}`.
//!
//! **Each message is handled by one route.** Where several patterns match, at the first level where they
//! differ a literal goes before `{name}`, and that before `{*name}`. Two patterns for exactly the same topics
//! are an error of [`build`](Router::build), also if one of them is shared.
//!
//! For patterns that overlap a server may send a message once for each (section 3.3.4), and does so with
//! retained messages. In 5.0 routes that overlap are subscribed to under identifiers, by which only the copy
//! of the route that wins is handled. Without identifiers, in 3.1.1 and on servers that have none, a route
//! whose topics another one covers, as `a/{x}` covers `a/b`, comes by the subscription of that, at the higher
//! QoS of both. What is left there is patterns of which neither covers the other, such as `a/{x}/c` and
//! `a/b/{y}`, or of which one is shared, and other subscriptions of the session: each copy counts as a
//! message and is handled. Let those not overlap, or make one subscription that covers all routes, and
//! [attach](Routes::attach) them to it.
//!
//! # Handlers
//!
//! A [`Handler`] is an async function of up to eight arguments, each of which is [taken of the
//! message](FromMessage), and that returns `()` or a `Result<(), E>`. Any tower [service](MessageService) is
//! one too, by [`Route::from_service`]. Layers go around [a route](Route::with_layer) or [all of
//! them](Router::with_layer), and [`Routes`] is itself a service.
//!
//! Each message is handled in a task of its own, so that a handler that computes or panics stops no other.
//! How many there are is bounded, for [each route](Route::with_max_in_hand) and
//! [together](Router::with_max_in_hand), and messages of one topic are handled [one after the other](Order).
//! Those beyond the bound wait in the [`Subscription`](crate::Subscription) of their route, whose bounds say
//! what becomes of QoS 0. Keep-alive and requests do not wait for handlers.
//!
//! # Acknowledgements
//!
//! A QoS 1 or 2 message is acknowledged when its handler has succeeded. Where it has failed, [`OnFailure`]
//! says what happens; a message that has not what the handler takes, an error, an error of a layer and a
//! panic are failures. The default is to **leave** it unacknowledged: it comes again on the next connection,
//! if the server keeps the session.
//!
//! Acknowledgements leave in the order of the messages. Those behind a message that was left wait, and when
//! there are [receive maximum](crate::SessionConfig::receive_maximum) of them the server sends no more at QoS
//! 1 and 2. Where a handler can fail for good, say with a [policy](Router::with_failure_policy) what is to be
//! rejected. A slow handler holds up acknowledgements in the same way until it is done, and no other
//! handlers.

mod builder;
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
    builder::Router,
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

#[cfg(feature = "json")]
pub use self::extract::Json;
