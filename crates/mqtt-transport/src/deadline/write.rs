use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{DeadlineHandle, Operation, Watch};
use crate::{Conn, ConnInfo};

pin_project! {
    /// A connection whose writes may wait only so long for the peer to take something.
    ///
    /// Flushing and closing count as writing.
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
        Self {
            inner,
            watch: Watch::new(Operation::Write, timeout.into()),
        }
    }

    /// Changes the deadline later.
    pub fn handle(&self) -> DeadlineHandle {
        self.watch.handle.clone()
    }

    /// The connection within.
    pub fn into_inner(self) -> C {
        self.inner
    }
}

impl<C: Conn> Conn for WriteDeadline<C> {
    fn info(&self) -> &ConnInfo {
        self.inner.info()
    }

    fn acknowledge_at_once(&self) {
        self.inner.acknowledge_at_once();
    }
}

impl<C: AsyncRead> AsyncRead for WriteDeadline<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().inner.poll_read(cx, buf)
    }
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

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

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
