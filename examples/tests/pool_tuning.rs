//! The example of a tuned pool: its file, the variables that win over it, and the account of a
//! configuration that is wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../pool_tuning.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod pool_tuning;

use std::{fs, process::ExitCode, time::Duration};

use mqtt_client::pool::PoolConfig;
use pool_tuning::{Gateway, run};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pool_tuning.toml");

/// What became of a run with these variables and no others, with what it wrote and complained of.
async fn outcome(args: &[&str], variables: &[(&str, &str)]) -> (bool, String, String) {
    let args = args.iter().map(|arg| (*arg).to_owned());
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let run = run(args, Some(variables), &mut out, &mut err);
    let code = tokio::time::timeout(Duration::from_secs(60), run)
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code == ExitCode::SUCCESS, text(out), text(err))
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn the_file_loads_and_has_every_option_of_a_pool() {
    let gateway = Gateway::load(FILE, Some([].into())).unwrap();
    assert_eq!(gateway.pool.name, "uplink");
    assert_eq!(gateway.endpoints.len(), 2);

    let file = fs::read_to_string(FILE).unwrap();
    let written = toml::to_string(&PoolConfig::default()).unwrap();
    let options: Vec<_> = written
        .lines()
        .filter_map(|l| l.split_once(" = "))
        .collect();
    assert!(options.len() > 15, "{written}");
    for (option, _) in options {
        contains(&file, &[&format!("\n{option} = ")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_taken_from_the_pool_that_is_configured() {
    let (ok, out, err) = outcome(&[], &[("GATEWAY_POOL__MAX_SIZE", "2")]).await;
    assert!(ok, "{err}");
    contains(
        &out,
        &[
            "uplink, at most 2 sessions",
            "mqtt://broker-2.example:1883, 2 of 3 parts",
            "new       0 idle, 0 in use, 0 connecting, 0 waiting, at most 2\n",
            "leased    0 idle, 2 in use, 0 connecting, 0 waiting, at most 2\n",
            "wanted    0 idle, 2 in use, 0 connecting, 1 waiting, at most 2\n",
            "served    0 idle, 2 in use, 0 connecting, 0 waiting, at most 2\n",
            "returned  2 idle, 0 in use, 0 connecting, 0 waiting, at most 2\n",
            "by Little's law 2 sessions carry",
            "closed    0 idle, 0 in use, 0 connecting, 0 waiting, at most 2\n",
        ],
    );
}

#[tokio::test]
async fn a_variable_wins_over_the_file() {
    let variables = [
        ("GATEWAY_POOL__MAX_SIZE", "9"),
        // Not made a number on the way.
        ("GATEWAY_POOL__NAME", "007"),
        ("GATEWAY_ENDPOINTS", "mqtt://a, mqtt://b"),
        ("OTHER_POOL__MAX_SIZE", "0"),
    ];
    let (ok, out, err) = outcome(&["--check"], &variables).await;
    assert!(ok, "{err}");
    contains(
        &out,
        &[
            "pool      007, at most 9 sessions\n",
            "endpoint  mqtt://a:1883, 1 of 2 parts",
            "endpoint  mqtt://b:1883, 1 of 2 parts",
            "the configuration is right",
        ],
    );
    let variables = variables
        .into_iter()
        .chain([
            ("GATEWAY_POOL__BACKOFF__MAX", "1m"),
            ("GATEWAY_POOL__IDLE_TIMEOUT", "never"),
        ])
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let pool = Gateway::load(FILE, Some(variables)).unwrap().pool;
    assert_eq!(pool.backoff.max, Duration::from_secs(60));
    assert_eq!(pool.idle_timeout.duration(), None);
    // From the file all the same.
    assert_eq!(pool.acquire_timeout, Duration::from_secs(2));
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    let text = r#"
        endpoints = ["mqtt://a", { url = "mqtt://a", weight = 0 }]
        [pool]
        max_size = "many"
        max_sise = 3
        min_idle = 500
        idle_timeout = 30
        [pool.backoff]
        base = "0s"
        min = "1s"
        [session]
        keep_alive = "1ms"
        [transport.tcp]
        keepalive = "1ms"
        [transport.proxy]
        timeout = "1s"
        [metrics]
        port = 9100
    "#;
    fs::write(&file, text).unwrap();
    let variables = [
        ("GATEWAY_POOL__CHECK_AFTER", "30"),
        ("GATEWAY_POOL_MAX_IDLE", "1"),
    ];
    let (ok, out, err) = outcome(&["--config", file.to_str().unwrap()], &variables).await;
    assert!(!ok);
    assert_eq!(out, "");
    let expected = [
        ("metrics", "unknown field `metrics`, expected one of `pool`"),
        ("pool.backoff.min in ", "unknown field `min`"),
        ("pool.check_after in the environment", "\"30\" is neither"),
        ("pool.idle_timeout in ", "\"30\" is neither \"never\" nor"),
        ("pool.max_sise in ", "unknown field `max_sise`"),
        ("pool.max_size in ", "string \"many\" where an integer is"),
        ("pool_max_idle in the environment", "unknown field"),
        ("transport.proxy", "transport.proxy.url"),
        ("pool.min_idle is 500", "must not be above max_idle"),
        ("pool.backoff.base is 0s", "must be longer than zero"),
        (
            "endpoints[1].url is mqtt://a:1883",
            "must not be there twice",
        ),
        ("endpoints[1].weight is 0", "must be from 1 to 1000"),
        ("session.keep_alive is 1ms", "whole seconds"),
        ("transport.tcp.keepalive is 1ms", "must be from 1s"),
    ];
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{err}");
    for (line, (path, problem)) in lines.into_iter().zip(expected) {
        assert!(line.starts_with(path) && line.contains(problem), "{line}");
    }
}

#[tokio::test]
async fn a_list_is_told_of_once_and_its_rules_are_left_out() {
    let variables = [("GATEWAY_ENDPOINTS", "mqtt://user:hunter2@a,localhost")];
    let (ok, _, err) = outcome(&["--check"], &variables).await;
    assert!(!ok);
    assert_eq!(err.lines().count(), 1, "{err}");
    contains(&err, &["endpoints[0] in the environment: "]);
    assert!(!err.contains("hunter2"), "{err}");
}

#[tokio::test]
async fn what_is_no_configuration_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    fs::write(&file, "[pool").unwrap();
    for (args, told) in [
        (&["--config", file.to_str().unwrap()][..], "unclosed table"),
        (
            &["--config", "/nowhere.toml"],
            "\"/nowhere.toml\" not found",
        ),
        (&["--config"], "pool_tuning [--config FILE] [--check]"),
        (&["--help"], "pool_tuning [--config FILE] [--check]"),
    ] {
        let (ok, out, err) = outcome(args, &[]).await;
        assert!(!ok);
        assert_eq!(out, "");
        contains(&err, &[told]);
    }
}
