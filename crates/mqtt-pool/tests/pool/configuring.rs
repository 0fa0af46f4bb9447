//! The options, their rules and their text.

use std::time::Duration;

use mqtt_pool::{ConfigErrors, Limit, Pool, PoolConfig};

use crate::server::{Server, seconds};

fn all_wrong() -> PoolConfig {
    let mut config = PoolConfig::default()
        .with_max_size(0)
        .with_max_idle(3)
        .with_idle_timeout(Duration::ZERO)
        .with_max_lifetime(Duration::from_millis(10))
        .with_lifetime_jitter(f64::NAN)
        .with_acquire_timeout(Duration::ZERO)
        .with_connect_timeout(Duration::ZERO);
    config.close_timeout = Duration::ZERO;
    config
}

fn paths(errors: &ConfigErrors) -> Vec<&str> {
    errors.iter().map(|error| &*error.path).collect()
}

const ALL: [&str; 8] = [
    "pool.max_size",
    "pool.max_idle",
    "pool.idle_timeout",
    "pool.max_lifetime",
    "pool.lifetime_jitter",
    "pool.acquire_timeout",
    "pool.connect_timeout",
    "pool.close_timeout",
];

#[test]
fn all_problems_are_told_at_once() {
    let errors = all_wrong().validate().unwrap_err();
    assert_eq!(paths(&errors), ALL);
    let text = errors.to_string();
    assert_eq!(text.lines().count(), ALL.len());
    assert!(
        text.contains("pool.max_idle is 3: must not be above max_size; "),
        "{text}"
    );
    assert!(text.contains("pool.max_lifetime is 10ms: "), "{text}");
}

#[test]
fn without_a_runtime_there_is_an_error_beside_the_others() {
    let errors = Pool::new(Server::default(), all_wrong()).unwrap_err();
    assert_eq!(paths(&errors), [&ALL[..], &["runtime"]].concat());
    let errors = Pool::new(Server::default(), PoolConfig::default()).unwrap_err();
    assert_eq!(paths(&errors), ["runtime"]);
}

#[tokio::test]
async fn sizes_that_cannot_be_allocated_are_refused() {
    let config = PoolConfig::default().with_max_size(usize::MAX);
    let errors = Pool::new(Server::default(), config).unwrap_err();
    assert_eq!(paths(&errors), ["pool.max_size"]);
}

#[test]
fn the_edges_are_allowed() {
    for config in [
        PoolConfig::default(),
        PoolConfig::default().with_max_size(1),
        PoolConfig::default().with_max_size(65_535).with_max_idle(0),
        PoolConfig::default().with_lifetime_jitter(0.0),
        PoolConfig::default().with_lifetime_jitter(1.0),
        PoolConfig::default().with_max_lifetime(seconds(1)),
        PoolConfig::default()
            .with_max_lifetime(Duration::MAX)
            .with_acquire_timeout(Duration::MAX),
    ] {
        assert_eq!(config.validate(), Ok(()), "{config:?}");
    }
    assert!(
        PoolConfig::default()
            .with_max_size(65_536)
            .validate()
            .is_err()
    );
    assert!(
        PoolConfig::default()
            .with_lifetime_jitter(1.01)
            .validate()
            .is_err()
    );
    assert!(
        PoolConfig::default()
            .with_lifetime_jitter(-0.1)
            .validate()
            .is_err()
    );
}

#[test]
fn a_limit_reads_what_it_writes() {
    for (limit, text) in [
        (Limit::Never, "never"),
        (Limit::After(Duration::ZERO), "0s"),
        (Limit::After(Duration::from_millis(250)), "250ms"),
        (Limit::After(seconds(30 * 60)), "30m"),
        (Limit::After(seconds(90 * 60)), "1h30m"),
        (Limit::After(seconds(86_400 + 1)), "1d1s"),
        (Limit::After(Duration::new(1, 1_002_003)), "1s1ms2us3ns"),
    ] {
        assert_eq!(limit.to_string(), text);
        assert_eq!(text.parse(), Ok(limit));
    }
    let longest = Limit::After(Duration::MAX);
    assert_eq!(longest.to_string().parse(), Ok(longest));
    assert_eq!("90s".parse(), Ok(Limit::After(seconds(90))));
}

#[test]
fn what_is_not_a_limit_is_refused() {
    for text in [
        "",
        "30",
        "m",
        "-1s",
        "+1s",
        "1.5h",
        "1 h",
        "1h ",
        "30x",
        "1m1h",
        "1s1s",
        "Never",
        "1é",
        "99999999999999999999999999999999999999999s",
        "999999999999999999999d",
    ] {
        assert!(text.parse::<Limit>().is_err(), "{text:?}");
    }
    let error = "30".parse::<Limit>().unwrap_err().to_string();
    assert!(
        error.contains("\"30\"") && error.contains("the units are d, h, m, s"),
        "{error}"
    );
}
