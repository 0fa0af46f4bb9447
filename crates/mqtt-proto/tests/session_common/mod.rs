//! A client and the other end of its connection, in virtual time.
//!
//! [`Pair`] is the client with the wire in hand: a test says what the server sends and looks at
//! what the client writes. [`Server`] is a truthful server for tests that let both ends run.
//! Either way the [`Witness`] looks on, and when a pair is dropped every token has come back.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(unreachable_pub, unused_imports, reason = "shared by many test crates")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use mqtt_proto::{
    AckId, Decoder, Event, Message, Outbound, ProtocolError, QoS, ReasonCode, Session,
    SessionOptions, UsageError, Version,
    codec::MAX_PACKET_SIZE,
    packet::{ConnAck, Connect, ConnectProperties, Packet, Properties, SubscribeFilter},
};

mod packets;
mod server;
mod witness;

pub use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
pub use Version::{V3, V5};
pub use packets::*;
pub use server::Server;
pub use witness::Witness;

/// Runs a conversation in both versions.
pub fn both(test: impl Fn(Version)) {
    for version in [V3, V5] {
        println!("MQTT {version}");
        test(version);
    }
}

/// CONNECT of a client whose session outlives its connections.
pub fn lasting(version: Version) -> Connect {
    let mut connect = Connect::new(version, "client").expect("a short text");
    connect.clean_start = false;
    if version == V5 {
        connect.properties.session_expiry_interval = Some(3600);
    }
    connect
}

/// The same, with a new session.
pub fn clean_start(version: Version) -> Connect {
    let mut connect = lasting(version);
    connect.clean_start = true;
    connect
}

#[derive(Debug)]
pub struct Pair {
    pub session: Session<u32>,
    pub now: Instant,
    pub version: Version,
    max_in_flight: usize,
    /// Reads what the client writes.
    decoder: Decoder,
    pub witness: Witness,
    next_token: u32,
    /// Tokens that have not come back.
    open: BTreeSet<u32>,
}

impl Pair {
    /// A client that was never connected.
    pub fn new(version: Version) -> Self {
        Self::with_options(version, SessionOptions::default())
    }

    #[allow(clippy::disallowed_methods, reason = "virtual time begins somewhere")]
    pub fn with_options(version: Version, options: SessionOptions) -> Self {
        Self {
            max_in_flight: options.max_in_flight.max(1).into(),
            session: Session::new(options),
            now: Instant::now(),
            version,
            decoder: Decoder::new(version, MAX_PACKET_SIZE),
            witness: Witness::new(version),
            next_token: 0,
            open: BTreeSet::new(),
        }
    }

    /// A connected client with a lasting session.
    pub fn connected(version: Version) -> Self {
        let mut pair = Self::new(version);
        pair.dial(lasting(version));
        pair.accept(ConnAck::accepted());
        pair
    }

    /// A connected client whose server announced this (5.0).
    pub fn connected_to(set: impl FnOnce(&mut ConnAck)) -> Self {
        let mut pair = Self::new(V5);
        pair.dial(lasting(V5));
        let mut connack = ConnAck::accepted();
        set(&mut connack);
        pair.accept(connack);
        pair
    }

    /// A connected client whose CONNECT said this.
    pub fn connected_with(version: Version, set: impl FnOnce(&mut Connect)) -> Self {
        let mut pair = Self::new(version);
        let mut connect = lasting(version);
        set(&mut connect);
        pair.dial(connect);
        pair.accept(ConnAck::accepted());
        pair
    }

    // The life of a connection.

    /// Opens a connection; the one thing written is CONNECT.
    pub fn dial(&mut self, connect: Connect) -> Packet {
        self.version = connect.version;
        self.session
            .connect(connect, self.now)
            .expect("a valid CONNECT");
        let mut sent = self.sent();
        let first = sent.remove(0);
        assert!(matches!(first, Packet::Connect(_)), "{first:?}");
        assert_eq!(sent, []);
        first
    }

    /// The server accepts; returns the tokens that are lost.
    pub fn accept(&mut self, connack: ConnAck) -> Vec<u32> {
        match self.give(Packet::ConnAck(connack)) {
            Some(Event::Connected(connected)) => connected.lost,
            other => panic!("{other:?} is not a connection"),
        }
    }

    /// The connection breaks; what was not taken off the client is lost.
    pub fn cut(&mut self) -> Vec<u32> {
        let unseen = self.session.unsent() > 0;
        let lost = self.session.connection_lost();
        lost.iter().for_each(|&token| self.returned(token));
        self.witness.cut(unseen);
        assert_eq!(self.session.unsent(), 0);
        self.decoder = Decoder::new(self.version, MAX_PACKET_SIZE);
        lost
    }

    /// The connection breaks and the next one finds its session.
    pub fn resume(&mut self) {
        assert_eq!(self.cut(), []);
        self.dial(lasting(self.version));
        assert_eq!(self.accept(ConnAck::resumed()), []);
    }

    // The wire.

    /// What the client has written since the last look.
    pub fn sent(&mut self) -> Vec<Packet> {
        self.taken().1
    }

    /// The same, with its bytes.
    pub fn taken(&mut self) -> (Bytes, Vec<Packet>) {
        let mut outbound = self.session.take_outbound(Outbound::default());
        let bytes = outbound.copy_to_bytes(outbound.remaining());
        if self.witness.is_fresh() {
            self.decoder = Decoder::new(self.version, MAX_PACKET_SIZE);
        }
        let mut packets = Vec::new();
        let mut rest = bytes.clone();
        while let Some(packet) = self
            .decoder
            .decode(&mut rest)
            .expect("the client writes packets")
        {
            self.witness.wrote(&packet);
            packets.push(packet);
        }
        assert_eq!(self.decoder.decode(&mut Bytes::new()), Ok(None));
        (bytes, packets)
    }

    /// The server sends a packet that is in order.
    #[track_caller]
    pub fn give(&mut self, packet: Packet) -> Option<Event<u32>> {
        let shown = format!("{packet:?}");
        self.try_give(packet)
            .unwrap_or_else(|error| panic!("{shown} led to {error}"))
    }

    /// The server sends a packet that is not.
    #[track_caller]
    pub fn give_wrong(&mut self, packet: Packet) -> ProtocolError {
        let shown = format!("{packet:?}");
        match self.try_give(packet) {
            Ok(event) => panic!("{shown} was taken and led to {event:?}"),
            Err(error) => error,
        }
    }

    /// The server sends a packet, over the wire where the version has it.
    pub fn try_give(&mut self, packet: Packet) -> Result<Option<Event<u32>>, ProtocolError> {
        let mut bytes = Vec::new();
        let packet = match packet.encode(self.version, &mut bytes) {
            Ok(()) => Decoder::new(self.version, MAX_PACKET_SIZE)
                .decode(&mut bytes.into())
                .expect("the server writes packets")
                .expect("a whole packet"),
            Err(_) => packet,
        };
        let is_open = self.session.is_connected();
        let event = self.session.handle_packet(packet.clone(), self.now)?;
        if is_open {
            self.witness.took(&packet);
        }
        match &event {
            Some(Event::Connected(connected)) => {
                connected
                    .lost
                    .iter()
                    .for_each(|&token| self.returned(token));
                let receive_maximum = usize::from(self.session.limits().receive_maximum);
                self.witness.accepted(
                    connected.connack.session_present && self.session.in_flight() > 0,
                    receive_maximum.min(self.max_in_flight),
                    !connected.lost.is_empty(),
                );
            }
            Some(Event::Published { token, .. } | Event::Answered { token, .. }) => {
                self.returned(*token);
            }
            Some(_) | None => {}
        }
        Ok(event)
    }

    /// A message the server sends and the client delivers, with what acknowledges it.
    #[track_caller]
    pub fn deliver(&mut self, packet: Packet) -> AckId {
        match self.give(packet) {
            Some(Event::Message { ack: Some(ack), .. }) => ack,
            other => panic!("{other:?} is not a message at QoS 1 or 2"),
        }
    }

    // Time.

    pub fn pass(&mut self, duration: Duration) {
        self.now += duration;
    }

    /// Goes on to the session's next deadline, and says how long that took.
    pub fn wait(&mut self) -> (Duration, Result<(), ProtocolError>) {
        let deadline = self.session.next_deadline().expect("a deadline");
        let waited = deadline.saturating_duration_since(self.now);
        self.now += waited;
        (waited, self.session.handle_timeout(self.now))
    }

    // Requests.

    pub fn token(&mut self) -> u32 {
        self.next_token += 1;
        self.open.insert(self.next_token);
        self.next_token
    }

    /// The token given out last.
    pub fn last_token(&self) -> u32 {
        self.next_token
    }

    fn returned(&mut self, token: u32) {
        assert!(self.open.remove(&token), "token {token} came back twice");
    }

    /// Tokens that have not come back.
    pub fn open(&self) -> &BTreeSet<u32> {
        &self.open
    }

    /// Publishes what is admitted, and returns its token.
    #[track_caller]
    pub fn publish(&mut self, message: Message) -> u32 {
        match self.try_publish(message) {
            Ok(token) => token,
            Err(error) => panic!("not admitted: {error:?}"),
        }
    }

    /// Publishes `payload` at `qos`.
    #[track_caller]
    pub fn publish_at(&mut self, qos: QoS, payload: impl Into<String>) -> u32 {
        self.publish(message(qos, payload))
    }

    /// `Err(None)` if there is no room.
    pub fn try_publish(&mut self, message: Message) -> Result<u32, Option<UsageError>> {
        let token = self.token();
        let qos = message.qos;
        let copy = message.clone();
        match self.session.publish(message, token) {
            Ok(None) => {
                assert_ne!(qos, AtMostOnce, "the token of QoS 0 comes back at once");
                Ok(token)
            }
            Ok(Some(back)) => {
                assert_eq!((qos, back), (AtMostOnce, token));
                self.returned(back);
                Ok(token)
            }
            Err(refused) => {
                assert_eq!(refused.message, copy);
                assert_eq!(refused.token, token);
                self.returned(refused.token);
                Err(refused.error)
            }
        }
    }

    pub fn subscribe(&mut self, filters: &[&str]) -> u32 {
        let filters = filters.iter().map(|name| at_qos_1(name)).collect();
        self.try_subscribe(filters).expect("admitted")
    }

    pub fn try_subscribe(&mut self, filters: Vec<SubscribeFilter>) -> Result<u32, UsageError> {
        let token = self.token();
        let result = self
            .session
            .subscribe(filters, Properties::default(), token);
        if result.is_err() {
            self.returned(token);
        }
        result.map(|()| token)
    }

    pub fn unsubscribe(&mut self, filters: &[&str]) -> u32 {
        let filters = filters.iter().map(|name| filter(name)).collect();
        self.try_unsubscribe(filters).expect("admitted")
    }

    pub fn try_unsubscribe(
        &mut self,
        filters: Vec<mqtt_proto::TopicFilter>,
    ) -> Result<u32, UsageError> {
        let token = self.token();
        let result = self
            .session
            .unsubscribe(filters, Properties::default(), token);
        if result.is_err() {
            self.returned(token);
        }
        result.map(|()| token)
    }

    /// The application has taken a message.
    /// Gives up the oldest publish that was sent and not acknowledged; returns its token.
    pub fn abandon_oldest(&mut self) -> Option<u32> {
        let number = self.session.oldest_unacknowledged()?;
        self.cut();
        let token = self.session.abandon_publish(number)?;
        assert_eq!(self.session.abandon_publish(number), None);
        self.returned(token);
        Some(token)
    }

    pub fn acknowledge(&mut self, ack: AckId) {
        self.session.acknowledge(ack, ReasonCode::SUCCESS);
    }

    /// Ends the session: every token comes back.
    fn finish(&mut self) {
        self.cut();
        assert_eq!(self.session.in_flight(), self.open.len());
        self.dial(Connect::new(self.version, "client").expect("a short text"));
        self.accept(ConnAck::accepted());
        assert_eq!(self.open, BTreeSet::new(), "tokens that never came back");
        assert_eq!(self.session.in_flight(), 0);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.finish();
        }
    }
}

/// The outcome of a publish or request, as a test compares it.
#[track_caller]
pub fn published(event: Option<Event<u32>>) -> (u32, ReasonCode) {
    match event {
        Some(Event::Published {
            token, reason_code, ..
        }) => (token, reason_code),
        other => panic!("{other:?} is not the end of a publish"),
    }
}

/// The payload of a message that was delivered.
#[track_caller]
pub fn delivered(event: Option<Event<u32>>) -> String {
    match event {
        Some(Event::Message { message, .. }) => {
            String::from_utf8(message.payload.to_vec()).expect("a text")
        }
        other => panic!("{other:?} is not a message"),
    }
}
