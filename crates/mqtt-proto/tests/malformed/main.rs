//! Every malformed form a decoder can meet, as hand-written bytes: what kind of error it is, which
//! statement its text names, and what the peer is told.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect panics"
)]

use mqtt_proto::{
    DecodeError, Malformed, ReasonCode, TextError, TopicError, Version,
    Version::{V3, V5},
};

#[path = "../common/mod.rs"]
mod common;
mod fields;
mod header;
mod lengths;
mod properties;
mod values;

use common::{VERSIONS, decode, framed, hex};

const MALFORMED: ReasonCode = ReasonCode::MALFORMED_PACKET;
const PROTOCOL: ReasonCode = ReasonCode::PROTOCOL_ERROR;

/// That `bytes` are refused for this reason, with a text that ends in the statement.
#[track_caller]
fn check(version: Version, bytes: &str, kind: Malformed, statement: &str, code: ReasonCode) {
    let error = decode(version, &hex(bytes)).expect_err(bytes);
    let DecodeError::Malformed(malformed) = &error else {
        panic!("{bytes}: {error}");
    };
    assert_eq!(malformed.kind, kind, "{bytes}");
    assert_eq!(error.reason_code(), code, "{bytes}: {error}");
    let text = error.to_string();
    assert!(
        text.ends_with(&format!("[{statement}]")),
        "{bytes} gives {text:?}, which does not end in [{statement}]"
    );
    assert!(text.starts_with("malformed "), "{text}");
}

#[track_caller]
fn accepted(version: Version, bytes: &str) {
    assert!(
        matches!(decode(version, &hex(bytes)), Ok(Some(_))),
        "{bytes}: {:?}",
        decode(version, &hex(bytes))
    );
}

/// `body` behind a fixed header, in hex.
fn framed_hex(first: u8, body: &str) -> String {
    framed(first, &hex(body))
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}
