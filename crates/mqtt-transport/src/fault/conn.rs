//! A connection with a plan of faults.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker, ready},
};

use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::futures::OwnedNotified,
    time::Sleep,
};

use super::{
    FaultHandle, FaultPlan,
    plan::{Faults, RANDOM_MAX},
};
use crate::{Conn, ConnInfo};

pin_project! {
    /// A connection that fails according to a [`FaultPlan`].
    ///
    /// ```
    /// # #[cfg(feature = "test-util")]
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use mqtt_transport::{ConnInfo, FaultPlan, Faulty, StreamConn};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let (near, mut far) = tokio::io::duplex(64);
    /// let near = StreamConn::new(near, ConnInfo::memory());
    /// let mut near = Faulty::new(near, FaultPlan::new().corrupt_read(1).cut_after_read(3));
    ///
    /// far.write_all(&[1, 2, 3, 4]).await.unwrap();
    /// let mut read = Vec::new();
    /// let error = near.read_to_end(&mut read).await.unwrap_err();
    /// assert_eq!(read, [1, !2, 3]);
    /// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    /// # });
    /// ```
    #[derive(Debug)]
    pub struct Faulty<C> {
        // None when it was cut.
        #[pin]
        inner: Option<C>,
        info: ConnInfo,
        vectored: bool,
        ends_cleanly: bool,
        read: Direction,
        write: Direction,
    }
}

impl<C: Conn> Faulty<C> {
    /// Does to `inner` what `plan` says.
    pub fn new(inner: C, plan: FaultPlan) -> Self {
        Self {
            info: inner.info().clone(),
            vectored: inner.is_write_vectored(),
            ends_cleanly: plan.ends_cleanly,
            read: Direction::new(plan.read, &plan.handle),
            write: Direction::new(plan.write, &plan.handle),
            inner: Some(inner),
        }
    }
}

/// One direction of a connection.
#[derive(Debug)]
struct Direction {
    faults: Faults,
    handle: FaultHandle,
    /// Bytes so far.
    moved: u64,
    /// What was drawn for the present operation, so that it does not depend on how often the
    /// operation is polled.
    max: Option<usize>,
    delay: Option<Pin<Box<Sleep>>>,
    released: Pin<Box<OwnedNotified>>,
    /// Who waits, to be woken by a cut.
    waiting: Option<Waker>,
}

impl Direction {
    fn new(faults: Faults, handle: &FaultHandle) -> Self {
        Self {
            faults,
            handle: handle.clone(),
            moved: 0,
            max: None,
            delay: None,
            released: Box::pin(Arc::clone(&handle.0.notify).notified_owned()),
            waiting: None,
        }
    }

    fn is_cut(&self) -> bool {
        self.faults.cut_after.is_some_and(|n| self.moved >= n)
    }

    /// Waits while the plan wants it, and says how many of `wanted` bytes may be moved then.
    fn poll_begin(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<usize> {
        let waker = cx.waker();
        if !self.waiting.as_ref().is_some_and(|w| w.will_wake(waker)) {
            self.waiting = Some(waker.clone());
        }
        if let Some(delay) = self.faults.delay {
            let sleep = || Box::pin(tokio::time::sleep(delay));
            ready!(self.delay.get_or_insert_with(sleep).as_mut().poll(cx));
        }
        let stalls = self.faults.stall_after.is_some_and(|n| self.moved >= n);
        if stalls && !self.handle.0.done.load(Ordering::Acquire) {
            ready!(self.released.as_mut().poll(cx));
        }
        let random = &mut self.faults.random;
        let max = self.max.or_else(|| {
            let max = self.faults.max;
            match random {
                Some(random) => Some(random.usize(1..=max.unwrap_or(RANDOM_MAX))),
                None => max,
            }
        });
        self.max = max;
        // Up to the next byte where something happens, and a corrupted byte goes alone.
        let released = self.handle.0.done.load(Ordering::Acquire);
        let corrupt = self
            .faults
            .corrupt
            .iter()
            .flat_map(|&at| [at, at.saturating_add(1)]);
        let room = corrupt
            .chain(self.faults.cut_after)
            .chain(self.faults.stall_after.filter(|_| !released))
            .filter_map(|at| at.checked_sub(self.moved).filter(|room| *room > 0))
            .min()
            .map_or(usize::MAX, |room| {
                usize::try_from(room).unwrap_or(usize::MAX)
            });
        Poll::Ready(wanted.min(room).min(max.unwrap_or(usize::MAX)))
    }

    fn corrupts(&self) -> bool {
        self.faults.corrupt.contains(&self.moved)
    }

    /// An operation has moved so many bytes.
    fn end(&mut self, moved: usize) {
        self.moved += u64::try_from(moved).unwrap_or(u64::MAX);
        self.max = None;
        self.delay = None;
    }
}

impl<C> Faulty<C> {
    /// Cuts the connection if it is time.
    fn cut(self: Pin<&mut Self>) {
        let mut this = self.project();
        if this.inner.is_some() && (this.read.is_cut() || this.write.is_cut()) {
            this.inner.set(None);
            for direction in [this.read, this.write] {
                if let Some(waker) = direction.waiting.take() {
                    waker.wake();
                }
            }
        }
    }

    /// What reads come to after a cut.
    fn end_of_reads(self: Pin<&mut Self>) -> io::Result<()> {
        if self.ends_cleanly {
            Ok(())
        } else {
            Err(cut(io::ErrorKind::ConnectionReset))
        }
    }

    /// What writes come to after a cut.
    fn end_of_writes<T>(self: Pin<&mut Self>) -> io::Result<T> {
        Err(cut(if self.ends_cleanly {
            io::ErrorKind::BrokenPipe
        } else {
            io::ErrorKind::ConnectionReset
        }))
    }
}

fn cut(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, "cut by the fault plan")
}

impl<C: Conn> Conn for Faulty<C> {
    fn info(&self) -> &ConnInfo {
        &self.info
    }

    fn acknowledge_at_once(&self) {
        if let Some(inner) = &self.inner {
            inner.acknowledge_at_once();
        }
    }
}

impl<C: AsyncRead> AsyncRead for Faulty<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.as_mut().cut();
        let this = self.as_mut().project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(self.end_of_reads());
        };
        let len = ready!(this.read.poll_begin(buf.remaining(), cx));
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(len));
        let outcome = ready!(inner.poll_read(cx, &mut part));
        if this.read.corrupts() {
            part.filled_mut().iter_mut().for_each(|byte| *byte = !*byte);
        }
        let read = part.filled().len();
        buf.advance(read);
        this.read.end(read);
        self.cut();
        Poll::Ready(outcome)
    }
}

impl<C: AsyncWrite> AsyncWrite for Faulty<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.as_mut().cut();
        let this = self.as_mut().project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(self.end_of_writes());
        };
        let wanted = bufs.iter().map(|buf| buf.len()).sum();
        let len = ready!(this.write.poll_begin(wanted, cx));
        let first = bufs.iter().find(|buf| !buf.is_empty());
        let first = first.map_or(&[][..], |buf| buf);
        let outcome = ready!(match first.split_at_checked(len) {
            Some((&[byte], _)) if this.write.corrupts() => inner.poll_write(cx, &[!byte]),
            // All of it, or as much of the first as is allowed.
            _ if len == wanted && bufs.len() > 1 => inner.poll_write_vectored(cx, bufs),
            Some((part, _)) => inner.poll_write(cx, part),
            None => inner.poll_write(cx, first),
        });
        this.write.end(*outcome.as_ref().unwrap_or(&0));
        self.cut();
        Poll::Ready(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_mut().cut();
        match self.as_mut().project().inner.as_pin_mut() {
            Some(inner) => inner.poll_flush(cx),
            None => Poll::Ready(self.end_of_writes()),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_mut().cut();
        match self.as_mut().project().inner.as_pin_mut() {
            Some(inner) => inner.poll_shutdown(cx),
            None => Poll::Ready(self.end_of_writes()),
        }
    }
}
