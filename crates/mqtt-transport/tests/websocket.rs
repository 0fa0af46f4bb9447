//! WebSocket: against servers in memory that do what a test says, in virtual time, and against
//! mosquitto.

#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mqtt;

use std::{error::Error, io, time::Duration};

use futures_util::{SinkExt, StreamExt};
use mqtt_testkit::{MemoryConnector, Mosquitto, memory, memory_with_capacity};
use mqtt_transport::{
    Conn, ConnKind, ConnectError, ConnectPhase, Endpoint, StreamConn, TcpConnector, WebSocketConn,
    WebSocketConnector, WebSocketOptions,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::TcpListener,
    time::Instant,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tower::{Service, ServiceExt};

type Client = WebSocketConn<StreamConn<DuplexStream>>;
type Server = WebSocketStream<DuplexStream>;

/// The client's side of one conversation; what the server does is `serve`.
async fn dial<F: Future<Output = ()>>(
    url: &str,
    options: WebSocketOptions,
    serve: impl FnOnce(DuplexStream) -> F,
) -> Result<Client, ConnectError> {
    let (inner, mut listener) = memory();
    let connector = WebSocketConnector::new(inner, options).unwrap();
    let endpoint = url.parse().unwrap();
    let serve = async { serve(listener.accept().await.into_stream()).await };
    let mut connect = std::pin::pin!(connector.oneshot(endpoint));
    tokio::select! {
        outcome = &mut connect => outcome,
        () = serve => connect.await,
    }
}

#[allow(clippy::result_large_err, reason = "as the library has it")]
fn choose_mqtt(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    assert_eq!(request.headers()["sec-websocket-protocol"], "mqtt");
    let chosen = request.headers()["sec-websocket-protocol"].clone();
    response
        .headers_mut()
        .insert("sec-websocket-protocol", chosen);
    Ok(response)
}

/// An open WebSocket from both sides.
async fn open_with(
    inner: MemoryConnector,
    listen: impl Future<Output = DuplexStream>,
    options: WebSocketOptions,
) -> (Client, Server) {
    let connector = WebSocketConnector::new(inner, options).unwrap();
    let accept = async {
        let stream = listen.await;
        tokio_tungstenite::accept_hdr_async(stream, choose_mqtt).await
    };
    let endpoint = "ws://server.test".parse().unwrap();
    let (client, server) = tokio::join!(connector.oneshot(endpoint), accept);
    (client.unwrap(), server.unwrap())
}

async fn open(options: WebSocketOptions) -> (Client, Server) {
    let (inner, mut listener) = memory();
    let listen = async { listener.accept().await.into_stream() };
    open_with(inner, listen, options).await
}

/// Reads the head of a request or response.
async fn head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The error after a server that answers the request with these bytes, and keeps the connection.
async fn refused_by(answer: &str) -> ConnectError {
    let answer = answer.to_owned();
    let serve = async |mut stream: DuplexStream| {
        head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    };
    let error = dial("ws://server.test", WebSocketOptions::default(), serve)
        .await
        .unwrap_err();
    assert_eq!(error.phase(), ConnectPhase::Upgrade);
    error
}

#[tokio::test(start_paused = true)]
async fn the_request_is_as_the_endpoint_and_the_options_say() {
    let options = WebSocketOptions::default()
        .with_header("Authorization", "Bearer hunter2")
        .with_header("x-tenant", "a")
        .with_header("X-Tenant", "b");
    let mut request = String::new();
    for (url, host, path) in [
        ("ws://Server.test", "server.test", "/mqtt"),
        ("ws://server.test:80/a/b", "server.test", "/a/b"),
        ("ws://[::1]:8080", "[::1]:8080", "/mqtt"),
        ("wss://server.test", "server.test", "/mqtt"),
        ("wss://server.test:80", "server.test:80", "/mqtt"),
    ] {
        let serve = async |mut stream: DuplexStream| {
            request = head(&mut stream).await;
        };
        dial(url, options.clone(), serve).await.unwrap_err();
        let mut lines = request.lines();
        assert_eq!(lines.next().unwrap(), format!("GET {path} HTTP/1.1"));
        let headers: Vec<(String, &str)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        let values = |name| {
            let named = headers.iter().filter(move |header| header.0 == name);
            named.map(|header| header.1).collect::<Vec<_>>()
        };
        assert_eq!(values("host"), [host]);
        assert_eq!(values("upgrade"), ["websocket"]);
        // [MQTT5-6.0.0-3]
        assert_eq!(values("sec-websocket-protocol"), ["mqtt"]);
        assert_eq!(values("authorization"), ["Bearer hunter2"]);
        assert_eq!(values("x-tenant"), ["a", "b"]);
    }
    let connector = WebSocketConnector::new(TcpConnector::default(), options).unwrap();
    assert!(!format!("{connector:?}").contains("hunter2"));
}

#[tokio::test]
async fn options_that_do_not_hold_are_refused() {
    let options = WebSocketOptions::default().with_header("Host", "other");
    let errors = WebSocketConnector::new(TcpConnector::default(), options).unwrap_err();
    assert_eq!(errors.iter().count(), 1, "{errors}");
}

#[tokio::test(start_paused = true)]
async fn the_answer_s_status_decides_whether_another_attempt_can_help() {
    for (status, transient) in [
        ("200 OK", false),
        ("301 Moved Permanently", false),
        ("400 Bad Request", false),
        ("401 Unauthorized", false),
        ("403 Forbidden", false),
        ("404 Not Found", false),
        ("426 Upgrade Required", false),
        ("429 Too Many Requests", true),
        ("500 Internal Server Error", true),
        ("503 Service Unavailable", true),
    ] {
        let error = refused_by(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
        let said = error.source().unwrap().to_string();
        assert!(
            said.contains(&format!("the server answered {status}")),
            "{said}"
        );
        assert_eq!(error.is_transient(), transient, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_an_upgrade_is_refused_for_good() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\x20\x02\x00\x00",
        "HTTP/1.0 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
    ] {
        let error = refused_by(answer).await;
        assert!(!error.is_transient(), "{answer}: {error:?}");
    }
    let endless = format!(
        "HTTP/1.1 101 Switching Protocols\r\nX: {}",
        "x".repeat(100_000)
    );
    assert!(!refused_by(&endless).await.is_transient());
}

/// [MQTT5-6.0.0-4]
#[tokio::test(start_paused = true)]
async fn the_server_must_choose_the_subprotocol_and_nothing_that_was_not_offered() {
    for (header, reason) in [
        (None, "subprotocol mqtt"),
        (
            Some(("sec-websocket-protocol", "mqttv3.1")),
            "subprotocol mqtt",
        ),
        (Some(("sec-websocket-protocol", "MQTT")), "subprotocol mqtt"),
        (
            Some(("sec-websocket-extensions", "permessage-deflate")),
            "extension",
        ),
    ] {
        #[allow(clippy::result_large_err, reason = "as the library has it")]
        let answer = |request: &Request, mut response: Response| {
            if let Some((name, value)) = header {
                response.headers_mut().insert(name, value.parse().unwrap());
                if name.ends_with("extensions") {
                    return choose_mqtt(request, response);
                }
            }
            Ok(response)
        };
        let serve = async |stream: DuplexStream| {
            let server = tokio_tungstenite::accept_hdr_async(stream, answer).await;
            std::future::pending::<()>().await;
            drop(server);
        };
        let error = dial("ws://server.test", WebSocketOptions::default(), serve)
            .await
            .unwrap_err();
        assert_eq!(error.phase(), ConnectPhase::Upgrade);
        assert!(!error.is_transient());
        let said = error.source().unwrap().to_string();
        assert!(said.contains(reason), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let silent = async |stream: DuplexStream| {
        std::future::pending::<()>().await;
        drop(stream);
    };
    let trickling = async |mut stream: DuplexStream| {
        for byte in b"HTTP/1.1 101 Switching Protocols\r\n".iter().cycle() {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.write_u8(*byte).await.unwrap();
        }
    };
    let start = Instant::now();
    let error = dial("ws://server.test", WebSocketOptions::default(), silent)
        .await
        .unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!(error.io_error().kind(), io::ErrorKind::TimedOut);
    assert!(error.is_transient());

    let start = Instant::now();
    let timeout = Duration::from_secs(2);
    let options = WebSocketOptions::default().with_handshake_timeout(timeout);
    let error = dial("ws://server.test", options, trickling)
        .await
        .unwrap_err();
    assert_eq!(start.elapsed(), timeout);
    assert_eq!(error.io_error().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_before_it_answers_may_be_back() {
    let serve = async |mut stream: DuplexStream| {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 101 Swi").await.unwrap();
    };
    let error = dial("ws://server.test", WebSocketOptions::default(), serve)
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn only_its_own_schemes_and_wss_only_when_encrypted() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    for url in [format!("mqtt://{address}"), format!("wss://{address}")] {
        let connector =
            WebSocketConnector::new(TcpConnector::default(), WebSocketOptions::default()).unwrap();
        let error = connector.oneshot(url.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.phase(), ConnectPhase::Choose, "{url}");
        assert!(!error.is_transient());
    }
    // Only the second was dialled, and nothing was sent.
    let (mut peer, _) = listener.accept().await.unwrap();
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_connect_closes_the_connection_below() {
    let (inner, mut listener) = memory();
    let mut connector = WebSocketConnector::new(inner, WebSocketOptions::default()).unwrap();
    let endpoint: Endpoint = "ws://server.test".parse().unwrap();
    let mut connect = connector.ready().await.unwrap().call(endpoint);
    let waits = tokio::time::timeout(Duration::from_millis(1), &mut connect).await;
    assert!(waits.is_err());
    let mut stream = listener.accept().await.into_stream();
    head(&mut stream).await;
    drop(connect);
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

/// [MQTT5-6.0.0-2]
#[tokio::test(start_paused = true)]
async fn reading_does_not_see_where_messages_end() {
    let (mut client, mut server) = open(WebSocketOptions::default()).await;
    assert_eq!(client.info().kind, ConnKind::WebSocket);
    for part in ["ab", "", "cde"] {
        server.feed(Message::binary(part)).await.unwrap();
    }
    server.flush().await.unwrap();
    let mut read = [0; 64];
    assert_eq!(
        client.read(&mut read).await.unwrap(),
        5,
        "all that is there"
    );
    assert_eq!(&read[..5], b"abcde");

    let long: Vec<u8> = (0..50_000_u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let sent = Message::binary(long.clone());
    let send = async { server.send(sent).await.unwrap() };
    let read = async {
        let mut all = Vec::new();
        let mut piece = [0; 7];
        while all.len() < long.len() {
            let n = client.read(&mut piece).await.unwrap();
            all.extend_from_slice(&piece[..n]);
        }
        all
    };
    let ((), all) = soon(async { tokio::join!(send, read) }).await;
    assert!(all == long);
}

#[tokio::test(start_paused = true)]
async fn writing_gathers_slices_into_messages_of_bounded_size() {
    let (mut client, mut server) = open(WebSocketOptions::default()).await;
    assert!(tokio::io::AsyncWrite::is_write_vectored(&client));
    let slices = [io::IoSlice::new(b"ab"), io::IoSlice::new(b"cd")];
    assert_eq!(client.write_vectored(&slices).await.unwrap(), 4);
    // Without a flush: it was written at once.
    assert_eq!(next(&mut server).await, Message::binary("abcd"));

    let long = vec![7; 100_000];
    let write = async {
        client.write_all(&long).await.unwrap();
        client.flush().await.unwrap();
    };
    let read = async {
        let mut sizes = Vec::new();
        while sizes.iter().sum::<usize>() < long.len() {
            sizes.push(next(&mut server).await.into_data().len());
        }
        sizes
    };
    let ((), sizes) = soon(async { tokio::join!(write, read) }).await;
    assert_eq!(sizes.iter().sum::<usize>(), long.len());
    assert_eq!(sizes.iter().max(), Some(&(16 * 1024)));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_holds_up_writing_in_bounded_memory() {
    let (inner, mut listener) = memory_with_capacity(1024);
    let listen = async { listener.accept().await.into_stream() };
    let options = WebSocketOptions::default().with_max_write_size(4096);
    let (mut client, mut server) = open_with(inner, listen, options).await;
    let mut taken = 0;
    while let Ok(n) = tokio::time::timeout(Duration::from_secs(1), client.write(&[1; 4096])).await {
        taken += n.unwrap();
        assert!(
            taken <= 2 * 4096,
            "the pipe holds 1024, the buffer one message"
        );
    }
    let read = async {
        let mut read = 0;
        while read < taken {
            read += next(&mut server).await.len();
        }
    };
    let (flushed, ()) = soon(async { tokio::join!(client.flush(), read) }).await;
    flushed.unwrap();
}

/// [MQTT5-6.0.0-1]
#[tokio::test(start_paused = true)]
async fn a_text_message_ends_the_connection() {
    let (mut client, mut server) = open(WebSocketOptions::default()).await;
    server.feed(Message::binary("before")).await.unwrap();
    server.send(Message::text("{}")).await.unwrap();
    let mut read = [0; 64];
    assert_eq!(client.read(&mut read).await.unwrap(), 6);
    for _ in 0..2 {
        let error = soon(client.read(&mut read)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("text"), "{error}");
    }
    assert!(client.write(b"x").await.is_err());
    assert!(client.flush().await.is_err());
    closed_with(&mut server, CloseCode::Unsupported).await;
}

/// In time, and the time is virtual: a test that waits for nothing fails rather than hangs.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what)
        .await
        .expect("this takes no time")
}

/// What the server receives next.
async fn next(server: &mut Server) -> Message {
    soon(server.next()).await.unwrap().unwrap()
}

/// The server is told this code, and the connection ends without the client being dropped.
async fn closed_with(server: &mut Server, code: CloseCode) {
    let told = next(server).await;
    let Message::Close(Some(CloseFrame { code: told, .. })) = told else {
        panic!("{told:?}");
    };
    assert_eq!(told, code);
    assert_eq!(soon(server.get_mut().read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_past_the_bound_ends_the_connection_at_its_header() {
    let options = WebSocketOptions::default().with_max_message_size(1024);
    let (mut client, mut server) = open(options).await;
    server.send(Message::binary(vec![0; 1024])).await.unwrap();
    client.read_exact(&mut [0; 1024]).await.unwrap();
    // The header alone, of one that claims 2^20 bytes.
    let header = [0x82, 127, 0, 0, 0, 0, 0, 16, 0, 0];
    server.get_mut().write_all(&header).await.unwrap();
    let error = soon(client.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    closed_with(&mut server, CloseCode::Size).await;
}

#[tokio::test(start_paused = true)]
async fn frames_that_break_the_rules_end_the_connection() {
    for frame in [
        b"\xc2\x01a".as_slice(),      // reserved bits
        b"\x83\x01a",                 // reserved kind of data
        b"\x80\x01a",                 // the rest of nothing
        b"\x82\x81\x00\x00\x00\x00a", // masked
        b"\x09\x00",                  // a ping in parts
    ] {
        let (mut client, mut server) = open(WebSocketOptions::default()).await;
        server.get_mut().write_all(frame).await.unwrap();
        let error = soon(client.read(&mut [0])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{frame:?}");
        closed_with(&mut server, CloseCode::Protocol).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_by_a_client_that_only_reads() {
    let (mut client, mut server) = open(WebSocketOptions::default()).await;
    let reading = tokio::spawn(async move { client.read_u8().await.unwrap() });
    server
        .send(Message::Ping("are you there".into()))
        .await
        .unwrap();
    let answer = next(&mut server).await;
    assert_eq!(answer, Message::Pong("are you there".into()));
    server.send(Message::binary("x")).await.unwrap();
    assert_eq!(reading.await.unwrap(), b'x');
}

#[tokio::test(start_paused = true)]
async fn pings_of_a_server_that_does_not_read_do_no_harm() {
    let (inner, mut listener) = memory_with_capacity(512);
    let listen = async { listener.accept().await.into_stream() };
    let options = WebSocketOptions::default().with_max_write_size(1024);
    let (mut client, mut server) = open_with(inner, listen, options).await;
    // Straight into the pipe: the server's own side would read to answer.
    let serve = async {
        for _ in 0..5_000 {
            server.get_mut().write_all(b"\x89\x04ping").await.unwrap();
        }
        server.get_mut().write_all(b"\x82\x01x").await.unwrap();
        let mut data = Vec::new();
        while data.len() < 1024 {
            if let Message::Binary(bytes) = next(&mut server).await {
                data.extend_from_slice(&bytes);
            }
        }
        data
    };
    let talk = async {
        assert_eq!(soon(client.read_u8()).await.unwrap(), b'x');
        client.write_all(&[9; 1024]).await.unwrap();
        client.flush().await.unwrap();
    };
    let (data, ()) = soon(async { tokio::join!(serve, talk) }).await;
    assert_eq!(data, [9; 1024]);
}

#[tokio::test(start_paused = true)]
async fn the_server_s_closing_is_the_end_and_is_answered() {
    let (mut client, mut server) = open(WebSocketOptions::default()).await;
    server.feed(Message::binary("last")).await.unwrap();
    server.close(None).await.unwrap();
    let mut read = Vec::new();
    soon(client.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"last");
    // Answered while reading, though the client does nothing more.
    assert!(matches!(next(&mut server).await, Message::Close(_)));
    let error = client.write(b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    soon(client.shutdown()).await.unwrap();
    assert_eq!(soon(client.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_without_closing_is_an_error() {
    let (mut client, server) = open(WebSocketOptions::default()).await;
    drop(server);
    let error = soon(client.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_writes_everything_and_waits_for_no_answer() {
    let (mut client, mut server) = open(WebSocketOptions::default()).await;
    let start = Instant::now();
    client.write_all(b"last").await.unwrap();
    soon(client.shutdown()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(next(&mut server).await, Message::binary("last"));
    assert!(matches!(
        server.next().await,
        Some(Ok(Message::Close(None)))
    ));
    assert!(soon(server.next()).await.is_none());
    assert_eq!(soon(server.get_mut().read(&mut [0])).await.unwrap(), 0);
    drop(server);
    assert_eq!(soon(client.read(&mut [0])).await.unwrap(), 0);
    soon(client.shutdown()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutting_down_is_bounded_by_a_server_that_does_not_read() {
    let (inner, mut listener) = memory_with_capacity(512);
    let listen = async { listener.accept().await.into_stream() };
    let timeout = Duration::from_millis(700);
    let options = WebSocketOptions::default().with_close_timeout(timeout);
    let (mut client, _server) = open_with(inner, listen, options).await;
    assert_eq!(client.write(&[0; 2048]).await.unwrap(), 2048);
    let start = Instant::now();
    let error = soon(client.shutdown()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed(), timeout);
}

#[tokio::test]
async fn mosquitto() {
    let builder = Mosquitto::builder().websockets(true);
    let Some(server) = builder.start_or_skip("mosquitto over ws").await else {
        return;
    };
    let connector =
        WebSocketConnector::new(TcpConnector::default(), WebSocketOptions::default()).unwrap();
    let endpoint: Endpoint = server.ws_url().parse().unwrap();
    let conn = connector.oneshot(endpoint).await.unwrap();
    assert_eq!(conn.info().kind, ConnKind::WebSocket);
    // Many frames. No more, since mosquitto 2.0.11 reads 4 KiB of a WebSocket every 100 ms.
    mqtt::converse(conn, 40_000).await;
}

/// The library makes room for what a frame claims: no configuration lets that be everything.
#[test]
fn no_message_may_be_larger_than_the_protocol_allows() {
    let largest = 256 * 1024 * 1024 + 64 * 1024;
    let options = |bytes| WebSocketOptions::default().with_max_message_size(bytes);
    assert!(options(largest).validate().is_ok());
    assert!(options(largest + 1).validate().is_err());
}
