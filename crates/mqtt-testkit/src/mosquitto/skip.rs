//! What becomes of a test that cannot have its server.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, Write as _};

/// Says so and returns, or panics where nothing may be skipped.
pub(super) fn skip(test: &str) {
    let required = ["CI", "MQTT_REQUIRE_SERVERS"]
        .into_iter()
        .find(|name| is_on(env::var_os(name).as_deref()));
    if let Some(variable) = required {
        panic!(
            "{test} needs mosquitto (apt-get install mosquitto), and with {variable} set nothing is skipped"
        );
    }
    // Straight to the stream: the test harness would keep what a passing test prints.
    let _ = io::stderr().write_all(line(test).as_bytes());
}

/// Panics with the error and its causes.
pub(super) fn fail(test: &str, error: &dyn Error) -> ! {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    panic!("{test} needs mosquitto, which is installed and did not start: {text}");
}

fn line(test: &str) -> String {
    format!("skipped: {test} needs mosquitto (apt-get install mosquitto)\n")
}

fn is_on(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| !["", "0", "false"].into_iter().any(|off| value == off))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line() {
        assert_eq!(
            line("resumes"),
            "skipped: resumes needs mosquitto (apt-get install mosquitto)\n"
        );
    }

    #[test]
    fn what_counts_as_set() {
        let check = |value: Option<&str>, expected| {
            assert_eq!(is_on(value.map(OsStr::new)), expected, "{value:?}");
        };
        check(None, false);
        check(Some(""), false);
        check(Some("0"), false);
        check(Some("false"), false);
        check(Some("1"), true);
        check(Some("true"), true);
    }
}
