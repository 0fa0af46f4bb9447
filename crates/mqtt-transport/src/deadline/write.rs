//! How long writes may wait.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{DeadlineHandle, Operation, watch::Watch};
use crate::{Conn, forward::forward};

pin_project! {
    /// A connection whose writes may wait only so long for the peer to take something; one that
    /// waits longer fails with [`TimedOut`](io::ErrorKind::TimedOut), whose source is a
    /// [`DeadlineExceeded`](super::DeadlineExceeded).
    ///
    /// Flushing and closing count as writing. The time is renewed with every byte that is taken:
    /// a slow peer is served for as long as it makes progress. A write whose future was dropped
    /// while it waited counts as waiting until a write is ready.
    #[derive(Debug)]
    pub struct WriteDeadline<C> {
        #[pin]
        inner: C,
        watch: Watch,
    }
}

impl<C> WriteDeadline<C> {
    /// Lets a write wait for `timeout`; `None` for ever.
    pub fn new(inner: C, timeout: impl Into<Option<Duration>>) -> Self {
        Self::with_handle(inner, DeadlineHandle::new(timeout))
    }

    /// Lets a write wait for as long as `handle` says.
    pub fn with_handle(inner: C, handle: DeadlineHandle) -> Self {
        Self {
            inner,
            watch: Watch::new(Operation::Write, handle),
        }
    }

    /// Changes the deadline later.
    pub fn handle(&self) -> DeadlineHandle {
        self.watch.handle()
    }

    /// The connection within.
    pub fn into_inner(self) -> C {
        self.inner
    }
}

impl<C: Conn> Conn for WriteDeadline<C> {
    forward!(info, acknowledge_at_once);
}

impl<C: AsyncRead> AsyncRead for WriteDeadline<C> {
    forward!(poll_read);
}

impl<C: AsyncWrite> AsyncWrite for WriteDeadline<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let outcome = this.inner.poll_write(cx, buf);
        this.watch.check(outcome, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let outcome = this.inner.poll_write_vectored(cx, bufs);
        this.watch.check(outcome, cx)
    }

    forward!(is_write_vectored);

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let outcome = this.inner.poll_flush(cx);
        this.watch.check(outcome, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let outcome = this.inner.poll_shutdown(cx);
        this.watch.check(outcome, cx)
    }
}
