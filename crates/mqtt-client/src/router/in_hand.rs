//! Messages in hand: being handled, each in a task of its own, or waiting for one that goes before them.
//!
//! Its one rule: what was taken is settled, once its handler has ended in whatever way; only dropping all of it
//! leaves messages unsettled, which then count as not processed.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll},
};

use mqtt_proto::TopicName;
use tokio::task::{Id, JoinError, JoinSet};

use super::{
    error::HandlerError,
    incoming::Incoming,
    route::{OnFailure, Order},
    routes::{Brings, Destination, Routes},
};
use crate::acknowledge::{Ack, Received};

/// A message that is to be handled.
#[derive(Debug)]
pub(super) struct Job {
    received: Received,
    destination: Destination,
}

/// Messages that are handled one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Line {
    Topic(TopicName),
    All(Destination),
}

/// What is owed when a handler has ended.
#[derive(Debug)]
struct Running {
    destination: Destination,
    ack: Ack,
    line: Option<Line>,
}

#[derive(Debug)]
pub(super) struct InHand {
    routes: Routes,
    tasks: JoinSet<Result<(), HandlerError>>,
    running: HashMap<Id, Running>,
    /// Whoever waits behind a message that is being handled; a line is here while there is one.
    lines: HashMap<Line, VecDeque<Job>>,
    counts: HashMap<Destination, usize>,
    count: usize,
}

impl InHand {
    pub(super) fn new(routes: Routes) -> Self {
        Self {
            routes,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            lines: HashMap::new(),
            counts: HashMap::new(),
            count: 0,
        }
    }

    /// A message that came by a subscription. `None` if nobody is to handle it: it is acknowledged then, as
    /// the client does with what nobody wants.
    pub(super) fn job(&self, received: Received, brings: Brings) -> Option<Job> {
        let topic = &received.message.topic;
        let Some(destination) = self.routes.plan().find_brought(brings, topic) else {
            received.accept();
            return None;
        };
        Some(Job {
            received,
            destination,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= self.routes.plan().max_in_hand
    }

    /// Takes a message, or gives it back if there is no room.
    pub(super) fn take(&mut self, job: Job) -> Result<(), Job> {
        let is_full = self.is_full();
        let rules = self.routes.plan().rules(job.destination);
        let of_route = self.counts.entry(job.destination).or_default();
        if is_full || *of_route >= rules.max_in_hand {
            return Err(job);
        }
        *of_route += 1;
        self.count += 1;
        let line = match rules.order {
            Order::Topic => Some(Line::Topic(job.received.message.topic.clone())),
            Order::Route => Some(Line::All(job.destination)),
            Order::None => None,
        };
        if let Some(line) = &line {
            if let Some(waiting) = self.lines.get_mut(line) {
                waiting.push_back(job);
                return Ok(());
            }
            self.lines.insert(line.clone(), VecDeque::new());
        }
        self.start(job, line);
        Ok(())
    }

    fn start(&mut self, job: Job, line: Option<Line>) {
        let Received { message, ack, .. } = job.received;
        let handled = self.routes.service().clone().handle(Incoming::new(message));
        let task = self.tasks.spawn(handled);
        let running = Running {
            destination: job.destination,
            ack,
            line,
        };
        self.running.insert(task.id(), running);
    }

    /// Settles what has been handled, and goes on with what waited for it; says whether there was anything.
    /// Wakes the task when the next of those that have begun so far ends.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_ended = false;
        while let Poll::Ready(Some(ended)) = self.tasks.poll_join_next_with_id(cx) {
            let (id, handled) = match ended {
                Ok((id, handled)) => (id, Ok(handled)),
                Err(error) => (error.id(), Err(error)),
            };
            has_ended = true;
            let Some(running) = self.running.remove(&id) else {
                continue;
            };
            self.count -= 1;
            if let Some(of_route) = self.counts.get_mut(&running.destination) {
                *of_route -= 1;
            }
            self.settle(running.destination, running.ack, handled);
            let Some(line) = running.line else {
                continue;
            };
            match self.lines.get_mut(&line).and_then(VecDeque::pop_front) {
                Some(next) => self.start(next, Some(line)),
                None => {
                    self.lines.remove(&line);
                }
            }
        }
        has_ended
    }

    fn settle(
        &self,
        destination: Destination,
        ack: Ack,
        handled: Result<Result<(), HandlerError>, JoinError>,
    ) {
        let plan = self.routes.plan();
        let error = match handled {
            Ok(Ok(())) => {
                // A stale one comes again, and nothing can be done about it here.
                let _ = ack.accept();
                return;
            }
            Ok(Err(error)) => error,
            Err(error) if error.is_panic() => HandlerError::Panicked,
            // The runtime is shutting down.
            Err(_) => return,
        };
        let policy = plan.rules(destination).on_failure.as_ref();
        let on_failure = policy.unwrap_or(&plan.on_failure)(&error);
        // What caused it may have been taken from the message, and is not logged.
        tracing::warn!(route = plan.name(destination), %error, ?on_failure, "a message was not handled");
        match on_failure {
            OnFailure::Leave => drop(ack),
            OnFailure::Reject(reason_code) => {
                let _ = ack.reject(reason_code);
            }
            OnFailure::Acknowledge => {
                let _ = ack.accept();
            }
        }
    }
}
