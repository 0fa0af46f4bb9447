//! What the caller sets once for a session.

use std::time::Duration;

/// What the session holds itself to, beyond what CONNECT says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionOptions {
    /// The most QoS 1 and 2 publishes open at a time; the server's Receive Maximum lowers it.
    /// Default 100: what the strictest public services take from a 3.1.1 client, which no server
    /// can tell its limit. Throughput is at most this many messages per round trip. 0 counts as 1.
    pub max_in_flight: u16,
    /// Publishes have no room while this many encoded bytes wait to be written. Default 64 KiB:
    /// a full socket buffer's worth, beyond which a larger queue adds delay and no throughput. 0 counts
    /// as 1.
    pub max_unsent_bytes: usize,
    /// The most topics of publishes that are sent by an alias once the server knows them; 5.0 only,
    /// and the server's Topic Alias Maximum lowers it. Default 0, none: an alias saves the topic's bytes,
    /// but looking it up costs either end more time than copying them. Where bytes are dear, as many as
    /// there are topics in regular use. Each costs some 150 bytes and the topic's, and only once used.
    pub max_topic_aliases: u16,
    /// How long to wait for CONNACK. Default 5 s.
    pub connack_timeout: Duration,
    /// Whether to go on with a session that the server kept and this client knows nothing of, as
    /// after a restart of the process. Off by default, since the specification asks a client to
    /// close then `[MQTT5-3.2.2-4]`: what it had in flight is unknown.
    pub adopt_session: bool,
    /// Whether QoS 1 publishes in flight are sent anew when the server has lost the session, instead
    /// of being told as lost. They may arrive twice, as QoS 1 allows, and a message that was sent in the
    /// old session may come after one that was not. Off by default. Those at QoS 2 are always told: in a
    /// new session nobody knows whether the server has them.
    pub resend_at_least_once: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            max_in_flight: 100,
            max_unsent_bytes: 64 * 1024,
            max_topic_aliases: 0,
            connack_timeout: Duration::from_secs(5),
            adopt_session: false,
            resend_at_least_once: false,
        }
    }
}

impl SessionOptions {
    /// With this [`max_in_flight`](Self::max_in_flight).
    #[must_use]
    pub fn with_max_in_flight(mut self, max_in_flight: u16) -> Self {
        self.max_in_flight = max_in_flight;
        self
    }

    /// With this [`max_unsent_bytes`](Self::max_unsent_bytes).
    #[must_use]
    pub fn with_max_unsent_bytes(mut self, max_unsent_bytes: usize) -> Self {
        self.max_unsent_bytes = max_unsent_bytes;
        self
    }

    /// With this [`max_topic_aliases`](Self::max_topic_aliases).
    #[must_use]
    pub fn with_max_topic_aliases(mut self, max_topic_aliases: u16) -> Self {
        self.max_topic_aliases = max_topic_aliases;
        self
    }

    /// With this [`connack_timeout`](Self::connack_timeout).
    #[must_use]
    pub fn with_connack_timeout(mut self, connack_timeout: Duration) -> Self {
        self.connack_timeout = connack_timeout;
        self
    }

    /// With this [`adopt_session`](Self::adopt_session).
    #[must_use]
    pub fn with_adopt_session(mut self, adopt_session: bool) -> Self {
        self.adopt_session = adopt_session;
        self
    }

    /// With this [`resend_at_least_once`](Self::resend_at_least_once).
    #[must_use]
    pub fn with_resend_at_least_once(mut self, resend_at_least_once: bool) -> Self {
        self.resend_at_least_once = resend_at_least_once;
        self
    }
}
