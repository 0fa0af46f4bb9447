//! TLS against OpenSSL and mosquitto, with both backends.

#![cfg(all(feature = "native-tls", feature = "rustls"))]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod breaking;
mod common;
mod configuring;
mod enduring;
mod environment;
mod handshaking;
#[cfg(all(feature = "encrypted-keys", feature = "pkcs12"))]
mod material;
mod migrating;
mod mosquitto;
mod refusals;
mod resuming;
mod revoking;
mod rotating;
