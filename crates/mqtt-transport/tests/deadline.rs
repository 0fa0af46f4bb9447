//! Deadlines, in virtual time over connections in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{future::pending, io, time::Duration};

use mqtt_transport::{
    BoxConn, Conn, ConnInfo, ConnectDeadline, ConnectDeadlineLayer, ConnectError, DeadlineConfig,
    DeadlineExceeded, DeadlineHandle, DeadlinesLayer, Endpoint, Limit, Operation, ReadDeadline,
    StreamConn, WriteDeadline,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, sleep},
};
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn pipe() -> (BoxConn, DuplexStream) {
    let (near, far) = tokio::io::duplex(8);
    (Box::new(StreamConn::new(near, ConnInfo::memory())), far)
}

/// Changes a deadline after a while, in a task of its own: nothing but the change wakes who waits.
fn set_after(after: Duration, handle: &DeadlineHandle, timeout: Option<Duration>) {
    let handle = handle.clone();
    tokio::spawn(async move {
        sleep(after).await;
        handle.set(timeout);
    });
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
    set_after(SECOND, &handle, Some(9 * SECOND));
    let error = conn.read_u8().await.unwrap_err();
    check_exceeded(&error, Operation::Read, 9 * SECOND);
    assert_eq!(start.elapsed(), 9 * SECOND);
    // So does a shorter one.
    let start = Instant::now();
    set_after(SECOND, &handle, Some(3 * SECOND));
    let error = conn.read_u8().await.unwrap_err();
    check_exceeded(&error, Operation::Read, 3 * SECOND);
    assert_eq!(start.elapsed(), 3 * SECOND);
    // Of several the last counts, also where the timer was set for a shorter one.
    let start = Instant::now();
    set_after(SECOND, &handle, Some(2 * SECOND));
    set_after(SECOND + SECOND / 2, &handle, Some(4 * SECOND));
    let error = conn.read_u8().await.unwrap_err();
    check_exceeded(&error, Operation::Read, 4 * SECOND);
    assert_eq!(start.elapsed(), 4 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_longer_than_a_new_deadline_expires_at_once() {
    let (near, _far) = pipe();
    let mut conn = ReadDeadline::new(near, None);
    let handle = conn.handle();
    assert_eq!(handle.timeout(), None);
    let start = Instant::now();
    set_after(600 * SECOND, &handle, Some(5 * SECOND));
    let read = tokio::time::timeout(700 * SECOND, conn.read_u8()).await;
    let error = read.unwrap().unwrap_err();
    check_exceeded(&error, Operation::Read, 5 * SECOND);
    assert_eq!(start.elapsed(), 600 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_taken_off_lets_a_read_wait() {
    let (near, _far) = pipe();
    let mut conn = ReadDeadline::new(near, 5 * SECOND);
    let handle = conn.handle();
    set_after(SECOND, &handle, None);
    let read = tokio::time::timeout(600 * SECOND, conn.read_u8()).await;
    assert!(read.is_err());
    // One that is too long to be reached is none.
    handle.set(Duration::MAX);
    assert_eq!(handle.timeout(), None);
}

#[tokio::test(start_paused = true)]
async fn a_write_deadline_changes_for_a_write_that_waits() {
    let (near, _far) = pipe();
    let mut conn = WriteDeadline::new(near, 60 * SECOND);
    let start = Instant::now();
    set_after(SECOND, &conn.handle(), Some(2 * SECOND));
    let error = conn.write_all(&[0; 9]).await.unwrap_err();
    check_exceeded(&error, Operation::Write, 2 * SECOND);
    assert_eq!(start.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn one_handle_changes_every_connection_that_has_it() {
    let handle = DeadlineHandle::new(60 * SECOND);
    let start = Instant::now();
    let reads: Vec<_> = (0..5)
        .map(|_| {
            let (near, far) = pipe();
            let mut conn = ReadDeadline::with_handle(near, handle.clone());
            tokio::spawn(async move {
                let _far = far;
                conn.read_u8().await.unwrap_err()
            })
        })
        .collect();
    sleep(SECOND).await;
    handle.set(2 * SECOND);
    for read in reads {
        check_exceeded(&read.await.unwrap(), Operation::Read, 2 * SECOND);
    }
    assert_eq!(start.elapsed(), 2 * SECOND);
}

/// A connector that never gets anywhere.
async fn nowhere(_: Endpoint) -> Result<BoxConn, ConnectError> {
    pending().await
}

fn endpoint() -> Endpoint {
    "mqtt://localhost".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connect_deadline_changes_for_attempts_under_way() {
    let layer = ConnectDeadlineLayer::new(60 * SECOND);
    let handle = layer.handle();
    let connector = layer.layer(service_fn(nowhere));
    let start = Instant::now();
    set_after(SECOND, &connector.handle(), Some(3 * SECOND));
    let (one, two) = tokio::join!(
        connector.clone().oneshot(endpoint()),
        connector.clone().oneshot(endpoint()),
    );
    for outcome in [one, two] {
        let error = outcome.unwrap_err();
        check_exceeded(error.io_error(), Operation::Connect, 3 * SECOND);
        assert_eq!(error.endpoint(), &endpoint());
    }
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert_eq!(handle.timeout(), Some(3 * SECOND));
    handle.set(None);
    let attempt = connector.oneshot(endpoint());
    assert!(tokio::time::timeout(600 * SECOND, attempt).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_connect_deadline_can_be_never() {
    let attempt = ConnectDeadline::new(service_fn(nowhere), None).oneshot(endpoint());
    assert!(tokio::time::timeout(600 * SECOND, attempt).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_layer_stacks_all_three_and_changes_them_live() {
    let config = DeadlineConfig::default();
    let layer = DeadlinesLayer::new(&config).unwrap();
    let error = layer
        .layer(service_fn(nowhere))
        .oneshot(endpoint())
        .await
        .unwrap_err();
    check_exceeded(error.io_error(), Operation::Connect, 3 * SECOND);

    let mut connector = layer.layer(service_fn(async |_: Endpoint| {
        let (near, far) = pipe();
        // Its peer never says or takes anything, and never leaves.
        tokio::spawn(async move {
            let _far = far;
            pending::<()>().await;
        });
        Ok(near)
    }));
    let mut conn = connector
        .ready()
        .await
        .unwrap()
        .call(endpoint())
        .await
        .unwrap();
    let error = conn.write_all(&[0; 9]).await.unwrap_err();
    check_exceeded(&error, Operation::Write, 10 * SECOND);
    let start = Instant::now();
    tokio::spawn(async move {
        sleep(600 * SECOND).await;
        layer.set(&config.with_read(700 * SECOND)).unwrap();
    });
    let error = conn.read_u8().await.unwrap_err();
    check_exceeded(&error, Operation::Read, 700 * SECOND);
    assert_eq!(start.elapsed(), 700 * SECOND);
}

#[test]
fn configuration_is_text_and_reports_every_problem() {
    let config: DeadlineConfig = toml::from_str("read = \"45s\"\nwrite = \"never\"").unwrap();
    assert_eq!(config.connect, Limit::After(3 * SECOND));
    assert_eq!(config.read, Limit::After(45 * SECOND));
    assert_eq!(config.write, Limit::Never);
    config.validate().unwrap();
    assert_eq!(
        toml::from_str::<DeadlineConfig>(&toml::to_string(&config).unwrap()).unwrap(),
        config
    );
    assert!(toml::from_str::<DeadlineConfig>("raed = \"45s\"").is_err());

    let wrong = DeadlineConfig::default()
        .with_connect(Duration::ZERO)
        .with_write(Duration::from_micros(900));
    let errors = wrong.validate().unwrap_err();
    let paths: Vec<_> = errors.iter().map(|error| error.path.as_ref()).collect();
    assert_eq!(paths, ["deadlines.connect", "deadlines.write"]);
    assert_eq!(DeadlinesLayer::new(&wrong).unwrap_err(), errors);
    // What is wrong changes nothing.
    let layer = DeadlinesLayer::new(&DeadlineConfig::default()).unwrap();
    layer.set(&wrong).unwrap_err();
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
