//! Where another codec and ours differ, and which statement decides.

use std::panic::RefUnwindSafe;

use mqtt_proto::{
    Malformed::{self, *},
    ReasonCode, TextError, TopicError,
    Version::{self, V3, V5},
    packet::Packet,
};

use super::{Cannot, Peer, Theirs, Verdicts, common::hex};

const BOTH: &[Version] = &[V3, V5];
const CORE: &str = "mqtt-protocol-core";
const RUMQTTC: &str = "rumqttc";

/// What a peer has no words for, and where the version has them.
pub(crate) const CANNOT: &[(&str, Cannot, &str)] = &[
    (
        CORE,
        Cannot::PasswordAlone,
        "[MQTT5-3.1.2-19]: 5.0 allows a password without a user name",
    ),
    (
        RUMQTTC,
        Cannot::EmptyCredential,
        "[MQTT3-3.1.2-19] [MQTT5-3.1.2-17]: they may be empty",
    ),
    (
        RUMQTTC,
        Cannot::BinaryPassword,
        "[MQTT3 3.1.3.5] [MQTT5 3.1.3.6]: a password is binary",
    ),
    (
        RUMQTTC,
        Cannot::Auth,
        "[MQTT5 3.15]: it writes AUTH with a wrong length and reads none",
    ),
];

/// One known difference.
pub(crate) struct Disagreement {
    pub(crate) peer: &'static str,
    pub(crate) versions: &'static [Version],
    /// What the other does.
    pub(crate) what: &'static str,
    /// What decides. The other is wrong by it, unless it says otherwise.
    pub(crate) decided_by: &'static str,
    /// Bytes that show it, in each of the versions.
    pub(crate) examples: &'static [&'static str],
    pub(crate) explains: fn(&Verdicts) -> bool,
}

/// That the peer has exactly the differences of its rows: each example is one, and its row says so.
pub(crate) fn check<P: Peer + RefUnwindSafe>(peer: &P) {
    let rows = DISAGREEMENTS.iter().filter(|row| row.peer == peer.name());
    for row in rows.filter(|row| row.versions.contains(&peer.version())) {
        assert_eq!(row.versions.len(), row.examples.len(), "{}", row.what);
        assert!(
            row.decided_by.contains("[MQTT"),
            "{} cites no statement",
            row.what
        );
        let examples = row.versions.iter().zip(row.examples);
        for (_, example) in examples.filter(|(version, _)| **version == peer.version()) {
            let verdicts = Verdicts::of(peer, hex(example));
            assert!(
                !verdicts.agree(),
                "{} no longer {}: {verdicts:?}",
                peer.name(),
                row.what
            );
            assert!((row.explains)(&verdicts), "{}: {verdicts:?}", row.what);
        }
    }
}

/// Why we refuse it; `None` if we take it.
fn refused(verdicts: &Verdicts) -> Option<Malformed> {
    verdicts.ours.as_ref().err().copied()
}

fn packet_type(verdicts: &Verdicts) -> u8 {
    verdicts.bytes[0] >> 4
}

fn nul(verdicts: &Verdicts) -> bool {
    const NUL: TopicError = TopicError::Text(TextError::Nul);
    matches!(
        refused(verdicts),
        Some(Text(TextError::Nul) | TopicName(NUL) | TopicFilter(NUL))
    )
}

fn wildcard(verdicts: &Verdicts) -> bool {
    const WILDCARD: TopicError = TopicError::Wildcard;
    matches!(
        refused(verdicts),
        Some(TopicName(WILDCARD) | ResponseTopic(WILDCARD))
    )
}

fn no_topic(verdicts: &Verdicts) -> bool {
    const EMPTY: TopicError = TopicError::Empty;
    matches!(
        refused(verdicts),
        Some(NoTopic | TopicName(EMPTY) | ResponseTopic(EMPTY))
    )
}

fn filter(verdicts: &Verdicts) -> bool {
    const EMPTY: TopicError = TopicError::Empty;
    const MULTI: TopicError = TopicError::MultiLevel;
    const SINGLE: TopicError = TopicError::SingleLevel;
    matches!(refused(verdicts), Some(TopicFilter(EMPTY | MULTI | SINGLE)))
}

fn bad_method(verdicts: &Verdicts) -> bool {
    const CODE: ReasonCode = ReasonCode::BAD_AUTHENTICATION_METHOD;
    matches!(&verdicts.ours, Ok(Packet::Disconnect(packet)) if packet.reason_code == CODE)
}

/// The protocol level of a CONNECT is not the one this codec was asked for.
fn other_level(verdicts: &Verdicts, level: u8) -> bool {
    let (first, body) = super::split(&verdicts.bytes);
    first >> 4 == 1 && body.starts_with(b"\0\x04MQTT") && body.get(6) == Some(&level)
}

macro_rules! rows {
    ($($peer:ident $versions:expr, $what:literal, $decided_by:literal, [$($example:literal),+], $explains:expr;)*) => {
        &[$(Disagreement {
            peer: $peer,
            versions: $versions,
            what: $what,
            decided_by: $decided_by,
            examples: &[$($example),+],
            explains: $explains,
        }),*]
    };
}

#[rustfmt::skip]
pub(crate) const DISAGREEMENTS: &[Disagreement] = rows! {
    // Both peers, both versions.
    CORE BOTH, "takes U+0000 in strings", "[MQTT3-1.5.3-2] [MQTT5-1.5.4-2]",
        ["30 03 0001 00", "30 04 0001 00 00"], nul;
    RUMQTTC BOTH, "takes U+0000 in strings", "[MQTT3-1.5.3-2] [MQTT5-1.5.4-2]",
        ["30 03 0001 00", "30 04 0001 00 00"], nul;
    CORE BOTH, "takes wildcards in topic names", "[MQTT3-3.3.2-2] [MQTT5-3.3.2-2] [MQTT5-3.3.2-14]",
        ["30 03 0001 23", "30 04 0001 23 00"], wildcard;
    RUMQTTC BOTH, "takes wildcards in topic names", "[MQTT3-3.3.2-2] [MQTT5-3.3.2-2] [MQTT5-3.3.2-14]",
        ["30 03 0001 23", "30 04 0001 23 00"], wildcard;
    CORE BOTH, "takes empty topic names without an alias", "[MQTT3-4.7.3-1] [MQTT5-4.7.3-1]",
        ["30 02 0000", "30 03 0000 00"], no_topic;
    RUMQTTC BOTH, "takes empty topic names without an alias", "[MQTT3-4.7.3-1] [MQTT5-4.7.3-1]",
        ["30 02 0000", "30 03 0000 00"], no_topic;
    CORE BOTH, "takes a duplicate at QoS 0", "[MQTT3-3.3.1-2] [MQTT5-3.3.1-2]",
        ["38 03 0001 61", "38 04 0001 61 00"], |it| refused(it) == Some(DuplicateAtMostOnce);
    RUMQTTC BOTH, "takes a duplicate at QoS 0", "[MQTT3-3.3.1-2] [MQTT5-3.3.1-2]",
        ["38 03 0001 61", "38 04 0001 61 00"], |it| refused(it) == Some(DuplicateAtMostOnce);
    CORE BOTH, "takes packet identifier 0", "[MQTT3-2.3.1-1] [MQTT5-2.2.1-3]",
        ["90 03 0000 00", "90 04 0000 00 00"], |it| refused(it) == Some(ZeroPacketId);
    RUMQTTC BOTH, "takes packet identifier 0", "[MQTT3-2.3.1-1] [MQTT5-2.2.1-3]",
        ["40 02 0000", "40 02 0000"], |it| refused(it) == Some(ZeroPacketId);
    CORE BOTH, "takes reserved acknowledge flags", "[MQTT3 3.2.2.1] [MQTT5 3.2.2.1]",
        ["20 02 02 00", "20 03 02 00 00"], |it| matches!(refused(it), Some(ConnAckFlags(_)));
    RUMQTTC BOTH, "takes reserved acknowledge flags", "[MQTT3 3.2.2.1] [MQTT5 3.2.2.1]",
        ["20 02 02 00", "20 03 02 00 00"], |it| matches!(refused(it), Some(ConnAckFlags(_)));
    CORE BOTH, "takes a session present in a refusal", "[MQTT3-3.2.2-4] [MQTT5-3.2.2-6]",
        ["20 02 01 05", "20 03 01 87 00"], |it| refused(it) == Some(SessionPresentInRefusal);
    RUMQTTC BOTH, "takes a session present in a refusal", "[MQTT3-3.2.2-4] [MQTT5-3.2.2-6]",
        ["20 02 01 05", "20 03 01 87 00"], |it| refused(it) == Some(SessionPresentInRefusal);
    CORE BOTH, "takes contradicting connect flags", "[MQTT3-3.1.2-3] [MQTT3-3.1.2-13] [MQTT5-3.1.2-3] [MQTT5-3.1.2-11]",
        ["10 0C 00044D515454 04 03 0000 0000", "10 0D 00044D515454 05 0A 0000 00 0000"],
        |it| matches!(refused(it), Some(ConnectFlags(_)));
    RUMQTTC BOTH, "takes the reserved connect flag, and a password alone in 3.1.1", "[MQTT3-3.1.2-3] [MQTT3-3.1.2-22] [MQTT5-3.1.2-3]",
        ["10 0C 00044D515454 04 03 0000 0000", "10 0D 00044D515454 05 03 0000 00 0000"],
        |it| matches!(refused(it), Some(ConnectFlags(_)));
    CORE BOTH, "takes any text as topic filter", "[MQTT3-4.7.1-2] [MQTT3-4.7.1-3] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2]",
        ["A2 06 0001 0002 6123", "A2 07 0001 00 0002 612B"], filter;
    RUMQTTC BOTH, "takes any text as topic filter", "[MQTT3-4.7.1-2] [MQTT3-4.7.1-3] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2]",
        ["A2 06 0001 0002 6123", "A2 07 0001 00 0002 612B"], filter;
    CORE &[V3], "takes a share without a name or a filter",
        "[MQTT3 4.7]: they are right, 3.1.1 has no shares; but its servers read `$share` all the same",
        ["A2 0C 0001 0008 2473686172652F67"], |it| refused(it) == Some(TopicFilter(TopicError::Share));
    CORE &[V5], "takes `$share` alone", "[MQTT5-4.8.2-1]",
        ["A2 0B 0001 00 0006 247368617265"], |it| refused(it) == Some(TopicFilter(TopicError::Share));
    RUMQTTC BOTH, "takes a share without a name or a filter",
        "[MQTT5-4.8.2-1] [MQTT5-4.8.2-2]; they are right in 3.1.1, whose servers read `$share` all the same",
        ["A2 0C 0001 0008 2473686172652F67", "A2 0D 0001 00 0008 2473686172652F67"],
        |it| refused(it) == Some(TopicFilter(TopicError::Share));
    CORE BOTH, "takes reserved subscription options in 3.1.1, No Local on a share in 5.0", "[MQTT3-3.8.3-4] [MQTT5-3.8.3-4]",
        ["82 06 0001 0001 61 04", "82 10 0001 00 000A 2473686172652F672F61 04"],
        |it| matches!(refused(it), Some(SubscriptionOptions(_)));
    RUMQTTC BOTH, "takes reserved subscription options and No Local on a share", "[MQTT3-3.8.3-4] [MQTT5-3.8.3-4] [MQTT5-3.8.3-5]",
        ["82 06 0001 0001 61 04", "82 07 0001 00 0001 61 40"],
        |it| matches!(refused(it), Some(SubscriptionOptions(_)));

    CORE &[V5], "refuses a DISCONNECT of code 0x8C",
        "[MQTT5 2.4] lists it for DISCONNECT, the table of [MQTT5-3.14.2-1] forgets it: we take it",
        ["E0 02 8C 00"], bad_method;
    RUMQTTC &[V5], "refuses a DISCONNECT of code 0x8C",
        "[MQTT5 2.4] lists it for DISCONNECT, the table of [MQTT5-3.14.2-1] forgets it: we take it",
        ["E0 02 8C 00"], bad_method;

    // A CONNECT of the other version: we decode it as what it says it is.
    CORE BOTH, "refuses a CONNECT of the other version", "[MQTT3 3.1.2.2] [MQTT5 3.1.2.2]: a matter of taste",
        ["10 0D 00044D515454 05 02 0000 00 0000", "10 0C 00044D515454 04 02 0000 0000"],
        |it| (other_level(it, 4) || other_level(it, 5)) && matches!(it.theirs, Theirs::Refused(_));
    RUMQTTC &[V3], "reads a CONNECT of 5.0 as one of 3.1.1", "[MQTT3 3.1.2.2]: the formats differ",
        ["10 12 00044D515454 05 02 0000 05 11 00000000 0000"], |it| other_level(it, 5);
    RUMQTTC &[V5], "refuses a CONNECT of 3.1.1", "[MQTT5 3.1.2.2]: a matter of taste",
        ["10 0C 00044D515454 04 02 0000 0000"], |it| other_level(it, 4);

    // mqtt-protocol-core.
    CORE &[V3], "takes acknowledgements of more than two bytes", "[MQTT3 3.4]: the remaining length is 2",
        ["40 03 0001 00"], |it| refused(it) == Some(TrailingBytes) && (4..8).contains(&packet_type(it));
    CORE &[V5], "takes a property length that is longer than needed", "[MQTT5-1.5.5-1]",
        ["90 06 0001 8000 00 00"], |it| refused(it) == Some(VariableByteInteger);
    CORE &[V5], "takes a PUBLISH without a property length", "[MQTT5-2.2.2-1]",
        ["30 03 0001 61"], |it| refused(it) == Some(Truncated) && packet_type(it) == 3;
    CORE &[V5], "takes an AUTH of a code alone", "[MQTT5-2.2.2-1] [MQTT5 3.15.2.1]: code and property length go together",
        ["F0 01 00"], |it| refused(it) == Some(Truncated) && packet_type(it) == 15;
    CORE &[V5], "refuses a password without a user name", "[MQTT5-3.1.2-19] [MQTT5 3.1.2.9]",
        ["10 0F 00044D515454 05 42 0000 00 0000 0000"],
        |it| matches!(&it.ours, Ok(Packet::Connect(it)) if it.password.is_some() && it.user_name.is_none());
    CORE &[V5], "takes authentication data without a method in CONNECT", "[MQTT5 3.1.2.11.10]",
        ["10 11 00044D515454 05 02 0000 04 16 0001 00 0000"], |it| refused(it) == Some(AuthenticationDataAlone);

    // rumqttc.
    RUMQTTC BOTH, "takes bytes after the last field", "[MQTT3-4.8.0-1] [MQTT5 4.13.1]",
        ["D0 01 00", "D0 01 00"], |it| refused(it) == Some(TrailingBytes);
    RUMQTTC BOTH, "takes an UNSUBSCRIBE without a filter", "[MQTT3-3.10.3-2] [MQTT5-3.10.3-2]",
        ["A2 02 0001", "A2 03 0001 00"], |it| refused(it) == Some(EmptyList) && packet_type(it) == 10;
    RUMQTTC BOTH, "reads an empty user name or password as none", "[MQTT3-3.1.2-19] [MQTT3-3.1.2-21] [MQTT5-3.1.2-17] [MQTT5-3.1.2-19]",
        ["10 0E 00044D515454 04 82 0000 0000 0000", "10 0F 00044D515454 05 82 0000 00 0000 0000"],
        |it| matches!(&it.ours, Ok(Packet::Connect(it)) if it.user_name.as_deref() == Some("")
            || it.password.as_ref().is_some_and(|password| password.expose().is_empty()));
    RUMQTTC BOTH, "refuses a password that is not text", "[MQTT3 3.1.3.5] [MQTT5 3.1.3.6]",
        ["10 11 00044D515454 04 C2 0000 0000 0000 0001 FF", "10 12 00044D515454 05 C2 0000 00 0000 0000 0001 FF"],
        |it| matches!(&it.ours, Ok(Packet::Connect(it))
            if it.password.as_ref().is_some_and(|password| std::str::from_utf8(password.expose()).is_err()));
    RUMQTTC &[V5], "takes topic names that are not UTF-8", "[MQTT5-1.5.4-1] [MQTT5-3.3.2-1]",
        ["30 04 0001 FF 00"], |it| refused(it) == Some(TopicName(TopicError::Text(TextError::NotUtf8)));
    RUMQTTC &[V5], "takes properties twice", "[MQTT5 2.2.2.2]",
        ["20 07 0000 04 2501 2501"], |it| matches!(refused(it), Some(RepeatedProperty(_)));
    RUMQTTC &[V5], "takes property values out of their range", "[MQTT5 3.2.2.3] [MQTT5-3.3.2-8]",
        ["20 05 0000 02 2402"], |it| matches!(refused(it), Some(PropertyValue(_) | ZeroTopicAlias));
    RUMQTTC &[V5], "takes authentication data without a method", "[MQTT5 3.1.2.11.10]",
        ["10 11 00044D515454 05 02 0000 04 16 0001 00 0000"], |it| refused(it) == Some(AuthenticationDataAlone);
    RUMQTTC &[V5], "takes lengths that are longer than needed", "[MQTT5-1.5.5-1]",
        ["90 05 0001 8000 00"], |it| refused(it) == Some(VariableByteInteger);
    RUMQTTC &[V5], "reads a property past the end of its section", "[MQTT5 2.2.2.1]",
        ["20 05 0000 01 2501"], |it| refused(it) == Some(Truncated);
    RUMQTTC &[V5], "counts a subscription identifier one byte too long, and properties behind it as payload", "[MQTT5 2.2.2.1]",
        ["30 0A 0001 61 06 0B01 0B02 0B03"], |it| matches!(packet_type(it), 3 | 8) && it.bytes.contains(&0x0B);
    RUMQTTC &[V5], "refuses a DISCONNECT without a property length", "[MQTT5 3.14.2.1] [MQTT5 3.14.2.2.1]",
        ["E0 00"], |it| matches!(&it.ours, Ok(Packet::Disconnect(it)) if it.properties.is_empty());
    RUMQTTC &[V5], "reads no AUTH", "[MQTT5 3.15]",
        ["F0 00"], |it| packet_type(it) == 15;
};
