//! Servers that name another one (5.0 section 4.11).

use mqtt_client::{
    ConnectCause, Credentials, CredentialsRequest, LostCause, PooledSessions, ReasonCode,
    RedirectError, RedirectPolicy, Secret, SessionConfig, Version,
    pool::{Pool, PoolConfig},
    proto::packet::{ConnAck, Connect, Disconnect, Packet},
};
use mqtt_testkit::MemoryListener;
use tokio::time::Instant;

use crate::{
    SECOND,
    common::{endpoint, report, settle},
    config, open, recorded, resume,
};

const ANOTHER: ReasonCode = ReasonCode::USE_ANOTHER_SERVER;
const MOVED: ReasonCode = ReasonCode::SERVER_MOVED;

fn with_password() -> SessionConfig {
    config(Version::V5)
        .with_user_name("gateway".to_owned())
        .with_password(Secret::new("secret").unwrap())
}

fn all() -> RedirectPolicy {
    RedirectPolicy::new(|_| true)
}

/// The next server answers CONNECT with this code and reference.
async fn sends_on(listener: &mut MemoryListener, code: ReasonCode, reference: &str) -> Connect {
    let mut connack = ConnAck::refused(code);
    connack.properties.server_reference = Some(reference.try_into().unwrap());
    listener.accept().await.accept_with(connack).await
}

fn goodbye(code: ReasonCode, reference: &str) -> Packet {
    let mut disconnect = Disconnect::new(code);
    disconnect.properties.server_reference = Some(reference.try_into().unwrap());
    Packet::Disconnect(disconnect)
}

#[tokio::test(start_paused = true)]
async fn by_default_the_error_names_the_other_server() {
    let (connector, mut listener, dialled) = recorded(config(Version::V5));
    let (session, _) = tokio::join!(
        connector.connect(endpoint()),
        sends_on(&mut listener, MOVED, "b\u{1b}[0m")
    );
    let text = report(&session.unwrap_err());
    assert!(text.contains("server moved"), "{text}");
    assert!(text.contains(r#"and names "b\u{1b}[0m""#), "{text}");
    assert_eq!(dialled.endpoints().len(), 1);

    let (session, mut server) = open(&connector, &mut listener).await;
    server.send(goodbye(MOVED, "b")).await;
    let text = report(&*session.closed().await);
    assert!(
        text.contains(r#"server moved (0x9D), and names "b""#),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn credentials_are_withheld_from_other_hosts_and_told_at_home() {
    let (connector, mut listener, dialled) = recorded(with_password());
    let connector = connector.with_redirects(all());
    let begin = Instant::now();
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let connect = sends_on(&mut listener, ANOTHER, "server.test:99").await;
        assert!(connect.password.is_some());
        // Another port of the same host.
        let connect = sends_on(&mut listener, ANOTHER, "b").await;
        assert!(connect.password.is_some());
        let mut server = listener.accept().await;
        let connect = server.accept().await;
        assert_eq!((connect.user_name, connect.password), (None, None));
        assert_eq!(&*connect.client_id, "gateway");
        server
    });
    let session = session.unwrap();
    assert_eq!(session.connected_to(), "mqtt://b".parse().unwrap());
    assert_eq!(begin.elapsed(), std::time::Duration::ZERO);
    drop(server);
    // It is for one attempt, and home is told again.
    let mut server = listener.accept().await;
    let connect = server.accept_with(ConnAck::resumed()).await;
    assert_eq!(connect.user_name.as_deref(), Some("gateway"));
    assert!(connect.password.is_some());
    assert_eq!(
        dialled.endpoints(),
        [
            "mqtt://server.test:1883",
            "mqtt://server.test:99",
            "mqtt://b:1883",
            "mqtt://server.test:1883"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn credentials_are_carried_where_the_policy_says_so() {
    let (connector, mut listener, _) = recorded(with_password());
    let connector = connector.with_redirects(all().carrying_credentials());
    let (session, _server) = tokio::join!(connector.connect(endpoint()), async {
        sends_on(&mut listener, ANOTHER, "b").await;
        let mut server = listener.accept().await;
        assert!(server.accept().await.password.is_some());
        server
    });
    session.unwrap();
}

/// A source that does not look at the endpoint gives nothing away.
#[tokio::test(start_paused = true)]
async fn a_source_is_not_asked_for_another_host() {
    let (connector, mut listener, _) = recorded(config(Version::V5));
    let connector =
        connector
            .with_redirects(all())
            .with_credentials(|request: &CredentialsRequest<'_>| {
                assert_eq!(request.endpoint, &endpoint());
                async { Credentials::new("a", "b") }
            });
    let (session, _server) = tokio::join!(connector.connect(endpoint()), async {
        let connect = sends_on(&mut listener, ANOTHER, "b").await;
        assert!(connect.password.is_some());
        let mut server = listener.accept().await;
        assert_eq!(server.accept().await.password, None);
        server
    });
    session.unwrap();
}

#[tokio::test(start_paused = true)]
async fn hops_are_bounded_and_circles_are_seen() {
    let no_retry = config(Version::V5).with_reconnect(None);
    let (connector, mut listener, dialled) = recorded(no_retry);
    let five = connector.clone().with_redirects(all());
    let (session, ()) = tokio::join!(five.connect(endpoint()), async {
        for n in 0..6 {
            sends_on(&mut listener, ANOTHER, &format!("b{n}")).await;
        }
    });
    let error = session.unwrap_err();
    assert!(
        matches!(
            &error.cause,
            ConnectCause::NotFollowed {
                source: RedirectError::TooMany { max_hops: 5, .. },
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.endpoint, "mqtt://b4".parse().unwrap());
    assert!(report(&error).contains(r#"and names "b5": there were 5 in a row"#));
    assert_eq!(dialled.endpoints().len(), 6);

    // Home again.
    let (session, ()) = tokio::join!(five.connect(endpoint()), async {
        sends_on(&mut listener, ANOTHER, "b").await;
        sends_on(&mut listener, ANOTHER, "SERVER.test").await;
    });
    let error = session.unwrap_err();
    assert!(
        report(&error).contains("mqtt://server.test:1883 was asked already"),
        "{}",
        report(&error)
    );

    let two = connector.with_redirects(all().with_max_hops(2));
    let (session, ()) = tokio::join!(two.connect(endpoint()), async {
        for n in 0..3 {
            sends_on(&mut listener, ANOTHER, &format!("b{n}")).await;
        }
    });
    session.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_way_without_encryption_is_refused_whatever_the_policy() {
    let (connector, mut listener, dialled) = recorded(config(Version::V5).with_reconnect(None));
    let connector = connector.with_redirects(all());
    for (reference, words) in [
        ("mqtt://b", "less secure"),
        ("unix:///run/x", "less secure"),
        ("http://b", "not an endpoint"),
    ] {
        let (session, _) = tokio::join!(
            connector.connect("mqtts://a".parse().unwrap()),
            sends_on(&mut listener, ANOTHER, reference)
        );
        let text = report(&session.unwrap_err());
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(dialled.endpoints(), ["mqtts://a:8883"; 3]);
    // Without a scheme it stays encrypted.
    let (session, _server) = tokio::join!(connector.connect("mqtts://a".parse().unwrap()), async {
        sends_on(&mut listener, ANOTHER, "b").await;
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    assert_eq!(
        session.unwrap().connected_to(),
        "mqtts://b".parse().unwrap()
    );
}

/// Several are tried in their order, and what one of them names before those after it.
#[tokio::test(start_paused = true)]
async fn the_next_is_tried_where_one_fails() {
    let (connector, mut listener, dialled) = recorded(config(Version::V5));
    let connector = connector.with_redirects(all());
    let (session, _server) = tokio::join!(connector.connect(endpoint()), async {
        sends_on(&mut listener, ANOTHER, "b c d").await;
        drop(listener.accept().await);
        sends_on(&mut listener, ANOTHER, "e").await;
        drop(listener.accept().await);
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    session.unwrap();
    let hosts = ["server.test", "b", "c", "e", "d"].map(|host| format!("mqtt://{host}:1883"));
    assert_eq!(dialled.endpoints(), hosts);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_moved_is_looked_for_there_until_that_fails() {
    let (connector, mut listener, dialled) = recorded(with_password());
    let connector = connector.with_redirects(all());
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        sends_on(&mut listener, MOVED, "b").await;
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    drop(server);
    let mut server = listener.accept().await;
    let connect = server.accept_with(ConnAck::resumed()).await;
    assert_eq!(connect.password, None);
    drop(server);
    // It fails there, and then home is asked.
    drop(listener.accept().await);
    let _server = resume(&mut listener).await;
    settle().await;
    assert_eq!(session.connected_to(), endpoint());
    let hosts =
        ["server.test", "b", "b", "b", "server.test"].map(|host| format!("mqtt://{host}:1883"));
    assert_eq!(dialled.endpoints(), hosts);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_sends_on_at_once() {
    for code in [ANOTHER, MOVED] {
        let (connector, mut listener, dialled) = recorded(with_password());
        let connector = connector.with_redirects(all());
        let (session, mut server) = open(&connector, &mut listener).await;
        let begin = Instant::now();
        server.send(goodbye(code, "b")).await;
        let mut server = listener.accept().await;
        let connect = server.accept_with(ConnAck::resumed()).await;
        assert_eq!(connect.password, None);
        assert_eq!(begin.elapsed(), std::time::Duration::ZERO);
        drop(server);
        drop(resume(&mut listener).await);
        settle().await;
        assert!(!session.is_closed());
        let last = if code == MOVED { "b" } else { "server.test" };
        let hosts = ["server.test", "b", last].map(|host| format!("mqtt://{host}:1883"));
        assert_eq!(dialled.endpoints(), hosts);
    }
}

/// Two servers that send a session to each other are no reason to run.
#[tokio::test(start_paused = true)]
async fn disconnects_that_send_on_are_bounded() {
    let (connector, mut listener, dialled) = recorded(config(Version::V5));
    let connector = connector.with_redirects(all());
    let (session, mut server) = open(&connector, &mut listener).await;
    let begin = Instant::now();
    for n in 0..10 {
        let other = if n % 2 == 0 { "b" } else { "server.test" };
        server.send(goodbye(ANOTHER, other)).await;
        server = resume(&mut listener).await;
    }
    assert!(begin.elapsed() > SECOND * 60, "{:?}", begin.elapsed());
    assert!(!session.is_closed());
    assert_eq!(dialled.endpoints().len(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_that_is_not_followed_is_like_any_other() {
    let (connector, mut listener, _) = recorded(config(Version::V5));
    let connector = connector.with_redirects(RedirectPolicy::same_host());
    let (session, mut server) = open(&connector, &mut listener).await;
    let begin = Instant::now();
    server.send(goodbye(ANOTHER, "b")).await;
    let mut server = resume(&mut listener).await;
    assert_eq!(begin.elapsed(), SECOND);
    server.send(goodbye(MOVED, "b")).await;
    let lost = session.closed().await;
    assert!(matches!(lost.cause, LostCause::Disconnected(_)), "{lost:?}");
}

#[tokio::test(start_paused = true)]
async fn sessions_of_a_pool_are_sent_on_too() {
    let (connector, mut listener, dialled) = recorded(config(Version::V5));
    let sessions = PooledSessions::new(connector.with_redirects(all()), endpoint());
    let pool = Pool::new(sessions, PoolConfig::default()).unwrap();
    let (lease, _server) = tokio::join!(pool.get(), async {
        sends_on(&mut listener, MOVED, "b").await;
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let _lease = lease.unwrap();
    assert_eq!(dialled.endpoints().len(), 2);
}
