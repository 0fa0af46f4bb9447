//! The options, their rules and their text.

use std::time::Duration;

use mqtt_pool::{
    BackoffConfig, ConfigErrors, Limit, OnUnavailable, Pool, PoolConfig, WeightedEndpoint,
};

use crate::server::{Server, seconds};

fn all_wrong() -> PoolConfig {
    let backoff = BackoffConfig::default()
        .with_base(Duration::ZERO)
        .with_retry_refused_after(Duration::ZERO);
    PoolConfig::default()
        .with_name("a b")
        .with_max_size(0)
        .with_min_idle(3)
        .with_max_connecting(0)
        .with_idle_timeout(Duration::ZERO)
        .with_max_lifetime(Duration::from_millis(10))
        .with_lifetime_jitter(f64::NAN)
        .with_acquire_timeout(Duration::ZERO)
        .with_connect_timeout(Duration::ZERO)
        .with_close_timeout(Duration::ZERO)
        .with_check_timeout(Duration::ZERO)
        .with_leak_after(Duration::ZERO)
        .with_backoff(backoff)
}

fn paths(errors: &ConfigErrors) -> Vec<&str> {
    errors.iter().map(|error| &*error.path).collect()
}

const ALL: [&str; 14] = [
    "pool.name",
    "pool.max_size",
    "pool.min_idle",
    "pool.max_connecting",
    "pool.idle_timeout",
    "pool.max_lifetime",
    "pool.lifetime_jitter",
    "pool.acquire_timeout",
    "pool.connect_timeout",
    "pool.close_timeout",
    "pool.check_timeout",
    "pool.leak_after",
    "pool.backoff.base",
    "pool.backoff.retry_refused_after",
];

#[test]
fn all_problems_are_told_at_once() {
    let errors = all_wrong().validate().unwrap_err();
    assert_eq!(paths(&errors), ALL);
    let text = errors.to_string();
    assert_eq!(text.lines().count(), ALL.len());
    assert!(
        text.contains("pool.min_idle is 3: must not be above max_idle nor max_size; "),
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
    let default = PoolConfig::default;
    for config in [
        default(),
        default().with_name("a".repeat(64)),
        default().with_name("Az09_-."),
        default().with_max_size(1),
        default().with_max_size(65_535).with_max_idle(0),
        default().with_max_size(4).with_min_idle(4),
        default().with_max_idle(4).with_min_idle(4),
        default().with_max_connecting(1),
        default().with_max_connecting(65_535),
        default().with_lifetime_jitter(0.0),
        default().with_lifetime_jitter(1.0),
        default()
            .with_max_lifetime(seconds(1))
            .with_connect_timeout(Duration::from_millis(999)),
        default()
            .with_acquire_timeout(seconds(1))
            .with_connect_timeout(seconds(60)),
        default()
            .with_max_lifetime(Limit::Never)
            .with_acquire_timeout(Duration::MAX)
            .with_connect_timeout(Duration::MAX),
        default().with_check_after(Duration::ZERO),
        default().with_backoff(
            BackoffConfig::default()
                .with_base(seconds(30))
                .with_stable_after(Duration::ZERO)
                .with_retry_refused_after(Limit::Never),
        ),
    ] {
        assert_eq!(config.validate(), Ok(()), "{config:?}");
    }
}

#[test]
fn one_past_an_edge_is_refused() {
    #[track_caller]
    fn check(config: PoolConfig, path: &str) {
        let errors = config.validate().unwrap_err();
        assert_eq!(paths(&errors), [path]);
    }
    let default = PoolConfig::default;
    check(default().with_name(""), "pool.name");
    check(default().with_name("a".repeat(65)), "pool.name");
    check(default().with_name("b\u{fc}cher"), "pool.name");
    check(default().with_max_size(65_536), "pool.max_size");
    check(default().with_max_size(4).with_min_idle(5), "pool.min_idle");
    check(default().with_max_idle(4).with_min_idle(5), "pool.min_idle");
    check(default().with_max_connecting(65_536), "pool.max_connecting");
    check(
        default().with_max_lifetime(seconds(10)),
        "pool.max_lifetime",
    );
    check(default().with_lifetime_jitter(1.01), "pool.lifetime_jitter");
    check(default().with_lifetime_jitter(-0.1), "pool.lifetime_jitter");
    let backoff = BackoffConfig::default().with_max(Duration::from_millis(249));
    check(default().with_backoff(backoff), "pool.backoff.max");
}

/// Every default, in the order of the documentation.
const DEFAULTS: &str = r#"name = "default"
max_size = 100
min_idle = 0
max_idle = 100
idle_timeout = "5m"
max_lifetime = "30m"
lifetime_jitter = 0.25
acquire_timeout = "5s"
connect_timeout = "10s"
close_timeout = "5s"
max_connecting = 4
on_unavailable = "wait"
check_after = "never"
check_timeout = "1s"
leak_after = "never"
record_hold = false

[backoff]
base = "250ms"
max = "30s"
stable_after = "30s"
retry_refused_after = "5m"
"#;

#[test]
fn the_defaults() {
    let written = toml::to_string(&PoolConfig::default()).unwrap();
    assert_eq!(written, DEFAULTS);
    assert_eq!(toml::from_str(DEFAULTS), Ok(PoolConfig::default()));
    assert_eq!(toml::from_str(""), Ok(PoolConfig::default()));
    assert_eq!(toml::from_str("[backoff]"), Ok(PoolConfig::default()));
}

#[test]
fn what_is_written_is_read_back() {
    let config = PoolConfig::default()
        .with_name("east-1")
        .with_max_size(8)
        .with_min_idle(1)
        .with_max_idle(4)
        .with_idle_timeout(Limit::Never)
        .with_max_lifetime(Limit::Never)
        .with_lifetime_jitter(0.5)
        .with_acquire_timeout(Duration::from_millis(1_500))
        .with_connect_timeout(seconds(3))
        .with_close_timeout(seconds(2))
        .with_max_connecting(2)
        .with_on_unavailable(OnUnavailable::FailFast)
        .with_check_after(seconds(60))
        .with_check_timeout(seconds(4))
        .with_leak_after(seconds(90))
        .with_record_hold(true)
        .with_backoff(
            BackoffConfig::default()
                .with_base(seconds(1))
                .with_max(seconds(5))
                .with_stable_after(seconds(6))
                .with_retry_refused_after(Limit::Never),
        );
    let text = toml::to_string(&config).unwrap();
    for line in DEFAULTS.lines().filter(|line| line.contains('=')) {
        assert!(!text.contains(&format!("{line}\n")), "{line} in\n{text}");
    }
    assert!(text.contains("on_unavailable = \"fail_fast\"\n"), "{text}");
    assert_eq!(toml::from_str(&text), Ok(config));
}

#[test]
fn what_is_not_configuration_is_refused_by_name() {
    #[track_caller]
    fn check(text: &str, told: &str) {
        let error = toml::from_str::<PoolConfig>(text).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
    check("max_sise = 3", "unknown field `max_sise`");
    check("backoff.min = '1s'", "unknown field `min`");
    check("idle_timeout = 30", "idle_timeout = 30");
    check("acquire_timeout = 30", "acquire_timeout = 30");
    check("backoff.base = 30", "backoff.base = 30");
    check(
        "backoff.retry_refused_after = 30",
        "integer `30`, expected the text of a time with its unit",
    );
    check("acquire_timeout = '30'", "the units are d, h, m, s");
    check("acquire_timeout = 'never'", "not \"never\"");
    check("max_size = -1", "max_size = -1");
    check("on_unavailable = 'Wait'", "unknown variant `Wait`");
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Servers {
    endpoints: Vec<WeightedEndpoint>,
}

fn endpoint(url: &str) -> WeightedEndpoint {
    url.parse().expect("a URL")
}

#[test]
fn an_endpoint_is_a_url_or_a_table() {
    let servers: Servers = toml::from_str(
        "endpoints = ['mqtt://a', { url = 'mqtt://b', weight = 2 }, { url = 'mqtt://c' }]",
    )
    .unwrap();
    let a_b_c = [
        endpoint("mqtt://a"),
        endpoint("mqtt://b").with_weight(2),
        WeightedEndpoint::from(endpoint("mqtt://c").endpoint),
    ];
    assert_eq!(servers.endpoints, a_b_c);
    let written = toml::to_string(&servers).unwrap();
    assert!(
        written.contains("url = \"mqtt://b:1883\"\nweight = 2\n"),
        "{written}"
    );
    assert_eq!(toml::from_str(&written), Ok(servers));
}

#[test]
fn what_is_not_an_endpoint_is_refused_by_name() {
    #[track_caller]
    fn check(text: &str, told: &str) {
        let error = toml::from_str::<Servers>(text).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
    check("endpoints = ['localhost']", "the scheme is missing");
    check("endpoints = [1883]", "expected a URL like");
    check("endpoints = [{ weight = 2 }]", "missing field `url`");
    check("endpoints = [{ url = 'mqtt://a:0' }]", "port 0 cannot");
    check(
        "endpoints = [{ url = 'mqtt://a', wait = 2 }]",
        "unknown field `wait`",
    );
    check("endpoints = [{ url = 'mqtt://a', weight = -1 }]", "weight");
}

#[test]
fn all_endpoints_are_checked_at_once() {
    #[track_caller]
    fn check(endpoints: &[WeightedEndpoint], wrong: &[&str]) {
        let errors = WeightedEndpoint::validate_all(endpoints);
        assert_eq!(paths(&errors.err().unwrap_or_default()), wrong);
    }
    check(&[], &["endpoints"]);
    check(
        &[
            endpoint("mqtt://a"),
            endpoint("mqtt://a:1884").with_weight(1_000),
            endpoint("ws://a"),
        ],
        &[],
    );
    check(
        &[
            endpoint("mqtt://a").with_weight(0),
            endpoint("tcp://A:1883/").with_weight(1_001),
        ],
        &[
            "endpoints[0].weight",
            "endpoints[1].url",
            "endpoints[1].weight",
        ],
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
