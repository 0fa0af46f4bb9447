//! Why TLS was not agreed on, told apart by what can be done about it.
//!
//! Decided by the libraries' error codes; their texts are passed on and never decide.

use std::io;

use thiserror::Error;

use super::Backend;

/// Why TLS was not agreed on. The inner error of an [`io::Error`] whose kind says that another
/// attempt does not help; a connection that merely broke is a plain one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TlsFailure {
    /// We do not trust the server's certificate.
    #[error("the server's certificate is refused by {backend}: {reason}; {hint}")]
    ServerCertificate {
        /// The library that checked it: the two do not accept the same.
        backend: Backend,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The server does not take our certificate, or wants one and got none. Under TLS 1.3 this shows
    /// with the first read after the handshake. A server that closes while what we have written is
    /// unread resets the connection, and its words may be lost with that: then this is a reset.
    #[error(
        "the server refused our certificate ({reason}): see tls.identities, and which authorities \
         the server accepts"
    )]
    ClientCertificate {
        /// The server's alert.
        reason: String,
    },
    /// The two sides have no version, cipher suite or protocol in common, or one broke the rules.
    #[error(
        "no agreement on TLS with {backend}: {reason}; is it a TLS port, do both sides share a \
         version and a cipher suite, and does the server want a certificate of ours?"
    )]
    Handshake {
        /// Our library.
        backend: Backend,
        /// What it said.
        reason: String,
    },
}

impl From<TlsFailure> for io::Error {
    fn from(failure: TlsFailure) -> Self {
        let kind = match failure {
            TlsFailure::ServerCertificate { .. } | TlsFailure::ClientCertificate { .. } => {
                io::ErrorKind::PermissionDenied
            }
            TlsFailure::Handshake { .. } => io::ErrorKind::Unsupported,
        };
        Self::new(kind, failure)
    }
}

/// The alerts about a certificate (RFC 8446 section 6.2): of the peer, about ours.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn is_about_certificate(alert: u8) -> bool {
    matches!(alert, 41..=46 | 48 | 49 | 116)
}

/// Alerts that say nothing against another attempt: close, internal error, cancelled.
fn is_passing(alert: u8) -> bool {
    matches!(alert, 0 | 80 | 90)
}

/// What an alert of the server amounts to.
fn from_alert(alert: u8, backend: Backend, reason: String) -> io::Error {
    if is_about_certificate(alert) {
        TlsFailure::ClientCertificate { reason }.into()
    } else if is_passing(alert) {
        io::Error::new(io::ErrorKind::ConnectionAborted, reason)
    } else {
        TlsFailure::Handshake { backend, reason }.into()
    }
}

/// An error of rustls, as tokio-rustls wraps it.
#[cfg(feature = "rustls")]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all else is a handshake that failed"
)]
pub(super) fn explain_rustls(error: io::Error) -> io::Error {
    use rustls::Error;

    let Some(inner) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return error;
    };
    let backend = Backend::Rustls;
    match inner {
        Error::AlertReceived(alert) => {
            from_alert(u8::from(*alert), backend, format!("alert {alert:?}"))
        }
        Error::InvalidCertificate(problem) => {
            let failure = TlsFailure::ServerCertificate {
                backend,
                reason: problem.to_string(),
                hint: hint(problem),
            };
            if is_stale(problem) {
                // The next look at the material mends it.
                io::Error::new(io::ErrorKind::InvalidData, failure)
            } else {
                failure.into()
            }
        }
        Error::InvalidCertRevocationList(_)
        | Error::NoCertificatesPresented
        | Error::UnsupportedNameType => TlsFailure::ServerCertificate {
            backend,
            reason: inner.to_string(),
            hint: "see the server's certificate and tls.revocation",
        }
        .into(),
        _ => TlsFailure::Handshake {
            backend,
            reason: inner.to_string(),
        }
        .into(),
    }
}

/// An error of rustls after the handshake, where only what the server says counts.
#[cfg(feature = "rustls")]
pub(super) fn explain_rustls_alert(error: io::Error) -> io::Error {
    let is_alert = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref())
        .is_some_and(|inner| matches!(inner, rustls::Error::AlertReceived(_)));
    if is_alert {
        explain_rustls(error)
    } else {
        error
    }
}

/// Whether it is our revocation list that is out of date.
#[cfg(feature = "rustls")]
fn is_stale(problem: &rustls::CertificateError) -> bool {
    matches!(
        problem,
        rustls::CertificateError::ExpiredRevocationList
            | rustls::CertificateError::ExpiredRevocationListContext { .. }
    )
}

#[cfg(feature = "rustls")]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "there is nothing more to say about the others"
)]
fn hint(problem: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as Problem;

    match problem {
        Problem::Expired | Problem::ExpiredContext { .. } => {
            "the server needs a new one; is this machine's clock right?"
        }
        Problem::NotValidYet | Problem::NotValidYetContext { .. } => {
            "is this machine's clock right?"
        }
        Problem::NotValidForName | Problem::NotValidForNameContext { .. } => {
            "connect by a name that is in it, or set tls.server_name"
        }
        Problem::UnknownIssuer => {
            "add its authority to tls.roots with tls.trust own or both; if the server forgot to send \
             an intermediate, mend that"
        }
        Problem::Revoked => "its authority has withdrawn it: the server needs a new one",
        Problem::UnknownRevocationStatus => {
            "tls.revocation needs a list of each authority in the chain, or depth leaf"
        }
        Problem::ExpiredRevocationList | Problem::ExpiredRevocationListContext { .. } => {
            "the revocation list must be fetched again"
        }
        Problem::InvalidPurpose | Problem::InvalidPurposeContext { .. } => {
            "it is not for servers: was it made for a client?"
        }
        _ => "look at it with openssl s_client -showcerts",
    }
}

/// An error of native-tls in the handshake.
#[cfg(feature = "native-tls")]
pub(super) fn explain_native(error: native_tls::Error) -> io::Error {
    let backend = Backend::NativeTls;
    let reason = error.to_string();
    match code(&error) {
        Some(Code::Alert(alert)) => from_alert(alert, backend, reason),
        Some(Code::EndOfFile) => io::Error::new(io::ErrorKind::UnexpectedEof, error),
        Some(Code::Unverified) => TlsFailure::ServerCertificate {
            backend,
            reason: verdict(&reason),
            hint: "see tls.roots and tls.trust, the name you connect by, and this machine's clock",
        }
        .into(),
        None => match find::<io::Error>(&error).map(io::Error::kind) {
            // The connection below failed.
            Some(kind) => io::Error::new(kind, error),
            None => TlsFailure::Handshake { backend, reason }.into(),
        },
    }
}

/// An error of native-tls after the handshake, where only what the server says counts.
#[cfg(feature = "native-tls")]
pub(super) fn explain_native_alert(error: io::Error) -> io::Error {
    match code(&error) {
        Some(Code::Alert(alert)) => from_alert(alert, Backend::NativeTls, error.to_string()),
        Some(Code::EndOfFile | Code::Unverified) | None => error,
    }
}

/// OpenSSL puts its verdict on a certificate at the end, in parentheses.
#[cfg(feature = "native-tls")]
fn verdict(text: &str) -> String {
    text.strip_suffix(')')
        .and_then(|text| text.rsplit_once(" ("))
        .map_or(text, |(_, verdict)| verdict)
        .to_owned()
}

#[cfg(feature = "native-tls")]
fn find<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error shows what it wraps as `get_ref`, and only that one's source as `source`.
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// What decides about an error of the platform's library.
#[cfg(feature = "native-tls")]
enum Code {
    /// The server sent this alert.
    Alert(u8),
    /// The connection ended without one.
    EndOfFile,
    /// The server's certificate was not verified.
    Unverified,
}

#[cfg(all(feature = "native-tls", unix, not(target_vendor = "apple")))]
fn code(error: &(dyn std::error::Error + 'static)) -> Option<Code> {
    /// Of OpenSSL's libraries the one that does TLS, and its reason codes: 1000 and the alert's
    /// number, and two more.
    const LIBRARY: i32 = 20;
    const ALERTS: i32 = 1000;
    const VERIFY_FAILED: i32 = 134;
    const UNEXPECTED_EOF: i32 = 294;

    if let Some(stack) = find::<openssl::error::ErrorStack>(error) {
        let of_tls = |error: &&openssl::error::Error| error.library_code() == LIBRARY;
        return stack.errors().iter().filter(of_tls).find_map(|error| {
            let code = error.reason_code();
            if code == VERIFY_FAILED {
                Some(Code::Unverified)
            } else if code == UNEXPECTED_EOF {
                Some(Code::EndOfFile)
            } else {
                u8::try_from(code - ALERTS).ok().map(Code::Alert)
            }
        });
    }
    // A call that failed with nothing to say about it: the connection was cut. native-tls shows the
    // cause of OpenSSL's error only, and here there is none.
    let silent = find::<native_tls::Error>(error)
        .is_some_and(|error| std::error::Error::source(error).is_none());
    let cut = find::<openssl::ssl::Error>(error)
        .is_some_and(|error| error.code() == openssl::ssl::ErrorCode::SYSCALL);
    (silent || cut).then_some(Code::EndOfFile)
}

#[cfg(all(feature = "native-tls", not(all(unix, not(target_vendor = "apple")))))]
fn code(_: &(dyn std::error::Error + 'static)) -> Option<Code> {
    None
}
