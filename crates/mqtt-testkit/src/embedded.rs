//! A server inside the process: mqtt5's broker with the limits that tests need.
//!
//! It speaks 3.1.1 and 5.0 on one port and keeps sessions in memory. It is here because it runs
//! wherever the tests build; it is not a judge of what is right. Four of its ways are known:
//! it adds the user property `x-mqtt-client-id` to every PUBLISH, it answers a repeated PUBREL on a
//! 3.1.1 connection with a PUBCOMP of 5.0's shape, it takes a packet identifier of zero, and it
//! refuses client identifiers that contain `/` or `\`.
//! For verdicts, and for servers that are killed, use [`Mosquitto`](crate::Mosquitto).

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mqtt5::MqttError;
use mqtt5::broker::config::{BrokerConfig, StorageBackend, StorageConfig};
use mqtt5::broker::{
    BrokerShutdownHandle, MqttBroker, ScramCredentialStore, ScramCredentials,
    ScramSha256AuthProvider,
};
use tokio::task::JoinHandle;

use crate::UnixFront;

/// In bytes. mqtt5 itself would announce 256 MiB, which some clients refuse as malformed.
const MAX_PACKET_SIZE: usize = 16 << 20;

/// Messages on their way to one client. mqtt5's own 10,000 loses part of a QoS 0 burst.
const MAX_CHANNEL_MESSAGES: usize = 300_000;

/// QoS 1 and 2 messages sent to a client and not yet acknowledged by it, where the client's receive
/// maximum does not say less. mqtt5's own 64 makes deep pipelines wait.
const MAX_INFLIGHT_MESSAGES: u16 = 1000;

/// QoS 1 and 2 messages kept for one client that is away or behind, and their bytes.
const MAX_QUEUED_MESSAGES: usize = 300_000;
const MAX_QUEUED_BYTES: usize = 256 << 20;

/// The fewest that clients take, so that tests are quick.
const SCRAM_ITERATIONS: u32 = 4_096;

/// Tries to have the same port again, and the pause between two. A process that this one is just
/// spawning holds copies of its sockets until it has become another program, closed ones included.
const MAX_BIND_ATTEMPTS: usize = 10;
const REBIND_PAUSE: Duration = Duration::from_millis(50);

/// Why an [`EmbeddedServer`] did not start or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// mqtt5 refused, for instance because the address is taken.
    #[error("the embedded server failed")]
    Broker(#[from] MqttError),
    /// The server ended before it had said that it is ready.
    #[error("the embedded server ended while starting")]
    EndedEarly,
    /// The server's task panicked.
    #[error("the embedded server panicked")]
    Panicked(#[source] tokio::task::JoinError),
    /// The Unix socket in front of it could not be made.
    #[error("no unix socket for the embedded server")]
    UnixFront(#[source] io::Error),
}

/// An MQTT server inside the process, reachable over TCP on loopback and over a Unix socket.
///
/// Anonymous clients are welcome and `$SYS` is off. Sessions outlive their connections (not the
/// server). Packets may have 16 MiB; per client 300,000 messages are queued, and 1,000 of QoS 1 and 2
/// are in flight at once.
///
/// Dropping it stops it: the runtime closes the port and the connections as soon as it runs the
/// server's tasks again. [`stop`](Self::stop) also waits for that.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), mqtt_testkit::EmbeddedError> {
/// let server = mqtt_testkit::EmbeddedServer::start().await?;
/// println!("connect to {} or {}", server.url(), server.unix_url());
/// server.stop().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EmbeddedServer {
    broker: RunningBroker,
    front: UnixFront,
}

impl EmbeddedServer {
    /// Starts a server on a port that the system chooses and returns when it accepts connections.
    ///
    /// # Errors
    ///
    /// The port, the Unix socket or the server's parts could not be had.
    pub async fn start() -> Result<Self, EmbeddedError> {
        let broker = RunningBroker::start((Ipv4Addr::LOCALHOST, 0).into(), None).await?;
        let front = UnixFront::start(broker.addr).map_err(EmbeddedError::UnixFront)?;
        Ok(Self { broker, front })
    }

    /// Starts a server that takes nobody but this user, by the enhanced authentication SCRAM-SHA-256.
    ///
    /// # Errors
    ///
    /// The port, the Unix socket or the server's parts could not be had.
    pub async fn start_with_scram(user_name: &str, password: &str) -> Result<Self, EmbeddedError> {
        let credentials =
            ScramCredentials::from_password_with_iterations(password, SCRAM_ITERATIONS)?;
        let user = ScramUser {
            name: user_name.to_owned(),
            credentials,
        };
        let user = Some(Arc::new(user));
        let broker = RunningBroker::start((Ipv4Addr::LOCALHOST, 0).into(), user).await?;
        let front = UnixFront::start(broker.addr).map_err(EmbeddedError::UnixFront)?;
        Ok(Self { broker, front })
    }

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.broker.addr
    }

    /// The TCP endpoint: `mqtt://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.broker.addr)
    }

    /// The Unix endpoint: `unix:///folder/mqtt.sock`, a [`UnixFront`] before the TCP port.
    #[must_use]
    pub fn unix_url(&self) -> String {
        self.front.url()
    }

    /// Stops the server and starts an empty one on the same addresses: clients see their
    /// connections close and find their sessions gone.
    ///
    /// If dropped half-way, or if it fails, the server is stopped.
    ///
    /// # Errors
    ///
    /// The server ended badly, or somebody took the port in between and held it for half a second.
    pub async fn restart(&mut self) -> Result<(), EmbeddedError> {
        let addr = self.broker.addr;
        let user = self.broker.user.clone();
        self.broker.stop().await?;
        let mut attempts = 1;
        self.broker = loop {
            match RunningBroker::start(addr, user.clone()).await {
                Err(EmbeddedError::Broker(_)) if attempts < MAX_BIND_ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(REBIND_PAUSE).await;
                }
                result => break result?,
            }
        };
        Ok(())
    }

    /// Stops the server: closes every connection, gives the port back, and returns when that is done.
    ///
    /// # Errors
    ///
    /// The server had failed or panicked before.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        self.broker.stop().await
    }
}

/// The one who may connect, if not everybody may.
struct ScramUser {
    name: String,
    credentials: ScramCredentials,
}

impl ScramCredentialStore for ScramUser {
    fn get_credentials(&self, user_name: &str) -> Option<ScramCredentials> {
        (user_name == self.name).then(|| self.credentials.clone())
    }
}

/// One run of the broker; dropping it ends the run.
struct RunningBroker {
    addr: SocketAddr,
    user: Option<Arc<ScramUser>>,
    shutdown: BrokerShutdownHandle,
    /// `None` once its end has been told.
    task: Option<JoinHandle<Result<(), MqttError>>>,
}

impl RunningBroker {
    async fn start(addr: SocketAddr, user: Option<Arc<ScramUser>>) -> Result<Self, EmbeddedError> {
        let mut broker = MqttBroker::with_config(config(addr)).await?;
        if let Some(user) = user.clone() {
            let provider = ScramSha256AuthProvider::new(user);
            broker = broker.with_auth_provider(Arc::new(provider));
        }
        let addr = broker.local_addr().ok_or(EmbeddedError::EndedEarly)?;
        let mut ready = broker.ready_receiver();
        let shutdown = broker.shutdown_handle();
        let mut running = Self {
            addr,
            user,
            shutdown,
            task: Some(tokio::spawn(async move { broker.run().await })),
        };
        if ready.wait_for(|ready| *ready).await.is_err() {
            running.ended().await?;
            return Err(EmbeddedError::EndedEarly);
        }
        Ok(running)
    }

    async fn stop(&mut self) -> Result<(), EmbeddedError> {
        self.shutdown.shutdown();
        self.ended().await
    }

    async fn ended(&mut self) -> Result<(), EmbeddedError> {
        let Some(task) = &mut self.task else {
            return Ok(());
        };
        let result = task.await;
        self.task = None;
        Ok(result.map_err(EmbeddedError::Panicked)??)
    }
}

impl Drop for RunningBroker {
    fn drop(&mut self) {
        // The broker's own end rather than an abort alone: its connections are tasks apart, which
        // this signal reaches.
        self.shutdown.shutdown();
    }
}

impl fmt::Debug for RunningBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningBroker")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

fn config(addr: SocketAddr) -> BrokerConfig {
    // Without a store, even one in memory, mqtt5 keeps no session past its connection.
    let storage = StorageConfig::new()
        .with_persistence(true)
        .with_backend(StorageBackend::Memory)
        .with_max_queued_messages_per_client(MAX_QUEUED_MESSAGES)
        .with_max_queued_bytes_per_client(MAX_QUEUED_BYTES);
    BrokerConfig::new()
        .with_bind_address(addr)
        .with_max_packet_size(MAX_PACKET_SIZE)
        .with_client_channel_capacity(MAX_CHANNEL_MESSAGES)
        .with_max_outbound_inflight(MAX_INFLIGHT_MESSAGES)
        .with_sys_topics_enabled(false)
        .with_storage(storage)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_restart_that_failed_can_be_tried_again() {
        let mut server = EmbeddedServer::start().await.unwrap();
        server.broker.stop().await.unwrap();
        let thief = loop {
            match std::net::TcpListener::bind(server.addr()) {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(REBIND_PAUSE).await,
            }
        };
        let error = server.restart().await.unwrap_err();
        assert!(matches!(error, EmbeddedError::Broker(_)), "{error:?}");
        drop(thief);
        server.restart().await.unwrap();
        TcpStream::connect(server.addr()).await.unwrap();
        server.stop().await.unwrap();
    }
}
