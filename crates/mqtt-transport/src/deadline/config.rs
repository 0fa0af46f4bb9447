//! The three deadlines as configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ConfigErrors, Limit};

/// How long connecting, reading and writing may take. [`DeadlinesLayer`](super::DeadlinesLayer)
/// puts them on a connector.
///
/// The defaults answer to the settings that are common for request and response, 3 s to connect
/// and 5 s for each read; where MQTT differs, the reason stands at the field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DeadlineConfig {
    /// For making a connection, from the name to the last handshake. Default 3 s: room for one
    /// lost packet, which is sent again after one second, on a slow path; a server that needs
    /// longer is better tried again or elsewhere.
    pub connect: Limit,
    /// For a read that waits, renewed with each read. Default never: an MQTT session is silent
    /// for as long as nothing is published, and whether the server lives is found out by the
    /// keep-alive. Set it where a peer always has something to say, and then above the
    /// keep-alive if there is one.
    pub read: Limit,
    /// For a write, flush or close that waits for the peer to take something, renewed with each
    /// byte that is taken. Default 10 s: a server that takes nothing for so long has stalled, and
    /// unlike with reads there is no ordinary reason for it.
    pub write: Limit,
}

/// Of timers.
const RESOLUTION: Duration = Duration::from_millis(1);

impl Default for DeadlineConfig {
    fn default() -> Self {
        Self {
            connect: Limit::After(Duration::from_secs(3)),
            read: Limit::Never,
            write: Limit::After(Duration::from_secs(10)),
        }
    }
}

impl DeadlineConfig {
    /// With this [`connect`](Self::connect).
    #[must_use]
    pub fn with_connect(mut self, connect: impl Into<Limit>) -> Self {
        self.connect = connect.into();
        self
    }

    /// With this [`read`](Self::read).
    #[must_use]
    pub fn with_read(mut self, read: impl Into<Limit>) -> Self {
        self.read = read.into();
        self
    }

    /// With this [`write`](Self::write).
    #[must_use]
    pub fn with_write(mut self, write: impl Into<Limit>) -> Self {
        self.write = write.into();
        self
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Every limit that is below a millisecond, the resolution of timers: nothing that has to
    /// wait could succeed.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        self.check("deadlines", &mut errors);
        errors.into_result()
    }

    /// [`validate`](Self::validate) as part of the configuration at `path`.
    pub(crate) fn check(&self, path: &str, errors: &mut ConfigErrors) {
        let limits = [
            ("connect", self.connect),
            ("read", self.read),
            ("write", self.write),
        ];
        for (name, limit) in limits {
            if limit.duration().is_some_and(|limit| limit < RESOLUTION) {
                errors.push(
                    format!("{path}.{name}"),
                    limit,
                    "a deadline is at least 1ms",
                    "use \"never\" to switch it off",
                );
            }
        }
    }
}
