//! Packets cut short, packets larger than agreed, and what they cost before they are refused.

use bytes::Bytes;
use mqtt_proto::{Decoder, codec::MAX_PACKET_SIZE, packet::Packet};
use proptest::prelude::*;

use super::{common::packet, *};

/// Whether `short` is what the format lets `whole` be cut to.
fn is_short_form(short: &Packet, whole: &Packet) -> bool {
    match (short, whole) {
        (Packet::Publish(short), Packet::Publish(whole)) => {
            let mut cut = whole.clone();
            cut.message.payload.truncate(short.message.payload.len());
            *short == cut
        }
        (Packet::Subscribe(short), Packet::Subscribe(whole)) => {
            whole.filters.starts_with(&short.filters)
        }
        (Packet::Unsubscribe(short), Packet::Unsubscribe(whole)) => {
            whole.filters.starts_with(&short.filters)
        }
        (Packet::SubAck(short), Packet::SubAck(whole)) => {
            whole.reason_codes.starts_with(&short.reason_codes)
        }
        (Packet::UnsubAck(short), Packet::UnsubAck(whole)) => {
            whole.reason_codes.starts_with(&short.reason_codes)
        }
        // Remaining length 2: success; 3: no properties (5.0 section 3.4).
        (Packet::PubAck(short), Packet::PubAck(whole))
        | (Packet::PubRec(short), Packet::PubRec(whole))
        | (Packet::PubRel(short), Packet::PubRel(whole))
        | (Packet::PubComp(short), Packet::PubComp(whole)) => {
            short.packet_id == whole.packet_id
                && short.properties.is_empty()
                && (short.reason_code == ReasonCode::SUCCESS
                    || short.reason_code == whole.reason_code)
        }
        // Remaining length 0: normal disconnection; 1: no properties (5.0 section 3.14.2).
        (Packet::Disconnect(short), Packet::Disconnect(whole)) => {
            short.properties.is_empty()
                && (short.reason_code == ReasonCode::SUCCESS
                    || short.reason_code == whole.reason_code)
        }
        // Remaining length 0: success (5.0 section 3.15.2.1).
        (Packet::Auth(short), Packet::Auth(_)) => {
            short.properties.is_empty() && short.reason_code == ReasonCode::SUCCESS
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_prefix_asks_for_more(
        (version, packet) in proptest::sample::select(&VERSIONS)
            .prop_flat_map(|version| (Just(version), packet(version))),
    ) {
        let bytes = common::encode(version, &packet);
        for len in 0..bytes.len() {
            prop_assert_eq!(decode(version, &bytes[..len]), Ok(None), "{:02X?}", &bytes[..len]);
        }
    }

    #[test]
    fn a_body_cut_short_is_refused_unless_the_format_has_that_form(
        (version, packet) in proptest::sample::select(&VERSIONS)
            .prop_flat_map(|version| (Just(version), packet(version))),
    ) {
        let bytes = common::encode(version, &packet);
        let header = 2 + bytes[1..].iter().take_while(|&&byte| byte & 0x80 != 0).count();
        let body = &bytes[header..];
        for len in 0..body.len() {
            let cut = framed(bytes[0], &body[..len]);
            match decode(version, &cut) {
                Err(_) => {}
                Ok(Some(short)) if is_short_form(&short, &packet) => {}
                other => prop_assert!(false, "{packet:?} cut to {len}: {other:?}"),
            }
        }
    }
}

/// 5.0 section 3.1.2.11.4, CVE-2023-0809: refused from the header, before any byte of the body, at
/// the very byte that completes the length.
#[test]
fn larger_than_agreed() {
    #[track_caller]
    fn check(header: &str, size: u32, max: u32) {
        for version in VERSIONS {
            let header = hex(header);
            let mut decoder = Decoder::new(version, max);
            let (last, before) = header.split_last().unwrap();
            for byte in before {
                let mut piece = Bytes::copy_from_slice(&[*byte]);
                assert_eq!(decoder.decode(&mut piece), Ok(None));
            }
            let result = decoder.decode(&mut Bytes::copy_from_slice(&[*last]));
            if size <= max {
                assert_eq!(result, Ok(None), "{header:02X?}");
                continue;
            }
            let error = result.unwrap_err();
            let DecodeError::TooLarge {
                size: found,
                max: limit,
                ..
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!((found, limit), (size, max));
            assert_eq!(error.reason_code(), ReasonCode::PACKET_TOO_LARGE);
            assert!(error.to_string().ends_with("[MQTT5 3.1.2.11.4]"), "{error}");
        }
    }
    check("30 3E", 64, 64);
    check("30 3F", 65, 64);
    check("30 FF7F", 16_386, 16_386);
    check("30 FF7F", 16_386, 16_385);
    check("32 FFFFFF7F", MAX_PACKET_SIZE, MAX_PACKET_SIZE);
    check("32 FFFFFF7F", MAX_PACKET_SIZE, MAX_PACKET_SIZE - 1);
    check("20 01", 3, 2);
}

/// CVE-2023-0809: a claimed 256 MB that dribbles in costs what came, never what was claimed,
/// however much of its header came first.
#[test]
fn memory_grows_with_what_came() {
    let header = hex("30 FFFFFF7F");
    let bytes = [&header[..], &[0x61; 50_000]].concat();
    for version in VERSIONS {
        for first in [1, 4, 5, 6, 1_000] {
            let mut decoder = Decoder::new(version, MAX_PACKET_SIZE);
            let mut came = 0;
            for piece in [&bytes[..first]]
                .into_iter()
                .chain(bytes[first..].chunks(1))
            {
                came += piece.len();
                assert_eq!(decoder.decode(&mut Bytes::copy_from_slice(piece)), Ok(None));
                let Some((buffer, missing)) = decoder.large_packet() else {
                    assert!(came < header.len(), "a large packet has begun");
                    continue;
                };
                assert_eq!(buffer.len(), came);
                assert_eq!(buffer.len() + missing, 268_435_460);
                let capacity = buffer.capacity();
                assert!(capacity <= 2 * came + 64, "{capacity} bytes for {came}");
            }
        }
    }
}

/// CVE-2018-19417, CVE-2020-10071: a topic length past the packet's end, its two bytes and the
/// packet's in segments of their own.
#[test]
fn a_topic_longer_than_its_packet_in_segments() {
    for version in VERSIONS {
        let bytes = hex("30 05 FFFF 616161");
        for cut in 1..bytes.len() {
            let mut decoder = Decoder::new(version, MAX_PACKET_SIZE);
            let mut piece = Bytes::copy_from_slice(&bytes[..cut]);
            assert_eq!(decoder.decode(&mut piece), Ok(None));
            let mut piece = Bytes::copy_from_slice(&bytes[cut..]);
            let error = decoder.decode(&mut piece).unwrap_err();
            assert_eq!(error.reason_code(), MALFORMED);
        }
    }
}

/// CVE-2017-10910: a million packets in one read, one after the other.
#[test]
fn a_million_packets_in_one_read() {
    let mut decoder = Decoder::new(V3, MAX_PACKET_SIZE);
    let mut piece = Bytes::from(hex("D000").repeat(1_000_000));
    for _ in 0..1_000_000 {
        assert_eq!(decoder.decode(&mut piece), Ok(Some(Packet::PingResp)));
    }
    assert_eq!(decoder.decode(&mut piece), Ok(None));
}

/// CVE-2019-11779: a filter of 65,535 levels.
#[test]
fn a_filter_of_slashes() {
    let filter = "/".repeat(65_535);
    let body = [&[0, 1, 0xFF, 0xFF], filter.as_bytes(), &[0]].concat();
    let Ok(Some(Packet::Subscribe(subscribe))) = decode(V3, &framed(0x82, &body)) else {
        panic!("slashes are a filter");
    };
    assert!(subscribe.filters[0].filter.matches(&filter));
}
