//! Topic names and topic filters: parsed once, trusted afterwards.

use std::{fmt, ops::Deref};

use bytes::Bytes;
use bytestring::ByteString;
use thiserror::Error;

use crate::text::{MAX_LEN, TextError};

/// Why a text is not a topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TopicError {
    /// It has no characters `[MQTT5-4.7.3-1]` `[MQTT3-4.7.3-1]`.
    #[error("a topic has at least one character")]
    Empty,
    /// It is not an MQTT string.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A topic name with `+` or `#` `[MQTT5-4.7.0-1]` `[MQTT3-4.7.1-1]`.
    #[error("a topic name has no wildcard")]
    Wildcard,
    /// `#` that is not a whole level at the end `[MQTT5-4.7.1-1]` `[MQTT3-4.7.1-2]`.
    #[error("`#` stands alone or after `/`, and is the last character")]
    MultiLevel,
    /// `+` that does not fill its level `[MQTT5-4.7.1-2]` `[MQTT3-4.7.1-3]`.
    #[error("`+` fills a whole level")]
    SingleLevel,
    /// `$share/` without a name and a filter `[MQTT5-4.8.2-1]` `[MQTT5-4.8.2-2]`.
    #[error("a shared filter is `$share/name/filter`, its name without `/`, `+` and `#`")]
    Share,
}

/// The topic a message is published to: an MQTT string of at least one character, without wildcards.
///
/// Empty only in a received PUBLISH packet that names its topic by a topic alias.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(ByteString);

impl TopicName {
    /// Checks the name.
    pub fn new(name: impl Into<ByteString>) -> Result<Self, TopicError> {
        let name = name.into();
        if name.is_empty() {
            return Err(TopicError::Empty);
        }
        if name.len() > MAX_LEN {
            return Err(TextError::TooLong { len: name.len() }.into());
        }
        check_name(name.as_bytes())?;
        Ok(Self(name))
    }

    /// Takes a non-empty name from the wire, whose length is bounded by its field.
    pub(crate) fn from_wire(bytes: Bytes) -> Result<Self, TopicError> {
        check_name(&bytes)?;
        ByteString::try_from(bytes)
            .map(Self)
            .map_err(|_| TextError::NotUtf8.into())
    }

    /// The same in memory of its own.
    pub(crate) fn copied(&self) -> Self {
        Self(ByteString::from(self.as_str()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One pass over the bytes, without branches, since every message pays for it.
fn check_name(bytes: &[u8]) -> Result<(), TopicError> {
    if !bytes
        .iter()
        .fold(false, |found, &b| found | matches!(b, 0 | b'+' | b'#'))
    {
        return Ok(());
    }
    Err(if bytes.contains(&0) {
        TextError::Nul.into()
    } else {
        TopicError::Wildcard
    })
}

/// A pattern of topics to subscribe to: levels, `+` for one level, a final `#` for all below.
///
/// A filter of the form `$share/name/filter` is a shared subscription.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(ByteString);

impl TopicFilter {
    /// Checks the filter.
    pub fn new(filter: impl Into<ByteString>) -> Result<Self, TopicError> {
        let filter = filter.into();
        if filter.is_empty() {
            return Err(TopicError::Empty);
        }
        if filter.len() > MAX_LEN {
            return Err(TextError::TooLong { len: filter.len() }.into());
        }
        if filter.as_bytes().contains(&0) {
            return Err(TextError::Nul.into());
        }
        let levels = match filter.strip_prefix("$share/") {
            Some(rest) => {
                let (name, levels) = rest.split_once('/').ok_or(TopicError::Share)?;
                if name.is_empty() || levels.is_empty() || name.contains(['+', '#']) {
                    return Err(TopicError::Share);
                }
                levels
            }
            None if *filter == *"$share" => return Err(TopicError::Share),
            None => &filter,
        };
        check_levels(levels)?;
        Ok(Self(filter))
    }

    /// The whole filter, as subscribed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the group of a shared subscription `[MQTT5-4.8.2-1]`.
    pub fn share_name(&self) -> Option<&str> {
        Some(self.0.strip_prefix("$share/")?.split_once('/')?.0)
    }

    /// The filter that topics are matched against: without the `$share/name/` of a shared one.
    pub fn levels(&self) -> &str {
        self.0
            .strip_prefix("$share/")
            .and_then(|rest| rest.split_once('/'))
            .map_or(self.as_str(), |(_, levels)| levels)
    }

    /// Whether it has a wildcard.
    pub fn has_wildcard(&self) -> bool {
        self.levels().contains(['+', '#'])
    }

    /// Whether a message to `topic` belongs to this filter. Takes time in the length of the topic.
    ///
    /// A leading wildcard does not match a topic that begins with `$` (5.0 section 4.7.2).
    pub fn matches(&self, topic: &str) -> bool {
        let filter = self.levels();
        if topic.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic.as_bytes().split(|&byte| byte == b'/');
        for level in filter.as_bytes().split(|&byte| byte == b'/') {
            if level == b"#" {
                return true;
            }
            match names.next() {
                Some(name) if level == b"+" || level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

fn check_levels(filter: &str) -> Result<(), TopicError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::MultiLevel);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevel);
        }
    }
    Ok(())
}

macro_rules! topic_text {
    ($($name:ident)*) => {$(
        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&**self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = TopicError;

            fn try_from(text: &str) -> Result<Self, TopicError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = TopicError;

            fn try_from(text: String) -> Result<Self, TopicError> {
                Self::new(text)
            }
        }

        impl From<&$name> for $name {
            fn from(topic: &$name) -> Self {
                topic.clone()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                **self == *other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                **self == **other
            }
        }
    )*};
}

topic_text!(TopicName TopicFilter);

/// Lets a signature take `impl TryInto<TopicName, Error: Into<TopicError>>` and be given a name.
impl From<std::convert::Infallible> for TopicError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT3-4.7.1-1] [MQTT3-4.7.3-1] [MQTT3-4.7.3-2] [MQTT3-4.7.3-3] [MQTT3-3.3.2-2]
    /// [MQTT5-4.7.0-1] [MQTT5-4.7.3-1] [MQTT5-4.7.3-2] [MQTT5-4.7.3-3] [MQTT5-3.3.2-2]
    #[test]
    fn names() {
        for name in ["a", "/", "a/b", "$SYS/x", "a b", "ä/ö"] {
            assert!(TopicName::new(name).is_ok(), "{name}");
        }
        assert_eq!(TopicName::new(""), Err(TopicError::Empty));
        assert_eq!(TopicName::new("a/+"), Err(TopicError::Wildcard));
        assert_eq!(TopicName::new("a/#"), Err(TopicError::Wildcard));
        assert_eq!(TopicName::new("a\0"), Err(TextError::Nul.into()));
        assert!(TopicName::new("x".repeat(65_535)).is_ok());
        assert_eq!(
            TopicName::new("x".repeat(65_536)),
            Err(TextError::TooLong { len: 65_536 }.into())
        );
    }

    /// [MQTT3-4.7.1-2] [MQTT3-4.7.1-3] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
    #[test]
    fn filters() {
        for filter in [
            "#",
            "a/#",
            "/#",
            "+",
            "+/a",
            "a/+",
            "a/+/b",
            "/+",
            "+/+/#",
            "$share/g/a/#",
            "$share/g/+",
        ] {
            assert!(TopicFilter::new(filter).is_ok(), "{filter}");
        }
        let refused = [
            ("", TopicError::Empty),
            ("a#", TopicError::MultiLevel),
            ("a/#/b", TopicError::MultiLevel),
            ("#/a", TopicError::MultiLevel),
            ("a/b#", TopicError::MultiLevel),
            ("a+", TopicError::SingleLevel),
            ("+a", TopicError::SingleLevel),
            ("a/+b", TopicError::SingleLevel),
            ("$share", TopicError::Share),
            ("$share/", TopicError::Share),
            ("$share/a", TopicError::Share),
            ("$share/a/", TopicError::Share),
            ("$share//a", TopicError::Share),
            ("$share/+/b", TopicError::Share),
            ("$share/a#/b", TopicError::Share),
            ("$share/g/a#", TopicError::MultiLevel),
        ];
        for (filter, error) in refused {
            assert_eq!(TopicFilter::new(filter), Err(error), "{filter}");
        }
    }

    #[test]
    fn matching() {
        #[track_caller]
        fn check(filter: &str, topic: &str, expected: bool) {
            assert_eq!(
                TopicFilter::new(filter).unwrap().matches(topic),
                expected,
                "{filter} {topic}"
            );
        }
        check("a/b", "a/b", true);
        check("a/b", "a/c", false);
        check("a/b", "a/b/c", false);
        check("a/b/c", "a/b", false);
        check("a/#", "a", true);
        check("a/#", "a/b/c", true);
        check("a/#", "ab", false);
        check("#", "a/b", true);
        check("+", "a", true);
        check("+", "/a", false);
        check("+/+", "/a", true);
        check("/+", "/a", true);
        check("a/+/c", "a/b/c", true);
        check("a/+/c", "a//c", true);
        check("a/+", "a", false);
        check("#", "$SYS/x", false);
        check("+/x", "$SYS/x", false);
        check("$SYS/#", "$SYS/x", true);
        check("$share/g/a/+", "a/b", true);
        check("$share/g/a/+", "$share/g/a/b", false);
    }

    #[test]
    fn a_topic_of_65535_slashes_is_matched_without_recursion() {
        let topic = "/".repeat(65_535);
        assert!(TopicFilter::new("#").unwrap().matches(&topic));
        assert!(TopicFilter::new(topic.clone()).unwrap().matches(&topic));
    }
}
