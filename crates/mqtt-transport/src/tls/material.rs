//! Certificates, keys and revocation lists as a source gives them.
//!
//! Secrets are kept in types that never print and are wiped when dropped. That is best effort: the
//! environment, readers of PEM and the TLS libraries hold copies of their own for a while.

use std::{fmt, io};

use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// All that a handshake needs, as one unit: a change of any part makes a new generation.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsMaterial {
    /// Certificates of authorities: each PEM with one or several, or one in DER.
    pub roots: Vec<Vec<u8>>,
    /// What we show to a server that asks.
    pub identities: Vec<IdentityMaterial>,
    /// Revocation lists: each PEM with one or several, or one in DER.
    pub revocation_lists: Vec<Vec<u8>>,
    /// What the source calls this version of it, for the audit trail only.
    pub version: Option<String>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum IdentityMaterial {
    /// In PEM or DER.
    Pem {
        /// The certificate and those up to its authority, its own first.
        certificate: Vec<u8>,
        /// Its key.
        key: SecretSlice<u8>,
        /// The key's password, if it is encrypted.
        password: Option<SecretString>,
    },
    /// In a PKCS#12 archive.
    Pkcs12 {
        /// The archive.
        archive: SecretSlice<u8>,
        /// Its password.
        password: SecretString,
    },
}

impl TlsMaterial {
    /// With these roots.
    #[must_use]
    pub fn with_roots(mut self, roots: impl Into<Vec<Vec<u8>>>) -> Self {
        self.roots = roots.into();
        self
    }

    /// With one more identity.
    #[must_use]
    pub fn with_identity(mut self, identity: IdentityMaterial) -> Self {
        self.identities.push(identity);
        self
    }

    /// With these revocation lists.
    #[must_use]
    pub fn with_revocation_lists(mut self, lists: impl Into<Vec<Vec<u8>>>) -> Self {
        self.revocation_lists = lists.into();
        self
    }

    /// With this version.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// To see whether anything has changed without keeping it.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut part = |kind: u8, bytes: &[u8]| {
            hash.update([kind]);
            hash.update(bytes.len().to_be_bytes());
            hash.update(bytes);
        };
        for root in &self.roots {
            part(0, root);
        }
        for identity in &self.identities {
            match identity {
                IdentityMaterial::Pem {
                    certificate,
                    key,
                    password,
                } => {
                    part(1, certificate);
                    part(2, key.expose_secret());
                    if let Some(password) = password {
                        part(3, password.expose_secret().as_bytes());
                    }
                }
                IdentityMaterial::Pkcs12 { archive, password } => {
                    part(4, archive.expose_secret());
                    part(3, password.expose_secret().as_bytes());
                }
            }
        }
        for list in &self.revocation_lists {
            part(5, list);
        }
        hash.finalize().into()
    }
}

impl IdentityMaterial {
    /// A certificate with its chain, and its key, in PEM or DER.
    pub fn pem(certificate: impl Into<Vec<u8>>, key: impl Into<SecretSlice<u8>>) -> Self {
        Self::Pem {
            certificate: certificate.into(),
            key: key.into(),
            password: None,
        }
    }
}

/// Material could not be had from its source.
#[derive(Debug, Error)]
#[error("cannot read {what}")]
#[non_exhaustive]
pub struct MaterialError {
    /// The name of what was read; never its content.
    pub what: String,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl MaterialError {
    /// `what` could not be had.
    pub fn new(what: impl fmt::Display, source: io::Error) -> Self {
        Self {
            what: what.to_string(),
            source,
        }
    }
}
