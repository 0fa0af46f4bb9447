//! Private keys, and the forms in which programs get them.

use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use rcgen::{KeyPair, SubjectPublicKeyInfo};

/// What kind of key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyType {
    /// ECDSA on the curve P-256. The default: it is quick to make and taken everywhere.
    #[default]
    P256,
    /// RSA with 2048 bits, the least that is taken today.
    Rsa2048,
    /// RSA with 1024 bits, too weak today. Not for authorities.
    Rsa1024,
    /// EdDSA on Curve25519.
    Ed25519,
}

/// A private key.
///
/// The methods that give a form panic where the kind of key has no such form.
#[derive(Debug, Clone)]
pub struct Key {
    inner: PKey<Private>,
}

impl Key {
    /// A new key. RSA takes a tenth of a second, the others next to nothing.
    #[must_use]
    pub fn generate(key_type: KeyType) -> Self {
        let rsa = |bits| Rsa::generate(bits).and_then(PKey::from_rsa);
        let inner = match key_type {
            KeyType::P256 => EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)
                .and_then(|group| EcKey::generate(&group))
                .and_then(PKey::from_ec_key),
            KeyType::Rsa2048 => rsa(2048),
            KeyType::Rsa1024 => rsa(1024),
            KeyType::Ed25519 => PKey::generate_ed25519(),
        };
        Self {
            inner: inner.expect("a new key"),
        }
    }

    /// PKCS#8 in DER.
    #[must_use]
    pub fn pkcs8_der(&self) -> Vec<u8> {
        self.inner.private_key_to_pkcs8().expect("a key of ours")
    }

    /// PKCS#8 in PEM: `BEGIN PRIVATE KEY`.
    #[must_use]
    pub fn pkcs8_pem(&self) -> String {
        text(self.inner.private_key_to_pem_pkcs8())
    }

    /// Encrypted PKCS#8 in PEM: `BEGIN ENCRYPTED PRIVATE KEY`, with AES-256.
    #[must_use]
    pub fn encrypted_pem(&self, password: &str) -> String {
        let (cipher, password) = (Cipher::aes_256_cbc(), password.as_bytes());
        text(
            self.inner
                .private_key_to_pem_pkcs8_passphrase(cipher, password),
        )
    }

    /// PKCS#1 in PEM, for RSA: `BEGIN RSA PRIVATE KEY`.
    #[must_use]
    pub fn pkcs1_pem(&self) -> String {
        text(self.inner.rsa().and_then(|rsa| rsa.private_key_to_pem()))
    }

    /// SEC1 in PEM, for P-256: `BEGIN EC PRIVATE KEY`.
    #[must_use]
    pub fn sec1_pem(&self) -> String {
        text(self.inner.ec_key().and_then(|key| key.private_key_to_pem()))
    }

    /// PKCS#1 encrypted as long ago, for RSA: `BEGIN RSA PRIVATE KEY` and `Proc-Type: 4,ENCRYPTED`.
    #[must_use]
    pub fn legacy_encrypted_pem(&self, password: &str) -> String {
        let (cipher, password) = (Cipher::aes_256_cbc(), password.as_bytes());
        let rsa = self.inner.rsa();
        text(rsa.and_then(|rsa| rsa.private_key_to_pem_passphrase(cipher, password)))
    }

    pub(super) fn inner(&self) -> &PKey<Private> {
        &self.inner
    }

    /// What certificates and lists are signed with.
    pub(super) fn signing(&self) -> KeyPair {
        KeyPair::try_from(self.pkcs8_der()).expect("a key strong enough to sign with")
    }

    /// What a certificate says of the key.
    pub(super) fn public(&self) -> SubjectPublicKeyInfo {
        let der = self.inner.public_key_to_der().expect("a key of ours");
        SubjectPublicKeyInfo::from_der(&der).expect("a key of a usual kind")
    }
}

/// PEM as text.
pub(super) fn text(pem: Result<Vec<u8>, ErrorStack>) -> String {
    let pem = pem.expect("a form that this kind of key has");
    String::from_utf8(pem).expect("PEM is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pem: &str, password: Option<&str>, label: &str, key: &Key) {
        assert!(
            pem.starts_with(&format!("-----BEGIN {label}-----\n")),
            "{pem}"
        );
        let read = match password {
            None => PKey::private_key_from_pem(pem.as_bytes()),
            Some(password) => {
                let wrong = PKey::private_key_from_pem_passphrase(pem.as_bytes(), b"wrong");
                wrong.unwrap_err();
                PKey::private_key_from_pem_passphrase(pem.as_bytes(), password.as_bytes())
            }
        };
        assert!(read.unwrap().public_eq(key.inner()));
    }

    #[test]
    fn every_form_is_read_again() {
        for key_type in [
            KeyType::P256,
            KeyType::Rsa2048,
            KeyType::Rsa1024,
            KeyType::Ed25519,
        ] {
            let key = Key::generate(key_type);
            check(&key.pkcs8_pem(), None, "PRIVATE KEY", &key);
            let encrypted = key.encrypted_pem("secret");
            check(&encrypted, Some("secret"), "ENCRYPTED PRIVATE KEY", &key);
            let der = PKey::private_key_from_pkcs8(&key.pkcs8_der()).unwrap();
            assert!(der.public_eq(key.inner()));
            match key_type {
                KeyType::P256 => check(&key.sec1_pem(), None, "EC PRIVATE KEY", &key),
                KeyType::Rsa1024 | KeyType::Rsa2048 => {
                    check(&key.pkcs1_pem(), None, "RSA PRIVATE KEY", &key);
                    let encrypted = key.legacy_encrypted_pem("secret");
                    assert!(encrypted.contains("Proc-Type: 4,ENCRYPTED"), "{encrypted}");
                    check(&encrypted, Some("secret"), "RSA PRIVATE KEY", &key);
                }
                KeyType::Ed25519 => {}
            }
        }
    }
}
