//! CONNECT to CONNACK: what a connection begins with.

mod session_common;

use std::time::Duration;

use mqtt_proto::{
    BinaryData, Event, ProtocolError, ReasonCode, SessionOptions, UsageError,
    packet::{ConnAck, Connect, Packet},
};
use session_common::*;

/// [MQTT5-3.1.0-1] [MQTT3-3.1.0-1]
#[test]
fn connect_is_the_first_packet_of_every_connection() {
    both(|version| {
        let mut pair = Pair::new(version);
        assert_eq!(
            pair.try_publish(message(AtLeastOnce, "early")),
            Err(Some(UsageError::NotConnected))
        );
        assert_eq!(
            pair.try_subscribe(vec![at_qos_1("a")]),
            Err(UsageError::NotConnected)
        );
        assert_eq!(pair.sent(), []);
        pair.dial(lasting(version));
        assert_eq!(
            pair.try_publish(message(AtMostOnce, "early")),
            Err(Some(UsageError::NotConnected))
        );
        assert_eq!(pair.sent(), []);
        pair.accept(ConnAck::accepted());
        pair.publish_at(AtLeastOnce, "open");
        pair.sent();
        pair.cut();
        pair.dial(lasting(version));
        assert_eq!(pair.sent(), [], "nothing before CONNACK");
    });
}

/// [MQTT5-3.1.0-2] [MQTT3-3.1.0-2]
#[test]
fn connect_is_sent_once_a_connection() {
    both(|version| {
        let mut pair = Pair::new(version);
        pair.dial(lasting(version));
        let again = |pair: &mut Pair| pair.session.connect(lasting(version), pair.now);
        assert_eq!(again(&mut pair), Err(UsageError::AlreadyConnected));
        pair.accept(ConnAck::accepted());
        let token = pair.publish_at(AtLeastOnce, "open");
        assert_eq!(again(&mut pair), Err(UsageError::AlreadyConnected));
        assert_eq!(pair.sent(), [publish(AtLeastOnce, 1, "open")]);
        assert_eq!(published(pair.give(puback(1))), (token, OK));
        pair.session.abort(ReasonCode::UNSPECIFIED_ERROR);
        assert_eq!(again(&mut pair), Err(UsageError::AlreadyConnected));
        pair.cut();
        assert_eq!(again(&mut pair), Ok(()));
    });
}

/// [MQTT3 3.2.2.3] [MQTT5-4.13.2-1]
#[test]
fn a_refusal_ends_the_connection_and_keeps_the_session() {
    both(|version| {
        for code in [
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
            ReasonCode::SERVER_UNAVAILABLE,
            ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            ReasonCode::NOT_AUTHORIZED,
        ] {
            let mut pair = Pair::connected(version);
            let token = pair.publish_at(AtLeastOnce, "open");
            pair.sent();
            assert_eq!(pair.cut(), []);
            pair.dial(lasting(version));
            let Some(Event::Refused(connack)) = pair.give(Packet::ConnAck(ConnAck::refused(code)))
            else {
                panic!("not refused");
            };
            assert_eq!(connack.reason_code, code);
            assert!(!pair.session.is_connected());
            assert_eq!(pair.session.next_deadline(), None);
            pair.session.abort(ReasonCode::UNSPECIFIED_ERROR);
            assert_eq!(pair.sent(), [], "nothing after a refusal");
            assert_eq!(pair.cut(), []);
            pair.dial(lasting(version));
            assert_eq!(pair.accept(ConnAck::resumed()), []);
            assert_eq!(pair.sent(), [repeat(AtLeastOnce, 1, "open")]);
            assert_eq!(published(pair.give(puback(1))), (token, OK));
        }
    });
}

/// [MQTT5 3.2] [MQTT3 3.2]
#[test]
fn no_connack_in_time_ends_the_connection() {
    both(|version| {
        let timeout = Duration::from_secs(3);
        let options = SessionOptions::default().with_connack_timeout(timeout);
        let mut pair = Pair::with_options(version, options);
        pair.dial(lasting(version));
        pair.pass(Duration::from_secs(2));
        assert_eq!(pair.session.handle_timeout(pair.now), Ok(()), "early");
        let (waited, result) = pair.wait();
        assert_eq!(waited, Duration::from_secs(1));
        assert_eq!(result, Err(ProtocolError::ConnAckTimeout { timeout }));
        assert_eq!(pair.sent(), []);
        assert_eq!(pair.session.next_deadline(), None);
        assert_eq!(
            pair.give(Packet::ConnAck(ConnAck::accepted())),
            None,
            "too late"
        );
    });
}

/// [MQTT3-3.1.3-7] [MQTT3-3.1.2-22] [MQTT5 3.1.2.11.10]
#[test]
fn a_connect_that_contradicts_itself_is_refused() {
    let check = |mut connect: Connect, set: fn(&mut Connect), expected| {
        set(&mut connect);
        let mut pair = Pair::new(connect.version);
        assert_eq!(pair.session.connect(connect, pair.now).err(), expected);
        assert_eq!(pair.session.unsent() == 0, expected.is_some());
        if expected.is_none() {
            pair.sent();
        }
    };
    let empty_id: fn(&mut Connect) = |connect| connect.client_id = text("");
    check(lasting(V3), empty_id, Some(UsageError::EmptyClientId));
    check(clean_start(V3), empty_id, None);
    check(lasting(V5), empty_id, None);
    let password: fn(&mut Connect) =
        |connect| connect.password = Some(mqtt_proto::Secret::new("secret").expect("short"));
    check(
        lasting(V3),
        password,
        Some(UsageError::PasswordWithoutUserName),
    );
    check(lasting(V5), password, None);
    check(
        lasting(V5),
        |connect| {
            let data = mqtt_proto::Secret::new(BinaryData::default().into_bytes());
            connect.properties.authentication_data = data.ok();
        },
        Some(UsageError::AuthenticationDataAlone),
    );
}
