//! What the caller asks for: publish, subscribe, unsubscribe, acknowledge.

use super::{AckId, Phase, Refused, Session, receiving, sending::Awaiting};
use crate::{
    Message, QoS, ReasonCode, TopicFilter, UsageError, Version,
    packet::{
        Packet, Properties, Subscribe, SubscribeFilter, SubscribeProperties, Unsubscribe,
        UnsubscribeProperties,
    },
};

impl<T> Session<T> {
    /// Whether a publish at `qos` would be admitted now.
    ///
    /// A full window holds back QoS 1 and 2 only `[MQTT5-3.3.4-8]`, a full buffer or a
    /// [pause](Self::pause) all.
    pub fn has_room(&self, qos: QoS) -> bool {
        self.phase == Phase::Connected
            && !self.is_paused
            && self.outbound.len() < self.options.max_unsent_bytes.max(1)
            && (qos == QoS::AtMostOnce || self.window_room() > 0)
    }

    /// Whether a subscribe would find room now. Publishes leave it as much of the buffer again as
    /// they may fill, so that it does not wait for them.
    pub fn has_room_for_subscribe(&self) -> bool {
        let max = self.options.max_unsent_bytes.max(1).saturating_mul(2);
        self.phase == Phase::Connected && self.outbound.len() < max
    }

    /// How many publishes at QoS 1 and 2 the window has room for now.
    pub fn window_room(&self) -> usize {
        self.sending.room(self.window())
    }

    /// Whether the server takes such a message, but for the size of its packet.
    pub fn check_publish(&self, message: &Message) -> Result<(), UsageError> {
        self.limits.check(message)
    }

    /// Publishes. At QoS 0 that is all, and the token comes back at once; otherwise it comes back
    /// in [`Event::Published`](super::Event::Published).
    #[allow(
        clippy::result_large_err,
        reason = "the message goes back to its owner"
    )]
    pub fn publish(&mut self, mut message: Message, token: T) -> Result<Option<T>, Refused<T>> {
        if let Err(error) = self.connected().and_then(|()| self.limits.check(&message)) {
            return Err(Refused {
                message,
                token,
                error: Some(error),
            });
        }
        if !self.has_room(message.qos) {
            return Err(Refused {
                message,
                token,
                error: None,
            });
        }
        let packet_id = match message.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                let Some(packet_id) = self.sending.next_id() else {
                    return Err(Refused {
                        message,
                        token,
                        error: Some(UsageError::NoPacketId),
                    });
                };
                Some(packet_id)
            }
        };
        if let Err(error) = self.write_publish(&message, packet_id) {
            return Err(Refused {
                message,
                token,
                error: Some(error),
            });
        }
        let Some(packet_id) = packet_id else {
            return Ok(Some(token));
        };
        // An alias holds on one connection only `[MQTT5-3.3.2-7]`; a resend names its topic.
        if !message.properties.is_empty() {
            message.properties.topic_alias = None;
        }
        self.sending.open_publish(packet_id, message, token);
        Ok(None)
    }

    /// Subscribes; [`Event::Answered`](super::Event::Answered) has the answer. On error the token is dropped.
    pub fn subscribe(
        &mut self,
        filters: Vec<SubscribeFilter>,
        properties: Properties<SubscribeProperties>,
        token: T,
    ) -> Result<(), UsageError> {
        self.connected()?;
        if filters.is_empty() {
            return Err(UsageError::NoFilter);
        }
        self.limits.check_subscribe(&filters, &properties)?;
        let packet_id = self.sending.next_id().ok_or(UsageError::NoPacketId)?;
        let count = filters.len();
        self.write(&Packet::Subscribe(Subscribe {
            packet_id,
            filters,
            properties,
        }))?;
        let order = self.sending.order();
        self.sending.open(
            packet_id,
            Awaiting::SubAck {
                token,
                filters: count,
                order,
            },
        );
        Ok(())
    }

    /// Unsubscribes; [`Event::Answered`](super::Event::Answered) has the answer. On error the token is dropped.
    pub fn unsubscribe(
        &mut self,
        filters: Vec<TopicFilter>,
        properties: Properties<UnsubscribeProperties>,
        token: T,
    ) -> Result<(), UsageError> {
        self.connected()?;
        if filters.is_empty() {
            return Err(UsageError::NoFilter);
        }
        let packet_id = self.sending.next_id().ok_or(UsageError::NoPacketId)?;
        let count = filters.len();
        self.write(&Packet::Unsubscribe(Unsubscribe {
            packet_id,
            filters,
            properties,
        }))?;
        let order = self.sending.order();
        self.sending.open(
            packet_id,
            Awaiting::UnsubAck {
                token,
                filters: count,
                order,
            },
        );
        Ok(())
    }

    /// The application has taken a message, or in 5.0 refuses it with a code of 0x80 and above.
    /// A code that PUBACK and PUBREC of a client cannot carry is told as the general one.
    ///
    /// Acknowledgements leave in the order in which the messages came, whatever the order of these
    /// calls `[MQTT5-4.6.0-2]` `[MQTT3-4.6.0-2]`. Nothing happens if the message came on an earlier
    /// connection and is to be sent again, or was acknowledged or given back already.
    ///
    /// Says whether it counts: the acknowledgement leaves in its turn, on this connection or, at QoS 2,
    /// on the next.
    pub fn acknowledge(&mut self, ack: AckId, reason_code: ReasonCode) -> bool {
        let reason_code = match self.version {
            // Its acknowledgements have no codes, so they always say that it was taken.
            Version::V3 => ReasonCode::SUCCESS,
            Version::V5 => receiving::from_client(reason_code),
        };
        let counts = self.is_answered(ack) && self.receiving.acknowledge(ack, reason_code);
        self.flush_acks();
        counts
    }

    /// The application has not processed a message and does not have it any more: it is not
    /// acknowledged on this connection, and if the server sends it again on a later one it is new,
    /// at QoS 2 as well.
    ///
    /// Acknowledgements of later messages wait behind it, since they leave in order, and the server
    /// stops sending when they reach the receive maximum. Says whether it counts, as
    /// [`acknowledge`](Self::acknowledge) does.
    pub fn give_back(&mut self, ack: AckId) -> bool {
        self.is_answered(ack) && self.receiving.give_back(ack)
    }

    /// Whether an acknowledgement of this message would count.
    pub fn is_open(&self, ack: AckId) -> bool {
        self.is_answered(ack) && self.receiving.is_open(ack)
    }

    /// Whether a message that came by now can still be answered, on this connection or the next.
    fn is_answered(&self, ack: AckId) -> bool {
        self.phase == Phase::Connected
            || (ack.qos() == QoS::ExactlyOnce && self.outlives_connection())
    }

    /// How many messages of this connection were given back. Looks at all that wait.
    pub fn given_back(&self) -> usize {
        self.receiving.given_back()
    }

    /// How many QoS 1 and 2 messages of this connection wait for their acknowledgement, repeats among
    /// them.
    pub fn unacknowledged(&self) -> usize {
        self.receiving.unacknowledged()
    }
}
