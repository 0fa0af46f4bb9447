//! Routes that fit together, ready to be served.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use mqtt_proto::{QoS, packet::SubscriptionId};
use tower_service::Service;

use super::{
    error::HandlerError,
    incoming::Incoming,
    pattern::Pattern,
    route::{FailurePolicy, Rules},
    service::{HandlerFuture, RouteService},
    table::Table,
};
use crate::subscribe::Subscribe;

/// The routes of a [`Router`](super::Router). Clones share them, and can be served on several sessions.
///
/// As a [`Service`] it handles messages from wherever they come: it is always ready, and each future waits
/// for the service of its route. Panics are the caller's then, and bounds and order are what its layers make
/// of them.
#[derive(Clone)]
pub struct Routes {
    service: RouteService,
    plan: Arc<Plan>,
}

/// What serving needs to know of the routes.
pub(super) struct Plan {
    pub(super) table: Arc<Table>,
    pub(super) served: Vec<Served>,
    pub(super) has_fallback: bool,
    pub(super) fallback_rules: Rules,
    pub(super) on_failure: FailurePolicy,
    pub(super) max_in_hand: usize,
}

/// A route that is served.
pub(super) struct Served {
    pub(super) pattern: Arc<Pattern>,
    pub(super) subscribe: Subscribe,
    /// Whether another route has some of its topics.
    pub(super) overlaps: bool,
    /// The route whose subscription brings its messages where there are no identifiers: itself, or one that
    /// covers it.
    pub(super) carrier: usize,
    pub(super) rules: Rules,
}

/// Which route a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Destination {
    Route(usize),
    Fallback,
}

/// Whose messages a subscription brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brings {
    /// Those of this route.
    Own(usize),
    /// Those of the routes that it carries.
    Carried(usize),
    /// All that come: it was made elsewhere.
    All,
}

impl Brings {
    /// The route that was subscribed for.
    pub(super) fn route(self) -> Option<usize> {
        match self {
            Self::Own(route) | Self::Carried(route) => Some(route),
            Self::All => None,
        }
    }
}

impl Routes {
    pub(super) fn new(service: RouteService, plan: Plan) -> Self {
        Self {
            service,
            plan: Arc::new(plan),
        }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn service(&self) -> &RouteService {
        &self.service
    }
}

impl Plan {
    /// Where a message to this topic goes, if anybody handles it.
    fn find(&self, topic: &str) -> Option<Destination> {
        let route = self.table.find(topic).map(Destination::Route);
        route.or_else(|| self.has_fallback.then_some(Destination::Fallback))
    }

    /// What to subscribe to, so that a message is handled once as far as that can be had.
    ///
    /// Where there are identifiers, that is each route. Otherwise one whose topics another covers comes by the
    /// subscription of that, so that there is one copy.
    pub(super) fn subscribes(&self, has_identifiers: bool) -> Vec<(Brings, Subscribe)> {
        let routes = self.served.iter().enumerate();
        if has_identifiers {
            let own = routes.map(|(route, served)| (Brings::Own(route), served.identified()));
            return own.collect();
        }
        let carriers = routes.filter(|(route, served)| served.carrier == *route);
        carriers
            .map(|(route, served)| {
                let carried = self.served.iter().filter(|other| other.carrier == route);
                let qos = carried.filter_map(Served::qos).max();
                let subscribe = served.subscribe.clone();
                let subscribe = match qos {
                    Some(qos) => subscribe.with_qos(qos),
                    None => subscribe,
                };
                (Brings::Carried(route), subscribe)
            })
            .collect()
    }

    /// Where a message goes that came by such a subscription. Nowhere if it is the copy of one that another
    /// brings.
    pub(super) fn find_brought(&self, brings: Brings, topic: &str) -> Option<Destination> {
        self.find(topic).filter(|found| match (brings, found) {
            (Brings::All, _) => true,
            (Brings::Own(own), Destination::Route(route)) => own == *route,
            (Brings::Carried(carrier), Destination::Route(route)) => self
                .served
                .get(*route)
                .is_some_and(|served| served.carrier == carrier),
            (Brings::Own(_) | Brings::Carried(_), Destination::Fallback) => false,
        })
    }

    pub(super) fn rules(&self, destination: Destination) -> &Rules {
        match destination {
            Destination::Route(route) => self
                .served
                .get(route)
                .map_or(&self.fallback_rules, |served| &served.rules),
            Destination::Fallback => &self.fallback_rules,
        }
    }

    /// For people: its pattern.
    pub(super) fn name(&self, destination: Destination) -> &str {
        match destination {
            Destination::Route(route) => self
                .served
                .get(route)
                .map_or("", |served| served.pattern.as_str()),
            Destination::Fallback => "the fallback",
        }
    }
}

impl Served {
    /// Its request to subscribe. A route that overlaps has an identifier, by which the copies of a message
    /// are told apart.
    fn identified(&self) -> Subscribe {
        let mut subscribe = self.subscribe.clone();
        if self.overlaps {
            let id = &mut subscribe.properties.subscription_identifier;
            *id = id.or_else(|| identifier(self.pattern.filter()));
        }
        subscribe
    }

    /// The highest QoS at which its messages come.
    fn qos(&self) -> Option<QoS> {
        let filters = self.subscribe.filters.iter();
        filters.map(|filter| filter.options.qos).max()
    }
}

/// The same for the same filter: a server knows one identifier for each, and another router of the session
/// may have it too. Two filters with one number would at worst have messages looked at that are not theirs.
fn identifier(filter: &str) -> Option<SubscriptionId> {
    // FNV-1a. Any hash that does not change from one process to the next would do.
    let hash = filter.bytes().fold(0x811C_9DC5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    SubscriptionId::new(hash % 268_435_455 + 1)
}

/// Notes which routes overlap with another, and which have others that cover them.
pub(super) fn note_overlaps(served: &mut [Served]) {
    let patterns: Vec<_> = served.iter().map(|served| served.pattern.clone()).collect();
    for (route, served) in served.iter_mut().enumerate() {
        let others = patterns
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != route);
        let overlapping: Vec<_> = others
            .filter(|(_, other)| other.overlaps(&served.pattern))
            .collect();
        served.overlaps = !overlapping.is_empty();
        // One that covers it, and is not covered by another of them, is covered by none.
        let covering: Vec<_> = overlapping
            .into_iter()
            .filter(|(_, other)| other.covers(&served.pattern))
            .collect();
        let widest = covering.iter().find(|(route, one)| {
            !covering
                .iter()
                .any(|(other, wider)| other != route && wider.covers(one))
        });
        served.carrier = widest.map_or(route, |(widest, _)| *widest);
    }
}

impl Service<Incoming> for Routes {
    type Response = ();
    type Error = HandlerError;
    type Future = HandlerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, incoming: Incoming) -> HandlerFuture {
        self.service.call(incoming)
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns = self
            .plan
            .served
            .iter()
            .map(|served| served.pattern.as_str());
        f.debug_list().entries(patterns).finish()
    }
}
