//! SUBSCRIBE, UNSUBSCRIBE, DISCONNECT, AUTH and the pings.

use super::*;

/// [MQTT3-3.8.1-1] [MQTT3-3.8.3-1] [MQTT5-3.8.1-1] [MQTT5-3.8.3-1] and 5.0 section 3.8.3.1
#[test]
fn subscribe() {
    let options = |qos, no_local, retain_as_published, retain_handling| SubscribeOptions {
        qos,
        no_local,
        retain_as_published,
        retain_handling,
    };
    let rows = [
        (
            options(QoS::AtMostOnce, false, false, RetainHandling::Send),
            "00",
            "00",
        ),
        (
            options(QoS::AtLeastOnce, true, false, RetainHandling::Send),
            "05",
            "01",
        ),
        (
            options(QoS::ExactlyOnce, false, true, RetainHandling::SendIfNew),
            "1A",
            "02",
        ),
        (
            options(QoS::ExactlyOnce, true, true, RetainHandling::DoNotSend),
            "2E",
            "02",
        ),
    ];
    for (options, v5, v3) in rows {
        let packet = |properties| {
            Packet::Subscribe(Subscribe {
                packet_id: id(10),
                filters: ["ä/+", "#"]
                    .map(|filter| SubscribeFilter {
                        filter: TopicFilter::new(filter).unwrap(),
                        options,
                    })
                    .to_vec(),
                properties,
            })
        };
        let plain = packet(Properties::default());
        check(
            V3,
            &plain,
            &format!("82 0D 000A 0004 C3A42F2B {v3} 0001 23 {v3}"),
        );
        check(
            V5,
            &plain,
            &format!("82 0E 000A 00 0004 C3A42F2B {v5} 0001 23 {v5}"),
        );
        let mut properties: Properties<SubscribeProperties> = Properties::default();
        properties.subscription_identifier = SubscriptionId::new(268_435_455);
        let expected = format!("82 13 000A 05 0B FFFFFF7F 0004 C3A42F2B {v5} 0001 23 {v5}");
        check(V5, &packet(properties), &expected);
    }
}

/// [MQTT3-3.10.1-1] [MQTT3-3.10.3-1] [MQTT5-3.10.1-1] [MQTT5-3.10.3-1]
#[test]
fn unsubscribe() {
    let packet = Packet::Unsubscribe(Unsubscribe {
        packet_id: id(256),
        filters: ["a", "ä/#"]
            .map(|filter| TopicFilter::new(filter).unwrap())
            .to_vec(),
        properties: Properties::default(),
    });
    check(V3, &packet, "A2 0B 0100 0001 61 0004 C3A42F23");
    check(V5, &packet, "A2 0C 0100 00 0001 61 0004 C3A42F23");
}

/// [MQTT3-2.2.2-1] [MQTT5-2.1.3-1] [MQTT5-3.14.2-1]
#[test]
fn disconnect_and_pings() {
    for version in VERSIONS {
        check(version, &Packet::PingReq, "C0 00");
        check(version, &Packet::PingResp, "D0 00");
    }
    let mut disconnect = Disconnect::new(ReasonCode::SUCCESS);
    check(V3, &Packet::Disconnect(disconnect.clone()), "E0 00");
    check(V5, &Packet::Disconnect(disconnect.clone()), "E0 00");
    disconnect.reason_code = ReasonCode::DISCONNECT_WITH_WILL;
    check(V3, &Packet::Disconnect(disconnect.clone()), "E0 00");
    check(V5, &Packet::Disconnect(disconnect.clone()), "E0 01 04");
    disconnect.reason_code = ReasonCode::SUCCESS;
    disconnect.properties.session_expiry_interval = Some(0);
    check(
        V5,
        &Packet::Disconnect(disconnect),
        "E0 07 00 05 11 00000000",
    );
}

/// [MQTT5-3.15.1-1] [MQTT5-3.15.2-1] [MQTT5-4.12.0-3]
#[test]
fn auth() {
    let mut auth = Auth {
        reason_code: ReasonCode::CONTINUE_AUTHENTICATION,
        properties: Properties::default(),
    };
    check(V5, &Packet::Auth(auth.clone()), "F0 02 18 00");
    auth.properties.authentication_method = Some(text("m"));
    auth.properties.authentication_data = Some(Secret::new(vec![0]).unwrap());
    check(
        V5,
        &Packet::Auth(auth.clone()),
        "F0 0A 18 08 15 0001 6D 16 0001 00",
    );
    let mut out = Vec::new();
    let error = EncodeError::NotInVersion {
        packet_type: PacketType::Auth,
        version: V3,
    };
    assert_eq!(Packet::Auth(auth).encode(V3, &mut out), Err(error));
    assert!(out.is_empty());
}
