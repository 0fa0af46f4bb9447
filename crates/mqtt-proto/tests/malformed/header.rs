//! The fixed header: packet types, flags, lengths.

use super::*;

/// [MQTT3-4.8.0-1]: types 0 and 15 do not exist in 3.1.1, type 0 not in 5.0.
#[test]
fn packet_types() {
    check(
        V3,
        "00 00",
        Malformed::PacketType(0),
        "MQTT3 2.2.1",
        MALFORMED,
    );
    check(
        V3,
        "F0 00",
        Malformed::PacketType(15),
        "MQTT3 2.2.1",
        MALFORMED,
    );
    check(
        V5,
        "00 00",
        Malformed::PacketType(0),
        "MQTT5 2.1.2",
        MALFORMED,
    );
    accepted(V5, "F0 00");
}

/// [MQTT3-2.2.2-2] [MQTT3-3.6.1-1] [MQTT5-2.1.3-1] [MQTT5-3.6.1-1] [MQTT5-3.14.1-1]
/// [MQTT5-3.15.1-1]: every wrong nibble of every type, found before the length is known.
#[test]
fn fixed_header_flags() {
    for (version, types) in [(V3, 1..=14_u8), (V5, 1..=15)] {
        let statement = match version {
            V3 => "MQTT3-2.2.2-2",
            _ => "MQTT5-2.1.3-1",
        };
        for packet_type in types.filter(|&packet_type| packet_type != 3) {
            let right = if matches!(packet_type, 6 | 8 | 10) {
                2
            } else {
                0
            };
            for flags in (0..16).filter(|&flags| flags != right) {
                let first = format!("{:02X}", packet_type << 4 | flags);
                check(
                    version,
                    &first,
                    Malformed::Flags(flags),
                    statement,
                    MALFORMED,
                );
            }
        }
    }
}

/// [MQTT3-3.3.1-4] [MQTT5-3.3.1-4] and [MQTT3-3.3.1-2] [MQTT5-3.3.1-2].
#[test]
fn publish_flags() {
    for first in ["36", "37", "3E", "3F"] {
        let bytes = format!("{first} 06 0001 61 0001 00");
        check(V3, &bytes, Malformed::QoS, "MQTT3-3.3.1-4", MALFORMED);
        check(V5, &bytes, Malformed::QoS, "MQTT5-3.3.1-4", MALFORMED);
    }
    for first in ["38", "39"] {
        let bytes = format!("{first} 04 0001 61 00");
        let kind = Malformed::DuplicateAtMostOnce;
        check(V3, &bytes, kind, "MQTT3-3.3.1-2", MALFORMED);
        check(V5, &bytes, kind, "MQTT5-3.3.1-2", MALFORMED);
    }
}

/// [MQTT5-1.5.5-1], CVE-2020-10062, CVE-2020-10070: five bytes, or more than needed; as remaining
/// length, property length, property identifier and subscription identifier.
#[test]
fn variable_byte_integers() {
    let kind = Malformed::VariableByteInteger;
    for bytes in [
        "30 80808080",
        "30 FFFFFFFF",
        "30 FFFFFFFF 7F",
        "D0 80808080 00",
        "20 8080808001",
        "D0 8000",
        "D0 808000",
        "D0 80808000",
        "20 8200 0000",
        "30 FFFFFF00",
    ] {
        check(V3, bytes, kind, "MQTT3 2.2.3", MALFORMED);
        check(V5, bytes, kind, "MQTT5-1.5.5-1", MALFORMED);
    }
    for bytes in [
        "20 04 0000 8000",
        "20 06 0000 80808000",
        "20 07 0000 8080808001",
        "30 09 0001 61 05 9F00 0001 61",
        "30 07 0001 61 03 0B 8100",
        "30 0A 0001 61 06 0B FFFFFFFF7F",
        "30 05 0001 61 8000",
    ] {
        check(V5, bytes, kind, "MQTT5-1.5.5-1", MALFORMED);
    }
}
