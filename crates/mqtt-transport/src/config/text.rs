//! Durations as text in configuration files: `#[serde(with = "crate::config::text")]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Limit;

pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    Limit::After(*time).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    Limit::deserialize(deserializer)?
        .duration()
        .ok_or_else(|| de::Error::custom("a time like \"30s\" is needed here, not \"never\""))
}
