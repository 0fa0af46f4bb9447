//! The endpoints of a pool: how many members each has, and how it has behaved.
//!
//! Its one rule: a new member goes to an endpoint that has fewer than its weight's share, among those
//! that may be dialled. Members that reach their lifetime thereby move load back to an endpoint that
//! has returned.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mqtt_transport::Endpoint;
use tokio::time::Instant;

use crate::{
    BackoffConfig, WeightedEndpoint,
    backoff::{Availability, Backoff},
    metrics::OfEndpoint,
    totals::ConnectTotals,
};

#[derive(Debug)]
pub(crate) struct Endpoints {
    backoff: BackoffConfig,
    /// Never empty.
    each: Mutex<Vec<Member>>,
}

/// An endpoint as a member of the set.
#[derive(Debug, Default)]
struct Member {
    /// `None` where the connector names none.
    endpoint: Option<WeightedEndpoint>,
    /// Members of the pool that are connected to it, or being connected.
    members: usize,
    /// Those that are being connected.
    dialling: usize,
    dialled: ConnectTotals,
    backoff: Backoff,
}

/// What an [`Endpoints`] says to a wish to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// This one, which now counts one more dial and one more member.
    Dial { endpoint: usize, is_probe: bool },
    /// None before this time, or before a dial that is running has ended.
    Wait(Option<Instant>),
    /// All refuse for good, until this time if there is one.
    Refused(Option<Instant>),
}

impl Endpoints {
    pub(crate) fn new(endpoints: &[WeightedEndpoint], backoff: BackoffConfig) -> Self {
        let mut each: Vec<_> = endpoints
            .iter()
            .map(|endpoint| Member {
                endpoint: Some(endpoint.clone()),
                ..Member::default()
            })
            .collect();
        if each.is_empty() {
            each.push(Member::default());
        }
        Self {
            backoff,
            each: Mutex::new(each),
        }
    }

    pub(crate) fn choose(&self, now: Instant) -> Choice {
        let mut each = self.lock();
        let (mut candidates, mut all_refuse, mut next) = (Vec::new(), true, None);
        let mut not_before =
            |at: Instant| next = Some(next.map_or(at, |next: Instant| next.min(at)));
        for (index, member) in each.iter().enumerate() {
            match member.backoff.availability(now) {
                Availability::Probing if member.dialling > 0 => all_refuse = false,
                Availability::Open => candidates.push((index, member, false)),
                Availability::Probing => candidates.push((index, member, true)),
                Availability::Waiting(at) => {
                    all_refuse = false;
                    not_before(at);
                }
                Availability::Refused(at) => at.into_iter().for_each(&mut not_before),
            }
        }
        let weights: u32 = candidates
            .iter()
            .map(|(_, member, _)| member.weight())
            .sum();
        let members: usize = candidates.iter().map(|(_, member, _)| member.members).sum();
        let rank = |member: &Member| rank(member.claim(weights, members + 1), fastrand::f64());
        let best = candidates
            .into_iter()
            .map(|(endpoint, member, is_probe)| (rank(member), endpoint, is_probe))
            .max_by(|(a, ..), (b, ..)| a.total_cmp(b));
        match best {
            Some((_, endpoint, is_probe)) => {
                if let Some(member) = each.get_mut(endpoint) {
                    member.members += 1;
                    member.dialling += 1;
                }
                Choice::Dial { endpoint, is_probe }
            }
            None if all_refuse => Choice::Refused(next),
            None => Choice::Wait(next),
        }
    }

    /// Whether a dial that was chosen before may begin now: its endpoint may have failed since.
    pub(crate) fn may_begin(&self, index: usize, is_probe: bool, now: Instant) -> bool {
        let each = self.lock();
        let availability = each
            .get(index)
            .map(|member| member.backoff.availability(now));
        match availability {
            Some(Availability::Open) => true,
            Some(Availability::Probing) => is_probe,
            Some(Availability::Waiting(_) | Availability::Refused(_)) | None => false,
        }
    }

    pub(crate) fn endpoint(&self, index: usize) -> Option<Endpoint> {
        let each = self.lock();
        let weighted = each.get(index)?.endpoint.as_ref()?;
        Some(weighted.endpoint.clone())
    }

    /// The dial that [`choose`](Self::choose) counted has ended.
    pub(crate) fn on_dial_ended(&self, index: usize) {
        self.with(index, |member, _| member.dialling -= 1);
    }

    /// A member that was counted is gone, or never came to be.
    pub(crate) fn on_member_gone(&self, index: usize) {
        self.with(index, |member, _| member.members -= 1);
    }

    pub(crate) fn on_connected(&self, index: usize, began: Instant) {
        self.with(index, |member, _| {
            member.backoff.on_connected(began, Instant::now());
        });
    }

    /// A dial that began at `began`, or what came of it, has failed.
    pub(crate) fn on_failure(&self, index: usize, began: Instant) {
        self.with(index, |member, config| {
            let chance = fastrand::f64();
            member
                .backoff
                .on_failure(config, began, Instant::now(), chance);
        });
    }

    /// A dial that began at `began` was refused for good.
    pub(crate) fn on_refused(&self, index: usize, began: Instant) {
        self.with(index, |member, config| {
            member.backoff.on_refused(config, began, Instant::now());
        });
    }

    /// Counts what a dial came to.
    pub(crate) fn count(&self, index: usize, total: fn(&mut ConnectTotals) -> &mut u64) {
        self.with(index, |member, _| *total(&mut member.dialled) += 1);
    }

    /// What metrics call each of them.
    pub(crate) fn labels(&self) -> Vec<String> {
        let each = self.lock();
        let label = |member: &Member| match &member.endpoint {
            Some(weighted) => weighted.endpoint.to_string(),
            None => "default".to_owned(),
        };
        each.iter().map(label).collect()
    }

    pub(crate) fn numbers(&self, now: Instant) -> Vec<OfEndpoint> {
        let each = self.lock();
        let numbers = |member: &Member| OfEndpoint {
            connect: member.dialled,
            backoff: match member.backoff.remaining(now) {
                Duration::MAX => f64::INFINITY,
                remaining => remaining.as_secs_f64(),
            },
        };
        each.iter().map(numbers).collect()
    }

    /// How long this one is not dialled from now on; `None`: for good.
    pub(crate) fn remaining(&self, index: usize) -> Option<Duration> {
        let each = self.lock();
        let remaining = each.get(index)?.backoff.remaining(Instant::now());
        (remaining < Duration::MAX).then_some(remaining)
    }

    /// Forgets every failure.
    pub(crate) fn forgive(&self) {
        let now = Instant::now();
        for member in &mut *self.lock() {
            member.backoff = Backoff::forgiven(now);
        }
    }

    fn with(&self, index: usize, f: impl FnOnce(&mut Member, &BackoffConfig)) {
        if let Some(member) = self.lock().get_mut(index) {
            f(member, &self.backoff);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Member>> {
        self.each.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn weight(&self) -> u32 {
        self.endpoint
            .as_ref()
            .map_or(1, |endpoint| endpoint.weight.max(1))
    }

    /// How many members it lacks, where all `weights` together are to have so many.
    #[expect(
        clippy::as_conversions,
        reason = "there are fewer members than an f64 counts exactly"
    )]
    fn claim(&self, weights: u32, members: usize) -> f64 {
        let share = f64::from(self.weight()) / f64::from(weights.max(1));
        share * members as f64 - self.members as f64
    }
}

/// By which the next endpoint is chosen, the highest. What lacks a whole member comes first. Among
/// the others `chance` decides, in proportion to their claims, so that processes with one member
/// each are spread by weight as well. The claims of all add up to one, so some claim is positive,
/// and who has more than its share gets nothing.
fn rank(claim: f64, chance: f64) -> f64 {
    if claim >= 1.0 {
        claim
    } else if claim > 0.0 {
        // Each claim has the largest of these with a probability in proportion to it.
        chance.ln() / claim
    } else {
        f64::NEG_INFINITY
    }
}
