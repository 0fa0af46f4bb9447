/// Quality of service: what is promised about a message's delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    clippy::exhaustive_enums,
    reason = "the specification has three and forbids a fourth [MQTT5-3.3.1-4]"
)]
pub enum QoS {
    /// QoS 0: sent once, never repeated; may be lost.
    #[default]
    AtMostOnce,
    /// QoS 1: sent until acknowledged; may arrive more than once.
    AtLeastOnce,
    /// QoS 2: arrives exactly once.
    ExactlyOnce,
}

impl QoS {
    /// The two bits of the wire.
    pub const fn bits(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// From the two bits of the wire; `None` for 3 and above.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}
