//! `rumqttc`'s codec of 3.1.1: plain structs.

use bytes::{Bytes, BytesMut};
use mqtt_proto::{
    QoS, Version,
    packet::{Connect, Packet},
};
use rumqttc::mqttbytes::{self as theirs, v4};

use super::{Cannot, Peer};

#[derive(Debug)]
pub(crate) struct Rumqttc;

impl Peer for Rumqttc {
    type Packet = v4::Packet;

    fn name(&self) -> &'static str {
        "rumqttc"
    }

    fn version(&self) -> Version {
        Version::V3
    }

    fn convert(&self, packet: &Packet) -> Result<v4::Packet, Cannot> {
        Ok(match packet {
            Packet::Connect(connect) => {
                let will = connect.will.as_deref().map(|will| v4::LastWill {
                    topic: will.topic.to_string(),
                    message: will.payload.clone().into_bytes(),
                    qos: qos(will.qos),
                    retain: will.retain,
                });
                let login =
                    login(connect)?.map(|(username, password)| v4::Login { username, password });
                v4::Packet::Connect(v4::Connect {
                    protocol: theirs::Protocol::V4,
                    keep_alive: connect.keep_alive,
                    client_id: connect.client_id.to_string(),
                    clean_session: connect.clean_start,
                    last_will: will,
                    login,
                })
            }
            Packet::ConnAck(connack) => {
                let code = match connack.reason_code.value() {
                    0x00 => v4::ConnectReturnCode::Success,
                    0x84 => v4::ConnectReturnCode::RefusedProtocolVersion,
                    0x85 => v4::ConnectReturnCode::BadClientId,
                    0x88 => v4::ConnectReturnCode::ServiceUnavailable,
                    0x86 => v4::ConnectReturnCode::BadUserNamePassword,
                    0x87 => v4::ConnectReturnCode::NotAuthorized,
                    other => panic!("no return code for {other}"),
                };
                v4::Packet::ConnAck(v4::ConnAck::new(code, connack.session_present))
            }
            Packet::Publish(publish) => v4::Packet::Publish(v4::Publish {
                dup: publish.dup,
                qos: qos(publish.message.qos),
                retain: publish.message.retain,
                topic: publish.message.topic.to_string(),
                pkid: publish.packet_id.map_or(0, mqtt_proto::PacketId::value),
                payload: publish.message.payload.clone(),
            }),
            Packet::PubAck(ack) => v4::Packet::PubAck(v4::PubAck::new(ack.packet_id.value())),
            Packet::PubRec(ack) => v4::Packet::PubRec(v4::PubRec::new(ack.packet_id.value())),
            Packet::PubRel(ack) => v4::Packet::PubRel(v4::PubRel::new(ack.packet_id.value())),
            Packet::PubComp(ack) => v4::Packet::PubComp(v4::PubComp::new(ack.packet_id.value())),
            Packet::Subscribe(subscribe) => v4::Packet::Subscribe(v4::Subscribe {
                pkid: subscribe.packet_id.value(),
                filters: subscribe
                    .filters
                    .iter()
                    .map(|filter| v4::SubscribeFilter {
                        path: filter.filter.to_string(),
                        qos: qos(filter.options.qos),
                    })
                    .collect(),
            }),
            Packet::SubAck(suback) => v4::Packet::SubAck(v4::SubAck::new(
                suback.packet_id.value(),
                suback
                    .reason_codes
                    .iter()
                    .map(|code| v4::SubscribeReasonCode::try_from(code.value()).unwrap())
                    .collect(),
            )),
            Packet::Unsubscribe(unsubscribe) => v4::Packet::Unsubscribe(v4::Unsubscribe {
                pkid: unsubscribe.packet_id.value(),
                topics: unsubscribe
                    .filters
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            }),
            Packet::UnsubAck(unsuback) => {
                v4::Packet::UnsubAck(v4::UnsubAck::new(unsuback.packet_id.value()))
            }
            Packet::PingReq => v4::Packet::PingReq,
            Packet::PingResp => v4::Packet::PingResp,
            Packet::Disconnect(_) => v4::Packet::Disconnect,
            Packet::Auth(_) => panic!("3.1.1 has no AUTH"),
        })
    }

    fn encode(&self, packet: &v4::Packet) -> Vec<u8> {
        let mut out = BytesMut::new();
        packet.write(&mut out, usize::MAX).unwrap();
        out.into()
    }

    fn decode(&self, bytes: &[u8]) -> Result<v4::Packet, String> {
        v4::Packet::read(&mut bytes.into(), usize::MAX).map_err(|error| error.to_string())
    }
}

fn qos(qos: QoS) -> theirs::QoS {
    theirs::qos(qos.bits()).unwrap()
}

/// User name and password, where empty means absent and a password is text.
pub(super) fn login(connect: &Connect) -> Result<Option<(String, String)>, Cannot> {
    let password = connect.password.as_ref().map(|password| password.expose());
    if connect.user_name.as_deref() == Some("") || password == Some(b"") {
        return Err(Cannot::EmptyCredential);
    }
    let password = Bytes::copy_from_slice(password.unwrap_or_default());
    let Ok(password) = String::from_utf8(password.into()) else {
        return Err(Cannot::BinaryPassword);
    };
    let user_name = connect.user_name.as_deref().unwrap_or_default().to_owned();
    Ok((!user_name.is_empty() || !password.is_empty()).then_some((user_name, password)))
}
