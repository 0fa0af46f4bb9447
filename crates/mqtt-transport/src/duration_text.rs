//! Durations as text in configuration structs, for `#[serde(with)]`.
//!
//! The text is that of a [`Limit`] without `never`. A bare number is refused, since
//! it does not say its unit.
//!
//! ```
//! use std::time::Duration;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Options {
//!     #[serde(with = "mqtt_transport::duration_text")]
//!     timeout: Duration,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options: Options = toml::from_str(r#"timeout = "1m30s""#)?;
//! assert_eq!(options.timeout, Duration::from_secs(90));
//! assert_eq!(toml::to_string(&options)?, "timeout = \"1m30s\"\n");
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Limit;

/// Writes `time` as text.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    Limit::After(*time).serialize(serializer)
}

/// Reads a time from text.
///
/// # Errors
///
/// What is not a text, or not that of a time.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Limit::deserialize(deserializer)?
        .duration()
        .ok_or_else(|| de::Error::custom("a time like \"30s\" is needed here, not \"never\""))
}
