//! Length-prefixed strings and binary data.
//!
//! The types hold what the wire can carry, so encoding them cannot fail.

use std::{fmt, ops::Deref};

use bytes::Bytes;
use bytestring::ByteString;
use thiserror::Error;

/// The most bytes a string or binary field can hold: its length has two bytes.
pub(crate) const MAX_LEN: usize = 65_535;

/// Why a text cannot be an MQTT string or binary field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TextError {
    /// It is longer than the 65,535 bytes its length field can say.
    #[error("{len} bytes are more than the 65535 a field can hold")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It holds U+0000 `[MQTT5-1.5.4-2]` `[MQTT3-1.5.3-2]`.
    #[error("it holds U+0000")]
    Nul,
    /// It is not UTF-8 `[MQTT5-1.5.4-1]` `[MQTT3-1.5.3-1]`.
    #[error("it is not UTF-8")]
    NotUtf8,
}

/// A *UTF-8 Encoded String* of the specification: at most 65,535 bytes, without U+0000.
///
/// Cloning is cheap: it shares its bytes, on receipt those of the read buffer. Control characters
/// other than U+0000 and non-characters are let through, as the specification permits.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utf8String(ByteString);

impl Utf8String {
    /// An empty string.
    pub const EMPTY: Self = Self(ByteString::from_static(""));

    /// Checks length and characters.
    pub fn new(text: impl Into<ByteString>) -> Result<Self, TextError> {
        let text = text.into();
        check_len(text.len())?;
        if text.as_bytes().contains(&0) {
            return Err(TextError::Nul);
        }
        Ok(Self(text))
    }

    /// Takes bytes from the wire, whose length is bounded by their field.
    pub(crate) fn from_wire(bytes: Bytes) -> Result<Self, TextError> {
        if bytes.contains(&0) {
            return Err(TextError::Nul);
        }
        ByteString::try_from(bytes)
            .map(Self)
            .map_err(|_| TextError::NotUtf8)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Utf8String {
    /// The text as a shared string.
    pub fn into_inner(self) -> ByteString {
        self.0
    }
}

impl Deref for Utf8String {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Utf8String {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Utf8String {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl TryFrom<&str> for Utf8String {
    type Error = TextError;

    fn try_from(text: &str) -> Result<Self, TextError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Utf8String {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        Self::new(text)
    }
}

/// Lets a signature take `impl TryInto<Utf8String, Error: Into<TextError>>` and be given one.
impl From<std::convert::Infallible> for TextError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl PartialEq<str> for Utf8String {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Utf8String {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

/// *Binary Data* of the specification: at most 65,535 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BinaryData(Bytes);

impl BinaryData {
    /// Checks the length.
    pub fn new(data: impl Into<Bytes>) -> Result<Self, TextError> {
        let data = data.into();
        check_len(data.len())?;
        Ok(Self(data))
    }

    /// Takes bytes from the wire, whose length is bounded by their field.
    pub(crate) fn from_wire(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for BinaryData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Binary data that is never printed: a password or authentication data.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(BinaryData);

impl Secret {
    /// Checks the length.
    pub fn new(data: impl Into<Bytes>) -> Result<Self, TextError> {
        BinaryData::new(data).map(Self)
    }

    pub(crate) fn from_wire(bytes: Bytes) -> Self {
        Self(BinaryData::from_wire(bytes))
    }

    /// The secret bytes, for whoever must send or compare them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

fn check_len(len: usize) -> Result<(), TextError> {
    if len > MAX_LEN {
        Err(TextError::TooLong { len })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT3-1.5.3-1] [MQTT3-1.5.3-2] [MQTT5-1.5.4-1] [MQTT5-1.5.4-2]
    #[test]
    fn refuses_what_the_wire_cannot_carry() {
        assert_eq!(Utf8String::new("a\0b"), Err(TextError::Nul));
        assert_eq!(
            Utf8String::new("x".repeat(65_536)),
            Err(TextError::TooLong { len: 65_536 })
        );
        assert!(Utf8String::new("x".repeat(65_535)).is_ok());
        for bytes in [&[0xC0, 0xAF][..], &[0xED, 0xA0, 0x80], &[0xE2, 0x82]] {
            assert_eq!(
                Utf8String::from_wire(Bytes::copy_from_slice(bytes)),
                Err(TextError::NotUtf8)
            );
        }
    }

    /// [MQTT3-1.5.3-3] [MQTT5-1.5.4-3]
    #[test]
    fn keeps_a_byte_order_mark() {
        let text = Utf8String::from_wire(Bytes::from_static(b"\xEF\xBB\xBFa")).unwrap();
        assert_eq!(text, "\u{FEFF}a");
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(
            format!("{:?}", Secret::new("hunter2").unwrap()),
            "[redacted]"
        );
    }
}
