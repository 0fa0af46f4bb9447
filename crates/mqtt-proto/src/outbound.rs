//! Bytes on their way to the socket.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

use crate::{EncodeError, Message, PacketId, UsageError, Version, packet::TopicAlias};

/// Payloads from this size on are sent from where they lie; smaller ones are cheaper to copy.
const CHAIN_FROM: usize = 16 * 1024;

/// Encoded packets waiting to be written: one buffer, in which small payloads are copied, and
/// large payloads chained in by reference.
///
/// Write it as the [`Buf`] it is, vectored where the stream can.
#[derive(Debug, Default)]
pub struct Outbound {
    bytes: Vec<u8>,
    /// How much of `bytes` was written.
    written: usize,
    /// Boxed, since it is rare and the rest is moved about a lot.
    chain: Option<Box<Chain>>,
}

/// Payloads that were not copied; never empty.
#[derive(Debug, Default)]
struct Chain {
    /// Each with the place in `bytes` before which it goes.
    payloads: VecDeque<(usize, Bytes)>,
    len: usize,
}

impl Outbound {
    /// Appends a packet of at most `max` bytes that `encode` writes. On error nothing was appended.
    pub(crate) fn packet(
        &mut self,
        max: u32,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<(), UsageError> {
        let start = self.bytes.len();
        encode(&mut self.bytes)?;
        let size = self.bytes.len() - start;
        if !u32::try_from(size).is_ok_and(|size| size <= max) {
            self.bytes.truncate(start);
            return Err(UsageError::PacketTooLarge { size, max });
        }
        Ok(())
    }

    /// Appends a PUBLISH of at most `max` bytes. On error nothing was appended.
    pub(crate) fn publish(
        &mut self,
        message: &Message,
        packet_id: Option<PacketId>,
        dup: bool,
        version: Version,
        max: u32,
    ) -> Result<(), UsageError> {
        self.message(message, max, |out| {
            message.encode_head(packet_id, dup, version, out)
        })
    }

    /// The same in 5.0 with a topic alias, for a first PUBLISH.
    pub(crate) fn publish_aliased(
        &mut self,
        message: &Message,
        packet_id: Option<PacketId>,
        alias: TopicAlias,
        max: u32,
    ) -> Result<(), UsageError> {
        self.message(message, max, |out| {
            message.encode_aliased_head(packet_id, alias, out)
        })
    }

    /// Appends what `encode_head` writes, and behind it the payload.
    fn message(
        &mut self,
        message: &Message,
        max: u32,
        encode_head: impl FnOnce(&mut Vec<u8>) -> Result<usize, EncodeError>,
    ) -> Result<(), UsageError> {
        let start = self.bytes.len();
        let size = encode_head(&mut self.bytes)?;
        if !u32::try_from(size).is_ok_and(|size| size <= max) {
            self.bytes.truncate(start);
            return Err(UsageError::PacketTooLarge { size, max });
        }
        if message.payload.len() < CHAIN_FROM {
            self.bytes.extend_from_slice(&message.payload);
        } else {
            let chain = self.chain.get_or_insert_default();
            chain.len += message.payload.len();
            chain
                .payloads
                .push_back((self.bytes.len(), message.payload.clone()));
        }
        Ok(())
    }

    /// The bytes it can hold without allocating.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        let chained = self.chain.as_ref().map_or(0, |chain| chain.len);
        self.bytes.len() - self.written + chained
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops what waits and keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
        self.chain = None;
    }

    /// The chained payloads, in order.
    fn payloads(&self) -> impl Iterator<Item = &(usize, Bytes)> {
        self.chain.iter().flat_map(|chain| &chain.payloads)
    }

    /// The bytes of `self.bytes` that go before the next chained payload.
    fn copied(&self) -> &[u8] {
        let end = self
            .payloads()
            .next()
            .map_or(self.bytes.len(), |(at, _)| *at);
        self.bytes.get(self.written..end).unwrap_or_default()
    }
}

/// An empty one with room for `capacity` bytes, or around a buffer that is no longer needed.
impl From<Vec<u8>> for Outbound {
    fn from(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self {
            bytes,
            ..Self::default()
        }
    }
}

impl From<Outbound> for Vec<u8> {
    fn from(outbound: Outbound) -> Self {
        outbound.bytes
    }
}

impl Chain {
    /// Takes up to `n` bytes off the first payload, and says how many.
    fn advance(&mut self, n: usize) -> usize {
        let Some((_, payload)) = self.payloads.front_mut() else {
            return n;
        };
        let step = payload.len().min(n);
        payload.advance(step);
        self.len -= step;
        if payload.is_empty() {
            self.payloads.pop_front();
        }
        step
    }
}

impl Buf for Outbound {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        let copied = self.copied();
        match self.payloads().next() {
            Some((_, payload)) if copied.is_empty() => payload,
            _ => copied,
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut from = self.written;
        let mut filled = 0;
        let mut slices = slices.iter_mut();
        let mut put = |bytes: &'a [u8]| {
            if bytes.is_empty() {
                return true;
            }
            let Some(slot) = slices.next() else {
                return false;
            };
            *slot = IoSlice::new(bytes);
            filled += 1;
            true
        };
        for (at, payload) in self.payloads() {
            if !put(self.bytes.get(from..*at).unwrap_or_default()) || !put(payload) {
                return filled;
            }
            from = *at;
        }
        put(self.bytes.get(from..).unwrap_or_default());
        filled
    }

    fn advance(&mut self, mut n: usize) {
        assert!(n <= self.remaining(), "cannot advance past the end");
        while n > 0 {
            let copied = self.copied().len();
            if copied > 0 {
                let step = copied.min(n);
                self.written += step;
                n -= step;
            } else if let Some(chain) = &mut self.chain {
                n -= chain.advance(n);
                if chain.payloads.is_empty() {
                    self.chain = None;
                }
            }
        }
        if self.is_empty() {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QoS;

    #[test]
    fn large_payloads_are_chained_and_come_out_in_order() {
        let mut outbound = Outbound::default();
        let mut expected = Vec::new();
        for (index, size) in [10, CHAIN_FROM, CHAIN_FROM * 2, 0, 70, CHAIN_FROM]
            .into_iter()
            .enumerate()
        {
            let fill = u8::try_from(index).unwrap();
            let message = Message::new("t", vec![fill; size])
                .unwrap()
                .with_qos(QoS::AtMostOnce);
            outbound
                .publish(&message, None, false, Version::V5, u32::MAX)
                .unwrap();
            message
                .encode_head(None, false, Version::V5, &mut expected)
                .unwrap();
            expected.extend_from_slice(&message.payload);
        }
        assert_eq!(outbound.len(), expected.len());

        let mut vectored = Vec::new();
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = outbound.chunks_vectored(&mut slices);
        slices[..filled]
            .iter()
            .for_each(|slice| vectored.extend_from_slice(slice));
        assert_eq!(vectored, expected);

        let mut written = Vec::new();
        while outbound.has_remaining() {
            let step = outbound.chunk().len().min(7_777);
            assert!(step > 0);
            written.extend_from_slice(&outbound.chunk()[..step]);
            outbound.advance(step);
        }
        assert_eq!(written, expected);
        assert!(outbound.is_empty());
    }

    #[test]
    fn few_slices_take_what_fits() {
        let mut outbound = Outbound::default();
        let message = Message::new("t", vec![1; CHAIN_FROM]).unwrap();
        for _ in 0..4 {
            outbound
                .publish(&message, None, false, Version::V3, u32::MAX)
                .unwrap();
        }
        let mut slices = [IoSlice::new(&[]); 3];
        assert_eq!(outbound.chunks_vectored(&mut slices), 3);
    }
}
