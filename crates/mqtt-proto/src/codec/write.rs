//! Writing fields into the caller's buffer.

use bytes::BufMut;

use crate::EncodeError;

/// The most a remaining length can say.
pub(crate) const MAX_REMAINING_LENGTH: usize = 268_435_455;

/// How many bytes `value` takes as a variable byte integer; `value` is at most 268,435,455.
pub(crate) fn variable_byte_integer_len(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

pub(crate) fn variable_byte_integer(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7F).expect("seven bits fit a byte");
        value >>= 7;
        if value == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

/// A string or binary field; its type has made sure that its length fits.
pub(crate) fn prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).expect("field types hold at most 65,535 bytes"));
    out.put_slice(bytes);
}

/// Writes `body` behind its own length: a packet behind its remaining length, properties behind
/// theirs. Most bodies are short, so one byte is set aside and the body moved if it needs more.
pub(crate) fn with_length(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>),
) -> Result<(), EncodeError> {
    let at = out.len();
    out.put_u8(0);
    body(out);
    let len = out.len() - at - 1;
    if len > MAX_REMAINING_LENGTH {
        out.truncate(at);
        return Err(EncodeError::TooLarge { size: len });
    }
    let mut prefix = Vec::new();
    if len < 128 {
        if let (Some(slot), Ok(len)) = (out.get_mut(at), u8::try_from(len)) {
            *slot = len;
        }
    } else {
        variable_byte_integer(&mut prefix, len);
        out.splice(at..=at, prefix);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT5-1.5.5-1]
    #[test]
    fn lengths_take_the_shortest_form() {
        for (len, bytes) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (2_097_151, 3),
            (2_097_152, 4),
        ] {
            let mut out = Vec::new();
            variable_byte_integer(&mut out, len);
            assert_eq!(
                (out.len(), variable_byte_integer_len(len)),
                (bytes, bytes),
                "{len}"
            );

            let mut out = vec![0xAA];
            with_length(&mut out, |out| out.resize(out.len() + len, 0x55)).unwrap();
            assert_eq!(
                super::super::read::variable_byte_integer(&out[1..]),
                Ok(Some((u32::try_from(len).unwrap(), bytes)))
            );
            assert_eq!(out.len(), 1 + bytes + len);
        }
    }
}
