//! Every property of 5.0, each present in about half of the packets it belongs to.

use std::num::{NonZeroU16, NonZeroU32};

use mqtt_proto::{
    QoS, TopicName, Version,
    packet::{
        AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
        Packet, PublishProperties, SubscribeProperties, SubscriptionId, UnsubscribeProperties,
        UserProperty, WillProperties,
    },
};
use proptest::{collection::vec, option::of, prelude::*};

use super::{binary, decode, secret, text, topic_name};

/// The empty topic of a PUBLISH that carries a topic alias, which only the wire can give.
pub(crate) fn aliased_topic() -> TopicName {
    match decode(Version::V5, b"\x30\x06\0\0\x03\x23\0\x01") {
        Ok(Some(Packet::Publish(publish))) => publish.message.topic,
        other => panic!("an aliased PUBLISH decodes as {other:?}"),
    }
}

fn users() -> impl Strategy<Value = Vec<UserProperty>> {
    prop_oneof![Just(Vec::new()), vec((text(), text()), 0..4)]
}

fn u16_above_0() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|n| NonZeroU16::new(n).unwrap())
}

fn u32_above_0() -> impl Strategy<Value = NonZeroU32> {
    (1..=u32::MAX).prop_map(|n| NonZeroU32::new(n).unwrap())
}

/// Of every length its integer can have.
fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    prop_oneof![
        1..=127_u32,
        128..=16_383_u32,
        16_384..=2_097_151_u32,
        2_097_152..=268_435_455_u32
    ]
    .prop_map(|n| SubscriptionId::new(n).unwrap())
}

/// Authentication data stands only beside a method (5.0 section 3.1.2.11.10).
pub(super) fn connect() -> impl Strategy<Value = ConnectProperties> {
    (
        of(any::<u32>()),
        of(u16_above_0()),
        of(u32_above_0()),
        of(any::<u16>()),
        of(any::<bool>()),
        of(any::<bool>()),
        of((text(), of(secret()))),
        users(),
    )
        .prop_map(|fields| {
            let (method, data) = fields.6.unzip();
            ConnectProperties {
                session_expiry_interval: fields.0,
                receive_maximum: fields.1,
                maximum_packet_size: fields.2,
                topic_alias_maximum: fields.3,
                request_response_information: fields.4,
                request_problem_information: fields.5,
                authentication_method: method,
                authentication_data: data.flatten(),
                user_properties: fields.7,
            }
        })
}

pub(super) fn will() -> impl Strategy<Value = WillProperties> {
    (
        of(any::<u32>()),
        of(any::<bool>()),
        of(any::<u32>()),
        of(text()),
        of(topic_name()),
        of(binary()),
        users(),
    )
        .prop_map(|fields| WillProperties {
            will_delay_interval: fields.0,
            payload_format_indicator: fields.1,
            message_expiry_interval: fields.2,
            content_type: fields.3,
            response_topic: fields.4,
            correlation_data: fields.5,
            user_properties: fields.6,
        })
}

/// Maximum QoS is 0 or 1; its absence says 2.
pub(super) fn connack() -> impl Strategy<Value = ConnAckProperties> {
    let maximum_qos = prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)];
    let limits = (
        of(any::<u32>()),
        of(u16_above_0()),
        of(maximum_qos),
        of(any::<bool>()),
        of(u32_above_0()),
        of(text()),
        of(any::<u16>()),
        of(text()),
        users(),
    );
    let rest = (
        of(any::<bool>()),
        of(any::<bool>()),
        of(any::<bool>()),
        of(any::<u16>()),
        of(text()),
        of(text()),
        of(text()),
        of(secret()),
    );
    (limits, rest).prop_map(|(limits, rest)| ConnAckProperties {
        session_expiry_interval: limits.0,
        receive_maximum: limits.1,
        maximum_qos: limits.2,
        retain_available: limits.3,
        maximum_packet_size: limits.4,
        assigned_client_identifier: limits.5,
        topic_alias_maximum: limits.6,
        reason_string: limits.7,
        user_properties: limits.8,
        wildcard_subscription_available: rest.0,
        subscription_identifiers_available: rest.1,
        shared_subscription_available: rest.2,
        server_keep_alive: rest.3,
        response_information: rest.4,
        server_reference: rest.5,
        authentication_method: rest.6,
        authentication_data: rest.7,
    })
}

pub(super) fn publish() -> impl Strategy<Value = PublishProperties> {
    (
        of(any::<bool>()),
        of(any::<u32>()),
        of(u16_above_0()),
        of(topic_name()),
        of(binary()),
        vec(subscription_id(), 0..4),
        of(text()),
        users(),
    )
        .prop_map(|fields| PublishProperties {
            payload_format_indicator: fields.0,
            message_expiry_interval: fields.1,
            topic_alias: fields.2,
            response_topic: fields.3,
            correlation_data: fields.4,
            subscription_identifiers: fields.5,
            content_type: fields.6,
            user_properties: fields.7,
        })
}

pub(super) fn ack() -> impl Strategy<Value = AckProperties> {
    (of(text()), users()).prop_map(|(reason_string, user_properties)| AckProperties {
        reason_string,
        user_properties,
    })
}

pub(super) fn subscribe() -> impl Strategy<Value = SubscribeProperties> {
    (of(subscription_id()), users()).prop_map(|(subscription_identifier, user_properties)| {
        SubscribeProperties {
            subscription_identifier,
            user_properties,
        }
    })
}

pub(super) fn unsubscribe() -> impl Strategy<Value = UnsubscribeProperties> {
    users().prop_map(|user_properties| UnsubscribeProperties { user_properties })
}

pub(super) fn disconnect() -> impl Strategy<Value = DisconnectProperties> {
    (of(any::<u32>()), of(text()), of(text()), users()).prop_map(|fields| DisconnectProperties {
        session_expiry_interval: fields.0,
        reason_string: fields.1,
        server_reference: fields.2,
        user_properties: fields.3,
    })
}

pub(super) fn auth() -> impl Strategy<Value = AuthProperties> {
    (of(text()), of(secret()), of(text()), users()).prop_map(|fields| AuthProperties {
        authentication_method: fields.0,
        authentication_data: fields.1,
        reason_string: fields.2,
        user_properties: fields.3,
    })
}
