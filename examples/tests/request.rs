//! The example of requests against every server at hand: a thousand at a time, each answered.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../request.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod request;

use mqtt_testkit::Mosquitto;
use request::{Options, run};

async fn check(args: &[&str]) {
    let args = ["--requests", "3000", "--open", "1000"]
        .iter()
        .chain(args)
        .map(|arg| (*arg).to_owned());
    let mut out = Vec::new();
    let all_well = run(Options::parse(args).unwrap(), &mut out).await;
    let out = String::from_utf8(out).unwrap();
    assert!(all_well.unwrap(), "{out}");
    for line in [
        "replies  responses/request-",
        "refused  invalid digit",
        "nobody   no",
        "asked    3000 of 3000",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_server() {
    check(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto() {
    let Some(server) = Mosquitto::start_or_skip("requests on mosquitto").await else {
        return;
    };
    check(&["--server", &server.tcp_url()]).await;
}

#[test]
fn options_that_are_not_known_are_explained() {
    for args in [&["--help"][..], &["--server"], &["--open", "many"]] {
        let args = args.iter().map(|arg| (*arg).to_owned());
        assert!(Options::parse(args).is_err());
    }
}
