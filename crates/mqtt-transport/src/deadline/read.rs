//! How long reads may wait.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{DeadlineHandle, Operation, watch::Watch};
use crate::{Conn, forward::forward};

pin_project! {
    /// A connection whose reads may wait only so long; one that waits longer fails with
    /// [`TimedOut`](io::ErrorKind::TimedOut), whose source is a
    /// [`DeadlineExceeded`](super::DeadlineExceeded).
    ///
    /// The time begins when a read has to wait and ends when it gets something, so that it is
    /// renewed with every read and time between reads does not count. After an expiry the
    /// connection can be used further. A read that is dropped while it waits has not ended for
    /// this purpose: the next goes on with its time.
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
        Self::with_handle(inner, DeadlineHandle::new(timeout))
    }

    /// Lets a read wait for as long as `handle` says.
    pub fn with_handle(inner: C, handle: DeadlineHandle) -> Self {
        Self {
            inner,
            watch: Watch::new(Operation::Read, handle),
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

impl<C: Conn> Conn for ReadDeadline<C> {
    forward!(info, acknowledge_at_once);
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
    forward!(
        poll_write,
        poll_write_vectored,
        is_write_vectored,
        poll_flush,
        poll_shutdown
    );
}
