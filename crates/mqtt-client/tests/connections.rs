//! Connections that buffer, that are never idle, or that always take more.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use common::{config, endpoint, now, publish, settle};
use mqtt_client::{
    LostCause, QoS, Session, SessionConnector, Version,
    transport::{Conn, ConnInfo},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// What a 5.0 server accepts a connection with.
const CONNACK: [u8; 5] = [0x20, 0x03, 0, 0, 0];

/// A message on topic `a`.
const MESSAGE: [u8; 6] = [0x30, 0x04, 0, 1, b'a', 0];

type Step<I, O> = Box<dyn FnMut(I, &mut Context<'_>) -> Poll<O> + Send>;

/// A connection made of what it does at each step.
struct Steps {
    info: ConnInfo,
    /// What is read, after the CONNACK; a connection that has nothing says so.
    read: Step<(), Vec<u8>>,
    write: Step<Vec<u8>, ()>,
    flush: Step<(), ()>,
    accepted: bool,
}

impl Steps {
    /// Nothing to read, and everything is taken.
    fn new() -> Self {
        Self {
            info: ConnInfo::memory(),
            read: Box::new(|(), _| Poll::Pending),
            write: Box::new(|_, _| Poll::Ready(())),
            flush: Box::new(|(), _| Poll::Ready(())),
            accepted: false,
        }
    }

    async fn open(self) -> Session {
        let conn = Arc::new(Mutex::new(Some(self)));
        let dial = tower::service_fn(move |_| {
            let conn = conn.lock().unwrap().take().unwrap();
            std::future::ready(Ok(conn))
        });
        let connector = SessionConnector::with_connector(dial, config(Version::V5)).unwrap();
        connector.connect(endpoint()).await.unwrap()
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Steps")
    }
}

impl Conn for Steps {
    fn info(&self) -> &ConnInfo {
        &self.info
    }
}

impl AsyncRead for Steps {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.accepted {
            self.accepted = true;
            buf.put_slice(&CONNACK);
            return Poll::Ready(Ok(()));
        }
        (self.read)((), cx).map(|bytes| {
            buf.put_slice(&bytes);
            Ok(())
        })
    }
}

impl AsyncWrite for Steps {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        (self.write)(buf.to_vec(), cx).map(|()| Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (self.flush)((), cx).map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// As TLS does when the socket below takes no more: the bytes are taken and stay in a buffer.
#[tokio::test(start_paused = true)]
async fn a_flush_that_has_to_wait_is_finished() {
    let written = Arc::new(AtomicUsize::new(0));
    let flushed = Arc::new(AtomicUsize::new(0));
    let mut conn = Steps::new();
    let into = written.clone();
    conn.write = Box::new(move |bytes, _| {
        into.fetch_add(bytes.len(), Ordering::Relaxed);
        Poll::Ready(())
    });
    let (from, into) = (written.clone(), flushed.clone());
    let mut waits = false;
    conn.flush = Box::new(move |(), cx| {
        waits = !waits;
        if waits {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        into.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        Poll::Ready(())
    });
    let session = conn.open().await;
    for _ in 0..3 {
        session.publish(publish(QoS::AtMostOnce)).await.unwrap();
        settle().await;
        assert_eq!(
            flushed.load(Ordering::Relaxed),
            written.load(Ordering::Relaxed)
        );
    }
}

/// [MQTT5-3.14.4-1] [MQTT3-3.14.4-1]
#[tokio::test(start_paused = true)]
async fn a_server_that_never_stops_sending_does_not_hold_up_leaving() {
    let left = Arc::new(AtomicUsize::new(0));
    let mut conn = Steps::new();
    let saw = left.clone();
    conn.write = Box::new(move |bytes, _| {
        if bytes.ends_with(&[0xE0, 0x00]) {
            saw.store(1, Ordering::Relaxed);
        }
        Poll::Ready(())
    });
    conn.read = Box::new(move |(), _| {
        if left.load(Ordering::Relaxed) > 0 {
            let reads = left.fetch_add(1, Ordering::Relaxed);
            assert!(reads < 1_000, "it goes on reading after DISCONNECT");
        }
        Poll::Ready(MESSAGE.repeat(100))
    });
    let session = conn.open().await;
    session.disconnect().await.unwrap();
    let lost = session.closed().await;
    assert!(matches!(lost.cause, LostCause::Closed), "{lost:?}");
}

/// With each write there is something new to write.
#[tokio::test(start_paused = true)]
async fn publishers_that_never_stop_do_not_keep_it_from_reading() {
    const MAX_WRITES: usize = 1_000;
    let publishes: Arc<OnceLock<Session>> = Arc::default();
    let writes = Arc::new(AtomicUsize::new(0));
    let writes_before_read = Arc::new(AtomicUsize::new(0));
    let mut conn = Steps::new();
    let (session, count) = (publishes.clone(), writes.clone());
    conn.write = Box::new(move |_, cx| {
        if let Some(session) = session.get()
            && count.fetch_add(1, Ordering::Relaxed) < MAX_WRITES
        {
            let mut next = std::pin::pin!(session.publish(publish(QoS::AtMostOnce)));
            assert!(next.as_mut().poll(cx).is_ready());
        }
        Poll::Ready(())
    });
    let (count, seen) = (writes.clone(), writes_before_read.clone());
    conn.read = Box::new(move |(), _| {
        let writes = count.load(Ordering::Relaxed);
        if writes > 0 && seen.load(Ordering::Relaxed) == 0 {
            seen.store(writes, Ordering::Relaxed);
        }
        Poll::Pending
    });
    let session = conn.open().await;
    settle().await;
    publishes.set(session.clone()).unwrap();
    assert!(
        now(session.publish(publish(QoS::AtMostOnce)))
            .await
            .is_some()
    );
    settle().await;
    assert!(writes.load(Ordering::Relaxed) > MAX_WRITES);
    let writes = writes_before_read.load(Ordering::Relaxed);
    assert!((1..100).contains(&writes), "{writes} writes before a read");
    session.disconnect().await.unwrap();
}

/// As when something else has kept the thread busy: the answer came, and so did its deadline.
#[tokio::test(start_paused = true)]
async fn an_answer_that_has_come_counts_though_its_time_is_over() {
    const KEEP_ALIVE: Duration = Duration::from_secs(30);
    let asked = Arc::new(Mutex::new(None));
    let mut conn = Steps::new();
    let into = asked.clone();
    conn.write = Box::new(move |bytes, _| {
        if bytes == [0xC0, 0x00] {
            *into.lock().unwrap() = Some(Instant::now());
        }
        Poll::Ready(())
    });
    conn.read = Box::new(move |(), _| {
        let mut asked = asked.lock().unwrap();
        if asked.is_some_and(|asked| asked.elapsed() >= KEEP_ALIVE * 19 / 40) {
            *asked = None;
            return Poll::Ready(vec![0xD0, 0x00]);
        }
        Poll::Pending
    });
    let session = conn.open().await;
    tokio::time::sleep(KEEP_ALIVE * 4).await;
    assert!(!session.is_closed());
}
