//! Read and write deadlines, in virtual time over connections in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{io, time::Duration};

use mqtt_transport::{
    BoxConn, Conn, ConnInfo, DeadlineExceeded, Operation, ReadDeadline, StreamConn, WriteDeadline,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

fn pipe() -> (BoxConn, DuplexStream) {
    let (near, far) = tokio::io::duplex(8);
    (Box::new(StreamConn::new(near, ConnInfo::memory())), far)
}

#[track_caller]
fn check_exceeded(error: &io::Error, operation: Operation, timeout: Duration) {
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let exceeded = error
        .get_ref()
        .and_then(|source| source.downcast_ref::<DeadlineExceeded>())
        .unwrap();
    assert_eq!((exceeded.operation, exceeded.timeout), (operation, timeout));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_gets_nothing_expires_and_not_earlier() {
    let (near, _far) = pipe();
    let mut conn = ReadDeadline::new(near, 5 * SECOND);
    let start = Instant::now();
    let error = conn.read_u8().await.unwrap_err();
    check_exceeded(&error, Operation::Read, 5 * SECOND);
    assert_eq!(start.elapsed(), 5 * SECOND);
    // The next read gets its own time.
    conn.read_u8().await.unwrap_err();
    assert_eq!(start.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn slow_reads_never_expire_while_something_comes() {
    let (near, mut far) = pipe();
    let mut conn = ReadDeadline::new(near, 5 * SECOND);
    let writer = tokio::spawn(async move {
        for n in 0..20 {
            sleep(4 * SECOND).await;
            far.write_u8(n).await.unwrap();
        }
        far
    });
    for n in 0..20 {
        assert_eq!(conn.read_u8().await.unwrap(), n);
    }
    let _far = writer.await.unwrap();
    let start = Instant::now();
    conn.read_u8().await.unwrap_err();
    assert_eq!(start.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn time_between_reads_does_not_count() {
    let (near, mut far) = pipe();
    let mut conn = ReadDeadline::new(near, 5 * SECOND);
    tokio::join!(async { conn.read_u8().await.unwrap() }, async {
        sleep(SECOND).await;
        far.write_u8(1).await.unwrap();
    });
    sleep(60 * SECOND).await;
    let start = Instant::now();
    conn.read_u8().await.unwrap_err();
    assert_eq!(start.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_write_to_a_peer_that_does_not_read_expires() {
    let (near, mut far) = pipe();
    let mut conn = WriteDeadline::new(near, 2 * SECOND);
    let start = Instant::now();
    let error = conn.write_all(&[0; 20]).await.unwrap_err();
    check_exceeded(&error, Operation::Write, 2 * SECOND);
    assert_eq!(start.elapsed(), 2 * SECOND);
    // Reading has no deadline here.
    let (read, ()) = tokio::join!(conn.read_u8(), async {
        sleep(60 * SECOND).await;
        far.write_u8(7).await.unwrap();
    });
    assert_eq!(read.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_makes_progress_does_not_expire() {
    let (near, mut far) = pipe();
    let mut conn = WriteDeadline::new(near, 2 * SECOND);
    let reader = tokio::spawn(async move {
        for _ in 0..40 {
            sleep(SECOND).await;
            far.read_u8().await.unwrap();
        }
        far
    });
    conn.write_all(&[0; 40]).await.unwrap();
    reader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_changes_on_a_live_connection() {
    let (near, _far) = pipe();
    let mut conn = ReadDeadline::new(near, 5 * SECOND);
    let handle = conn.handle();
    // A longer time counts for the read that waits already.
    let start = Instant::now();
    let (read, ()) = tokio::join!(conn.read_u8(), async {
        sleep(SECOND).await;
        handle.set(Some(9 * SECOND));
    });
    check_exceeded(&read.unwrap_err(), Operation::Read, 9 * SECOND);
    assert_eq!(start.elapsed(), 9 * SECOND);
    // A shorter one for the next.
    handle.set(Some(SECOND));
    let start = Instant::now();
    conn.read_u8().await.unwrap_err();
    assert_eq!(start.elapsed(), SECOND);
    // And none lets it wait.
    handle.set(None);
    assert!(
        tokio::time::timeout(600 * SECOND, conn.read_u8())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn decorators_stack_and_pass_on_what_the_connection_is() {
    let (near, mut far) = pipe();
    let mut conn: BoxConn = Box::new(ReadDeadline::new(WriteDeadline::new(near, SECOND), SECOND));
    assert_eq!(conn.info().kind, mqtt_transport::ConnKind::Memory);
    far.write_all(b"ab").await.unwrap();
    let mut read = [0; 2];
    conn.read_exact(&mut read).await.unwrap();
    conn.write_all(b"cd").await.unwrap();
    far.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"cd");
    let start = Instant::now();
    conn.read_u8().await.unwrap_err();
    conn.write_all(&[0; 9]).await.unwrap_err();
    assert_eq!(start.elapsed(), 2 * SECOND);
    drop(conn);
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest.len(), 8);
}
