//! CONNECT.

use super::*;

/// 3.1.1 sections 3.1.2.1 to 3.1.2.3 and [MQTT3-3.1.2-11] [MQTT3-3.1.2-13] [MQTT3-3.1.2-15]
/// [MQTT3-3.1.2-18] [MQTT3-3.1.2-20] [MQTT3-3.1.3-3] [MQTT3-3.1.3-4] [MQTT5-2.2.2-1]
/// [MQTT5-3.1.2-1] [MQTT5-3.1.2-11] [MQTT5-3.1.2-13] [MQTT5-3.1.2-16] [MQTT5-3.1.2-18]
/// [MQTT5-3.1.3-3] [MQTT5-3.1.3-4]
#[test]
fn connect_without_will_or_credentials() {
    check(
        V3,
        &connect(V3, "c", |_| {}),
        "10 0D 00044D515454 04 02 000A 0001 63",
    );
    check(
        V5,
        &connect(V5, "c", |_| {}),
        "10 0E 00044D515454 05 02 000A 00 0001 63",
    );
    check(
        V3,
        &connect(V3, "", |_| {}),
        "10 0C 00044D515454 04 02 000A 0000",
    );
    check(
        V5,
        &connect(V5, "", |_| {}),
        "10 0D 00044D515454 05 02 000A 00 0000",
    );
    check(
        V3,
        &connect(V3, "é", |_| {}),
        "10 0E 00044D515454 04 02 000A 0002 C3A9",
    );
    let resumed = connect(V3, "c", |connect| connect.clean_start = false);
    check(V3, &resumed, "10 0D 00044D515454 04 00 000A 0001 63");
    let no_keep_alive = connect(V5, "c", |connect| connect.keep_alive = 0);
    check(
        V5,
        &no_keep_alive,
        "10 0E 00044D515454 05 02 0000 00 0001 63",
    );
}

/// A CONNECT is encoded in its own version, whatever the connection spoke before.
#[test]
fn connect_names_its_version() {
    check(
        V5,
        &connect(V3, "c", |_| {}),
        "10 0D 00044D515454 04 02 000A 0001 63",
    );
    check(
        V3,
        &connect(V5, "c", |_| {}),
        "10 0E 00044D515454 05 02 000A 00 0001 63",
    );
}

/// [MQTT3-3.1.2-19] [MQTT3-3.1.2-21] [MQTT3-3.1.3-11] [MQTT5-3.1.2-17] [MQTT5-3.1.2-19]
/// [MQTT5-3.1.3-12]
#[test]
fn connect_with_credentials() {
    #[rustfmt::skip]
    let rows = [
        (Some("ü"), None, "04 82 000A 0001 63 0002 C3BC", "05 82 000A 00 0001 63 0002 C3BC"),
        (Some(""), None, "04 82 000A 0001 63 0000", "05 82 000A 00 0001 63 0000"),
        (Some("u"), Some(&b"\xFF\0"[..]), "04 C2 000A 0001 63 0001 75 0002 FF00", "05 C2 000A 00 0001 63 0001 75 0002 FF00"),
        (Some("u"), Some(b""), "04 C2 000A 0001 63 0001 75 0000", "05 C2 000A 00 0001 63 0001 75 0000"),
    ];
    for (user_name, password, v3, v5) in rows {
        for (version, fields) in [(V3, v3), (V5, v5)] {
            let packet = connect(version, "c", |connect| {
                connect.user_name = user_name.map(text);
                connect.password = password.map(|password| Secret::new(password).unwrap());
            });
            let len = 6 + hex(fields).len();
            check(
                version,
                &packet,
                &format!("10 {len:02X} 00044D515454 {fields}"),
            );
        }
    }
    let password_only = connect(V5, "c", |connect| {
        connect.password = Some(Secret::new("p").unwrap());
    });
    check(
        V5,
        &password_only,
        "10 11 00044D515454 05 42 000A 00 0001 63 0001 70",
    );
}

/// [MQTT3-3.1.2-9] [MQTT3-3.1.2-14] [MQTT3-3.1.3-10] [MQTT5-3.1.2-9] [MQTT5-3.1.2-12]
/// [MQTT5-3.1.3-11]: each QoS, retained or not, an empty payload, a topic beyond ASCII.
#[test]
fn connect_with_will() {
    for (qos, retain, flags) in [
        (QoS::AtMostOnce, false, 0x06),
        (QoS::AtMostOnce, true, 0x26),
        (QoS::AtLeastOnce, false, 0x0E),
        (QoS::AtLeastOnce, true, 0x2E),
        (QoS::ExactlyOnce, false, 0x16),
        (QoS::ExactlyOnce, true, 0x36),
    ] {
        for (payload, bytes) in [(&b"\0w"[..], "0002 0077"), (b"", "0000")] {
            let with = |connect: &mut Connect| {
                let topic = TopicName::new("ö").unwrap();
                let mut will = Will::new(topic, Bytes::copy_from_slice(payload)).unwrap();
                (will.qos, will.retain) = (qos, retain);
                connect.will = Some(Box::new(will));
            };
            let v3 = format!("04 {flags:02X} 000A 0001 63 0002 C3B6 {bytes}");
            let v5 = format!("05 {flags:02X} 000A 00 0001 63 00 0002 C3B6 {bytes}");
            for (version, fields) in [(V3, v3), (V5, v5)] {
                let len = 6 + hex(&fields).len();
                let expected = format!("10 {len:02X} 00044D515454 {fields}");
                check(version, &connect(version, "c", with), &expected);
            }
        }
    }
}

/// [MQTT3-3.1.3-1] [MQTT5-3.1.3-1] and 5.0 section 3.1.3.2.2: the order of everything, the will's
/// properties with the will; 3.1.1 leaves all properties out.
#[test]
fn connect_with_everything() {
    let with = |connect: &mut Connect| {
        let mut will = Will::new(TopicName::new("w").unwrap(), "x").unwrap();
        will.qos = QoS::AtLeastOnce;
        will.properties.will_delay_interval = Some(5);
        connect.will = Some(Box::new(will));
        connect.user_name = Some(text("u"));
        connect.password = Some(Secret::new("p").unwrap());
        connect.properties.session_expiry_interval = Some(u32::MAX);
        connect
            .properties
            .user_properties
            .push((text("k"), text("v")));
    };
    let v5 = "10 2C 00044D515454 05 CE 000A 0C 11 FFFFFFFF 26 0001 6B 0001 76 \
              0001 63 05 18 00000005 0001 77 0001 78 0001 75 0001 70";
    check(V5, &connect(V5, "c", with), v5);
    let v3 = "10 19 00044D515454 04 CE 000A 0001 63 0001 77 0001 78 0001 75 0001 70";
    check(V3, &connect(V3, "c", with), v3);
}
