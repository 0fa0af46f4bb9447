//! Fields that every packet is made of: strings, topics, identifiers, and where they end.

use super::*;

/// [MQTT3-1.5.3-1] [MQTT3-1.5.3-2] [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT5-1.5.7-1]
/// [MQTT5-3.3.2-19]: overlong, surrogate, cut, out of range, lone continuation, U+0000.
#[test]
fn strings() {
    let text = |error| Malformed::Text(error);
    for wrong in [
        "C0AF", "EDA080", "EDBFBF", "E282", "F4908080", "80", "FF", "61C3",
    ] {
        let body = |prefix: &str, suffix: &str| {
            let len = wrong.len() / 2;
            framed_hex(0x30, &format!("{prefix}{len:04X}{wrong}{suffix}"))
        };
        let topic = Malformed::TopicName(TopicError::Text(TextError::NotUtf8));
        check(V3, &body("", ""), topic, "MQTT3-3.3.2-1", MALFORMED);
        check(V5, &body("", "00"), topic, "MQTT5-3.3.2-1", MALFORMED);
        for property in ["03", "08", "26"] {
            let value = format!("{property}{:04X}{wrong}", wrong.len() / 2);
            let properties = format!("{:02X}{value}", value.len() / 2);
            let bytes = framed_hex(0x30, &format!("0001 61 {properties}"));
            check(
                V5,
                &bytes,
                text(TextError::NotUtf8),
                "MQTT5-1.5.4-1",
                MALFORMED,
            );
        }
        let pair = format!("26 0001 6B {:04X}{wrong}", wrong.len() / 2);
        let bytes = framed_hex(0x40, &format!("0001 00 {:02X}{pair}", 6 + wrong.len() / 2));
        check(
            V5,
            &bytes,
            text(TextError::NotUtf8),
            "MQTT5-1.5.4-1",
            MALFORMED,
        );
    }
    let topic = Malformed::TopicName(TopicError::Text(TextError::Nul));
    check(V3, "30 05 0003 610062", topic, "MQTT3-4.7.3-2", MALFORMED);
    check(
        V5,
        "30 06 0003 610062 00",
        topic,
        "MQTT5-4.7.3-2",
        MALFORMED,
    );
    let nul = text(TextError::Nul);
    for bytes in [
        "20 07 0000 04 1F 0001 00",
        "20 09 0000 06 26 0001 00 0000",
        "20 0A 0000 07 26 0001 61 0001 00",
        "30 09 0001 61 05 03 0002 6100",
        "10 0F 00044D515454 05 02 0000 00 0002 6100",
    ] {
        check(V5, bytes, nul, "MQTT5-1.5.4-2", MALFORMED);
    }
    check(
        V5,
        "10 0F 00044D515454 04 02 0000 0003 610000",
        nul,
        "MQTT5-1.5.4-2",
        MALFORMED,
    );
    check(
        V3,
        "10 0F 00044D515454 04 02 0000 0003 610000",
        nul,
        "MQTT3-1.5.3-2",
        MALFORMED,
    );
}

/// [MQTT3-3.3.2-2] [MQTT3-4.7.3-1] [MQTT5-3.3.2-2] [MQTT5-4.7.3-1], CVE-2021-34432.
#[test]
fn topic_names() {
    let wildcard = Malformed::TopicName(TopicError::Wildcard);
    for topic in [
        "0003 612F23",
        "0003 612F2B",
        "0001 23",
        "0001 2B",
        "0003 232F61",
    ] {
        let bytes = framed_hex(0x30, topic);
        check(
            V3,
            &bytes,
            wildcard,
            "MQTT3-3.3.2-2",
            ReasonCode::TOPIC_NAME_INVALID,
        );
        let bytes = framed_hex(0x30, &format!("{topic} 00"));
        check(
            V5,
            &bytes,
            wildcard,
            "MQTT5-3.3.2-2",
            ReasonCode::TOPIC_NAME_INVALID,
        );
    }
    check(
        V3,
        "30 02 0000",
        Malformed::NoTopic,
        "MQTT3-4.7.3-1",
        PROTOCOL,
    );
    check(
        V3,
        "32 04 0000 0001",
        Malformed::NoTopic,
        "MQTT3-4.7.3-1",
        PROTOCOL,
    );
    check(
        V5,
        "30 03 0000 00",
        Malformed::NoTopic,
        "MQTT5-4.7.3-1",
        PROTOCOL,
    );
    check(
        V5,
        "30 05 0000 02 0101",
        Malformed::NoTopic,
        "MQTT5-4.7.3-1",
        PROTOCOL,
    );
    accepted(V5, "30 06 0000 03 23 0001");
}

/// CVE-2020-10071, CVE-2026-54412, CVE-2019-17210, CVE-2018-19417: a length that reaches past its
/// packet, or past its property section, in every kind of field.
#[test]
fn fields_past_the_end() {
    for bytes in [
        "30 00",
        "30 01 00",
        "30 02 0001",
        "30 03 0005 61",
        "30 03 FFFF 61",
        "32 04 0001 61 00",
    ] {
        check(V3, bytes, Malformed::Truncated, "MQTT3-4.8.0-1", MALFORMED);
        check(V5, bytes, Malformed::Truncated, "MQTT5 4.13.1", MALFORMED);
    }
    for bytes in [
        "40 00", "40 01 00", "50 01 00", "62 00", "70 00", "90 01 00", "B0 01 00", "20 00",
        "20 01 00",
    ] {
        check(V3, bytes, Malformed::Truncated, "MQTT3-4.8.0-1", MALFORMED);
        check(V5, bytes, Malformed::Truncated, "MQTT5 4.13.1", MALFORMED);
    }
    for bytes in [
        "20 02 0000",
        "20 03 0000 01",
        "20 04 0000 01 1F",
        "20 05 0000 02 2100",
        "20 07 0000 04 1F 0002 61",
        "20 08 0000 04 1F 0002 6161",
        "30 03 0001 61",
        "30 04 0001 61 01",
        "30 06 0001 61 01 01 00",
        "30 08 0001 61 04 02 000000",
        "30 06 0001 61 02 09 00",
        "30 06 0001 61 02 0B 80",
        "40 04 0001 00 01",
        "E0 02 00 01",
        "F0 01 18",
        "F0 02 18 01",
    ] {
        check(V5, bytes, Malformed::Truncated, "MQTT5 4.13.1", MALFORMED);
    }
}

#[test]
fn bytes_after_the_end() {
    for bytes in [
        "40 03 0001 00",
        "50 03 0001 00",
        "62 03 0001 00",
        "70 03 0001 00",
        "B0 03 0001 00",
        "20 03 0000 00",
        "E0 01 00",
    ] {
        check(
            V3,
            bytes,
            Malformed::TrailingBytes,
            "MQTT3-4.8.0-1",
            MALFORMED,
        );
    }
    for bytes in [
        "40 05 0001 00 00 00",
        "20 04 0000 00 00",
        "E0 03 00 00 00",
        "F0 03 00 00 00",
    ] {
        check(
            V5,
            bytes,
            Malformed::TrailingBytes,
            "MQTT5 4.13.1",
            MALFORMED,
        );
    }
    for bytes in ["C0 01 00", "D0 01 00", "D0 02 0000"] {
        check(
            V3,
            bytes,
            Malformed::TrailingBytes,
            "MQTT3-4.8.0-1",
            MALFORMED,
        );
        check(
            V5,
            bytes,
            Malformed::TrailingBytes,
            "MQTT5 4.13.1",
            MALFORMED,
        );
    }
}

/// [MQTT3-2.3.1-1] [MQTT5-2.2.1-3]
#[test]
fn packet_identifier_zero() {
    for bytes in [
        "32 05 0001 61 0000",
        "34 05 0001 61 0000",
        "40 02 0000",
        "50 02 0000",
        "62 02 0000",
        "70 02 0000",
        "90 03 0000 00",
        "B0 02 0000",
        "82 06 0000 0001 61 00",
        "A2 05 0000 0001 61",
    ] {
        check(
            V3,
            bytes,
            Malformed::ZeroPacketId,
            "MQTT3-2.3.1-1",
            MALFORMED,
        );
        check(
            V5,
            bytes,
            Malformed::ZeroPacketId,
            "MQTT5-2.2.1-3",
            MALFORMED,
        );
    }
}

/// [MQTT3-1.5.3-3] [MQTT5-1.5.4-3] and 5.0 section 1.5.4: a byte order mark, control characters
/// and non-characters are characters like others.
#[test]
fn unusual_characters_are_taken() {
    for version in VERSIONS {
        for text in ["EFBBBF61", "01", "7F", "C285", "EFBFBF", "EFB790"] {
            let end = if version == V5 { "00" } else { "" };
            let body = format!("{:04X} {text} {end}", hex(text).len());
            let Ok(Some(packet)) = decode(version, &framed(0x30, &hex(&body))) else {
                panic!("{text} is refused");
            };
            let mqtt_proto::packet::Packet::Publish(publish) = packet else {
                panic!("{packet:?}");
            };
            assert_eq!(publish.message.topic.as_bytes(), hex(text));
        }
    }
}
