//! Connections that know whether they are open, and can be closed from anywhere.
//!
//! ```text
//!            close(), poll_shutdown           poll_shutdown ends, drop
//!     Open ---------------------------> Closing ----------------------> Closed
//!       |        peer's end of file, I/O error, drop                      ^
//!       +-----------------------------------------------------------------+
//! ```
//!
//! One rule: the state only moves to the right, and moves before anybody is woken.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use crate::{Conn, DeadlineExceeded, forward::forward};

/// How far the life of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnState {
    /// In use.
    Open,
    /// This side has begun to close it.
    Closing,
    /// Closed by this side, ended by the peer, failed, or dropped.
    Closed,
}

pin_project! {
    /// A connection whose [state](ConnState) is known to all who hold a [`ConnHandle`], and that
    /// they can close.
    ///
    /// After [`ConnHandle::close`] a read, also one that waits, comes to the end of file, and a
    /// write or flush fails with [`ConnectionAborted`](io::ErrorKind::ConnectionAborted), whose
    /// source is [`ClosedHere`]. Closing proper (TLS says goodbye, TCP ends its stream) remains
    /// with who has the connection: who shuts it down or drops it.
    ///
    /// The first `poll_shutdown` does that, whoever asked for closing before; when it is done,
    /// or has failed, the state is `Closed`, and further ones are `Ok` and do nothing. After it
    /// writes fail as above; reads still get what the peer sends until it ends its side, unless
    /// [`ConnHandle::close`] was called.
    ///
    /// The peer's end of file and errors make the state `Closed` too, and further operations are
    /// passed on to the connection, which knows best what to say. A [`DeadlineExceeded`] of a
    /// read or write is no such error: the connection lives, only slowly.
    ///
    /// An operation on an open connection costs one atomic load more; one that waits registers
    /// a waker.
    #[derive(Debug)]
    pub struct Stateful<C> {
        #[pin]
        inner: C,
        shut_down: bool,
        // After `inner`: the connection is dropped when its state says so.
        shared: Owner,
    }
}

impl<C> Stateful<C> {
    /// An open connection.
    pub fn new(inner: C) -> Self {
        Self {
            inner,
            shut_down: false,
            shared: Owner(Arc::default()),
        }
    }

    /// Watches and closes it from elsewhere.
    pub fn handle(&self) -> ConnHandle {
        ConnHandle(Arc::clone(&self.shared.0))
    }

    /// How far it has come.
    pub fn state(&self) -> ConnState {
        self.shared.0.state()
    }
}

/// Watches a [`Stateful`] connection and closes it, from any task. Does not keep it open.
#[derive(Clone, Debug)]
pub struct ConnHandle(Arc<Shared>);

impl ConnHandle {
    /// How far the connection has come.
    pub fn state(&self) -> ConnState {
        self.0.state()
    }

    /// Begins to close the connection, and wakes those who wait in a read or write of it: see
    /// [`Stateful`] for what they get. Any number of tasks may call it any number of times.
    pub fn close(&self) {
        if self.0.mark(CUT) & CUT == 0 {
            self.0.reader.wake();
            self.0.writer.wake();
        }
    }

    /// Waits until the connection is [`Closed`](ConnState::Closed). Can be dropped and called
    /// again without missing it.
    pub async fn closed(&self) {
        loop {
            let changed = self.0.ended.notified();
            if self.state() == ConnState::Closed {
                return;
            }
            changed.await;
        }
    }
}

/// This side has closed the connection. Found as the source of an [`io::Error`] of kind
/// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("closed by this side")]
#[non_exhaustive]
pub struct ClosedHere;

impl From<ClosedHere> for io::Error {
    fn from(closed: ClosedHere) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, closed)
    }
}

/// What has happened to a connection: bits that are set and never cleared.
type Marks = u8;
/// [`ConnHandle::close`] was called.
const CUT: Marks = 1;
/// `poll_shutdown` was called.
const SHUT: Marks = 2;
/// It is over.
const ENDED: Marks = 4;

#[derive(Debug, Default)]
struct Shared {
    marks: AtomicU8,
    reader: AtomicWaker,
    writer: AtomicWaker,
    ended: Notify,
}

impl Shared {
    fn marks(&self) -> Marks {
        self.marks.load(Ordering::Acquire)
    }

    fn state(&self) -> ConnState {
        match self.marks() {
            0 => ConnState::Open,
            marks if marks & ENDED == 0 => ConnState::Closing,
            _ => ConnState::Closed,
        }
    }

    /// Sets a mark and returns those from before.
    fn mark(&self, mark: Marks) -> Marks {
        self.marks.fetch_or(mark, Ordering::AcqRel)
    }

    fn end(&self) {
        if self.mark(ENDED) & ENDED == 0 {
            self.ended.notify_waiters();
        }
    }

    /// Ends the connection if the error of an operation does.
    fn end_by(&self, error: &io::Error) {
        let source = error.get_ref();
        if !source.is_some_and(|source| source.is::<DeadlineExceeded>()) {
            self.end();
        }
    }

    /// A write or flush of `operation`, unless this side has closed.
    fn write<T>(
        &self,
        cx: &mut Context<'_>,
        operation: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let closed = || self.marks() & (CUT | SHUT) != 0;
        if closed() {
            return Poll::Ready(Err(ClosedHere.into()));
        }
        match operation(cx) {
            Poll::Ready(Ok(done)) => Poll::Ready(Ok(done)),
            Poll::Ready(Err(error)) => {
                self.end_by(&error);
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                // In this order, so that a close in between is seen here or wakes.
                self.writer.register(cx.waker());
                if closed() {
                    return Poll::Ready(Err(ClosedHere.into()));
                }
                Poll::Pending
            }
        }
    }
}

/// The connection's own share: when it goes, the connection is over.
#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<C: Conn> Conn for Stateful<C> {
    forward!(info, acknowledge_at_once);
}

impl<C: AsyncRead> AsyncRead for Stateful<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let shared = &*this.shared.0;
        if shared.marks() & CUT != 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.remaining();
        match this.inner.poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                if before > 0 && buf.remaining() == before {
                    shared.end();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                shared.end_by(&error);
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                // In this order, so that a close in between is seen here or wakes.
                shared.reader.register(cx.waker());
                if shared.marks() & CUT != 0 {
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending
            }
        }
    }
}

impl<C: AsyncWrite> AsyncWrite for Stateful<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let inner = this.inner;
        this.shared.0.write(cx, |cx| inner.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let inner = this.inner;
        let write = |cx: &mut Context<'_>| inner.poll_write_vectored(cx, bufs);
        this.shared.0.write(cx, write)
    }

    forward!(is_write_vectored);

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let inner = this.inner;
        this.shared.0.write(cx, |cx| inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        if *this.shut_down {
            return Poll::Ready(Ok(()));
        }
        this.shared.0.mark(SHUT);
        let outcome = ready!(this.inner.poll_shutdown(cx));
        *this.shut_down = true;
        this.shared.0.end();
        Poll::Ready(outcome)
    }
}
