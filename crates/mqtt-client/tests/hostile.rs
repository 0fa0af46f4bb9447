//! Servers that misbehave on an open session: the caller gets a clear error that names the endpoint,
//! the server gets the right DISCONNECT, and nothing grows without bound.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{num::NonZeroU32, pin::pin, time::Duration};

use common::{config, endpoint, now, open, open_with, publish, report, settle};
use mqtt_client::proto::{
    PacketId,
    packet::{Ack, ConnAck, Packet},
};
use mqtt_client::{
    Delivery, LostCause, Publish, QoS, ReasonCode, SessionConnector, Subscribe, SubscribeError,
    Version,
};
use tokio::{io::AsyncWriteExt, time::timeout};

/// What the server sends, what it is told in 5.0, and words of the error.
const BAD: &[(&[u8], ReasonCode, &str)] = &[
    // Not packets.
    (
        &[0x00, 0x00],
        ReasonCode::MALFORMED_PACKET,
        "packet type 0 does not exist",
    ),
    (
        &[0xD1, 0x00],
        ReasonCode::MALFORMED_PACKET,
        "malformed PINGRESP: fixed header flags",
    ),
    (
        &[0x30, 0xFF, 0xFF, 0xFF, 0xFF],
        ReasonCode::MALFORMED_PACKET,
        "variable byte integer",
    ),
    (
        &[0x36, 0x06, 0x00, 0x01, 0x61, 0x00, 0x01, 0x00],
        ReasonCode::MALFORMED_PACKET,
        "the QoS is 3",
    ),
    (
        &[0x30, 0x04, 0x00, 0x09, 0x61, 0x00],
        ReasonCode::MALFORMED_PACKET,
        "past the end",
    ),
    (
        &[0x30, 0x05, 0x00, 0x02, 0xC0, 0xAF, 0x00],
        ReasonCode::MALFORMED_PACKET,
        "not UTF-8",
    ),
    (
        &[0x30, 0x04, 0x00, 0x01, 0x23, 0x00],
        ReasonCode::TOPIC_NAME_INVALID,
        "no wildcard",
    ),
    (
        &[0x30, 0x03, 0x00, 0x00, 0x00],
        ReasonCode::PROTOCOL_ERROR,
        "the topic name is empty",
    ),
    (
        &[0x32, 0x06, 0x00, 0x01, 0x61, 0x00, 0x00, 0x00],
        ReasonCode::MALFORMED_PACKET,
        "packet identifier is zero",
    ),
    (
        &[0x40, 0x03, 0x00, 0x01, 0x01],
        ReasonCode::MALFORMED_PACKET,
        "reason code 0x01",
    ),
    (
        &[0x90, 0x03, 0x00, 0x01, 0x00],
        ReasonCode::PROTOCOL_ERROR,
        "the list is empty",
    ),
    (
        &[0x30, 0x07, 0x00, 0x01, 0x61, 0x03, 0x23, 0x00, 0x00],
        ReasonCode::TOPIC_ALIAS_INVALID,
        "alias is zero",
    ),
    // Larger than we take: refused from the header.
    (
        &[0x30, 0xFF, 0xFF, 0xFF, 0x7F],
        ReasonCode::PACKET_TOO_LARGE,
        "maximum packet size",
    ),
    // Out of order.
    (
        &[0x20, 0x03, 0x00, 0x00, 0x00],
        ReasonCode::PROTOCOL_ERROR,
        "CONNACK is not allowed while connected",
    ),
    (
        &[
            0x10, 0x0D, 0, 4, 0x4D, 0x51, 0x54, 0x54, 5, 2, 0, 0, 0, 0, 0,
        ],
        ReasonCode::PROTOCOL_ERROR,
        "CONNECT is not",
    ),
    (
        &[0xC0, 0x00],
        ReasonCode::PROTOCOL_ERROR,
        "PINGREQ is not allowed",
    ),
    (
        &[0x82, 0x07, 0, 1, 0, 0, 1, 0x61, 0],
        ReasonCode::PROTOCOL_ERROR,
        "SUBSCRIBE is not allowed",
    ),
    (
        &[0xF0, 0x00],
        ReasonCode::PROTOCOL_ERROR,
        "AUTH is not allowed",
    ),
    (
        &[0x30, 0x07, 0x00, 0x01, 0x61, 0x03, 0x23, 0x00, 0x01],
        ReasonCode::TOPIC_ALIAS_INVALID,
        "alias 1",
    ),
];

#[tokio::test(start_paused = true)]
async fn bad_packets_end_the_session_with_the_right_words_both_ways() {
    for (bytes, told, words) in BAD {
        let (session, mut server) = open(config(Version::V5)).await;
        server.send_bytes(bytes).await;
        assert_eq!(
            server.expect_disconnect().await.reason_code,
            *told,
            "{bytes:02X?}"
        );
        server.expect_closed().await;
        let lost = session.closed().await;
        let report = report(&*lost);
        assert!(
            report.starts_with("the connection to mqtt://server.test:1883 has ended"),
            "{report}"
        );
        assert!(report.contains(words), "{report}");
        assert!(lost.is_transient(), "{report}");
    }
}

/// 3.1.1 has no words for it: the connection closes, and nothing more is sent.
#[tokio::test(start_paused = true)]
async fn bad_packets_close_a_3_1_1_connection_without_a_word() {
    // A PUBCOMP of 5.0's shape is one of them.
    for bytes in [
        &[0x70, 0x04, 0x00, 0x02, 0x92, 0x00][..],
        &[0xF0, 0x00],
        &[0xE0, 0x00],
        &[0x30, 0x02, 0x00, 0x00],
    ] {
        let (session, mut server) = open(config(Version::V3)).await;
        server.send_bytes(bytes).await;
        server.expect_closed().await;
        assert!(
            report(&*session.closed().await).contains("MQTT3"),
            "{bytes:02X?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_the_wrong_kind_is_named() {
    let (session, mut server) = open(config(Version::V5)).await;
    let (outcome, ()) = tokio::join!(session.publish(publish(QoS::ExactlyOnce)), async {
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
        assert_eq!(
            server.expect_disconnect().await.reason_code,
            ReasonCode::PROTOCOL_ERROR
        );
    });
    let report = report(&outcome.unwrap_err());
    assert!(
        report.contains("PUBACK came for packet identifier 1, which awaits PUBREC"),
        "{report}"
    );
}

#[tokio::test(start_paused = true)]
async fn more_messages_than_receive_maximum_end_the_session() {
    let (session, mut server) = open(config(Version::V5).with_receive_maximum(5_u16)).await;
    let (messages, _) = tokio::join!(
        session.subscribe(Subscribe::new("a").unwrap()),
        server.grant()
    );
    let _unread = messages.unwrap();
    for id in 1..=6 {
        server.publish("a", "", QoS::AtLeastOnce, id).await;
    }
    assert_eq!(
        server.expect_disconnect().await.reason_code,
        ReasonCode::RECEIVE_MAXIMUM_EXCEEDED
    );
    assert!(matches!(
        session.closed().await.cause,
        LostCause::Protocol(_)
    ));
}

/// A packet that never ends: it may be slow, but not for ever.
#[tokio::test(start_paused = true)]
async fn a_packet_that_trickles_in_is_given_up_by_keep_alive() {
    let (session, mut server) =
        open(config(Version::V5).with_keep_alive(Duration::from_secs(10))).await;
    // A PUBLISH of half a megabyte, a byte a second.
    server
        .send_bytes(&[0x30, 0x80, 0x80, 0x20, 0x00, 0x01, 0x61, 0x00])
        .await;
    let start = tokio::time::Instant::now();
    let lost = tokio::select! {
        lost = session.closed() => lost,
        () = async {
            loop {
                server.send_bytes(&[0]).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        } => unreachable!("the server goes on for ever"),
    };
    assert!(
        start.elapsed() <= Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    assert!(lost.is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_large_packet_on_a_slow_line_is_not_given_up() {
    let (session, mut server) =
        open(config(Version::V5).with_keep_alive(Duration::from_secs(10))).await;
    let (messages, _) = tokio::join!(
        session.subscribe(Subscribe::new("a").unwrap()),
        server.grant()
    );
    let mut messages = messages.unwrap();
    server
        .send_bytes(&[0x30, 0x84, 0x80, 0x08, 0x00, 0x01, 0x61, 0x00])
        .await;
    for _ in 0..64 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.send_bytes(&[7; 2048]).await;
    }
    assert_eq!(messages.recv().await.unwrap().payload, vec![7; 64 * 2048]);
    assert!(!session.is_closed());
}

/// Each PUBREC for an unknown identifier asks for an answer; the server never reads one.
#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_answers_and_reads_none_does_not_make_us_grow() {
    let (connector, mut listener) = mqtt_testkit::memory_with_capacity(4096);
    let connector = SessionConnector::with_connector(connector, config(Version::V5)).unwrap();
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let mut stream = server.into_stream();
    let pubrecs = [0x50, 0x02, 0x00, 0x09].repeat(1024);
    let mut taken = 0;
    while taken < 64 * 1024 * 1024 {
        match timeout(Duration::from_secs(60), stream.write(&pubrecs)).await {
            Ok(Ok(n)) => taken += n,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    assert!(taken < 3 * 1024 * 1024, "{taken} bytes were taken in");
    let lost = timeout(Duration::from_secs(60), session.closed())
        .await
        .expect("the session is given up");
    assert!(matches!(lost.cause, LostCause::Io { .. }), "{lost:?}");
}

/// Acknowledgements nobody waits for change nothing.
#[tokio::test(start_paused = true)]
async fn acknowledgements_out_of_the_blue_are_ignored() {
    let (session, mut server) = open(config(Version::V5)).await;
    for bytes in [
        &[0x40, 0x02, 0x00, 0x07][..],
        &[0x70, 0x02, 0x00, 0x07],
        &[0x90, 0x04, 0x00, 0x07, 0x00, 0x00],
    ] {
        server.send_bytes(bytes).await;
    }
    settle().await;
    assert!(!session.is_closed());
    // A PUBREC is answered, as the specification has it.
    server.send_bytes(&[0x50, 0x02, 0x00, 0x07]).await;
    let mut release = Ack::new(PacketId::new(7).unwrap());
    release.reason_code = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
    assert_eq!(server.recv().await, Packet::PubRel(release));
}

/// A DISCONNECT of two bytes is more than it takes.
#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_packet_is_left_without_a_word() {
    let mut connack = ConnAck::accepted();
    connack.properties.maximum_packet_size = NonZeroU32::new(1);
    let (session, mut server) = open_with(config(Version::V5), connack.clone()).await;
    timeout(Duration::from_secs(1), session.disconnect())
        .await
        .expect("it does not leave")
        .unwrap();
    server.expect_closed().await;

    let (session, mut server) = open_with(config(Version::V5), connack).await;
    drop(session);
    server.expect_closed().await;
}

/// The DISCONNECT that says so cannot be written yet: the session is neither open nor at its end.
#[tokio::test(start_paused = true)]
async fn requests_while_a_broken_session_ends_are_told_of_its_end() {
    let (connector, mut listener) = mqtt_testkit::memory_with_capacity(64);
    let connector = SessionConnector::with_connector(connector, config(Version::V5)).unwrap();
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let large = Publish::new("t", vec![0; 1000]).unwrap();
    session.publish(large).await.unwrap();
    server.send_bytes(&[0x00, 0x00]).await;
    settle().await;
    let mut subscribed = pin!(session.subscribe(Subscribe::new("a").unwrap()));
    let mut published = pin!(session.publish(publish(QoS::AtMostOnce)));
    assert!(now(&mut subscribed).await.is_none());
    assert!(now(&mut published).await.is_none());
    drop(server);
    let error = subscribed.await.unwrap_err();
    assert!(
        matches!(&error, SubscribeError::NotSent(lost) if matches!(lost.cause, LostCause::Malformed(_))),
        "{error:?}"
    );
    assert_eq!(published.await.unwrap_err().delivery(), Delivery::NotSent);
}
