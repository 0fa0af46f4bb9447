//! The one task of a connection: it writes what the handles and the core left in the outbound
//! buffer, reads what the server sends, and keeps the time.
//!
//! Its rule is the core's: after every input, drain the outputs; then sleep until the socket, a
//! handle or the clock has something.

use std::{
    io,
    pin::Pin,
    sync::{Arc, MutexGuard},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use mqtt_proto::{Decoder, Outbound};
use mqtt_transport::Conn;
use tokio::time::{Instant, Sleep};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use crate::{
    buffers::{self, Scratch},
    config::FOREVER,
    error::{LostCause, Operation},
    shared::{Shared, State},
    stall,
    tally::Untold,
};

/// Packets handled under one hold of the lock, so that publishers are not kept waiting for long.
const PACKETS_PER_LOCK: usize = 128;

/// Reads in one poll, before other tasks of the thread get their turn.
const READS_PER_POLL: usize = 16;

/// How long the readers of filling queues are waited for before QoS 0 messages are dropped. A reader
/// that keeps up on average comes much sooner, even on a busy machine; one that has stopped costs
/// the others this much once, a slow one each time it falls behind.
const PAUSE: Duration = Duration::from_millis(50);

/// While so many bytes of answers wait behind a blocked socket nothing is read, since each packet may
/// add one: a server that does not read must not make us grow. Publishes that wait there are bounded
/// elsewhere, and a server may want to be read before it reads them.
const MAX_UNSENT_ANSWERS: usize = 1024 * 1024;

pub(crate) struct Driver<C> {
    conn: C,
    shared: Arc<Shared>,
    decoder: Decoder,
    /// Being written.
    out: Outbound,
    /// The connection was given bytes that it may still hold in a buffer of its own.
    unflushed: bool,
    /// Received and not yet handled.
    input: Bytes,
    /// How many bytes of answers came to wait since the core's buffer was last taken.
    answers: usize,
    timer: Pin<Box<Sleep>>,
    /// Whom the timer wakes.
    timer_waker: Option<Waker>,
    /// Nothing is read until the readers of filling queues have come, or until then.
    paused: Option<Instant>,
    /// Why the connection ends, once that is settled: what is left to write goes out first. Boxed, as
    /// it is there only for a moment.
    end: Option<Box<LostCause>>,
}

impl<C: Conn> Driver<C> {
    /// Drives a connection on which CONNACK has come; `input` is what came behind it.
    pub(crate) fn new(conn: C, shared: Arc<Shared>, decoder: Decoder, input: Bytes) -> Self {
        let timer = Box::pin(tokio::time::sleep_until(Instant::now()));
        Self {
            conn,
            shared,
            decoder,
            out: Outbound::default(),
            unflushed: false,
            input,
            answers: 0,
            timer,
            timer_waker: None,
            paused: None,
            end: None,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn run(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<LostCause> {
        if self.shared.is_cut() {
            return Poll::Ready(LostCause::Cut);
        }
        for _ in 0..READS_PER_POLL {
            let blocked = match self.write(cx, scratch) {
                Ok(blocked) => blocked,
                Err(source) => {
                    let said = self.last_words(cx, scratch);
                    return Poll::Ready(said.unwrap_or_else(|| lost(Operation::Write, source)));
                }
            };
            if self.end.is_some() {
                if blocked {
                    return Poll::Pending;
                }
                if self.shared.lock().core.unsent() > 0 {
                    continue;
                }
                if let Some(cause) = self.end.take() {
                    return Poll::Ready(*cause);
                }
            }
            match self.read(cx, scratch, blocked) {
                Poll::Ready(Ok(())) => {}
                // What the core has to say about it goes out first.
                Poll::Ready(Err(cause)) => self.end = Some(Box::new(cause)),
                // The time is looked at when all that came in it was read, however late that is.
                Poll::Pending => match self.handle_timeouts(cx) {
                    Ok(false) if self.park(cx, blocked) => return Poll::Pending,
                    Ok(_) => {}
                    Err(cause) => return Poll::Ready(cause),
                },
            }
        }
        if let Err(cause) = self.handle_timeouts(cx) {
            return Poll::Ready(cause);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what waits, until the socket takes no more; says whether it does not.
    ///
    /// What is added meanwhile waits until something was read: busy publishers must not keep
    /// acknowledgements and messages from coming in.
    fn write(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> io::Result<bool> {
        if self.out.is_empty() && !self.unflushed {
            self.take_outbound(scratch);
        }
        while self.out.has_remaining() {
            let conn = Pin::new(&mut self.conn);
            // One piece is cheaper to write as such.
            let written = if self.out.chunk().len() == self.out.remaining() {
                let written = conn.poll_write(cx, self.out.chunk());
                if let Poll::Ready(Ok(n)) = written {
                    self.out.advance(n);
                }
                written
            } else {
                poll_write_buf(conn, cx, &mut self.out)
            };
            match written {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(_)) => self.unflushed = true,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(true),
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.conn).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Takes all that waits to be written, if anything does.
    fn take_outbound(&mut self, scratch: &mut Scratch) {
        let mut state = self.shared.lock();
        if !state.core.is_connected() && self.end.is_none() {
            // DISCONNECT is the last of it, and nothing follows [MQTT5-3.14.4-2]. What the server
            // does ends elsewhere.
            let closed = state.departing.then_some(LostCause::Closed);
            let cause = closed.or_else(|| state.failed_authentication());
            self.end = Some(Box::new(cause.unwrap_or(LostCause::Renewed)));
        }
        if state.core.unsent() > 0 {
            self.out = state.core.take_outbound(std::mem::take(&mut self.out));
            self.answers = 0;
            if let Some(look) = state.watch_answers()
                && self.timer.deadline() > look
            {
                self.timer.as_mut().reset(look);
                // To be polled again, and so to wake somebody.
                self.timer_waker = None;
            }
            state.wake_for_room(&mut scratch.wakers);
            self.shared.note_in_flight(&state);
            let is_quiet = state.is_quiet();
            let untold = state.take_untold();
            drop(state);
            Untold::tell(untold);
            scratch.wakers.drain(..).for_each(Waker::wake);
            if is_quiet {
                self.shared.changed.notify_waiters();
            }
        }
    }

    /// What the server said before it closed, on a connection that takes no more writes: its
    /// reason, if it gave one, and the acknowledgements before that.
    fn last_words(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Option<LostCause> {
        for _ in 0..READS_PER_POLL {
            if self.end.is_some() {
                break;
            }
            match self.read(cx, scratch, false) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(cause @ LostCause::Disconnected(_))) => {
                    self.end = Some(Box::new(cause));
                }
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        // Leaving in order is not what happened, if its DISCONNECT could not be written.
        self.end
            .take()
            .map(|cause| *cause)
            .filter(|cause| !matches!(cause, LostCause::Closed | LostCause::Renewed))
    }

    /// Reads once and handles what came. Pending if there was nothing to read, or it is not the time.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        blocked: bool,
    ) -> Poll<Result<(), LostCause>> {
        if self.pauses(cx) {
            return Poll::Pending;
        }
        let mut received = 0;
        if self.input.is_empty() {
            if blocked && self.answers >= MAX_UNSENT_ANSWERS {
                return Poll::Pending;
            }
            let conn = Pin::new(&mut self.conn);
            let read = if let Some((partial, missing)) = self.decoder.large_packet() {
                partial.reserve(missing.min(READ_AHEAD));
                poll_read_buf(conn, cx, &mut partial.limit(missing))
            } else {
                scratch.reserve_read();
                poll_read_buf(conn, cx, &mut scratch.read)
            };
            match ready!(read) {
                Ok(0) => return Poll::Ready(Err(LostCause::ClosedByServer)),
                Ok(n) => {
                    tracing::trace!(bytes = n, "read");
                    received = n;
                }
                Err(error) => return Poll::Ready(Err(lost(Operation::Read, error))),
            }
        }
        if !scratch.read.is_empty() {
            self.input = scratch.read.split().freeze();
        }
        let handled = self.handle_input(received, scratch);
        scratch.wakers.drain(..).for_each(Waker::wake);
        Poll::Ready(handled)
    }

    /// Decodes and handles the input, to its end or until a reader is to be waited for.
    fn handle_input(
        &mut self,
        mut received: usize,
        scratch: &mut Scratch,
    ) -> Result<(), LostCause> {
        let now = Instant::now();
        loop {
            let mut state = self.shared.lock();
            state.core.bytes_received(std::mem::take(&mut received));
            let unsent = state.core.unsent();
            for _ in 0..PACKETS_PER_LOCK {
                let packet = match self.decoder.decode(&mut self.input) {
                    Ok(Some(packet)) => packet,
                    Ok(None) => {
                        // Not even an empty slice keeps the thread's buffer from being used again.
                        self.input = Bytes::new();
                        self.answers += state.core.unsent().saturating_sub(unsent);
                        self.handled(state, scratch);
                        return Ok(());
                    }
                    Err(error) => {
                        state.core.abort(error.reason_code());
                        return Err(LostCause::Malformed(error));
                    }
                };
                let event = state.core.handle_packet(packet, now.into_std());
                if let Some(event) = event.map_err(LostCause::Protocol)? {
                    state.on_event(event, &mut scratch.wakers)?;
                }
                if state.pressing > 0 {
                    self.paused = Some(now + PAUSE);
                    self.answers += state.core.unsent().saturating_sub(unsent);
                    self.handled(state, scratch);
                    return Ok(());
                }
            }
            self.answers += state.core.unsent().saturating_sub(unsent);
        }
    }

    /// What came may have made room for those who wait, or have been the last to be waited for.
    fn handled(&self, mut state: MutexGuard<'_, State>, scratch: &mut Scratch) {
        state.wake_for_room(&mut scratch.wakers);
        self.shared.note_in_flight(&state);
        let is_quiet = state.is_quiet();
        let untold = state.take_untold();
        drop(state);
        let unwanted = untold.as_ref().map_or(0, |untold| untold.counts.unwanted);
        Untold::tell(untold);
        if unwanted > 0 {
            tracing::debug!(unwanted, "took messages that no subscription wants");
        }
        if is_quiet {
            self.shared.changed.notify_waiters();
        }
    }

    /// Whether the readers of filling queues are still waited for.
    fn pauses(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(until) = self.paused else {
            return false;
        };
        let mut state = self.shared.lock();
        if state.pressing > 0 {
            if self.timer.deadline() > until {
                self.timer.as_mut().reset(until);
            }
            if Instant::now() < until {
                // To be woken by it; an earlier deadline of the core is kept first.
                if self.timer.as_mut().poll(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
                return true;
            }
            state.stop_pausing();
        }
        self.paused = None;
        false
    }

    /// Keeps the core's deadlines. Says whether there was one.
    fn handle_timeouts(&mut self, cx: &mut Context<'_>) -> Result<bool, LostCause> {
        // A timer that knows whom to wake needs no other look than whether it has fired.
        let known = self
            .timer_waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()));
        if known && !self.timer.is_elapsed() {
            return Ok(false);
        }
        self.timer_waker = Some(cx.waker().clone());
        let mut fired = false;
        while self.timer.as_mut().poll(cx).is_ready() {
            let mut state = self.shared.lock();
            let now = Instant::now();
            state.lend_buffer();
            state
                .core
                .handle_timeout(now.into_std())
                .map_err(LostCause::Protocol)?;
            let next = state
                .core
                .next_deadline()
                .map_or(now + FOREVER, Instant::from_std);
            let stall = state.take_stall();
            drop(state);
            self.timer.as_mut().reset(next);
            if let Some(cause) = stall.and_then(stall::report)
                && self.end.is_none()
            {
                // The server is there to be told why.
                self.end = Some(Box::new(cause));
            }
            fired = true;
        }
        Ok(fired)
    }

    /// Leaves the driver's waker with the handles; false if there is something to do already.
    fn park(&mut self, cx: &mut Context<'_>, blocked: bool) -> bool {
        let mut state = self.shared.lock();
        if self.paused.is_some() && state.pressing == 0 {
            return false;
        }
        state.is_blocked = blocked;
        if blocked {
            // The socket wakes it. A reader that was waited for and a cut may do so earlier.
            state.driver = Some(cx.waker().clone());
            return true;
        }
        if state.core.unsent() > 0 {
            return false;
        }
        state.shrink_outbox();
        state.driver = Some(cx.waker().clone());
        let lent = state.core.take_outbound(Outbound::default());
        drop(state);
        buffers::keep(lent);
        buffers::keep(std::mem::take(&mut self.out));
        true
    }
}

/// How much of a large packet is made room for at a time, so that a claimed length costs nothing.
const READ_AHEAD: usize = 64 * 1024;

fn lost(operation: Operation, source: io::Error) -> LostCause {
    LostCause::Io {
        operation,
        source: Arc::new(source),
    }
}

impl<C: Conn> Future for Driver<C> {
    type Output = LostCause;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LostCause> {
        let this = self.get_mut();
        let mut scratch = Scratch::take();
        let outcome = this.run(cx, &mut scratch);
        scratch.give_back();
        if outcome.is_ready() {
            // Best effort: the peer learns of the end from the socket's closing anyway.
            let _ = Pin::new(&mut this.conn).poll_shutdown(cx);
        }
        outcome
    }
}

impl<C> std::fmt::Debug for Driver<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("endpoint", &self.shared.endpoint)
            .finish_non_exhaustive()
    }
}
