//! Our codec against two others, of other authors: `mqtt-protocol-core` and `rumqttc`, each in
//! both versions.
//!
//! Every packet is also built in the other's words. What we encode must decode there to that, and
//! what is encoded there must decode here to ours. Damaged packets must be taken or refused by
//! both. Where the two differ, `disagreements` has a row that says so and which statement decides;
//! a difference without a row fails, and so does a row whose example is no longer a difference.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect panics"
)]

use std::{cell::Cell, fmt::Debug, panic};

use mqtt_proto::{DecodeError, Malformed, Version, packet::Packet};
use proptest::prelude::*;

#[path = "../common/mod.rs"]
mod common;
mod core;
mod core_properties;
mod disagreements;
mod rumqttc_v3;
mod rumqttc_v5;

use common::{Mutation, encode, mutations, packet};
use disagreements::{CANNOT, DISAGREEMENTS};

/// What the other codec has no words for, although the version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cannot {
    PasswordAlone,
    EmptyCredential,
    BinaryPassword,
    Auth,
}

/// Another codec, for one version.
pub(crate) trait Peer {
    type Packet: PartialEq + Debug;

    fn name(&self) -> &'static str;
    fn version(&self) -> Version;
    /// Our packet in the other's words.
    fn convert(&self, packet: &Packet) -> Result<Self::Packet, Cannot>;
    fn encode(&self, packet: &Self::Packet) -> Vec<u8>;
    fn decode(&self, bytes: &[u8]) -> Result<Self::Packet, String>;
}

/// What both make of the same bytes.
#[derive(Debug)]
pub(crate) struct Verdicts {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ours: Result<Packet, Malformed>,
    pub(crate) theirs: Theirs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Theirs {
    /// Taken, and the same fields; or taken where we refuse.
    Taken,
    /// Taken, with other fields than ours.
    Other(String),
    Refused(String),
    Panicked,
}

impl Verdicts {
    fn of<P: Peer + panic::RefUnwindSafe>(peer: &P, bytes: Vec<u8>) -> Self {
        let ours = match common::decode(peer.version(), &bytes) {
            Ok(Some(packet)) => Ok(packet),
            Err(DecodeError::Malformed(error)) => Err(error.kind),
            other => panic!("{bytes:02X?}: {other:?}"),
        };
        let theirs = match quietly(|| peer.decode(&bytes)) {
            Err(_) => Theirs::Panicked,
            Ok(Err(error)) => Theirs::Refused(error),
            Ok(Ok(theirs)) => match &ours {
                Ok(ours) if !means(peer, &theirs, ours) => Theirs::Other(format!("{theirs:?}")),
                _ => Theirs::Taken,
            },
        };
        Self {
            bytes,
            ours,
            theirs,
        }
    }

    /// Whether both took it as the same packet, or neither took it.
    fn agree(&self) -> bool {
        match self.theirs {
            Theirs::Taken => self.ours.is_ok(),
            Theirs::Other(_) => false,
            Theirs::Refused(_) | Theirs::Panicked => self.ours.is_err(),
        }
    }

    /// The rows that explain the difference.
    fn rows(&self, name: &str, version: Version) -> Vec<&'static str> {
        DISAGREEMENTS
            .iter()
            .filter(|row| row.peer == name && row.versions.contains(&version))
            .filter(|row| (row.explains)(self))
            .map(|row| row.what)
            .collect()
    }
}

/// Whether both packets say the same: equal, or the same again on the wire, since some codecs
/// remember the order of properties and whether a form was the short one.
fn means<P: Peer>(peer: &P, theirs: &P::Packet, ours: &Packet) -> bool {
    match peer.convert(ours) {
        Ok(converted) if converted == *theirs => true,
        _ => common::decode(peer.version(), &peer.encode(theirs)) == Ok(Some(ours.clone())),
    }
}

/// Catches panics of other people's code without a word on the terminal.
fn quietly<T>(run: impl FnOnce() -> T + panic::UnwindSafe) -> Result<T, ()> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(run);
    QUIET.set(false);
    result.map_err(|_| ())
}

/// Whole packets, both ways, field by field.
fn whole<P: Peer + panic::RefUnwindSafe>(peer: &P, packet: &Packet) -> Result<(), TestCaseError> {
    let version = peer.version();
    let bytes = encode(version, packet);
    match peer.convert(packet) {
        Ok(theirs) => {
            let encoded = peer.encode(&theirs);
            let ours = common::decode(version, &encoded);
            prop_assert_eq!(ours, Ok(Some(packet.clone())), "theirs: {:02X?}", encoded);
            if Verdicts::of(peer, bytes.clone()).agree() {
                prop_assert_eq!(peer.decode(&bytes), Ok(theirs), "ours: {:02X?}", bytes);
            }
        }
        Err(cannot) => {
            let known = CANNOT
                .iter()
                .any(|row| (row.0, row.1) == (peer.name(), cannot));
            prop_assert!(known, "{} cannot say {cannot:?}: {packet:?}", peer.name());
        }
    }
    same(peer, bytes)
}

/// Damaged packets. The flags of a PUBLISH are part of its body here; those of the others belong
/// to the fixed header, which not every codec leaves to its packets.
fn damaged<P: Peer + panic::RefUnwindSafe>(
    peer: &P,
    packet: &Packet,
    mutations: &[Mutation],
    flags: u8,
) -> Result<(), TestCaseError> {
    let mut bytes = Mutation::apply_all(mutations, &encode(peer.version(), packet));
    if matches!(packet, Packet::Publish(_)) {
        bytes[0] ^= flags;
    }
    same(peer, bytes)
}

fn same<P: Peer + panic::RefUnwindSafe>(peer: &P, bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let verdicts = Verdicts::of(peer, bytes);
    let explained = verdicts.agree() || !verdicts.rows(peer.name(), peer.version()).is_empty();
    prop_assert!(
        explained,
        "{} {}: {verdicts:02X?}",
        peer.name(),
        peer.version()
    );
    Ok(())
}

macro_rules! against {
    ($($name:ident: $peer:expr;)*) => {$(
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(1_500))]

                #[test]
                fn whole_packets(packet in packet($peer.version())) {
                    whole(&$peer, &packet)?;
                }
            }

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(4_000))]

                #[test]
                fn damaged_packets(
                    packet in packet($peer.version()),
                    mutations in mutations(),
                    flags in prop_oneof![3 => Just(0), 1 => 0..16_u8],
                ) {
                    damaged(&$peer, &packet, &mutations, flags)?;
                }
            }

            #[test]
            fn known_disagreements() {
                disagreements::check(&$peer);
            }
        }
    )*};
}

against! {
    core_v3: core::Core(Version::V3);
    core_v5: core::Core(Version::V5);
    rumqttc_v3_1_1: rumqttc_v3::Rumqttc;
    rumqttc_v5_0: rumqttc_v5::Rumqttc;
}

/// First byte and body.
pub(crate) fn split(bytes: &[u8]) -> (u8, &[u8]) {
    let header = 2 + bytes[1..]
        .iter()
        .take_while(|&&byte| byte & 0x80 != 0)
        .count();
    (bytes[0], &bytes[header..])
}
