//! What can be chosen about QUIC connections, and the rules it is checked by.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use quinn::{IdleTimeout, TransportConfig, VarInt};
use serde::{Deserialize, Serialize};

use crate::{ConfigErrors, Limit};

/// No path is kept open by less; and the library adds it to the time of the clock.
const MAX_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Options of QUIC connections.
///
/// [`validate`](Self::validate) says what is wrong with them, all of it at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct QuicOptions {
    /// How long one address of the server may take for the handshake, above zero. Default 5 s:
    /// enough for a first packet that was lost, whose next tries leave after 1 and 3 s.
    #[serde(with = "crate::duration_text")]
    pub handshake_timeout: Duration,
    /// How often a connection on which nothing comes in says that it is there. Default 15 s: many
    /// routers forget a UDP path after 30 s of silence, and one packet may be lost (RFC 9308 3.2).
    /// `never` leaves it to MQTT's own keep-alive.
    pub keep_alive_interval: Limit,
    /// After how long without a packet from the server the connection is given up; the server may
    /// ask for less. Default 45 s, three keep-alives. Within it a server that has vanished is
    /// noticed.
    pub max_idle_timeout: Limit,
    /// How long closing may take until the server has taken what was written. Default 1 s: a round
    /// trip, and one more if a packet was lost.
    #[serde(with = "crate::duration_text")]
    pub close_timeout: Duration,
    /// The most that is received and not yet read, in bytes, at least 1 KiB. Default 1,250,000:
    /// what 100 Mbit/s bring in the 100 ms of a long round trip.
    pub receive_window: u32,
    /// The most that is written and not yet acknowledged, in bytes, at least 1 KiB; writing waits
    /// beyond it. Default 1,250,000, for the same reason.
    pub send_window: u32,
    /// The addresses to send from, at most one of each family. Empty by default: the system's
    /// choice.
    pub source_addresses: Vec<IpAddr>,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            keep_alive_interval: Limit::After(Duration::from_secs(15)),
            max_idle_timeout: Limit::After(Duration::from_secs(45)),
            close_timeout: Duration::from_secs(1),
            receive_window: 1_250_000,
            send_window: 1_250_000,
            source_addresses: Vec::new(),
        }
    }
}

impl QuicOptions {
    /// With these [`source_addresses`](Self::source_addresses).
    #[must_use]
    pub fn with_source_addresses(mut self, addresses: impl Into<Vec<IpAddr>>) -> Self {
        self.source_addresses = addresses.into();
        self
    }

    /// The address to send from to this one, if any was chosen.
    pub(super) fn source_for(&self, peer: SocketAddr) -> Option<IpAddr> {
        let mut sources = self.source_addresses.iter().copied();
        sources.find(|source| source.is_ipv4() == peer.is_ipv4())
    }

    /// With this [`handshake_timeout`](Self::handshake_timeout).
    #[must_use]
    pub fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// With this [`keep_alive_interval`](Self::keep_alive_interval).
    #[must_use]
    pub fn with_keep_alive_interval(mut self, interval: impl Into<Limit>) -> Self {
        self.keep_alive_interval = interval.into();
        self
    }

    /// With this [`max_idle_timeout`](Self::max_idle_timeout).
    #[must_use]
    pub fn with_max_idle_timeout(mut self, timeout: impl Into<Limit>) -> Self {
        self.max_idle_timeout = timeout.into();
        self
    }

    /// With this [`close_timeout`](Self::close_timeout).
    #[must_use]
    pub fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// With this [`receive_window`](Self::receive_window).
    #[must_use]
    pub fn with_receive_window(mut self, bytes: u32) -> Self {
        self.receive_window = bytes;
        self
    }

    /// With this [`send_window`](Self::send_window).
    #[must_use]
    pub fn with_send_window(mut self, bytes: u32) -> Self {
        self.send_window = bytes;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    ///
    /// All problems, under paths that begin with `quic`.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        self.check("quic", &mut errors);
        errors.into_result()
    }

    pub(crate) fn check(&self, path: &str, errors: &mut ConfigErrors) {
        for is_ipv4 in [true, false] {
            let sources = self.source_addresses.iter();
            if sources.filter(|source| source.is_ipv4() == is_ipv4).count() > 1 {
                errors.push(
                    format!("{path}.source_addresses"),
                    format!("{:?}", self.source_addresses),
                    "at most one of each family",
                    "one socket serves all connections: leave one IPv4 and one IPv6 address",
                );
            }
        }
        if self.handshake_timeout.is_zero() {
            errors.push(
                format!("{path}.handshake_timeout"),
                "0s",
                "must be above zero",
                "a handshake needs at least a round trip: leave it out for 5s",
            );
        }
        let (interval, idle) = (self.keep_alive_interval, self.max_idle_timeout);
        if interval
            .duration()
            .is_some_and(|interval| interval.is_zero() || interval > MAX_INTERVAL)
        {
            errors.push(
                format!("{path}.keep_alive_interval"),
                interval,
                "must be above zero, and at most 1h",
                "write \"never\" to switch it off",
            );
        }
        match (interval.duration(), idle.duration()) {
            (_, Some(idle_time))
                if idle_timeout(idle_time).is_none() || idle_time > 24 * MAX_INTERVAL =>
            {
                errors.push(
                    format!("{path}.max_idle_timeout"),
                    idle,
                    "must be from 1ms to 1d",
                    "write \"never\" to switch it off",
                );
            }
            (Some(interval), Some(idle_time)) if interval.saturating_mul(2) > idle_time => {
                errors.push(
                    format!("{path}.max_idle_timeout"),
                    idle,
                    "must be at least twice quic.keep_alive_interval",
                    "otherwise one lost packet ends the connection: raise it or lower the other",
                );
            }
            _ => {}
        }
        for (name, window) in [
            ("receive_window", self.receive_window),
            ("send_window", self.send_window),
        ] {
            if window < 1024 {
                errors.push(
                    format!("{path}.{name}"),
                    window,
                    "must be at least 1024 bytes",
                    "leave it out for 1250000",
                );
            }
        }
    }

    /// As the library takes it. The server may open no streams and send no datagrams, so that what
    /// it can make us keep is one window.
    pub(super) fn to_transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        transport
            .keep_alive_interval(self.keep_alive_interval.duration())
            .max_idle_timeout(self.max_idle_timeout.duration().and_then(idle_timeout))
            .stream_receive_window(VarInt::from_u32(self.receive_window))
            .receive_window(VarInt::from_u32(self.receive_window))
            .send_window(self.send_window.into())
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None);
        transport
    }
}

/// `None` for what the protocol cannot say; its zero would mean never.
fn idle_timeout(timeout: Duration) -> Option<IdleTimeout> {
    (timeout.as_millis() > 0).then_some(())?;
    timeout.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_make_the_round_trip() {
        let options = QuicOptions::default();
        options.validate().unwrap();
        let text = toml::to_string(&options).unwrap();
        assert!(text.contains("keep_alive_interval = \"15s\""), "{text}");
        assert_eq!(toml::from_str::<QuicOptions>(&text).unwrap(), options);
        assert_eq!(toml::from_str::<QuicOptions>("").unwrap(), options);
        assert!(toml::from_str::<QuicOptions>("keep_alive = \"1s\"").is_err());
    }

    #[test]
    fn every_problem_is_named() {
        #[track_caller]
        fn check(options: QuicOptions, paths: &[&str]) {
            let errors = options.validate().err().unwrap_or_default();
            let found: Vec<_> = errors.iter().map(|error| error.path.as_ref()).collect();
            assert_eq!(found, paths, "{errors}");
        }
        let default = QuicOptions::default;
        let all = default()
            .with_handshake_timeout(Duration::ZERO)
            .with_keep_alive_interval(Duration::ZERO)
            .with_max_idle_timeout(Duration::MAX)
            .with_receive_window(0)
            .with_send_window(1023);
        let paths = [
            "quic.handshake_timeout",
            "quic.keep_alive_interval",
            "quic.max_idle_timeout",
            "quic.receive_window",
            "quic.send_window",
        ];
        check(all, &paths);
        let short = default().with_max_idle_timeout(Duration::from_secs(29));
        check(short.clone(), &["quic.max_idle_timeout"]);
        check(short.with_keep_alive_interval(Limit::Never), &[]);
        check(default().with_max_idle_timeout(Limit::Never), &[]);
        let zero = default().with_max_idle_timeout(Duration::from_micros(1));
        check(zero, &["quic.max_idle_timeout"]);
    }
}
