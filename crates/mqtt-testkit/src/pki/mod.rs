//! Certificates, keys and revocation lists, made for one test.
//!
//! An [`Authority`] issues an [`Identity`] (certificate, intermediates and key of one server or
//! client) and a [`Crl`]. Whatever can be wrong with one of them can be chosen: expired, too early,
//! for another host, for another use, of a weak key, self-signed, without its intermediates.
//!
//! Everything is in memory; what needs a file writes its own. The keys are good for nothing but
//! tests: they are neither kept secret nor cleared.
//!
//! ```
//! use mqtt_testkit::pki::{Authority, KeyType, Validity};
//!
//! let root = Authority::new("root");
//! let issuing = root.intermediate("issuing");
//! let server = issuing.server(&["localhost", "127.0.0.1"]).key_type(KeyType::Rsa2048).issue();
//! let expired = issuing.client("sensor-1").validity(Validity::expired()).issue();
//! let crl = issuing.crl(&[server.serial()]).number(2).issue();
//!
//! assert!(server.chain_pem().starts_with(&server.certificate_pem()));
//! assert!(server.key_pem().starts_with("-----BEGIN PRIVATE KEY-----"));
//! # let _ = (expired, crl);
//! ```

mod authority;
mod certificate;
mod crl;
mod identity;
mod key;

pub use authority::{Authority, AuthorityBuilder};
pub use certificate::{Certificate, Validity};
pub use crl::{Crl, CrlBuilder};
pub use identity::{Identity, IdentityBuilder, Usage};
pub use key::{Key, KeyType};
