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
//! ```
//! use std::time::Instant;
//! use mqtt_proto::{Event, Message, QoS, Session, Version, packet::{ConnAck, Connect, Packet}};
//!
//! let now = Instant::now();
//! let mut session: Session<&str> = Session::new(Default::default());
//! session.connect(Connect::new(Version::V5, "gauge-1")?, now)?;
//! assert!(!session.take_outbound(Default::default()).is_empty()); // CONNECT, to be written
//!
//! let event = session.handle_packet(Packet::ConnAck(ConnAck::accepted()), now)?;
//! assert!(matches!(event, Some(Event::Connected(_))));
//!
//! let message = Message::new("gauges/1", "21.5")?.with_qos(QoS::AtLeastOnce);
//! session.publish(message, "first reading").expect("the window is empty");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod codec;
mod error;
mod outbound;
pub mod packet;
mod packet_id;
mod qos;
mod reason;
pub mod session;
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
pub use session::{AckId, Connected, Event, Overdue, Session, SessionOptions};
pub use text::{BinaryData, Secret, TextError, Utf8String};
pub use topic::{TopicError, TopicFilter, TopicName};
pub use version::Version;
