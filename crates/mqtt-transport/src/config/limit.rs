//! A duration that can be switched off, and its text form.

use std::{fmt, num::ParseIntError, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A bound on time that can be switched off.
///
/// Its text form is `never`, or whole numbers with units from the largest to the smallest: `30m`,
/// `250ms`, `1h30m`. The units are `d`, `h`, `m`, `s`, `ms`, `us` and `ns`. What
/// [`Display`](fmt::Display) writes, [`FromStr`] reads back as the same value.
///
/// ```
/// use std::time::Duration;
/// use mqtt_transport::Limit;
///
/// assert_eq!("1h30m".parse(), Ok(Limit::After(Duration::from_secs(5_400))));
/// assert_eq!(Limit::After(Duration::from_secs(90)).to_string(), "1m30s");
/// assert_eq!("never".parse(), Ok(Limit::Never));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a limit is there or it is not, and callers should be able to match on that"
)]
pub enum Limit {
    /// The limit is off.
    Never,
    /// The limit is reached after this time.
    After(Duration),
}

/// The units of the text form, from the largest, with their length in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Limit {
    /// The time after which the limit is reached, or `None` if it is off.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(after) => Some(after),
        }
    }
}

impl From<Duration> for Limit {
    fn from(after: Duration) -> Self {
        Self::After(after)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = match self {
            Self::Never => return f.write_str("never"),
            Self::After(Duration::ZERO) => return f.write_str("0s"),
            Self::After(after) => after.as_nanos(),
        };
        for (unit, length) in UNITS {
            if rest >= length {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

impl FromStr for Limit {
    type Err = ParseLimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let refuse = |problem| ParseLimitError {
            text: text.to_owned(),
            problem,
        };
        let mut total: u128 = 0;
        let mut units = UNITS.iter();
        let mut rest = text;
        loop {
            let (number, after) = split(rest, |c| c.is_ascii_digit());
            let (unit, after) = split(after, |c| c.is_ascii_alphabetic());
            let number: u128 = number
                .parse()
                .map_err(|_: ParseIntError| refuse("a whole number must come before each unit"))?;
            // The iterator only moves on, so that a unit that repeats or comes late is not found.
            let (_, length) = units.find(|(name, _)| *name == unit).ok_or_else(|| {
                refuse("the units are d, h, m, s, ms, us, ns, each once and the largest first")
            })?;
            total = number
                .checked_mul(*length)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(|| refuse("the time is too long"))?;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        duration_from_nanos(total)
            .map(Self::After)
            .ok_or_else(|| refuse("the time is too long"))
    }
}

/// Splits off the longest start of `text` whose characters are all `wanted`.
fn split(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !wanted(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn duration_from_nanos(nanos: u128) -> Option<Duration> {
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    let nanos = u32::try_from(nanos % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, nanos))
}

/// A text that is not a [`Limit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseLimitError {
    text: String,
    problem: &'static str,
}

impl fmt::Display for ParseLimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, problem } = self;
        write!(
            f,
            "{text:?} is neither \"never\" nor a time like \"1h30m\": {problem}"
        )
    }
}

impl std::error::Error for ParseLimitError {}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_string(Text)
    }
}

/// Unlike a `String` it says what to write in the place of a bare number.
struct Text;

impl de::Visitor<'_> for Text {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text of a time with its unit, like \"30s\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
        text.parse().map_err(E::custom)
    }
}
