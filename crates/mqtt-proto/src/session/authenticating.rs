//! Enhanced authentication: AUTH both ways, before CONNACK and again at any time after it.
//!
//! All of them, and the CONNACK, name the method of CONNECT `[MQTT5-4.12.0-5]`. What the data in
//! them means is between the application and its server.

use super::{Event, Phase, Session};
use crate::{
    ProtocolError, ReasonCode, UsageError, Utf8String, Version,
    packet::{Auth, Packet, PacketType},
};

impl<T> Session<T> {
    /// Goes on with enhanced authentication, or begins a re-authentication once connected.
    ///
    /// The method is that of CONNECT and may be left out.
    pub fn authenticate(&mut self, mut auth: Auth) -> Result<(), UsageError> {
        let may_begin = match self.phase {
            Phase::Disconnected | Phase::Closed => return Err(UsageError::NotConnected),
            Phase::Connecting { .. } => false,
            Phase::Connected => true,
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
            ReasonCode::CONTINUE_AUTHENTICATION => {}
            ReasonCode::RE_AUTHENTICATE if may_begin => {}
            code => return Err(UsageError::AuthenticationReason(code)),
        }
        self.write(&Packet::Auth(auth))
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
