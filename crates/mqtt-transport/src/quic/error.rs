//! What the end of a QUIC connection means: in which phase of connecting, and whether another
//! attempt can help.
//!
//! What the server gives as its reason is shown escaped and cut short.

use std::io;

use quinn::{ConnectError, ConnectionError};
use rustls::AlertDescription;

use crate::ConnectPhase;

/// Characters of the server's own words that are shown.
const MAX_REASON: usize = 100;

/// Why an attempt failed.
pub(super) struct Failure {
    pub(super) phase: ConnectPhase,
    pub(super) source: io::Error,
}

impl Failure {
    pub(super) fn new(phase: ConnectPhase, kind: io::ErrorKind, reason: impl Into<String>) -> Self {
        let source = io::Error::new(kind, reason.into());
        Self { phase, source }
    }

    fn dial(kind: io::ErrorKind, reason: impl Into<String>) -> Self {
        Self::new(ConnectPhase::Dial, kind, reason)
    }

    fn tls(kind: io::ErrorKind, reason: impl Into<String>) -> Self {
        Self::new(ConnectPhase::Tls, kind, reason)
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::TransportError(error) => match alert(error.code.into()) {
                Some(alert) => on_our_alert(alert, &error.reason),
                None => Self::dial(
                    io::ErrorKind::InvalidData,
                    format!("the server broke a rule of QUIC: {error}"),
                ),
            },
            ConnectionError::ConnectionClosed(close) => match alert(close.error_code.into()) {
                Some(alert) => on_their_alert(alert),
                None => Self::dial(
                    io::ErrorKind::ConnectionRefused,
                    format!("the server closed the connection: {}", close.error_code),
                ),
            },
            ConnectionError::ApplicationClosed(close) => Self::dial(
                io::ErrorKind::ConnectionReset,
                format!(
                    "the server closed the connection: {} (code {})",
                    shown(&close.reason),
                    close.error_code
                ),
            ),
            ConnectionError::Reset => Self::dial(
                io::ErrorKind::ConnectionReset,
                "the server no longer knows the connection",
            ),
            ConnectionError::TimedOut => {
                Self::dial(io::ErrorKind::TimedOut, "nothing came from the server")
            }
            ConnectionError::VersionMismatch => Self::dial(
                io::ErrorKind::Unsupported,
                "the server speaks another version of QUIC",
            ),
            ConnectionError::LocallyClosed => {
                Self::dial(io::ErrorKind::NotConnected, "the connection is closed")
            }
            ConnectionError::CidsExhausted => Self::dial(
                io::ErrorKind::AddrNotAvailable,
                "all identifiers of connections are in use",
            ),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::InvalidServerName(_) => Self::tls(
                io::ErrorKind::InvalidInput,
                "the server's name is neither a name of DNS nor an address",
            ),
            ConnectError::InvalidRemoteAddress(_)
            | ConnectError::NoDefaultClientConfig
            | ConnectError::UnsupportedVersion => {
                Self::dial(io::ErrorKind::InvalidInput, error.to_string())
            }
            ConnectError::EndpointStopping | ConnectError::CidsExhausted => {
                Self::dial(io::ErrorKind::AddrNotAvailable, error.to_string())
            }
        }
    }
}

/// Codes from 0x100 are alerts of TLS (RFC 9001 4.8).
fn alert(code: u64) -> Option<AlertDescription> {
    let alert = u8::try_from(code.checked_sub(0x100)?).ok()?;
    Some(AlertDescription::from(alert))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "alerts are many, and all but these mean the same here"
)]
fn on_our_alert(alert: AlertDescription, reason: &str) -> Failure {
    match alert {
        AlertDescription::NoApplicationProtocol => other_protocol(),
        alert if is_about_certificates(alert) => Failure::tls(
            io::ErrorKind::PermissionDenied,
            format!("the server's certificate is not accepted: {reason}"),
        ),
        // Ours has no more to say than this, and it may pass.
        AlertDescription::InternalError => Failure::tls(io::ErrorKind::Other, reason),
        _ => Failure::tls(
            io::ErrorKind::Unsupported,
            format!("the server's part of the handshake is not accepted: {reason}"),
        ),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "alerts are many, and all but these mean the same here"
)]
fn on_their_alert(alert: AlertDescription) -> Failure {
    match alert {
        AlertDescription::NoApplicationProtocol => other_protocol(),
        AlertDescription::CertificateRequired => Failure::tls(
            io::ErrorKind::PermissionDenied,
            "the server asks for a certificate, and none is configured",
        ),
        alert if is_about_certificates(alert) => Failure::tls(
            io::ErrorKind::PermissionDenied,
            format!("the server refused our certificate: {alert:?}"),
        ),
        AlertDescription::InternalError | AlertDescription::UserCanceled => Failure::tls(
            io::ErrorKind::ConnectionRefused,
            format!("the server gave the handshake up: {alert:?}"),
        ),
        alert => Failure::tls(
            io::ErrorKind::Unsupported,
            format!("the server refused the handshake: {alert:?}"),
        ),
    }
}

fn other_protocol() -> Failure {
    Failure::tls(
        io::ErrorKind::Unsupported,
        "the server does not speak the protocol that was asked for (ALPN mqtt)",
    )
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::BadCertificateStatusResponse
    )
}

fn shown(reason: &[u8]) -> String {
    let reason = String::from_utf8_lossy(reason);
    reason
        .chars()
        .take(MAX_REASON)
        .collect::<String>()
        .escape_debug()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_codes_of_tls_are_alerts() {
        for (code, expected) in [
            (0, None),
            (0xff, None),
            (0x100 + 48, Some(AlertDescription::UnknownCA)),
            (0x1ff, Some(AlertDescription::from(255))),
            (0x200, None),
            (u64::MAX, None),
        ] {
            assert_eq!(alert(code), expected, "{code:x}");
        }
    }

    #[test]
    fn the_server_s_words_are_escaped_and_cut() {
        assert_eq!(shown(b"a\nb\xff"), "a\\nb\u{fffd}");
        assert_eq!(shown(&[b'x'; 5000]).len(), MAX_REASON);
    }
}
