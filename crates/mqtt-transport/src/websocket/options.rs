//! What can be chosen about WebSocket connections, and the rules it is checked by.

use std::{fmt, time::Duration};

use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};

use crate::ConfigErrors;

/// The largest packet of MQTT and company. The library makes room for the length that a frame claims
/// before it has come.
const MAX_MESSAGE: usize = 256 * 1024 * 1024 + 64 * 1024;

/// Options of WebSocket connections.
///
/// [`validate`](Self::validate) says what is wrong with them, all of it at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct WebSocketOptions {
    /// Headers to send with the request beside those of the protocol. Default none.
    ///
    /// Their values may be secrets, so they are neither printed nor serialised. At level TRACE the
    /// library below logs the whole request, under the target `tungstenite`: leave that off where
    /// a header is a secret.
    #[serde(skip_serializing)]
    pub headers: Vec<WebSocketHeader>,
    /// How long the server may take to turn the connection into a WebSocket, above zero. Default
    /// 5 s: one round trip and what a busy proxy adds.
    #[serde(with = "crate::duration_text")]
    pub handshake_timeout: Duration,
    /// The largest message taken from the server, in bytes, at least 1 KiB; a larger one ends the
    /// connection. Default 1 MiB and 64 KiB: an MQTT packet of the 1 MiB that a client takes by
    /// default, with the packets that a server sends along. It is also the most that a connection
    /// keeps of what it reads.
    pub max_message_size: usize,
    /// The most that is put into one message to the server, in bytes, from 128 to 16 MiB; it
    /// bounds what waits to be written. Default 16 KiB, as much as a record of TLS holds: larger
    /// ones save little, and an idle connection keeps the buffer of its largest.
    pub max_write_size: usize,
    /// What is read at a time, in bytes, from 128 to 1 MiB. Default 8 KiB, which even an idle
    /// connection occupies; a large message is read into a buffer of its own size.
    pub read_buffer_size: usize,
    /// How long closing may take until the server has taken what is left to write. Default 1 s: it
    /// only waits for a server that does not read.
    #[serde(with = "crate::duration_text")]
    pub close_timeout: Duration,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            handshake_timeout: Duration::from_secs(5),
            max_message_size: 1024 * 1024 + 64 * 1024,
            max_write_size: 16 * 1024,
            read_buffer_size: 8 * 1024,
            close_timeout: Duration::from_secs(1),
        }
    }
}

impl WebSocketOptions {
    /// With one more of the [`headers`](Self::headers).
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.headers.push(WebSocketHeader::new(name, value));
        self
    }

    /// With this [`handshake_timeout`](Self::handshake_timeout).
    #[must_use]
    pub fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// With this [`max_message_size`](Self::max_message_size).
    #[must_use]
    pub fn with_max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// With this [`max_write_size`](Self::max_write_size).
    #[must_use]
    pub fn with_max_write_size(mut self, bytes: usize) -> Self {
        self.max_write_size = bytes;
        self
    }

    /// With this [`read_buffer_size`](Self::read_buffer_size).
    #[must_use]
    pub fn with_read_buffer_size(mut self, bytes: usize) -> Self {
        self.read_buffer_size = bytes;
        self
    }

    /// With this [`close_timeout`](Self::close_timeout).
    #[must_use]
    pub fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    ///
    /// All problems, under paths that begin with `websocket`.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        self.check("websocket", &mut errors);
        errors.into_result()
    }

    pub(crate) fn check(&self, path: &str, errors: &mut ConfigErrors) {
        for (index, header) in self.headers.iter().enumerate() {
            header.check(&format!("{path}.headers[{index}]"), errors);
        }
        if self.handshake_timeout.is_zero() {
            errors.push(
                format!("{path}.handshake_timeout"),
                "0s",
                "must be above zero",
                "a server needs at least a round trip: leave it out for 5s",
            );
        }
        let mut check_size = |name, size: usize, range: std::ops::RangeInclusive<usize>, rule| {
            if !range.contains(&size) {
                let hint = "leave it out for the default";
                errors.push(format!("{path}.{name}"), size, rule, hint);
            }
        };
        check_size(
            "max_message_size",
            self.max_message_size,
            1024..=MAX_MESSAGE,
            "must be from 1 KiB to 256 MiB and 64 KiB",
        );
        check_size(
            "max_write_size",
            self.max_write_size,
            128..=16 * 1024 * 1024,
            "must be between 128 bytes and 16 MiB",
        );
        check_size(
            "read_buffer_size",
            self.read_buffer_size,
            128..=1024 * 1024,
            "must be between 128 bytes and 1 MiB",
        );
    }
}

/// A header of the request that opens a WebSocket. Its value is never printed.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WebSocketHeader {
    /// Its name, in any case. `Host`, `Upgrade`, `Connection`, `Sec-WebSocket-*`, `Content-Length`
    /// and `Transfer-Encoding` belong to the protocol and are refused.
    pub name: String,
    /// Its value, of printable ASCII characters and spaces.
    #[serde(deserialize_with = "secret")]
    pub value: SecretString,
}

impl WebSocketHeader {
    /// This header. Whether it can be sent is checked with the options.
    pub fn new(name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }

    /// As it is sent; `None` if it cannot be.
    pub(super) fn to_http(&self) -> Option<(HeaderName, HeaderValue)> {
        let name: HeaderName = self.name.parse().ok()?;
        let mut value = HeaderValue::from_str(self.value.expose_secret()).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    }

    fn check(&self, path: &str, errors: &mut ConfigErrors) {
        let Self { name, value } = self;
        if name.parse::<HeaderName>().is_err() {
            errors.push(
                format!("{path}.name"),
                format_args!("{name:?}"),
                "is not the name of a header",
                "it is made of letters, digits and hyphens, like Authorization",
            );
        }
        if is_reserved(name) {
            errors.push(
                format!("{path}.name"),
                format_args!("{name:?}"),
                "belongs to the protocol",
                "leave it out: it is sent as the endpoint and the protocol ask for",
            );
        }
        if HeaderValue::from_str(value.expose_secret()).is_err() {
            errors.push(
                format!("{path}.value"),
                "not shown",
                "cannot be the value of a header",
                "it is made of printable ASCII characters and spaces, in one line",
            );
        }
    }
}

impl fmt::Debug for WebSocketHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketHeader")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("sec-websocket-")
        || [
            "host",
            "upgrade",
            "connection",
            "content-length",
            "transfer-encoding",
        ]
        .contains(&name.as_str())
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        WebSocketOptions::default().validate().unwrap();
        let empty: WebSocketOptions = toml::from_str("").unwrap();
        assert_eq!(
            format!("{empty:?}"),
            format!("{:?}", WebSocketOptions::default())
        );
    }

    #[test]
    fn every_problem_is_named() {
        let errors = WebSocketOptions::default()
            .with_header("host", "a")
            .with_header("Sec-WebSocket-Key", "a")
            .with_header("two words", "a")
            .with_header("X-Token", "hunter2\r\nX-More: 1")
            .with_handshake_timeout(Duration::ZERO)
            .with_max_message_size(10)
            .with_max_write_size(usize::MAX)
            .with_read_buffer_size(0)
            .validate()
            .unwrap_err();
        let paths: Vec<_> = errors.iter().map(|error| error.path.as_ref()).collect();
        assert_eq!(
            paths,
            [
                "websocket.headers[0].name",
                "websocket.headers[1].name",
                "websocket.headers[2].name",
                "websocket.headers[3].value",
                "websocket.handshake_timeout",
                "websocket.max_message_size",
                "websocket.max_write_size",
                "websocket.read_buffer_size",
            ]
        );
        assert!(!errors.to_string().contains("hunter2"), "{errors}");
    }

    #[test]
    fn secrets_are_read_and_not_shown() {
        let text = "handshake_timeout = \"250ms\"\n\
            [[headers]]\nname = \"Authorization\"\nvalue = \"Bearer hunter2\"\n";
        let options: WebSocketOptions = toml::from_str(text).unwrap();
        assert_eq!(options.handshake_timeout, Duration::from_millis(250));
        let (name, value) = options.headers[0].to_http().unwrap();
        assert_eq!(
            (name.as_str(), &value),
            ("authorization", &HeaderValue::from_static("Bearer hunter2"))
        );
        let shown = format!(
            "{options:?} {value:?} {}",
            toml::to_string(&options).unwrap()
        );
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(toml::from_str::<WebSocketOptions>("handshake_time = \"1s\"").is_err());
    }
}
