//! States of connections, and closing them from elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use mqtt_transport::{
    BoxConn, ClosedHere, Conn, ConnHandle, ConnInfo, ConnKind, ConnState, ReadDeadline, Stateful,
    StreamConn,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    time::{Instant, sleep, timeout},
};

const SECOND: Duration = Duration::from_secs(1);

fn pipe() -> (Stateful<StreamConn<DuplexStream>>, DuplexStream) {
    let (near, far) = tokio::io::duplex(8);
    let near = StreamConn::new(near, ConnInfo::memory());
    (Stateful::new(near), far)
}

/// In a task of its own: nothing but the close wakes who waits.
fn close_after_a_second(handle: &ConnHandle) {
    let handle = handle.clone();
    tokio::spawn(async move {
        sleep(SECOND).await;
        handle.close();
        assert_eq!(handle.state(), ConnState::Closing);
    });
}

#[track_caller]
fn check_closed_here<T: std::fmt::Debug>(outcome: io::Result<T>) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    assert!(error.get_ref().unwrap().is::<ClosedHere>());
    assert_eq!(error.to_string(), "closed by this side");
}

#[tokio::test(start_paused = true)]
async fn closing_wakes_a_read_that_waits() {
    let (mut conn, _far) = pipe();
    let handle = conn.handle();
    assert_eq!(handle.state(), ConnState::Open);
    close_after_a_second(&handle);
    let mut buffer = [0; 8];
    let start = Instant::now();
    let read = timeout(2 * SECOND, conn.read(&mut buffer)).await.unwrap();
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(read.unwrap(), 0);
    assert_eq!(conn.read(&mut buffer).await.unwrap(), 0);
    check_closed_here(conn.write(b"late").await);
    check_closed_here(conn.flush().await);
    assert_eq!(conn.state(), ConnState::Closing);
    conn.shutdown().await.unwrap();
    assert_eq!(conn.state(), ConnState::Closed);
}

#[tokio::test(start_paused = true)]
async fn closing_wakes_a_write_that_waits() {
    let (mut conn, _far) = pipe();
    close_after_a_second(&conn.handle());
    let start = Instant::now();
    let written = timeout(2 * SECOND, conn.write_all(&[0; 9])).await.unwrap();
    assert_eq!(start.elapsed(), SECOND);
    check_closed_here(written);
}

#[tokio::test(start_paused = true)]
async fn closing_cuts_off_what_was_not_read_yet() {
    let (mut conn, mut far) = pipe();
    far.write_all(b"unread").await.unwrap();
    conn.handle().close();
    let mut rest = Vec::new();
    conn.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_a_shutdown_the_peer_is_still_heard() {
    let (mut conn, mut far) = pipe();
    let handle = conn.handle();
    conn.shutdown().await.unwrap();
    assert_eq!(handle.state(), ConnState::Closed);
    far.write_all(b"bye").await.unwrap();
    drop(far);
    let mut rest = Vec::new();
    conn.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"bye");
    check_closed_here(conn.write(b"late").await);
    conn.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_peer_is_the_end() {
    let (mut conn, mut far) = pipe();
    let handle = conn.handle();
    far.write_all(b"bye").await.unwrap();
    drop(far);
    // Nothing was asked for, so nothing says that it is over.
    assert_eq!(conn.read(&mut []).await.unwrap(), 0);
    assert_eq!(handle.state(), ConnState::Open);
    let mut rest = Vec::new();
    conn.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"bye");
    assert_eq!(handle.state(), ConnState::Closed);
    handle.closed().await;
    // What comes of further operations is the connection's to say.
    let error = conn.write(b"late").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_the_end_and_a_deadline_is_not() {
    let (near, far) = tokio::io::duplex(8);
    let near = StreamConn::new(near, ConnInfo::memory());
    let mut conn = Stateful::new(ReadDeadline::new(near, SECOND));
    conn.read_u8().await.unwrap_err();
    assert_eq!(conn.state(), ConnState::Open);
    drop(far);
    conn.write_all(b"lost").await.unwrap_err();
    assert_eq!(conn.state(), ConnState::Closed);
}

#[tokio::test(start_paused = true)]
async fn dropping_is_the_end() {
    let (conn, _far) = pipe();
    let handle = conn.handle();
    tokio::spawn(async move {
        sleep(SECOND).await;
        let conn: BoxConn = Box::new(conn);
        assert_eq!(conn.info().kind, ConnKind::Memory);
        drop(conn);
    });
    let start = Instant::now();
    timeout(2 * SECOND, handle.closed()).await.unwrap();
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(handle.state(), ConnState::Closed);
    handle.close();
    assert_eq!(handle.state(), ConnState::Closed);
}

/// A stream in memory that takes some polls to shut down, counts how often it has, and may fail.
#[derive(Debug)]
struct SlowEnd {
    inner: DuplexStream,
    polls: usize,
    shutdowns: Arc<AtomicUsize>,
    fails: bool,
}

impl SlowEnd {
    fn conn(inner: DuplexStream, fails: bool) -> (Stateful<StreamConn<Self>>, Arc<AtomicUsize>) {
        let shutdowns = Arc::<AtomicUsize>::default();
        let slow = Self {
            inner,
            polls: 0,
            shutdowns: Arc::clone(&shutdowns),
            fails,
        };
        let conn = Stateful::new(StreamConn::new(slow, ConnInfo::memory()));
        (conn, shutdowns)
    }
}

impl AsyncRead for SlowEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for SlowEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.polls += 1;
        if self.polls < 4 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.shutdowns.fetch_add(1, Ordering::Relaxed);
        if self.fails {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_closing_until_it_is_done_and_done_once() {
    for fails in [false, true] {
        let (near, _far) = tokio::io::duplex(8);
        let (mut conn, shutdowns) = SlowEnd::conn(near, fails);
        let handle = conn.handle();
        let (shut_down, ()) = tokio::join!(conn.shutdown(), async {
            assert_eq!(handle.state(), ConnState::Closing);
            // One that comes in between changes nothing.
            handle.close();
            assert_eq!(handle.state(), ConnState::Closing);
        });
        assert_eq!(shut_down.is_err(), fails);
        assert_eq!(handle.state(), ConnState::Closed);
        conn.shutdown().await.unwrap();
        assert_eq!(shutdowns.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_close_at_once_and_nobody_is_left_waiting() {
    for round in 0..300_usize {
        let (near, far) = tokio::io::duplex(8);
        let (conn, shutdowns) = SlowEnd::conn(near, false);
        let handle = conn.handle();
        let (mut read, mut write) = tokio::io::split(conn);
        // The peer says nothing and takes nothing, so both would wait for ever.
        let reader = tokio::spawn(async move { read.read(&mut [0; 8]).await });
        let writer = tokio::spawn(async move {
            let written = write.write_all(&[0; 64]).await;
            write.shutdown().await.unwrap();
            write.shutdown().await.unwrap();
            written
        });
        let closers: Vec<_> = (0..8)
            .map(|n| {
                let handle = handle.clone();
                tokio::spawn(async move {
                    for _ in 0..(round + n) % 5 {
                        tokio::task::yield_now().await;
                    }
                    handle.close();
                    handle.closed().await;
                    assert_eq!(handle.state(), ConnState::Closed);
                })
            })
            .collect();
        let all = async {
            assert_eq!(reader.await.unwrap().unwrap(), 0);
            check_closed_here(writer.await.unwrap());
            for closer in closers {
                closer.await.unwrap();
            }
        };
        timeout(30 * SECOND, all).await.unwrap();
        assert_eq!(shutdowns.load(Ordering::Relaxed), 1);
        drop(far);
    }
}
