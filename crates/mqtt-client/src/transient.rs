//! What may pass and what stays until a person mends it: the one place that decides it, by cause.
//!
//! The table of all codes is in the documentation of [`ReconnectConfig`](crate::ReconnectConfig).
//! Its rule: an answer to CONNECT that complains about the CONNECT comes again, for the same
//! CONNECT comes again; a complaint on an open session need not, and what a server does wrong may be
//! mended there. An attempt that does not help costs one connection in a minute; a session that gave
//! up at night waits for a person.

use mqtt_proto::{ProtocolError, ReasonCode};

use crate::{
    error::{ConnectCause, ConnectError, ConnectionLost, LostCause},
    reconnect::{Cause, ClosedBy},
};

impl ConnectError {
    /// Whether another attempt can help without a change by a person.
    pub fn is_transient(&self) -> bool {
        match &self.cause {
            ConnectCause::Dial(error) => error.is_transient(),
            ConnectCause::Io(error) => mqtt_transport::is_transient(error),
            ConnectCause::Closed | ConnectCause::Malformed(_) | ConnectCause::Protocol(_) => true,
            ConnectCause::Credentials(error) => error.is_transient(),
            ConnectCause::Authentication(error) => error.is_transient(),
            ConnectCause::Config(_) | ConnectCause::Options(_) => false,
            ConnectCause::Refused(connack) | ConnectCause::NotFollowed { connack, .. } => {
                refusal_is_transient(connack.reason_code)
            }
        }
    }

    /// Who ended the attempt.
    pub fn closed_by(&self) -> ClosedBy {
        match &self.cause {
            ConnectCause::Dial(_)
            | ConnectCause::Io(_)
            | ConnectCause::Protocol(ProtocolError::ConnAckTimeout { .. }) => ClosedBy::Network,
            ConnectCause::Closed
            | ConnectCause::Malformed(_)
            | ConnectCause::Protocol(_)
            | ConnectCause::Refused(_)
            | ConnectCause::NotFollowed { .. } => ClosedBy::Server,
            ConnectCause::Credentials(_)
            | ConnectCause::Authentication(_)
            | ConnectCause::Config(_)
            | ConnectCause::Options(_) => ClosedBy::Client,
        }
    }
}

impl ConnectionLost {
    /// Whether a new connection can help without a change by a person.
    pub fn is_transient(&self) -> bool {
        match &self.cause {
            LostCause::Closed => false,
            LostCause::Io { source, .. } => mqtt_transport::is_transient(source),
            LostCause::Cut
            | LostCause::Renewed
            | LostCause::ClosedByServer
            | LostCause::Malformed(_)
            | LostCause::Protocol(_)
            | LostCause::Stalled { .. }
            | LostCause::SessionLost
            | LostCause::TaskDropped => true,
            LostCause::NotReopened(error) => error.is_transient(),
            LostCause::Authentication(error) => error.is_transient(),
            LostCause::Disconnected(disconnect) => disconnect_is_transient(disconnect.reason_code),
        }
    }

    /// Who ended the connection.
    pub fn closed_by(&self) -> ClosedBy {
        match &self.cause {
            LostCause::Closed
            | LostCause::Cut
            | LostCause::Renewed
            | LostCause::Authentication(_)
            | LostCause::TaskDropped => ClosedBy::Client,
            LostCause::Io { .. } | LostCause::Protocol(ProtocolError::KeepAliveTimeout { .. }) => {
                ClosedBy::Network
            }
            LostCause::ClosedByServer
            | LostCause::Disconnected(_)
            | LostCause::Malformed(_)
            | LostCause::Protocol(_)
            | LostCause::Stalled { .. }
            | LostCause::SessionLost => ClosedBy::Server,
            LostCause::NotReopened(error) => error.closed_by(),
        }
    }
}

impl Cause<'_> {
    /// Whether the server does not take the credentials, or no longer.
    pub(crate) fn is_about_credentials(&self) -> bool {
        let code = match self {
            Self::NotOpened(ConnectError {
                cause: ConnectCause::Refused(connack),
                ..
            }) => connack.reason_code,
            Self::Lost(ConnectionLost {
                cause: LostCause::Disconnected(disconnect),
                ..
            }) => disconnect.reason_code,
            Self::NotOpened(_) | Self::Lost(_) => return false,
        };
        [
            ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            ReasonCode::NOT_AUTHORIZED,
        ]
        .contains(&code)
    }
}

/// Whether a server that answers CONNECT with this may answer otherwise later.
fn refusal_is_transient(code: ReasonCode) -> bool {
    [
        ReasonCode::UNSPECIFIED_ERROR,
        ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
        ReasonCode::SERVER_UNAVAILABLE,
        ReasonCode::SERVER_BUSY,
        ReasonCode::QUOTA_EXCEEDED,
        ReasonCode::USE_ANOTHER_SERVER,
        ReasonCode::CONNECTION_RATE_EXCEEDED,
    ]
    .contains(&code)
}

/// Whether a server that ends a session with this may accept the next connection, and keep it.
fn disconnect_is_transient(code: ReasonCode) -> bool {
    ![
        ReasonCode::NOT_AUTHORIZED,
        ReasonCode::BAD_AUTHENTICATION_METHOD,
        ReasonCode::SESSION_TAKEN_OVER,
        ReasonCode::SERVER_MOVED,
    ]
    .contains(&code)
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use mqtt_pool::ConfigErrors;
    use mqtt_proto::{
        DecodeError, UsageError, Version,
        codec::MAX_PACKET_SIZE,
        packet::{ConnAck, Disconnect, Packet, PacketType},
    };
    use mqtt_transport::{ConnectPhase, Endpoint};

    use super::*;
    use crate::{credentials::CredentialsError, error::Operation};

    /// The table in the documentation of `ReconnectConfig`, as its lines say: a code, and what it is in
    /// a CONNACK and in a DISCONNECT.
    fn documented(code: u8) -> (Option<bool>, Option<bool>) {
        let source = include_str!("reconnect.rs");
        let begin = format!("/// | 0x{code:02X} ");
        let mut lines = source.lines().filter(|line| line.starts_with(&begin));
        let Some(line) = lines.next() else {
            return (None, None);
        };
        assert_eq!(lines.next(), None, "{line} stands twice");
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let read = |cell: &str| match cell {
            "transient" => Some(true),
            "permanent" => Some(false),
            "" => None,
            other => panic!("{other:?} in {line}"),
        };
        (read(cells[3]), read(cells[4]))
    }

    fn encodes(packet: Packet, version: Version) -> bool {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).unwrap();
        let mut decoder = mqtt_proto::Decoder::new(version, MAX_PACKET_SIZE);
        decoder.decode(&mut bytes::Bytes::from(bytes)).is_ok()
    }

    fn refused(code: ReasonCode) -> ConnectError {
        not_opened(ConnectCause::Refused(Box::new(ConnAck::refused(code))))
    }

    fn not_opened(cause: ConnectCause) -> ConnectError {
        let endpoint = "mqtt://a".parse().unwrap();
        ConnectError { endpoint, cause }
    }

    fn lost(cause: LostCause) -> ConnectionLost {
        let endpoint = "mqtt://a".parse().unwrap();
        ConnectionLost { endpoint, cause }
    }

    /// Every code that either packet can carry is in the documentation, and is what it says there.
    #[test]
    fn the_table_of_codes_is_what_is_done() {
        for code in (0..=u8::MAX).map(ReasonCode::new) {
            let (connack, disconnect) = documented(code.value());
            let is_refusal =
                code.is_error() && encodes(Packet::ConnAck(ConnAck::refused(code)), Version::V5);
            let refusal = is_refusal.then(|| refused(code).is_transient());
            assert_eq!(connack, refusal, "CONNACK {code:?}");
            // The one code that only clients send.
            let is_servers = code != ReasonCode::DISCONNECT_WITH_WILL
                && encodes(Packet::Disconnect(Disconnect::new(code)), Version::V5);
            let cause = LostCause::Disconnected(Box::new(Disconnect::new(code)));
            let ended = is_servers.then(|| lost(cause).is_transient());
            assert_eq!(disconnect, ended, "DISCONNECT {code:?}");
        }
    }

    /// What the return codes of 3.1.1 stand for.
    #[test]
    fn the_return_codes_of_3_1_1() {
        for (code, is_transient) in [(1, false), (2, false), (3, true), (4, false), (5, false)] {
            let code = ReasonCode::from_v3_connect_return(code).unwrap();
            assert_eq!(refused(code).is_transient(), is_transient, "{code}");
        }
    }

    #[test]
    fn attempts_that_failed() {
        let endpoint: Endpoint = "mqtt://a".parse().unwrap();
        let dial = |kind: io::ErrorKind| {
            let error =
                mqtt_transport::ConnectError::new(ConnectPhase::Dial, &endpoint, kind.into());
            ConnectCause::Dial(error)
        };
        for (cause, is_transient, closed_by) in [
            (
                dial(io::ErrorKind::ConnectionRefused),
                true,
                ClosedBy::Network,
            ),
            (dial(io::ErrorKind::TimedOut), true, ClosedBy::Network),
            // A certificate that is refused, either way.
            (
                dial(io::ErrorKind::PermissionDenied),
                false,
                ClosedBy::Network,
            ),
            (dial(io::ErrorKind::Unsupported), false, ClosedBy::Network),
            (
                ConnectCause::Io(io::ErrorKind::ConnectionReset.into()),
                true,
                ClosedBy::Network,
            ),
            (
                ConnectCause::Io(io::ErrorKind::PermissionDenied.into()),
                false,
                ClosedBy::Network,
            ),
            (ConnectCause::Closed, true, ClosedBy::Server),
            (ConnectCause::Malformed(no_packet()), true, ClosedBy::Server),
            (
                ConnectCause::Protocol(ProtocolError::UnknownSessionPresent),
                true,
                ClosedBy::Server,
            ),
            (ConnectCause::Protocol(silence()), true, ClosedBy::Network),
            (
                ConnectCause::Credentials(io::Error::other("away").into()),
                true,
                ClosedBy::Client,
            ),
            (
                ConnectCause::Credentials(CredentialsError::permanent(io::Error::other("gone"))),
                false,
                ClosedBy::Client,
            ),
            (
                ConnectCause::Config(ConfigErrors::default()),
                false,
                ClosedBy::Client,
            ),
            (
                ConnectCause::Options(UsageError::NotConnected),
                false,
                ClosedBy::Client,
            ),
        ] {
            let error = not_opened(cause);
            assert_eq!(error.is_transient(), is_transient, "{error:?}");
            assert_eq!(error.closed_by(), closed_by, "{error:?}");
        }
    }

    /// What comes of an answer in another protocol.
    fn no_packet() -> DecodeError {
        let mut decoder = mqtt_proto::Decoder::new(Version::V5, MAX_PACKET_SIZE);
        let mut bytes = bytes::Bytes::from_static(b"HTTP/1.1 503");
        decoder.decode(&mut bytes).unwrap_err()
    }

    fn silence() -> ProtocolError {
        ProtocolError::ConnAckTimeout {
            timeout: std::time::Duration::from_secs(5),
        }
    }

    #[test]
    fn connections_that_have_ended() {
        let io = |kind: io::ErrorKind| LostCause::Io {
            operation: Operation::Read,
            source: Arc::new(kind.into()),
        };
        for (cause, is_transient, closed_by) in [
            (LostCause::Closed, false, ClosedBy::Client),
            (LostCause::Cut, true, ClosedBy::Client),
            (LostCause::Renewed, true, ClosedBy::Client),
            (LostCause::TaskDropped, true, ClosedBy::Client),
            (LostCause::ClosedByServer, true, ClosedBy::Server),
            (LostCause::SessionLost, true, ClosedBy::Server),
            (
                LostCause::Stalled {
                    awaited: PacketType::PubAck,
                    timeout: std::time::Duration::from_secs(60),
                },
                true,
                ClosedBy::Server,
            ),
            (LostCause::Malformed(no_packet()), true, ClosedBy::Server),
            (
                LostCause::Protocol(ProtocolError::UnknownSessionPresent),
                true,
                ClosedBy::Server,
            ),
            (io(io::ErrorKind::ConnectionReset), true, ClosedBy::Network),
            (
                io(io::ErrorKind::PermissionDenied),
                false,
                ClosedBy::Network,
            ),
            (
                LostCause::NotReopened(Arc::new(refused(ReasonCode::BANNED))),
                false,
                ClosedBy::Server,
            ),
        ] {
            let lost = lost(cause);
            assert_eq!(lost.is_transient(), is_transient, "{lost:?}");
            assert_eq!(lost.closed_by(), closed_by, "{lost:?}");
        }
    }
}
