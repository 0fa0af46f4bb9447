//! What metered connections tell a recorder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use mqtt_transport::{
    Address, ConnInfo, ConnKind, Metered, ReadDeadline, StreamConn, describe_metrics,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn pipe(kind: ConnKind) -> (StreamConn<DuplexStream>, DuplexStream) {
    let (near, far) = tokio::io::duplex(64);
    let info = ConnInfo::new(kind, Address::Unnamed, Address::Unnamed);
    (StreamConn::new(near, info), far)
}

/// Values by name and labels, as in `name{direction=read,kind=tcp}`. All begin anew with
/// each look.
fn values(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let snapshot = snapshotter.snapshot().into_vec().into_iter();
    snapshot
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key
                .key()
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            let value = match value {
                DebugValue::Counter(n) => f64::from(u32::try_from(n).unwrap()),
                DebugValue::Gauge(value) => *value,
                DebugValue::Histogram(_) => panic!("there is no histogram"),
            };
            (
                format!("{}{{{}}}", key.key().name(), labels.join(",")),
                value,
            )
        })
        .collect()
}

/// Runs `test` on this thread with a recorder of its own.
fn recorded(test: impl AsyncFnOnce(Snapshotter)) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(test(snapshotter)));
}

#[test]
fn bytes_calls_and_open_connections_are_counted() {
    recorded(async |snapshotter| {
        let (near, mut far) = pipe(ConnKind::Tcp);
        let mut conn = Metered::new(near);
        let (other, _far) = pipe(ConnKind::Tcp);
        let other = Metered::new(other);
        conn.write_all(&[0; 10]).await.unwrap();
        let bufs = [IoSlice::new(&[1; 3]), IoSlice::new(&[2; 4])];
        assert_eq!(conn.write_vectored(&bufs).await.unwrap(), 7);
        conn.flush().await.unwrap();
        far.read_exact(&mut [0; 17]).await.unwrap();
        // A read counts when it ends, however often it was polled.
        let mut buffer = [0; 8];
        let (read, ()) = tokio::join!(conn.read(&mut buffer), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            far.write_all(&[3; 20]).await.unwrap();
        });
        assert_eq!(read.unwrap(), 8);
        conn.read_exact(&mut [0; 12]).await.unwrap();
        let expected = [
            ("mqtt_transport_bytes_total{direction=read,kind=tcp}", 20.0),
            ("mqtt_transport_bytes_total{direction=write,kind=tcp}", 17.0),
            ("mqtt_transport_calls_total{direction=read,kind=tcp}", 2.0),
            ("mqtt_transport_calls_total{direction=write,kind=tcp}", 2.0),
            ("mqtt_transport_connections{kind=tcp}", 2.0),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(values(&snapshotter), BTreeMap::from(expected));

        let change = || values(&snapshotter)["mqtt_transport_connections{kind=tcp}"];
        drop(other);
        assert!((change() + 1.0).abs() < f64::EPSILON);
        drop(conn);
        assert!((change() + 1.0).abs() < f64::EPSILON);
    });
}

#[test]
fn failures_and_the_end_are_calls_without_bytes() {
    recorded(async |snapshotter| {
        let (near, far) = pipe(ConnKind::Memory);
        let mut conn = Metered::new(ReadDeadline::new(near, Duration::from_secs(1)));
        let error = conn.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(far);
        assert_eq!(conn.read(&mut [0; 8]).await.unwrap(), 0);
        conn.write_u8(0).await.unwrap_err();
        let values = values(&snapshotter);
        let value = |name: &str| values[&format!("{name},kind=memory}}")];
        for (name, expected) in [
            ("mqtt_transport_calls_total{direction=read", 2.0),
            ("mqtt_transport_calls_total{direction=write", 1.0),
            ("mqtt_transport_bytes_total{direction=read", 0.0),
            ("mqtt_transport_bytes_total{direction=write", 0.0),
        ] {
            assert!((value(name) - expected).abs() < f64::EPSILON, "{name}");
        }
    });
}

#[test]
fn the_kind_is_one_of_a_short_list() {
    recorded(async |snapshotter| {
        for (kind, label) in [
            (ConnKind::Tcp, "tcp"),
            (ConnKind::Unix, "unix"),
            (ConnKind::WebSocket, "ws"),
            (ConnKind::Quic, "quic"),
            (ConnKind::Memory, "memory"),
            (ConnKind::Other, "other"),
        ] {
            let conn = Metered::new(pipe(kind).0);
            let name = format!("mqtt_transport_connections{{kind={label}}}");
            assert!((values(&snapshotter)[&name] - 1.0).abs() < f64::EPSILON);
            drop(conn);
        }
    });
}

#[test]
fn every_metric_has_a_unit_and_a_description() {
    recorded(async |snapshotter| {
        describe_metrics();
        let _conn = Metered::new(pipe(ConnKind::Tcp).0);
        let metrics = snapshotter.snapshot().into_vec();
        assert_eq!(metrics.len(), 5);
        for (key, unit, description, _) in metrics {
            let name = key.key().name().to_owned();
            assert!(name.starts_with("mqtt_transport_"), "{name}");
            assert!(unit.is_some() && description.is_some(), "{name}");
        }
    });
}
