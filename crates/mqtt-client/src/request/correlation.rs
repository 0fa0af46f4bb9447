//! Correlation data: the number of a request and a proof that this requester has given it.
//!
//! The proof is the number under a keyed hash, so that nobody who has seen some can make up others,
//! and a reply that comes late is told from one to a request that never was.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use mqtt_proto::BinaryData;

/// Whose replies are meant. The standard library seeds it from the system's randomness, and its hash,
/// SipHash, is made to be unpredictable without the key.
#[derive(Debug, Default)]
pub(super) struct Correlation(RandomState);

impl Correlation {
    /// The correlation data of the request of this number.
    pub(super) fn data(&self, number: u64) -> BinaryData {
        let data = [number.to_be_bytes(), self.proof(number)].concat();
        BinaryData::new(Bytes::from(data)).expect("sixteen bytes fit into a field")
    }

    /// The number of the request that this requester has given this correlation data.
    pub(super) fn number(&self, data: &[u8]) -> Option<u64> {
        let (number, proof) = data.split_first_chunk::<8>()?;
        let number = u64::from_be_bytes(*number);
        let proof = <[u8; 8]>::try_from(proof).ok()?;
        // As numbers, in a time that does not depend on where they differ.
        (u64::from_be_bytes(proof) == u64::from_be_bytes(self.proof(number))).then_some(number)
    }

    fn proof(&self, number: u64) -> [u8; 8] {
        self.0.hash_one(number).to_be_bytes()
    }
}

/// 128 bits that nobody can guess, as 32 characters that a topic level takes anywhere.
pub(super) fn unguessable() -> String {
    let key = RandomState::new();
    format!("{:016x}{:016x}", key.hash_one(0), key.hash_one(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_known_again() {
        let (ours, theirs) = (Correlation::default(), Correlation::default());
        let data = ours.data(7);
        assert_eq!(ours.number(&data), Some(7));
        assert_eq!(theirs.number(&data), None);
        for wrong in [&data[..15], &data[..8], b"", &[&data[..], b"x"].concat()] {
            assert_eq!(ours.number(wrong), None, "{wrong:?}");
        }
        for at in 0..16 {
            let mut wrong = data.to_vec();
            wrong[at] ^= 1;
            assert_eq!(ours.number(&wrong), None, "byte {at}");
        }
    }

    #[test]
    fn topics_of_two_requesters_differ() {
        let (one, other) = (unguessable(), unguessable());
        assert!(one != other && one.len() == 32, "{one} {other}");
    }
}
