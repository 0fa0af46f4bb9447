//! Bytes to packets. The other way is [`Packet::encode`](crate::packet::Packet::encode).

use bytes::{Buf, Bytes, BytesMut};

pub(crate) mod read;
pub(crate) mod write;

use crate::{
    DecodeError, Malformed, MalformedPacket, Version,
    packet::{Packet, PacketType},
};

/// The most user properties, or subscription identifiers, taken in one packet.
///
/// A property of five bytes on the wire takes seventy in memory, so the packet size alone would
/// not bound what a packet costs.
pub const MAX_USER_PROPERTIES: usize = 1_000;

/// The largest packet the wire can carry, in bytes: header and 268,435,455 of body.
pub const MAX_PACKET_SIZE: u32 = 268_435_460;

/// From this many missing bytes on, [`Decoder::large_packet`] offers to read them into place.
const READ_IN_PLACE: usize = 16 * 1024;

/// The start of a packet: its type, its flags and how long it is.
#[derive(Clone, Copy, Debug)]
struct FixedHeader {
    packet_type: PacketType,
    flags: u8,
    header_len: usize,
    /// Header and body.
    packet_len: usize,
}

/// Takes packets out of a byte stream that comes in pieces of any size.
///
/// A packet that lies within one piece is decoded in place: its topic and payload are slices of
/// the piece. Only a packet split between pieces is put together in a buffer, which is gone when
/// the packet is complete, so an idle decoder holds none.
///
/// The fixed header is checked before any of the body is kept: a packet larger than
/// `max_packet_size` is refused on sight `[MQTT5 3.1.2.11.4]`, and what is set aside grows with
/// the bytes that came, never with the length a peer claims.
///
/// After an error the stream has no defined continuation: close the connection.
#[derive(Debug)]
pub struct Decoder {
    version: Version,
    max_packet_size: u32,
    partial: BytesMut,
}

impl Decoder {
    /// Packets of `version`, of at most `max_packet_size` bytes, header included.
    pub fn new(version: Version, max_packet_size: u32) -> Self {
        Self {
            version,
            max_packet_size,
            partial: BytesMut::new(),
        }
    }

    /// Takes the next packet from the front of `piece`.
    ///
    /// `None` means that `piece` was used up: go on with the next one. A CONNECT switches to the
    /// version it names.
    pub fn decode(&mut self, piece: &mut Bytes) -> Result<Option<Packet>, DecodeError> {
        if self.partial.is_empty() {
            let Some(header) = self.fixed_header(piece)? else {
                self.partial.extend_from_slice(piece);
                piece.clear();
                return Ok(None);
            };
            if header.packet_len <= piece.len() {
                let packet = self.packet(header, piece)?;
                piece.advance(header.packet_len);
                return Ok(Some(packet));
            }
            self.partial.extend_from_slice(piece);
            piece.clear();
            return Ok(None);
        }
        let header = loop {
            match self.fixed_header(&self.partial)? {
                Some(header) => break header,
                None if piece.is_empty() => return Ok(None),
                None => self.partial.extend_from_slice(&piece.split_to(1)),
            }
        };
        let missing = header.packet_len.saturating_sub(self.partial.len());
        self.partial
            .extend_from_slice(&piece.split_to(missing.min(piece.len())));
        if self.partial.len() < header.packet_len {
            return Ok(None);
        }
        let packet = std::mem::take(&mut self.partial).freeze();
        self.packet(header, &packet).map(Some)
    }

    /// Where to read the rest of a large packet that has begun, and how much is missing.
    ///
    /// Saves one copy of large payloads: read at most that many bytes onto the end of the buffer,
    /// then call [`decode`](Self::decode) with an empty piece. `None` if no such packet has begun.
    pub fn large_packet(&mut self) -> Option<(&mut BytesMut, usize)> {
        let header = self.fixed_header(&self.partial).ok()??;
        let missing = header.packet_len.checked_sub(self.partial.len())?;
        (missing >= READ_IN_PLACE).then_some((&mut self.partial, missing))
    }

    /// The fixed header at the start of `bytes`, or `None` if more bytes are needed.
    fn fixed_header(&self, bytes: &[u8]) -> Result<Option<FixedHeader>, DecodeError> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let (bits, flags) = (first >> 4, first & 0x0F);
        let Some(packet_type) = PacketType::from_bits(bits, self.version) else {
            return Err(self.malformed(Malformed::PacketType(bits), None));
        };
        if packet_type != PacketType::Publish && first != packet_type.first_byte() {
            return Err(self.malformed(Malformed::Flags(flags), Some(packet_type)));
        }
        let (remaining, len) = match read::variable_byte_integer(rest) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(kind) => return Err(self.malformed(kind, Some(packet_type))),
        };
        let header_len = 1 + len;
        let packet_len = header_len + usize::try_from(remaining).unwrap_or(usize::MAX - header_len);
        let size = u32::try_from(packet_len).unwrap_or(u32::MAX);
        if size > self.max_packet_size {
            return Err(DecodeError::TooLarge {
                packet_type,
                size,
                max: self.max_packet_size,
            });
        }
        Ok(Some(FixedHeader {
            packet_type,
            flags,
            header_len,
            packet_len,
        }))
    }

    /// The packet at the start of `bytes`.
    fn packet(&mut self, header: FixedHeader, bytes: &Bytes) -> Result<Packet, DecodeError> {
        let body = read::Reader::new(bytes, header.header_len, header.packet_len);
        let packet = Packet::decode(header.packet_type, header.flags, body, self.version)
            .map_err(|kind| self.malformed(kind, Some(header.packet_type)))?;
        if let Packet::Connect(connect) = &packet {
            self.version = connect.version;
        }
        Ok(packet)
    }

    fn malformed(&self, kind: Malformed, packet_type: Option<PacketType>) -> DecodeError {
        MalformedPacket {
            kind,
            packet_type,
            version: self.version,
        }
        .into()
    }
}
