//! `rumqttc`'s codec of 5.0: plain structs, properties absent rather than empty.

use bytes::{Bytes, BytesMut};
use mqtt_proto::{
    BinaryData, QoS, ReasonCode, Secret, Version,
    packet::{
        AckProperties, ConnAckProperties, ConnectProperties, Disconnect, DisconnectProperties,
        Packet, PublishProperties, RetainHandling, SubAck, Subscribe, SubscribeProperties,
        UnsubAck, UserProperty, Will, WillProperties,
    },
};
use rumqttc::v5::mqttbytes::{self as theirs, v5};

use super::{Cannot, Peer, rumqttc_v3::login};

#[derive(Debug)]
pub(crate) struct Rumqttc;

impl Peer for Rumqttc {
    type Packet = v5::Packet;

    fn name(&self) -> &'static str {
        "rumqttc"
    }

    fn version(&self) -> Version {
        Version::V5
    }

    fn convert(&self, packet: &Packet) -> Result<v5::Packet, Cannot> {
        Ok(match packet {
            Packet::Connect(connect) => {
                let login =
                    login(connect)?.map(|(username, password)| v5::Login { username, password });
                let connected = v5::Connect {
                    keep_alive: connect.keep_alive,
                    client_id: connect.client_id.to_string(),
                    clean_start: connect.clean_start,
                    properties: some(&*connect.properties, connect_properties),
                };
                v5::Packet::Connect(connected, connect.will.as_deref().map(will), login)
            }
            Packet::ConnAck(connack) => v5::Packet::ConnAck(v5::ConnAck {
                session_present: connack.session_present,
                code: match read(&[0x20, 3, 0, connack.reason_code.value(), 0]) {
                    v5::Packet::ConnAck(connack) => connack.code,
                    other => panic!("{other:?}"),
                },
                properties: some(&*connack.properties, connack_properties),
            }),
            Packet::Publish(publish) => v5::Packet::Publish(v5::Publish {
                dup: publish.dup,
                qos: qos(publish.message.qos),
                retain: publish.message.retain,
                topic: Bytes::copy_from_slice(publish.message.topic.as_bytes()),
                pkid: publish.packet_id.map_or(0, mqtt_proto::PacketId::value),
                payload: publish.message.payload.clone(),
                properties: some(&*publish.message.properties, publish_properties),
            }),
            Packet::PubAck(ack) => ack!(PubAck, PubAckProperties, 0x40, ack),
            Packet::PubRec(ack) => ack!(PubRec, PubRecProperties, 0x50, ack),
            Packet::PubRel(ack) => ack!(PubRel, PubRelProperties, 0x62, ack),
            Packet::PubComp(ack) => ack!(PubComp, PubCompProperties, 0x70, ack),
            Packet::Subscribe(from) => v5::Packet::Subscribe(subscribe(from)),
            Packet::SubAck(SubAck {
                packet_id,
                reason_codes,
                properties,
            }) => {
                let code = |code: &ReasonCode| match read(&[0x90, 4, 0, 1, 0, code.value()]) {
                    v5::Packet::SubAck(suback) => suback.return_codes[0],
                    other => panic!("{other:?}"),
                };
                v5::Packet::SubAck(v5::SubAck {
                    pkid: packet_id.value(),
                    return_codes: reason_codes.iter().map(code).collect(),
                    properties: some(&**properties, |from: &AckProperties| v5::SubAckProperties {
                        reason_string: from.reason_string.as_deref().map(str::to_owned),
                        user_properties: users(&from.user_properties),
                    }),
                })
            }
            Packet::Unsubscribe(unsubscribe) => v5::Packet::Unsubscribe(v5::Unsubscribe {
                pkid: unsubscribe.packet_id.value(),
                filters: unsubscribe
                    .filters
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                properties: some(&*unsubscribe.properties, |from| v5::UnsubscribeProperties {
                    user_properties: users(&from.user_properties),
                }),
            }),
            Packet::UnsubAck(UnsubAck {
                packet_id,
                reason_codes,
                properties,
            }) => {
                let code = |code: &ReasonCode| match read(&[0xB0, 4, 0, 1, 0, code.value()]) {
                    v5::Packet::UnsubAck(unsuback) => unsuback.reasons[0],
                    other => panic!("{other:?}"),
                };
                v5::Packet::UnsubAck(v5::UnsubAck {
                    pkid: packet_id.value(),
                    reasons: reason_codes.iter().map(code).collect(),
                    properties: some(&**properties, |from: &AckProperties| {
                        v5::UnsubAckProperties {
                            reason_string: from.reason_string.as_deref().map(str::to_owned),
                            user_properties: users(&from.user_properties),
                        }
                    }),
                })
            }
            Packet::PingReq => v5::Packet::PingReq(v5::PingReq),
            Packet::PingResp => v5::Packet::PingResp(v5::PingResp),
            Packet::Disconnect(from) => v5::Packet::Disconnect(disconnect(from)),
            Packet::Auth(_) => return Err(Cannot::Auth),
        })
    }

    fn encode(&self, packet: &v5::Packet) -> Vec<u8> {
        let mut out = BytesMut::new();
        packet.write(&mut out, None).unwrap();
        out.into()
    }

    fn decode(&self, bytes: &[u8]) -> Result<v5::Packet, String> {
        v5::Packet::read(&mut bytes.into(), None).map_err(|error| error.to_string())
    }
}

/// Their reading of a number, for the codes whose names have no public numbers.
fn read(bytes: &[u8]) -> v5::Packet {
    v5::Packet::read(&mut bytes.into(), None).unwrap()
}

macro_rules! ack {
    ($name:ident, $properties:ident, $first:literal, $ack:expr) => {
        v5::Packet::$name(v5::$name {
            pkid: $ack.packet_id.value(),
            reason: match read(&[$first, 3, 0, 1, $ack.reason_code.value()]) {
                v5::Packet::$name(ack) => ack.reason,
                other => panic!("{other:?}"),
            },
            properties: some(&*$ack.properties, |from: &AckProperties| v5::$properties {
                reason_string: from.reason_string.as_deref().map(str::to_owned),
                user_properties: users(&from.user_properties),
            }),
        })
    };
}
use ack;

/// Their properties, or `None` where ours are all absent.
fn some<P: Default + PartialEq, T>(from: &P, convert: impl FnOnce(&P) -> T) -> Option<T> {
    (*from != P::default()).then(|| convert(from))
}

fn qos(qos: QoS) -> theirs::QoS {
    theirs::qos(qos.bits()).unwrap()
}

fn text<T: std::ops::Deref<Target = str>>(text: &Option<T>) -> Option<String> {
    text.as_deref().map(str::to_owned)
}

fn binary(data: &Option<BinaryData>) -> Option<Bytes> {
    data.clone().map(BinaryData::into_bytes)
}

fn secret(data: &Option<Secret>) -> Option<Bytes> {
    data.as_ref()
        .map(|data| Bytes::copy_from_slice(data.expose()))
}

fn users(users: &[UserProperty]) -> Vec<(String, String)> {
    users
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn connect_properties(from: &ConnectProperties) -> v5::ConnectProperties {
    v5::ConnectProperties {
        session_expiry_interval: from.session_expiry_interval,
        receive_maximum: from.receive_maximum.map(Into::into),
        max_packet_size: from.maximum_packet_size.map(Into::into),
        topic_alias_max: from.topic_alias_maximum,
        request_response_info: from.request_response_information.map(u8::from),
        request_problem_info: from.request_problem_information.map(u8::from),
        user_properties: users(&from.user_properties),
        authentication_method: text(&from.authentication_method),
        authentication_data: secret(&from.authentication_data),
    }
}

fn will(will: &Will) -> v5::LastWill {
    v5::LastWill {
        topic: Bytes::copy_from_slice(will.topic.as_bytes()),
        message: will.payload.clone().into_bytes(),
        qos: qos(will.qos),
        retain: will.retain,
        properties: some(&*will.properties, |from: &WillProperties| {
            v5::LastWillProperties {
                delay_interval: from.will_delay_interval,
                payload_format_indicator: from.payload_format_indicator.map(u8::from),
                message_expiry_interval: from.message_expiry_interval,
                content_type: text(&from.content_type),
                response_topic: text(&from.response_topic),
                correlation_data: binary(&from.correlation_data),
                user_properties: users(&from.user_properties),
            }
        }),
    }
}

fn connack_properties(from: &ConnAckProperties) -> v5::ConnAckProperties {
    v5::ConnAckProperties {
        session_expiry_interval: from.session_expiry_interval,
        receive_max: from.receive_maximum.map(Into::into),
        max_qos: from.maximum_qos.map(QoS::bits),
        retain_available: from.retain_available.map(u8::from),
        max_packet_size: from.maximum_packet_size.map(Into::into),
        assigned_client_identifier: text(&from.assigned_client_identifier),
        topic_alias_max: from.topic_alias_maximum,
        reason_string: text(&from.reason_string),
        user_properties: users(&from.user_properties),
        wildcard_subscription_available: from.wildcard_subscription_available.map(u8::from),
        subscription_identifiers_available: from.subscription_identifiers_available.map(u8::from),
        shared_subscription_available: from.shared_subscription_available.map(u8::from),
        server_keep_alive: from.server_keep_alive,
        response_information: text(&from.response_information),
        server_reference: text(&from.server_reference),
        authentication_method: text(&from.authentication_method),
        authentication_data: secret(&from.authentication_data),
    }
}

fn publish_properties(from: &PublishProperties) -> v5::PublishProperties {
    v5::PublishProperties {
        payload_format_indicator: from.payload_format_indicator.map(u8::from),
        message_expiry_interval: from.message_expiry_interval,
        topic_alias: from.topic_alias.map(Into::into),
        response_topic: text(&from.response_topic),
        correlation_data: binary(&from.correlation_data),
        user_properties: users(&from.user_properties),
        subscription_identifiers: from
            .subscription_identifiers
            .iter()
            .map(|id| usize::try_from(id.value()).unwrap())
            .collect(),
        content_type: text(&from.content_type),
    }
}

fn subscribe(from: &Subscribe) -> v5::Subscribe {
    v5::Subscribe {
        pkid: from.packet_id.value(),
        filters: from
            .filters
            .iter()
            .map(|filter| v5::Filter {
                path: filter.filter.to_string(),
                qos: qos(filter.options.qos),
                nolocal: filter.options.no_local,
                preserve_retain: filter.options.retain_as_published,
                retain_forward_rule: match filter.options.retain_handling {
                    RetainHandling::Send => v5::RetainForwardRule::OnEverySubscribe,
                    RetainHandling::SendIfNew => v5::RetainForwardRule::OnNewSubscribe,
                    RetainHandling::DoNotSend => v5::RetainForwardRule::Never,
                },
            })
            .collect(),
        properties: some(&*from.properties, |from: &SubscribeProperties| {
            v5::SubscribeProperties {
                id: from
                    .subscription_identifier
                    .map(|id| usize::try_from(id.value()).unwrap()),
                user_properties: users(&from.user_properties),
            }
        }),
    }
}

fn disconnect(from: &Disconnect) -> v5::Disconnect {
    v5::Disconnect {
        reason_code: from.reason_code.value().try_into().unwrap(),
        properties: some(&*from.properties, |from: &DisconnectProperties| {
            v5::DisconnectProperties {
                session_expiry_interval: from.session_expiry_interval,
                reason_string: text(&from.reason_string),
                user_properties: users(&from.user_properties),
                server_reference: text(&from.server_reference),
            }
        }),
    }
}
