//! `mqtt-protocol-core`: packets by builders, properties as a list, both versions.

use std::{fmt::Debug, sync::Arc};

use mqtt_proto::{
    QoS, Version,
    packet::{
        Ack, Connect, Packet, Publish, RetainHandling, SubAck, Subscribe, UnsubAck, Unsubscribe,
    },
};
use mqtt_protocol_core::mqtt::{
    packet::{
        self as theirs, GenericPacketTrait, MqttString, Qos, SubEntry, SubOpts, v3_1_1 as v3,
        v5_0 as v5,
    },
    result_code::{ConnectReturnCode, MqttError, SubackReturnCode},
};

use super::{Cannot, Peer, core_properties as properties, split};

#[derive(Debug)]
pub(crate) struct Core(pub(crate) Version);

impl Peer for Core {
    type Packet = theirs::Packet;

    fn name(&self) -> &'static str {
        "mqtt-protocol-core"
    }

    fn version(&self) -> Version {
        self.0
    }

    fn convert(&self, packet: &Packet) -> Result<theirs::Packet, Cannot> {
        if let Packet::Connect(connect) = packet
            && connect.password.is_some()
            && connect.user_name.is_none()
        {
            return Err(Cannot::PasswordAlone);
        }
        Ok(match self.0 {
            Version::V5 => to_v5(packet),
            _ => to_v3(packet),
        }
        .unwrap_or_else(|error| panic!("{packet:?}: {error:?}")))
    }

    fn encode(&self, packet: &theirs::Packet) -> Vec<u8> {
        packet.to_continuous_buffer()
    }

    /// Packets are parsed by type from their body; the rest of the fixed header is the caller's,
    /// and so is what to do about bytes that were not used.
    fn decode(&self, bytes: &[u8]) -> Result<theirs::Packet, String> {
        let (first, body) = split(bytes);
        let (packet, used) = match self.0 {
            Version::V5 => parse_v5(first, body),
            _ => parse_v3(first, body),
        }
        .map_err(|error| format!("{error:?}"))?;
        if used == body.len() {
            Ok(packet)
        } else {
            Err(format!("{} bytes remain", body.len() - used))
        }
    }
}

fn qos(qos: QoS) -> Qos {
    Qos::try_from(qos.bits()).unwrap()
}

fn code<T: TryFrom<u8, Error: Debug>>(code: mqtt_proto::ReasonCode) -> T {
    T::try_from(code.value()).unwrap()
}

type Converted = Result<theirs::Packet, MqttError>;

macro_rules! connect {
    ($connect:expr, $builder:expr) => {{
        let connect: &Connect = $connect;
        let mut builder = $builder
            .client_id(&*connect.client_id)?
            .clean_start(connect.clean_start)
            .keep_alive(connect.keep_alive);
        if let Some(will) = &connect.will {
            builder = builder.will_message(
                &*will.topic,
                will.payload.to_vec(),
                qos(will.qos),
                will.retain,
            )?;
        }
        if let Some(user_name) = &connect.user_name {
            builder = builder.user_name(&**user_name)?;
        }
        if let Some(password) = &connect.password {
            builder = builder.password(password.expose().to_vec())?;
        }
        builder
    }};
}

macro_rules! publish {
    ($publish:expr, $builder:expr) => {{
        let publish: &Publish = $publish;
        let message = &publish.message;
        let mut builder = $builder
            .topic_name(&*message.topic)?
            .qos(qos(message.qos))
            .retain(message.retain)
            .dup(publish.dup);
        if let Some(packet_id) = publish.packet_id {
            builder = builder.packet_id(packet_id.value());
        }
        builder.payload(message.payload.to_vec())
    }};
}

/// An acknowledgement of 5.0, short where it can be.
macro_rules! ack {
    ($ack:expr, $builder:expr) => {{
        let ack: &Ack = $ack;
        let mut builder = $builder.packet_id(ack.packet_id.value());
        if ack.reason_code.value() != 0 || !ack.properties.is_empty() {
            builder = builder.reason_code(code(ack.reason_code));
        }
        if !ack.properties.is_empty() {
            builder = builder.props(properties::ack(&ack.properties));
        }
        builder
    }};
}

fn entries(subscribe: &Subscribe) -> Result<Vec<SubEntry>, MqttError> {
    subscribe
        .filters
        .iter()
        .map(|filter| {
            let handling = match filter.options.retain_handling {
                RetainHandling::Send => theirs::RetainHandling::SendRetained,
                RetainHandling::SendIfNew => theirs::RetainHandling::SendRetainedIfNotExists,
                RetainHandling::DoNotSend => theirs::RetainHandling::DoNotSendRetained,
            };
            let options = SubOpts::new()
                .set_qos(qos(filter.options.qos))
                .set_nl(filter.options.no_local)
                .set_rap(filter.options.retain_as_published)
                .set_rh(handling);
            SubEntry::new(&*filter.filter, options)
        })
        .collect()
}

fn filters(unsubscribe: &Unsubscribe) -> Result<Vec<MqttString>, MqttError> {
    unsubscribe
        .filters
        .iter()
        .map(|filter| MqttString::new(&**filter))
        .collect()
}

fn to_v3(packet: &Packet) -> Converted {
    Ok(match packet {
        Packet::Connect(connect) => connect!(connect, v3::Connect::builder()).build()?.into(),
        Packet::ConnAck(connack) => {
            let code = match connack.reason_code.value() {
                0x00 => ConnectReturnCode::Accepted,
                0x84 => ConnectReturnCode::UnacceptableProtocolVersion,
                0x85 => ConnectReturnCode::IdentifierRejected,
                0x88 => ConnectReturnCode::ServerUnavailable,
                0x86 => ConnectReturnCode::BadUserNameOrPassword,
                0x87 => ConnectReturnCode::NotAuthorized,
                other => panic!("no return code for {other}"),
            };
            let present = connack.session_present;
            v3::Connack::builder()
                .session_present(present)
                .return_code(code)
                .build()?
                .into()
        }
        Packet::Publish(publish) => publish!(publish, v3::Publish::builder()).build()?.into(),
        Packet::PubAck(ack) => v3::Puback::builder()
            .packet_id(ack.packet_id.value())
            .build()?
            .into(),
        Packet::PubRec(ack) => v3::Pubrec::builder()
            .packet_id(ack.packet_id.value())
            .build()?
            .into(),
        Packet::PubRel(ack) => v3::Pubrel::builder()
            .packet_id(ack.packet_id.value())
            .build()?
            .into(),
        Packet::PubComp(ack) => v3::Pubcomp::builder()
            .packet_id(ack.packet_id.value())
            .build()?
            .into(),
        Packet::Subscribe(subscribe) => v3::Subscribe::builder()
            .packet_id(subscribe.packet_id.value())
            .entries(entries(subscribe)?)
            .build()?
            .into(),
        Packet::SubAck(suback) => v3::Suback::builder()
            .packet_id(suback.packet_id.value())
            .return_codes(
                suback
                    .reason_codes
                    .iter()
                    .map(|&it| code::<SubackReturnCode>(it))
                    .collect(),
            )
            .build()?
            .into(),
        Packet::Unsubscribe(unsubscribe) => v3::Unsubscribe::builder()
            .packet_id(unsubscribe.packet_id.value())
            .entries(filters(unsubscribe)?)?
            .build()?
            .into(),
        Packet::UnsubAck(unsuback) => v3::Unsuback::builder()
            .packet_id(unsuback.packet_id.value())
            .build()?
            .into(),
        Packet::PingReq => v3::Pingreq::new().into(),
        Packet::PingResp => v3::Pingresp::new().into(),
        Packet::Disconnect(_) => v3::Disconnect::new().into(),
        Packet::Auth(_) => panic!("3.1.1 has no AUTH"),
    })
}

fn to_v5(packet: &Packet) -> Converted {
    Ok(match packet {
        Packet::Connect(connect) => {
            let mut builder = connect!(connect, v5::Connect::builder())
                .props(properties::connect(&connect.properties));
            if let Some(will) = &connect.will {
                builder = builder.will_props(properties::will(&will.properties));
            }
            builder.build()?.into()
        }
        Packet::ConnAck(connack) => v5::Connack::builder()
            .session_present(connack.session_present)
            .reason_code(code(connack.reason_code))
            .props(properties::connack(&connack.properties))
            .build()?
            .into(),
        Packet::Publish(publish) => publish!(publish, v5::Publish::builder())
            .props(properties::publish(&publish.message.properties))
            .build()?
            .into(),
        Packet::PubAck(ack) => ack!(ack, v5::Puback::builder()).build()?.into(),
        Packet::PubRec(ack) => ack!(ack, v5::Pubrec::builder()).build()?.into(),
        Packet::PubRel(ack) => ack!(ack, v5::Pubrel::builder()).build()?.into(),
        Packet::PubComp(ack) => ack!(ack, v5::Pubcomp::builder()).build()?.into(),
        Packet::Subscribe(subscribe) => v5::Subscribe::builder()
            .packet_id(subscribe.packet_id.value())
            .entries(entries(subscribe)?)
            .props(properties::subscribe(&subscribe.properties))
            .build()?
            .into(),
        Packet::SubAck(SubAck {
            packet_id,
            reason_codes,
            properties,
        }) => v5::Suback::builder()
            .packet_id(packet_id.value())
            .reason_codes(reason_codes.iter().map(|&it| code(it)).collect())
            .props(properties::ack(properties))
            .build()?
            .into(),
        Packet::Unsubscribe(unsubscribe) => v5::Unsubscribe::builder()
            .packet_id(unsubscribe.packet_id.value())
            .entries(filters(unsubscribe)?)?
            .props(properties::users(&unsubscribe.properties.user_properties))
            .build()?
            .into(),
        Packet::UnsubAck(UnsubAck {
            packet_id,
            reason_codes,
            properties,
        }) => v5::Unsuback::builder()
            .packet_id(packet_id.value())
            .reason_codes(reason_codes.iter().map(|&it| code(it)).collect())
            .props(properties::ack(properties))
            .build()?
            .into(),
        Packet::PingReq => v5::Pingreq::new().into(),
        Packet::PingResp => v5::Pingresp::new().into(),
        Packet::Disconnect(disconnect) => {
            let mut builder = v5::Disconnect::builder();
            if disconnect.reason_code.value() != 0 || !disconnect.properties.is_empty() {
                builder = builder.reason_code(code(disconnect.reason_code));
            }
            if !disconnect.properties.is_empty() {
                builder = builder.props(properties::disconnect(&disconnect.properties));
            }
            builder.build()?.into()
        }
        Packet::Auth(auth) => {
            let mut builder = v5::Auth::builder();
            if auth.reason_code.value() != 0 || !auth.properties.is_empty() {
                builder = builder
                    .reason_code(code(auth.reason_code))
                    .props(properties::auth(&auth.properties));
            }
            builder.build()?.into()
        }
    })
}

type Parsed = Result<(theirs::Packet, usize), MqttError>;

macro_rules! parse {
    ($version:ident, $first:ident, $body:ident, $($extra:pat => $parsed:expr,)*) => {
        match $first >> 4 {
            1 => $version::Connect::parse($body).map(|(packet, used)| (packet.into(), used)),
            2 => $version::Connack::parse($body).map(|(packet, used)| (packet.into(), used)),
            3 => $version::Publish::parse($first & 0x0F, Arc::from($body)).map(|(packet, used)| (packet.into(), used)),
            4 => $version::Puback::parse($body).map(|(packet, used)| (packet.into(), used)),
            5 => $version::Pubrec::parse($body).map(|(packet, used)| (packet.into(), used)),
            6 => $version::Pubrel::parse($body).map(|(packet, used)| (packet.into(), used)),
            7 => $version::Pubcomp::parse($body).map(|(packet, used)| (packet.into(), used)),
            8 => $version::Subscribe::parse($body).map(|(packet, used)| (packet.into(), used)),
            9 => $version::Suback::parse($body).map(|(packet, used)| (packet.into(), used)),
            10 => $version::Unsubscribe::parse($body).map(|(packet, used)| (packet.into(), used)),
            11 => $version::Unsuback::parse($body).map(|(packet, used)| (packet.into(), used)),
            12 => $version::Pingreq::parse($body).map(|(packet, used)| (packet.into(), used)),
            13 => $version::Pingresp::parse($body).map(|(packet, used)| (packet.into(), used)),
            14 => $version::Disconnect::parse($body).map(|(packet, used)| (packet.into(), used)),
            $($extra => $parsed,)*
            other => panic!("type {other}"),
        }
    };
}

fn parse_v3(first: u8, body: &[u8]) -> Parsed {
    parse!(v3, first, body,)
}

fn parse_v5(first: u8, body: &[u8]) -> Parsed {
    parse!(v5, first, body, 15 => v5::Auth::parse(body).map(|(packet, used)| (packet.into(), used)),)
}
