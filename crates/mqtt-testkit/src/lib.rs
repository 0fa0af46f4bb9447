//! Servers to test MQTT programs against: scripted, embedded, and an installed mosquitto
//!
//! Every server listens on loopback only, on a port the system chose, and ends when its handle is
//! dropped; any number of them run side by side. They work on real sockets and real time: do not
//! start one under tokio's paused clock.
//!
//! | server | is | use it for |
//! | --- | --- | --- |
#![cfg_attr(
    feature = "embedded",
    doc = "| [`EmbeddedServer`] | mqtt5's broker inside the process | tests and examples that must run anywhere |"
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
mod unix_front;

#[cfg(feature = "embedded")]
pub use embedded::{EmbeddedError, EmbeddedServer};
pub use mosquitto::{Mosquitto, MosquittoBuilder, StartError};
pub use unix_front::UnixFront;
