//! Errors, each saying what happened, to which endpoint, in which phase, and whether another
//! attempt can help.

use std::{io, sync::Arc, time::Duration};

use mqtt_pool::ConfigErrors;
use mqtt_proto::{
    DecodeError, Message, ProtocolError, ReasonCode, UsageError, Utf8String,
    packet::{AckProperties, ConnAck, Disconnect, PacketType, Properties},
};
use mqtt_transport::Endpoint;
use thiserror::Error;

use crate::{
    authenticate::AuthenticationError, credentials::CredentialsError, redirect::RedirectError,
};

/// No session could be opened.
#[derive(Debug, Error)]
#[error("cannot open a session at {endpoint}")]
#[non_exhaustive]
pub struct ConnectError {
    /// Where.
    pub endpoint: Endpoint,
    /// In which phase, and why.
    #[source]
    pub cause: ConnectCause,
}

/// In which phase a session could not be opened, and why.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectCause {
    /// There was no connection: resolving, dialling or its deadline.
    #[error("no connection")]
    Dial(#[source] mqtt_transport::ConnectError),
    /// The [source](crate::CredentialsSource) of credentials had none to give, or not in time.
    #[error("no credentials")]
    Credentials(#[source] CredentialsError),
    /// The session's configuration is not allowed.
    #[error("the configuration is not allowed")]
    Config(#[source] ConfigErrors),
    /// The session's options are not allowed.
    #[error("the options are not allowed")]
    Options(#[source] UsageError),
    /// The connection broke between CONNECT and CONNACK.
    #[error("the connection broke before CONNACK")]
    Io(#[source] io::Error),
    /// The server closed the connection instead of sending CONNACK. Many servers do so for a
    /// protocol version, a client identifier or a TLS setting they do not take.
    #[error("the server closed the connection before CONNACK")]
    Closed,
    /// What the server sent is not a packet.
    #[error("the answer to CONNECT is not a packet")]
    Malformed(#[source] DecodeError),
    /// The server broke a rule, or did not answer in time.
    #[error("the answer to CONNECT is not allowed")]
    Protocol(#[source] ProtocolError),
    /// This side did not authenticate, or did not trust the server.
    #[error("enhanced authentication failed")]
    Authentication(#[source] AuthenticationError),
    /// The server said no.
    #[error(
        "the server refused: {}{}{}",
        .0.reason_code,
        text(.0.properties.reason_string.as_ref()),
        other(.0.properties.server_reference.as_ref())
    )]
    Refused(Box<ConnAck>),
    /// The server said to use another, and was not followed there.
    #[error(
        "the server sends on: {}{}{}",
        .connack.reason_code,
        text(.connack.properties.reason_string.as_ref()),
        other(.connack.properties.server_reference.as_ref())
    )]
    NotFollowed {
        /// What it said.
        connack: Box<ConnAck>,
        /// Why it was not followed.
        source: RedirectError,
    },
}

fn text(reason: Option<&Utf8String>) -> String {
    reason
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default()
}

/// The other server that one names; quoted, for it may be any text.
fn other(reference: Option<&Utf8String>) -> String {
    reference
        .map(|reference| format!(", and names {reference:?}"))
        .unwrap_or_default()
}

/// A session's connection has ended. Told to everyone for whom there will be no other.
#[derive(Clone, Debug, Error)]
#[error("the connection to {endpoint} has ended")]
#[non_exhaustive]
pub struct ConnectionLost {
    /// Where.
    pub endpoint: Endpoint,
    /// Why.
    #[source]
    pub cause: LostCause,
}

/// Why a connection has ended.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum LostCause {
    /// This side closed it, or dropped its last handle.
    #[error("closed by this side")]
    Closed,
    /// This side ended it without DISCONNECT, as [`Session::cut`](crate::Session::cut) asked.
    #[error("cut by this side")]
    Cut,
    /// This side ended it in order, for a connection with new credentials.
    #[error("closed by this side for new credentials")]
    Renewed,
    /// The server closed it without a word.
    #[error("closed by the server")]
    ClosedByServer,
    /// The server sent DISCONNECT.
    #[error(
        "the server disconnected: {}{}{}",
        .0.reason_code,
        text(.0.properties.reason_string.as_ref()),
        other(.0.properties.server_reference.as_ref())
    )]
    Disconnected(Box<Disconnect>),
    /// Reading or writing failed.
    #[error("{operation} failed")]
    Io {
        /// What failed.
        operation: Operation,
        /// How.
        source: Arc<io::Error>,
    },
    /// The server sent what is not a packet.
    #[error("the server sent what is not a packet")]
    Malformed(#[source] DecodeError),
    /// The server broke a rule or fell silent.
    #[error("the server broke a rule")]
    Protocol(#[source] ProtocolError),
    /// This side ended it because the server answered pings and did not answer a request in the
    /// configured [`ack_timeout`](crate::SessionConfig::ack_timeout).
    #[error("the server does not answer: no {awaited} within {timeout:?}")]
    Stalled {
        /// What did not come for the oldest request.
        awaited: PacketType,
        /// The time that was allowed.
        timeout: Duration,
    },
    /// This side ended it in a re-authentication.
    #[error("re-authentication failed")]
    Authentication(#[source] AuthenticationError),
    /// A later connection could not go on with the session: the server has lost it, or does not take
    /// what was in flight.
    #[error("the server has lost the session")]
    SessionLost,
    /// It was lost, and no other could be opened: the attempts there were to be have been made, or
    /// another cannot help.
    #[error("no new connection")]
    NotReopened(#[source] Arc<ConnectError>),
    /// The task that drives the connection was dropped, as when its runtime shuts down.
    #[error("the runtime dropped the connection's task")]
    TaskDropped,
}

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// From the server.
    Read,
    /// To the server.
    Write,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "reading",
            Self::Write => "writing",
        })
    }
}

/// A publish did not succeed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The message is not one the server takes. Nothing was sent.
    #[error("the message cannot be published")]
    Usage(#[from] UsageError),
    /// The session is closing or over. Nothing was sent.
    #[error("not sent")]
    NotSent(#[source] Arc<ConnectionLost>),
    /// The outbox is full and publishes are not to wait. Nothing was sent.
    #[error("not sent: the outbox is full")]
    Full,
    /// It gave way to another message in the full outbox, or to a later one of its topic. Nothing
    /// was sent.
    #[error("not sent: it gave way to another message in the outbox")]
    Displaced,
    /// It could not be sent in the time it was good for. Nothing was sent.
    #[error("not sent: it waited for longer than it was good for")]
    Expired,
    /// The server said no.
    #[error("the server rejected the message: {reason_code}{}", text(.properties.reason_string.as_ref()))]
    Rejected {
        /// Its code.
        reason_code: ReasonCode,
        /// Its words, if any. 5.0 only.
        properties: Properties<AckProperties>,
    },
    /// The message was sent and the connection ended before the server acknowledged it.
    #[error("sent, and not known to be delivered")]
    Lost(#[source] Arc<ConnectionLost>),
    /// The message was sent on several connections, and the server ended each of them before it
    /// acknowledged it: see [`set_aside_after`](crate::ReconnectConfig::set_aside_after). It is not
    /// sent again; the session goes on.
    #[error("set aside after {connections} connections that ended with it")]
    SetAside {
        /// How many.
        connections: u32,
        /// How the last of them ended.
        source: Arc<ConnectionLost>,
    },
}

/// What is known of a message whose publish failed, or of a request without a reply: what a retry
/// policy needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// No byte of it left: publishing it again cannot duplicate it.
    NotSent,
    /// It may have arrived: publishing it again may duplicate it. Never do that at QoS 2.
    Unknown,
    /// The server has refused it.
    Rejected,
    /// The server has it. Told of requests that were not answered.
    Acknowledged,
}

impl PublishError {
    /// What became of the message.
    pub fn delivery(&self) -> Delivery {
        match self {
            Self::Usage(_) | Self::NotSent(_) | Self::Full | Self::Displaced | Self::Expired => {
                Delivery::NotSent
            }
            Self::Rejected { .. } => Delivery::Rejected,
            Self::Lost(_) | Self::SetAside { .. } => Delivery::Unknown,
        }
    }

    /// Whether publishing it again may succeed with nothing changed on this side, given a session that
    /// is open. Whether that may duplicate it, [`delivery`](Self::delivery) says.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Full => true,
            // One that makes others give way would be made to by them.
            Self::Usage(_) | Self::Displaced | Self::Expired | Self::SetAside { .. } => false,
            Self::NotSent(lost) | Self::Lost(lost) => lost.is_transient(),
            Self::Rejected { reason_code, .. } => REJECTED_FOR_NOW.contains(reason_code),
        }
    }
}

/// Of the codes that reject a message [MQTT5 3.4.2.1], those that another attempt may not get. The first
/// two say nothing, so that hope is allowed.
const REJECTED_FOR_NOW: [ReasonCode; 4] = [
    ReasonCode::UNSPECIFIED_ERROR,
    ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
    ReasonCode::PACKET_IDENTIFIER_IN_USE,
    ReasonCode::QUOTA_EXCEEDED,
];

/// A subscribe or unsubscribe did not succeed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The request is not one the server takes. Nothing was sent.
    #[error("the request is not allowed")]
    Usage(#[from] UsageError),
    /// The server refused at least one filter; those it granted were given up again.
    #[error("the server refused: {reason_codes:?}{}", text(.properties.reason_string.as_ref()))]
    Refused {
        /// One for each filter, in order.
        reason_codes: Vec<ReasonCode>,
        /// The server's words, if any. 5.0 only.
        properties: Properties<AckProperties>,
    },
    /// The session is closing or over. Nothing was sent.
    #[error("not sent")]
    NotSent(#[source] Arc<ConnectionLost>),
    /// The connection ended before the answer came.
    #[error("no answer")]
    Lost(#[source] Arc<ConnectionLost>),
}

/// A session has left before all that it had taken was acknowledged: what did not make it.
///
/// Those who wait for the outcomes are told as well.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{in_flight} publishes were not acknowledged within {quiesce:?}{}", and_unsent(.unsent))]
#[non_exhaustive]
pub struct NotQuiet {
    /// How many publishes were sent and not acknowledged.
    pub in_flight: usize,
    /// Their messages, in the order of sending; without those at QoS 2 that the server has and has
    /// not completed.
    pub unacknowledged: Vec<Message>,
    /// Messages that were not sent.
    pub unsent: Vec<Message>,
    /// How long was waited.
    pub quiesce: Duration,
}

fn and_unsent(unsent: &[Message]) -> String {
    match unsent.len() {
        0 => String::new(),
        unsent => format!(", and {unsent} not sent"),
    }
}
