//! Connections that fail on purpose, for tests.
//!
//! A [`FaultPlan`] says what goes wrong and after which byte; [`Faulty`] does it to a connection,
//! [`FaultyConnector`] to those of a connector, by their number. The same plan does the same
//! thing every time: offsets are bytes since the connection was made, randomness has a seed, and
//! time is tokio's, which tests can pause.

use std::{
    fmt,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, futures::OwnedNotified},
    time::Sleep,
};
use tower_service::Service;

use crate::{Conn, ConnInfo, ConnectError, ConnectPhase, Endpoint};

/// What goes wrong with a connection. By default nothing.
///
/// Byte counts and offsets are per direction and begin with 0 when the connection is made; the
/// faults of one plan add up. Flushing is not delayed, split or stalled, and closing only fails
/// once the connection is cut.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    dial: Option<io::ErrorKind>,
    ends_cleanly: bool,
    read: Faults,
    write: Faults,
    handle: FaultHandle,
}

/// What goes wrong in one direction.
#[derive(Clone, Debug, Default)]
struct Faults {
    cut_after: Option<u64>,
    stall_after: Option<u64>,
    corrupt: Vec<u64>,
    delay: Option<Duration>,
    max: Option<usize>,
    random: Option<fastrand::Rng>,
}

/// How many bytes an operation of a seeded plan moves at most, where no other maximum is set.
const RANDOM_MAX: usize = 16;

impl FaultPlan {
    /// Nothing goes wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// Each operation moves a random number of bytes, from one to what [`split`](Self::split)
    /// says, 16 if it says nothing. The same seed leads to the same numbers.
    pub fn seeded(seed: u64) -> Self {
        let mut plan = Self::new();
        let mut random = fastrand::Rng::with_seed(seed);
        // One for each direction, so that neither depends on when the other moves.
        plan.read.random = Some(random.fork());
        plan.write.random = Some(random);
        plan
    }

    /// Dialling fails with this error and the connection is given up. Only a [`FaultyConnector`]
    /// does this.
    #[must_use]
    pub fn fail_dial(mut self, kind: io::ErrorKind) -> Self {
        self.dial = Some(kind);
        self
    }

    /// The connection is cut as soon as `n` bytes were read: it is dropped, so that its peer sees
    /// it end, and every operation, also one that waits, fails with
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset).
    #[must_use]
    pub fn cut_after_read(mut self, n: u64) -> Self {
        self.read.cut_after = Some(n);
        self
    }

    /// The connection is cut as soon as `n` bytes were written, as in
    /// [`cut_after_read`](Self::cut_after_read).
    #[must_use]
    pub fn cut_after_write(mut self, n: u64) -> Self {
        self.write.cut_after = Some(n);
        self
    }

    /// A cut looks like a peer that closes: reads come to the end of file, and writes fail with
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe).
    #[must_use]
    pub fn ends_cleanly(mut self) -> Self {
        self.ends_cleanly = true;
        self
    }

    /// After `n` bytes reads wait until [released](FaultHandle::release).
    #[must_use]
    pub fn stall_after_read(mut self, n: u64) -> Self {
        self.read.stall_after = Some(n);
        self
    }

    /// After `n` bytes writes wait until [released](FaultHandle::release).
    #[must_use]
    pub fn stall_after_write(mut self, n: u64) -> Self {
        self.write.stall_after = Some(n);
        self
    }

    /// An operation moves at most `max` bytes, at least one.
    #[must_use]
    pub fn split(mut self, max: usize) -> Self {
        let max = Some(max.max(1));
        (self.read.max, self.write.max) = (max, max);
        self
    }

    /// Inverts the bits of the byte at this offset of what is read. Can be repeated.
    #[must_use]
    pub fn corrupt_read(mut self, at: u64) -> Self {
        self.read.corrupt.push(at);
        self
    }

    /// Inverts the bits of the byte at this offset of what is written. Can be repeated.
    #[must_use]
    pub fn corrupt_write(mut self, at: u64) -> Self {
        self.write.corrupt.push(at);
        self
    }

    /// Each read and each write begins only this long after it was asked for, by tokio's clock.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        (self.read.delay, self.write.delay) = (Some(delay), Some(delay));
        self
    }

    /// Releases what stalls. A plan and its clones have one, and so have all connections made
    /// from them.
    pub fn handle(&self) -> FaultHandle {
        self.handle.clone()
    }
}

/// Releases what a [`FaultPlan`] stalls.
#[derive(Clone, Debug, Default)]
pub struct FaultHandle(Arc<Release>);

#[derive(Debug, Default)]
struct Release {
    done: AtomicBool,
    notify: Arc<Notify>,
}

impl FaultHandle {
    /// Lets reads and writes that stall go on, now and for good.
    pub fn release(&self) {
        self.0.done.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }
}

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

/// A connector whose connections fail according to plans.
///
/// Clones number their connections together, in the order of the calls, from 1.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use mqtt_transport::{Connector, FaultPlan, FaultyConnector};
///
/// // The third connection is cut after 100 bytes.
/// let connector = FaultyConnector::new(Connector::default(), |n| match n {
///     3 => FaultPlan::new().cut_after_read(100),
///     _ => FaultPlan::new(),
/// });
/// # let _: FaultyConnector<Connector> = connector;
/// # }
/// ```
#[derive(Clone)]
pub struct FaultyConnector<S> {
    inner: S,
    plan: Arc<dyn Fn(u64) -> FaultPlan + Send + Sync>,
    calls: Arc<AtomicU64>,
}

impl<S> FaultyConnector<S> {
    /// Asks `plan` for the plan of each connection, by its number.
    pub fn new(inner: S, plan: impl Fn(u64) -> FaultPlan + Send + Sync + 'static) -> Self {
        Self {
            inner,
            plan: Arc::new(plan),
            calls: Arc::default(),
        }
    }

    /// How many connections were asked for so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl<S: fmt::Debug> fmt::Debug for FaultyConnector<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyConnector")
            .field("inner", &self.inner)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl<S> Service<Endpoint> for FaultyConnector<S>
where
    S: Service<Endpoint, Error = ConnectError>,
    S::Response: Conn,
{
    type Response = Faulty<S::Response>;
    type Error = ConnectError;
    type Future = FaultyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let plan = (self.plan)(number);
        let refused = plan.dial.map(|kind| {
            let source = io::Error::new(kind, "refused by the fault plan");
            ConnectError::new(ConnectPhase::Dial, &endpoint, source)
        });
        FaultyFuture {
            connect: refused.is_none().then(|| self.inner.call(endpoint)),
            refused,
            plan,
        }
    }
}

pin_project! {
    /// The future of [`FaultyConnector`]. Dropping it gives the attempt up.
    #[derive(Debug)]
    #[must_use = "a connect does nothing until polled"]
    pub struct FaultyFuture<F> {
        // None where dialling fails.
        #[pin]
        connect: Option<F>,
        refused: Option<ConnectError>,
        plan: FaultPlan,
    }
}

impl<F, C> Future for FaultyFuture<F>
where
    F: Future<Output = Result<C, ConnectError>>,
    C: Conn,
{
    type Output = Result<Faulty<C>, ConnectError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(refused) = this.refused.take() {
            return Poll::Ready(Err(refused));
        }
        let connect = this.connect.as_pin_mut();
        let conn = ready!(connect.expect("polled after it was ready").poll(cx))?;
        Poll::Ready(Ok(Faulty::new(conn, mem::take(this.plan))))
    }
}
