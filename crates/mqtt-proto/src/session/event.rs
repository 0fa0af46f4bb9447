//! What comes of inputs and requests.

use crate::{
    Message, ReasonCode, UsageError,
    packet::{AckProperties, Auth, ConnAck, Disconnect, Properties},
    session::AckId,
};

/// What came of an input. Each packet leads to at most one.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<T> {
    /// The server accepted the connection.
    Connected(Box<Connected<T>>),
    /// The server refused the connection and closes it.
    Refused(Box<ConnAck>),
    /// A message for the application. `ack` is to be given to [`Session::acknowledge`](super::Session::acknowledge).
    Message {
        /// The message, its topic alias resolved.
        message: Message,
        /// What names it when it is acknowledged; `None` at QoS 0.
        ack: Option<AckId>,
        /// Whether the server may have sent it before.
        dup: bool,
    },
    /// A QoS 1 or 2 publish has ended: PUBACK, PUBCOMP, or a PUBREC that refuses.
    Published {
        /// The caller's token.
        token: T,
        /// What the server says became of it.
        reason_code: ReasonCode,
        /// Of PUBACK or PUBREC, as the code; of PUBCOMP if PUBREC had none.
        properties: Properties<AckProperties>,
    },
    /// SUBACK or UNSUBACK.
    Answered {
        /// The caller's token.
        token: T,
        /// One for each filter, in order. For a 3.1.1 UNSUBACK all are success.
        reason_codes: Vec<ReasonCode>,
        /// 5.0 only.
        properties: Properties<AckProperties>,
    },
    /// The server closes the connection and says why. 5.0 only.
    Disconnected(Box<Disconnect>),
    /// A step of enhanced authentication, to be answered with [`Session::authenticate`](super::Session::authenticate).
    Auth(Box<Auth>),
}

/// The server accepted the connection.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connected<T> {
    /// The server's CONNACK.
    pub connack: ConnAck,
    /// Publishes that cannot go on, since the server has no session or its limits forbid them.
    /// Whether they were delivered is unknown.
    pub lost: Vec<T>,
}

/// A publish that was not admitted; nothing of it was sent.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused<T> {
    /// The message, back.
    pub message: Message,
    /// The token, back.
    pub token: T,
    /// Why; `None` means that there is no room now.
    pub error: Option<UsageError>,
}
