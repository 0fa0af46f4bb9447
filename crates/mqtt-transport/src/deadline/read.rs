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
    /// A connection whose reads may wait only so long.
    ///
    /// For peers that are never silent for longer. An MQTT session may well be, and watches for
    /// silence with its keep-alive instead.
    #[derive(Debug)]
    pub struct ReadDeadline<C> {
        #[pin]
        inner: C,
        watch: Watch,
    }
}

impl<C> ReadDeadline<C> {
    /// Lets a read wait for `timeout`; `None` for ever.
    pub fn new(inner: C, timeout: impl Into<Option<Duration>>) -> Self {
        Self {
            inner,
            watch: Watch::new(Operation::Read, timeout.into()),
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

impl<C: Conn> Conn for ReadDeadline<C> {
    fn info(&self) -> &ConnInfo {
        self.inner.info()
    }

    fn acknowledge_at_once(&self) {
        self.inner.acknowledge_at_once();
    }
}

impl<C: AsyncRead> AsyncRead for ReadDeadline<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let outcome = this.inner.poll_read(cx, buf);
        this.watch.check(outcome, cx)
    }
}

impl<C: AsyncWrite> AsyncWrite for ReadDeadline<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(cx)
    }
}
