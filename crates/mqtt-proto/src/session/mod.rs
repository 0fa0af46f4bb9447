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
//! start resumes it. What was open then goes on, PUBRELs first and then PUBLISHes, each in their order
//! `[MQTT5-4.4.0-1]` `[MQTT3-4.4.0-1]`; at no other time is anything sent twice.
//!
//! `T` is the caller's token for a request. Each token of a request that was admitted comes back
//! exactly once: from the call itself, in the event that ends the request, or among those lost.

use std::time::Instant;

use crate::{
    Message, Outbound, ProtocolError, ReasonCode, UsageError, Utf8String, Version,
    packet::{Connect, Disconnect, Packet, PacketType},
};

mod aliases;
mod answers;
mod authenticating;
mod connecting;
mod event;
mod holding;
mod keep_alive;
mod limits;
mod options;
mod reactions;
mod receiving;
mod requests;
mod sending;
mod writing;

use aliases::Aliases;
pub use answers::Overdue;
use answers::Watch;
use authenticating::Turn;
pub use event::{Connected, Event, Refused};
use holding::Caution;
use keep_alive::{KeepAlive, Tick};
pub use limits::Limits;
pub use options::SessionOptions;
pub use receiving::AckId;
use receiving::Receiving;
use sending::Sending;

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
    /// Of enhanced authentication.
    turn: Turn,
    limits: Limits,
    /// No more publishes are taken on this connection.
    is_paused: bool,
    caution: Caution,
    sending: Sending<T>,
    /// Whether what is sent again was sent in this session.
    resends_as_duplicates: bool,
    receiving: Receiving,
    /// There once a topic was sent with an alias. Boxed, as most sessions do without.
    aliases: Option<Box<Aliases>>,
    keep_alive: KeepAlive,
    /// For answers that do not come. Boxed, as an idle session does without.
    watch: Option<Box<Watch>>,
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
            turn: Turn::default(),
            limits: Limits::default(),
            is_paused: false,
            caution: Caution::None,
            sending: Sending::default(),
            resends_as_duplicates: false,
            receiving: Receiving::default(),
            aliases: None,
            keep_alive: KeepAlive::default(),
            watch: None,
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

    /// Whether there is Session State that a connection without clean start may resume.
    pub fn has_state(&self) -> bool {
        self.has_state
    }

    /// What the server of the present connection takes.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The client identifier: that of CONNECT, or the one the server assigned.
    pub fn client_id(&self) -> Option<&Utf8String> {
        self.connect.as_ref().map(|connect| &connect.client_id)
    }

    /// The CONNECT of the present or last connection, with the identifier that the server assigned
    /// if it had none, and without its authentication data.
    pub fn last_connect(&self) -> Option<&Connect> {
        self.connect.as_deref()
    }

    /// How many QoS 1 and 2 publishes have not ended.
    pub fn in_flight(&self) -> usize {
        self.sending.publishes()
    }

    /// The messages of QoS 1 and 2 publishes that the server has not acknowledged, in the order of
    /// sending.
    pub fn unacknowledged_publishes(&self) -> Vec<Message> {
        self.sending.messages()
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
            Phase::Connected => {
                let deadlines = [self.keep_alive.next_deadline(), self.next_look()];
                deadlines.into_iter().flatten().min()
            }
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
    /// gone: close the connection. Whether it is there and does not answer,
    /// [`take_overdue`](Self::take_overdue) says.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ProtocolError> {
        match self.phase {
            Phase::Connecting { deadline, .. } if now >= deadline => {
                self.phase = Phase::Closed;
                Err(ProtocolError::ConnAckTimeout {
                    timeout: self.options.connack_timeout,
                })
            }
            Phase::Connected => {
                self.look_for_answers(now);
                match self.keep_alive.tick(now) {
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
                }
            }
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
        self.caution = Caution::None;
        self.outbound.clear();
        self.aliases = None;
        self.watch = None;
        self.receiving.connection_lost();
        if self.outlives_connection() {
            return self.sending.connection_lost();
        }
        self.has_state = false;
        self.receiving.clear();
        self.session_lost()
    }

    /// The server has no session: returns the publishes that end with it.
    fn session_lost(&mut self) -> Vec<T> {
        if self.options.resend_at_least_once {
            self.sending.keep_at_least_once()
        } else {
            self.sending.clear()
        }
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
            .min(self.options.max_in_flight.max(1))
            .into()
    }
}
