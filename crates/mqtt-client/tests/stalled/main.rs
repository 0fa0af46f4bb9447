//! A server that stops reading and answering for half a minute under producers: what is held stays within
//! its bounds, every deadline is kept, and afterwards everything is accounted for without intervention.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes fails the test"
)]

#[path = "../common/mod.rs"]
mod common;

mod deadlines;
mod giving_up;
mod holding;
mod mosquitto;

use std::time::Duration;

use mqtt_client::{Publish, QoS};

const SECOND: Duration = Duration::from_secs(1);

const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// The `number`th message of a producer, each at another QoS than the one before.
fn numbered(topic: &str, number: usize) -> Publish {
    Publish::new(topic.to_owned(), number.to_string())
        .unwrap()
        .with_qos(LEVELS[number % LEVELS.len()])
}
