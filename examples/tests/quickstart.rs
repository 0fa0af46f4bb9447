//! The quick start against every server at hand, over TCP and a Unix socket, in both versions of
//! MQTT: every message accounted for.

#[path = "../quickstart.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod quickstart;

use mqtt_testkit::{EmbeddedServer, Mosquitto};
use quickstart::{Options, run};

async fn check(url: &str) {
    for version in ["3.1.1", "5.0"] {
        let args = [
            "--server",
            url,
            "--mqtt",
            version,
            "--messages",
            "1000",
            "--tasks",
            "12",
            "--sessions",
            "3",
        ];
        let options =
            Options::parse(args.into_iter().map(str::to_owned)).expect("the options are right");
        let outcome = run(options).await;
        assert!(
            outcome.is_ok_and(|all_well| all_well),
            "{url} in MQTT {version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_server() {
    let server = EmbeddedServer::start()
        .await
        .expect("the embedded server starts");
    check(&server.url()).await;
    check(&server.unix_url()).await;
    server.stop().await.expect("the embedded server stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto() {
    let Some(server) = Mosquitto::start_or_skip("the quick start on mosquitto").await else {
        return;
    };
    check(&server.tcp_url()).await;
    check(&server.unix_url()).await;
}

#[test]
fn options_that_are_not_known_are_explained() {
    for args in [
        &["--help"][..],
        &["--mqtt", "4"],
        &["--server"],
        &["--messages", "many"],
    ] {
        assert!(
            Options::parse(args.iter().map(|arg| (*arg).to_owned())).is_err(),
            "{args:?}"
        );
    }
}
