//! What a server says to a SUBSCRIBE or UNSUBSCRIBE it does not refuse.

use mqtt_proto::{
    ReasonCode,
    packet::{AckProperties, Properties},
};

/// The SUBACK that granted a [`Subscription`](crate::Subscription), or the UNSUBACK that ended it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// One for each filter, in order: of a SUBACK the QoS that was granted, which may be lower than the
    /// one that was asked for `[MQTT5-3.9.3-1]` `[MQTT3-3.9.3-1]`. A 3.1.1 UNSUBACK says success of all.
    pub reason_codes: Vec<ReasonCode>,
    /// 5.0 only.
    pub properties: Properties<AckProperties>,
}
