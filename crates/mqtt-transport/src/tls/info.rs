//! What is known of a TLS connection.

use std::{sync::Arc, time::Duration};

use super::{Backend, TlsVersion};

/// What is known of a TLS connection; `None` where the backend does not tell.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The library that does it.
    pub backend: Backend,
    /// The version agreed on. native-tls does not tell.
    pub version: Option<TlsVersion>,
    /// The cipher suite agreed on, by its IANA name. native-tls does not tell.
    pub cipher_suite: Option<&'static str>,
    /// Whether the handshake began where an earlier connection ended. native-tls does not tell, and
    /// never does it.
    pub resumed: Option<bool>,
    /// The application protocol agreed on (ALPN).
    pub alpn: Option<Vec<u8>>,
    /// The server's certificates in DER, its own first; native-tls tells its own only. Connections to
    /// the same server share them.
    pub peer_certificates: Arc<[Vec<u8>]>,
    /// The generation of the material that was used; see [`Tls::subscribe`](super::Tls::subscribe).
    pub generation: u64,
    /// How long the handshake took.
    pub handshake: Duration,
}
