//! What is seen of sessions: their metrics and traces, and the page that lists them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod connections;
mod messages;
mod page;
mod secrets;

use std::{cell::RefCell, collections::BTreeMap};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use mqtt_client::proto::packet::ConnAck;
use mqtt_testkit::{MemoryListener, ScriptedServer};

/// What a recorder has been told, by names like `in_flight{session=east}`, the beginning of the name left
/// out: sums of counters and gauges, and all values of histograms.
type Values = BTreeMap<String, Vec<f64>>;

/// A recorder whose counters and gauges begin anew with each look.
pub(crate) struct Recorded {
    snapshotter: Snapshotter,
    sums: RefCell<Values>,
}

impl Recorded {
    fn new(recorder: &DebuggingRecorder) -> Self {
        Self {
            snapshotter: recorder.snapshotter(),
            sums: RefCell::default(),
        }
    }

    /// All there is, also what is zero.
    pub(crate) fn all(&self) -> Values {
        let mut sums = self.sums.borrow_mut();
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let key = key.key();
            let labels: Vec<_> = key
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            let name = key.name().strip_prefix("mqtt_client_").unwrap();
            let sum = sums
                .entry(format!("{name}{{{}}}", labels.join(",")))
                .or_default();
            let first = sum.first().copied().unwrap_or(0.0);
            match value {
                DebugValue::Counter(n) => {
                    *sum = vec![first + f64::from(u32::try_from(n).unwrap())];
                }
                DebugValue::Gauge(change) => *sum = vec![first + *change],
                DebugValue::Histogram(more) => sum.extend(more.iter().map(|value| **value)),
            }
        }
        sums.clone()
    }

    /// What is not zero, of the sessions called `default`, without histograms.
    pub(crate) fn look(&self) -> BTreeMap<String, f64> {
        let told = self.all().into_iter().filter_map(|(name, values)| {
            let [value] = values[..] else { return None };
            let name = name
                .replace("session=default,", "")
                .replace("{session=default}", "");
            (value != 0.0 && !name.ends_with("_seconds")).then_some((name, value))
        });
        told.collect()
    }

    pub(crate) fn histogram(&self, name: &str) -> Vec<f64> {
        let mut all = self.all();
        all.remove(&format!("{name}{{session=default}}")).unwrap()
    }

    #[track_caller]
    pub(crate) fn check(&self, expected: &[(&str, f64)]) {
        let expected = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        assert_eq!(self.look(), expected.collect());
    }
}

/// Runs `test` on this thread, in virtual time, with a recorder of its own.
pub(crate) fn recorded(test: impl AsyncFnOnce(Recorded)) {
    let recorder = DebuggingRecorder::new();
    let recorded = Recorded::new(&recorder);
    metrics::with_local_recorder(&recorder, || run(test(recorded)));
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Accepts the next connection, without a session.
pub(crate) async fn accept(listener: &mut MemoryListener) -> ScriptedServer {
    let mut server = listener.accept().await;
    server.accept_with(ConnAck::accepted()).await;
    server
}
