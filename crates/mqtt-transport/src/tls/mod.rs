//! TLS over any connection.

/// What is known of a TLS connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsInfo {}
