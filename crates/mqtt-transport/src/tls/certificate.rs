//! What a certificate says of itself, for checks and for the audit trail.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use x509_parser::{prelude::*, time::ASN1Time};

/// Facts of a certificate. All of it is public: none of it is material.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFacts {
    /// SHA-256 over the whole of it, in hexadecimal.
    pub fingerprint: String,
    /// Whose it is, as a distinguished name.
    pub subject: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// From when it counts.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

impl CertificateFacts {
    /// Reads a certificate in DER; `None` if it is none.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let validity = certificate.validity();
        Some(Self {
            fingerprint: hex(&Sha256::digest(der)),
            subject: certificate.subject().to_string(),
            serial: certificate.raw_serial_as_string(),
            not_before: system_time(validity.not_before),
            not_after: system_time(validity.not_after),
        })
    }

    /// Whether it counts now, and if not, since or from when.
    pub(super) fn check_validity(&self, now: SystemTime) -> Result<(), &'static str> {
        if now < self.not_before {
            Err("not valid yet")
        } else if now > self.not_after {
            Err("expired")
        } else {
            Ok(())
        }
    }
}

/// Times before 1970 count as 1970, in which nothing of today is valid either.
pub(super) fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Seconds since 1970, for gauges and events.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
