//! Reading fields out of a received packet, without copying.

use bytes::{Buf, Bytes};

use crate::{BinaryData, Malformed, PacketId, Secret, TopicFilter, TopicName, Utf8String};

/// The bytes of one packet's body, or of one property section within it.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.bytes.try_get_u8().map_err(|_| Malformed::Truncated)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.bytes.try_get_u16().map_err(|_| Malformed::Truncated)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes.try_get_u32().map_err(|_| Malformed::Truncated)
    }

    pub(crate) fn variable_byte_integer(&mut self) -> Result<u32, Malformed> {
        let (value, len) = variable_byte_integer(&self.bytes)?.ok_or(Malformed::Truncated)?;
        self.bytes.advance(len);
        Ok(value)
    }

    /// The next `len` bytes, shared with the receive buffer.
    pub(crate) fn take(&mut self, len: usize) -> Result<Bytes, Malformed> {
        if len > self.bytes.len() {
            return Err(Malformed::Truncated);
        }
        Ok(self.bytes.split_to(len))
    }

    /// All that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.bytes
    }

    fn prefixed(&mut self) -> Result<Bytes, Malformed> {
        let len = self.u16()?;
        self.take(len.into())
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
        if self.bytes.is_empty() {
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
