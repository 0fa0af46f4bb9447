//! One route: a pattern, what handles its messages, and how.

use std::{fmt, sync::Arc};

use mqtt_proto::{QoS, ReasonCode};
use tower_layer::Layer;

use super::{
    error::{HandlerError, PatternError},
    handler::{Handler, HandlerService},
    pattern::Pattern,
    service::{MessageService, RouteService},
};
use crate::subscribe::Subscribe;

/// The default of [`Route::with_max_in_hand`].
const MAX_IN_HAND: usize = 32;

/// A pattern, what handles its messages, and how: for [`Router::with_route`](super::Router::with_route).
///
/// `S` is the state of the router.
#[must_use = "a route does nothing until it is added to a router"]
pub struct Route<S = ()> {
    pub(super) parsed: Result<(Pattern, Subscribe), PatternError>,
    pub(super) service: MakeService<S>,
    pub(super) rules: Rules,
}

/// Makes a route's service once the state is known.
pub(super) type MakeService<S> = Box<dyn FnOnce(S) -> RouteService + Send>;

/// How messages of a route are handled.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) order: Order,
    pub(super) max_in_hand: usize,
    /// The router's, if there is none.
    pub(super) on_failure: Option<FailurePolicy>,
}

/// What failures lead to.
pub(super) type FailurePolicy = Arc<dyn Fn(&HandlerError) -> OnFailure + Send + Sync>;

/// Which messages of a route are handled one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Those of the same topic, in the order in which they came; of different topics at the same time. The
    /// default: the order of a topic is what MQTT promises (5.0 section 4.6), and what states and counters
    /// need.
    #[default]
    Topic,
    /// All of the route, in the order in which they came.
    Route,
    /// None: any number at the same time, of the same topic too.
    None,
}

/// What becomes of a QoS 1 or 2 message whose handler has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// It is not acknowledged: the server sends it again on the session's next connection, if it keeps the
    /// session. The default, since nothing is lost by it. Until then it holds up the acknowledgements of all
    /// messages behind it on the connection, and counts against [receive
    /// maximum](crate::SessionConfig::receive_maximum).
    #[default]
    Leave,
    /// It is acknowledged with this reason code, 0x80 or above: the server does not send it again. In 3.1.1 an
    /// acknowledgement has no code.
    Reject(ReasonCode),
    /// It is acknowledged as if it had been handled.
    Acknowledge,
}

impl<S: 'static> Route<S> {
    /// The messages of a pattern, and the async function that handles them.
    pub fn new<T: 'static>(pattern: &str, handler: impl Handler<T, S>) -> Self
    where
        S: Clone + Send + Sync,
    {
        Self::made(
            pattern,
            Box::new(move |state| RouteService::new(HandlerService::new(handler, state))),
        )
    }

    /// The messages of a pattern, and the service that handles them.
    pub fn from_service(pattern: &str, service: impl MessageService) -> Self {
        Self::made(pattern, Box::new(move |_| RouteService::new(service)))
    }

    fn made(pattern: &str, service: MakeService<S>) -> Self {
        let parsed =
            Pattern::new(pattern).and_then(|parsed| match Subscribe::new(parsed.filter()) {
                Ok(subscribe) => Ok((parsed, subscribe)),
                Err(source) => Err(PatternError::Filter {
                    pattern: pattern.to_owned(),
                    source,
                }),
            });
        Self {
            parsed,
            service,
            rules: Rules::default(),
        }
    }

    /// With a layer around the handler: a timeout, a limit, a trace. One that is added later is around those added
    /// before.
    ///
    /// A message that waits for a layer's limit is in hand; see [`with_max_in_hand`](Self::with_max_in_hand).
    /// What a layer answers with an error, such as a timeout, is a failure of the handler.
    pub fn with_layer<L>(self, layer: L) -> Self
    where
        L: Layer<RouteService, Service: MessageService> + Send + 'static,
    {
        let inner = self.service;
        Self {
            service: Box::new(move |state| RouteService::new(layer.layer(inner(state)))),
            ..self
        }
    }

    /// With messages at this QoS at most. Default QoS 2: messages come at the QoS they were published at.
    pub fn with_qos(self, qos: QoS) -> Self {
        self.with_subscribe(|subscribe| subscribe.with_qos(qos))
    }

    /// With a request to subscribe that is changed so: its options, properties, and how many messages wait to
    /// be read.
    ///
    /// ```
    /// # use mqtt_client::router::Route;
    /// # async fn handler() {}
    /// # let _: Route =
    /// Route::new("devices/{id}/state", handler).with_subscribe(|subscribe| subscribe.with_max_messages(100));
    /// ```
    pub fn with_subscribe(mut self, change: impl FnOnce(Subscribe) -> Subscribe) -> Self {
        self.parsed = self
            .parsed
            .map(|(pattern, subscribe)| (pattern, change(subscribe)));
        self
    }

    /// With this order. Default [`Order::Topic`].
    pub fn with_order(mut self, order: Order) -> Self {
        self.rules.order = order;
        self
    }

    /// With so many messages in hand at the same time: being handled, or waiting for one of the same topic
    /// that is. 0 counts as 1. Default 32, an eighth of [the router's](super::Router::with_max_in_hand), so
    /// that some slow routes leave room to others.
    ///
    /// Messages beyond it wait in the route's subscription, and at QoS 1 and 2 with the server, whose
    /// [receive maximum](crate::SessionConfig::receive_maximum) they count against.
    pub fn with_max_in_hand(mut self, max_in_hand: usize) -> Self {
        self.rules.max_in_hand = max_in_hand.max(1);
        self
    }

    /// With this when a message is not handled. Default: what
    /// [the router says](super::Router::with_failure_policy).
    pub fn with_on_failure(self, on_failure: OnFailure) -> Self {
        self.with_failure_policy(move |_| on_failure)
    }

    /// The same, decided by the error: a message that cannot be understood will not be when it comes again,
    /// while a back end that was away may be there then.
    pub fn with_failure_policy(
        mut self,
        policy: impl Fn(&HandlerError) -> OnFailure + Send + Sync + 'static,
    ) -> Self {
        self.rules.on_failure = Some(Arc::new(policy));
        self
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            order: Order::default(),
            max_in_hand: MAX_IN_HAND,
            on_failure: None,
        }
    }
}

impl<S> fmt::Debug for Route<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("parsed", &self.parsed)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("order", &self.order)
            .field("max_in_hand", &self.max_in_hand)
            .finish_non_exhaustive()
    }
}
