//! How much a packet and a field can hold.

use super::*;

/// [MQTT5-1.5.5-1] and 3.1.1 section 2.2.3: remaining lengths on both sides of each border, up to
/// the largest and one beyond.
#[test]
fn lengths() {
    for (len, prefix) in [
        (127, "7F"),
        (128, "8001"),
        (16_383, "FF7F"),
        (16_384, "808001"),
        (2_097_151, "FFFF7F"),
        (2_097_152, "80808001"),
        (268_435_455, "FFFFFF7F"),
    ] {
        let message = Message::new("t", vec![0; len - 3]).unwrap();
        let packet = Packet::Publish(Publish {
            message,
            packet_id: None,
            dup: false,
        });
        let bytes = encode(V3, &packet);
        let header = hex(&format!("30 {prefix} 0001 74"));
        assert_eq!(&bytes[..header.len()], header);
        assert_eq!(bytes.len(), header.len() + len - 3);
    }
    let message = Message::new("t", vec![0; 268_435_456 - 3]).unwrap();
    let packet = Packet::Publish(Publish {
        message,
        packet_id: None,
        dup: false,
    });
    let mut out = Vec::new();
    let error = EncodeError::TooLarge { size: 268_435_456 };
    assert_eq!(packet.encode(V3, &mut out), Err(error));
    assert!(out.is_empty());
}

/// CVE-2025-10543, [MQTT3-4.7.3-3] [MQTT5-4.7.3-3]: no field holds more than its length can say.
#[test]
fn fields_of_65535_bytes() {
    let (most, more) = ("x".repeat(65_535), "x".repeat(65_536));
    let error = TextError::TooLong { len: 65_536 };
    assert_eq!(Utf8String::new(more.clone()), Err(error));
    assert_eq!(BinaryData::new(more.clone()), Err(error));
    assert_eq!(Secret::new(more.clone()), Err(error));
    assert_eq!(TopicName::new(more.clone()), Err(error.into()));
    assert_eq!(TopicFilter::new(more.clone()), Err(error.into()));
    assert_eq!(Message::new(more.clone(), "").unwrap_err(), error.into());
    assert_eq!(Connect::new(V5, more.clone()).unwrap_err(), error);
    assert_eq!(
        Will::new(TopicName::new("w").unwrap(), more).unwrap_err(),
        error
    );

    let name = TopicName::new(most.clone()).unwrap();
    let mut will = Will::new(name.clone(), most.clone()).unwrap();
    will.properties.content_type = Some(text(&most));
    will.properties.response_topic = Some(name.clone());
    let packets = [
        connect(V5, &most, |connect| {
            connect.will = Some(Box::new(will));
            connect.user_name = Some(text(&most));
            connect.password = Some(Secret::new(most.clone()).unwrap());
            let pair = (text(&most), text(&most));
            connect.properties.user_properties.push(pair);
        }),
        publish(QoS::AtMostOnce, |publish| publish.message.topic = name),
        Packet::Unsubscribe(Unsubscribe {
            packet_id: id(1),
            filters: vec![TopicFilter::new(most).unwrap()],
            properties: Properties::default(),
        }),
    ];
    for packet in packets {
        let bytes = encode(V5, &packet);
        assert_eq!(decode(V5, &bytes), Ok(Some(packet)));
    }
}
