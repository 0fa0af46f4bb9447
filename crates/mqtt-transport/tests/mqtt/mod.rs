//! A conversation with a real server, in the bytes of MQTT 3.1.1.

use std::time::Duration;

use mqtt_transport::Conn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Connects, subscribes, and has a message with a payload of `size` bytes sent back; then leaves in
/// order.
pub(crate) async fn converse(conn: impl Conn, size: usize) {
    tokio::time::timeout(Duration::from_secs(20), run(conn, size))
        .await
        .expect("the conversation ends");
}

async fn run(mut conn: impl Conn, size: usize) {
    let id = b"transport-test";
    let mut connect = b"\x10\x1a\x00\x04MQTT\x04\x02\x00\x1e\x00\x0e".to_vec();
    connect.extend_from_slice(id);
    conn.write_all(&connect).await.unwrap();
    conn.flush().await.unwrap();
    let mut connack = [0; 4];
    conn.read_exact(&mut connack).await.unwrap();
    assert_eq!(&connack, b"\x20\x02\x00\x00");

    conn.write_all(b"\x82\x06\x00\x01\x00\x01t\x00")
        .await
        .unwrap();
    conn.flush().await.unwrap();
    let mut suback = [0; 5];
    conn.read_exact(&mut suback).await.unwrap();
    assert_eq!(&suback, b"\x90\x03\x00\x01\x00");

    let mut publish = vec![0x30];
    let mut length = size + 3;
    while length > 0 {
        let more = if length > 127 { 128 } else { 0 };
        publish.push(u8::try_from(length % 128).unwrap() | more);
        length /= 128;
    }
    publish.extend_from_slice(b"\x00\x01t");
    publish.extend((0..size).map(|n| u8::try_from(n % 251).unwrap()));
    conn.write_all(&publish).await.unwrap();
    conn.flush().await.unwrap();
    let mut back = vec![0; publish.len()];
    conn.read_exact(&mut back).await.unwrap();
    assert!(back == publish, "what comes back is what was sent");

    conn.write_all(b"\xe0\x00").await.unwrap();
    conn.shutdown().await.unwrap();
    assert_eq!(conn.read(&mut [0]).await.unwrap(), 0);
}
