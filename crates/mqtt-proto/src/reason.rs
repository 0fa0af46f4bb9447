//! Reason codes of MQTT 5.0, and the 3.1.1 codes that stand for them.

use std::fmt;

/// What a peer says became of a request. Values of 0x80 and above are failures.
///
/// A number with names rather than an enum: which codes a packet may carry depends on the packet,
/// and the decoder checks that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReasonCode(u8);

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl ReasonCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The specification's name for the code, in words.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => $text,)*
                    _ => "unknown reason",
                }
            }
        }
    };
}

reason_codes! {
    /// Done. In DISCONNECT a normal disconnection, in SUBACK a grant of QoS 0.
    SUCCESS = 0x00, "success";
    /// SUBACK: granted QoS 1.
    GRANTED_QOS_1 = 0x01, "granted QoS 1";
    /// SUBACK: granted QoS 2.
    GRANTED_QOS_2 = 0x02, "granted QoS 2";
    /// DISCONNECT by the client that wants its will published.
    DISCONNECT_WITH_WILL = 0x04, "disconnect with will message";
    /// PUBACK, PUBREC: taken, but nobody subscribes.
    NO_MATCHING_SUBSCRIBERS = 0x10, "no matching subscribers";
    /// UNSUBACK: there was no such subscription.
    NO_SUBSCRIPTION_EXISTED = 0x11, "no subscription existed";
    /// AUTH: another step is needed.
    CONTINUE_AUTHENTICATION = 0x18, "continue authentication";
    /// AUTH: the client begins re-authentication.
    RE_AUTHENTICATE = 0x19, "re-authenticate";
    /// A failure without a better word. The only failure of a 3.1.1 SUBACK.
    UNSPECIFIED_ERROR = 0x80, "unspecified error";
    /// The bytes were not a packet.
    MALFORMED_PACKET = 0x81, "malformed packet";
    /// A packet broke a rule.
    PROTOCOL_ERROR = 0x82, "protocol error";
    /// Valid, but the receiver does not take it.
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83, "implementation specific error";
    /// CONNACK: the server does not speak this version.
    UNSUPPORTED_PROTOCOL_VERSION = 0x84, "unsupported protocol version";
    /// CONNACK: the client identifier is not allowed.
    CLIENT_IDENTIFIER_NOT_VALID = 0x85, "client identifier not valid";
    /// CONNACK: user name or password not accepted.
    BAD_USER_NAME_OR_PASSWORD = 0x86, "bad user name or password";
    /// Not allowed to do this.
    NOT_AUTHORIZED = 0x87, "not authorized";
    /// CONNACK: the server is not available.
    SERVER_UNAVAILABLE = 0x88, "server unavailable";
    /// The server is busy; try later.
    SERVER_BUSY = 0x89, "server busy";
    /// CONNACK: the client was banned.
    BANNED = 0x8A, "banned";
    /// DISCONNECT: the server shuts down.
    SERVER_SHUTTING_DOWN = 0x8B, "server shutting down";
    /// The authentication method is not supported or not the one in use.
    BAD_AUTHENTICATION_METHOD = 0x8C, "bad authentication method";
    /// DISCONNECT: nothing was heard for one and a half keep-alive.
    KEEP_ALIVE_TIMEOUT = 0x8D, "keep alive timeout";
    /// DISCONNECT: another connection took the client identifier.
    SESSION_TAKEN_OVER = 0x8E, "session taken over";
    /// The topic filter is well formed but not accepted.
    TOPIC_FILTER_INVALID = 0x8F, "topic filter invalid";
    /// The topic name is well formed but not accepted.
    TOPIC_NAME_INVALID = 0x90, "topic name invalid";
    /// The packet identifier is in use.
    PACKET_IDENTIFIER_IN_USE = 0x91, "packet identifier in use";
    /// The packet identifier is not known.
    PACKET_IDENTIFIER_NOT_FOUND = 0x92, "packet identifier not found";
    /// DISCONNECT: more than Receive Maximum publishes are open.
    RECEIVE_MAXIMUM_EXCEEDED = 0x93, "receive maximum exceeded";
    /// DISCONNECT: a topic alias is zero, too large or unknown.
    TOPIC_ALIAS_INVALID = 0x94, "topic alias invalid";
    /// The packet is larger than its receiver takes.
    PACKET_TOO_LARGE = 0x95, "packet too large";
    /// DISCONNECT: too many messages in too short a time.
    MESSAGE_RATE_TOO_HIGH = 0x96, "message rate too high";
    /// A limit of the implementation or of its administrator was reached.
    QUOTA_EXCEEDED = 0x97, "quota exceeded";
    /// DISCONNECT: an administrator closed the connection.
    ADMINISTRATIVE_ACTION = 0x98, "administrative action";
    /// The payload is not of the announced format.
    PAYLOAD_FORMAT_INVALID = 0x99, "payload format invalid";
    /// The server does not keep retained messages.
    RETAIN_NOT_SUPPORTED = 0x9A, "retain not supported";
    /// The server does not support this QoS.
    QOS_NOT_SUPPORTED = 0x9B, "QoS not supported";
    /// Use another server, for now.
    USE_ANOTHER_SERVER = 0x9C, "use another server";
    /// Use another server, from now on.
    SERVER_MOVED = 0x9D, "server moved";
    /// SUBACK, DISCONNECT: no shared subscriptions here.
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E, "shared subscriptions not supported";
    /// Connections come in too fast.
    CONNECTION_RATE_EXCEEDED = 0x9F, "connection rate exceeded";
    /// DISCONNECT: the time allowed for this connection is over.
    MAXIMUM_CONNECT_TIME = 0xA0, "maximum connect time";
    /// SUBACK, DISCONNECT: no subscription identifiers here.
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1, "subscription identifiers not supported";
    /// SUBACK, DISCONNECT: no wildcard subscriptions here.
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2, "wildcard subscriptions not supported";
}

impl ReasonCode {
    /// The code with this number, known or not.
    pub const fn new(code: u8) -> Self {
        Self(code)
    }

    /// The number on the wire.
    pub const fn value(self) -> u8 {
        self.0
    }

    /// Whether it is a failure: 0x80 and above.
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// What a 3.1.1 CONNACK return code says, in the words of 5.0. `None` for the reserved ones.
    pub const fn from_v3_connect_return(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::SUCCESS,
            1 => Self::UNSUPPORTED_PROTOCOL_VERSION,
            2 => Self::CLIENT_IDENTIFIER_NOT_VALID,
            3 => Self::SERVER_UNAVAILABLE,
            4 => Self::BAD_USER_NAME_OR_PASSWORD,
            5 => Self::NOT_AUTHORIZED,
            _ => return None,
        })
    }

    /// The 3.1.1 CONNACK return code nearest to this code.
    pub(crate) const fn to_v3_connect_return(self) -> u8 {
        match self {
            Self::SUCCESS => 0,
            Self::UNSUPPORTED_PROTOCOL_VERSION => 1,
            Self::CLIENT_IDENTIFIER_NOT_VALID => 2,
            Self::BAD_USER_NAME_OR_PASSWORD => 4,
            Self::NOT_AUTHORIZED | Self::BANNED => 5,
            _ => 3,
        }
    }
}

impl fmt::Debug for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.name(), self.0)
    }
}
