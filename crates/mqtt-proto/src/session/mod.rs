//! The client's state machine: no socket, no clock, no task.
//!
//! **One rule: after every input, drain the outputs.**
//!
//! | | call |
//! | --- | --- |
//! | inputs | [`connect`](Session::connect), [`handle_packet`](Session::handle_packet), [`handle_timeout`](Session::handle_timeout), [`connection_lost`](Session::connection_lost), the requests |
//! | outputs | the [`Event`] a call returns, the bytes of [`take_outbound`](Session::take_outbound), [`next_deadline`](Session::next_deadline) |
//!
//! ```text
//!                connect              CONNACK
//! Disconnected ----------> Connecting --------> Connected
//!      ^                       |                    |
//!      |   connection_lost     v                    v   DISCONNECT either way, an error, a timeout
//!      +--------------------- Closed <--------------+
//! ```
//!
//! A `Session` is the specification's *Session State* and outlives its network connections: after
//! [`connection_lost`](Session::connection_lost), a [`connect`](Session::connect) without clean
//! start resumes it. What was open then goes on, re-sent in its order `[MQTT5-4.4.0-1]`
//! `[MQTT3-4.4.0-1]`; at no other time is anything sent twice.
//!
//! `T` is the caller's token for a request. Each token given in comes back exactly once: from the
//! call itself, in the event that ends the request, or among those lost.

use std::time::{Duration, Instant};

use crate::{
    Message, Outbound, ProtocolError, QoS, ReasonCode, TopicFilter, UsageError, Utf8String,
    Version,
    packet::{
        Ack, AckProperties, Auth, ConnAck, Connect, Disconnect, Packet, PacketType, Properties,
        Subscribe, SubscribeFilter, SubscribeProperties, Unsubscribe, UnsubscribeProperties,
    },
};

mod authenticating;
mod connecting;
mod keep_alive;
mod limits;
mod receiving;
mod sending;

use keep_alive::{KeepAlive, Tick};
pub use limits::Limits;
pub use receiving::AckId;
use receiving::{Arrival, Receiving};
use sending::{Awaiting, Sending, Step};

/// What the session holds itself to, beyond what CONNECT says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionOptions {
    /// The most QoS 1 and 2 publishes open at a time; the server's Receive Maximum lowers it.
    /// Default 100: what the strictest public services take from a 3.1.1 client, which no server
    /// can tell its limit. Throughput is at most this many messages per round trip.
    pub max_in_flight: u16,
    /// Publishes have no room while this many encoded bytes wait to be written. Default 64 KiB:
    /// a full socket buffer's worth, beyond which a larger queue adds delay and no throughput.
    pub max_unsent_bytes: usize,
    /// How long to wait for CONNACK. Default 5 s.
    pub connack_timeout: Duration,
    /// Whether to go on with a session that the server kept and this client knows nothing of, as
    /// after a restart of the process. Off by default, since the specification asks a client to
    /// close then `[MQTT5-3.2.2-4]`: what it had in flight is unknown.
    pub adopt_session: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            max_in_flight: 100,
            max_unsent_bytes: 64 * 1024,
            connack_timeout: Duration::from_secs(5),
            adopt_session: false,
        }
    }
}

impl SessionOptions {
    /// With this [`max_in_flight`](Self::max_in_flight); 0 counts as 1.
    #[must_use]
    pub fn with_max_in_flight(mut self, max_in_flight: u16) -> Self {
        self.max_in_flight = max_in_flight.max(1);
        self
    }

    /// With this [`max_unsent_bytes`](Self::max_unsent_bytes); 0 counts as 1.
    #[must_use]
    pub fn with_max_unsent_bytes(mut self, max_unsent_bytes: usize) -> Self {
        self.max_unsent_bytes = max_unsent_bytes.max(1);
        self
    }

    /// With this [`connack_timeout`](Self::connack_timeout).
    #[must_use]
    pub fn with_connack_timeout(mut self, connack_timeout: Duration) -> Self {
        self.connack_timeout = connack_timeout;
        self
    }

    /// With this [`adopt_session`](Self::adopt_session).
    #[must_use]
    pub fn with_adopt_session(mut self, adopt_session: bool) -> Self {
        self.adopt_session = adopt_session;
        self
    }
}

/// What came of an input. Each packet leads to at most one.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<T> {
    /// The server accepted the connection.
    Connected(Box<Connected<T>>),
    /// The server refused the connection and closes it.
    Refused(Box<ConnAck>),
    /// A message for the application. `ack` is to be given to [`Session::acknowledge`].
    Message {
        /// The message, its topic alias resolved.
        message: Message,
        /// What names it when it is acknowledged; `None` at QoS 0.
        ack: Option<AckId>,
        /// Whether the server may have sent it before.
        dup: bool,
    },
    /// A QoS 1 or 2 publish has ended: PUBACK, PUBCOMP, or a PUBREC that refuses.
    Published {
        /// The caller's token.
        token: T,
        /// What the server says became of it.
        reason_code: ReasonCode,
        /// Of the last acknowledgement.
        properties: Properties<AckProperties>,
    },
    /// SUBACK or UNSUBACK.
    Answered {
        /// The caller's token.
        token: T,
        /// One for each filter, in order. For a 3.1.1 UNSUBACK all are success.
        reason_codes: Vec<ReasonCode>,
        /// 5.0 only.
        properties: Properties<AckProperties>,
    },
    /// The server closes the connection and says why. 5.0 only.
    Disconnected(Box<Disconnect>),
    /// A step of enhanced authentication, to be answered with [`Session::authenticate`].
    Auth(Box<Auth>),
}

/// The server accepted the connection.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connected<T> {
    /// The server's CONNACK.
    pub connack: ConnAck,
    /// Publishes that cannot go on, since the server has no session or its limits forbid them.
    /// Whether they were delivered is unknown.
    pub lost: Vec<T>,
}

/// A publish that was not admitted; nothing of it was sent.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused<T> {
    /// The message, back.
    pub message: Message,
    /// The token, back.
    pub token: T,
    /// Why; `None` means that there is no room now.
    pub error: Option<UsageError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Disconnected,
    Connecting { began: Instant, deadline: Instant },
    Connected,
    Closed,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting { .. } => "awaiting CONNACK",
            Self::Connected => "connected",
            Self::Closed => "closed",
        }
    }
}

/// The Session State of an MQTT client, and the protocol on its present connection.
#[derive(Debug)]
pub struct Session<T> {
    options: SessionOptions,
    phase: Phase,
    /// The CONNECT of this connection: version, our limits, keep-alive.
    connect: Option<Box<Connect>>,
    version: Version,
    /// Whether the client has Session State that a server may resume.
    has_state: bool,
    /// How long that outlives its connection, in seconds: as asked, or as the server answered.
    session_expiry_interval: u32,
    limits: Limits,
    sending: Sending<T>,
    receiving: Receiving,
    keep_alive: KeepAlive,
    outbound: Outbound,
}

impl<T> Session<T> {
    /// A session that was never connected.
    pub fn new(options: SessionOptions) -> Self {
        Self {
            options,
            phase: Phase::Disconnected,
            connect: None,
            version: Version::default(),
            has_state: false,
            session_expiry_interval: 0,
            limits: Limits::default(),
            sending: Sending::default(),
            receiving: Receiving::default(),
            keep_alive: KeepAlive::default(),
            outbound: Outbound::default(),
        }
    }

    /// The version of the present or last connection.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the server accepted the connection and neither side closed it.
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// What the server of the present connection takes.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The client identifier: that of CONNECT, or the one the server assigned.
    pub fn client_id(&self) -> Option<&Utf8String> {
        self.connect.as_ref().map(|connect| &connect.client_id)
    }

    /// How many QoS 1 and 2 publishes have not ended.
    pub fn in_flight(&self) -> usize {
        self.sending.publishes()
    }

    // Outputs.

    /// How many encoded bytes wait to be written.
    pub fn unsent(&self) -> usize {
        self.outbound.len()
    }

    /// Takes all bytes to be written, and leaves `empty` in their place.
    ///
    /// They count as sent from now on. What cannot be written is lost with the connection.
    pub fn take_outbound(&mut self, empty: Outbound) -> Outbound {
        if !self.outbound.is_empty() {
            self.keep_alive.sent();
        }
        std::mem::replace(&mut self.outbound, empty)
    }

    /// Whether the buffer for bytes to be written was never given any room.
    pub fn outbound_capacity(&self) -> usize {
        self.outbound.capacity()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Connecting { deadline, .. } => Some(deadline),
            Phase::Connected => self.keep_alive.next_deadline(),
            Phase::Disconnected | Phase::Closed => None,
        }
    }

    // Inputs.

    /// A packet came. After an error the connection is to be closed, once the outbound bytes (a
    /// DISCONNECT, in 5.0) are written.
    pub fn handle_packet(
        &mut self,
        packet: Packet,
        now: Instant,
    ) -> Result<Option<Event<T>>, ProtocolError> {
        self.keep_alive.received();
        let result = match self.phase {
            Phase::Connected => self.on_packet(packet),
            Phase::Connecting { began, .. } => self.on_packet_connecting(packet, began, now),
            Phase::Disconnected | Phase::Closed => Ok(None),
        };
        if let Err(error) = &result {
            self.abort(error.reason_code());
        }
        result
    }

    /// Bytes came, whether or not they complete a packet: a large packet on a slow line is a sign of
    /// life too. One that trickles in at less than 1 KiB in half a keep-alive is not.
    pub fn bytes_received(&mut self, n: usize) {
        self.keep_alive.bytes_received(n);
    }

    /// The time of [`next_deadline`](Self::next_deadline) came. An error means that the peer is
    /// gone: close the connection.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ProtocolError> {
        match self.phase {
            Phase::Connecting { deadline, .. } if now >= deadline => {
                self.phase = Phase::Closed;
                Err(ProtocolError::ConnAckTimeout {
                    timeout: self.options.connack_timeout,
                })
            }
            Phase::Connected => match self.keep_alive.tick(now) {
                Tick::Quiet => Ok(()),
                Tick::Ping => {
                    self.sending.shrink_if_idle();
                    self.write(&Packet::PingReq).unwrap_or_default();
                    Ok(())
                }
                Tick::Dead { keep_alive } => {
                    self.phase = Phase::Closed;
                    Err(ProtocolError::KeepAliveTimeout { keep_alive })
                }
            },
            Phase::Connecting { .. } | Phase::Disconnected | Phase::Closed => Ok(()),
        }
    }

    /// The network connection is gone, whoever ended it. Returns the requests that end with it.
    ///
    /// Those are subscribes and unsubscribes, and if the session ends with its connection the open
    /// publishes too. Bytes not yet taken are dropped: what they said is either part of the
    /// session and sent again, or QoS 0.
    pub fn connection_lost(&mut self) -> Vec<T> {
        self.phase = Phase::Disconnected;
        self.outbound.clear();
        self.receiving.connection_lost();
        if self.outlives_connection() {
            return self.sending.connection_lost();
        }
        self.has_state = false;
        self.receiving.clear();
        self.sending.clear()
    }

    /// Closes on our side because of an error that is not the session's own, such as a malformed
    /// packet: in 5.0 a DISCONNECT says why `[MQTT5 4.13.1]`. Nothing is sent after it.
    ///
    /// A code that only a server sends is told as an unspecified error `[MQTT5-3.14.2-1]`.
    pub fn abort(&mut self, reason_code: ReasonCode) {
        match self.phase {
            Phase::Disconnected | Phase::Closed => return,
            Phase::Connecting { .. } | Phase::Connected => {}
        }
        if self.version == Version::V5 {
            let mut disconnect = Disconnect::new(reason_code);
            if !disconnect.is_from_client() {
                disconnect.reason_code = ReasonCode::UNSPECIFIED_ERROR;
            }
            self.write(&Packet::Disconnect(disconnect))
                .unwrap_or_default();
        }
        self.phase = Phase::Closed;
    }

    /// Closes in order: everything before, then DISCONNECT, then nothing `[MQTT5-3.14.4-1]`
    /// `[MQTT3-3.14.4-2]`.
    pub fn disconnect(&mut self, disconnect: Disconnect) -> Result<(), UsageError> {
        self.connected()?;
        let expiry = disconnect.properties.session_expiry_interval;
        let asked = self
            .connect
            .as_ref()
            .and_then(|connect| connect.properties.session_expiry_interval);
        let revives = expiry.is_some_and(|expiry| expiry > 0) && asked.unwrap_or(0) == 0;
        if !disconnect.is_from_client()
            || revives
            || disconnect.properties.server_reference.is_some()
        {
            return Err(UsageError::DisconnectReason(disconnect.reason_code));
        }
        let code = disconnect.reason_code;
        if let Err(UsageError::PacketTooLarge { .. }) = self.write(&Packet::Disconnect(disconnect))
        {
            // Without its texts `[MQTT5-3.14.2-3]` `[MQTT5-3.14.2-4]`.
            let mut plain = Disconnect::new(code);
            if expiry.is_some() {
                plain.properties.session_expiry_interval = expiry;
            }
            self.write(&Packet::Disconnect(plain))?;
        }
        self.session_expiry_interval = expiry.unwrap_or(self.session_expiry_interval);
        self.phase = Phase::Closed;
        Ok(())
    }

    // Requests.

    /// Whether a publish at `qos` would be admitted now.
    ///
    /// A full window holds back QoS 1 and 2 only `[MQTT5-3.3.4-8]`, a full buffer all.
    pub fn has_room(&self, qos: QoS) -> bool {
        self.phase == Phase::Connected
            && self.outbound.len() < self.options.max_unsent_bytes
            && (qos == QoS::AtMostOnce || self.window_room() > 0)
    }

    /// How many publishes at QoS 1 and 2 the window has room for now.
    pub fn window_room(&self) -> usize {
        self.sending.room(self.window())
    }

    /// Publishes. At QoS 0 that is all, and the token comes back at once; otherwise it comes back
    /// in [`Event::Published`].
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
        let max = self.limits.maximum_packet_size;
        if message.qos == QoS::AtMostOnce {
            return match self
                .outbound
                .publish(&message, None, false, self.version, max)
            {
                Ok(()) => Ok(Some(token)),
                Err(error) => Err(Refused {
                    message,
                    token,
                    error: Some(error),
                }),
            };
        }
        let Some(packet_id) = self.sending.next_id() else {
            return Err(Refused {
                message,
                token,
                error: Some(UsageError::NoPacketId),
            });
        };
        if let Err(error) =
            self.outbound
                .publish(&message, Some(packet_id), false, self.version, max)
        {
            return Err(Refused {
                message,
                token,
                error: Some(error),
            });
        }
        // An alias holds on one connection only `[MQTT5-3.3.2-7]`; a resend names its topic.
        if !message.properties.is_empty() {
            message.properties.topic_alias = None;
        }
        self.sending.open_publish(packet_id, message, token);
        Ok(None)
    }

    /// Subscribes; [`Event::Answered`] has the answer. On error the token is dropped.
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
        self.sending.open(
            packet_id,
            Awaiting::SubAck {
                token,
                filters: count,
            },
        );
        Ok(())
    }

    /// Unsubscribes; [`Event::Answered`] has the answer. On error the token is dropped.
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
        self.sending.open(
            packet_id,
            Awaiting::UnsubAck {
                token,
                filters: count,
            },
        );
        Ok(())
    }

    /// The application has taken a message, or in 5.0 refuses it with a code of 0x80 and above.
    /// A code that PUBACK and PUBREC of a client cannot carry is told as the general one.
    ///
    /// Acknowledgements leave in the order in which the messages came, whatever the order of these
    /// calls `[MQTT5-4.6.0-2]` `[MQTT3-4.6.0-2]`. Nothing happens if the message came on an earlier
    /// connection and is to be sent again.
    pub fn acknowledge(&mut self, ack: AckId, reason_code: ReasonCode) {
        let reason_code = match self.version {
            // Its acknowledgements have no codes, so they always say that it was taken.
            Version::V3 => ReasonCode::SUCCESS,
            Version::V5 => receiving::from_client(reason_code),
        };
        self.receiving.acknowledge(ack, reason_code);
        self.flush_acks();
    }

    // Reactions.

    fn on_packet(&mut self, packet: Packet) -> Result<Option<Event<T>>, ProtocolError> {
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

    fn on_ack(
        &mut self,
        packet_type: PacketType,
        ack: Ack,
    ) -> Result<Option<Event<T>>, ProtocolError> {
        self.check_problem_information(packet_type, &ack.properties)?;
        match self.sending.on_ack(packet_type, &ack)? {
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

    fn check_problem_information(
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
    fn check_texts(&self, packet_type: PacketType, has_texts: bool) -> Result<(), ProtocolError> {
        let asked = self
            .connect
            .as_ref()
            .and_then(|connect| connect.properties.request_problem_information);
        if asked == Some(false) && has_texts {
            return Err(ProtocolError::UnaskedProblemInformation { packet_type });
        }
        Ok(())
    }

    fn unexpected(&self, packet_type: PacketType) -> ProtocolError {
        ProtocolError::UnexpectedPacket {
            packet_type,
            phase: self.phase.name(),
        }
    }

    fn connected(&self) -> Result<(), UsageError> {
        if self.phase == Phase::Connected {
            Ok(())
        } else {
            Err(UsageError::NotConnected)
        }
    }

    fn window(&self) -> usize {
        self.limits
            .receive_maximum
            .min(self.options.max_in_flight)
            .into()
    }

    // Writing.

    fn write(&mut self, packet: &Packet) -> Result<(), UsageError> {
        let version = self.version;
        self.outbound
            .packet(self.limits.maximum_packet_size, |out| {
                packet.encode(version, out)
            })
    }

    fn write_ack(&mut self, packet_type: PacketType, ack: Ack) {
        let version = self.version;
        let max = self.limits.maximum_packet_size;
        // The short form of five bytes at most fits any server that takes packets at all.
        self.outbound
            .packet(max, |out| ack.encode(packet_type, version, out))
            .unwrap_or_default();
    }

    /// Writes the PUBACKs and PUBRECs whose turn it is.
    fn flush_acks(&mut self) {
        if self.phase != Phase::Connected {
            return;
        }
        while let Some((packet_type, ack)) = self.receiving.next_ack() {
            self.write_ack(packet_type, ack);
        }
    }

    /// Sends again what the window allows of what was open on the last connection.
    fn resend(&mut self) {
        let window = self.window();
        while let Some((packet_id, exchange)) = self.sending.next_resend(window) {
            let max = self.limits.maximum_packet_size;
            match exchange {
                Awaiting::PubAck { message, .. } | Awaiting::PubRec { message, .. } => {
                    // `connected` has taken out those that the server's limits forbid.
                    self.outbound
                        .publish(message, Some(packet_id), true, self.version, max)
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
