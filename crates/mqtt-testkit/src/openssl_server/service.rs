//! What a server does with a connection after the handshake.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use mqtt_proto::codec::MAX_PACKET_SIZE;
use mqtt_proto::packet::{Ack, ConnAck, Packet, SubAck, UnsubAck};
use mqtt_proto::{Decoder, QoS, ReasonCode, Version};

/// Bytes read at once: as many as TLS has in a record.
const PIECE: usize = 16 * 1024;

/// What is sent for nothing but its length, as many at once.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// What happens after the handshake, until the client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Service {
    /// Sends back what comes.
    Echo,
    /// Answers MQTT of either version as a server would that wants nothing itself: acknowledges
    /// whatever asks for it, and delivers nothing.
    Mqtt,
    /// Takes so many bytes, then sends so many, again and again: `receive: 1` measures how fast it
    /// sends, `send: 1` how fast it takes. With `receive: 0` it sends once, and takes the rest.
    Exchange {
        /// Bytes to take.
        receive: u64,
        /// Bytes to send, each of them zero.
        send: u64,
    },
}

/// Serves one connection and returns when it ends; how it ended tells nothing.
pub(super) fn run(
    service: Service,
    stream: &mut (impl Read + Write),
    received: &AtomicU64,
) -> io::Result<()> {
    let mut input = Input {
        piece: vec![0; PIECE],
        received,
    };
    match service {
        Service::Echo => loop {
            let bytes = input.read(stream, PIECE)?;
            stream.write_all(bytes)?;
        },
        Service::Mqtt => mqtt(stream, &mut input),
        Service::Exchange { receive, send } => loop {
            let mut missing = receive;
            while missing > 0 {
                let most = usize::try_from(missing).unwrap_or(usize::MAX);
                let read = input.read(stream, most)?.len();
                missing -= u64::try_from(read).unwrap_or(missing);
            }
            let mut unsent = send;
            while unsent > 0 {
                let most = usize::try_from(unsent).unwrap_or(usize::MAX);
                let zeroes = ZEROES.get(..most).unwrap_or(&ZEROES);
                stream.write_all(zeroes)?;
                unsent -= u64::try_from(zeroes.len()).unwrap_or(unsent);
            }
            if receive == 0 {
                loop {
                    input.read(stream, PIECE)?;
                }
            }
        },
    }
}

struct Input<'a> {
    piece: Vec<u8>,
    received: &'a AtomicU64,
}

impl Input<'_> {
    /// Some bytes, `most` at most; an error at the end.
    fn read(&mut self, stream: &mut impl Read, most: usize) -> io::Result<&[u8]> {
        let most = most.min(self.piece.len());
        let piece = self.piece.get_mut(..most).unwrap_or_default();
        let read = stream.read(piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let count = u64::try_from(read).unwrap_or_default();
        self.received.fetch_add(count, Ordering::Relaxed);
        Ok(self.piece.get(..read).unwrap_or_default())
    }
}

fn mqtt(stream: &mut (impl Read + Write), input: &mut Input<'_>) -> io::Result<()> {
    let mut decoder = Decoder::new(Version::V5, MAX_PACKET_SIZE);
    let mut version = Version::V5;
    loop {
        let mut bytes = BytesMut::from(input.read(stream, PIECE)?).freeze();
        let mut output = Vec::new();
        while !bytes.is_empty()
            && let Some(packet) = decoder.decode(&mut bytes).map_err(io::Error::other)?
        {
            if let Packet::Connect(connect) = &packet {
                version = connect.version;
            }
            if let Packet::Disconnect(_) = packet {
                return Ok(());
            }
            if let Some(answer) = answer(packet) {
                let encoded = answer.encode(version, &mut output);
                encoded.map_err(io::Error::other)?;
            }
        }
        stream.write_all(&output)?;
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "nothing else has an answer")]
fn answer(packet: Packet) -> Option<Packet> {
    Some(match packet {
        Packet::Connect(_) => Packet::ConnAck(ConnAck::accepted()),
        Packet::PingReq => Packet::PingResp,
        Packet::Publish(publish) => {
            let ack = Ack::new(publish.packet_id?);
            match publish.message.qos {
                QoS::ExactlyOnce => Packet::PubRec(ack),
                _ => Packet::PubAck(ack),
            }
        }
        Packet::PubRel(ack) => Packet::PubComp(Ack::new(ack.packet_id)),
        Packet::Subscribe(subscribe) => Packet::SubAck(SubAck {
            packet_id: subscribe.packet_id,
            reason_codes: vec![ReasonCode::SUCCESS; subscribe.filters.len()],
            properties: Default::default(),
        }),
        Packet::Unsubscribe(unsubscribe) => Packet::UnsubAck(UnsubAck {
            packet_id: unsubscribe.packet_id,
            reason_codes: vec![ReasonCode::SUCCESS; unsubscribe.filters.len()],
            properties: Default::default(),
        }),
        _ => return None,
    })
}
