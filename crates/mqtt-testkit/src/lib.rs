//! Servers to test MQTT programs against: scripted, embedded, and an installed mosquitto.
//!
//! Every server listens on loopback only, on a port the system chose, and ends when its handle is
//! dropped; any number of them run side by side. All but the scripted one work on real sockets and
//! real time: do not start those under tokio's paused clock. Certificates for them come from `pki`,
//! behind the feature `tls`.
//!
//! | server | is | use it for |
//! | --- | --- | --- |
//! | [`ScriptedServer`] | one connection, packet by packet as the test says, in [`memory`] or over TCP | protocol behaviour, also in virtual time; servers that misbehave |
#![cfg_attr(
    feature = "embedded",
    doc = "| [`EmbeddedServer`] | mqtt5's broker inside the process | tests and examples that must run anywhere |"
)]
#![cfg_attr(
    feature = "tls",
    doc = "| [`OpensslServer`] | TLS by OpenSSL inside the process, which tells what it saw | what a client's handshake came to; measuring one |"
)]
//! | [`Mosquitto`] | the installed program, as a child process | the last word on what is right; killing and restarting a server |
//!
//! ```no_run
//! # async fn example() -> Result<(), mqtt_testkit::StartError> {
//! use mqtt_testkit::Mosquitto;
//!
//! let mut server = Mosquitto::builder().persistence(true).start().await?;
//! println!("{} and {}", server.tcp_url(), server.unix_url());
//! server.kill();
//! server.restart().await?; // the same port, the same stored sessions
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "embedded")]
mod embedded;
mod mosquitto;
#[cfg(feature = "tls")]
mod openssl_server;
#[cfg(feature = "tls")]
pub mod pki;
#[cfg(feature = "quic")]
mod quic_front;
mod scripted;
mod unix_front;

#[cfg(feature = "embedded")]
pub use embedded::{EmbeddedError, EmbeddedServer};
pub use mosquitto::{Mosquitto, MosquittoBuilder, MosquittoTls, StartError};
#[cfg(feature = "tls")]
pub use openssl_server::{
    ClientCertificate, Handshake, OpensslServer, OpensslServerBuilder, Service, TlsVersion,
};
#[cfg(feature = "quic")]
pub use quic_front::QuicFront;
pub use scripted::{
    MemoryConnector, MemoryListener, ScriptedListener, ScriptedServer, memory, memory_with_capacity,
};
pub use unix_front::UnixFront;
