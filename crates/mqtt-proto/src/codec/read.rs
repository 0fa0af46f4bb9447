//! Reading fields out of a received packet, without copying.

use bytes::Bytes;

use crate::{BinaryData, Malformed, PacketId, Secret, TopicFilter, TopicName, Utf8String};

/// The bytes of one packet's body, or of one property section within it.
///
/// What is read is copied if it is a number; strings and data are slices of the same [`Bytes`].
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// The bytes from `at` to `end`, or to the end of `bytes` if that is nearer.
    pub(crate) fn new(bytes: &'a Bytes, at: usize, end: usize) -> Self {
        let end = end.min(bytes.len());
        Self {
            bytes,
            at: at.min(end),
            end,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let rest = self.bytes.get(self.at..self.end).unwrap_or_default();
        let array = rest.first_chunk().ok_or(Malformed::Truncated)?;
        self.at += N;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn variable_byte_integer(&mut self) -> Result<u32, Malformed> {
        let rest = self.bytes.get(self.at..self.end).unwrap_or_default();
        let (value, len) = variable_byte_integer(rest)?.ok_or(Malformed::Truncated)?;
        self.at += len;
        Ok(value)
    }

    /// Where the next `len` bytes begin; they are passed over.
    fn skip(&mut self, len: usize) -> Result<usize, Malformed> {
        if len > self.end - self.at {
            return Err(Malformed::Truncated);
        }
        let at = self.at;
        self.at += len;
        Ok(at)
    }

    /// The next `len` bytes, to be read by themselves.
    pub(crate) fn section(&mut self, len: usize) -> Result<Self, Malformed> {
        let at = self.skip(len)?;
        Ok(Self {
            bytes: self.bytes,
            at,
            end: at + len,
        })
    }

    /// All that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.bytes.slice(self.at..self.end)
    }

    fn prefixed(&mut self) -> Result<Bytes, Malformed> {
        let len = self.u16()?.into();
        let at = self.skip(len)?;
        Ok(self.bytes.slice(at..at + len))
    }

    pub(crate) fn text(&mut self) -> Result<Utf8String, Malformed> {
        Utf8String::from_wire(self.prefixed()?).map_err(Malformed::Text)
    }

    pub(crate) fn binary(&mut self) -> Result<BinaryData, Malformed> {
        Ok(BinaryData::from_wire(self.prefixed()?))
    }

    pub(crate) fn secret(&mut self) -> Result<Secret, Malformed> {
        Ok(Secret::from_wire(self.prefixed()?))
    }

    /// A topic name that may be empty, as in an aliased PUBLISH.
    pub(crate) fn topic_name(&mut self) -> Result<TopicName, Malformed> {
        TopicName::from_wire(self.prefixed()?).map_err(Malformed::TopicName)
    }

    pub(crate) fn topic_filter(&mut self) -> Result<TopicFilter, Malformed> {
        let text = Utf8String::from_wire(self.prefixed()?)
            .map_err(|error| Malformed::TopicFilter(error.into()))?;
        TopicFilter::new(text.into_inner()).map_err(Malformed::TopicFilter)
    }

    pub(crate) fn packet_id(&mut self) -> Result<PacketId, Malformed> {
        PacketId::new(self.u16()?).ok_or(Malformed::ZeroPacketId)
    }

    /// That nothing is left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Malformed::TrailingBytes)
        }
    }
}

/// The integer at the start of `bytes` and the bytes it takes; `None` if more bytes are needed.
///
/// Longer than needed is malformed `[MQTT5-1.5.5-1]`.
pub(crate) fn variable_byte_integer(bytes: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(Malformed::VariableByteInteger);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(Malformed::VariableByteInteger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT5-1.5.5-1]
    #[test]
    fn variable_byte_integers() {
        #[track_caller]
        fn check(bytes: &[u8], expected: Result<Option<(u32, usize)>, Malformed>) {
            assert_eq!(variable_byte_integer(bytes), expected, "{bytes:02X?}");
        }
        check(&[], Ok(None));
        check(&[0x00], Ok(Some((0, 1))));
        check(&[0x7F, 0xFF], Ok(Some((127, 1))));
        check(&[0x80], Ok(None));
        check(&[0x80, 0x01], Ok(Some((128, 2))));
        check(&[0xFF, 0x7F], Ok(Some((16_383, 2))));
        check(&[0x80, 0x80, 0x01], Ok(Some((16_384, 3))));
        check(&[0xFF, 0xFF, 0xFF, 0x7F], Ok(Some((268_435_455, 4))));
        check(&[0xFF, 0xFF, 0xFF], Ok(None));
        check(
            &[0xFF, 0xFF, 0xFF, 0xFF],
            Err(Malformed::VariableByteInteger),
        );
        check(&[0x80, 0x00], Err(Malformed::VariableByteInteger));
        check(&[0x80, 0x80, 0x00], Err(Malformed::VariableByteInteger));
    }
}
