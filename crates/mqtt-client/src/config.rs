//! How a session is opened and what it may use, as a plain struct.
//!
//! CONNECT says what was asked and nothing besides: a property that would say the specification's
//! default is left out.

use std::{num::NonZeroU16, num::NonZeroU32, time::Duration};

use mqtt_pool::{ConfigErrors, Limit};
use mqtt_proto::{
    Secret, SessionOptions, Utf8String, Version,
    codec::MAX_PACKET_SIZE,
    packet::{Connect, Will},
};

use crate::{
    outbox::OutboxConfig,
    reconnect::ReconnectConfig,
    stall::{OnStall, Stall},
};

/// Options of a session.
///
/// Begin with [`SessionConfig::new`] and change what differs; [`validate`](Self::validate) reports
/// everything that is wrong at once.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SessionConfig {
    /// The version to speak. Default 5.0.
    pub version: Version,
    /// The client identifier: the name of the session. Sessions of a pool append `-` and a number,
    /// since a server that sees a name twice closes the older connection `[MQTT5-3.1.4-3]`. Empty
    /// lets the server choose.
    pub client_id: String,
    /// Whether to begin a new session. Default true.
    pub clean_start: bool,
    /// How long a 5.0 server keeps the session after its connection: not at all by default, and
    /// `Never` expires never. In whole seconds. In 3.1.1 a session without clean start is kept.
    pub session_expiry: Limit,
    /// The longest silence: an idle session pings, and a server from which nothing comes is given
    /// up within one and a half times this. In whole seconds, at most 65,535; zero switches it off,
    /// and a dead peer then goes unnoticed. Default 30 s.
    pub keep_alive: Duration,
    /// What the server publishes if the connection ends without DISCONNECT.
    pub will: Option<Will>,
    /// User name. A [source](crate::SessionConnector::with_credentials) of credentials takes the
    /// place of this and of the password.
    pub user_name: Option<String>,
    /// Password; never printed.
    pub password: Option<Secret>,
    /// User properties of CONNECT, in order; what they mean is between the application and its server.
    /// 5.0 only. None by default.
    pub user_properties: Vec<(String, String)>,
    /// Whether to ask for response information, a basis for response topics, which the server may
    /// give in [`Session::connack`](crate::Session::connack). 5.0 only. Default false.
    pub request_response_information: bool,
    /// Whether the server may send reason strings and user properties in other packets than PUBLISH,
    /// CONNACK and DISCONNECT (5.0 section 3.1.2.11.7). 5.0 only. Default true: they are what tells why a
    /// request was refused. A server that sends them although it may not is disconnected.
    pub request_problem_information: bool,
    /// The most QoS 1 and 2 messages a server may have unacknowledged by us. Default 1,024 in 5.0,
    /// which bounds what a stopped reader makes the session hold. A 3.1.1 server cannot be told;
    /// one that exceeds a number set here is disconnected, so the default there is 65,535. Times
    /// `max_packet_size` it is the most that unread messages at QoS 1 and 2 can occupy. With 65,535,
    /// which is what a server goes by that is told nothing, CONNECT does not mention it.
    pub receive_maximum: Option<u16>,
    /// The largest packet taken, in bytes. Default 1 MiB: above what the public services allow,
    /// and small enough for thousands of sessions in a process. With
    /// [`MAX_PACKET_SIZE`](mqtt_proto::codec::MAX_PACKET_SIZE), which no packet exceeds, CONNECT does
    /// not mention it.
    pub max_packet_size: u32,
    /// The most topics that the server may send an alias for; the messages that come in name their
    /// topics all the same. 5.0 only. Default 0, none: an alias saves the topic's bytes on the wire, and
    /// each message that has one costs an allocation for its properties. Once the server uses them, each
    /// can occupy 32 bytes and a topic's length, which is at most 65,535.
    pub topic_alias_maximum: u16,
    /// The most topics of publishes that are sent by an alias once the server knows them, from the
    /// second message to a topic on; the server may lower it, and topics of six bytes or less are not
    /// worth one. 5.0 only. Default 0, none: it saves the topic's bytes on the wire and the look-up takes
    /// more time than copying them. Where bytes are dear, as many as there are topics in regular use.
    /// Each occupies some 150 bytes and the topic's length, from its first use to the end of the connection.
    ///
    /// A message with an alias of its own is sent as it is, and from then on only those are used until
    /// the next connection.
    pub max_topic_aliases: u16,
    /// The most QoS 1 and 2 publishes of ours open at a time; a 5.0 server may lower it.
    /// Default 100: what the strictest public services take from a 3.1.1 client. Throughput is at
    /// most this many messages per round trip.
    pub max_in_flight: u16,
    /// What waits to be sent while it cannot be, see [`OutboxConfig`].
    pub outbox: OutboxConfig,
    /// Publishes wait while so many bytes are unwritten. Default 64 KiB: more adds delay, not
    /// throughput. A second buffer of this size may be on its way into the socket.
    pub max_unsent_bytes: usize,
    /// How long a [source](crate::CredentialsSource) of credentials may take. Default 5 s, as for
    /// CONNACK: it asks another service.
    pub credentials_timeout: Duration,
    /// How long dialling may take, from resolving the name. Default 3 s.
    pub connect_timeout: Duration,
    /// How long the server may take to answer CONNECT. Default 5 s.
    pub connack_timeout: Duration,
    /// How long a write may make no progress. Default 10 s: a server that reads nothing for so
    /// long while it is sent something is as good as gone.
    pub write_timeout: Duration,
    /// How long the oldest open publish at QoS 1 and 2, subscribe or unsubscribe may stay without an answer
    /// while the server is alive. Default 60 s which is many times what a server at work takes; `Never`
    /// lets them wait for ever. A server that is slow and
    /// makes progress does not exceed it, however many requests wait behind each other. It is noticed
    /// within a quarter more, and costs nothing while nothing is open.
    pub ack_timeout: Limit,
    /// What is done about a server that exceeds it. Default [`OnStall::Report`].
    pub on_stall: OnStall,
    /// How long [`Session::disconnect`](crate::Session::disconnect) and a pool wait for
    /// acknowledgements before DISCONNECT. Default 250 ms.
    pub quiesce: Duration,
    /// Whether to go on with a session that the server kept from an earlier process. Default
    /// false: the specification asks to disconnect then `[MQTT5-3.2.2-4]`, since what was in
    /// flight is unknown.
    ///
    /// The server sends what it kept at once, so QoS 1 and 2 messages that nobody subscribes to yet
    /// are held unacknowledged. Each goes to the first subscription that wants it, by the same topic
    /// filter, or by the same subscription identifier as in the earlier process if it used one. What
    /// a subscription leaves unread that is given up, or refused, is held again. **When all
    /// subscriptions are made, call
    /// [`Session::release_unclaimed`](crate::Session::release_unclaimed)**, or acknowledgements end up
    /// waiting behind a message that nobody wants.
    pub adopt_session: bool,
    /// What becomes of QoS 1 publishes in flight when the server has lost the session. By default they
    /// end as [`PublishError::Lost`](crate::PublishError::Lost), since only the program knows
    /// whether it can bear to send them twice.
    pub lost_publishes: LostPublishes,
    /// Whether and how the session outlives its connections. By default it does: it opens another
    /// one for ever, see [`ReconnectConfig`]. `None` ends it with its first. Sessions of a pool always
    /// end so, since the pool replaces them.
    pub reconnect: Option<ReconnectConfig>,
    /// What the sessions are called in [metrics](crate::describe_metrics), all together: the label
    /// `session`, 1 to 64 letters, digits, `_`, `-` and `.`. Default `default`. Of several connectors in
    /// a process each may have its own; one for each device would be too many.
    pub metrics_name: String,
}

/// What becomes of publishes in flight when the server has lost the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostPublishes {
    /// They end as [`PublishError::Lost`](crate::PublishError::Lost).
    #[default]
    Fail,
    /// Those at QoS 1 are sent anew in the next session, before all else and in order; those at QoS
    /// 2 end as lost all the same, since nobody knows whether the server has them.
    ResendAtLeastOnce,
}

/// Longer than any process runs.
pub(crate) const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl SessionConfig {
    /// The defaults, with this client identifier.
    pub fn new(client_id: impl Into<String>) -> Self {
        Self {
            version: Version::V5,
            client_id: client_id.into(),
            clean_start: true,
            session_expiry: Limit::After(Duration::ZERO),
            keep_alive: Duration::from_secs(30),
            will: None,
            user_name: None,
            password: None,
            user_properties: Vec::new(),
            request_response_information: false,
            request_problem_information: true,
            receive_maximum: None,
            max_packet_size: 1024 * 1024,
            topic_alias_maximum: 0,
            max_topic_aliases: 0,
            max_in_flight: 100,
            outbox: OutboxConfig::default(),
            max_unsent_bytes: 64 * 1024,
            credentials_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            connack_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            ack_timeout: Limit::After(Duration::from_secs(60)),
            on_stall: OnStall::Report,
            quiesce: Duration::from_millis(250),
            adopt_session: false,
            lost_publishes: LostPublishes::Fail,
            reconnect: Some(ReconnectConfig::default()),
            metrics_name: "default".to_owned(),
        }
    }

    /// Everything that is wrong with the options, at once.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        self.connect().map(|_| ())
    }

    /// The same, with times that can be added to any point in time.
    pub(crate) fn bounded(mut self) -> Self {
        for timeout in [
            &mut self.credentials_timeout,
            &mut self.connect_timeout,
            &mut self.connack_timeout,
            &mut self.write_timeout,
        ] {
            *timeout = FOREVER.min(*timeout);
        }
        self
    }

    /// When the server is taken for stalled, if ever.
    pub(crate) fn stall(&self) -> Option<Stall> {
        match self.ack_timeout {
            Limit::Never => None,
            Limit::After(timeout) => Some(Stall {
                timeout: timeout.min(FOREVER),
                then: self.on_stall,
            }),
        }
    }

    /// The core's options.
    pub(crate) fn options(&self) -> SessionOptions {
        SessionOptions::default()
            .with_max_in_flight(self.max_in_flight)
            .with_max_unsent_bytes(self.max_unsent_bytes)
            .with_max_topic_aliases(self.max_topic_aliases)
            .with_connack_timeout(self.connack_timeout)
            .with_adopt_session(self.adopt_session)
            .with_resend_at_least_once(self.lost_publishes == LostPublishes::ResendAtLeastOnce)
    }

    /// The CONNECT these options describe.
    pub(crate) fn connect(&self) -> Result<Connect, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let mut text = |path: &'static str, text: &str| {
            Utf8String::new(text.to_owned()).unwrap_or_else(|error| {
                let rule = "at most 65535 bytes of UTF-8 without U+0000";
                errors.push(path, error, rule, "shorten it or remove the character");
                Utf8String::EMPTY
            })
        };
        let client_id = text("session.client_id", &self.client_id);
        let user_name = self
            .user_name
            .as_ref()
            .map(|name| text("session.user_name", name));
        let user_properties = self.user_properties.iter().map(|(name, value)| {
            let name = text("session.user_properties", name);
            (name, text("session.user_properties", value))
        });
        let user_properties: Vec<_> = user_properties.collect();

        let keep_alive = u16::try_from(self.keep_alive.as_secs())
            .ok()
            .filter(|_| self.keep_alive.subsec_nanos() == 0);
        if keep_alive.is_none() {
            let rule = "whole seconds, at most 65535 s";
            errors.push(
                "session.keep_alive",
                format!("{:?}", self.keep_alive),
                rule,
                "30 s suits most networks",
            );
        }
        let expiry = match self.session_expiry {
            Limit::Never => Some(u32::MAX),
            Limit::After(after) => u32::try_from(after.as_secs())
                .ok()
                .filter(|_| after.subsec_nanos() == 0),
        };
        if expiry.is_none() {
            let rule = "whole seconds, at most 4294967294 s, or never";
            errors.push(
                "session.session_expiry",
                self.session_expiry,
                rule,
                "0 s ends the session with its connection",
            );
        }
        if !(16..=MAX_PACKET_SIZE).contains(&self.max_packet_size) {
            let rule = "16 to 268435460 bytes";
            errors.push(
                "session.max_packet_size",
                self.max_packet_size,
                rule,
                "1 MiB is the default",
            );
        }
        if self.receive_maximum == Some(0) {
            errors.push(
                "session.receive_maximum",
                0,
                "1 to 65535",
                "1 makes the server send one at a time",
            );
        }
        if self.max_in_flight == 0 {
            errors.push(
                "session.max_in_flight",
                0,
                "1 to 65535",
                "1 sends one at a time",
            );
        }
        if self.max_unsent_bytes == 0 {
            errors.push(
                "session.max_unsent_bytes",
                0,
                "at least 1",
                "64 KiB is the default",
            );
        }
        for (path, timeout) in [
            ("session.credentials_timeout", self.credentials_timeout),
            ("session.connect_timeout", self.connect_timeout),
            ("session.connack_timeout", self.connack_timeout),
            ("session.write_timeout", self.write_timeout),
        ] {
            if timeout.is_zero() {
                errors.push(
                    path,
                    "0s",
                    "more than zero",
                    "ask for a long time instead of none",
                );
            }
        }
        if self.ack_timeout == Limit::After(Duration::ZERO) {
            errors.push(
                "session.ack_timeout",
                "0s",
                "more than zero, or never",
                "60 s is the default",
            );
        }
        self.outbox.check("session.outbox", &mut errors);
        if let Some(reconnect) = &self.reconnect {
            reconnect.check("session.reconnect", &mut errors);
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if !(1..=64).contains(&self.metrics_name.len()) || !self.metrics_name.chars().all(is_plain)
        {
            errors.push(
                "session.metrics_name",
                format!("{:?}", self.metrics_name),
                "1 to 64 letters, digits, `_`, `-` and `.`",
                "name what the sessions do, not one of them",
            );
        }
        if self.version == Version::V3 {
            if self.client_id.is_empty() && !self.clean_start {
                let hint = "name the session or set clean_start";
                errors.push(
                    "session.client_id",
                    "\"\"",
                    "not empty without clean_start in MQTT 3.1.1",
                    hint,
                );
            }
            if self.password.is_some() && self.user_name.is_none() {
                let rule = "needs a user name in MQTT 3.1.1";
                errors.push(
                    "session.password",
                    "[redacted]",
                    rule,
                    "set session.user_name",
                );
            }
        }
        errors.into_result()?;

        let mut connect = Connect::new(self.version, client_id).unwrap_or_else(|never| {
            unreachable!("an MQTT string is one: {never}");
        });
        connect.clean_start = self.clean_start;
        connect.keep_alive = keep_alive.unwrap_or_default();
        connect.will = self.will.clone().map(Box::new);
        connect.user_name = user_name;
        connect.password = self.password.clone();
        if expiry != Some(0) {
            connect.properties.session_expiry_interval = expiry;
        }
        let receive_maximum = self.receive_maximum.unwrap_or(match self.version {
            Version::V5 => 1_024,
            Version::V3 => u16::MAX,
        });
        if receive_maximum != u16::MAX {
            connect.properties.receive_maximum = NonZeroU16::new(receive_maximum);
        }
        if self.max_packet_size != MAX_PACKET_SIZE {
            connect.properties.maximum_packet_size = NonZeroU32::new(self.max_packet_size);
        }
        if self.topic_alias_maximum != 0 {
            connect.properties.topic_alias_maximum = Some(self.topic_alias_maximum);
        }
        if self.request_response_information {
            connect.properties.request_response_information = Some(true);
        }
        if !self.request_problem_information {
            connect.properties.request_problem_information = Some(false);
        }
        if !user_properties.is_empty() {
            connect.properties.user_properties = user_properties;
        }
        Ok(connect)
    }
}

macro_rules! setters {
    ($($with:ident $name:ident: $type:ty,)*) => {
        impl SessionConfig {$(
            #[doc = concat!("With this [`", stringify!($name), "`](Self::", stringify!($name), ").")]
            #[must_use]
            pub fn $with(mut self, $name: impl Into<$type>) -> Self {
                self.$name = $name.into();
                self
            }
        )*}
    };
}

setters! {
    with_version version: Version,
    with_client_id client_id: String,
    with_clean_start clean_start: bool,
    with_session_expiry session_expiry: Limit,
    with_keep_alive keep_alive: Duration,
    with_will will: Option<Will>,
    with_user_name user_name: Option<String>,
    with_password password: Option<Secret>,
    with_user_properties user_properties: Vec<(String, String)>,
    with_request_response_information request_response_information: bool,
    with_request_problem_information request_problem_information: bool,
    with_receive_maximum receive_maximum: Option<u16>,
    with_max_packet_size max_packet_size: u32,
    with_topic_alias_maximum topic_alias_maximum: u16,
    with_max_topic_aliases max_topic_aliases: u16,
    with_max_in_flight max_in_flight: u16,
    with_outbox outbox: OutboxConfig,
    with_max_unsent_bytes max_unsent_bytes: usize,
    with_credentials_timeout credentials_timeout: Duration,
    with_connect_timeout connect_timeout: Duration,
    with_connack_timeout connack_timeout: Duration,
    with_write_timeout write_timeout: Duration,
    with_ack_timeout ack_timeout: Limit,
    with_on_stall on_stall: OnStall,
    with_quiesce quiesce: Duration,
    with_adopt_session adopt_session: bool,
    with_lost_publishes lost_publishes: LostPublishes,
    with_reconnect reconnect: Option<ReconnectConfig>,
    with_metrics_name metrics_name: String,
}
