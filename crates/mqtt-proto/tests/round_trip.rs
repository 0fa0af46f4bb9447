//! What is encoded comes back equal, however the bytes are cut; what is damaged is refused or is
//! another packet, and never a panic.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect panics"
)]

use bytes::Bytes;
use mqtt_proto::{Decoder, Version, codec::MAX_PACKET_SIZE, packet::Packet};
use proptest::{collection::vec, prelude::*};

mod common;

use common::{Mutation, VERSIONS, decode, encode, mutations, packet, publish};

fn version() -> impl Strategy<Value = Version> {
    proptest::sample::select(&VERSIONS)
}

fn any_packet() -> impl Strategy<Value = (Version, Packet)> {
    version().prop_flat_map(|version| (Just(version), packet(version)))
}

fn any_packets() -> impl Strategy<Value = (Version, Vec<Packet>)> {
    version().prop_flat_map(|version| (Just(version), vec(packet(version), 1..6)))
}

fn stream(version: Version, packets: &[Packet]) -> Bytes {
    packets
        .iter()
        .flat_map(|packet| encode(version, packet))
        .collect::<Vec<_>>()
        .into()
}

/// All packets of a stream that comes in pieces of these lengths, repeated as needed.
fn decode_pieces(version: Version, mut stream: Bytes, lengths: &[usize]) -> Vec<Packet> {
    let mut decoder = Decoder::new(version, MAX_PACKET_SIZE);
    let mut packets = Vec::new();
    for &len in lengths.iter().cycle() {
        let mut piece = stream.split_to(len.min(stream.len()));
        while let Some(packet) = decoder.decode(&mut piece).unwrap() {
            packets.push(packet);
        }
        assert!(piece.is_empty(), "a piece is used up before the next one");
        if stream.is_empty() {
            break;
        }
    }
    packets
}

/// As a driver would: reads of these lengths, the rest of a large packet read into place.
fn decode_in_place(version: Version, mut stream: Bytes, lengths: &[usize]) -> (Vec<Packet>, usize) {
    let mut decoder = Decoder::new(version, MAX_PACKET_SIZE);
    let mut packets = Vec::new();
    let mut in_place = 0;
    for &len in lengths.iter().cycle() {
        let mut piece = Bytes::new();
        if let Some((buffer, missing)) = decoder.large_packet() {
            let read = stream.split_to(len.min(missing).min(stream.len()));
            buffer.extend_from_slice(&read);
            in_place += 1;
        } else {
            piece = stream.split_to(len.min(stream.len()));
        }
        while let Some(packet) = decoder.decode(&mut piece).unwrap() {
            packets.push(packet);
        }
        if stream.is_empty() {
            break;
        }
    }
    (packets, in_place)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn an_encoded_packet_decodes_equal((version, packet) in any_packet()) {
        let bytes = encode(version, &packet);
        prop_assert_eq!(decode(version, &bytes).unwrap(), Some(packet), "{:02X?}", bytes);
    }

    #[test]
    fn encoding_appends((version, packets) in any_packets()) {
        let mut out = vec![0xAA];
        for packet in &packets {
            packet.encode(version, &mut out).unwrap();
        }
        prop_assert_eq!(out[0], 0xAA);
        prop_assert_eq!(&out[1..], &stream(version, &packets)[..]);
    }

    #[test]
    fn any_split_gives_the_same_packets(
        (version, packets) in any_packets(),
        lengths in vec(1..400_usize, 1..8),
    ) {
        let stream = stream(version, &packets);
        prop_assert_eq!(&decode_pieces(version, stream.clone(), &lengths), &packets);
        prop_assert_eq!(&decode_pieces(version, stream.clone(), &[1]), &packets);
        prop_assert_eq!(&decode_pieces(version, stream, &[usize::MAX]), &packets);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn large_packets_survive_any_split_and_reading_into_place(
        (version, packets) in version().prop_flat_map(|version| {
            let payload = vec(any::<u8>(), 64).prop_flat_map(|some| {
                (0..1_200_usize).prop_map(move |times| some.repeat(times))
            });
            let packet = prop_oneof![publish(version, payload).boxed(), packet(version)];
            (Just(version), vec(packet, 1..5))
        }),
        lengths in vec(prop_oneof![1..8_usize, 1..5_000_usize, 1..80_000_usize], 1..6),
    ) {
        let stream = stream(version, &packets);
        prop_assert_eq!(&decode_pieces(version, stream.clone(), &lengths), &packets);
        prop_assert_eq!(&decode_in_place(version, stream, &lengths).0, &packets);
    }
}

/// That the path for large packets is taken at all, and hands over to the ordinary one.
#[test]
fn a_large_packet_is_read_into_place() {
    for version in VERSIONS {
        let message = mqtt_proto::Message::new("t", vec![7; 100_000]).unwrap();
        let large = Packet::Publish(mqtt_proto::packet::Publish {
            message,
            packet_id: None,
            dup: false,
        });
        let packets = [large, Packet::PingResp, Packet::PingReq];
        let (decoded, in_place) = decode_in_place(version, stream(version, &packets), &[4_096]);
        assert_eq!(decoded, packets);
        assert!(in_place > 10, "{in_place} reads into place");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn arbitrary_bytes_never_panic(version in version(), bytes in vec(any::<u8>(), 0..64)) {
        let _ = decode(version, &bytes);
    }

    #[test]
    fn arbitrary_bodies_never_panic(
        version in version(),
        first in any::<u8>(),
        body in vec(prop_oneof![0..0x2B_u8, any::<u8>()], 0..64),
    ) {
        let _ = decode(version, &common::framed(first, &body));
    }

    #[test]
    fn a_damaged_packet_is_refused_or_is_another_packet(
        (version, packet) in any_packet(),
        mutations in mutations(),
    ) {
        let bytes = Mutation::apply_all(&mutations, &encode(version, &packet));
        match decode(version, &bytes) {
            Err(_) => {}
            Ok(None) => prop_assert!(false, "a whole packet asks for more: {bytes:02X?}"),
            Ok(Some(packet)) => {
                let again = encode(version, &packet);
                prop_assert_eq!(decode(version, &again).unwrap(), Some(packet), "{:02X?}", again);
            }
        }
    }
}
