//! Enhanced authentication: AUTH both ways, before CONNACK and again at any time after it.
//!
//! All of them, and the CONNACK, name the method of CONNECT `[MQTT5-4.12.0-5]`. The client begins,
//! with CONNECT or a re-authentication, and then the two take turns. What the data means is between
//! the application and its server.

use super::{Event, Phase, Session};
use crate::{
    ProtocolError, ReasonCode, UsageError, Utf8String, Version,
    packet::{Auth, Packet, PacketType},
};

/// Who is to send the next AUTH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing is under way: the client may begin a re-authentication.
    #[default]
    Nobody,
    Client,
    Server,
}

impl<T> Session<T> {
    /// Answers a step of enhanced authentication, or begins a re-authentication on a connection that
    /// was accepted and has none under way.
    ///
    /// The method is that of CONNECT and may be left out.
    pub fn authenticate(&mut self, mut auth: Auth) -> Result<(), UsageError> {
        let may_begin = match self.phase {
            Phase::Disconnected | Phase::Closed => return Err(UsageError::NotConnected),
            Phase::Connecting { .. } => false,
            Phase::Connected => self.turn == Turn::Nobody,
        };
        let Some(method) = self.method() else {
            return Err(UsageError::NoAuthenticationMethod);
        };
        match &auth.properties.authentication_method {
            Some(other) if other != method => return Err(UsageError::OtherAuthenticationMethod),
            Some(_) => {}
            None => auth.properties.authentication_method = Some(method.clone()),
        }
        match auth.reason_code {
            ReasonCode::CONTINUE_AUTHENTICATION if self.turn == Turn::Client => {}
            ReasonCode::RE_AUTHENTICATE if may_begin => {}
            code => return Err(UsageError::AuthenticationReason(code)),
        }
        self.write(&Packet::Auth(auth))?;
        self.turn = Turn::Server;
        Ok(())
    }

    /// The server is to answer this CONNECT, with AUTH if that names a method.
    pub(super) fn begin_authentication(&mut self) {
        self.turn = if self.method().is_some() {
            Turn::Server
        } else {
            Turn::Nobody
        };
    }

    pub(super) fn on_auth(&mut self, auth: Auth) -> Result<Event<T>, ProtocolError> {
        // It is the client that begins.
        if self.method().is_none() || auth.reason_code == ReasonCode::RE_AUTHENTICATE {
            return Err(self.unexpected(PacketType::Auth));
        }
        let properties = &auth.properties;
        self.check_method(PacketType::Auth, properties.authentication_method.as_ref())?;
        let has_texts =
            properties.reason_string.is_some() || !properties.user_properties.is_empty();
        self.check_texts(PacketType::Auth, has_texts)?;
        // One AUTH answers one, and until CONNACK only that ends the exchange [MQTT5 4.12].
        let is_last = auth.reason_code == ReasonCode::SUCCESS;
        if self.turn != Turn::Server || (is_last && self.phase != Phase::Connected) {
            return Err(self.unexpected(PacketType::Auth));
        }
        self.turn = if is_last { Turn::Nobody } else { Turn::Client };
        Ok(Event::Auth(Box::new(auth)))
    }

    /// AUTH and a CONNACK that accepts repeat the method of CONNECT, or its absence
    /// `[MQTT5-4.12.0-5]` `[MQTT5-4.12.0-6]`.
    pub(super) fn check_method(
        &self,
        packet_type: PacketType,
        method: Option<&Utf8String>,
    ) -> Result<(), ProtocolError> {
        if method == self.method() {
            Ok(())
        } else {
            Err(ProtocolError::AuthenticationMethod { packet_type })
        }
    }

    /// The method of enhanced authentication, where there is one.
    fn method(&self) -> Option<&Utf8String> {
        match self.version {
            Version::V3 => None,
            Version::V5 => {
                let connect = self.connect.as_ref()?;
                connect.properties.authentication_method.as_ref()
            }
        }
    }
}
