//! CONNECT says what was asked and nothing besides, to the byte.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{config, connector, endpoint};
use mqtt_client::{
    QoS, Secret, SessionConfig, SessionConnector, TopicName, Utf8String, Version,
    pool::Limit,
    proto::{
        BinaryData,
        codec::MAX_PACKET_SIZE,
        packet::{Will, WillProperties},
    },
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Asks for nothing that need not be asked for.
fn smallest(version: Version) -> SessionConfig {
    config(version)
        .with_client_id("")
        .with_keep_alive(Duration::ZERO)
        .with_receive_maximum(65_535)
        .with_max_packet_size(MAX_PACKET_SIZE)
}

/// The first bytes of a session, up to CONNACK.
async fn connect_of(config: SessionConfig) -> Vec<u8> {
    let connack: &[u8] = match config.version {
        Version::V3 => b"\x20\x02\x00\x00",
        Version::V5 => b"\x20\x03\x00\x00\x00",
    };
    let (connector, mut listener) = connector(config);
    let (session, bytes) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        let mut bytes = Vec::new();
        let stream = server.stream_mut();
        let read = async { while stream.read_buf(&mut bytes).await.unwrap() > 0 {} };
        // All that it sends before it is answered.
        let ended = tokio::time::timeout(Duration::from_secs(1), read).await;
        assert!(ended.is_err(), "the client has closed");
        stream.write_all(connack).await.unwrap();
        bytes
    });
    session.unwrap();
    bytes
}

fn text(text: &str) -> Utf8String {
    Utf8String::new(text).unwrap()
}

/// [MQTT5 3.1] [MQTT3 3.1]
#[tokio::test(start_paused = true)]
async fn what_is_not_asked_for_is_not_said() {
    let bytes = connect_of(smallest(Version::V5)).await;
    assert_eq!(bytes, b"\x10\x0D\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00");
    let bytes = connect_of(smallest(Version::V3)).await;
    assert_eq!(bytes, b"\x10\x0C\x00\x04MQTT\x04\x02\x00\x00\x00\x00");
}

#[tokio::test(start_paused = true)]
async fn the_defaults_bound_what_a_server_may_make_us_hold() {
    let bytes = connect_of(config(Version::V5)).await;
    let expected = [
        &b"\x10\x1C\x00\x04MQTT\x05\x02\x00\x1E\x08"[..],
        b"\x21\x04\x00",         // receive maximum 1,024
        b"\x27\x00\x10\x00\x00", // maximum packet size 1 MiB
        b"\x00\x07gateway",
    ];
    assert_eq!(bytes, expected.concat());
    let bytes = connect_of(config(Version::V3)).await;
    assert_eq!(
        bytes,
        b"\x10\x13\x00\x04MQTT\x04\x02\x00\x1E\x00\x07gateway"
    );
}

fn will() -> Will {
    let mut will = Will::new(TopicName::new("will/topic").unwrap(), "gone").unwrap();
    will.qos = QoS::AtLeastOnce;
    will.retain = true;
    will.properties = WillProperties {
        will_delay_interval: Some(5),
        payload_format_indicator: Some(true),
        message_expiry_interval: Some(60),
        content_type: Some(text("text")),
        response_topic: Some(TopicName::new("r").unwrap()),
        correlation_data: Some(BinaryData::new("c").unwrap()),
        user_properties: vec![(text("w"), text("1"))],
    }
    .into();
    will
}

fn all(version: Version) -> SessionConfig {
    config(version)
        .with_clean_start(false)
        .with_session_expiry(Limit::After(Duration::from_secs(3_600)))
        .with_keep_alive(Duration::from_secs(65_535))
        .with_receive_maximum(7)
        .with_max_packet_size(1_000_u32)
        .with_topic_alias_maximum(9_u16)
        .with_request_response_information(true)
        .with_request_problem_information(false)
        .with_user_properties(vec![
            ("k".to_owned(), "first".to_owned()),
            ("k".to_owned(), "second".to_owned()),
        ])
        .with_will(Some(will()))
        .with_user_name(Some("user".to_owned()))
        .with_password(Some(Secret::new("pass").unwrap()))
}

/// [MQTT5-3.1.3-1] [MQTT5 3.1.2.11] [MQTT5 3.1.3.2]
#[tokio::test(start_paused = true)]
async fn all_of_5_0_can_be_asked_for() {
    let expected = [
        // User name, password, retained will at QoS 1, no clean start.
        &b"\x10\x80\x01\x00\x04MQTT\x05\xEC\xFF\xFF"[..],
        b"\x2B",                 // 43 bytes of properties:
        b"\x11\x00\x00\x0E\x10", // session expiry interval
        b"\x21\x00\x07",         // receive maximum
        b"\x27\x00\x00\x03\xE8", // maximum packet size
        b"\x22\x00\x09",         // topic alias maximum
        b"\x19\x01",             // request response information
        b"\x17\x00",             // request problem information
        b"\x26\x00\x01k\x00\x05first",
        b"\x26\x00\x01k\x00\x06second",
        b"\x00\x07gateway",
        b"\x22",                 // 34 bytes of properties of the will:
        b"\x18\x00\x00\x00\x05", // will delay interval
        b"\x01\x01",             // payload format indicator
        b"\x02\x00\x00\x00\x3C", // message expiry interval
        b"\x03\x00\x04text",     // content type
        b"\x08\x00\x01r",        // response topic
        b"\x09\x00\x01c",        // correlation data
        b"\x26\x00\x01w\x00\x011",
        b"\x00\x0Awill/topic",
        b"\x00\x04gone",
        b"\x00\x04user",
        b"\x00\x04pass",
    ];
    assert_eq!(connect_of(all(Version::V5)).await, expected.concat());
}

/// [MQTT3-3.1.3-1] [MQTT3 3.1.2]
#[tokio::test(start_paused = true)]
async fn all_of_3_1_1_can_be_asked_for() {
    let expected = [
        &b"\x10\x31\x00\x04MQTT\x04\xEC\xFF\xFF"[..],
        b"\x00\x07gateway",
        b"\x00\x0Awill/topic",
        b"\x00\x04gone",
        b"\x00\x04user",
        b"\x00\x04pass",
    ];
    assert_eq!(connect_of(all(Version::V3)).await, expected.concat());
}

/// Each option alone, and what a server goes by that is told nothing is not said. [MQTT5 3.1.2.11]
#[tokio::test(start_paused = true)]
async fn each_property_comes_alone() {
    type Ask = fn(SessionConfig) -> SessionConfig;
    let cases: [(Ask, &[u8]); 14] = [
        (
            |it| it.with_session_expiry(Limit::After(Duration::ZERO)),
            b"",
        ),
        (
            |it| it.with_session_expiry(Limit::After(Duration::from_secs(1))),
            b"\x11\x00\x00\x00\x01",
        ),
        (
            |it| it.with_session_expiry(Limit::Never),
            b"\x11\xFF\xFF\xFF\xFF",
        ),
        (|it| it.with_receive_maximum(65_534), b"\x21\xFF\xFE"),
        (|it| it.with_receive_maximum(None), b"\x21\x04\x00"),
        (
            |it| it.with_max_packet_size(MAX_PACKET_SIZE - 1),
            b"\x27\x10\x00\x00\x03",
        ),
        (|it| it.with_topic_alias_maximum(0_u16), b""),
        (|it| it.with_topic_alias_maximum(u16::MAX), b"\x22\xFF\xFF"),
        (|it| it.with_request_response_information(false), b""),
        (|it| it.with_request_response_information(true), b"\x19\x01"),
        (|it| it.with_request_problem_information(true), b""),
        (|it| it.with_request_problem_information(false), b"\x17\x00"),
        (
            |it| it.with_user_properties(vec![(String::new(), "v".to_owned())]),
            b"\x26\x00\x00\x00\x01v",
        ),
        // What is ours alone.
        (
            |it| it.with_max_topic_aliases(9_u16).with_max_in_flight(9_u16),
            b"",
        ),
    ];
    for (ask, properties) in cases {
        let len = u8::try_from(properties.len()).unwrap();
        let expected = [
            &[0x10, 13 + len, 0, 4][..],
            b"MQTT\x05\x02\x00\x00",
            &[len],
            properties,
            b"\x00\x00",
        ];
        let bytes = connect_of(ask(smallest(Version::V5))).await;
        assert_eq!(bytes, expected.concat());
        let bytes = connect_of(ask(smallest(Version::V3))).await;
        assert_eq!(bytes, b"\x10\x0C\x00\x04MQTT\x04\x02\x00\x00\x00\x00");
    }
}

#[test]
fn a_user_property_that_is_no_text_is_refused_by_name() {
    for bad in [("a\0", "v"), ("n", "b\0")] {
        let property = (bad.0.to_owned(), bad.1.to_owned());
        let config = SessionConfig::new("gateway").with_user_properties(vec![property]);
        let errors = SessionConnector::new(config).unwrap_err().to_string();
        assert!(errors.contains("session.user_properties"), "{errors}");
    }
}
