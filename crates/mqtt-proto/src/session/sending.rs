//! Requests that await an answer, in slots by packet identifier.
//!
//! ```text
//! QoS 1   PUBLISH -> AwaitPubAck -- PUBACK ------------------------> ended
//! QoS 2   PUBLISH -> AwaitPubRec -- PUBREC -> PUBREL, AwaitPubComp -- PUBCOMP -> ended
//!                        |                          +-- PUBREC ---> PUBREL again
//!                        +--------- PUBREC that refuses -----------> ended
//! SUBSCRIBE -> AwaitSubAck -- SUBACK -> ended     UNSUBSCRIBE -> AwaitUnsubAck -- UNSUBACK -> ended
//! ```
//!
//! An acknowledgement for an identifier that is not in use changes nothing (a PUBREC that succeeds
//! is answered with PUBREL, 5.0 section 4.3.3); one of the wrong kind is a protocol error.
//!
//! Slots grow with use. A free identifier goes to the end of the line, so that a late duplicate of
//! an acknowledgement rarely meets a new message.

use std::collections::VecDeque;

use crate::{
    Message, PacketId, ProtocolError, QoS, ReasonCode,
    packet::{Ack, AckProperties, PacketType, Properties},
};

/// So many identifiers are used before the first is used again.
const MIN_SLOTS: usize = 8;

/// What a packet identifier in use awaits. `order` is that of sending, for a resend and for answers that
/// do not come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Awaiting<T> {
    PubAck {
        message: Message,
        token: T,
        order: u64,
    },
    PubRec {
        message: Message,
        token: T,
        order: u64,
    },
    PubComp {
        token: T,
        order: u64,
        /// What PUBREC said.
        received: ReasonCode,
        properties: Properties<AckProperties>,
    },
    SubAck {
        token: T,
        filters: usize,
        order: u64,
    },
    UnsubAck {
        token: T,
        filters: usize,
        order: u64,
    },
}

impl<T> Awaiting<T> {
    fn awaited(&self) -> PacketType {
        match self {
            Self::PubAck { .. } => PacketType::PubAck,
            Self::PubRec { .. } => PacketType::PubRec,
            Self::PubComp { .. } => PacketType::PubComp,
            Self::SubAck { .. } => PacketType::SubAck,
            Self::UnsubAck { .. } => PacketType::UnsubAck,
        }
    }

    fn order(&self) -> u64 {
        match self {
            Self::PubAck { order, .. }
            | Self::PubRec { order, .. }
            | Self::PubComp { order, .. }
            | Self::SubAck { order, .. }
            | Self::UnsubAck { order, .. } => *order,
        }
    }

    /// The order of a publish; `None` for what is not part of the Session State.
    fn publish_order(&self) -> Option<u64> {
        match self {
            Self::PubAck { order, .. }
            | Self::PubRec { order, .. }
            | Self::PubComp { order, .. } => Some(*order),
            Self::SubAck { .. } | Self::UnsubAck { .. } => None,
        }
    }

    /// Whether it is a publish that the server may not have.
    fn is_unacknowledged(&self) -> bool {
        matches!(self, Self::PubAck { .. } | Self::PubRec { .. })
    }

    /// How many filters the request has; 0 for a publish.
    fn filters(&self) -> usize {
        match self {
            Self::SubAck { filters, .. } | Self::UnsubAck { filters, .. } => *filters,
            Self::PubAck { .. } | Self::PubRec { .. } | Self::PubComp { .. } => 0,
        }
    }

    fn into_token(self) -> T {
        match self {
            Self::PubAck { token, .. }
            | Self::PubRec { token, .. }
            | Self::PubComp { token, .. }
            | Self::SubAck { token, .. }
            | Self::UnsubAck { token, .. } => token,
        }
    }
}

/// What an acknowledgement leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T> {
    Nothing,
    /// PUBREL with this code is due.
    Release(ReasonCode),
    Ended {
        token: T,
        reason_code: ReasonCode,
    },
}

#[derive(Debug)]
pub(super) struct Sending<T> {
    /// The slot of identifier `n` is at `n - 1`.
    slots: Vec<Option<Awaiting<T>>>,
    /// Identifiers of the empty slots, the longest unused first.
    free: VecDeque<PacketId>,
    /// Publishes that have not ended.
    publishes: usize,
    /// Those of them that were sent on this connection, as PUBLISH or PUBREL.
    on_wire: usize,
    next_order: u64,
    /// Publishes of earlier connections that wait for the window, in order; PUBRELs, which do not
    /// wait, before them.
    resend: VecDeque<PacketId>,
}

impl<T> Default for Sending<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: VecDeque::new(),
            publishes: 0,
            on_wire: 0,
            next_order: 0,
            resend: VecDeque::new(),
        }
    }
}

impl<T> Sending<T> {
    pub(super) fn publishes(&self) -> usize {
        self.publishes
    }

    /// How many more publishes fit a window of this size `[MQTT5-3.3.4-7]`. Resends go first.
    pub(super) fn room(&self, window: usize) -> usize {
        if self.resend.is_empty() {
            window.saturating_sub(self.on_wire)
        } else {
            0
        }
    }

    /// The identifier [`open`](Self::open) is to be called with next.
    pub(super) fn next_id(&mut self) -> Option<PacketId> {
        if self.slots.len() >= MIN_SLOTS
            && let Some(&id) = self.free.front()
        {
            return Some(id);
        }
        match u16::try_from(self.slots.len() + 1)
            .ok()
            .and_then(PacketId::new)
        {
            Some(id) => Some(id),
            None => self.free.front().copied(),
        }
    }

    pub(super) fn open(&mut self, id: PacketId, awaiting: Awaiting<T>) {
        match self.slots.get_mut(index(id)) {
            Some(slot) => {
                self.free.pop_front();
                *slot = Some(awaiting);
            }
            None => self.slots.push(Some(awaiting)),
        }
    }

    pub(super) fn open_publish(&mut self, id: PacketId, message: Message, token: T) {
        let order = self.order();
        self.publishes += 1;
        self.on_wire += 1;
        let awaiting = match message.qos {
            QoS::ExactlyOnce => Awaiting::PubRec {
                message,
                token,
                order,
            },
            QoS::AtMostOnce | QoS::AtLeastOnce => Awaiting::PubAck {
                message,
                token,
                order,
            },
        };
        self.open(id, awaiting);
    }

    pub(super) fn order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    fn close(&mut self, id: PacketId) -> Option<Awaiting<T>> {
        let awaiting = self.slots.get_mut(index(id))?.take()?;
        self.free.push_back(id);
        Some(awaiting)
    }

    fn end_publish(&mut self, id: PacketId, reason_code: ReasonCode) -> Step<T> {
        if !self.cancel_resend(id) {
            self.on_wire = self.on_wire.saturating_sub(1);
        }
        let Some(awaiting) = self.close(id) else {
            return Step::Nothing;
        };
        self.publishes -= 1;
        Step::Ended {
            token: awaiting.into_token(),
            reason_code,
        }
    }

    /// An answer came before the publish was sent again. `false` if it does not wait for that.
    fn cancel_resend(&mut self, id: PacketId) -> bool {
        if self.resend.is_empty() {
            return false;
        }
        let order = |id| {
            let slot = self.slots.get(index(id)).and_then(Option::as_ref);
            slot.and_then(Awaiting::publish_order)
        };
        let found = self
            .resend
            .binary_search_by_key(&order(id), |&waiting| order(waiting));
        found.is_ok_and(|at| self.resend.remove(at).is_some())
    }

    /// PUBACK, PUBREC or PUBCOMP. At the end of a QoS 2 publish `ack` has the properties that PUBREC had,
    /// if it had any, as its code is the outcome too.
    pub(super) fn on_ack(
        &mut self,
        packet_type: PacketType,
        ack: &mut Ack,
    ) -> Result<Step<T>, ProtocolError> {
        let (id, code) = (ack.packet_id, ack.reason_code);
        let awaited = self
            .slots
            .get(index(id))
            .and_then(Option::as_ref)
            .map(Awaiting::awaited);
        match (awaited, packet_type) {
            (None, PacketType::PubRec) if !code.is_error() => {
                Ok(Step::Release(ReasonCode::PACKET_IDENTIFIER_NOT_FOUND))
            }
            (None, _) => Ok(Step::Nothing),
            (Some(PacketType::PubAck), PacketType::PubAck) => Ok(self.end_publish(id, code)),
            (Some(PacketType::PubRec | PacketType::PubComp), PacketType::PubRec)
                if code.is_error() =>
            {
                Ok(self.end_publish(id, code))
            }
            (Some(PacketType::PubRec), PacketType::PubRec) => {
                self.release(id, code, std::mem::take(&mut ack.properties));
                Ok(Step::Release(ReasonCode::SUCCESS))
            }
            (Some(PacketType::PubComp), PacketType::PubRec) => {
                Ok(Step::Release(ReasonCode::SUCCESS))
            }
            // "Not found" in a PUBCOMP means that an earlier PUBCOMP was lost.
            (Some(PacketType::PubComp), PacketType::PubComp) => {
                let received = match self.slots.get_mut(index(id)) {
                    Some(Some(Awaiting::PubComp {
                        received,
                        properties,
                        ..
                    })) => {
                        if !properties.is_empty() {
                            ack.properties = std::mem::take(properties);
                        }
                        *received
                    }
                    _ => ReasonCode::SUCCESS,
                };
                Ok(self.end_publish(id, received))
            }
            (Some(awaited), got) => Err(ProtocolError::WrongAcknowledgement {
                packet_id: id,
                awaited,
                got,
            }),
        }
    }

    /// The message is the server's now: forget it. PUBRELs go in the order of PUBRECs
    /// `[MQTT5-4.6.0-4]` `[MQTT3-4.6.0-4]`.
    fn release(
        &mut self,
        id: PacketId,
        received: ReasonCode,
        properties: Properties<AckProperties>,
    ) {
        if self.cancel_resend(id) {
            self.on_wire += 1;
        }
        let order = self.order();
        if let Some(slot) = self.slots.get_mut(index(id))
            && let Some(awaiting) = slot.take()
        {
            *slot = Some(Awaiting::PubComp {
                token: awaiting.into_token(),
                order,
                received,
                properties,
            });
        }
    }

    /// SUBACK, or a 5.0 UNSUBACK, with so many codes.
    pub(super) fn on_answer(
        &mut self,
        got: PacketType,
        id: PacketId,
        codes: usize,
    ) -> Result<Option<(T, usize)>, ProtocolError> {
        let Some(Some(awaiting)) = self.slots.get(index(id)) else {
            return Ok(None);
        };
        let (filters, awaited) = (awaiting.filters(), awaiting.awaited());
        if awaited != got {
            return Err(ProtocolError::WrongAcknowledgement {
                packet_id: id,
                awaited,
                got,
            });
        }
        if filters != codes {
            return Err(ProtocolError::ReasonCodeCount {
                filters,
                got: codes,
            });
        }
        Ok(self
            .close(id)
            .map(|awaiting| (awaiting.into_token(), filters)))
    }

    /// UNSUBACK; one of 3.1.1 has no codes.
    pub(super) fn on_unsuback(
        &mut self,
        id: PacketId,
        codes: Option<usize>,
    ) -> Result<Option<(T, usize)>, ProtocolError> {
        let filters = self
            .slots
            .get(index(id))
            .and_then(Option::as_ref)
            .map_or(0, Awaiting::filters);
        self.on_answer(PacketType::UnsubAck, id, codes.unwrap_or(filters))
    }

    /// The connection is gone and the session stays: publishes wait, the rest is lost.
    pub(super) fn connection_lost(&mut self) -> Vec<T> {
        self.on_wire = 0;
        self.resend.clear();
        self.give_up(|awaiting| awaiting.publish_order().is_none())
    }

    /// The session is gone.
    pub(super) fn clear(&mut self) -> Vec<T> {
        let lost = self.give_up(|_| true);
        *self = Self {
            next_order: self.next_order,
            ..Self::default()
        };
        lost
    }

    /// The session is gone, and its QoS 1 publishes are to be sent in the next.
    pub(super) fn keep_at_least_once(&mut self) -> Vec<T> {
        self.on_wire = 0;
        self.resend.clear();
        self.give_up(|awaiting| !matches!(awaiting, Awaiting::PubAck { .. }))
    }

    /// The server has the session, or begins one with what was kept: what is open is to be sent again,
    /// in order, but for what this server does not take.
    pub(super) fn resume(&mut self, is_allowed: impl Fn(&Message) -> bool) -> Vec<T> {
        let lost = self.give_up(|awaiting| match awaiting {
            Awaiting::PubAck { message, .. } | Awaiting::PubRec { message, .. } => {
                !is_allowed(message)
            }
            Awaiting::PubComp { .. } | Awaiting::SubAck { .. } | Awaiting::UnsubAck { .. } => false,
        });
        let mut open: Vec<_> = self
            .ids()
            .filter_map(|(id, awaiting)| {
                let is_publish = awaiting.awaited() != PacketType::PubComp;
                Some((is_publish, awaiting.publish_order()?, id))
            })
            .collect();
        open.sort_unstable();
        self.resend = open.into_iter().map(|(_, _, id)| id).collect();
        lost
    }

    /// The next publish to send again, if the window has room. A PUBREL needs none
    /// `[MQTT5-3.3.4-8]`.
    pub(super) fn next_resend(&mut self, window: usize) -> Option<(PacketId, &Awaiting<T>)> {
        let &id = self.resend.front()?;
        let awaiting = self.slots.get(index(id))?.as_ref()?;
        if awaiting.awaited() != PacketType::PubComp && self.on_wire >= window {
            return None;
        }
        self.resend.pop_front();
        self.on_wire += 1;
        Some((id, awaiting))
    }

    /// The publish of the lowest order that awaits its first acknowledgement, if it was sent on this
    /// connection: the others were not sent before it.
    pub(super) fn oldest_unacknowledged(&self) -> Option<u64> {
        let (order, id) = self
            .ids()
            .filter(|(_, awaiting)| awaiting.is_unacknowledged())
            .filter_map(|(id, awaiting)| Some((awaiting.publish_order()?, id)))
            .min()?;
        (!self.resend.contains(&id)).then_some(order)
    }

    /// Whether an identifier is in use, or rests for good since its publish was given up.
    pub(super) fn has_open(&self) -> bool {
        self.slots.len() > self.free.len()
    }

    /// The request of the lowest order that was sent on this connection, and what it awaits. Publishes
    /// that wait to be sent again are not among them: from the first of those on, none was sent.
    pub(super) fn oldest_sent(&self) -> Option<(u64, PacketType)> {
        let waiting = self.resend.front();
        let waiting = waiting.and_then(|&id| self.slots.get(index(id))?.as_ref());
        let waiting = waiting.map(Awaiting::order);
        let is_sent = |awaiting: &Awaiting<T>| {
            !awaiting.is_unacknowledged() || waiting.is_none_or(|first| awaiting.order() < first)
        };
        self.ids()
            .filter(|(_, awaiting)| is_sent(awaiting))
            .map(|(_, awaiting)| (awaiting.order(), awaiting.awaited()))
            .min_by_key(|(order, _)| *order)
    }

    /// Ends a publish that the server has not acknowledged. Its identifier is left out of the free
    /// ones, and its slot empty, so that a late answer finds nothing.
    pub(super) fn abandon(&mut self, order: u64) -> Option<T> {
        let (id, _) = self.ids().find(|(_, awaiting)| {
            awaiting.is_unacknowledged() && awaiting.publish_order() == Some(order)
        })?;
        if !self.cancel_resend(id) {
            self.on_wire = self.on_wire.saturating_sub(1);
        }
        self.publishes -= 1;
        let awaiting = self.slots.get_mut(index(id))?.take()?;
        Some(awaiting.into_token())
    }

    /// Gives the memory of a past burst back.
    pub(super) fn shrink_if_idle(&mut self) {
        if self.slots.len() > MIN_SLOTS && self.free.len() == self.slots.len() {
            self.slots = Vec::new();
            self.free = VecDeque::new();
        }
    }

    fn ids(&self) -> impl Iterator<Item = (PacketId, &Awaiting<T>)> {
        (1..=u16::MAX)
            .filter_map(PacketId::new)
            .zip(&self.slots)
            .filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    /// The messages that the server has not acknowledged, in the order of sending.
    pub(super) fn messages(&self) -> Vec<Message> {
        let open = self.ids().filter_map(|(_, awaiting)| match awaiting {
            Awaiting::PubAck { message, order, .. } | Awaiting::PubRec { message, order, .. } => {
                Some((*order, message.clone()))
            }
            Awaiting::PubComp { .. } | Awaiting::SubAck { .. } | Awaiting::UnsubAck { .. } => None,
        });
        let mut open: Vec<_> = open.collect();
        open.sort_by_key(|(order, _)| *order);
        open.into_iter().map(|(_, message)| message).collect()
    }

    fn give_up(&mut self, is_lost: impl Fn(&Awaiting<T>) -> bool) -> Vec<T> {
        let mut ids: Vec<_> = self
            .ids()
            .filter(|(_, awaiting)| is_lost(awaiting))
            .map(|(id, _)| id)
            .collect();
        ids.sort_by_key(|id| {
            self.slots
                .get(index(*id))
                .and_then(Option::as_ref)
                .and_then(Awaiting::publish_order)
        });
        let mut lost = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(awaiting) = self.close(id) {
                if awaiting.publish_order().is_some() {
                    self.publishes -= 1;
                }
                lost.push(awaiting.into_token());
            }
        }
        lost
    }
}

fn index(id: PacketId) -> usize {
    usize::from(id.value()) - 1
}
