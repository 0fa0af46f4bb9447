//! What a server announces can be read and is kept to before anything is sent; and what it says can
//! be read, to the last property.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use common::{BOTH, config, connector, endpoint, now, open_with, publish, report, settle};
use mqtt_client::{
    ConnectCause, Limits, LostCause, Publish, PublishError, Published, QoS, ReasonCode,
    ReconnectConfig, SessionConfig, Subscribe, SubscribeError, Utf8String, Version,
    pool::Limit,
    proto::{
        UsageError,
        packet::{
            Ack, AckProperties, ConnAck, ConnAckProperties, Disconnect, Packet, PublishProperties,
            SubAck, SubscribeProperties, SubscriptionId, UnsubAck, UserProperty,
        },
    },
};
use tokio::time::Instant;

enum Request {
    Publish(Publish),
    Subscribe(Subscribe),
}

fn at(qos: QoS) -> Request {
    Request::Publish(publish(qos))
}

fn large(qos: QoS) -> Request {
    Request::Publish(Publish::new("t", "x".repeat(60)).unwrap().with_qos(qos))
}

fn aliased(alias: u16) -> Request {
    let properties = PublishProperties {
        topic_alias: NonZeroU16::new(alias),
        ..PublishProperties::default()
    };
    Request::Publish(publish(QoS::AtMostOnce).with_properties(properties))
}

fn to(filter: &'static str) -> Request {
    Request::Subscribe(Subscribe::new(filter).unwrap())
}

fn numbered() -> Request {
    let properties = SubscribeProperties {
        subscription_identifier: SubscriptionId::new(1),
        ..SubscribeProperties::default()
    };
    Request::Subscribe(Subscribe::new("a").unwrap().with_properties(properties))
}

const LONG_FILTER: &str = "a/filter/that/takes/more/than/the/fifty/bytes/of/the/server";

/// What a server announces, what is then asked for, and why it is refused.
type Case = (fn(&mut ConnAckProperties), Request, UsageError);

fn cases() -> Vec<Case> {
    use UsageError::*;
    let no_qos: fn(&mut ConnAckProperties) = |it| it.maximum_qos = Some(QoS::AtMostOnce);
    let qos_1: fn(&mut ConnAckProperties) = |it| it.maximum_qos = Some(QoS::AtLeastOnce);
    let small: fn(&mut ConnAckProperties) = |it| it.maximum_packet_size = NonZeroU32::new(50);
    let aliases: fn(&mut ConnAckProperties) = |it| it.topic_alias_maximum = Some(2);
    let no_shared: fn(&mut ConnAckProperties) = |it| it.shared_subscription_available = Some(false);
    let no_wildcard: fn(&mut ConnAckProperties) =
        |it| it.wildcard_subscription_available = Some(false);
    let size = |size| PacketTooLarge { size, max: 50 };
    let alias = |alias, max| TopicAliasTooLarge { alias, max };
    vec![
        (no_qos, at(QoS::AtLeastOnce), QoSNotSupported),
        (no_qos, at(QoS::ExactlyOnce), QoSNotSupported),
        (qos_1, at(QoS::ExactlyOnce), QoSNotSupported),
        (
            |it| it.retain_available = Some(false),
            Request::Publish(publish(QoS::AtMostOnce).with_retain(true)),
            RetainNotSupported,
        ),
        (small, large(QoS::AtMostOnce), size(66)),
        (small, large(QoS::AtLeastOnce), size(68)),
        (small, large(QoS::ExactlyOnce), size(68)),
        (small, to(LONG_FILTER), size(67)),
        (aliases, aliased(3), alias(3, 2)),
        (|_| {}, aliased(1), alias(1, 0)),
        (no_wildcard, to("a/+"), WildcardNotSupported),
        (no_wildcard, to("#"), WildcardNotSupported),
        (no_shared, to("$share/group/a"), SharedNotSupported),
        (
            |it| it.subscription_identifiers_available = Some(false),
            numbered(),
            SubscriptionIdentifierNotSupported,
        ),
    ]
}

/// [MQTT5-3.2.2-11] [MQTT5-3.2.2-14] [MQTT5-3.2.2-15] [MQTT5-3.2.2-17] [MQTT5-3.2.2-18] [MQTT5 3.2.2.3]
#[tokio::test(start_paused = true)]
async fn what_the_server_does_not_take_is_refused_and_not_sent() {
    for (announce, request, expected) in cases() {
        let mut connack = ConnAck::accepted();
        announce(&mut connack.properties);
        let (session, mut server) = open_with(config(Version::V5), connack.clone()).await;
        let limits = session.limits();
        assert_eq!(limits, Limits::of(&connack));
        let refused = match request {
            Request::Publish(request) => match session.publish(request).await {
                Err(PublishError::Usage(error)) => Some(error),
                _ => None,
            },
            Request::Subscribe(request) => match session.subscribe(request).await {
                Err(SubscribeError::Usage(error)) => Some(error),
                _ => None,
            },
        };
        assert_eq!(refused, Some(expected));
        // It was not sent, and costs the session nothing.
        settle().await;
        let leaves = tokio::spawn(async move { session.disconnect().await });
        server.expect_disconnect().await;
        leaves.await.unwrap().unwrap();
    }
}

/// The same requests, of a server that announces nothing; in 3.1.1 none can.
#[tokio::test(start_paused = true)]
async fn what_the_server_takes_is_sent() {
    for version in BOTH {
        for (_, request, _) in cases() {
            if matches!(&request, Request::Publish(it) if it.message.properties.topic_alias.is_some())
            {
                continue;
            }
            let (session, mut server) = open_with(config(version), ConnAck::accepted()).await;
            assert_eq!(session.limits(), Limits::default());
            match request {
                Request::Publish(request) => {
                    let _ = now(session.publish(request)).await;
                    server.expect_publish().await;
                }
                Request::Subscribe(request) => {
                    let _ = now(session.subscribe(request)).await;
                    server.expect_subscribe().await;
                }
            }
        }
    }
}

/// The limits are those of the server that accepted last. [MQTT5-3.2.2-15]
#[tokio::test(start_paused = true)]
async fn a_later_server_may_take_less_and_an_unsubscribe_is_checked_too() {
    let config = SessionConfig::new("gateway")
        .with_session_expiry(Limit::Never)
        .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)));
    let (connector, mut listener) = connector(config);
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let subscribe = session.subscribe(Subscribe::new(LONG_FILTER).unwrap());
    let (stream, _) = tokio::join!(subscribe, server.grant());
    assert_eq!(session.limits().maximum_packet_size, u32::MAX);
    drop(server);
    let mut server = listener.accept().await;
    let mut connack = ConnAck::resumed();
    connack.properties.maximum_packet_size = NonZeroU32::new(50);
    server.accept_with(connack).await;
    settle().await;
    assert_eq!(session.limits().maximum_packet_size, 50);
    let error = stream.unwrap().unsubscribe().await.unwrap_err();
    let expected = UsageError::PacketTooLarge { size: 66, max: 50 };
    assert!(matches!(&error, SubscribeError::Usage(error) if *error == expected));
    server.expect_silence(Duration::from_secs(1)).await;
}

/// [MQTT5-3.14.2-3] [MQTT5-3.2.2-15]
#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_disconnect_is_left_without() {
    for (max, is_told) in [(1, false), (2, true)] {
        let mut connack = ConnAck::accepted();
        connack.properties.maximum_packet_size = NonZeroU32::new(max);
        let (session, mut server) = open_with(config(Version::V5), connack).await;
        let start = Instant::now();
        let leaves = tokio::spawn(async move { session.disconnect().await });
        if is_told {
            assert_eq!(
                server.expect_disconnect().await,
                Disconnect::new(ReasonCode::SUCCESS)
            );
        }
        server.expect_closed().await;
        leaves.await.unwrap().unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "without waiting for anything"
        );
    }
}

/// [MQTT5-3.3.4-7] [MQTT5-3.3.4-9]
#[tokio::test(start_paused = true)]
async fn no_more_is_in_flight_than_the_server_takes() {
    let mut connack = ConnAck::accepted();
    connack.properties.receive_maximum = NonZeroU16::new(2);
    let (session, mut server) = open_with(config(Version::V5), connack).await;
    let publishes: Vec<_> = (0..3)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.publish(publish(QoS::AtLeastOnce)).await })
        })
        .collect();
    let first = server.expect_publish().await.packet_id.unwrap();
    let second = server.expect_publish().await.packet_id.unwrap();
    server.expect_silence(Duration::from_secs(1)).await;
    server.puback(first).await;
    let third = server.expect_publish().await.packet_id.unwrap();
    for id in [second, third] {
        server.puback(id).await;
    }
    for publish in publishes {
        publish.await.unwrap().unwrap();
    }
}

/// [MQTT5-3.2.2-21]
#[tokio::test(start_paused = true)]
async fn the_servers_keep_alive_counts() {
    for (theirs, silence) in [(Some(4), Some(4)), (None, Some(30)), (Some(0), None)] {
        let mut connack = ConnAck::accepted();
        connack.properties.server_keep_alive = theirs;
        let (_session, mut server) = open_with(config(Version::V5), connack).await;
        let start = Instant::now();
        let Some(silence) = silence else {
            server.expect_silence(Duration::from_secs(100)).await;
            continue;
        };
        assert_eq!(server.recv().await, Packet::PingReq);
        let (waited, silence) = (start.elapsed(), Duration::from_secs(silence));
        assert!(waited <= silence && waited > silence / 3, "{waited:?}");
    }
}

/// [MQTT5-3.2.2-16]
#[tokio::test(start_paused = true)]
async fn the_client_identifier_is_ones_own_or_the_one_assigned() {
    for version in BOTH {
        let (session, _server) = open_with(config(version), ConnAck::accepted()).await;
        assert_eq!(session.client_id().as_str(), "gateway");
        let (session, _server) =
            open_with(config(version).with_client_id(""), ConnAck::accepted()).await;
        assert_eq!(session.client_id().as_str(), "");
    }
    let config = SessionConfig::new("").with_session_expiry(Limit::Never);
    let (connector, mut listener) = connector(config);
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut connack = ConnAck::accepted();
        connack.properties.assigned_client_identifier = Some(text("assigned"));
        let mut server = listener.accept().await;
        assert_eq!(server.accept_with(connack).await.client_id.as_str(), "");
        server
    });
    let session = session.unwrap();
    assert_eq!(session.client_id().as_str(), "assigned");
    drop(server);
    let mut server = listener.accept().await;
    let connect = server.accept_with(ConnAck::resumed()).await;
    assert_eq!(connect.client_id.as_str(), "assigned");
    settle().await;
    assert_eq!(session.client_id().as_str(), "assigned");
}

fn text(text: &str) -> Utf8String {
    Utf8String::new(text).unwrap()
}

fn words() -> Vec<UserProperty> {
    vec![(text("k"), text("v")), (text("k"), text("w"))]
}

fn said() -> AckProperties {
    AckProperties {
        reason_string: Some(text("because")),
        user_properties: words(),
    }
}

/// [MQTT5 3.2.2.3] [MQTT5 3.14.2.2]
#[tokio::test(start_paused = true)]
async fn all_of_connack_and_disconnect_can_be_read() {
    let mut connack = ConnAck::accepted();
    connack.properties = ConnAckProperties {
        session_expiry_interval: Some(1),
        receive_maximum: NonZeroU16::new(2),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: NonZeroU32::new(3_000),
        assigned_client_identifier: None,
        topic_alias_maximum: Some(4),
        reason_string: Some(text("welcome")),
        wildcard_subscription_available: Some(false),
        subscription_identifiers_available: Some(false),
        shared_subscription_available: Some(false),
        server_keep_alive: Some(5),
        response_information: Some(text("replies")),
        server_reference: Some(text("other")),
        authentication_method: None,
        authentication_data: None,
        user_properties: words(),
    }
    .into();
    let (session, mut server) = open_with(config(Version::V5), connack.clone()).await;
    assert_eq!(session.connack(), connack);
    let limits = session.limits();
    assert_eq!(
        (
            limits.receive_maximum,
            limits.maximum_qos,
            limits.maximum_packet_size
        ),
        (2, QoS::AtLeastOnce, 3_000)
    );
    assert_eq!(limits.topic_alias_maximum, 4);
    assert!(!limits.retain_available && !limits.wildcard_subscription_available);
    assert!(!limits.subscription_identifiers_available && !limits.shared_subscription_available);

    let mut goodbye = Disconnect::new(ReasonCode::USE_ANOTHER_SERVER);
    goodbye.properties.reason_string = Some(text("maintenance"));
    goodbye.properties.server_reference = Some(text("other"));
    goodbye.properties.user_properties = words();
    server.send(Packet::Disconnect(goodbye.clone())).await;
    let closed = session.closed().await;
    assert!(matches!(&closed.cause, LostCause::Disconnected(it) if **it == goodbye));

    let (connector, mut listener) = connector(config(Version::V5));
    let mut refusal = ConnAck::refused(ReasonCode::BANNED);
    refusal.properties.reason_string = Some(text("no"));
    refusal.properties.user_properties = words();
    let (outcome, _server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept_with(refusal.clone()).await;
        server
    });
    let error = outcome.unwrap_err();
    assert!(matches!(&error.cause, ConnectCause::Refused(it) if **it == refusal));
}

/// [MQTT5 3.4.2] [MQTT5 3.5.2]
#[tokio::test(start_paused = true)]
async fn all_of_puback_and_pubrec_can_be_read() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for code in [
            ReasonCode::SUCCESS,
            ReasonCode::NO_MATCHING_SUBSCRIBERS,
            ReasonCode::NOT_AUTHORIZED,
        ] {
            let (session, mut server) = open_with(config(Version::V5), ConnAck::accepted()).await;
            let (outcome, ()) = tokio::join!(session.publish(publish(qos)), async {
                let id = server.expect_publish().await.packet_id.unwrap();
                let mut ack = Ack::with_reason(id, code);
                ack.properties = said().into();
                if qos == QoS::AtLeastOnce {
                    return server.send(Packet::PubAck(ack)).await;
                }
                server.send(Packet::PubRec(ack)).await;
                if !code.is_error() {
                    assert!(matches!(server.recv().await, Packet::PubRel(_)));
                    server.send(Packet::PubComp(Ack::new(id))).await;
                }
            });
            let (reason_code, properties) = match outcome {
                Ok(Published::Acknowledged {
                    reason_code,
                    properties,
                }) => (reason_code, properties),
                Err(PublishError::Rejected {
                    reason_code,
                    properties,
                }) => (reason_code, properties),
                other => panic!("{other:?}"),
            };
            assert_eq!((reason_code, &*properties), (code, &said()));
        }
    }
}

const GRANTS: [ReasonCode; 3] = [
    ReasonCode::SUCCESS,
    ReasonCode::GRANTED_QOS_1,
    ReasonCode::GRANTED_QOS_2,
];

fn three_filters() -> Subscribe {
    let mut subscribe = Subscribe::new("a").unwrap();
    for filter in ["b", "c"] {
        let more = Subscribe::new(filter).unwrap();
        subscribe.filters.extend(more.filters);
    }
    subscribe
}

/// What was granted may be less than what was asked for. [MQTT5 3.9] [MQTT5 3.11] [MQTT3 3.9.3]
#[tokio::test(start_paused = true)]
async fn all_of_suback_and_unsuback_can_be_read() {
    for version in BOTH {
        let (session, mut server) = open_with(config(version), ConnAck::accepted()).await;
        let properties = || match version {
            Version::V3 => Default::default(),
            Version::V5 => said().into(),
        };
        let (stream, ()) = tokio::join!(session.subscribe(three_filters()), async {
            let packet_id = server.expect_subscribe().await.packet_id;
            let suback = SubAck {
                packet_id,
                reason_codes: GRANTS.to_vec(),
                properties: properties(),
            };
            server.send(Packet::SubAck(suback)).await;
        });
        let stream = stream.unwrap();
        let granted = stream.granted();
        assert_eq!(granted.reason_codes, GRANTS);
        assert_eq!(granted.properties, properties());

        let codes = match version {
            Version::V3 => vec![ReasonCode::SUCCESS; 3],
            Version::V5 => vec![
                ReasonCode::SUCCESS,
                ReasonCode::NO_SUBSCRIPTION_EXISTED,
                ReasonCode::SUCCESS,
            ],
        };
        let (answer, ()) = tokio::join!(stream.unsubscribe(), async {
            let packet_id = server.expect_unsubscribe().await.packet_id;
            let unsuback = UnsubAck {
                packet_id,
                reason_codes: codes.clone(),
                properties: properties(),
            };
            server.send(Packet::UnsubAck(unsuback)).await;
        });
        let answer = answer.unwrap();
        assert_eq!(answer.reason_codes, codes);
        assert_eq!(answer.properties, properties());
    }
}

#[tokio::test(start_paused = true)]
async fn all_of_a_refusal_can_be_read() {
    let (session, mut server) = open_with(config(Version::V5), ConnAck::accepted()).await;
    let (outcome, ()) = tokio::join!(session.subscribe(three_filters()), async {
        let packet_id = server.expect_subscribe().await.packet_id;
        let suback = SubAck {
            packet_id,
            reason_codes: vec![
                ReasonCode::SUCCESS,
                ReasonCode::QUOTA_EXCEEDED,
                ReasonCode::GRANTED_QOS_1,
            ],
            properties: said().into(),
        };
        server.send(Packet::SubAck(suback)).await;
    });
    let error = outcome.unwrap_err();
    assert!(report(&error).contains("because"), "{}", report(&error));
    let SubscribeError::Refused {
        reason_codes,
        properties,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(reason_codes.get(1), Some(&ReasonCode::QUOTA_EXCEEDED));
    assert_eq!(*properties, said());
}

/// Asked for again of a server that has lost the session, and granted less.
#[tokio::test(start_paused = true)]
async fn what_was_granted_is_what_the_latest_server_granted() {
    let config = SessionConfig::new("gateway")
        .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)));
    let (connector, mut listener) = connector(config);
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let (first, _) = tokio::join!(
        session.subscribe(Subscribe::new("a").unwrap()),
        server.grant()
    );
    let (second, _) = tokio::join!(session.subscribe(three_filters()), server.grant());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.granted().reason_codes, [ReasonCode::GRANTED_QOS_2]);
    drop(server);
    let mut server = listener.accept().await;
    server.accept().await;
    let asked = server.expect_subscribe().await;
    assert_eq!(asked.filters.len(), 4, "both in one packet");
    let mut codes = vec![ReasonCode::GRANTED_QOS_1];
    codes.extend(GRANTS);
    server.suback(asked.packet_id, codes).await;
    settle().await;
    assert_eq!(first.granted().reason_codes, [ReasonCode::GRANTED_QOS_1]);
    assert_eq!(second.granted().reason_codes, GRANTS);
    // Nothing is asked about a filter that the other stream has.
    let left = first.unsubscribe().await.unwrap();
    assert_eq!(left.reason_codes, []);
}
