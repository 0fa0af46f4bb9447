//! What the sessions of a connector tell a recorder, together.
//!
//! Its one rule: the recorder runs code of others and is never told under a session's lock. Messages come
//! here as sums, see `tally.rs`; what is rare, connections, comes at once.

use std::{
    fmt,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, Unit};
use mqtt_proto::ProtocolError;
use mqtt_transport::ConnectPhase;

use crate::{
    connector::SessionConnector,
    error::{ConnectCause, LostCause},
    tally::{ByQoS, Counts, Levels},
};

const PUBLISHED: &str = "mqtt_client_published_total";
const PUBLISHED_BYTES: &str = "mqtt_client_published_bytes_total";
const RECEIVED: &str = "mqtt_client_received_total";
const RECEIVED_BYTES: &str = "mqtt_client_received_bytes_total";
const OUTCOMES: &str = "mqtt_client_publish_outcomes_total";
const DROPPED: &str = "mqtt_client_dropped_total";
const UNWANTED: &str = "mqtt_client_unwanted_total";
const REFUSED: &str = "mqtt_client_subscriptions_refused_total";
const ATTEMPTS: &str = "mqtt_client_connect_total";
const ENDED: &str = "mqtt_client_connections_ended_total";
const CONNECTED: &str = "mqtt_client_sessions_connected";
const IN_FLIGHT: &str = "mqtt_client_in_flight";
const OUTBOX_MESSAGES: &str = "mqtt_client_outbox_messages";
const OUTBOX_BYTES: &str = "mqtt_client_outbox_bytes";
const CONNECT_TIME: &str = "mqtt_client_connect_seconds";
const ACKNOWLEDGE_TIME: &str = "mqtt_client_acknowledge_seconds";

/// Tells the recorder what the metrics of sessions are. Once, after it was installed.
///
/// All have the label `session`, the [`metrics_name`](crate::SessionConfig::metrics_name) of the
/// configuration, and are sums over the sessions of it.
///
/// | metric | type | unit | labels beside `session` |
/// | --- | --- | --- | --- |
/// | `mqtt_client_published_total` | counter | | `qos` |
/// | `mqtt_client_published_bytes_total` | counter | bytes | `qos` |
/// | `mqtt_client_received_total` | counter | | `qos` |
/// | `mqtt_client_received_bytes_total` | counter | bytes | `qos` |
/// | `mqtt_client_publish_outcomes_total` | counter | | `outcome` |
/// | `mqtt_client_dropped_total` | counter | | |
/// | `mqtt_client_unwanted_total` | counter | | |
/// | `mqtt_client_subscriptions_refused_total` | counter | | |
/// | `mqtt_client_connect_total` | counter | | `outcome` |
/// | `mqtt_client_connections_ended_total` | counter | | `cause` |
/// | `mqtt_client_sessions_connected` | gauge | | |
/// | `mqtt_client_in_flight` | gauge | | |
/// | `mqtt_client_outbox_messages` | gauge | | |
/// | `mqtt_client_outbox_bytes` | gauge | bytes | |
/// | `mqtt_client_connect_seconds` | histogram | seconds | |
/// | `mqtt_client_acknowledge_seconds` | histogram | seconds | |
///
/// `docs/observability.md` in the repository says what each means and when it changes, and what to be
/// alerted by. All labels are from short lists: no topic, client identifier or address is among them.
///
/// The recorder must be installed before the connector is made; see
/// [`SessionConnector::rebind_metrics`] if it cannot be. For the histograms
/// [`SECONDS_BUCKETS`](mqtt_pool::SECONDS_BUCKETS) will do.
pub fn describe_metrics() {
    for (name, unit, text) in [
        (PUBLISHED, Unit::Count, "Messages sent, by QoS"),
        (PUBLISHED_BYTES, Unit::Bytes, "Payload sent, by QoS"),
        (RECEIVED, Unit::Count, "Messages received, by QoS"),
        (RECEIVED_BYTES, Unit::Bytes, "Payload received, by QoS"),
        (
            OUTCOMES,
            Unit::Count,
            "Publishes that have ended, by outcome",
        ),
        (
            DROPPED,
            Unit::Count,
            "QoS 0 messages that subscriptions dropped",
        ),
        (UNWANTED, Unit::Count, "Messages that no subscription wants"),
        (
            REFUSED,
            Unit::Count,
            "Subscriptions that a later connection did not get",
        ),
        (ATTEMPTS, Unit::Count, "Attempts to connect, by outcome"),
        (ENDED, Unit::Count, "Connections that have ended, by cause"),
    ] {
        metrics::describe_counter!(name, unit, text);
    }
    for (name, unit, text) in [
        (CONNECTED, Unit::Count, "Sessions with a connection"),
        (
            IN_FLIGHT,
            Unit::Count,
            "Publishes sent and not acknowledged",
        ),
        (
            OUTBOX_MESSAGES,
            Unit::Count,
            "Messages that wait to be sent",
        ),
        (
            OUTBOX_BYTES,
            Unit::Bytes,
            "Topics and payload that wait to be sent",
        ),
    ] {
        metrics::describe_gauge!(name, unit, text);
    }
    metrics::describe_histogram!(
        CONNECT_TIME,
        Unit::Seconds,
        "From the dial to CONNACK, where the server accepted"
    );
    metrics::describe_histogram!(
        ACKNOWLEDGE_TIME,
        Unit::Seconds,
        "From sending a publish to its last acknowledgement, of a sample"
    );
}

/// The metrics of one connector.
pub(crate) struct Metrics {
    name: String,
    levels: [AtomicI64; 4],
    /// Held to read while the recorder is told, so that a new one begins with what is told then.
    handles: RwLock<Handles>,
}

/// What was looked up in the recorder, which costs much more than using it.
struct Handles {
    /// In the order of the QoS.
    published: [FlowCounters; 3],
    received: [FlowCounters; 3],
    /// In the order of [`OTHERS`].
    others: [Counter; 10],
    /// By their labels.
    attempts: Vec<(&'static str, Counter)>,
    ended: Vec<(&'static str, Counter)>,
    /// In the order of [`GAUGES`].
    gauges: [Gauge; 4],
    connect_time: Histogram,
    acknowledge_time: Histogram,
}

const GAUGES: [&str; 4] = [CONNECTED, IN_FLIGHT, OUTBOX_MESSAGES, OUTBOX_BYTES];

/// Of attempts to connect.
const OUTCOMES_OF_ATTEMPTS: [&str; 11] = [
    "connected",
    "dial",
    "tls",
    "timeout",
    "network",
    "closed",
    "refused",
    "authentication",
    "credentials",
    "protocol",
    "configuration",
];

/// Why connections end.
const CAUSES: [&str; 10] = [
    "closed",
    "cut",
    "renewed",
    "server",
    "network",
    "keep_alive",
    "protocol",
    "authentication",
    "session_lost",
    "task_dropped",
];

/// The label beside the session's, and its value.
type Label = Option<(&'static str, &'static str)>;

/// What is counted beside messages by QoS: the metric and its label, in the order of [`others`].
const OTHERS: [(&str, Label); 10] = [
    (OUTCOMES, Some(("outcome", "acknowledged"))),
    (OUTCOMES, Some(("outcome", "rejected"))),
    (OUTCOMES, Some(("outcome", "lost"))),
    (OUTCOMES, Some(("outcome", "set_aside"))),
    (OUTCOMES, Some(("outcome", "expired"))),
    (OUTCOMES, Some(("outcome", "displaced"))),
    (OUTCOMES, Some(("outcome", "full"))),
    (DROPPED, None),
    (UNWANTED, None),
    (REFUSED, None),
];

fn others(counts: &Counts) -> [u64; 10] {
    [
        counts.acknowledged,
        counts.rejected,
        counts.lost,
        counts.set_aside,
        counts.expired,
        counts.displaced,
        counts.full,
        counts.dropped,
        counts.unwanted,
        counts.refused,
    ]
}

/// Of messages one way, at one QoS.
struct FlowCounters {
    messages: Counter,
    bytes: Counter,
}

impl FlowCounters {
    fn tell(counters: &[Self; 3], flows: &ByQoS) {
        let flows = [
            &flows.at_most_once,
            &flows.at_least_once,
            &flows.exactly_once,
        ];
        for (counters, flow) in counters.iter().zip(flows) {
            if flow.messages > 0 {
                counters.messages.increment(flow.messages);
                counters.bytes.increment(flow.bytes);
            }
        }
    }
}

impl Metrics {
    pub(crate) fn new(name: String) -> Self {
        Self {
            levels: Default::default(),
            handles: RwLock::new(Handles::new(&name)),
            name,
        }
    }

    fn rebind(&self) {
        let new = Handles::new(&self.name);
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        for (gauge, level) in new.gauges.iter().zip(&self.levels) {
            gauge.set(number(level.load(Ordering::Relaxed)));
        }
        *handles = new;
    }

    /// What a session has counted, and how what it has is changed.
    pub(crate) fn tell(&self, counts: &Counts, change: Levels) {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        FlowCounters::tell(&handles.published, &counts.published);
        FlowCounters::tell(&handles.received, &counts.received);
        for (counter, count) in handles.others.iter().zip(others(counts)) {
            if count > 0 {
                counter.increment(count);
            }
        }
        if let Some(took) = counts.acknowledged_after {
            handles.acknowledge_time.record(took);
        }
        let Levels {
            in_flight,
            outbox_messages,
            outbox_bytes,
        } = change;
        self.change(&handles, [0, in_flight, outbox_messages, outbox_bytes]);
    }

    fn change(&self, handles: &Handles, changes: [i64; 4]) {
        let gauges = handles.gauges.iter().zip(&self.levels);
        for ((gauge, level), change) in gauges.zip(changes) {
            if change != 0 {
                level.fetch_add(change, Ordering::Relaxed);
                gauge.increment(number(change));
            }
        }
    }

    /// A publish found no room, and its caller did not wait.
    pub(crate) fn was_full(&self) {
        let counts = Counts {
            full: 1,
            ..Counts::default()
        };
        self.tell(&counts, Levels::default());
    }

    /// An attempt to connect has succeeded after so long, and there is a connection more.
    pub(crate) fn connected(&self, took: Duration) {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.connect_time.record(took);
        increment(&handles.attempts, "connected");
        self.change(&handles, [1, 0, 0, 0]);
    }

    pub(crate) fn not_connected(&self, cause: &ConnectCause) {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        increment(&handles.attempts, outcome(cause));
    }

    /// There is a connection less.
    pub(crate) fn ended(&self, why: &LostCause) {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        increment(&handles.ended, cause(why));
        self.change(&handles, [-1, 0, 0, 0]);
    }
}

fn increment(counters: &[(&'static str, Counter)], label: &str) {
    if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == label) {
        counter.increment(1);
    }
}

/// What a gauge takes: exact, as there are no more than 2^32 of anything but bytes.
fn number(level: i64) -> f64 {
    i32::try_from(level).map_or_else(|_| large(level), f64::from)
}

#[expect(
    clippy::as_conversions,
    reason = "the nearest number will do where there is no exact one"
)]
fn large(level: i64) -> f64 {
    level as f64
}

impl Handles {
    fn new(session: &str) -> Self {
        let name = || session.to_owned();
        let counter = |metric: &'static str, label: Label| match label {
            Some((key, value)) => {
                metrics::counter!(metric, "session" => name(), key => value)
            }
            None => metrics::counter!(metric, "session" => name()),
        };
        let flows = |messages: &'static str, bytes: &'static str| {
            ["0", "1", "2"].map(|qos| FlowCounters {
                messages: counter(messages, Some(("qos", qos))),
                bytes: counter(bytes, Some(("qos", qos))),
            })
        };
        let attempts = OUTCOMES_OF_ATTEMPTS.into_iter();
        let ended = CAUSES.into_iter();
        Self {
            published: flows(PUBLISHED, PUBLISHED_BYTES),
            received: flows(RECEIVED, RECEIVED_BYTES),
            others: OTHERS.map(|(metric, label)| counter(metric, label)),
            attempts: attempts
                .map(|outcome| (outcome, counter(ATTEMPTS, Some(("outcome", outcome)))))
                .collect(),
            ended: ended
                .map(|cause| (cause, counter(ENDED, Some(("cause", cause)))))
                .collect(),
            gauges: GAUGES.map(|gauge| metrics::gauge!(gauge, "session" => name())),
            connect_time: metrics::histogram!(CONNECT_TIME, "session" => name()),
            acknowledge_time: metrics::histogram!(ACKNOWLEDGE_TIME, "session" => name()),
        }
    }
}

fn outcome(cause: &ConnectCause) -> &'static str {
    match cause {
        ConnectCause::Dial(error) if error.io_error().kind() == std::io::ErrorKind::TimedOut => {
            "timeout"
        }
        ConnectCause::Dial(error) if error.phase() == ConnectPhase::Tls => "tls",
        ConnectCause::Dial(_) => "dial",
        ConnectCause::Credentials(_) => "credentials",
        ConnectCause::Config(_) | ConnectCause::Options(_) => "configuration",
        ConnectCause::Io(_) => "network",
        ConnectCause::Closed => "closed",
        ConnectCause::Protocol(ProtocolError::ConnAckTimeout { .. }) => "timeout",
        ConnectCause::Malformed(_) | ConnectCause::Protocol(_) => "protocol",
        ConnectCause::Authentication(_) => "authentication",
        ConnectCause::Refused(_) | ConnectCause::NotFollowed { .. } => "refused",
    }
}

fn cause(lost: &LostCause) -> &'static str {
    match lost {
        LostCause::Closed => "closed",
        LostCause::Cut => "cut",
        LostCause::Renewed => "renewed",
        LostCause::ClosedByServer | LostCause::Disconnected(_) => "server",
        LostCause::Io { .. } | LostCause::NotReopened(_) => "network",
        LostCause::Protocol(ProtocolError::KeepAliveTimeout { .. }) => "keep_alive",
        LostCause::Malformed(_) | LostCause::Protocol(_) => "protocol",
        LostCause::Authentication(_) => "authentication",
        LostCause::SessionLost => "session_lost",
        LostCause::Stalled { .. } => "stalled",
        LostCause::TaskDropped => "task_dropped",
    }
}

impl<C> SessionConnector<C> {
    /// Tells the metrics of all its sessions to the recorder that is installed now, from now on: for
    /// one that was installed after the connector was made. What was counted before, it is not told.
    pub fn rebind_metrics(&self) {
        self.metrics().rebind();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
