//! Small damage to a packet's body, with its remaining length put right again, so that the damage
//! reaches the decoder of the packet and not only that of the fixed header.

use proptest::{collection::vec, prelude::*};

/// One edit, at a place taken modulo the length of what it edits.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    /// Put another value there.
    Set(usize, u8),
    /// Flip one bit there.
    Flip(usize, u8),
    /// Add a byte there.
    Insert(usize, u8),
    /// Take the byte there out.
    Remove(usize),
    /// Cut the rest off.
    Truncate(usize),
    /// Repeat some bytes from there.
    Repeat(usize, usize),
}

/// Values that mean something in most places: bounds, flags, property identifiers, wildcards.
fn byte() -> impl Strategy<Value = u8> {
    const TELLING: &[u8] = &[
        0x00, 0x01, 0x02, 0x03, 0x04, 0x08, 0x0B, 0x11, 0x12, 0x15, 0x1F, 0x21, 0x23, 0x24, 0x26,
        0x27, 0x2A, 0x2B, 0x7F, 0x80, 0x87, 0xC0, 0xED, 0xFF,
    ];
    prop_oneof![proptest::sample::select(TELLING), any::<u8>()]
}

/// One to three edits.
pub(crate) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    // Most fields lie near the start of the body.
    let at = || prop_oneof![3 => 0..24_usize, 1 => any::<usize>()];
    vec(
        prop_oneof![
            3 => (at(), byte()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
            2 => (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
            1 => (at(), byte()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
            1 => at().prop_map(Mutation::Remove),
            1 => at().prop_map(Mutation::Truncate),
            1 => (at(), 1..8_usize).prop_map(|(at, len)| Mutation::Repeat(at, len)),
        ],
        1..4,
    )
}

impl Mutation {
    fn apply(&self, body: &mut Vec<u8>) {
        let len = body.len();
        match *self {
            Self::Insert(at, byte) => body.insert(at % (len + 1), byte),
            _ if len == 0 => {}
            Self::Set(at, byte) => body[at % len] = byte,
            Self::Flip(at, bit) => body[at % len] ^= 1 << bit,
            Self::Remove(at) => {
                body.remove(at % len);
            }
            Self::Truncate(at) => body.truncate(at % len),
            Self::Repeat(at, count) => {
                let at = at % len;
                let part = body[at..len.min(at + count)].to_vec();
                body.splice(at..at, part);
            }
        }
    }

    /// `packet` with all the edits applied to its body.
    pub(crate) fn apply_all(mutations: &[Self], packet: &[u8]) -> Vec<u8> {
        let header = 1 + packet[1..].iter().take_while(|&&b| b & 0x80 != 0).count() + 1;
        let mut body = packet[header..].to_vec();
        for mutation in mutations {
            mutation.apply(&mut body);
        }
        framed(packet[0], &body)
    }
}

/// `body` behind a fixed header.
pub(crate) fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    loop {
        let low = u8::try_from(len % 128).unwrap();
        len /= 128;
        if len == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    out.extend_from_slice(body);
    out
}
