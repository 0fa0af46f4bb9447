//! MQTT 3.1.1 and 5.0 without I/O, clock or async.
//!
//! Two parts, both plain data and plain functions:
//!
//! - [`packet`] and [`codec`]: every packet and property of both versions in one model, that of
//!   MQTT 5.0. Decoding slices topics and payloads out of the caller's [`bytes::Bytes`]; encoding
//!   writes into the caller's buffer. What 3.1.1 lacks is left out on the wire, in one `match` per
//!   difference.
//! - [`session`]: the client's state machine. A [`Session`] is the specification's *Session State*
//!   and outlives its network connections.
//!
//! The session has one rule: **after every input, drain the outputs.** Inputs are packets, the
//! caller's requests and the time; outputs are the bytes of [`Session::take_outbound`], the
//! [`Event`] that a call returns, and [`Session::next_deadline`].
//!

pub mod codec;
mod error;
mod outbound;
pub mod packet;
mod packet_id;
mod qos;
mod reason;

mod text;
mod topic;
mod version;

pub use codec::Decoder;
pub use error::{DecodeError, EncodeError, Malformed, MalformedPacket, ProtocolError, UsageError};
pub use outbound::Outbound;
pub use packet::Message;
pub use packet_id::PacketId;
pub use qos::QoS;
pub use reason::ReasonCode;

pub use text::{BinaryData, Secret, TextError, Utf8String};
pub use topic::{TopicError, TopicFilter, TopicName};
pub use version::Version;
