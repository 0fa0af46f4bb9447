//! Which property belongs where, and how often: every identifier in every packet that has
//! properties (5.0 section 2.2.2.2).

use mqtt_proto::codec::MAX_USER_PROPERTIES;

use super::*;

/// Every property, with a value it can have.
const PROPERTIES: [(u8, &str); 27] = [
    (0x01, "01"),
    (0x02, "0000000A"),
    (0x03, "0001 61"),
    (0x08, "0001 61"),
    (0x09, "0001 00"),
    (0x0B, "01"),
    (0x11, "0000000A"),
    (0x12, "0001 61"),
    (0x13, "000A"),
    (0x15, "0001 61"),
    (0x16, "0001 00"),
    (0x17, "01"),
    (0x18, "0000000A"),
    (0x19, "01"),
    (0x1A, "0001 61"),
    (0x1C, "0001 61"),
    (0x1F, "0001 61"),
    (0x21, "000A"),
    (0x22, "000A"),
    (0x23, "000A"),
    (0x24, "01"),
    (0x25, "01"),
    (0x26, "0001 61 0001 62"),
    (0x27, "0000000A"),
    (0x28, "01"),
    (0x29, "01"),
    (0x2A, "01"),
];

/// A packet that has properties: its first byte, what stands before and behind them, and those
/// that belong to it, other than user properties, which belong everywhere.
struct Place {
    name: &'static str,
    first: u8,
    before: &'static str,
    behind: &'static str,
    belong: &'static [u8],
}

const CONNACK: &[u8] = &[
    0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x27, 0x28, 0x29, 0x2A,
];
const PUBLISH: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23];
const CONNECT: &[u8] = &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x27];
const WILL: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18];

#[rustfmt::skip]
const PLACES: [Place; 14] = [
    Place { name: "CONNACK", first: 0x20, before: "0000", behind: "", belong: CONNACK },
    Place { name: "PUBLISH", first: 0x30, before: "0001 61", behind: "", belong: PUBLISH },
    Place { name: "PUBACK", first: 0x40, before: "0001 00", behind: "", belong: &[0x1F] },
    Place { name: "PUBREC", first: 0x50, before: "0001 00", behind: "", belong: &[0x1F] },
    Place { name: "PUBREL", first: 0x62, before: "0001 00", behind: "", belong: &[0x1F] },
    Place { name: "PUBCOMP", first: 0x70, before: "0001 00", behind: "", belong: &[0x1F] },
    Place { name: "SUBACK", first: 0x90, before: "0001", behind: "00", belong: &[0x1F] },
    Place { name: "UNSUBACK", first: 0xB0, before: "0001", behind: "00", belong: &[0x1F] },
    Place { name: "DISCONNECT", first: 0xE0, before: "00", behind: "", belong: &[0x11, 0x1C, 0x1F] },
    Place { name: "AUTH", first: 0xF0, before: "00", behind: "", belong: &[0x15, 0x16, 0x1F] },
    Place { name: "SUBSCRIBE", first: 0x82, before: "0001", behind: "0001 61 00", belong: &[0x0B] },
    Place { name: "UNSUBSCRIBE", first: 0xA2, before: "0001", behind: "0001 61", belong: &[] },
    Place { name: "CONNECT", first: 0x10, before: "00044D515454 05 02 0000", behind: "0000", belong: CONNECT },
    Place { name: "a will", first: 0x10, before: "00044D515454 05 06 0000 00 0000", behind: "0001 61 0000", belong: WILL },
];

impl Place {
    /// The packet with these properties.
    fn with(&self, properties: &[u8]) -> Vec<u8> {
        let mut body = hex(self.before);
        body.extend(framed(0, properties).into_iter().skip(1));
        body.extend(hex(self.behind));
        framed(self.first, &body)
    }

    #[track_caller]
    fn refused(&self, properties: &[u8], kind: Malformed, code: ReasonCode) {
        let what = format!("{} with {properties:02X?}", self.name);
        let Err(DecodeError::Malformed(error)) = decode(V5, &self.with(properties)) else {
            panic!("{what} is taken");
        };
        assert_eq!(
            (error.kind, error.kind.reason_code()),
            (kind, code),
            "{what}"
        );
        assert!(error.to_string().ends_with("[MQTT5 2.2.2.2]"), "{error}");
    }
}

/// A property as it stands on the wire.
fn property(id: u8, value: &str) -> Vec<u8> {
    let mut bytes = vec![id];
    bytes.extend(hex(value));
    bytes
}

#[test]
fn every_property_in_every_packet() {
    for place in PLACES {
        for (id, value) in PROPERTIES {
            let once = property(id, value);
            let twice = once.repeat(2);
            if id == 0x26 || place.belong.contains(&id) {
                // Authentication data needs its method, other than in CONNACK.
                let method = match (place.name, id) {
                    ("CONNECT" | "AUTH", 0x16) => property(0x15, "0001 61"),
                    _ => Vec::new(),
                };
                let taken = decode(V5, &place.with(&[&method[..], &once].concat()));
                assert!(
                    matches!(taken, Ok(Some(_))),
                    "{} {id:02X}: {taken:?}",
                    place.name
                );
                if id == 0x26 || (id == 0x0B && place.name == "PUBLISH") {
                    let taken = decode(V5, &place.with(&twice));
                    assert!(
                        matches!(taken, Ok(Some(_))),
                        "{} {id:02X}: {taken:?}",
                        place.name
                    );
                } else {
                    place.refused(&twice, Malformed::RepeatedProperty(id), PROTOCOL);
                }
            } else {
                place.refused(&once, Malformed::MisplacedProperty(id), MALFORMED);
            }
        }
    }
}

#[test]
fn identifiers_that_do_not_exist() {
    for place in PLACES {
        for id in (0..=0x7F_u8).filter(|id| !PROPERTIES.iter().any(|(known, _)| known == id)) {
            let kind = Malformed::UnknownProperty(id.into());
            place.refused(&[id, 0, 0, 0, 0], kind, MALFORMED);
        }
        for (bytes, id) in [
            ("8001", 128),
            ("9F01", 159),
            ("A602", 294),
            ("FFFFFF7F", 268_435_455),
        ] {
            let kind = Malformed::UnknownProperty(id);
            place.refused(&hex(&format!("{bytes} 0000")), kind, MALFORMED);
        }
    }
}

/// A property section ends with its packet at the latest, and a property with its section.
#[test]
fn every_property_cut_at_every_length() {
    for place in PLACES {
        for (id, value) in PROPERTIES {
            let whole = property(id, value);
            if id != 0x26 && !place.belong.contains(&id) {
                continue;
            }
            for len in 1..whole.len() {
                let error = decode(V5, &place.with(&whole[..len])).unwrap_err();
                let DecodeError::Malformed(error) = error else {
                    panic!("{error}");
                };
                assert_eq!(error.kind, Malformed::Truncated, "{} {id:02X}", place.name);
            }
        }
    }
}

/// CVE-2021-41039: what many user properties or subscription identifiers cost has a bound.
#[test]
fn too_many_properties() {
    let publish = PLACES.iter().find(|place| place.name == "PUBLISH").unwrap();
    for property in ["26 0000 0000", "0B 01"] {
        let most = hex(property).repeat(MAX_USER_PROPERTIES);
        assert!(matches!(decode(V5, &publish.with(&most)), Ok(Some(_))));
        let more = hex(property).repeat(MAX_USER_PROPERTIES + 1);
        let kind = Malformed::TooManyUserProperties;
        publish.refused(&more, kind, ReasonCode::QUOTA_EXCEEDED);
    }
}
