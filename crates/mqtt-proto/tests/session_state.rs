//! What a new connection finds of the session: resumed, lost, thrown away, another's.

mod session_common;

use mqtt_proto::{
    AckId, ProtocolError, ReasonCode, SessionOptions, Version,
    packet::{ConnAck, Packet},
};
use session_common::*;

/// [MQTT5-3.2.2-4] [MQTT3 3.2.2.2]
#[test]
fn a_session_the_client_does_not_have_is_not_resumed() {
    both(|version| {
        let unknown = |pair: &mut Pair| {
            let error = pair.give_wrong(Packet::ConnAck(ConnAck::resumed()));
            assert_eq!(error, ProtocolError::UnknownSessionPresent);
            let closing = disconnect(ReasonCode::PROTOCOL_ERROR);
            assert_eq!(
                pair.sent(),
                if version == V5 { vec![closing] } else { vec![] }
            );
            assert!(!pair.session.is_connected());
        };
        let mut fresh = Pair::new(version);
        fresh.dial(lasting(version));
        unknown(&mut fresh);

        let mut cleaning = Pair::connected(version);
        cleaning.publish_at(AtLeastOnce, "open");
        cleaning.cut();
        cleaning.dial(clean_start(version));
        unknown(&mut cleaning);
        assert_eq!(cleaning.cut().len(), 1);
    });
}

/// Left to the application's choice, against the advice of [MQTT5-3.2.2-4].
#[test]
fn a_session_of_another_process_is_adopted_if_asked() {
    both(|version| {
        let options = SessionOptions::default().with_adopt_session(true);
        let mut pair = Pair::with_options(version, options);
        pair.dial(lasting(version));
        assert_eq!(pair.accept(ConnAck::resumed()), []);
        assert_eq!(pair.sent(), []);
        let ack = pair.deliver(repeat(ExactlyOnce, 9, "from before"));
        pair.acknowledge(ack);
        assert_eq!(pair.sent(), [pubrec(9)]);
        assert_eq!(pair.give(pubrel(8)), None);
        assert_eq!(
            pair.sent(),
            [if version == V5 {
                pubcomp_with(8, NOT_FOUND)
            } else {
                pubcomp(8)
            }]
        );
        // But not against a clean start.
        pair.cut();
        pair.dial(clean_start(version));
        pair.give_wrong(Packet::ConnAck(ConnAck::resumed()));
    });
}

/// [MQTT5-3.2.2-5] [MQTT5-4.4.0-1]
#[test]
fn without_session_present_what_was_open_is_lost() {
    both(|version| {
        let mut pair = Pair::connected(version);
        let tokens: Vec<_> = [AtLeastOnce, ExactlyOnce, ExactlyOnce, AtLeastOnce]
            .map(|qos| pair.publish_at(qos, "m"))
            .into();
        pair.sent();
        pair.give(pubrec(2));
        assert_eq!(pair.cut(), []);
        assert_eq!(pair.session.in_flight(), 4);
        pair.dial(lasting(version));
        let mut lost = pair.accept(ConnAck::accepted());
        lost.sort_unstable();
        assert_eq!(lost, tokens);
        assert_eq!(pair.session.in_flight(), 0);
        assert_eq!(pair.sent(), [], "nothing is sent again");
        let token = pair.publish_at(AtLeastOnce, "new");
        assert_eq!(pair.sent(), [publish(AtLeastOnce, 1, "new")]);
        assert_eq!(published(pair.give(puback(1))), (token, OK));
    });
}

/// Held, and released, by the client when the connection ends.
fn with_messages(version: Version) -> (Pair, AckId) {
    let mut pair = Pair::connected(version);
    let released = pair.deliver(publish(ExactlyOnce, 7, "released"));
    pair.acknowledge(released);
    let held = pair.deliver(publish(ExactlyOnce, 8, "held"));
    assert_eq!(pair.sent(), [pubrec(7)]);
    pair.cut();
    (pair, held)
}

/// What comes under the identifiers of [`with_messages`] is new.
fn takes_new_messages(pair: &mut Pair, held: AckId) {
    for n in [7, 8] {
        pair.deliver(publish(ExactlyOnce, n, "new"));
    }
    pair.acknowledge(held);
    assert_eq!(pair.sent(), [], "the old message is nobody's");
}

/// [MQTT5-3.2.2-5] [MQTT3-3.1.2-6]
#[test]
fn without_session_present_what_was_received_is_forgotten() {
    both(|version| {
        let (mut pair, held) = with_messages(version);
        pair.dial(lasting(version));
        pair.accept(ConnAck::accepted());
        takes_new_messages(&mut pair, held);
    });
}

/// [MQTT5-3.1.2-4] [MQTT3-3.1.2-6]
#[test]
fn a_clean_start_throws_the_session_away() {
    both(|version| {
        let (mut pair, held) = with_messages(version);
        pair.dial(clean_start(version));
        pair.accept(ConnAck::accepted());
        takes_new_messages(&mut pair, held);
    });
}

/// The server may have begun a new session before its CONNACK was lost. [MQTT5-3.1.2-4]
#[test]
fn a_clean_start_throws_the_session_away_though_its_connack_is_lost() {
    both(|version| {
        let (mut pair, _) = with_messages(version);
        pair.dial(lasting(version));
        pair.accept(ConnAck::resumed());
        let token = pair.publish_at(ExactlyOnce, "open");
        pair.sent();
        assert_eq!(pair.cut(), []);
        pair.dial(clean_start(version));
        assert_eq!(pair.cut(), [token]);
        pair.dial(lasting(version));
        let error = pair.give_wrong(Packet::ConnAck(ConnAck::resumed()));
        assert_eq!(error, ProtocolError::UnknownSessionPresent);
    });
}

/// [MQTT3-3.1.2-4] [MQTT5-3.1.2-23]
#[test]
fn a_session_that_ends_with_its_connection_returns_its_publishes() {
    both(|version| {
        let mut pair = Pair::connected_with(version, |connect| {
            connect.clean_start = version == V3;
            connect.properties = Default::default();
        });
        let tokens = [AtLeastOnce, ExactlyOnce].map(|qos| pair.publish_at(qos, "open"));
        pair.sent();
        assert_eq!(pair.cut(), tokens);
        pair.dial(lasting(version));
        pair.give_wrong(Packet::ConnAck(ConnAck::resumed()));
    });
}

/// The value in CONNACK counts. [MQTT5 3.1.2.11.2]
#[test]
fn the_server_decides_how_long_the_session_lasts() {
    let mut pair = Pair::connected_to(|connack| {
        connack.properties.session_expiry_interval = Some(0);
    });
    let token = pair.publish_at(AtLeastOnce, "open");
    assert_eq!(pair.cut(), [token]);

    let mut pair = Pair::new(V5);
    let mut connect = lasting(V5);
    connect.properties.session_expiry_interval = None;
    pair.dial(connect);
    let mut connack = ConnAck::accepted();
    connack.properties.session_expiry_interval = Some(60);
    pair.accept(connack);
    pair.publish_at(AtLeastOnce, "open");
    assert_eq!(pair.cut(), []);
}

/// [MQTT5-3.1.3-2] [MQTT5 3.2.2.3.7]
#[test]
fn an_assigned_client_identifier_is_kept() {
    let mut pair = Pair::new(V5);
    let mut connect = lasting(V5);
    connect.client_id = text("");
    assert_eq!(client_id_of(&pair.dial(connect.clone())), "");
    let mut connack = ConnAck::accepted();
    connack.properties.assigned_client_identifier = Some(text("auto-1"));
    pair.accept(connack);
    assert_eq!(
        pair.session.client_id().map(|id| id.as_str()),
        Some("auto-1")
    );
    pair.publish_at(AtLeastOnce, "open");
    pair.sent();
    assert_eq!(pair.cut(), []);
    assert_eq!(client_id_of(&pair.dial(connect.clone())), "auto-1");
    assert_eq!(pair.accept(ConnAck::resumed()), []);
    assert_eq!(pair.sent(), [repeat(AtLeastOnce, 1, "open")]);
    pair.cut();
    connect.clean_start = true;
    assert_eq!(
        client_id_of(&pair.dial(connect)),
        "",
        "a clean start asks for a new one"
    );
}

/// The client identifier is the key of the session. [MQTT5-3.1.3-2] [MQTT3-3.1.3-2]
#[test]
fn another_client_identifier_is_another_session() {
    both(|version| {
        for adopt in [false, true] {
            let options = SessionOptions::default().with_adopt_session(adopt);
            let mut pair = Pair::with_options(version, options);
            pair.dial(lasting(version));
            pair.accept(ConnAck::accepted());
            let token = pair.publish_at(AtLeastOnce, "for the first session");
            pair.deliver(publish(ExactlyOnce, 7, "from the first session"));
            pair.cut();
            let mut connect = lasting(version);
            connect.client_id = text("another");
            pair.dial(connect);
            if adopt {
                assert_eq!(pair.accept(ConnAck::resumed()), [token]);
                pair.deliver(repeat(ExactlyOnce, 7, "from the second session"));
            } else {
                let error = pair.give_wrong(Packet::ConnAck(ConnAck::resumed()));
                assert_eq!(error, ProtocolError::UnknownSessionPresent);
            }
        }
    });
}
