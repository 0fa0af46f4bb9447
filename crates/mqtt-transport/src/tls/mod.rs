//! TLS over any connection, with certificates that change while connections live.
//!
//! A [`TlsConfig`] says what is wanted; a [`Tls`] holds the material, reads it again and makes a new
//! [`Generation`] of every change; a [`TlsConnector`] speaks TLS on the connections of another
//! connector. Verification cannot be switched off: to trust a self-signed certificate, name it in
//! [`TlsConfig::roots`].
//!
//! ```no_run
//! use mqtt_transport::{Endpoint, TcpConnector, tls::{Location, Tls, TlsConfig, TlsConnector, Trust}};
//! use tower::ServiceExt;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = TlsConfig::default()
//!     .with_trust(Trust::Own)
//!     .with_roots([Location::File("/etc/mqtt/ca.pem".into())]);
//! let tls = Tls::new(config).await?;
//! let endpoint: Endpoint = "mqtts://broker.example".parse()?;
//! let conn = TlsConnector::new(TcpConnector::default(), tls).oneshot(endpoint).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Backends
//!
//! | | `native_tls` | `rustls` |
//! | --- | --- | --- |
//! | resumption | never | yes; after a first full handshake with each server |
//! | cipher suites, revocation lists, several identities | refused | yes |
//! | keys | PKCS#8, PKCS#12; encrypted PKCS#8 with `encrypted-keys` | also PKCS#1 and SEC1; PKCS#12 with `pkcs12` |
//! | tells version, suite, resumption, the whole chain | no | yes |
//! | identities in memory only | on Linux; refused on macOS and Windows, which would store the key | yes |
//! | own roots instead of the system's | not on Windows: refused | yes |
//!
//! They do not accept the same certificates either:
//!
//! | the server's certificate | `native_tls` (OpenSSL 3) | `rustls` |
//! | --- | --- | --- |
//! | without a subject alternative name, only a common name | accepted | refused |
//! | self-signed and marked as an authority, itself in `roots` | accepted | refused |
//! | self-signed, not an authority, itself in `roots` | accepted | accepted |
//! | its root in `roots` has expired | refused when the material is read | refused when the material is read |
//! | an intermediate as the only root | refused | accepted |
//! | intermediate cross-signed by two roots, the old one sent first, only the new one trusted | refused | accepted |
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` count with [`Trust::System`] and [`Trust::Both`] only: to
//! `native_tls` they add to the system's roots, for `rustls` they replace them.
//!
//! # Which to take
//!
//! `native_tls` needs nothing that the platform does not maintain; `rustls` is the one that is fast
//! when connections are short-lived. Every error of verification names the backend.

mod audit;
mod backend;
mod certificate;
mod checks;
mod config;
mod conn;
mod connector;
mod failure;
mod handle;
mod info;
mod lazy;
mod material;
mod name;
#[cfg(feature = "native-tls")]
mod native;
mod parsed;
mod revocation;
#[cfg(feature = "rustls")]
mod rustls_backend;
mod source;

pub use audit::AUDIT_TARGET;
pub use certificate::CertificateFacts;
pub use config::{
    Backend, Location, Reloading, Resumption, Revocation, RevocationDepth, TlsConfig, TlsIdentity,
    TlsVersion, Trust, UnknownRevocation,
};
pub use conn::TlsConn;
pub use connector::{TlsConnectFuture, TlsConnector, TlsLayer};
pub use failure::TlsFailure;
pub use handle::{Generation, Reload, Tls, TlsError};
pub use info::TlsInfo;
pub(crate) use lazy::LazyTls;
pub use material::{IdentityMaterial, MaterialError, TlsMaterial};
pub use source::{BoxFuture, ConfiguredSource, CrlFetcher, MaterialSource, material_from};
