//! Connections that count, for the `metrics` facade.
//!
//! Three metrics with labels from short closed lists, never an address. Their handles are looked
//! up once per connection, since looking one up costs many times more than using it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use metrics::{Counter, Gauge, Unit};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Conn, ConnInfo, ConnKind, forward::forward};

/// Bytes read and written; labels `direction` and `kind`.
const BYTES: &str = "mqtt_transport_bytes_total";
/// Completed reads and writes; labels `direction` and `kind`.
const CALLS: &str = "mqtt_transport_calls_total";
/// Connections that are open; label `kind`.
const CONNECTIONS: &str = "mqtt_transport_connections";

/// Tells the recorder what the metrics of [`Metered`] are. Once, after it was installed.
pub fn describe_metrics() {
    metrics::describe_counter!(
        BYTES,
        Unit::Bytes,
        "Bytes through connections, by direction and kind"
    );
    metrics::describe_counter!(
        CALLS,
        Unit::Count,
        "Reads and writes that ended, well or not, by direction and kind"
    );
    metrics::describe_gauge!(CONNECTIONS, Unit::Count, "Open connections, by kind");
}

pin_project! {
    /// A connection that counts its bytes and calls, and itself.
    ///
    /// | metric | type | labels |
    /// | --- | --- | --- |
    /// | `mqtt_transport_bytes_total` | counter | `direction`, `kind` |
    /// | `mqtt_transport_calls_total` | counter | `direction`, `kind` |
    /// | `mqtt_transport_connections` | gauge | `kind` |
    ///
    /// `direction` is `read` or `write`; `kind` is `tcp`, `tls` (over TCP), `unix`, `ws`, `wss`,
    /// `quic`, `memory` or `other`. A call is a read or write that ended, also with an error or
    /// the end of the stream; a vectored write is one. Bytes are what the layers above see:
    /// without TLS's or the WebSocket's own when stacked outside of these.
    ///
    /// The recorder must be installed before the first connection is made: handles from before
    /// count nothing. [`describe_metrics`] gives it units and descriptions.
    ///
    /// ```
    /// use mqtt_transport::{BoxConn, Connector, Metered};
    /// use tower::ServiceBuilder;
    ///
    /// let connector = ServiceBuilder::new()
    ///     .map_response(|conn: BoxConn| Metered::new(conn))
    ///     .service(Connector::default());
    /// # drop(connector);
    /// ```
    #[derive(Debug)]
    pub struct Metered<C> {
        #[pin]
        inner: C,
        read: Direction,
        write: Direction,
        open: Open,
    }
}

impl<C: Conn> Metered<C> {
    /// Counts what goes through `inner`, which is open from now until this is dropped.
    pub fn new(inner: C) -> Self {
        let kind = kind(inner.info());
        Self {
            inner,
            read: Direction::new("read", kind),
            write: Direction::new("write", kind),
            open: Open::new(kind),
        }
    }
}

/// The label of a connection.
fn kind(info: &ConnInfo) -> &'static str {
    #[cfg(feature = "_tls")]
    let tls = info.tls.is_some();
    #[cfg(not(feature = "_tls"))]
    let tls = false;
    match info.kind {
        ConnKind::Tcp if tls => "tls",
        ConnKind::Tcp => "tcp",
        ConnKind::Unix => "unix",
        ConnKind::WebSocket if tls => "wss",
        ConnKind::WebSocket => "ws",
        ConnKind::Quic => "quic",
        ConnKind::Memory => "memory",
        ConnKind::Other => "other",
    }
}

/// The counters of one direction.
#[derive(Debug)]
struct Direction {
    bytes: Counter,
    calls: Counter,
}

impl Direction {
    fn new(direction: &'static str, kind: &'static str) -> Self {
        Self {
            bytes: metrics::counter!(BYTES, "direction" => direction, "kind" => kind),
            calls: metrics::counter!(CALLS, "direction" => direction, "kind" => kind),
        }
    }

    fn count(&self, bytes: usize) {
        self.calls.increment(1);
        self.bytes
            .increment(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

/// Counts one open connection until dropped.
#[derive(Debug)]
struct Open(Gauge);

impl Open {
    fn new(kind: &'static str) -> Self {
        let gauge = metrics::gauge!(CONNECTIONS, "kind" => kind);
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl<C: Conn> Conn for Metered<C> {
    forward!(info, acknowledge_at_once);
}

impl<C: AsyncRead> AsyncRead for Metered<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let outcome = ready!(this.inner.poll_read(cx, buf));
        this.read.count(buf.filled().len().saturating_sub(before));
        Poll::Ready(outcome)
    }
}

impl<C: AsyncWrite> AsyncWrite for Metered<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let outcome = ready!(this.inner.poll_write(cx, buf));
        this.write.count(*outcome.as_ref().unwrap_or(&0));
        Poll::Ready(outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let outcome = ready!(this.inner.poll_write_vectored(cx, bufs));
        this.write.count(*outcome.as_ref().unwrap_or(&0));
        Poll::Ready(outcome)
    }

    forward!(is_write_vectored, poll_flush, poll_shutdown);
}
