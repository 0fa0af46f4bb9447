//! What a packet of an accepted connection leads to.

use super::{Event, Phase, Session, receiving::Arrival, sending::Step};
use crate::{
    ProtocolError, ReasonCode, Version,
    packet::{Ack, AckProperties, Packet, PacketType, Properties},
};

impl<T> Session<T> {
    pub(super) fn on_packet(&mut self, packet: Packet) -> Result<Option<Event<T>>, ProtocolError> {
        match packet {
            Packet::Publish(mut publish) => {
                let arrival = self.receiving.on_publish(&mut publish)?;
                if publish.packet_id.is_some() {
                    self.flush_acks();
                }
                Ok(match arrival {
                    Arrival::New(ack) => Some(Event::Message {
                        message: publish.message,
                        ack,
                        dup: publish.dup,
                    }),
                    Arrival::Repeat => None,
                })
            }
            Packet::PubAck(ack) => self.on_ack(PacketType::PubAck, ack),
            Packet::PubRec(ack) => self.on_ack(PacketType::PubRec, ack),
            Packet::PubComp(ack) => self.on_ack(PacketType::PubComp, ack),
            Packet::PubRel(ack) => {
                self.check_problem_information(PacketType::PubRel, &ack.properties)?;
                let answer = self.receiving.on_pubrel(ack.packet_id);
                self.write_ack(PacketType::PubComp, answer);
                Ok(None)
            }
            Packet::SubAck(suback) => {
                self.check_problem_information(PacketType::SubAck, &suback.properties)?;
                let token = self.sending.on_answer(
                    PacketType::SubAck,
                    suback.packet_id,
                    suback.reason_codes.len(),
                )?;
                Ok(token.map(|(token, _)| Event::Answered {
                    token,
                    reason_codes: suback.reason_codes,
                    properties: suback.properties,
                }))
            }
            Packet::UnsubAck(unsuback) => {
                self.check_problem_information(PacketType::UnsubAck, &unsuback.properties)?;
                let codes = match self.version {
                    Version::V3 => None,
                    Version::V5 => Some(unsuback.reason_codes.len()),
                };
                let answered = self.sending.on_unsuback(unsuback.packet_id, codes)?;
                Ok(answered.map(|(token, filters)| Event::Answered {
                    token,
                    reason_codes: match self.version {
                        Version::V3 => vec![ReasonCode::SUCCESS; filters],
                        Version::V5 => unsuback.reason_codes,
                    },
                    properties: unsuback.properties,
                }))
            }
            Packet::PingResp => Ok(None),
            Packet::Disconnect(disconnect)
                if self.version == Version::V5
                    && disconnect.properties.session_expiry_interval.is_none() =>
            {
                self.phase = Phase::Closed;
                Ok(Some(Event::Disconnected(Box::new(disconnect))))
            }
            Packet::Auth(auth) => self.on_auth(auth).map(Some),
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Disconnect(_) => Err(self.unexpected(packet.packet_type())),
        }
    }

    pub(super) fn on_ack(
        &mut self,
        packet_type: PacketType,
        mut ack: Ack,
    ) -> Result<Option<Event<T>>, ProtocolError> {
        self.check_problem_information(packet_type, &ack.properties)?;
        match self.sending.on_ack(packet_type, &mut ack)? {
            Step::Nothing => Ok(None),
            Step::Release(reason_code) => {
                self.write_ack(
                    PacketType::PubRel,
                    Ack::with_reason(ack.packet_id, reason_code),
                );
                Ok(None)
            }
            Step::Ended { token, reason_code } => {
                self.resend();
                Ok(Some(Event::Published {
                    token,
                    reason_code,
                    properties: ack.properties,
                }))
            }
        }
    }

    pub(super) fn check_problem_information(
        &self,
        packet_type: PacketType,
        properties: &Properties<AckProperties>,
    ) -> Result<(), ProtocolError> {
        if properties.is_empty() {
            return Ok(());
        }
        let has_texts =
            properties.reason_string.is_some() || !properties.user_properties.is_empty();
        self.check_texts(packet_type, has_texts)
    }

    /// With Request Problem Information 0 a server sends texts in PUBLISH, CONNACK and DISCONNECT
    /// only `[MQTT5 3.1.2.11.7]`.
    pub(super) fn check_texts(
        &self,
        packet_type: PacketType,
        has_texts: bool,
    ) -> Result<(), ProtocolError> {
        let asked = self
            .connect
            .as_ref()
            .and_then(|connect| connect.properties.request_problem_information);
        if asked == Some(false) && has_texts {
            return Err(ProtocolError::UnaskedProblemInformation { packet_type });
        }
        Ok(())
    }
}
