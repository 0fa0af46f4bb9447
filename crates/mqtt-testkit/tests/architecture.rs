//! What the published crates never reach, not even through others.
//!
//! `deny.toml` says who may depend on a crate directly; for tokio, on which nearly everything does,
//! such a list would be long and would say nothing about `mqtt-proto`. Here it is one line. And this
//! runs with every `cargo test`, with no tool installed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// No I/O, no clock, no async.
const PROTO: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "futures-core",
    "tower-service",
    "mqtt-transport",
    "mqtt-pool",
];
const TRANSPORT: &[&str] = &["mqtt-proto", "mqtt-pool", "deadpool"];
const POOL: &[&str] = &["mqtt-proto", "mqtt-client"];
/// What serves tests and measurements only.
const NONE_PUBLISHED: &[&str] = &[
    "mqtt-testkit",
    "mqtt5",
    "rcgen",
    "rumqttc",
    "proptest",
    "tempfile",
];

/// Everything that the library of a crate is built from, with all features, itself included.
fn built_from(name: &str) -> BTreeSet<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .current_dir(workspace)
        .args(["tree", "--locked", "--all-features", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}", "--package", name])
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let tree = String::from_utf8_lossy(&output.stdout);
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[track_caller]
fn check(name: &str, never: &[&str]) {
    let found = built_from(name);
    assert!(found.contains(name), "{found:?}");
    for other in never.iter().chain(NONE_PUBLISHED) {
        assert!(!found.contains(*other), "{name} is built from {other}");
    }
}

#[test]
fn the_protocol_does_no_io_and_knows_no_clock() {
    check("mqtt-proto", PROTO);
}

#[test]
fn the_transport_knows_no_protocol() {
    check("mqtt-transport", TRANSPORT);
}

#[test]
fn the_pool_knows_no_protocol() {
    check("mqtt-pool", POOL);
}

#[test]
fn the_client_needs_no_test_kit() {
    check("mqtt-client", &[]);
}
