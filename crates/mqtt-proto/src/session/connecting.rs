//! CONNECT to CONNACK: what a new connection begins with, and what it finds of the session.

use std::time::{Duration, Instant};

use super::{Connected, Event, KeepAlive, Limits, Phase, Session, authenticating::Turn};
use crate::{
    ProtocolError, UsageError, Version,
    packet::{ConnAck, Connect, Packet, PacketType},
};

impl<T> Session<T> {
    /// Begins a connection: CONNECT is its first packet `[MQTT5-3.1.0-1]` `[MQTT3-3.1.0-1]`.
    ///
    /// To be called once for each network connection, after [`connection_lost`](Self::connection_lost)
    /// for the one before. The CONNECT is also where our limits are read from: receive maximum,
    /// maximum packet size, topic alias maximum, session expiry, keep-alive.
    ///
    /// With a clean start, or under another client identifier, the session so far is over whatever
    /// becomes of this connection: its open publishes are among those lost when the server accepts
    /// or the connection ends.
    pub fn connect(&mut self, mut connect: Connect, now: Instant) -> Result<(), UsageError> {
        if self.phase != Phase::Disconnected {
            return Err(UsageError::AlreadyConnected);
        }
        check(&connect)?;
        if connect.client_id.is_empty() && !connect.clean_start {
            // The identifier a server assigned is the session's from then on (5.0 section 3.2.2.3.7).
            if let Some(assigned) = self.client_id() {
                connect.client_id = assigned.clone();
            }
        }
        self.outbound.clear();
        self.outbound.packet(u32::MAX, |out| connect.encode(out))?;
        // The server drops its side when it reads this, though its CONNACK may never arrive
        // `[MQTT5-3.1.2-4]` `[MQTT3-3.1.2-6]`; and the client identifier is the session's key
        // `[MQTT5-3.1.3-2]` `[MQTT3-3.1.3-2]`.
        if connect.clean_start || self.client_id() != Some(&connect.client_id) {
            self.has_state = false;
            self.receiving.clear();
        }
        self.version = connect.version;
        self.limits = Limits::default();
        self.is_paused = false;
        self.receiving.set_limits(&connect);
        self.session_expiry_interval = connect.properties.session_expiry_interval.unwrap_or(0);
        // Sent once, and kept no longer than that: the next connection authenticates anew.
        if connect.properties.authentication_data.is_some() {
            connect.properties.authentication_data = None;
        }
        self.connect = Some(Box::new(connect));
        self.begin_authentication();
        self.phase = Phase::Connecting {
            began: now,
            deadline: now + self.options.connack_timeout,
        };
        Ok(())
    }

    pub(super) fn on_packet_connecting(
        &mut self,
        packet: Packet,
        began: Instant,
        now: Instant,
    ) -> Result<Option<Event<T>>, ProtocolError> {
        let packet_type = packet.packet_type();
        if let Packet::ConnAck(connack) = packet {
            if connack.reason_code.is_error() {
                self.phase = Phase::Closed;
                return Ok(Some(Event::Refused(Box::new(connack))));
            }
            let method = connack.properties.authentication_method.as_ref();
            self.check_method(PacketType::ConnAck, method)?;
            return self.on_accepted(connack, began, now).map(Some);
        }
        if let Packet::Auth(auth) = packet {
            return self.on_auth(auth).map(Some);
        }
        Err(self.unexpected(packet_type))
    }

    fn on_accepted(
        &mut self,
        connack: ConnAck,
        began: Instant,
        now: Instant,
    ) -> Result<Event<T>, ProtocolError> {
        let Some(connect) = &mut self.connect else {
            return Err(self.unexpected(PacketType::ConnAck));
        };
        let may_resume = !connect.clean_start && (self.has_state || self.options.adopt_session);
        if connack.session_present && !may_resume {
            return Err(ProtocolError::UnknownSessionPresent);
        }
        if let Some(assigned) = &connack.properties.assigned_client_identifier {
            connect.client_id = assigned.clone();
        }
        if let Some(expiry) = connack.properties.session_expiry_interval {
            self.session_expiry_interval = expiry;
        }
        let keep_alive = connack
            .properties
            .server_keep_alive
            .unwrap_or(connect.keep_alive);
        self.keep_alive = KeepAlive::start(Duration::from_secs(keep_alive.into()), began, now);
        self.limits = Limits::of(&connack);
        let resumes = connack.session_present && self.has_state;
        self.has_state = true;
        self.phase = Phase::Connected;
        self.turn = Turn::Nobody;
        let mut lost = Vec::new();
        if !resumes {
            self.receiving.clear();
            lost = self.session_lost();
        }
        let (version, limits) = (self.version, &self.limits);
        lost.extend(
            self.sending
                .resume(|message| limits.check_resend(message, version)),
        );
        self.resends_as_duplicates = resumes;
        self.resend();
        Ok(Event::Connected(Box::new(Connected { connack, lost })))
    }

    /// Whether the Session State is kept when the connection ends `[MQTT5-3.1.2-23]`
    /// `[MQTT3-3.1.2-4]`.
    pub fn outlives_connection(&self) -> bool {
        self.has_state
            && match self.version {
                Version::V3 => self.connect.as_ref().is_some_and(|it| !it.clean_start),
                Version::V5 => self.session_expiry_interval > 0,
            }
    }
}

fn check(connect: &Connect) -> Result<(), UsageError> {
    if connect.version == Version::V3 {
        if connect.client_id.is_empty() && !connect.clean_start {
            return Err(UsageError::EmptyClientId);
        }
        if connect.password.is_some() && connect.user_name.is_none() {
            return Err(UsageError::PasswordWithoutUserName);
        }
    }
    let properties = &connect.properties;
    if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
        return Err(UsageError::AuthenticationDataAlone);
    }
    Ok(())
}
