//! Packets of the session's own accord: acknowledgements in their turn, resends in their order.

use super::{Phase, Session, holding::Caution, sending::Awaiting};
use crate::{
    UsageError,
    packet::{Ack, Packet, PacketType},
};

impl<T> Session<T> {
    pub(super) fn write(&mut self, packet: &Packet) -> Result<(), UsageError> {
        let version = self.version;
        self.outbound
            .packet(self.limits.maximum_packet_size, |out| {
                packet.encode(version, out)
            })
    }

    pub(super) fn write_ack(&mut self, packet_type: PacketType, ack: Ack) {
        let version = self.version;
        let max = self.limits.maximum_packet_size;
        // The short form of five bytes at most fits any server that takes packets at all.
        self.outbound
            .packet(max, |out| ack.encode(packet_type, version, out))
            .unwrap_or_default();
    }

    /// Writes the PUBACKs and PUBRECs whose turn it is.
    pub(super) fn flush_acks(&mut self) {
        if self.phase != Phase::Connected {
            return;
        }
        while let Some((packet_type, ack)) = self.receiving.next_ack() {
            self.write_ack(packet_type, ack);
        }
    }

    /// Sends again what the window allows of what was open on the last connection.
    pub(super) fn resend(&mut self) {
        let window = match self.caution {
            Caution::None => self.window(),
            Caution::Hold => 0,
            Caution::Singly => 1,
        };
        while let Some((packet_id, exchange)) = self.sending.next_resend(window) {
            let max = self.limits.maximum_packet_size;
            match exchange {
                Awaiting::PubAck { message, .. } | Awaiting::PubRec { message, .. } => {
                    // `connected` has taken out those that the server's limits forbid.
                    let dup = self.resends_as_duplicates;
                    self.outbound
                        .publish(message, Some(packet_id), dup, self.version, max)
                        .unwrap_or_default();
                }
                Awaiting::PubComp { .. } => {
                    self.write_ack(PacketType::PubRel, Ack::new(packet_id));
                }
                Awaiting::SubAck { .. } | Awaiting::UnsubAck { .. } => {}
            }
        }
    }
}
