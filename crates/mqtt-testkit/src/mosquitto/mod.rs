//! The installed `mosquitto` as a child process.
//!
//! Each [`Mosquitto`] owns a temporary folder (configuration, log, Unix socket, stored sessions), a
//! TCP port and a process, and takes all three with it when dropped. `builder` writes the
//! configuration, `tls` the part of it that is about TLS, `process` is one run of the program, `skip`
//! says what a test does without it.

mod builder;
mod process;
mod skip;
mod tls;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tempfile::TempDir;

use builder::Addrs;
pub use builder::MosquittoBuilder;
use process::{Files, Process};
pub use tls::MosquittoTls;

/// Tries to bind the port, each with another port at the first start and the same one at a restart.
const MAX_BIND_ATTEMPTS: usize = 5;

/// Between two tries at the same port.
const REBIND_PAUSE: Duration = Duration::from_millis(100);

/// Why a [`Mosquitto`] is not running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program was found neither in `PATH` nor where packages put it.
    #[error("mosquitto is not installed")]
    NotInstalled,
    /// Its folder, files, port or process could not be had.
    #[error("could not {action}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// The program ended by itself, most often because of its configuration.
    #[error("mosquitto ended with {status}; its log:\n{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The program runs but accepts no connections.
    #[error("mosquitto accepted no connection within {waited:?}; its log:\n{log}")]
    NotReady {
        /// How long it was given.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
}

impl StartError {
    fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    fn is_port_taken(&self) -> bool {
        matches!(self, Self::Ended { log, .. } if log.contains("Address already in use"))
    }
}

/// A running `mosquitto`, reachable over TCP on loopback and over a Unix socket.
///
/// Dropping it kills the process, waits until it is gone and removes its files.
///
/// ```no_run
/// # async fn example() {
/// use mqtt_testkit::Mosquitto;
///
/// let Some(server) = Mosquitto::start_or_skip("my_test").await else { return };
/// println!("connect to {} or {}", server.tcp_url(), server.unix_url());
/// # }
/// ```
#[derive(Debug)]
pub struct Mosquitto {
    /// Before `dir`, so that it is dropped first: the process ends, then its files go.
    process: Option<Process>,
    program: PathBuf,
    addrs: Addrs,
    dir: TempDir,
}

impl Mosquitto {
    /// Options for one that differs from the defaults.
    #[must_use]
    pub fn builder() -> MosquittoBuilder {
        MosquittoBuilder::new()
    }

    /// Starts one with the [builder](MosquittoBuilder)'s defaults.
    ///
    /// # Errors
    ///
    /// As [`MosquittoBuilder::start`].
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    /// Starts one with the builder's defaults for the test of this name, or says that the test is
    /// skipped; see [`MosquittoBuilder::start_or_skip`].
    pub async fn start_or_skip(test: &str) -> Option<Self> {
        Self::builder().start_or_skip(test).await
    }

    /// Where the program is, if it is installed: the first `mosquitto` in `PATH`, `/usr/sbin` and
    /// `/usr/local/sbin`.
    #[must_use]
    pub fn installed() -> Option<PathBuf> {
        process::find("mosquitto")
    }

    /// The TCP endpoint: `mqtt://127.0.0.1:PORT`. It stays the same over restarts.
    #[must_use]
    pub fn tcp_url(&self) -> String {
        format!("mqtt://{}", self.addr())
    }

    /// The Unix endpoint: `unix:///folder/mqtt.sock`. It stays the same over restarts.
    #[must_use]
    pub fn unix_url(&self) -> String {
        format!("unix://{}", self.files().socket().display())
    }

    /// The WebSocket endpoint: `ws://127.0.0.1:PORT/mqtt`. It stays the same over restarts.
    ///
    /// # Panics
    ///
    /// If it was not started with [`websockets`](MosquittoBuilder::websockets).
    #[must_use]
    pub fn ws_url(&self) -> String {
        let addr = self.addrs.ws.expect("it was started with websockets(true)");
        format!("ws://{addr}/mqtt")
    }

    /// The TCP address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addrs.tcp
    }

    /// The process's number, `None` after [`kill`](Self::kill).
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The end of what the present or last run has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.files().log_tail()
    }

    /// Kills the process as a crash would (SIGKILL) and returns when it is gone.
    ///
    /// Does nothing if it has ended before. Without
    /// [`persistence`](MosquittoBuilder::persistence) its sessions and messages are lost.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills the process if it runs, and starts it again with the same configuration, port and
    /// socket; returns when it accepts connections.
    ///
    /// If dropped half-way, or if it fails, the process is gone; it may be called again.
    ///
    /// # Errors
    ///
    /// Somebody else took the port in between, or the start failed as a first one can.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.kill();
        let mut attempts = 1;
        let process = loop {
            match Process::start(&self.program, self.files(), self.addr()).await {
                Err(error) if error.is_port_taken() && attempts < MAX_BIND_ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(REBIND_PAUSE).await;
                }
                result => break result?,
            }
        };
        self.process = Some(process);
        Ok(())
    }

    async fn launch(
        options: &MosquittoBuilder,
        mut free_addr: impl FnMut() -> io::Result<SocketAddr>,
    ) -> Result<Self, StartError> {
        let program = Self::installed().ok_or(StartError::NotInstalled)?;
        let dir = tempfile::Builder::new()
            .prefix("mqtt-")
            .tempdir()
            .map_err(StartError::io("make a folder for mosquitto"))?;
        let files = Files::new(dir.path());
        let mut attempts = 1;
        let (addrs, process) = loop {
            // Between our giving the ports back and mosquitto's taking them another process may be
            // faster; then mosquitto ends and others are tried.
            let addrs = options
                .addrs(&mut free_addr)
                .map_err(StartError::io("find a free port"))?;
            options
                .write_config(files, addrs)
                .map_err(StartError::io("write mosquitto's configuration"))?;
            match Process::start(&program, files, addrs.tcp).await {
                Err(error) if error.is_port_taken() && attempts < MAX_BIND_ATTEMPTS => {
                    attempts += 1;
                }
                result => break (addrs, result?),
            }
        };
        Ok(Self {
            process: Some(process),
            program,
            addrs,
            dir,
        })
    }

    fn files(&self) -> Files<'_> {
        Files::new(self.dir.path())
    }
}

fn free_addr() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_lost_to_another_is_given_up_for_the_next() {
        let builder = Mosquitto::builder();
        if builder
            .clone()
            .start_or_skip("a_port_lost_to_another_is_given_up_for_the_next")
            .await
            .is_none()
        {
            return;
        }
        let thief = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = thief.local_addr().unwrap();

        let mut asked = 0;
        let server = Mosquitto::launch(&builder, || {
            asked += 1;
            if asked < MAX_BIND_ATTEMPTS {
                Ok(taken)
            } else {
                free_addr()
            }
        })
        .await
        .unwrap();
        assert_eq!(asked, MAX_BIND_ATTEMPTS);
        assert_ne!(server.addr(), taken);

        let error = Mosquitto::launch(&builder, || Ok(taken)).await.unwrap_err();
        assert!(error.is_port_taken(), "{error}");
    }
}
