//! TCP on loopback: socket options, source addresses, resolvers, and what errors say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mqtt_transport::{
    Address, Conn, ConnectDeadline, ConnectError, ConnectPhase, Endpoint, Limit, Resolve,
    TcpConnector, TcpOptions,
};
use socket2::SockRef;
use tokio::net::TcpListener;
use tower::ServiceExt;

const SECOND: Duration = Duration::from_secs(1);

async fn listen(host: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address where nobody listens.
async fn refusing(host: &str) -> SocketAddr {
    listen(host).await.1
}

fn endpoint(url: impl AsRef<str>) -> Endpoint {
    url.as_ref().parse().unwrap()
}

/// A connector for which every name has these addresses.
fn with_addresses(options: TcpOptions, addresses: Vec<SocketAddr>) -> TcpConnector {
    TcpConnector::new(options).with_resolver(move |_: &str, _| {
        let addresses = addresses.clone();
        async move { Ok(addresses) }
    })
}

#[track_caller]
fn check_error(error: &ConnectError, phase: ConnectPhase, is_transient: bool, texts: &[&str]) {
    assert_eq!(error.phase(), phase, "{error:?}");
    assert_eq!(error.is_transient(), is_transient, "{error:?}");
    let source = error.source().unwrap().to_string();
    for text in texts {
        assert!(source.contains(text), "{text:?} is not in {source:?}");
    }
}

#[tokio::test]
async fn options_are_on_the_socket() {
    let (_listener, address) = listen("127.0.0.1").await;
    let endpoint = endpoint(format!("mqtt://{address}"));

    let connector = TcpConnector::default();
    let conn = connector.connect(endpoint.clone()).await.unwrap();
    let socket = SockRef::from(conn.get_ref());
    assert!(socket.tcp_nodelay().unwrap());
    assert!(!socket.keepalive().unwrap());
    #[cfg(target_os = "linux")]
    assert_eq!(socket.tcp_user_timeout().unwrap(), None);

    let options = TcpOptions::default()
        .with_nodelay(false)
        .with_keepalive(7 * SECOND)
        .with_keepalive_interval(3 * SECOND)
        .with_keepalive_retries(2)
        .with_send_buffer(8_192)
        .with_receive_buffer(16_384);
    #[cfg(target_os = "linux")]
    let options = options.with_user_timeout(9 * SECOND);
    options.validate().unwrap();
    let connector = TcpConnector::new(options);
    let conn = connector.connect(endpoint).await.unwrap();
    let socket = SockRef::from(conn.get_ref());
    assert!(!socket.tcp_nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    #[cfg(target_os = "linux")]
    {
        assert_eq!(socket.tcp_keepalive_time().unwrap(), 7 * SECOND);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), 3 * SECOND);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 2);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(9 * SECOND));
        // Linux doubles what it is asked for, to have room for its own records.
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * 8_192);
        assert_eq!(socket.recv_buffer_size().unwrap(), 2 * 16_384);
    }
}

/// More than the kernel's count of milliseconds would make every dial fail.
#[cfg(target_os = "linux")]
#[test]
fn a_user_timeout_beyond_the_kernels_is_refused() {
    let days = |days: u32| TcpOptions::default().with_user_timeout(days * 86_400 * SECOND);
    assert!(days(24).validate().is_ok());
    assert!(days(25).validate().is_err());
}

#[test]
fn options_are_read_from_a_file_and_checked() {
    let options: TcpOptions = toml::from_str(
        r#"
            keepalive = "never"
            attempt_delay = "100ms"
            source_addresses = ["127.0.0.2", "::1"]
            send_buffer = 65536
        "#,
    )
    .unwrap();
    options.validate().unwrap();
    assert_eq!(options.keepalive, Limit::Never);
    assert_eq!(options.source_addresses.len(), 2);
    assert!(options.nodelay);
    let text = toml::to_string(&options).unwrap();
    assert_eq!(toml::from_str::<TcpOptions>(&text).unwrap(), options);
    assert!(toml::from_str::<TcpOptions>("no_delay = true").is_err());

    TcpOptions::default().validate().unwrap();
    let options = TcpOptions::default()
        .with_keepalive(Duration::from_millis(1))
        .with_keepalive_interval(40_000 * SECOND)
        .with_keepalive_retries(0)
        .with_user_timeout(Duration::from_millis(1))
        .with_send_buffer(0)
        .with_receive_buffer(0)
        .with_source_addresses(["0.0.0.0".parse().unwrap()])
        .with_attempt_delay(Duration::from_millis(9))
        .with_max_addresses(0);
    let errors = options.validate().unwrap_err();
    let paths: Vec<&str> = errors.iter().map(|error| &*error.path).collect();
    assert_eq!(
        paths,
        [
            "tcp.keepalive",
            "tcp.keepalive_interval",
            "tcp.keepalive_retries",
            "tcp.user_timeout",
            "tcp.send_buffer",
            "tcp.receive_buffer",
            "tcp.source_addresses",
            "tcp.attempt_delay",
            "tcp.max_addresses"
        ]
    );
}

/// Linux has all of 127.0.0.0/8 on its loopback interface.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn source_addresses_take_turns() {
    let (listener, address) = listen("127.0.0.1").await;
    let sources: Vec<IpAddr> = ["127.0.0.2", "127.0.0.3", "::1"]
        .map(|source| source.parse().unwrap())
        .to_vec();
    let options = TcpOptions::default().with_source_addresses(sources.clone());
    let connector = TcpConnector::new(options);
    for turn in 0..4 {
        // A clone takes part in the turns.
        let conn = connector
            .clone()
            .connect(endpoint(format!("mqtt://{address}")))
            .await
            .unwrap();
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from.ip(), sources[turn % 2]);
        assert_eq!(conn.info().local, Address::Socket(from));
    }
}

#[tokio::test]
async fn an_address_without_a_source_of_its_family_is_skipped() {
    let (_listener, address) = listen("127.0.0.1").await;
    let v6: SocketAddr = ([0, 0, 0, 0, 0, 0, 0, 1], address.port()).into();
    let options = TcpOptions::default().with_source_addresses(["127.0.0.1".parse().unwrap()]);
    let connector = with_addresses(options.clone(), vec![v6, address]);
    let conn = connector.connect(endpoint("mqtt://a.test")).await.unwrap();
    assert_eq!(conn.info().peer, Address::Socket(address));

    let connector = with_addresses(options, vec![v6]);
    let error = connector.connect(endpoint("mqtt://a.test")).await;
    let text = "no source address is IPv6";
    check_error(&error.unwrap_err(), ConnectPhase::Dial, false, &[text]);
}

#[tokio::test]
async fn a_source_address_that_is_not_ours_is_named() {
    let (_listener, address) = listen("127.0.0.1").await;
    // Of a network for documentation (RFC 5737).
    let options = TcpOptions::default().with_source_addresses(["192.0.2.1".parse().unwrap()]);
    let error = TcpConnector::new(options)
        .connect(endpoint(format!("mqtt://{address}")))
        .await
        .unwrap_err();
    let text = "source address 192.0.2.1";
    check_error(&error, ConnectPhase::Dial, true, &[text]);
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let dead = refusing("127.0.0.1").await;
    let (_listener, live) = listen("127.0.0.1").await;
    let connector = with_addresses(TcpOptions::default(), vec![dead, live]);
    let conn = connector.connect(endpoint("mqtt://a.test")).await.unwrap();
    assert_eq!(conn.info().peer, Address::Socket(live));

    let options = TcpOptions::default().with_max_addresses(1);
    let error = with_addresses(options, vec![dead, live])
        .connect(endpoint("mqtt://a.test"))
        .await
        .unwrap_err();
    check_error(&error, ConnectPhase::Dial, true, &[&dead.to_string()]);
}

#[tokio::test]
async fn an_error_names_every_address() {
    let dead = [refusing("127.0.0.1").await, refusing("127.0.0.1").await];
    let connector = with_addresses(TcpOptions::default(), dead.to_vec());
    let error = connector.connect(endpoint("mqtt://a.test")).await;
    let texts = dead.map(|address| format!("{address}: Connection refused"));
    let texts = texts.each_ref().map(String::as_str);
    check_error(&error.unwrap_err(), ConnectPhase::Dial, true, &texts);
}

#[tokio::test]
async fn a_resolver_gets_names_and_not_addresses() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (_v4, v4) = listen("127.0.0.1").await;
    let connector = TcpConnector::default().with_resolver({
        let asked = asked.clone();
        move |host: &str, port: u16| {
            asked.fetch_add(1, Ordering::Relaxed);
            assert_eq!(host, "a.test");
            async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]) }
        }
    });
    let url = format!("mqtt://{v4}");
    connector.connect(endpoint(url)).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    if let Ok(v6) = TcpListener::bind("[::1]:0").await {
        let url = format!("mqtt://{}", v6.local_addr().unwrap());
        connector.connect(endpoint(url)).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }
    let url = format!("mqtt://a.test:{}", v4.port());
    connector.connect(endpoint(url)).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_name_that_leads_nowhere_may_lead_somewhere_later() {
    let connector = with_addresses(TcpOptions::default(), Vec::new());
    let error = connector.connect(endpoint("mqtt://a.test")).await;
    let text = "no addresses";
    check_error(&error.unwrap_err(), ConnectPhase::Resolve, true, &[text]);

    let connector = TcpConnector::default()
        .with_resolver(|_: &str, _| async { Err(io::Error::other("no answer")) });
    let error = connector.connect(endpoint("mqtt://a.test")).await;
    let text = "no answer";
    check_error(&error.unwrap_err(), ConnectPhase::Resolve, true, &[text]);
}

#[tokio::test]
async fn a_unix_socket_is_not_dialled_over_tcp() {
    let error = TcpConnector::default().connect(endpoint("unix:///a")).await;
    let text = "a host and a port";
    check_error(&error.unwrap_err(), ConnectPhase::Resolve, false, &[text]);
}

/// A resolver that never answers.
struct Silent;

impl Resolve for Silent {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> mqtt_transport::ResolveFuture<'a> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_says_that_the_name_was_being_resolved() {
    let connector = TcpConnector::default().with_resolver(Silent);
    let error = ConnectDeadline::new(connector, 3 * SECOND)
        .oneshot(endpoint("mqtt://a.test"))
        .await
        .unwrap_err();
    check_error(&error, ConnectPhase::Resolve, true, &["3s"]);
}

/// A listener whose queue is full answers no more, as a host that is away would.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_deadline_says_that_an_address_was_being_dialled() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let connector = with_addresses(TcpOptions::default(), vec![address]);
    let mut kept = Vec::new();
    let error = loop {
        let connector = ConnectDeadline::new(connector.clone(), SECOND / 4);
        match connector.oneshot(endpoint("mqtt://a.test")).await {
            Ok(conn) => kept.push(conn),
            Err(error) => break error,
        }
        assert!(kept.len() < 8, "the queue should be full by now");
    };
    check_error(&error, ConnectPhase::Dial, true, &["250ms"]);
}
