//! How connections end: errors and what they tell the server, DISCONNECT of either side.

mod session_common;

use mqtt_proto::{
    Decoder, Event, ProtocolError, ReasonCode, UsageError,
    packet::{
        Ack, ConnAck, Disconnect, DisconnectProperties, Packet, PacketType, Properties, SubAck,
        UnsubAck,
    },
};
use session_common::*;

/// A client that took a CONNECT with a level nobody knows tells the server something a client may
/// tell; whatever the error, 3.1.1 tells nothing. [MQTT5 4.13.1] [MQTT5-3.14.2-1] [MQTT3-4.8.0-1]
#[test]
fn an_error_of_the_decoder_is_told_in_5_0() {
    both(|version| {
        let check = |bytes: &'static [u8], code: ReasonCode| {
            let mut pair = Pair::connected(version);
            let mut decoder = Decoder::new(version, 64);
            let error = decoder.decode(&mut bytes.into()).unwrap_err();
            pair.session.abort(error.reason_code());
            assert_eq!(
                pair.sent(),
                if version == V5 {
                    vec![disconnect(code)]
                } else {
                    vec![]
                }
            );
            assert!(!pair.session.is_connected());
        };
        check(&[0x36, 0], ReasonCode::MALFORMED_PACKET);
        check(&[0x60, 2, 0, 1], ReasonCode::MALFORMED_PACKET);
        check(&[0x30, 100], ReasonCode::PACKET_TOO_LARGE);
        check(
            &[0x30, 6, 0, 3, b'a', b'/', b'#', 0],
            ReasonCode::TOPIC_NAME_INVALID,
        );
        let unknown_level = &[0x10, 8, 0, 4, b'M', b'Q', b'T', b'T', 9, 0];
        check(unknown_level, ReasonCode::UNSPECIFIED_ERROR);
    });
}

/// [MQTT5-3.14.2-1]
#[test]
fn closing_tells_only_what_a_client_may_tell() {
    for code in 0..=u8::MAX {
        let mut pair = Pair::connected(V5);
        pair.session.abort(ReasonCode::new(code));
        // The witness has the list.
        let sent = pair.sent();
        assert_eq!(sent.len(), 1);
        pair.session.abort(ReasonCode::UNSPECIFIED_ERROR);
        assert_eq!(pair.sent(), [], "once");
    }
}

/// [MQTT5-3.14.4-1] [MQTT3-3.14.4-2]
#[test]
fn disconnect_is_the_last_packet() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let token = pair.publish_at(AtLeastOnce, "before");
        pair.session.disconnect(Disconnect::new(OK)).unwrap();
        let refused = pair.try_publish(message(AtMostOnce, "after"));
        assert_eq!(refused, Err(Some(UsageError::NotConnected)));
        assert_eq!(
            pair.try_subscribe(vec![at_qos_1("a")]),
            Err(UsageError::NotConnected)
        );
        assert_eq!(
            pair.try_unsubscribe(vec![filter("a")]),
            Err(UsageError::NotConnected)
        );
        let again = pair.session.disconnect(Disconnect::new(OK));
        assert_eq!(again, Err(UsageError::NotConnected));
        pair.session.abort(ReasonCode::PROTOCOL_ERROR);
        assert_eq!(pair.give(pubrel(1)), None);
        assert_eq!(pair.give(pubrec(1)), None);
        pair.pass(std::time::Duration::from_secs(1000));
        pair.session.handle_timeout(pair.now).unwrap();
        let bytes = if version == V5 { 22 } else { 21 };
        let (taken, packets) = pair.taken();
        assert_eq!(packets, [publish(AtLeastOnce, 1, "before"), disconnect(OK)]);
        assert!(taken.ends_with(&[0xE0, 0]) && taken.len() < bytes);
        // The session is still there.
        pair.resume();
        assert_eq!(pair.sent(), [repeat(AtLeastOnce, 1, "before")]);
        assert_eq!(published(pair.give(puback(1))), (token, OK));
    });
}

/// [MQTT5-3.14.2-1] [MQTT5 3.14.2.2.2]
#[test]
fn a_client_disconnects_with_a_clients_codes() {
    const CLIENTS: [u8; 14] = [
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    ];
    for code in 0..=u8::MAX {
        let mut pair = Pair::connected(V5);
        let result = pair
            .session
            .disconnect(Disconnect::new(ReasonCode::new(code)));
        assert_eq!(result.is_ok(), CLIENTS.contains(&code), "{code:#x}");
        assert_eq!(pair.sent().len(), usize::from(result.is_ok()));
        assert_eq!(pair.session.is_connected(), result.is_err());
    }
    let mut pair = Pair::connected(V5);
    let mut elsewhere = Disconnect::new(OK);
    elsewhere.properties.server_reference = Some(text("elsewhere"));
    let error = UsageError::DisconnectReason(OK);
    assert_eq!(pair.session.disconnect(elsewhere), Err(error));
}

fn expiring(interval: u32) -> Disconnect {
    let mut disconnect = Disconnect::new(OK);
    disconnect.properties.session_expiry_interval = Some(interval);
    disconnect
}

/// [MQTT5 3.14.2.2.2] [MQTT5-3.1.2-23]
#[test]
fn disconnect_can_shorten_or_end_the_session_but_not_begin_one() {
    let mut pair = Pair::connected(V5);
    let token = pair.publish_at(AtLeastOnce, "m");
    pair.session.disconnect(expiring(0)).unwrap();
    assert_eq!(pair.cut(), [token]);

    let mut pair = Pair::connected(V5);
    pair.publish_at(AtLeastOnce, "m");
    pair.session.disconnect(expiring(5)).unwrap();
    assert_eq!(pair.cut(), []);

    // What CONNECT asked for counts, whatever the server answered.
    for (asked, answered) in [(None, None), (Some(0), None), (None, Some(60))] {
        let mut pair = Pair::new(V5);
        let mut connect = lasting(V5);
        connect.properties.session_expiry_interval = asked;
        pair.dial(connect);
        let mut connack = ConnAck::accepted();
        connack.properties.session_expiry_interval = answered;
        pair.accept(connack);
        let result = pair.session.disconnect(expiring(5));
        assert_eq!(result, Err(UsageError::DisconnectReason(OK)));
        pair.session.disconnect(expiring(0)).unwrap();
        assert_eq!(pair.sent(), [Packet::Disconnect(expiring(0))]);
    }
}

/// [MQTT5 3.14.4] [MQTT5-4.13.2-1]
#[test]
fn a_servers_disconnect_ends_the_connection_and_reaches_the_application() {
    for code in [
        ReasonCode::SUCCESS,
        ReasonCode::SERVER_SHUTTING_DOWN,
        ReasonCode::SESSION_TAKEN_OVER,
        ReasonCode::USE_ANOTHER_SERVER,
        ReasonCode::SERVER_MOVED,
    ] {
        let mut pair = Pair::connected(V5);
        let token = pair.publish_at(AtLeastOnce, "m");
        pair.sent();
        let mut sent = Disconnect::new(code);
        sent.properties = Properties::from(DisconnectProperties {
            reason_string: Some(text("why")),
            server_reference: Some(text("elsewhere")),
            ..DisconnectProperties::default()
        });
        let event = pair.give(Packet::Disconnect(sent.clone()));
        assert_eq!(event, Some(Event::Disconnected(Box::new(sent))));
        assert!(!pair.session.is_connected());
        assert_eq!(pair.give(puback(1)), None, "too late");
        assert_eq!(pair.sent(), []);
        pair.resume();
        assert_eq!(published(pair.give(puback(1))), (token, OK));
    }
}

/// [MQTT5 3.14.2.2.2]
#[test]
fn a_servers_disconnect_does_not_change_the_session() {
    let mut pair = Pair::connected(V5);
    let error = pair.give_wrong(Packet::Disconnect(expiring(0)));
    let packet_type = PacketType::Disconnect;
    let phase = "connected";
    assert_eq!(
        error,
        ProtocolError::UnexpectedPacket { packet_type, phase }
    );
    assert_eq!(pair.sent(), [disconnect(ReasonCode::PROTOCOL_ERROR)]);
}

/// [MQTT5 3.1.2.11.7]
#[test]
fn texts_that_were_not_asked_for_end_the_connection() {
    let with_text = |n| {
        let mut ack = Ack::new(id(n));
        ack.properties = reason_string("text");
        ack
    };
    let with_user_property = |n| {
        let mut ack = Ack::new(id(n));
        ack.properties.user_properties = vec![(text("k"), text("v"))];
        ack
    };
    let codes = || vec![OK];
    let packets = [
        Packet::PubAck(with_text(1)),
        Packet::PubAck(with_user_property(1)),
        Packet::PubRec(with_text(2)),
        Packet::PubComp(with_text(9)),
        Packet::PubRel(with_user_property(9)),
        Packet::SubAck(SubAck {
            packet_id: id(3),
            reason_codes: codes(),
            properties: reason_string("text"),
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: id(4),
            reason_codes: codes(),
            properties: reason_string("text"),
        }),
        Packet::Auth({
            let mut auth = auth(ReasonCode::CONTINUE_AUTHENTICATION);
            auth.properties.reason_string = Some(text("text"));
            auth
        }),
    ];
    for packet in packets {
        for asked in [None, Some(true), Some(false)] {
            let mut pair = Pair::new(V5);
            let mut connect = lasting(V5);
            connect.properties.request_problem_information = asked;
            connect.properties.authentication_method = Some(text("SCRAM"));
            pair.dial(connect);
            let mut connack = ConnAck::accepted();
            connack.properties.authentication_method = Some(text("SCRAM"));
            connack.properties.reason_string = Some(text("allowed here"));
            pair.accept(connack);
            pair.publish_at(AtLeastOnce, "1");
            pair.publish_at(ExactlyOnce, "2");
            pair.subscribe(&["a"]);
            pair.unsubscribe(&["a"]);
            let again = auth(ReasonCode::RE_AUTHENTICATE);
            pair.session.authenticate(again).unwrap();
            pair.sent();
            if asked == Some(false) {
                let error = pair.give_wrong(packet.clone());
                let packet_type = packet.packet_type();
                assert_eq!(
                    error,
                    ProtocolError::UnaskedProblemInformation { packet_type }
                );
                assert_eq!(pair.sent(), [disconnect(ReasonCode::PROTOCOL_ERROR)]);
            } else {
                pair.give(packet.clone());
            }
        }
    }
    // In these they are always allowed.
    let mut pair = Pair::connected_with(V5, |connect| {
        connect.properties.request_problem_information = Some(false);
    });
    let mut sent = message(AtMostOnce, "m");
    sent.properties.user_properties = vec![(text("k"), text("v"))];
    assert!(pair.give(publish_of(sent, 0, false)).is_some());
    let mut ends = Disconnect::new(ReasonCode::SERVER_BUSY);
    ends.properties.reason_string = Some(text("busy"));
    assert!(pair.give(Packet::Disconnect(ends)).is_some());
}
