//! Tunnels through small proxies of this file, and what misbehaving ones lead to.

#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{error::Error, net::SocketAddr, time::Duration};

use mqtt_transport::{
    Address, Conn, ConnKind, ConnectDeadline, ConnectError, ConnectPhase, Endpoint, ProxyConfig,
    ProxyConnector, StreamConn, TcpConnector,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tower::{Service, ServiceExt};

/// The ways to speak to a proxy; each test goes through both.
const SCHEMES: [&str; 2] = ["http", "socks5"];

type Outcome = Result<StreamConn<TcpStream>, ConnectError>;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that greets with `hello` before it is spoken to, and then echoes.
async fn server() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (mut conn, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                conn.write_all(b"hello").await.unwrap();
                let (mut reader, mut writer) = conn.split();
                drop(tokio::io::copy(&mut reader, &mut writer).await);
            });
        }
    });
    address
}

/// A proxy that works, and knows that `server.test` is this machine.
async fn proxy(
    scheme: &'static str,
    credentials: Option<(&'static str, &'static str)>,
) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (conn, _) = listener.accept().await.unwrap();
            match scheme {
                "http" => drop(tokio::spawn(http(conn, credentials))),
                _ => drop(tokio::spawn(socks5(conn, credentials))),
            }
        }
    });
    address
}

async fn http(mut conn: TcpStream, credentials: Option<(&str, &str)>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(conn.read_u8().await.unwrap()));
    }
    let target = head.split(' ').nth(1).unwrap();
    assert!(head.starts_with(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n")));
    if let Some((user_name, password)) = credentials {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let pair = BASE64_STANDARD.encode(format!("{user_name}:{password}"));
        if !head.contains(&format!("\r\nProxy-Authorization: Basic {pair}\r\n")) {
            let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\
                Proxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 4\r\n\r\nGo!\n";
            conn.write_all(answer).await.unwrap();
            return;
        }
    }
    let (host, port) = target.rsplit_once(':').unwrap();
    let Some(mut far) = dial(host, port.parse().unwrap()).await else {
        conn.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            .await
            .unwrap();
        return;
    };
    conn.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        .await
        .unwrap();
    drop(copy_bidirectional(&mut conn, &mut far).await);
}

async fn socks5(mut conn: TcpStream, credentials: Option<(&str, &str)>) {
    assert_eq!(conn.read_u8().await.unwrap(), 5);
    let methods = read_text(&mut conn).await;
    match credentials {
        None => conn.write_all(&[5, 0]).await.unwrap(),
        Some(_) if !methods.contains(&2) => {
            conn.write_all(&[5, 0xFF]).await.unwrap();
            return;
        }
        Some((user_name, password)) => {
            conn.write_all(&[5, 2]).await.unwrap();
            assert_eq!(conn.read_u8().await.unwrap(), 1);
            let given = (read_text(&mut conn).await, read_text(&mut conn).await);
            let right = given == (user_name.into(), password.into());
            conn.write_all(&[1, u8::from(!right)]).await.unwrap();
            if !right {
                return;
            }
        }
    }
    let mut request = [0; 4];
    conn.read_exact(&mut request).await.unwrap();
    let host = match request {
        [5, 1, 0, 3] => String::from_utf8(read_text(&mut conn).await).unwrap(),
        [5, 1, 0, 1] => std::net::Ipv4Addr::from(conn.read_u32().await.unwrap()).to_string(),
        other => panic!("{other:?}"),
    };
    let port = conn.read_u16().await.unwrap();
    let Some(mut far) = dial(&host, port).await else {
        conn.write_all(&[5, 5]).await.unwrap();
        conn.write_all(&[0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
        return;
    };
    conn.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 1])
        .await
        .unwrap();
    drop(copy_bidirectional(&mut conn, &mut far).await);
}

async fn read_text(conn: &mut TcpStream) -> Vec<u8> {
    let mut text = vec![0; conn.read_u8().await.unwrap().into()];
    conn.read_exact(&mut text).await.unwrap();
    text
}

async fn dial(host: &str, port: u16) -> Option<TcpStream> {
    let host = match host {
        "server.test" => "127.0.0.1",
        host => host,
    };
    TcpStream::connect((host, port)).await.ok()
}

/// A proxy that sends `answers`, each after something was sent to it, and then closes or stays.
async fn scripted(answers: &[&[u8]], stays: bool) -> SocketAddr {
    let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut conn, _) = listener.accept().await.unwrap();
        for answer in answers {
            assert_ne!(conn.read(&mut [0; 1_024]).await.unwrap(), 0);
            // Who has heard enough may be gone.
            drop(conn.write_all(&answer).await);
        }
        if stays {
            drop(tokio::io::copy(&mut conn, &mut tokio::io::sink()).await);
        }
    });
    address
}

fn config(scheme: &str, proxy: SocketAddr) -> ProxyConfig {
    ProxyConfig::new(format!("{scheme}://{proxy}").parse().unwrap())
}

async fn connect(config: ProxyConfig, url: &str) -> Outcome {
    let mut connector = ProxyConnector::new(TcpConnector::default(), config).unwrap();
    let endpoint: Endpoint = url.parse().unwrap();
    let connect = connector.ready().await.unwrap().call(endpoint);
    // Nothing here needs a minute; who waits for ever is found out.
    tokio::time::timeout(Duration::from_secs(60), connect)
        .await
        .expect("a proxy makes no one wait for ever")
}

#[track_caller]
fn check_error(outcome: Outcome, is_transient: bool, texts: &[&str]) {
    let error = outcome.unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Proxy, "{error:?}");
    assert_eq!(error.is_transient(), is_transient, "{error:?}");
    let source = error.source().unwrap().to_string();
    for text in texts {
        assert!(source.contains(text), "{text:?} is not in {source:?}");
    }
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

async fn check_echo(mut conn: StreamConn<TcpStream>) {
    let mut greeting = [0; 5];
    conn.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello");
    conn.write_all(b"ping").await.unwrap();
    conn.shutdown().await.unwrap();
    let mut rest = Vec::new();
    conn.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"ping");
}

#[tokio::test]
async fn a_tunnel_leads_to_the_server() {
    let server = server().await;
    for scheme in SCHEMES {
        let proxy = proxy(scheme, None).await;
        // The scheme does not matter: TLS or a WebSocket comes on top.
        for url in [
            format!("mqtt://{server}"),
            format!("mqtts://server.test:{}", server.port()),
            format!("wss://server.test:{}/mqtt", server.port()),
        ] {
            let conn = connect(config(scheme, proxy), &url).await.unwrap();
            assert_eq!(conn.info().kind, ConnKind::Tcp);
            assert_eq!(conn.info().peer, Address::Socket(proxy), "{url}");
            check_echo(conn).await;
        }
    }
}

#[tokio::test]
async fn credentials() {
    let server = server().await;
    let url = format!("mqtt://{server}");
    for scheme in SCHEMES {
        let proxy = proxy(scheme, Some(("me", "hunter2"))).await;
        let right = config(scheme, proxy).with_credentials("me", "hunter2");
        check_echo(connect(right, &url).await.unwrap()).await;

        let wrong = config(scheme, proxy).with_credentials("you", "hunter2");
        let text = "user name or password is wrong";
        let outcome = connect(wrong, &url).await;
        let kind = outcome.as_ref().unwrap_err().io_error().kind();
        assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
        check_error(outcome, false, &[text]);

        let text = "a user name and password";
        let none = config(scheme, proxy);
        check_error(connect(none, &url).await, false, &[text]);
    }
    // Credentials are no harm where none are asked for.
    for scheme in SCHEMES {
        let proxy = proxy(scheme, None).await;
        let config = config(scheme, proxy).with_credentials("me", "hunter2");
        check_echo(connect(config, &url).await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_server_that_is_away_may_come_back() {
    let dead = listen().await.1;
    for (scheme, text) in [
        ("http", "502 Bad Gateway"),
        ("socks5", "connection refused"),
    ] {
        let proxy = proxy(scheme, None).await;
        let name = format!("{scheme}://{proxy}: ");
        let outcome = connect(config(scheme, proxy), &format!("mqtt://{dead}")).await;
        assert_eq!(
            outcome.as_ref().unwrap_err().endpoint().port(),
            Some(dead.port())
        );
        check_error(outcome, true, &[&name, text]);
    }
}

#[tokio::test]
async fn a_proxy_that_is_away_is_named() {
    let dead = listen().await.1;
    for scheme in SCHEMES {
        let name = format!("{scheme}://{dead}: ");
        let outcome = connect(config(scheme, dead), "mqtt://server.test").await;
        check_error(outcome, true, &[&name, "refused"]);
    }
}

#[tokio::test]
async fn refusals() {
    for (scheme, answers, is_transient, text) in [
        (
            "http",
            &[&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..]][..],
            false,
            "403 Forbidden",
        ),
        ("http", &[b"HTTP/1.1 503 Later\r\n\r\n"], true, "503 Later"),
        (
            "socks5",
            &[b"\x05\0", b"\x05\x02\0\x01"],
            false,
            "2: not allowed",
        ),
        ("socks5", &[b"\x05\xFF"], false, "asks for a user name"),
    ] {
        let proxy = scripted(answers, true).await;
        let outcome = connect(config(scheme, proxy), "mqtt://server.test").await;
        check_error(outcome, is_transient, &[text]);
    }
}

#[tokio::test]
async fn a_proxy_that_closes_early() {
    for (scheme, answers) in [
        ("http", &[&b""[..]][..]),
        ("http", &[b"HTTP/1.1 2"]),
        ("http", &[b"HTTP/1.1 200 OK\r\nVia: x\r\n"]),
        ("socks5", &[b""]),
        ("socks5", &[b"\x05"]),
        ("socks5", &[b"\x05\0", b""]),
        ("socks5", &[b"\x05\0", b"\x05\0\0\x01\0"]),
    ] {
        let proxy = scripted(answers, false).await;
        let outcome = connect(config(scheme, proxy), "mqtt://server.test").await;
        check_error(outcome, true, &["closed the connection"]);
    }
}

#[tokio::test]
async fn a_proxy_that_is_none() {
    for (scheme, answers) in [
        ("http", &[&b"\0\xFF\xFE\0\0\0\0\0\0\0\0\0\0"[..]][..]),
        ("http", &[b"HTTP/1.1 what is this?\r\n\r\n"]),
        ("http", &[b"\x05\xFFand more of it"]),
        ("socks5", &[b"HTTP/1.1 400 Bad Request\r\n\r\n"]),
        // Asks for a method that was not offered.
        ("socks5", &[b"\x05\x02"]),
        ("socks5", &[b"\x05\0", b"\x05\0\0\x09\0\0\0\0\0\0"]),
    ] {
        let proxy = scripted(answers, true).await;
        let outcome = connect(config(scheme, proxy), "mqtt://server.test").await;
        check_error(outcome, true, &["is this a"]);
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_short() {
    let (listener, address) = listen().await;
    let proxy = tokio::spawn(async move {
        let (mut conn, _) = listener.accept().await.unwrap();
        conn.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        let mut sent = 0_usize;
        while conn.write_all(b"X-More: and more\r\n").await.is_ok() {
            sent += 1;
        }
        sent
    });
    let outcome = connect(config("http", address), "mqtt://server.test").await;
    check_error(outcome, true, &["longer than 8 KiB"]);
    // It notices that nobody listens any more.
    assert!(proxy.await.unwrap() > 0);
}

#[tokio::test]
async fn a_silent_proxy_is_given_up() {
    let timeout = Duration::from_millis(50);
    for (scheme, answers) in [
        ("http", &[][..]),
        ("http", &[&b"HTTP/1.1 200 OK\r\n"[..]]),
        ("socks5", &[]),
        ("socks5", &[b"\x05\0"]),
        ("socks5", &[b"\x05\0", b"\x05\0\0\x03\xFF"]),
    ] {
        let proxy = scripted(answers, true).await;
        let config = config(scheme, proxy).with_timeout(timeout);
        let name = format!("{scheme}://{proxy}: no answer within 50ms");
        check_error(connect(config, "mqtt://server.test").await, true, &[&name]);
    }
}

#[tokio::test]
async fn a_deadline_around_says_that_the_proxy_was_waited_for() {
    for scheme in SCHEMES {
        let config = config(scheme, scripted(&[], true).await);
        let connector = ProxyConnector::new(TcpConnector::default(), config).unwrap();
        let outcome = ConnectDeadline::new(connector, Duration::from_millis(50))
            .oneshot("mqtt://server.test".parse().unwrap())
            .await;
        check_error(outcome, true, &["50ms"]);
    }
}

#[tokio::test]
async fn what_comes_with_the_answer_is_kept() {
    for (scheme, answers) in [
        (
            "http",
            &[&b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n\r\n\r\nhello"[..]][..],
        ),
        ("http", &[b"HTTP/1.1 200\r\n\r\n\r\n\r\nhello"]),
        (
            "socks5",
            &[b"\x05\0", b"\x05\0\0\x01\x7F\0\0\x01\0\x01\r\n\r\nhello"],
        ),
        (
            "socks5",
            &[b"\x05\0", b"\x05\0\0\x03\x01a\0\x01\r\n\r\nhello"],
        ),
    ] {
        let proxy = scripted(answers, false).await;
        let mut conn = connect(config(scheme, proxy), "mqtt://server.test")
            .await
            .unwrap();
        let mut read = Vec::new();
        conn.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"\r\n\r\nhello", "{scheme}");
    }
}

#[tokio::test]
async fn some_hosts_need_no_proxy() {
    let server = server().await;
    let nobody = listen().await.1;
    let config = config("http", nobody).with_no_proxy(["127.0.0.1"]);
    let url = format!("mqtt://{server}");
    let conn = connect(config.clone(), &url).await.unwrap();
    assert_eq!(conn.info().peer, Address::Socket(server));
    check_echo(conn).await;
    check_error(
        connect(config, "mqtt://127.0.0.2").await,
        true,
        &["refused"],
    );
}

#[tokio::test]
async fn a_unix_socket_is_not_behind_a_proxy() {
    let config = config("http", ([127, 0, 0, 1], 1).into());
    let outcome = connect(config, "unix:///run/mqtt.sock").await;
    check_error(outcome, false, &["a host and a port"]);
}

#[test]
fn a_configuration_is_read_and_never_writes_its_password() {
    let config: ProxyConfig = toml::from_str(
        r#"
            url = "socks5://proxy"
            user_name = "me"
            password = "hunter2"
            timeout = "3s"
            no_proxy = ["localhost", ".example.com"]
        "#,
    )
    .unwrap();
    config.validate().unwrap();
    assert_eq!(config.url.to_string(), "socks5://proxy:1080");
    let text = toml::to_string(&config).unwrap();
    assert!(text.contains("timeout = \"3s\""), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    assert!(!format!("{config:?}").contains("hunter2"));
    let connector = ProxyConnector::new(TcpConnector::default(), config).unwrap();
    assert!(!format!("{connector:?}").contains("hunter2"));

    // What was written lacks the password, and says so rather than go without.
    let config: ProxyConfig = toml::from_str(&text).unwrap();
    let errors = config.validate().unwrap_err();
    assert_eq!(errors.iter().next().unwrap().path, "proxy.password");

    for text in [
        "url = \"http://me:hunter2@proxy\"",
        "timeout = \"1s\"",
        "url = \"http://a\"\nuser = 1",
    ] {
        let error = toml::from_str::<ProxyConfig>(text).unwrap_err();
        assert!(!error.message().contains("hunter2"), "{error}");
    }
}

#[test]
fn what_a_proxy_cannot_be_told_is_refused() {
    #[track_caller]
    fn check(config: ProxyConfig, paths: &[&str]) {
        let errors = config.validate().unwrap_err();
        let found: Vec<&str> = errors.iter().map(|error| &*error.path).collect();
        assert_eq!(found, paths);
        assert!(!errors.to_string().contains("hunter2"), "{errors}");
    }
    let http = || ProxyConfig::new("http://proxy".parse().unwrap());
    let socks5 = || ProxyConfig::new("socks5://proxy".parse().unwrap());
    check(
        http().with_credentials("a:b", "hunter2"),
        &["proxy.user_name"],
    );
    check(
        http().with_credentials("a\r\nb", "hunter2"),
        &["proxy.user_name"],
    );
    check(
        socks5().with_credentials("", ""),
        &["proxy.user_name", "proxy.password"],
    );
    let long = "hunter2".repeat(40);
    check(socks5().with_credentials("me", long), &["proxy.password"]);
    check(http().with_timeout(Duration::ZERO), &["proxy.timeout"]);
    check(
        http().with_no_proxy(["", ".", "*", "10.0.0.0/8"]),
        &["proxy.no_proxy"; 4],
    );
    http().with_credentials("me", "").validate().unwrap();
}

/// The whole stack as a configuration file says it: the proxy, with TLS through its tunnel.
#[cfg(all(feature = "native-tls", feature = "rustls"))]
#[tokio::test]
async fn tls_goes_through_the_tunnel() {
    use mqtt_testkit::{OpensslServer, pki::Authority};
    use mqtt_transport::ConnectorConfig;

    let root = Authority::new("root");
    let identity = root.server(&["server.test"]).issue();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, root.certificate_pem()).unwrap();
    let server = OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
        .start()
        .unwrap();
    // A name that only the proxy knows.
    let endpoint: Endpoint = format!("mqtts://server.test:{}", server.addr().port())
        .parse()
        .unwrap();
    for scheme in SCHEMES {
        let proxy = proxy(scheme, Some(("me", "hunter2"))).await;
        for backend in ["native_tls", "rustls"] {
            let text = format!(
                "[proxy]\nurl = \"{scheme}://{proxy}\"\nuser_name = \"me\"\n\
                 [tls]\nbackend = \"{backend}\"\ntrust = \"own\"\nroots = [{{ file = {ca:?} }}]"
            );
            let mut config: ConnectorConfig = toml::from_str(&text).unwrap();
            // A password has no place in the file.
            let proxy = config.proxy.take().unwrap();
            config.proxy = Some(proxy.with_credentials("me", "hunter2"));
            let connector = config.connector().await.unwrap();
            let mut conn = connector.connect(endpoint.clone()).await.unwrap();
            assert_eq!(conn.info().kind, ConnKind::Tcp);
            assert!(conn.info().tls.is_some());
            conn.write_all(b"ping").await.unwrap();
            conn.flush().await.unwrap();
            let mut answer = [0; 4];
            conn.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"ping", "{scheme}, {backend}");
        }
    }
    assert!(
        server
            .handshakes(4)
            .await
            .iter()
            .all(|seen| seen.error.is_none())
    );
}

/// One look at a file with mistakes in every part shows them all.
#[cfg(all(feature = "rustls", feature = "websocket"))]
#[test]
fn all_that_is_wrong_with_a_configuration_is_told_at_once() {
    let config: mqtt_transport::ConnectorConfig = toml::from_str(
        r#"
        [tcp]
        attempt_delay = "1ms"
        [tls]
        server_name = ""
        [proxy]
        url = "socks5://proxy"
        timeout = "0s"
        [websocket]
        handshake_timeout = "0s"
        "#,
    )
    .unwrap();
    let errors = config.validate().unwrap_err();
    let paths: Vec<&str> = errors.iter().map(|error| &*error.path).collect();
    assert_eq!(
        paths,
        [
            "tcp.attempt_delay",
            "tls.server_name",
            "proxy.timeout",
            "websocket.handshake_timeout"
        ]
    );
}
