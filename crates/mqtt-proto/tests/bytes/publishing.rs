//! PUBLISH and its acknowledgements.

use super::*;

/// [MQTT3-2.3.1-5] [MQTT3-3.3.1-2] [MQTT3-4.3.1-1] [MQTT5-2.2.1-2] [MQTT5-2.2.2-1]
/// [MQTT5-3.3.1-2] [MQTT5-4.3.1-1]
#[test]
fn publish_at_most_once() {
    check(
        V3,
        &publish(QoS::AtMostOnce, |_| {}),
        "30 07 0003 612F62 6869",
    );
    check(
        V5,
        &publish(QoS::AtMostOnce, |_| {}),
        "30 08 0003 612F62 00 6869",
    );
    let retained = publish(QoS::AtMostOnce, |publish| publish.message.retain = true);
    check(V3, &retained, "31 07 0003 612F62 6869");
    let empty = publish(QoS::AtMostOnce, |publish| publish.message.payload.clear());
    check(V3, &empty, "30 05 0003 612F62");
    check(V5, &empty, "30 06 0003 612F62 00");
}

/// [MQTT3-2.3.1-1] [MQTT3-3.3.1-1] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1] [MQTT5-3.3.1-1] [MQTT5-4.3.2-2]
/// [MQTT5-4.3.3-2]
#[test]
fn publish_above_most_once() {
    let once = publish(QoS::AtLeastOnce, |_| {});
    check(V3, &once, "32 09 0003 612F62 1234 6869");
    check(V5, &once, "32 0A 0003 612F62 1234 00 6869");
    let exactly = publish(QoS::ExactlyOnce, |_| {});
    check(V3, &exactly, "34 09 0003 612F62 1234 6869");
    let again = publish(QoS::ExactlyOnce, |publish| {
        publish.dup = true;
        publish.message.retain = true;
    });
    check(V5, &again, "3D 0A 0003 612F62 1234 00 6869");
    let again = publish(QoS::AtLeastOnce, |publish| publish.dup = true);
    check(V3, &again, "3A 09 0003 612F62 1234 6869");
}

/// Properties in 5.0, nothing in 3.1.1.
#[test]
fn publish_with_properties() {
    let packet = publish(QoS::AtMostOnce, |publish| {
        let properties = &mut publish.message.properties;
        properties.topic_alias = std::num::NonZeroU16::new(9);
        properties.response_topic = Some(TopicName::new("r").unwrap());
        properties.correlation_data = Some(BinaryData::new(vec![0]).unwrap());
    });
    check(
        V5,
        &packet,
        "30 13 0003 612F62 0B 23 0009 08 0001 72 09 0001 00 6869",
    );
    check(V3, &packet, "30 07 0003 612F62 6869");
}

/// [MQTT3-3.3.1-2] [MQTT5-3.3.1-2] [MQTT3-2.3.1-5] [MQTT5-2.2.1-2]: what no PUBLISH can be has no
/// encoding, and nothing is written.
#[test]
fn impossible_publishes() {
    #[track_caller]
    fn refused(packet: &Packet, error: EncodeError) {
        for version in VERSIONS {
            let mut out = vec![0xAA];
            assert_eq!(packet.encode(version, &mut out), Err(error));
            assert_eq!(out, [0xAA]);
        }
    }
    let dup = publish(QoS::AtMostOnce, |publish| publish.dup = true);
    refused(&dup, EncodeError::DuplicateAtMostOnce);
    let identified = publish(QoS::AtMostOnce, |publish| publish.packet_id = Some(id(1)));
    refused(&identified, EncodeError::PacketId);
    let anonymous = publish(QoS::ExactlyOnce, |publish| publish.packet_id = None);
    refused(&anonymous, EncodeError::PacketId);
}

/// [MQTT3-2.2.2-1] [MQTT3-2.3.1-6] [MQTT3-3.6.1-1] [MQTT5-2.1.3-1] [MQTT5-2.2.1-5] [MQTT5-3.6.1-1]
/// and 5.0 section 3.4: short and long forms; 3.1.1 has the short one only.
#[test]
fn acknowledgements() {
    type Make = fn(Ack) -> Packet;
    let kinds: [(Make, _, _); 4] = [
        (Packet::PubAck, "40", 0x87),
        (Packet::PubRec, "50", 0x87),
        (Packet::PubRel, "62", 0x92),
        (Packet::PubComp, "70", 0x92),
    ];
    for (packet, first, code) in kinds {
        for packet_id in [1, 255, 256, 65_535] {
            let short = format!("{first} 02 {packet_id:04X}");
            let mut ack = Ack::new(id(packet_id));
            check(V3, &packet(ack.clone()), &short);
            check(V5, &packet(ack.clone()), &short);
            ack.reason_code = ReasonCode::new(code);
            check(V3, &packet(ack.clone()), &short);
            check(
                V5,
                &packet(ack.clone()),
                &format!("{first} 03 {packet_id:04X} {code:02X}"),
            );
            ack.properties.reason_string = Some(text("no"));
            check(V3, &packet(ack.clone()), &short);
            let long = format!("{first} 09 {packet_id:04X} {code:02X} 05 1F 0002 6E6F");
            check(V5, &packet(ack.clone()), &long);
            ack.reason_code = ReasonCode::SUCCESS;
            let long = format!("{first} 09 {packet_id:04X} 00 05 1F 0002 6E6F");
            check(V5, &packet(ack), &long);
        }
    }
}
