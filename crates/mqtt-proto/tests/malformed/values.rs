//! Values that a packet cannot carry: codes, flags, lists, property values.

use super::*;

/// 3.1.1 sections 3.2.2.3 and 3.9.3; [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1]
/// [MQTT5-3.7.2-1] [MQTT5-3.14.2-1] [MQTT5-3.15.2-1]: for each packet, every code it cannot carry
/// is refused and every code it can is taken.
#[test]
fn reason_codes() {
    #[track_caller]
    fn codes(version: Version, template: &str, statement: &str, allowed: &str) {
        let allowed = hex(allowed);
        for code in 0..=255_u8 {
            let bytes = template.replace("xx", &format!("{code:02X}"));
            if allowed.contains(&code) {
                accepted(version, &bytes);
            } else {
                check(
                    version,
                    &bytes,
                    Malformed::ReasonCode(code),
                    statement,
                    MALFORMED,
                );
            }
        }
    }
    codes(V3, "20 02 00 xx", "MQTT3 3.2.2.3", "00 01 02 03 04 05");
    codes(V3, "90 03 0001 xx", "MQTT3-3.9.3-2", "00 01 02 80");
    codes(V3, "90 05 0001 00 xx 80", "MQTT3-3.9.3-2", "00 01 02 80");
    let connack = "00 80 81 82 83 84 85 86 87 88 89 8A 8C 90 95 97 99 9A 9B 9C 9D 9F";
    codes(V5, "20 03 00 xx 00", "MQTT5-3.2.2-8", connack);
    let received = "00 10 80 83 87 90 91 97 99";
    codes(V5, "40 03 0001 xx", "MQTT5-3.4.2-1", received);
    codes(V5, "40 04 0001 xx 00", "MQTT5-3.4.2-1", received);
    codes(V5, "50 03 0001 xx", "MQTT5-3.5.2-1", received);
    codes(V5, "62 03 0001 xx", "MQTT5-3.6.2-1", "00 92");
    codes(V5, "70 03 0001 xx", "MQTT5-3.7.2-1", "00 92");
    let suback = "00 01 02 80 83 87 8F 91 97 9E A1 A2";
    codes(V5, "90 04 0001 00 xx", "MQTT5-3.9.3-2", suback);
    codes(V5, "90 06 0001 00 00 xx 87", "MQTT5-3.9.3-2", suback);
    codes(
        V5,
        "B0 04 0001 00 xx",
        "MQTT5-3.11.3-2",
        "00 11 80 83 87 8F 91",
    );
    let disconnect =
        "00 04 80 81 82 83 87 89 8B 8C 8D 8E 8F 90 93 94 95 96 97 98 99 9A 9B 9C 9D 9E 9F A0 A1 A2";
    codes(V5, "E0 01 xx", "MQTT5-3.14.2-1", disconnect);
    codes(V5, "F0 06 xx 04 15 0001 6D", "MQTT5-3.15.2-1", "00 18 19");
}

/// 3.1.1 section 3.2.2.1, [MQTT3-3.2.2-4]; 5.0 section 3.2.2.1, [MQTT5-3.2.2-6].
#[test]
fn connack_flags() {
    for flags in 2..=255_u8 {
        let kind = Malformed::ConnAckFlags(flags);
        check(
            V3,
            &format!("20 02 {flags:02X} 00"),
            kind,
            "MQTT3 3.2.2.1",
            MALFORMED,
        );
        check(
            V5,
            &format!("20 03 {flags:02X} 00 00"),
            kind,
            "MQTT5 3.2.2.1",
            MALFORMED,
        );
    }
    let kind = Malformed::SessionPresentInRefusal;
    check(V3, "20 02 01 05", kind, "MQTT3-3.2.2-4", MALFORMED);
    check(V5, "20 03 01 87 00", kind, "MQTT5-3.2.2-6", MALFORMED);
    accepted(V3, "20 02 01 00");
    accepted(V5, "20 03 01 00 00");
}

/// CVE-2024-10525: an acknowledgement without a single code. [MQTT3-3.8.3-3] [MQTT5-3.8.3-2]
/// [MQTT3-3.10.3-2] [MQTT5-3.10.3-2], CVE-2019-5432: a request without a single filter.
#[test]
fn empty_lists() {
    let kind = Malformed::EmptyList;
    check(V3, "90 02 0001", kind, "MQTT3 3.9.3", PROTOCOL);
    check(V5, "90 03 0001 00", kind, "MQTT5 3.9.3", PROTOCOL);
    check(V5, "B0 03 0001 00", kind, "MQTT5 3.11.3", PROTOCOL);
    accepted(V3, "B0 02 0001");
    check(V3, "82 02 0001", kind, "MQTT3-3.8.3-3", PROTOCOL);
    check(V5, "82 03 0001 00", kind, "MQTT5-3.8.3-2", PROTOCOL);
    check(V3, "A2 02 0001", kind, "MQTT3-3.10.3-2", PROTOCOL);
    check(V5, "A2 03 0001 00", kind, "MQTT5-3.10.3-2", PROTOCOL);
}

/// A peer that serves needs these: SUBSCRIBE and CONNECT as a server receives them.
#[test]
fn what_a_client_sends() {
    let filter = Malformed::TopicFilter;
    check(
        V5,
        "82 07 0001 00 0001 61 40",
        Malformed::SubscriptionOptions(0x40),
        "MQTT5 3.8.3.1",
        MALFORMED,
    );
    check(
        V5,
        "82 07 0001 00 0001 61 03",
        Malformed::SubscriptionOptions(3),
        "MQTT5 3.8.3.1",
        PROTOCOL,
    );
    check(
        V5,
        "82 07 0001 00 0001 61 30",
        Malformed::SubscriptionOptions(0x30),
        "MQTT5 3.8.3.1",
        PROTOCOL,
    );
    check(
        V5,
        "82 10 0001 00 000A 2473686172652F672F61 04",
        Malformed::SubscriptionOptions(4),
        "MQTT5 3.8.3.1",
        PROTOCOL,
    );
    check(
        V3,
        "82 06 0001 0001 61 04",
        Malformed::SubscriptionOptions(4),
        "MQTT3 3.8.3",
        PROTOCOL,
    );
    check(
        V3,
        "82 05 0001 0000 00",
        filter(TopicError::Empty),
        "MQTT3-4.7.3-1",
        MALFORMED,
    );
    check(
        V3,
        "82 07 0001 0002 6123 00",
        filter(TopicError::MultiLevel),
        "MQTT3-4.7.1-2",
        MALFORMED,
    );
    check(
        V5,
        "82 08 0001 00 0002 612B 00",
        filter(TopicError::SingleLevel),
        "MQTT5-4.7.1-2",
        MALFORMED,
    );
    check(
        V5,
        "10 0D 00044D515450 05 02 0000 00 0000",
        Malformed::ProtocolName,
        "MQTT5-3.1.2-1",
        MALFORMED,
    );
    check(
        V5,
        "10 0D 00044D515454 06 02 0000 00 0000",
        Malformed::ProtocolLevel(6),
        "MQTT5 3.1.2.2",
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
    );
    for (version, statement) in [(V3, "MQTT3 3.1.2.3"), (V5, "MQTT5 3.1.2.3")] {
        for flags in [0x03, 0x0A, 0x12, 0x1E, 0x22, 0x1C] {
            let bytes = format!("10 0C 00044D515454 04 {flags:02X} 0000 0000");
            check(
                version,
                &bytes,
                Malformed::ConnectFlags(flags),
                statement,
                MALFORMED,
            );
        }
    }
    check(
        V3,
        "10 0E 00044D515454 04 42 0000 0000 0000",
        Malformed::ConnectFlags(0x42),
        "MQTT3 3.1.2.3",
        MALFORMED,
    );
    accepted(V5, "10 0F 00044D515454 05 42 0000 00 0000 0000");
    let data = Malformed::AuthenticationDataAlone;
    check(
        V5,
        "10 11 00044D515454 05 02 0000 04 16 0001 00 0000",
        data,
        "MQTT5 3.1.2.11.10",
        PROTOCOL,
    );
}

/// Property values out of their range: 5.0 section 3.2.2.3, [MQTT5-3.3.2-8], [MQTT5-3.3.2-14],
/// 5.0 section 3.3.2.3.8.
#[test]
fn property_values() {
    for (property, id) in [
        ("2100 00", 0x21),
        ("24 02", 0x24),
        ("24 03", 0x24),
        ("25 02", 0x25),
        ("27 00000000", 0x27),
        ("28 02", 0x28),
        ("29 FF", 0x29),
        ("2A 02", 0x2A),
    ] {
        let value = hex(property);
        let bytes = framed_hex(0x20, &format!("0000 {:02X} {property}", value.len()));
        check(
            V5,
            &bytes,
            Malformed::PropertyValue(id),
            "MQTT5 3.2.2.3",
            PROTOCOL,
        );
    }
    check(
        V5,
        "30 06 0001 61 02 0102",
        Malformed::PropertyValue(1),
        "MQTT5 3.3.2.3",
        PROTOCOL,
    );
    check(
        V5,
        "30 06 0001 61 02 0B00",
        Malformed::PropertyValue(0x0B),
        "MQTT5 3.3.2.3",
        PROTOCOL,
    );
    check(
        V5,
        "82 09 0001 02 0B00 0001 61 00",
        Malformed::PropertyValue(0x0B),
        "MQTT5 3.8.2.1",
        PROTOCOL,
    );
    check(
        V5,
        "30 07 0001 61 03 230000",
        Malformed::ZeroTopicAlias,
        "MQTT5-3.3.2-8",
        ReasonCode::TOPIC_ALIAS_INVALID,
    );
    check(
        V5,
        "30 07 0001 61 03 08 0000",
        Malformed::ResponseTopic(TopicError::Empty),
        "MQTT5-4.7.3-1",
        PROTOCOL,
    );
    for (topic, error) in [
        ("0003 612F2B", TopicError::Wildcard),
        ("0001 23", TopicError::Wildcard),
        ("0001 2B", TopicError::Wildcard),
    ] {
        let value = format!("08 {topic}");
        let bytes = framed_hex(0x30, &format!("0001 61 {:02X} {value}", hex(&value).len()));
        check(
            V5,
            &bytes,
            Malformed::ResponseTopic(error),
            "MQTT5-3.3.2-14",
            PROTOCOL,
        );
    }
}

/// 5.0 section 3.15.2.2.2: an exchange that goes on names its method.
#[test]
fn auth_without_a_method() {
    for bytes in [
        "F0 02 18 00",
        "F0 02 19 00",
        "F0 06 00 04 16 0001 61",
        "F0 06 18 04 1F 0001 61",
    ] {
        check(
            V5,
            bytes,
            Malformed::NoAuthenticationMethod,
            "MQTT5 3.15.2.2.2",
            PROTOCOL,
        );
    }
    accepted(V5, "F0 00");
    accepted(V5, "F0 02 00 00");
}
