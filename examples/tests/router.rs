//! The router against every server at hand, in both versions of MQTT: every message handled as it should be.

#[path = "../router.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod router;

use mqtt_testkit::{EmbeddedServer, Mosquitto};
use router::{Options, run};

async fn check(url: &str) {
    for version in ["3.1.1", "5.0"] {
        let args = ["--server", url, "--mqtt", version];
        let options =
            Options::parse(args.into_iter().map(str::to_owned)).expect("the options are right");
        let outcome = run(options).await;
        let all_well = matches!(outcome, Ok(true));
        assert!(all_well, "{url} in MQTT {version}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_server() {
    let server = EmbeddedServer::start()
        .await
        .expect("the embedded server starts");
    check(&server.url()).await;
    server.stop().await.expect("the embedded server stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto() {
    let Some(server) = Mosquitto::start_or_skip("the router on mosquitto").await else {
        return;
    };
    check(&server.tcp_url()).await;
}

#[test]
fn options_that_are_not_known_are_explained() {
    for args in [&["--help"][..], &["--mqtt", "4"], &["--server"]] {
        assert!(
            Options::parse(args.iter().map(|arg| (*arg).to_owned())).is_err(),
            "{args:?}"
        );
    }
}
