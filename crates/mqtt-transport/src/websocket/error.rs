//! What an error of the WebSocket library means: whether the upgrade may be tried again, and which
//! code the server is told.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are many, and a new one is a broken rule like most"
)]

use std::io;

use http::StatusCode;
use tokio_tungstenite::tungstenite::{
    Error,
    error::{CapacityError, ProtocolError},
    protocol::frame::coding::CloseCode,
};

/// An end of the connection, and what the server is told of it.
pub(super) struct Violation {
    pub(super) error: io::Error,
    /// `None` if there is nobody to tell.
    pub(super) code: Option<CloseCode>,
}

impl Violation {
    /// [MQTT5-6.0.0-1], [MQTT3-6.0.0-1].
    pub(super) fn text() -> Self {
        Self::new(
            "the server sent a text message; MQTT is in binary ones",
            CloseCode::Unsupported,
        )
    }

    fn new(reason: impl Into<String>, code: CloseCode) -> Self {
        Self {
            error: io::Error::new(io::ErrorKind::InvalidData, reason.into()),
            code: Some(code),
        }
    }
}

/// Of reading an open WebSocket.
pub(super) fn on_read(error: Error) -> Violation {
    match error {
        Error::Io(error) => Violation { error, code: None },
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Violation {
            error: io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection without closing the WebSocket",
            ),
            code: None,
        },
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            let reason = format!("a message of {size} bytes, of which {max_size} are taken");
            Violation::new(reason, CloseCode::Size)
        }
        // Only a text message can be invalid UTF-8.
        Error::Utf8(_) => Violation::text(),
        error => {
            let reason = format!("the server broke a rule of WebSocket: {error}");
            Violation::new(reason, CloseCode::Protocol)
        }
    }
}

/// Of writing to an open WebSocket, flushing and closing it.
pub(super) fn on_write(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::BrokenPipe, error.to_string()),
    }
}

/// Of the upgrade.
pub(super) fn on_upgrade(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::Http(response) => on_status(response.status()),
        Error::Protocol(ProtocolError::HandshakeIncomplete) => io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection before it answered",
        ),
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => io::Error::new(
            io::ErrorKind::Unsupported,
            "the server did not choose the subprotocol mqtt: does its path lead to MQTT?",
        ),
        error => io::Error::new(
            io::ErrorKind::Unsupported,
            format!("the answer does not open a WebSocket: {error}"),
        ),
    }
}

/// A server that is overloaded or half started may answer otherwise later; any other answer stays.
fn on_status(status: StatusCode) -> io::Error {
    let kind = match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            io::ErrorKind::ConnectionRefused
        }
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED => io::ErrorKind::PermissionDenied,
        _ if status.is_server_error() => io::ErrorKind::ConnectionRefused,
        _ => io::ErrorKind::Unsupported,
    };
    let hint = match status {
        StatusCode::NOT_FOUND => ": is its path right?",
        _ if status.is_redirection() => ", which is not followed: use the address it leads to",
        _ => "",
    };
    io::Error::new(kind, format!("the server answered {status}{hint}"))
}

/// The server agreed to an extension that was not offered: what it sends could not be read.
pub(super) fn extension() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "the server chose an extension of WebSocket that was not offered",
    )
}
