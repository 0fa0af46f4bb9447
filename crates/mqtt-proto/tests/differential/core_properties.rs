//! Properties in the words of `mqtt-protocol-core`, in the order in which ours are written.

use mqtt_proto::{
    QoS,
    packet::{
        AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
        PublishProperties, SubscribeProperties, UserProperty, WillProperties,
    },
};
use mqtt_protocol_core::mqtt::packet::{self as theirs, PayloadFormat, Property};

/// `Some(value)` of each field as the property of that name, then the user properties.
macro_rules! list {
    ($users:expr $(, $field:expr => $name:ident by $value:expr)* $(,)?) => {{
        let mut list: Vec<Property> = Vec::new();
        $(
            #[allow(clippy::redundant_closure_call, reason = "the closure gives the field a type")]
            list.extend($field.iter().map(|field| {
                Property::from(theirs::$name::new($value(field)).unwrap())
            }));
        )*
        list.extend(users($users));
        list
    }};
}

pub(crate) fn users(users: &[UserProperty]) -> Vec<Property> {
    users
        .iter()
        .map(|(name, value)| theirs::UserProperty::new(&**name, &**value).unwrap().into())
        .collect()
}

fn format(is_utf8: &bool) -> PayloadFormat {
    if *is_utf8 {
        PayloadFormat::String
    } else {
        PayloadFormat::Binary
    }
}

fn text<T: std::ops::Deref<Target = str>>(text: &T) -> &str {
    text
}

fn flag(flag: &bool) -> u8 {
    u8::from(*flag)
}

#[rustfmt::skip]
pub(crate) fn connect(from: &ConnectProperties) -> Vec<Property> {
    list!(&from.user_properties,
        from.session_expiry_interval => SessionExpiryInterval by |it: &u32| *it,
        from.receive_maximum => ReceiveMaximum by |it: &std::num::NonZeroU16| it.get(),
        from.maximum_packet_size => MaximumPacketSize by |it: &std::num::NonZeroU32| it.get(),
        from.topic_alias_maximum => TopicAliasMaximum by |it: &u16| *it,
        from.request_response_information => RequestResponseInformation by flag,
        from.request_problem_information => RequestProblemInformation by flag,
        from.authentication_method => AuthenticationMethod by text,
        from.authentication_data => AuthenticationData by |it: &mqtt_proto::Secret| it.expose().to_vec(),
    )
}

#[rustfmt::skip]
pub(crate) fn will(from: &WillProperties) -> Vec<Property> {
    list!(&from.user_properties,
        from.will_delay_interval => WillDelayInterval by |it: &u32| *it,
        from.payload_format_indicator => PayloadFormatIndicator by format,
        from.message_expiry_interval => MessageExpiryInterval by |it: &u32| *it,
        from.content_type => ContentType by text,
        from.response_topic => ResponseTopic by text,
        from.correlation_data => CorrelationData by |it: &mqtt_proto::BinaryData| it.to_vec(),
    )
}

#[rustfmt::skip]
pub(crate) fn connack(from: &ConnAckProperties) -> Vec<Property> {
    list!(&from.user_properties,
        from.session_expiry_interval => SessionExpiryInterval by |it: &u32| *it,
        from.receive_maximum => ReceiveMaximum by |it: &std::num::NonZeroU16| it.get(),
        from.maximum_qos => MaximumQos by |it: &QoS| it.bits(),
        from.retain_available => RetainAvailable by flag,
        from.maximum_packet_size => MaximumPacketSize by |it: &std::num::NonZeroU32| it.get(),
        from.assigned_client_identifier => AssignedClientIdentifier by text,
        from.topic_alias_maximum => TopicAliasMaximum by |it: &u16| *it,
        from.reason_string => ReasonString by text,
        from.wildcard_subscription_available => WildcardSubscriptionAvailable by flag,
        from.subscription_identifiers_available => SubscriptionIdentifierAvailable by flag,
        from.shared_subscription_available => SharedSubscriptionAvailable by flag,
        from.server_keep_alive => ServerKeepAlive by |it: &u16| *it,
        from.response_information => ResponseInformation by text,
        from.server_reference => ServerReference by text,
        from.authentication_method => AuthenticationMethod by text,
        from.authentication_data => AuthenticationData by |it: &mqtt_proto::Secret| it.expose().to_vec(),
    )
}

#[rustfmt::skip]
pub(crate) fn publish(from: &PublishProperties) -> Vec<Property> {
    list!(&from.user_properties,
        from.payload_format_indicator => PayloadFormatIndicator by format,
        from.message_expiry_interval => MessageExpiryInterval by |it: &u32| *it,
        from.topic_alias => TopicAlias by |it: &std::num::NonZeroU16| it.get(),
        from.response_topic => ResponseTopic by text,
        from.correlation_data => CorrelationData by |it: &mqtt_proto::BinaryData| it.to_vec(),
        from.subscription_identifiers => SubscriptionIdentifier by |it: &mqtt_proto::packet::SubscriptionId| it.value(),
        from.content_type => ContentType by text,
    )
}

pub(crate) fn ack(from: &AckProperties) -> Vec<Property> {
    list!(&from.user_properties, from.reason_string => ReasonString by text)
}

pub(crate) fn subscribe(from: &SubscribeProperties) -> Vec<Property> {
    let value = |it: &mqtt_proto::packet::SubscriptionId| it.value();
    list!(&from.user_properties, from.subscription_identifier => SubscriptionIdentifier by value)
}

#[rustfmt::skip]
pub(crate) fn disconnect(from: &DisconnectProperties) -> Vec<Property> {
    list!(&from.user_properties,
        from.session_expiry_interval => SessionExpiryInterval by |it: &u32| *it,
        from.reason_string => ReasonString by text,
        from.server_reference => ServerReference by text,
    )
}

#[rustfmt::skip]
pub(crate) fn auth(from: &AuthProperties) -> Vec<Property> {
    list!(&from.user_properties,
        from.authentication_method => AuthenticationMethod by text,
        from.authentication_data => AuthenticationData by |it: &mqtt_proto::Secret| it.expose().to_vec(),
        from.reason_string => ReasonString by text,
    )
}
