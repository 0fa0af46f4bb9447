//! A truthful server: what it takes, what it owes, and the session it keeps.
//!
//! It handles each packet as it comes. Its answers wait in [`Server::due`], from which the test
//! lets them go at once, later, in another order or never; a cut loses those that are left.

use std::{
    collections::{BTreeSet, VecDeque},
    num::NonZeroU16,
};

use bytes::{Buf, Bytes, BytesMut};
use mqtt_proto::{
    Decoder, Event, Message, PacketId, QoS, ReasonCode, Version,
    codec::MAX_PACKET_SIZE,
    packet::{ConnAck, Connect, Packet, Publish, SubAck, UnsubAck},
};

use super::{Pair, id, puback_with, pubcomp, pubcomp_with, pubrec_with, pubrel};

/// A message on its way to the client.
#[derive(Debug)]
struct Sent {
    packet_id: PacketId,
    message: Message,
    /// PUBREC has come: it is PUBREL that is open.
    released: bool,
    /// Whether it was PUBLISH that was sent on this connection, which takes from the quota.
    here: bool,
}

#[derive(Debug)]
pub struct Server {
    version: Version,
    // The session.
    has_session: bool,
    /// Whether the session outlives this connection.
    lasts: bool,
    received: BTreeSet<PacketId>,
    sent: VecDeque<Sent>,
    next_id: u16,
    // What the test looks at.
    /// Payloads of the messages it took, in order.
    pub took: Vec<Bytes>,
    /// Payloads it did not take.
    pub refused: Vec<Bytes>,
    /// Messages for the client that were not sent yet.
    pub backlog: VecDeque<Message>,
    /// Answers and messages that were not sent yet.
    pub due: Vec<Packet>,
    /// Refuses the next publish at QoS 1 and 2 (5.0).
    pub refuse_next: bool,
    /// Whether PUBREL is sent again after the messages rather than before.
    pub releases_last: bool,
    /// The Receive Maximum it announces (5.0).
    pub window: Option<NonZeroU16>,
    // The connection.
    decoder: Decoder,
    /// Written by the client and not yet here.
    wire: BytesMut,
    connected: bool,
    /// The client's Receive Maximum, less what is open.
    quota: usize,
}

impl Server {
    pub fn new(version: Version) -> Self {
        Self {
            version,
            has_session: false,
            lasts: false,
            received: BTreeSet::new(),
            sent: VecDeque::new(),
            next_id: 0,
            took: Vec::new(),
            refused: Vec::new(),
            backlog: VecDeque::new(),
            due: Vec::new(),
            refuse_next: false,
            releases_last: false,
            window: None,
            decoder: Decoder::new(version, MAX_PACKET_SIZE),
            wire: BytesMut::new(),
            connected: false,
            quota: 0,
        }
    }

    /// The session is lost, as by a restart without a store.
    pub fn forget(&mut self) {
        self.has_session = false;
    }

    /// How many exchanges are open.
    pub fn open(&self) -> usize {
        self.received.len() + self.sent.len()
    }

    /// The connection breaks: what is under way is lost either way.
    pub fn cut(&mut self) {
        if self.connected && !self.lasts {
            self.has_session = false;
        }
        self.connected = false;
        self.wire.clear();
        self.due.clear();
        self.decoder = Decoder::new(self.version, MAX_PACKET_SIZE);
        self.sent.iter_mut().for_each(|sent| sent.here = false);
    }

    /// Takes what the client has written onto the wire. Returns how many bytes are under way.
    pub fn pull(&mut self, pair: &mut Pair) -> usize {
        let (bytes, _) = pair.taken();
        self.wire.extend_from_slice(&bytes);
        self.wire.len()
    }

    /// So many bytes of the wire arrive.
    pub fn arrive(&mut self, n: usize) {
        let mut piece = self.wire.split_to(n.min(self.wire.len())).freeze();
        while let Some(packet) = self
            .decoder
            .decode(&mut piece)
            .expect("the client writes packets")
        {
            self.handle(packet);
        }
        assert!(!piece.has_remaining());
    }

    /// Messages go to the client as far as its Receive Maximum allows.
    pub fn send_messages(&mut self) {
        if !self.connected {
            return;
        }
        while let Some(message) = self.backlog.front() {
            let mut packet_id = None;
            if message.qos != QoS::AtMostOnce {
                if self.quota == 0 {
                    return;
                }
                self.quota -= 1;
                packet_id = Some(self.unused_id());
            }
            let Some(message) = self.backlog.pop_front() else {
                return;
            };
            if let Some(packet_id) = packet_id {
                self.sent.push_back(Sent {
                    packet_id,
                    message: message.clone(),
                    released: false,
                    here: true,
                });
            }
            self.due.push(Packet::Publish(Publish {
                message,
                packet_id,
                dup: false,
            }));
        }
    }

    /// The lowest, so that identifiers are soon used again.
    fn unused_id(&mut self) -> PacketId {
        loop {
            self.next_id = self.next_id % 12 + 1;
            let unused = id(self.next_id);
            if self.sent.iter().all(|sent| sent.packet_id != unused) {
                return unused;
            }
            assert!(
                self.sent.len() < 12,
                "receive maxima in tests are at most 5"
            );
        }
    }

    fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::Connect(connect) => self.on_connect(&connect),
            Packet::Publish(publish) => self.on_publish(publish),
            Packet::PubAck(ack) => {
                let taken = |sent: &Sent| {
                    sent.packet_id == ack.packet_id && sent.message.qos == QoS::AtLeastOnce
                };
                self.end_sent(taken);
            }
            Packet::PubRec(ack) if ack.reason_code.is_error() => {
                self.end_sent(|sent| sent.packet_id == ack.packet_id);
            }
            Packet::PubRec(ack) => {
                let sent = self
                    .sent
                    .iter_mut()
                    .find(|sent| sent.packet_id == ack.packet_id)
                    .expect("PUBREC for what was sent");
                sent.released = true;
                self.due.push(pubrel(ack.packet_id.value()));
            }
            Packet::PubRel(ack) => {
                let code = if self.received.remove(&ack.packet_id) {
                    ReasonCode::SUCCESS
                } else {
                    ReasonCode::PACKET_IDENTIFIER_NOT_FOUND
                };
                let n = ack.packet_id.value();
                let is_v5 = self.version == Version::V5;
                self.due.push(if is_v5 {
                    pubcomp_with(n, code)
                } else {
                    pubcomp(n)
                });
            }
            Packet::PubComp(ack) => {
                self.end_sent(|sent| sent.packet_id == ack.packet_id && sent.released);
            }
            Packet::Subscribe(subscribe) => self.due.push(Packet::SubAck(SubAck {
                packet_id: subscribe.packet_id,
                reason_codes: vec![ReasonCode::SUCCESS; subscribe.filters.len()],
                properties: Default::default(),
            })),
            Packet::Unsubscribe(unsubscribe) => self.due.push(Packet::UnsubAck(UnsubAck {
                packet_id: unsubscribe.packet_id,
                reason_codes: vec![ReasonCode::SUCCESS; unsubscribe.filters.len()],
                properties: Default::default(),
            })),
            Packet::PingReq => self.due.push(Packet::PingResp),
            Packet::Disconnect(_) => {}
            Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp
            | Packet::Auth(_) => panic!("a client sent {packet:?}"),
        }
    }

    fn on_connect(&mut self, connect: &Connect) {
        assert!(!self.connected, "a second CONNECT");
        self.connected = true;
        self.quota = connect
            .properties
            .receive_maximum
            .map_or(5, |max| usize::from(max.get()));
        let resumes = self.has_session && !connect.clean_start;
        if !resumes {
            self.received.clear();
            self.sent.clear();
        }
        self.has_session = true;
        self.lasts = self.version == Version::V5 || !connect.clean_start;
        let mut connack = if resumes {
            ConnAck::resumed()
        } else {
            ConnAck::accepted()
        };
        connack.properties.receive_maximum = self.window;
        self.due.push(Packet::ConnAck(connack));
        self.send_again();
    }

    /// What is open goes again, in order `[MQTT5-4.4.0-1]`; only PUBLISH takes from the quota.
    fn send_again(&mut self) {
        let (mut releases, mut publishes) = (Vec::new(), Vec::new());
        for sent in &mut self.sent {
            sent.here = !sent.released;
            if sent.released {
                releases.push(pubrel(sent.packet_id.value()));
            } else {
                self.quota -= 1;
                publishes.push(Packet::Publish(Publish {
                    message: sent.message.clone(),
                    packet_id: Some(sent.packet_id),
                    dup: true,
                }));
            }
        }
        if self.releases_last {
            self.due.extend(publishes);
            self.send_messages();
            self.due.extend(releases);
        } else {
            self.due.extend(releases);
            self.due.extend(publishes);
        }
    }

    fn on_publish(&mut self, publish: Publish) {
        let Publish {
            message, packet_id, ..
        } = publish;
        let Some(packet_id) = packet_id else {
            self.took.push(message.payload);
            return;
        };
        let n = packet_id.value();
        let known = self.received.contains(&packet_id);
        let refuse = std::mem::take(&mut self.refuse_next) && self.version == Version::V5;
        let code = if refuse && !known {
            self.refused.push(message.payload);
            ReasonCode::QUOTA_EXCEEDED
        } else {
            if !known {
                self.took.push(message.payload);
            }
            ReasonCode::SUCCESS
        };
        if message.qos == QoS::AtLeastOnce {
            self.due.push(puback_with(n, code));
            return;
        }
        if code == ReasonCode::SUCCESS {
            self.received.insert(packet_id);
        }
        self.due.push(pubrec_with(n, code));
    }

    /// An acknowledgement gives back what its PUBLISH took `[MQTT5 4.9]`.
    fn end_sent(&mut self, is_it: impl Fn(&Sent) -> bool) {
        let at = self.sent.iter().position(is_it);
        let at = at.expect("an acknowledgement for what was sent");
        if self.sent.remove(at).is_some_and(|sent| sent.here) {
            self.quota += 1;
        }
    }

    /// Both ends run until neither has anything to say, or for `budget` steps: a byte that reaches
    /// the server is one, a packet that reaches the client another. `false` if the budget ran out.
    pub fn run(
        &mut self,
        pair: &mut Pair,
        budget: &mut usize,
        mut on_event: impl FnMut(&mut Pair, Event<u32>),
    ) -> bool {
        loop {
            let under_way = self.pull(pair);
            let arriving = under_way.min(*budget);
            self.arrive(arriving);
            *budget -= arriving;
            if arriving < under_way {
                return false;
            }
            self.send_messages();
            if self.due.is_empty() {
                return true;
            }
            for packet in std::mem::take(&mut self.due) {
                if *budget == 0 {
                    return false;
                }
                *budget -= 1;
                if let Some(event) = pair.give(packet) {
                    on_event(pair, event);
                }
            }
        }
    }
}
