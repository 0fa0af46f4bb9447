//! Enhanced authentication.

mod session_common;

use mqtt_proto::{
    Event, ProtocolError, ReasonCode, UsageError,
    packet::{Auth, ConnAck, Packet, PacketType, Properties},
};
use session_common::*;

const CONTINUE: ReasonCode = ReasonCode::CONTINUE_AUTHENTICATION;
const AGAIN: ReasonCode = ReasonCode::RE_AUTHENTICATE;

fn dialled() -> Pair {
    let mut pair = Pair::new(V5);
    let mut connect = lasting(V5);
    connect.keep_alive = 1;
    connect.properties.authentication_method = Some(text("SCRAM"));
    pair.dial(connect);
    pair
}

fn accepted(method: Option<&str>) -> Packet {
    let mut connack = ConnAck::accepted();
    connack.properties.authentication_method = method.map(text);
    Packet::ConnAck(connack)
}

fn authenticated() -> Pair {
    let mut pair = dialled();
    assert!(pair.give(accepted(Some("SCRAM"))).is_some());
    pair
}

#[track_caller]
fn asked(event: Option<Event<u32>>) -> Auth {
    match event {
        Some(Event::Auth(auth)) => *auth,
        other => panic!("{other:?} is not AUTH"),
    }
}

/// [MQTT5-4.12.0-3] [MQTT5-4.12.0-5] [MQTT5-3.1.2-30] [MQTT5-3.15.2-1]
#[test]
fn only_auth_is_sent_until_connack() {
    let mut pair = dialled();
    for _ in 0..3 {
        assert_eq!(
            asked(pair.give(Packet::Auth(auth(CONTINUE)))),
            auth(CONTINUE)
        );
        pair.pass(std::time::Duration::from_secs(1));
        pair.session.handle_timeout(pair.now).unwrap();
        let early = pair.try_publish(message(AtMostOnce, "early"));
        assert_eq!(early, Err(Some(UsageError::NotConnected)));
        pair.session.authenticate(auth(CONTINUE)).unwrap();
        assert_eq!(pair.sent(), [Packet::Auth(auth(CONTINUE))]);
    }
    assert!(pair.give(accepted(Some("SCRAM"))).is_some());
    assert!(pair.session.is_connected());
}

/// [MQTT5-4.12.1-1] [MQTT5-4.12.1-2]
#[test]
fn a_client_authenticates_again() {
    let mut pair = authenticated();
    pair.session.authenticate(auth(AGAIN)).unwrap();
    assert_eq!(pair.sent(), [Packet::Auth(auth(AGAIN))]);
    asked(pair.give(Packet::Auth(auth(CONTINUE))));
    pair.session.authenticate(auth(CONTINUE)).unwrap();
    assert_eq!(pair.sent(), [Packet::Auth(auth(CONTINUE))]);
    assert_eq!(asked(pair.give(Packet::Auth(auth(OK)))).reason_code, OK);
    pair.publish_at(AtMostOnce, "all the while");
    pair.session.authenticate(auth(AGAIN)).unwrap();
    asked(pair.give(Packet::Auth(auth(CONTINUE))));
    pair.session.abort(ReasonCode::UNSPECIFIED_ERROR);
    assert_eq!(
        pair.sent()[2..],
        [disconnect(ReasonCode::UNSPECIFIED_ERROR)]
    );
}

/// [MQTT5-4.12.0-5]
#[test]
fn the_method_is_that_of_connect() {
    let mut pair = dialled();
    asked(pair.give(Packet::Auth(auth(CONTINUE))));
    let other = UsageError::OtherAuthenticationMethod;
    assert_eq!(
        pair.session.authenticate(auth_by("KERBEROS", CONTINUE)),
        Err(other)
    );
    assert_eq!(pair.sent(), []);
    let unnamed = Auth {
        reason_code: CONTINUE,
        properties: Properties::default(),
    };
    pair.session.authenticate(unnamed).unwrap();
    assert_eq!(pair.sent(), [Packet::Auth(auth(CONTINUE))]);
}

/// [MQTT5-3.15.2-1]
#[test]
fn a_client_says_continue_or_begins_again() {
    let mut pair = dialled();
    asked(pair.give(Packet::Auth(auth(CONTINUE))));
    for code in [OK, AGAIN, ReasonCode::UNSPECIFIED_ERROR] {
        let error = UsageError::AuthenticationReason(code);
        assert_eq!(pair.session.authenticate(auth(code)), Err(error));
    }
    let mut pair = authenticated();
    let error = UsageError::AuthenticationReason(OK);
    assert_eq!(pair.session.authenticate(auth(OK)), Err(error));
    assert_eq!(pair.sent(), []);
}

/// [MQTT5-4.12.0-5] [MQTT5-4.12.0-6]
#[test]
fn a_server_with_another_method_ends_the_connection() {
    let check = |mut pair: Pair, packet: Packet| {
        let packet_type = packet.packet_type();
        let error = pair.give_wrong(packet);
        assert_eq!(error, ProtocolError::AuthenticationMethod { packet_type });
        assert_eq!(pair.sent(), [disconnect(ReasonCode::PROTOCOL_ERROR)]);
        assert!(!pair.session.is_connected());
    };
    // One that goes on without a name is not even a packet.
    let unnamed = || {
        Packet::Auth(Auth {
            reason_code: ReasonCode::SUCCESS,
            properties: Properties::default(),
        })
    };
    check(dialled(), accepted(Some("KERBEROS")));
    check(dialled(), accepted(None));
    check(dialled(), Packet::Auth(auth_by("KERBEROS", CONTINUE)));
    check(dialled(), unnamed());
    check(authenticated(), Packet::Auth(auth_by("KERBEROS", CONTINUE)));
    check(authenticated(), unnamed());
    let mut plain = Pair::new(V5);
    plain.dial(lasting(V5));
    check(plain, accepted(Some("SCRAM")));
    // A refusal need not repeat it.
    let mut refused = dialled();
    let code = ReasonCode::BAD_AUTHENTICATION_METHOD;
    assert!(
        refused
            .give(Packet::ConnAck(ConnAck::refused(code)))
            .is_some()
    );
}

/// [MQTT5-4.12.0-7]
#[test]
fn without_a_method_there_is_no_auth() {
    let mut pair = Pair::connected(V5);
    let error = UsageError::NoAuthenticationMethod;
    assert_eq!(pair.session.authenticate(auth(AGAIN)), Err(error));
    assert_eq!(pair.sent(), []);
    let error = pair.give_wrong(Packet::Auth(auth(CONTINUE)));
    let (packet_type, phase) = (PacketType::Auth, "connected");
    assert_eq!(
        error,
        ProtocolError::UnexpectedPacket { packet_type, phase }
    );
    assert_eq!(pair.sent(), [disconnect(ReasonCode::PROTOCOL_ERROR)]);

    let mut dialled = Pair::new(V5);
    dialled.dial(lasting(V5));
    dialled.give_wrong(Packet::Auth(auth(CONTINUE)));
    assert_eq!(dialled.sent(), [disconnect(ReasonCode::PROTOCOL_ERROR)]);

    let mut old = Pair::connected_with(V3, |connect| {
        connect.properties.authentication_method = Some(text("SCRAM"));
    });
    let error = UsageError::NoAuthenticationMethod;
    assert_eq!(old.session.authenticate(auth(AGAIN)), Err(error));
}

/// It is the client that begins. [MQTT5-4.12.1-1]
#[test]
fn a_server_does_not_begin_a_re_authentication() {
    for mut pair in [dialled(), authenticated()] {
        pair.give_wrong(Packet::Auth(auth(AGAIN)));
        assert_eq!(pair.sent(), [disconnect(ReasonCode::PROTOCOL_ERROR)]);
    }
}

/// There must be a connection.
#[test]
fn auth_needs_a_connection() {
    let mut pair = authenticated();
    pair.session.abort(ReasonCode::UNSPECIFIED_ERROR);
    pair.sent();
    let result = pair.session.authenticate(auth(AGAIN));
    assert_eq!(result, Err(UsageError::NotConnected));
    pair.cut();
    let result = pair.session.authenticate(auth(AGAIN));
    assert_eq!(result, Err(UsageError::NotConnected));
}

/// One AUTH answers one. [MQTT5-4.12.0-3] [MQTT5 4.12.1]
#[test]
fn client_and_server_take_turns() {
    let mut pair = dialled();
    let refused = |code| Err(UsageError::AuthenticationReason(code));
    assert_eq!(
        pair.session.authenticate(auth(CONTINUE)),
        refused(CONTINUE),
        "nothing is asked"
    );
    asked(pair.give(Packet::Auth(auth(CONTINUE))));
    pair.session.authenticate(auth(CONTINUE)).unwrap();
    assert_eq!(pair.session.authenticate(auth(CONTINUE)), refused(CONTINUE));
    assert!(pair.give(accepted(Some("SCRAM"))).is_some());
    assert_eq!(pair.session.authenticate(auth(CONTINUE)), refused(CONTINUE));
    pair.session.authenticate(auth(AGAIN)).unwrap();
    assert_eq!(pair.session.authenticate(auth(AGAIN)), refused(AGAIN));
    asked(pair.give(Packet::Auth(auth(OK))));
    pair.session.authenticate(auth(AGAIN)).unwrap();
}

/// [MQTT5 4.12] [MQTT5 4.12.1]
#[test]
fn a_server_does_not_speak_out_of_turn() {
    let check = |mut pair: Pair, code: ReasonCode| {
        pair.sent();
        pair.give_wrong(Packet::Auth(auth(code)));
        assert_eq!(pair.sent(), [disconnect(ReasonCode::PROTOCOL_ERROR)]);
    };
    let asked_twice = || {
        let mut pair = dialled();
        asked(pair.give(Packet::Auth(auth(CONTINUE))));
        pair
    };
    check(asked_twice(), CONTINUE);
    check(authenticated(), CONTINUE);
    check(authenticated(), OK);
    // Before CONNACK only that says so.
    check(dialled(), OK);
    let mut over = authenticated();
    over.session.authenticate(auth(AGAIN)).unwrap();
    asked(over.give(Packet::Auth(auth(OK))));
    check(over, OK);
}

/// A token need not lie in memory as long as the connection lives.
#[test]
fn what_was_sent_with_connect_is_not_kept() {
    let mut pair = Pair::new(V5);
    let mut connect = lasting(V5);
    connect.properties.authentication_method = Some(text("SCRAM"));
    connect.properties.authentication_data = Some(mqtt_proto::Secret::new("once").unwrap());
    let Packet::Connect(sent) = pair.dial(connect) else {
        unreachable!("CONNECT is the first packet");
    };
    assert!(sent.properties.authentication_data.is_some());
    let kept = &pair.session.last_connect().unwrap().properties;
    assert_eq!(kept.authentication_method, Some(text("SCRAM")));
    assert_eq!(kept.authentication_data, None);
}
