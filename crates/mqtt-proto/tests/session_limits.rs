//! What the server takes is checked before anything is sent.

mod session_common;

use std::num::{NonZeroU16, NonZeroU32};

use mqtt_proto::{
    Message, UsageError,
    packet::{
        AuthProperties, ConnAck, Disconnect, DisconnectProperties, Packet, Properties,
        SubscribeOptions, SubscribeProperties, SubscriptionId,
    },
};
use session_common::*;

#[track_caller]
fn refused(pair: &mut Pair, message: Message, error: UsageError) {
    assert_eq!(pair.try_publish(message), Err(Some(error)));
    assert_eq!(pair.sent(), [], "nothing was sent");
}

/// [MQTT5-3.2.2-11]
#[test]
fn no_message_above_the_servers_maximum_qos() {
    for maximum in [AtMostOnce, AtLeastOnce] {
        let mut pair = Pair::connected_to(|it| it.properties.maximum_qos = Some(maximum));
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            if qos > maximum {
                refused(&mut pair, message(qos, "m"), UsageError::QoSNotSupported);
            } else {
                pair.publish_at(qos, "m");
                assert_eq!(pair.sent().len(), 1);
            }
        }
        assert_eq!(pair.session.limits().maximum_qos, maximum);
    }
}

/// [MQTT5-3.2.2-14]
#[test]
fn no_retained_message_for_a_server_that_keeps_none() {
    let mut pair = Pair::connected_to(|it| it.properties.retain_available = Some(false));
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        let retained = message(qos, "m").with_retain(true);
        refused(&mut pair, retained, UsageError::RetainNotSupported);
        pair.publish_at(qos, "m");
        pair.sent();
    }
}

/// Each packet is sent at exactly the limit, and not with one byte more. [MQTT5-3.2.2-15]
#[test]
fn no_packet_is_larger_than_the_server_takes() {
    let limited =
        || Pair::connected_to(|it| it.properties.maximum_packet_size = NonZeroU32::new(30));
    let too_large = UsageError::PacketTooLarge { size: 31, max: 30 };
    // PUBLISH: 2 of header, 3 of topic, 2 of identifier above QoS 0, 1 of properties.
    for (qos, payload) in [(AtMostOnce, 24), (AtLeastOnce, 22), (ExactlyOnce, 22)] {
        let mut pair = limited();
        let above = message(qos, "x".repeat(payload + 1));
        refused(&mut pair, above, too_large.clone());
        assert_eq!(pair.session.in_flight(), 0);
        pair.publish_at(qos, "x".repeat(payload));
        assert_eq!(pair.taken().0.len(), 30);
    }
    // SUBSCRIBE: 2, 2 of identifier, 1 of properties, 2 and the filter, 1 of options.
    let mut pair = limited();
    let filter_of = |len| filter(&"x".repeat(len));
    let subscription = |len| vec![at_qos_1(&"x".repeat(len))];
    assert_eq!(pair.try_subscribe(subscription(23)), Err(too_large.clone()));
    assert_eq!(
        pair.try_unsubscribe(vec![filter_of(24)]),
        Err(too_large.clone())
    );
    assert_eq!(pair.sent(), []);
    pair.try_subscribe(subscription(22)).unwrap();
    assert_eq!(pair.taken().0.len(), 30);
    pair.try_unsubscribe(vec![filter_of(23)]).unwrap();
    assert_eq!(pair.taken().0.len(), 30);
}

/// [MQTT5-3.14.2-3] [MQTT5-3.14.2-4]
#[test]
fn a_disconnect_that_is_too_large_leaves_its_texts_out() {
    for expiry in [None, Some(0), Some(7)] {
        let mut pair = Pair::connected_to(|it| {
            it.properties.maximum_packet_size = NonZeroU32::new(20);
        });
        let token = pair.publish_at(AtLeastOnce, "m");
        pair.sent();
        let mut properties = DisconnectProperties {
            session_expiry_interval: expiry,
            reason_string: Some(text("a reason of some length")),
            ..DisconnectProperties::default()
        };
        properties.user_properties.push((text("k"), text("v")));
        let mut disconnect = Disconnect::new(OK);
        disconnect.properties = Properties::from(properties);
        pair.session.disconnect(disconnect).unwrap();
        let mut expected = Disconnect::new(OK);
        if expiry.is_some() {
            expected.properties.session_expiry_interval = expiry;
        }
        assert_eq!(pair.sent(), [Packet::Disconnect(expected)]);
        let lost = pair.cut();
        assert_eq!(
            lost,
            if expiry == Some(0) {
                vec![token]
            } else {
                vec![]
            }
        );
    }
}

/// [MQTT5-3.15.2-2] [MQTT5-3.15.2-3]
#[test]
fn an_auth_that_is_too_large_is_refused() {
    let mut pair = Pair::new(V5);
    let mut connect = lasting(V5);
    connect.properties.authentication_method = Some(text("SCRAM"));
    pair.dial(connect);
    let mut connack = ConnAck::accepted();
    connack.properties.authentication_method = Some(text("SCRAM"));
    connack.properties.maximum_packet_size = NonZeroU32::new(20);
    pair.accept(connack);
    let auth = auth(mqtt_proto::ReasonCode::RE_AUTHENTICATE);
    let mut long = auth.clone();
    long.properties = Properties::from(AuthProperties {
        reason_string: Some(text("a reason of some length")),
        ..AuthProperties::default()
    });
    let result = pair.session.authenticate(long);
    assert!(matches!(
        result,
        Err(UsageError::PacketTooLarge { max: 20, .. })
    ));
    assert_eq!(pair.sent(), []);
    pair.session.authenticate(auth).unwrap();
    assert_eq!(pair.sent().len(), 1);
}

/// [MQTT5 3.2.2.3.11] [MQTT5 3.2.2.3.12] [MQTT5 3.2.2.3.13] [MQTT5-3.8.3-4]
#[test]
fn subscriptions_the_server_does_not_take_are_refused() {
    let mut wildcard = Pair::connected_to(|it| {
        it.properties.wildcard_subscription_available = Some(false);
    });
    for name in ["a/+", "#", "$share/g/a/#"] {
        let result = wildcard.try_subscribe(vec![at_qos_1("a"), at_qos_1(name)]);
        assert_eq!(result, Err(UsageError::WildcardNotSupported));
    }
    wildcard.subscribe(&["a", "$share/g/a"]);
    wildcard.unsubscribe(&["a/+"]);

    let mut shared = Pair::connected_to(|it| {
        it.properties.shared_subscription_available = Some(false);
    });
    let result = shared.try_subscribe(vec![at_qos_1("$share/g/a")]);
    assert_eq!(result, Err(UsageError::SharedNotSupported));
    shared.subscribe(&["a/#"]);

    let mut numbered = Pair::connected_to(|it| {
        it.properties.subscription_identifiers_available = Some(false);
    });
    let properties = || {
        Properties::from(SubscribeProperties {
            subscription_identifier: SubscriptionId::new(1),
            ..SubscribeProperties::default()
        })
    };
    let result = numbered
        .session
        .subscribe(vec![at_qos_1("a")], properties(), 0);
    assert_eq!(result, Err(UsageError::SubscriptionIdentifierNotSupported));

    let mut any = Pair::connected(V5);
    let mut no_local = at_qos_1("$share/g/a");
    no_local.options = SubscribeOptions {
        no_local: true,
        ..no_local.options
    };
    assert_eq!(
        any.try_subscribe(vec![no_local]),
        Err(UsageError::NoLocalShared)
    );
    for pair in [&mut wildcard, &mut shared, &mut numbered, &mut any] {
        let sent = pair.sent();
        assert!(sent.len() <= 2, "only what was admitted: {sent:?}");
    }
}

/// [MQTT5-3.2.2-17] [MQTT5-3.2.2-18] [MQTT5-3.3.2-9] [MQTT5-3.3.4-6]
#[test]
fn topic_aliases_stay_below_the_servers_maximum() {
    let aliased = |alias| {
        let mut message = message(AtMostOnce, "m");
        message.properties.topic_alias = NonZeroU16::new(alias);
        message
    };
    let mut pair = Pair::connected_to(|it| it.properties.topic_alias_maximum = Some(2));
    for alias in [1, 2] {
        pair.publish(aliased(alias));
        assert_eq!(pair.sent(), [publish_of(aliased(alias), 0, false)]);
    }
    refused(
        &mut pair,
        aliased(3),
        UsageError::TopicAliasTooLarge { alias: 3, max: 2 },
    );
    pair.cut();
    pair.dial(lasting(V5));
    pair.accept(ConnAck::resumed());
    refused(
        &mut pair,
        aliased(1),
        UsageError::TopicAliasTooLarge { alias: 1, max: 0 },
    );
    let mut republished = message(AtMostOnce, "m");
    republished.properties.subscription_identifiers = Vec::from_iter(SubscriptionId::new(1));
    refused(
        &mut pair,
        republished,
        UsageError::SubscriptionIdentifierInPublish,
    );
}

/// [MQTT5-3.3.2-7]
#[test]
fn a_resend_names_its_topic() {
    let mut pair = Pair::connected_to(|it| it.properties.topic_alias_maximum = Some(2));
    for qos in [AtLeastOnce, ExactlyOnce] {
        let mut message = message(qos, "m");
        message.properties.topic_alias = NonZeroU16::new(1);
        message.properties.content_type = Some(text("c"));
        pair.publish(message);
    }
    pair.sent();
    pair.resume();
    for packet in pair.sent() {
        let Packet::Publish(publish) = packet else {
            panic!("{packet:?}")
        };
        assert_eq!(publish.message.topic.as_str(), "t");
        assert_eq!(publish.message.properties.topic_alias, None);
        assert_eq!(publish.message.properties.content_type, Some(text("c")));
    }
}

/// A 3.1.1 server announces no limits, and its packets have no properties.
#[test]
fn a_3_1_1_server_has_no_limits() {
    let mut pair = Pair::connected(V3);
    let retained = message(ExactlyOnce, "x".repeat(1000)).with_retain(true);
    pair.publish(retained.clone());
    assert_eq!(pair.sent(), [publish_of(retained, 1, false)]);
    pair.subscribe(&["$share/g/a/#"]);
    assert_eq!(pair.session.limits().receive_maximum, u16::MAX);
}
