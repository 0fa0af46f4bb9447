use std::path::{Path, PathBuf};

use mqtt_testkit::{Mosquitto, StartError};

use crate::wire::{self, Client, VERSIONS, Version};

fn folder(server: &Mosquitto) -> PathBuf {
    let url = server.unix_url();
    let socket = Path::new(url.strip_prefix("unix://").expect("a unix url"));
    socket.parent().expect("a folder").to_owned()
}

/// A process that has ended and been waited for; a zombie still answers.
fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn serves_both_versions_over_tcp_and_unix() {
    let Some(server) = Mosquitto::start_or_skip("serves_both_versions_over_tcp_and_unix").await
    else {
        return;
    };
    assert_eq!(server.tcp_url(), format!("mqtt://{}", server.addr()));
    for version in VERSIONS {
        wire::converse(&server.tcp_url(), version).await;
        wire::converse(&server.unix_url(), version).await;
    }
}

#[tokio::test]
async fn thousands_of_messages_flow() {
    let Some(server) = Mosquitto::start_or_skip("thousands_of_messages_flow").await else {
        return;
    };
    for version in VERSIONS {
        wire::flood_exactly_once(&server.tcp_url(), version).await;
        wire::burst_at_most_once(&server.tcp_url(), version).await;
        wire::queue_for_the_absent(&server.tcp_url(), version).await;
    }
}

#[tokio::test]
async fn the_window_is_a_thousand_or_as_chosen() {
    const NAME: &str = "the_window_is_a_thousand_or_as_chosen";
    for (builder, window) in [
        (Mosquitto::builder(), 1000),
        (Mosquitto::builder().max_inflight_messages(5), 5),
    ] {
        let Some(server) = builder.start_or_skip(NAME).await else {
            return;
        };
        for version in VERSIONS {
            wire::fill_window(&server.tcp_url(), version, window).await;
        }
    }
}

#[tokio::test]
async fn killing_ends_the_process_and_its_connections() {
    const NAME: &str = "killing_ends_the_process_and_its_connections";
    let Some(mut server) = Mosquitto::start_or_skip(NAME).await else {
        return;
    };
    let pid = server.pid().unwrap();
    let mut client = Client::connect(&server.tcp_url(), Version::V5, "a").await;
    server.kill();
    assert!(is_gone(pid));
    assert_eq!(server.pid(), None);
    client.closed().await;
    for url in [server.tcp_url(), server.unix_url()] {
        wire::refused(&url).await;
    }
    server.kill();
}

#[tokio::test]
async fn restarts_on_the_same_port_and_socket() {
    const NAME: &str = "restarts_on_the_same_port_and_socket";
    let Some(mut server) = Mosquitto::start_or_skip(NAME).await else {
        return;
    };
    let urls = [server.tcp_url(), server.unix_url()];
    let mut client = Client::connect(&urls[0], Version::V5, "a").await;
    for _ in 0..3 {
        let pid = server.pid();
        server.restart().await.unwrap();
        assert_ne!(server.pid(), pid);
        client.closed().await;
        assert_eq!([server.tcp_url(), server.unix_url()], urls);
        client = Client::connect(&urls[1], Version::V5, "a").await;
    }
}

#[tokio::test]
async fn what_is_persistent_survives_being_killed() {
    const NAME: &str = "what_is_persistent_survives_being_killed";
    for version in VERSIONS {
        let builder = Mosquitto::builder().persistence(true);
        let Some(mut server) = builder.start_or_skip(NAME).await else {
            return;
        };
        let url = server.tcp_url();
        wire::leave_and_come_back(&url, version, async || {
            server.kill();
            server.restart().await.unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn dropping_ends_the_process_and_removes_the_folder() {
    const NAME: &str = "dropping_ends_the_process_and_removes_the_folder";
    let Some(server) = Mosquitto::start_or_skip(NAME).await else {
        return;
    };
    let (pid, folder) = (server.pid().unwrap(), folder(&server));
    assert!(!is_gone(pid) && folder.exists());
    drop(server);
    assert!(is_gone(pid));
    assert!(!folder.exists());
}

#[tokio::test]
async fn many_at_once_do_not_meet() {
    if Mosquitto::start_or_skip("many_at_once_do_not_meet")
        .await
        .is_none()
    {
        return;
    }
    let starting: Vec<_> = (0..8).map(|_| tokio::spawn(Mosquitto::start())).collect();
    let mut servers = Vec::new();
    for server in starting {
        servers.push(server.await.unwrap().unwrap());
    }
    let mut ports: Vec<_> = servers.iter().map(|server| server.addr().port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), servers.len());

    let mut subscriber = Client::connect(&servers[0].tcp_url(), Version::V5, "same").await;
    subscriber.subscribe("#", 0).await;
    for server in &servers[1..] {
        wire::converse(&server.tcp_url(), Version::V5).await;
        wire::converse(&server.unix_url(), Version::V5).await;
    }
    assert!(subscriber.is_quiet().await);
}

#[tokio::test]
async fn a_taken_port_fails_the_restart_until_it_is_free() {
    const NAME: &str = "a_taken_port_fails_the_restart_until_it_is_free";
    let Some(mut server) = Mosquitto::start_or_skip(NAME).await else {
        return;
    };
    server.kill();
    let thief = std::net::TcpListener::bind(server.addr()).unwrap();
    let error = server.restart().await.unwrap_err();
    assert!(
        error.to_string().contains("Address already in use"),
        "{error}"
    );
    assert_eq!(server.pid(), None);
    drop(thief);
    server.restart().await.unwrap();
    wire::converse(&server.tcp_url(), Version::V311).await;
}

#[tokio::test]
async fn a_failed_start_tells_what_the_log_says() {
    const NAME: &str = "a_failed_start_tells_what_the_log_says";
    let Some(server) = Mosquitto::start_or_skip(NAME).await else {
        return;
    };
    assert!(
        server.log().contains("mosquitto version"),
        "{}",
        server.log()
    );
    let builder = Mosquitto::builder().config_line("no_such_option 1");
    let error = builder.start().await.unwrap_err();
    assert!(matches!(error, StartError::Ended { .. }));
    assert!(error.to_string().contains("no_such_option"), "{error}");
}

#[tokio::test]
async fn added_lines_may_bring_listeners_of_their_own() {
    const NAME: &str = "added_lines_may_bring_listeners_of_their_own";
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("second.sock");
    let builder = Mosquitto::builder()
        .config_line("per_listener_settings true")
        .config_line(format!("listener 0 {}", socket.display()))
        .config_line("allow_anonymous true");
    let Some(server) = builder.start_or_skip(NAME).await else {
        return;
    };
    let second = format!("unix://{}", socket.display());
    for url in [&server.tcp_url(), &server.unix_url(), &second] {
        wire::converse(url, Version::V5).await;
    }
}

#[tokio::test]
async fn strangers_are_refused_when_chosen() {
    let builder = Mosquitto::builder().allow_anonymous(false);
    let Some(server) = builder
        .start_or_skip("strangers_are_refused_when_chosen")
        .await
    else {
        return;
    };
    for url in [server.tcp_url(), server.unix_url()] {
        let connecting = tokio::spawn(async move {
            Client::connect(&url, Version::V5, "a").await;
        });
        assert!(connecting.await.is_err(), "accepted");
    }
}
