//! Watches both directions of every test and asserts what always holds on the client's side.

use std::collections::BTreeMap;

use bytes::Bytes;
use mqtt_proto::{
    QoS, ReasonCode, Version,
    packet::{Packet, Publish},
};

use super::{puback, pubcomp, pubrec, suback};

/// Codes a client may put into PUBACK and PUBREC `[MQTT5-3.4.2-1]` `[MQTT5-3.5.2-1]`.
const RECEIVED: [u8; 8] = [0x00, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// Codes a client may put into DISCONNECT `[MQTT5-3.14.2-1]`.
const DISCONNECT: [u8; 14] = [
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
];

/// A packet identifier of the client's that is in use.
#[derive(Debug)]
enum Open {
    Publish {
        qos: QoS,
        payload: Bytes,
        /// Whether PUBLISH or PUBREL was sent on this connection.
        here: bool,
        released: bool,
    },
    Request,
}

#[derive(Debug)]
pub struct Witness {
    version: Version,
    /// Whether CONNECT was written on this connection.
    connect: bool,
    accepted: bool,
    /// Whether DISCONNECT was written on this connection.
    disconnect: bool,
    authenticates: bool,
    window: usize,
    open: BTreeMap<u16, Open>,
    /// The client gave up exchanges that are not known by identifier.
    gave_up: bool,
    /// The client has written what was lost before it was seen.
    unseen: bool,
}

impl Witness {
    pub fn new(version: Version) -> Self {
        Self {
            version,
            connect: false,
            accepted: false,
            disconnect: false,
            authenticates: false,
            window: 0,
            open: BTreeMap::new(),
            gave_up: false,
            unseen: false,
        }
    }

    pub fn is_fresh(&self) -> bool {
        !self.connect
    }

    /// A packet the client wrote, in order.
    pub fn wrote(&mut self, packet: &Packet) {
        assert!(!self.disconnect, "{packet:?} after DISCONNECT");
        if let Packet::Connect(connect) = packet {
            assert!(!self.connect, "a second CONNECT on one connection");
            self.connect = true;
            self.version = connect.version;
            self.authenticates = connect.properties.authentication_method.is_some();
            return;
        }
        assert!(self.connect, "{packet:?} before CONNECT");
        let before_connack = matches!(packet, Packet::Auth(_) | Packet::Disconnect(_));
        assert!(self.accepted || before_connack, "{packet:?} before CONNACK");
        match packet {
            Packet::Publish(publish) => self.wrote_publish(publish),
            Packet::PubAck(ack) | Packet::PubRec(ack) => {
                assert!(RECEIVED.contains(&ack.reason_code.value()), "{packet:?}");
            }
            Packet::PubRel(ack) => self.wrote_pubrel(ack.packet_id.value(), ack.reason_code),
            Packet::PubComp(_) | Packet::PingReq => {}
            Packet::Subscribe(subscribe) => self.wrote_request(subscribe.packet_id.value()),
            Packet::Unsubscribe(unsubscribe) => self.wrote_request(unsubscribe.packet_id.value()),
            Packet::Disconnect(disconnect) => {
                let code = disconnect.reason_code.value();
                assert!(DISCONNECT.contains(&code), "{packet:?}");
                self.disconnect = true;
            }
            Packet::Auth(auth) => {
                assert!(self.authenticates, "AUTH without a method");
                assert!(matches!(auth.reason_code.value(), 0x18 | 0x19), "{auth:?}");
            }
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => panic!("a client sent {packet:?}"),
        }
    }

    fn wrote_publish(&mut self, publish: &Publish) {
        let Publish {
            message,
            packet_id,
            dup,
        } = publish;
        assert!(message.properties.subscription_identifiers.is_empty());
        let Some(n) = packet_id.map(|id| id.value()) else {
            assert!(!dup, "DUP at QoS 0");
            return;
        };
        let first = || Open::Publish {
            qos: message.qos,
            payload: message.payload.clone(),
            here: true,
            released: false,
        };
        if *dup {
            match self.open.get_mut(&n) {
                Some(Open::Publish {
                    qos,
                    payload,
                    here,
                    released,
                }) => {
                    assert!(!*here, "PUBLISH {n} twice on one connection");
                    assert!(!*released, "PUBLISH {n} again after PUBREC");
                    assert_eq!((&*payload, *qos), (&message.payload, message.qos));
                    *here = true;
                }
                Some(Open::Request) => panic!("identifier {n} is a request's"),
                None => {
                    assert!(
                        self.gave_up || self.unseen,
                        "PUBLISH {n} again that was not open"
                    );
                    self.open.insert(n, first());
                }
            }
        } else {
            let before = self.open.insert(n, first());
            assert!(
                before.is_none() || self.gave_up,
                "identifier {n} was in use: {before:?}"
            );
        }
        let here = self
            .open
            .values()
            .filter(|open| matches!(open, Open::Publish { here: true, .. }));
        assert!(here.count() <= self.window, "the window was exceeded");
    }

    fn wrote_pubrel(&mut self, n: u16, code: ReasonCode) {
        match self.open.get_mut(&n) {
            Some(Open::Publish { here, released, .. }) => {
                assert!(*released, "PUBREL {n} before PUBREC");
                *here = true;
            }
            Some(Open::Request) => panic!("PUBREL {n} for a request"),
            None => assert!(
                self.version == Version::V3 || code == ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
                "PUBREL {n} says success and is not known"
            ),
        }
    }

    fn wrote_request(&mut self, n: u16) {
        let before = self.open.insert(n, Open::Request);
        assert!(
            before.is_none() || self.gave_up,
            "identifier {n} was in use: {before:?}"
        );
    }

    /// A packet the client took.
    pub fn took(&mut self, packet: &Packet) {
        let (n, done): (_, fn(&mut Open) -> bool) = match packet {
            Packet::PubAck(ack) => (ack.packet_id, |open| {
                matches!(
                    open,
                    Open::Publish {
                        qos: QoS::AtLeastOnce,
                        ..
                    }
                )
            }),
            Packet::PubRec(ack) if ack.reason_code.is_error() => {
                (ack.packet_id, |open| matches!(open, Open::Publish { .. }))
            }
            Packet::PubRec(ack) => (ack.packet_id, |open| {
                if let Open::Publish { released, here, .. } = open {
                    (*released, *here) = (true, true);
                }
                false
            }),
            Packet::PubComp(ack) => (ack.packet_id, |open| {
                matches!(open, Open::Publish { released: true, .. })
            }),
            Packet::SubAck(ack) => (ack.packet_id, |open| matches!(open, Open::Request)),
            Packet::UnsubAck(ack) => (ack.packet_id, |open| matches!(open, Open::Request)),
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::Publish(_)
            | Packet::PubRel(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::PingResp
            | Packet::Disconnect(_)
            | Packet::Auth(_) => return,
        };
        if self.open.get_mut(&n.value()).is_some_and(done) {
            self.open.remove(&n.value());
        }
    }

    /// The client took a CONNACK that accepts.
    pub fn accepted(&mut self, resumed: bool, window: usize, gave_up: bool) {
        self.accepted = true;
        self.window = window;
        self.gave_up |= gave_up;
        if !resumed {
            self.open.clear();
            self.gave_up = false;
            self.unseen = false;
        }
    }

    /// The connection is gone, and with it what the client wrote and was not seen.
    pub fn cut(&mut self, unseen: bool) {
        self.unseen |= unseen;
        self.connect = false;
        self.accepted = false;
        self.disconnect = false;
        self.open.retain(|_, open| match open {
            Open::Publish { here, .. } => {
                *here = false;
                true
            }
            Open::Request => false,
        });
    }

    /// The answer that the exchange at this place awaits, by identifier.
    pub fn awaited(&self, at: usize) -> Option<Packet> {
        let (&n, open) = self.open.iter().nth(at)?;
        Some(match open {
            Open::Publish { released: true, .. } => pubcomp(n),
            Open::Publish { qos, .. } if *qos == QoS::ExactlyOnce => pubrec(n),
            Open::Publish { .. } => puback(n),
            Open::Request => suback(n, &[ReasonCode::SUCCESS]),
        })
    }
}
