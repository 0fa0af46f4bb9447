//! Messages are counted once, by what became of them, and what is open is known.

use std::time::Duration;

use metrics_util::debugging::DebuggingRecorder;
use mqtt_client::{
    OutboxConfig, Overflow, Publish, QoS, ReconnectConfig, SessionConfig, Subscribe, Version,
    proto::{
        ReasonCode,
        packet::{Ack, Packet},
    },
};

use crate::{
    Recorded, accept,
    common::{BOTH, config, connector, endpoint, now, open, settle, subscribed},
    recorded, run,
};

const OPEN: [(&str, f64); 2] = [
    ("connect_total{outcome=connected}", 1.0),
    ("sessions_connected", 1.0),
];

fn publish(qos: QoS) -> Publish {
    Publish::new("a/b", "payload").unwrap().with_qos(qos)
}

fn with(more: &[(&'static str, f64)]) -> Vec<(&'static str, f64)> {
    OPEN.into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn what_is_published_is_counted_by_qos_and_outcome() {
    recorded(async |recorded| {
        let (session, mut server) = open(config(Version::V5)).await;
        recorded.check(&OPEN);
        session.publish(publish(QoS::AtMostOnce)).await.unwrap();
        let accepted = session.admit(publish(QoS::AtLeastOnce)).await.unwrap();
        let abandoned = session.admit(publish(QoS::AtLeastOnce)).await.unwrap();
        let rejected = session.admit(publish(QoS::ExactlyOnce)).await.unwrap();
        drop(abandoned);
        settle().await;
        let published = [
            ("published_total{qos=0}", 1.0),
            ("published_total{qos=1}", 2.0),
            ("published_total{qos=2}", 1.0),
            ("published_bytes_total{qos=0}", 7.0),
            ("published_bytes_total{qos=1}", 14.0),
            ("published_bytes_total{qos=2}", 7.0),
        ];
        let mut expected = with(&published);
        expected.push(("in_flight", 3.0));
        recorded.check(&expected);

        server.expect_publish().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..2 {
            let id = server.expect_publish().await.packet_id.unwrap();
            server.puback(id).await;
        }
        let id = server.expect_publish().await.packet_id.unwrap();
        let mut ack = Ack::new(id);
        ack.reason_code = ReasonCode::QUOTA_EXCEEDED;
        server.send(Packet::PubRec(ack)).await;
        accepted.await.unwrap();
        rejected.await.unwrap_err();
        let mut expected = with(&published);
        expected.push(("publish_outcomes_total{outcome=acknowledged}", 2.0));
        expected.push(("publish_outcomes_total{outcome=rejected}", 1.0));
        recorded.check(&expected);
        // One at a time is timed.
        let times = recorded.histogram("acknowledge_seconds");
        assert_eq!(times.len(), 1);
        assert!((2.0..2.1).contains(&times[0]), "{times:?}");
    });
}

#[test]
fn what_is_received_is_counted_by_qos_and_what_is_dropped() {
    for version in BOTH {
        recorded(async |recorded| {
            let (session, mut server) = open(config(version)).await;
            let subscribe = Subscribe::new("a/#").unwrap().with_max_messages(2);
            let stream = subscribed(&session, &mut server, subscribe).await;
            for topic in ["a/1", "a/2", "a/3", "b"] {
                server.publish(topic, "12345", QoS::AtMostOnce, 0).await;
            }
            settle().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            recorded.check(&with(&[
                ("received_total{qos=0}", 4.0),
                ("received_bytes_total{qos=0}", 20.0),
                ("dropped_total", 1.0),
                ("unwanted_total", 1.0),
            ]));
            drop(stream);
        });
    }
}

#[test]
fn what_waits_is_known_also_without_a_connection_and_what_gives_way_is_counted() {
    recorded(async |recorded| {
        let outbox = OutboxConfig::default()
            .with_max_messages(2_usize)
            .with_overflow(Overflow::DropOldest);
        let config = SessionConfig::new("gateway")
            .with_outbox(outbox)
            .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)));
        let (connector, mut listener) = connector(config);
        let (session, server) = tokio::join!(connector.connect(endpoint()), accept(&mut listener));
        let session = session.unwrap();
        let lost = session.admit(publish(QoS::AtLeastOnce)).await.unwrap();
        settle().await;
        drop(server);
        lost.await.unwrap_err();
        let mut outcomes = Vec::new();
        for _ in 0..3 {
            outcomes.push(session.admit(publish(QoS::AtLeastOnce)).await.unwrap());
        }
        let short = publish(QoS::AtLeastOnce).with_max_age(Duration::from_millis(1));
        let mut short = Box::pin(session.publish(short));
        assert!(now(&mut short).await.is_none());
        let before = [
            ("connect_total{outcome=connected}", 1.0),
            ("connections_ended_total{cause=server}", 1.0),
            ("published_total{qos=1}", 1.0),
            ("published_bytes_total{qos=1}", 7.0),
            ("publish_outcomes_total{outcome=lost}", 1.0),
            ("publish_outcomes_total{outcome=displaced}", 2.0),
            ("outbox_messages", 2.0),
            ("outbox_bytes", 20.0),
        ];
        recorded.check(&before);
        settle().await;
        short.await.unwrap_err();
        let mut after = before.to_vec();
        after[6] = ("outbox_messages", 1.0);
        after[7] = ("outbox_bytes", 10.0);
        after.push(("publish_outcomes_total{outcome=expired}", 1.0));
        recorded.check(&after);

        let mut server = accept(&mut listener).await;
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
        settle().await;
        let look = recorded.look();
        assert_eq!(look.get("outbox_messages"), None);
        assert_eq!(look.get("in_flight"), None);
        assert_eq!(look["published_total{qos=1}"], 2.0);

        // What was open when the session ends is lost, and no gauge keeps it.
        let open = session.admit(publish(QoS::AtLeastOnce)).await.unwrap();
        settle().await;
        assert_eq!(recorded.look()["in_flight"], 1.0);
        session.disconnect().await.unwrap_err();
        open.await.unwrap_err();
        let look = recorded.look();
        assert_eq!(look["publish_outcomes_total{outcome=lost}"], 2.0);
        for gauge in ["sessions_connected", "in_flight", "outbox_bytes"] {
            assert_eq!(look.get(gauge), None, "{gauge}");
        }
    });
}

#[test]
fn a_publish_that_is_refused_for_want_of_room_is_counted() {
    recorded(async |recorded| {
        let rejects = OutboxConfig::default()
            .with_max_messages(1_usize)
            .with_overflow(Overflow::Reject);
        for (outbox, expected) in [
            (rejects, 1.0),
            (OutboxConfig::default().with_max_messages(0_usize), 2.0),
        ] {
            let config = config(Version::V5)
                .with_max_in_flight(1_u16)
                .with_outbox(outbox);
            let (session, mut server) = open(config).await;
            let publisher = session.publisher();
            let first = publisher.try_admit(publish(QoS::AtLeastOnce)).unwrap();
            let second = publisher.try_admit(publish(QoS::AtLeastOnce));
            let third = publisher.try_admit(publish(QoS::AtLeastOnce));
            assert!(third.is_err());
            let id = server.expect_publish().await.packet_id.unwrap();
            server.puback(id).await;
            first.await.unwrap();
            settle().await;
            drop(second);
            let full = recorded.look()["publish_outcomes_total{outcome=full}"];
            assert!(full >= expected, "{full}");
        }
    });
}

#[test]
fn a_recorder_that_comes_later_is_told_from_then_on() {
    run(async {
        let (connector, mut listener) = connector(config(Version::V5));
        let (session, server) = tokio::join!(connector.connect(endpoint()), accept(&mut listener));
        let (session, mut server) = (session.unwrap(), server);
        let open = session.admit(publish(QoS::AtLeastOnce)).await.unwrap();
        settle().await;

        let recorder = DebuggingRecorder::new();
        let recorded = Recorded::new(&recorder);
        metrics::with_local_recorder(&recorder, || {
            connector.rebind_metrics();
            // Once more makes no difference.
            connector.rebind_metrics();
        });
        recorded.check(&[("sessions_connected", 1.0), ("in_flight", 1.0)]);
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
        open.await.unwrap();
        recorded.check(&[
            ("sessions_connected", 1.0),
            ("publish_outcomes_total{outcome=acknowledged}", 1.0),
        ]);
    });
}

/// Nothing comes from it, so nothing drives the connection.
#[test]
fn a_backlog_at_a_silent_server_shows() {
    recorded(async |recorded| {
        let config = config(Version::V5)
            .with_max_in_flight(1_u16)
            .with_keep_alive(Duration::ZERO);
        let (session, _server) = open(config).await;
        for _ in 0..21 {
            drop(session.admit(publish(QoS::AtLeastOnce)).await.unwrap());
        }
        settle().await;
        let look = recorded.look();
        let (in_flight, waiting) = (look["in_flight"], look["outbox_messages"]);
        assert_eq!(in_flight, 1.0);
        assert!((16.0..=20.0).contains(&waiting), "{waiting}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        for _ in 0..16 {
            drop(session.admit(publish(QoS::AtLeastOnce)).await.unwrap());
        }
        let waiting = recorded.look()["outbox_messages"];
        assert!((32.0..=36.0).contains(&waiting), "{waiting}");
    });
}
