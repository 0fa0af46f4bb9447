//! Routes that fit together, ready to be served.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use mqtt_proto::packet::SubscriptionId;
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
/// As a [`Service`] it handles messages from wherever they come: it is always ready, and each future waits for the service of
/// its route. Panics are the caller's then, and bounds and order are what its layers make of them.
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
    pub(super) rules: Rules,
}

/// Which route a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Destination {
    Route(usize),
    Fallback,
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
    pub(super) fn find(&self, topic: &str) -> Option<Destination> {
        let route = self.table.find(topic).map(Destination::Route);
        route.or_else(|| self.has_fallback.then_some(Destination::Fallback))
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
    /// The request to subscribe. A route that overlaps has an identifier of its own where there are identifiers, by which the
    /// copies of a message can be told apart.
    pub(super) fn subscribe(&self, has_identifiers: bool) -> Subscribe {
        let mut subscribe = self.subscribe.clone();
        if self.overlaps && has_identifiers {
            let id = &mut subscribe.properties.subscription_identifier;
            *id = id.or_else(|| identifier(self.pattern.filter()));
        }
        subscribe
    }
}

/// The same for the same filter: a server knows one identifier for each, and another router of the session may have it too.
/// Two filters with one number would at worst have messages looked at that are not theirs.
fn identifier(filter: &str) -> Option<SubscriptionId> {
    // FNV-1a. Any hash that does not change from one process to the next would do.
    let hash = filter.bytes().fold(0x811C_9DC5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    SubscriptionId::new(hash % 268_435_455 + 1)
}

/// Notes which routes overlap with another.
pub(super) fn note_overlaps(served: &mut [Served]) {
    for first in 0..served.len() {
        let Some((one, others)) = served.get_mut(first..).and_then(<[_]>::split_first_mut) else {
            continue;
        };
        for other in others {
            if one.pattern.overlaps(&other.pattern) {
                one.overlaps = true;
                other.overlaps = true;
            }
        }
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
