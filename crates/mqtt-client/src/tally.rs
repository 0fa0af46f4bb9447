//! What a session counts while it works, until the recorder is told.
//!
//! Its one rule: a message costs plain additions under the lock that is held for it anyway. A session
//! has a tally while it has something to tell, lent by the thread as its buffers are, so that an idle
//! one has none. The driver tells what came together, for each read and each write.

use std::{sync::Arc, time::Duration};

use mqtt_proto::{Message, QoS};
use tokio::time::Instant;

use crate::{
    buffers,
    shared::{Answer, Options, State},
};

/// At most one in so many publishes of a thread is timed, so that hardly any reads the clock.
const SAMPLE_EVERY: u32 = 16;

/// The gauges of a session are behind by fewer messages than this while its server is silent.
const TELL_EVERY: u64 = 16;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Counts,
    told: Told,
    /// The publish that is timed, by the key of its waiter, and since when. One at a time.
    sample: Option<(usize, Instant)>,
    /// How many publishes are not timed before one is.
    skips: u32,
}

/// What has happened since the recorder was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) published: ByQoS,
    pub(crate) received: ByQoS,
    pub(crate) acknowledged: u64,
    pub(crate) rejected: u64,
    pub(crate) lost: u64,
    pub(crate) set_aside: u64,
    pub(crate) expired: u64,
    pub(crate) displaced: u64,
    pub(crate) full: u64,
    /// QoS 0 messages that a subscription dropped.
    pub(crate) dropped: u64,
    /// Messages that no subscription wants.
    pub(crate) unwanted: u64,
    /// Subscriptions that were refused when they were asked for again.
    pub(crate) refused: u64,
    /// How long the server took to acknowledge the publish that was timed.
    pub(crate) acknowledged_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ByQoS {
    pub(crate) at_most_once: Flow,
    pub(crate) at_least_once: Flow,
    pub(crate) exactly_once: Flow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) messages: u64,
    /// Of payload.
    pub(crate) bytes: u64,
}

/// What a session has now; all of it, or what came since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    pub(crate) in_flight: i64,
    pub(crate) outbox_messages: i64,
    pub(crate) outbox_bytes: i64,
}

/// How much of what goes on outside the tally was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    levels: Levels,
    rejected: u64,
    displaced: u64,
    expired: u64,
}

/// What a recorder is to be told once the lock is free, as it runs code of others.
#[derive(Debug)]
#[must_use = "the recorder is to be told"]
pub(crate) struct Untold {
    options: Arc<Options>,
    pub(crate) counts: Counts,
    change: Levels,
}

impl ByQoS {
    fn add(&mut self, qos: QoS, bytes: usize) {
        let flow = match qos {
            QoS::AtMostOnce => &mut self.at_most_once,
            QoS::AtLeastOnce => &mut self.at_least_once,
            QoS::ExactlyOnce => &mut self.exactly_once,
        };
        flow.messages += 1;
        flow.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }
}

impl State {
    fn tally(&mut self) -> &mut Tally {
        self.tally.get_or_insert_with(buffers::tally)
    }

    pub(crate) fn count(&mut self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.tally().counts);
    }

    /// A message of this size was handed to the core; the waiter with this key is told of its
    /// acknowledgement.
    pub(crate) fn count_published(&mut self, qos: QoS, bytes: usize, key: Option<usize>) {
        let tally = self.tally();
        tally.counts.published.add(qos, bytes);
        let Some(key) = key else {
            return;
        };
        if tally.skips > 0 {
            tally.skips -= 1;
        } else if tally.sample.is_none() {
            tally.skips = SAMPLE_EVERY - 1;
            tally.sample = Some((key, Instant::now()));
        }
    }

    pub(crate) fn count_received(&mut self, message: &Message) {
        let (qos, bytes) = (message.qos, message.payload.len());
        self.tally().counts.received.add(qos, bytes);
    }

    /// The waiter with this key is answered so.
    pub(crate) fn count_answer(&mut self, key: usize, answer: &Answer) {
        match answer {
            Answer::Published { reason_code, .. } => {
                let is_error = reason_code.is_error();
                let tally = self.tally();
                if is_error {
                    tally.counts.rejected += 1;
                } else {
                    tally.counts.acknowledged += 1;
                }
                if let Some((_, since)) = tally.sample.take_if(|(timed, _)| *timed == key) {
                    tally.counts.acknowledged_after = Some(since.elapsed());
                }
            }
            Answer::Lost(_) => self.count(|counts| counts.lost += 1),
            Answer::SetAside { .. } => self.count(|counts| counts.set_aside += 1),
            // What the outbox gives up it counts itself.
            Answer::Answered { .. } | Answer::NotAllowed(_) | Answer::Sent | Answer::NotSent(_) => {
            }
        }
    }

    /// The connection is gone: what is acknowledged on another says nothing of how long a server takes.
    pub(crate) fn forget_sample(&mut self) {
        if let Some(tally) = &mut self.tally {
            tally.sample = None;
        }
    }

    /// What there is to tell, to be told without the lock. Gives the tally back if it was all.
    pub(crate) fn take_untold(&mut self) -> Option<Untold> {
        if self.tally.is_none() && self.outbox.is_none() {
            return None;
        }
        let now = self.to_be_told();
        let tally = self.tally.get_or_insert_with(buffers::tally);
        let told = std::mem::replace(&mut tally.told, now);
        let mut counts = std::mem::take(&mut tally.counts);
        counts.full += now.rejected.saturating_sub(told.rejected);
        counts.displaced += now.displaced.saturating_sub(told.displaced);
        counts.expired += now.expired.saturating_sub(told.expired);
        let change = Levels {
            in_flight: now.levels.in_flight - told.levels.in_flight,
            outbox_messages: now.levels.outbox_messages - told.levels.outbox_messages,
            outbox_bytes: now.levels.outbox_bytes - told.levels.outbox_bytes,
        };
        if tally.sample.is_none()
            && now == Told::default()
            && let Some(tally) = self.tally.take()
        {
            buffers::keep_tally(tally);
        }
        Some(Untold {
            options: self.options.clone(),
            counts,
            change,
        })
    }

    /// The same where it may be that no driver tells it soon: there is none, or the server is silent and
    /// much has come to wait meanwhile.
    pub(crate) fn take_untold_in_time(&mut self) -> Option<Untold> {
        let told = self
            .tally
            .as_ref()
            .map_or(0, |it| it.told.levels.outbox_messages);
        let waiting = self.outbox.as_ref().map_or(0, |outbox| outbox.len());
        let is_behind = level(waiting).abs_diff(told) >= TELL_EVERY;
        if is_behind || !self.core.is_connected() {
            self.take_untold()
        } else {
            None
        }
    }

    fn to_be_told(&self) -> Told {
        let outbox = self.outbox_status();
        let in_flight = match self.end {
            None => self.core.in_flight(),
            Some(_) => 0,
        };
        Told {
            levels: Levels {
                in_flight: level(in_flight),
                outbox_messages: level(outbox.messages),
                outbox_bytes: level(outbox.bytes),
            },
            rejected: outbox.rejected,
            displaced: outbox.displaced,
            expired: outbox.expired,
        }
    }
}

fn level(level: usize) -> i64 {
    i64::try_from(level).unwrap_or(i64::MAX)
}

impl Untold {
    pub(crate) fn tell(untold: Option<Self>) {
        if let Some(untold) = untold {
            untold.options.metrics.tell(&untold.counts, untold.change);
        }
    }
}
