//! Options of TCP connections, and how they are put on a socket before it is dialled.

use std::{io, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpSocket;

use crate::{ConfigErrors, Limit};

/// Options of TCP connections.
///
/// What the system refuses of them shows as a failed dial; [`validate`](Self::validate) tells
/// before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TcpOptions {
    /// Send small packets at once rather than wait for more. Default true: what is written was
    /// batched above, and an acknowledgement that waits costs a round trip.
    pub nodelay: bool,
    /// After how long without traffic the kernel begins to ask whether the peer is still there, in
    /// whole seconds from `1s` to `32767s`, or `never`. Default `never`: MQTT's own keep-alive finds a
    /// dead peer sooner, and this costs four system calls a dial. It is for sessions without
    /// keep-alive and connections that wait undriven; `1m` finds those dead within two minutes, and
    /// keeps a NAT between from forgetting them.
    pub keepalive: Limit,
    /// How long the kernel waits between two such questions, in whole seconds from `1s` to
    /// `32767s`. Default 15 s.
    #[serde(with = "crate::duration_text")]
    pub keepalive_interval: Duration,
    /// How many questions in a row may stay without an answer, from 1 to 127. Default 4, which gives
    /// a dead peer up after two minutes.
    pub keepalive_retries: u32,
    /// How long sent data may stay unacknowledged by the peer's kernel before the connection fails
    /// (`TCP_USER_TIMEOUT`), or `never` for the system's rule, which is about a quarter of an hour on
    /// Linux. From `1s` to `24d`; Linux alone has it. Default `never`: MQTT's keep-alive notices a dead
    /// peer while publishing too, and this would take the place of `keepalive_retries`.
    pub user_timeout: Limit,
    /// The size of the kernel's send buffer in bytes, at least 1; `None` lets the system adapt it to
    /// the connection, which is the default. The system may round it and has an upper bound.
    pub send_buffer: Option<u32>,
    /// The size of the kernel's receive buffer, like `send_buffer`.
    pub receive_buffer: Option<u32>,
    /// The addresses of this host to connect from. Default empty: the system chooses.
    ///
    /// Of several, those of the peer's family are used in turn, one dial after the other. Addresses
    /// of the peer whose family has none here are skipped. One source address is good for as many
    /// connections as the system has ephemeral ports (28,232 on Linux by default), whatever they
    /// lead to; that is why there may be several.
    pub source_addresses: Vec<IpAddr>,
    /// How long an attempt at one address of a server is alone before the next address is tried
    /// beside it, from 10 ms to 2 s. Default 250 ms (RFC 8305, section 8).
    #[serde(with = "crate::duration_text")]
    pub attempt_delay: Duration,
    /// How many addresses of a server are tried at most, from 1 to 64. Default 8: with the families
    /// in turn, who is not reached by then is away.
    pub max_addresses: usize,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Limit::Never,
            keepalive_interval: Duration::from_secs(15),
            keepalive_retries: 4,
            user_timeout: Limit::Never,
            send_buffer: None,
            receive_buffer: None,
            source_addresses: Vec::new(),
            attempt_delay: Duration::from_millis(250),
            max_addresses: 8,
        }
    }
}

impl TcpOptions {
    /// With this [`nodelay`](Self::nodelay).
    #[must_use]
    pub fn with_nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// With this [`keepalive`](Self::keepalive).
    #[must_use]
    pub fn with_keepalive(mut self, keepalive: impl Into<Limit>) -> Self {
        self.keepalive = keepalive.into();
        self
    }

    /// With this [`keepalive_interval`](Self::keepalive_interval).
    #[must_use]
    pub fn with_keepalive_interval(mut self, interval: Duration) -> Self {
        self.keepalive_interval = interval;
        self
    }

    /// With this [`keepalive_retries`](Self::keepalive_retries).
    #[must_use]
    pub fn with_keepalive_retries(mut self, retries: u32) -> Self {
        self.keepalive_retries = retries;
        self
    }

    /// With this [`user_timeout`](Self::user_timeout).
    #[must_use]
    pub fn with_user_timeout(mut self, user_timeout: impl Into<Limit>) -> Self {
        self.user_timeout = user_timeout.into();
        self
    }

    /// With this [`send_buffer`](Self::send_buffer).
    #[must_use]
    pub fn with_send_buffer(mut self, bytes: impl Into<Option<u32>>) -> Self {
        self.send_buffer = bytes.into();
        self
    }

    /// With this [`receive_buffer`](Self::receive_buffer).
    #[must_use]
    pub fn with_receive_buffer(mut self, bytes: impl Into<Option<u32>>) -> Self {
        self.receive_buffer = bytes.into();
        self
    }

    /// With these [`source_addresses`](Self::source_addresses).
    #[must_use]
    pub fn with_source_addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.source_addresses = addresses.into_iter().collect();
        self
    }

    /// With this [`attempt_delay`](Self::attempt_delay).
    #[must_use]
    pub fn with_attempt_delay(mut self, delay: Duration) -> Self {
        self.attempt_delay = delay;
        self
    }

    /// With this [`max_addresses`](Self::max_addresses).
    #[must_use]
    pub fn with_max_addresses(mut self, max: usize) -> Self {
        self.max_addresses = max;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    ///
    /// All that is wrong, with the names of the options.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        self.check("tcp", &mut errors);
        errors.into_result()
    }

    /// [`validate`](Self::validate) as part of a larger configuration, in which the options are
    /// found under `path`.
    pub(crate) fn check(&self, path: &str, errors: &mut ConfigErrors) {
        let name = |option: &str| format!("{path}.{option}");
        let keepalive_times = Duration::from_secs(1)..=Duration::from_secs(32_767);
        if let Limit::After(idle) = self.keepalive
            && !keepalive_times.contains(&idle)
        {
            errors.push(
                name("keepalive"),
                self.keepalive,
                "must be from 1s to 32767s",
                "write never to switch it off",
            );
        }
        if !keepalive_times.contains(&self.keepalive_interval) {
            errors.push(
                name("keepalive_interval"),
                Limit::After(self.keepalive_interval),
                "must be from 1s to 32767s",
                "15s is the default",
            );
        }
        if !(1..=127).contains(&self.keepalive_retries) {
            errors.push(
                name("keepalive_retries"),
                self.keepalive_retries,
                "must be from 1 to 127",
                "set keepalive to never to switch it off",
            );
        }
        if let Limit::After(timeout) = self.user_timeout {
            if !HAS_USER_TIMEOUT {
                errors.push(
                    name("user_timeout"),
                    self.user_timeout,
                    "is not known to this system",
                    "write never and rely on MQTT's keep-alive",
                );
            } else if !USER_TIMEOUTS.contains(&timeout) {
                errors.push(
                    name("user_timeout"),
                    self.user_timeout,
                    "must be from 1s to 24d",
                    "write never for the system's rule",
                );
            }
        }
        for (option, size) in [
            ("send_buffer", self.send_buffer),
            ("receive_buffer", self.receive_buffer),
        ] {
            if size == Some(0) {
                errors.push(
                    name(option),
                    0,
                    "must be at least 1",
                    "leave it out to let the system choose",
                );
            }
        }
        for address in &self.source_addresses {
            if address.is_unspecified() || address.is_multicast() {
                errors.push(
                    name("source_addresses"),
                    address,
                    "must be addresses of this host",
                    "leave it empty to let the system choose",
                );
            }
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(2)).contains(&self.attempt_delay) {
            errors.push(
                name("attempt_delay"),
                Limit::After(self.attempt_delay),
                "must be from 10ms to 2s",
                "RFC 8305 recommends 250ms",
            );
        }
        if !(1..=64).contains(&self.max_addresses) {
            errors.push(
                name("max_addresses"),
                self.max_addresses,
                "must be from 1 to 64",
                "8 is the default",
            );
        }
    }

    /// Puts the options on a socket that is not connected yet: buffers count in the handshake.
    pub(super) fn apply(&self, socket: &TcpSocket) -> io::Result<()> {
        socket.set_nodelay(self.nodelay)?;
        if let Limit::After(idle) = self.keepalive {
            let keepalive = TcpKeepalive::new().with_time(idle);
            #[cfg(not(any(
                target_os = "haiku",
                target_os = "nto",
                target_os = "openbsd",
                target_os = "solaris"
            )))]
            let keepalive = keepalive
                .with_interval(self.keepalive_interval)
                .with_retries(self.keepalive_retries);
            SockRef::from(socket).set_tcp_keepalive(&keepalive)?;
        }
        if let Limit::After(timeout) = self.user_timeout {
            set_user_timeout(socket, timeout)?;
        }
        if let Some(size) = self.send_buffer {
            socket.set_send_buffer_size(size)?;
        }
        if let Some(size) = self.receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        Ok(())
    }
}

/// What fits the kernel's count of milliseconds.
const USER_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 24 * 60 * 60);

const HAS_USER_TIMEOUT: bool = cfg!(any(target_os = "android", target_os = "linux"));

#[cfg(any(target_os = "android", target_os = "linux"))]
fn set_user_timeout(socket: &TcpSocket, timeout: Duration) -> io::Result<()> {
    SockRef::from(socket).set_tcp_user_timeout(Some(timeout))
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
fn set_user_timeout(_: &TcpSocket, _: Duration) -> io::Result<()> {
    let text = "this system has no TCP user timeout";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}
