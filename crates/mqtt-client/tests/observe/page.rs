//! The page in `docs` lists every metric there is, and no other, as the recorder is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Mutex,
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use mqtt_client::{SessionConfig, SessionConnector, pool, transport};

const PAGE: &str = include_str!("../../../../docs/observability.md");

/// What is on the page: type and unit, by name.
fn page() -> BTreeMap<String, (String, String)> {
    let rows = PAGE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.strip_suffix('`')?;
        let row = (cells.next()?.to_owned(), cells.next()?.to_owned());
        name.starts_with("mqtt_").then(|| (name.to_owned(), row))
    });
    let mut page = BTreeMap::new();
    for (name, row) in rows {
        assert!(page.insert(name.clone(), row).is_none(), "{name} twice");
    }
    page
}

/// Metrics are named by constants, each on a line of its own or the one after.
fn named_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            named_in(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let quoted = text.split('"').filter(|part| {
                let families = ["mqtt_client_", "mqtt_pool_", "mqtt_transport_"];
                families.iter().any(|family| part.starts_with(family))
                    && part.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            });
            names.extend(quoted.map(str::to_owned));
        }
    }
}

#[test]
fn every_metric_in_the_code_is_on_the_page_and_no_other() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut names = BTreeSet::new();
    for name in ["mqtt-client", "mqtt-pool", "mqtt-transport"] {
        named_in(&crates.join(name).join("src"), &mut names);
    }
    assert!(names.len() > 30, "{names:?}");
    assert_eq!(page().into_keys().collect::<BTreeSet<_>>(), names);
}

/// Type, unit and description.
type About = (&'static str, Option<Unit>, String);

/// Keeps what it is told of metrics, by name.
#[derive(Debug, Default)]
struct Described(Mutex<BTreeMap<String, About>>);

impl Described {
    fn note(&self, name: KeyName, of_type: &'static str, unit: Option<Unit>, text: SharedString) {
        let about = (of_type, unit, text.into_owned());
        let before = self
            .0
            .lock()
            .unwrap()
            .insert(name.as_str().to_owned(), about);
        assert!(before.is_none(), "{name:?} twice");
    }
}

impl Recorder for Described {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.note(name, "counter", unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.note(name, "gauge", unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.note(name, "histogram", unit, text);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn what_the_recorder_is_told_of_metrics_is_what_the_page_says() {
    let described = Described::default();
    metrics::with_local_recorder(&described, || {
        mqtt_client::describe_metrics();
        pool::describe_metrics();
        transport::describe_metrics();
    });
    let page = page();
    let described = described.0.into_inner().unwrap();
    assert_eq!(described.len(), 16 + 11 + 3);
    for (name, (of_type, unit, text)) in described {
        let (paged_type, paged_unit) = &page[&name];
        let unit = match unit {
            Some(Unit::Seconds) => "seconds",
            Some(Unit::Bytes) => "bytes",
            Some(Unit::Count) => "",
            other => panic!("{name} has the unit {other:?}"),
        };
        assert_eq!(
            (of_type, unit),
            (paged_type.as_str(), paged_unit.as_str()),
            "{name}"
        );
        assert!(!text.is_empty(), "{name}");
    }
}

#[test]
fn the_name_of_the_sessions_is_a_short_plain_one() {
    for name in ["", "a b", "devices/7", &"x".repeat(65)] {
        let config = SessionConfig::new("c").with_metrics_name(name);
        let errors = SessionConnector::new(config).unwrap_err();
        assert!(
            errors.to_string().contains("session.metrics_name"),
            "{errors}"
        );
    }
    let config = SessionConfig::new("c").with_metrics_name("gateway-1.eu_west");
    assert!(SessionConnector::new(config).is_ok());
}
