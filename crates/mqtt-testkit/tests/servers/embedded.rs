use mqtt_testkit::EmbeddedServer;

use crate::wire::{self, Client, VERSIONS, Version};

#[tokio::test]
async fn serves_both_versions_over_tcp_and_unix() {
    let server = EmbeddedServer::start().await.unwrap();
    assert_eq!(server.url(), format!("mqtt://{}", server.addr()));
    for version in VERSIONS {
        wire::converse(&server.url(), version).await;
        wire::converse(&server.unix_url(), version).await;
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn keeps_sessions_over_connections() {
    let server = EmbeddedServer::start().await.unwrap();
    for version in VERSIONS {
        wire::leave_and_come_back(&server.url(), version, async || {}).await;
    }
}

#[tokio::test]
async fn thousands_of_exactly_once_messages_flow() {
    let server = EmbeddedServer::start().await.unwrap();
    for version in VERSIONS {
        wire::flood_exactly_once(&server.url(), version).await;
    }
}

#[tokio::test]
async fn a_thousand_messages_are_in_flight_to_one_client() {
    let server = EmbeddedServer::start().await.unwrap();
    for version in VERSIONS {
        wire::fill_window(&server.url(), version, 1000).await;
    }
}

#[tokio::test]
async fn thousands_of_messages_wait_for_an_absent_client() {
    let server = EmbeddedServer::start().await.unwrap();
    for version in VERSIONS {
        wire::queue_for_the_absent(&server.url(), version).await;
    }
}

#[tokio::test]
async fn packets_may_have_sixteen_mebibytes() {
    let server = EmbeddedServer::start().await.unwrap();
    let client = Client::connect(&server.url(), Version::V5, "a").await;
    // Maximum Packet Size.
    let expected = [0x27, 1, 0, 0, 0];
    let mut properties = client.connack_properties.windows(5);
    assert!(properties.any(|property| property == expected));
}

#[tokio::test]
async fn a_burst_at_most_once_arrives_whole() {
    let server = EmbeddedServer::start().await.unwrap();
    for version in VERSIONS {
        wire::burst_at_most_once(&server.url(), version).await;
    }
}

#[tokio::test]
async fn stopping_closes_the_connections_and_the_port() {
    let server = EmbeddedServer::start().await.unwrap();
    let urls = [server.url(), server.unix_url()];
    let mut tcp = Client::connect(&urls[0], Version::V5, "tcp").await;
    let mut unix = Client::connect(&urls[1], Version::V311, "unix").await;
    server.stop().await.unwrap();
    tcp.closed().await;
    unix.closed().await;
    for url in urls {
        wire::refused(&url).await;
    }
}

#[tokio::test]
async fn dropping_closes_the_connections_and_the_port() {
    let server = EmbeddedServer::start().await.unwrap();
    let url = server.url();
    let mut client = Client::connect(&url, Version::V5, "a").await;
    drop(server);
    client.closed().await;
    wire::refused(&url).await;
}

#[tokio::test]
async fn restarts_on_the_same_port_and_socket() {
    let mut server = EmbeddedServer::start().await.unwrap();
    let urls = [server.url(), server.unix_url()];
    let mut client = Client::resume(&urls[0], Version::V5, "a").await;
    for _ in 0..3 {
        server.restart().await.unwrap();
        client.closed().await;
        assert_eq!([server.url(), server.unix_url()], urls);
        client = Client::resume(&urls[1], Version::V5, "a").await;
        assert!(!client.session_present);
    }
}

#[tokio::test]
async fn two_do_not_meet() {
    let one = EmbeddedServer::start().await.unwrap();
    let two = EmbeddedServer::start().await.unwrap();
    let mut subscriber = Client::connect(&one.url(), Version::V5, "same").await;
    subscriber.subscribe("#", 0).await;
    wire::converse(&two.url(), Version::V5).await;
    wire::converse(&two.unix_url(), Version::V5).await;
    assert!(subscriber.is_quiet().await);
    two.stop().await.unwrap();
    wire::converse(&one.unix_url(), Version::V5).await;
}
