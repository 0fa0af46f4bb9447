//! The requests that have no reply yet: at most so many, found by the number in their correlation
//! data; and the line of those that wait for a place.
//!
//! Nothing is woken, or dropped that could wake, under the lock.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use mqtt_proto::{BinaryData, Message};
use slab::Slab;
use tokio::sync::oneshot;

use crate::{
    error::{ConnectionLost, Delivery, SubscribeError},
    line::{Line, Ticket},
    request::{RequestError, correlation::Correlation},
};

#[derive(Debug)]
pub(super) struct OpenRequests {
    max_open: usize,
    correlation: Correlation,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u64, oneshot::Sender<Message>>,
    /// The number of the next request; none is used twice.
    next: u64,
    line: Line,
    /// Requesters in `poll_ready`.
    ready: Slab<Option<Waker>>,
    late: u64,
    unknown: u64,
    end: Option<End>,
}

/// Why there will be no more replies.
#[derive(Clone, Debug)]
pub(super) enum End {
    Refused(SubscribeError),
    Lost(Arc<ConnectionLost>),
}

impl End {
    pub(super) fn into_error(self, delivery: Delivery) -> RequestError {
        match self {
            Self::Refused(refused) => RequestError::Refused { refused, delivery },
            Self::Lost(lost) => RequestError::Lost { lost, delivery },
        }
    }
}

impl OpenRequests {
    pub(super) fn new(max_open: usize) -> Self {
        Self {
            max_open,
            correlation: Correlation::default(),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().open.len()
    }

    pub(super) fn late(&self) -> u64 {
        self.lock().late
    }

    pub(super) fn unknown(&self) -> u64 {
        self.lock().unknown
    }

    /// Waits for a place, first come, first served.
    pub(super) fn enter(&self) -> Entering<'_> {
        Entering {
            requests: self,
            ticket: None,
        }
    }

    /// Whether a request would have a place at once. Reserves none; `key` is where the caller waits.
    pub(super) fn poll_ready(
        &self,
        key: &mut Option<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), End>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(end) = &state.end {
            return Poll::Ready(Err(end.clone()));
        }
        if state.line.is_empty() && state.open.len() < self.max_open {
            return Poll::Ready(Ok(()));
        }
        let waker = Some(cx.waker().clone());
        let replaced = match key.and_then(|key| state.ready.get_mut(key)) {
            Some(slot) => std::mem::replace(slot, waker),
            None => {
                *key = Some(state.ready.insert(waker));
                None
            }
        };
        drop(guard);
        drop(replaced);
        Poll::Pending
    }

    /// The caller of [`poll_ready`](Self::poll_ready) is gone.
    pub(super) fn forget_ready(&self, key: usize) {
        let waker = self.lock().ready.try_remove(key);
        drop(waker);
    }

    /// Hands a reply to its request, if that is open.
    pub(super) fn deliver(&self, message: Message) {
        let data = message.properties.correlation_data.as_deref();
        let number = data.and_then(|data| self.correlation.number(data));
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let request = number.and_then(|number| state.open.remove(&number));
        match number {
            None => state.unknown += 1,
            Some(_) if request.is_none() => state.late += 1,
            Some(_) => state.wake_for_room(self.max_open, &mut wakers),
        }
        drop(state);
        if let Some(request) = request {
            // A request that was given up at this moment has no use for it.
            let _ = request.send(message);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// There will be no more replies: tells every open request and those that wait, once.
    pub(super) fn end(&self, end: End) {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        state.end.get_or_insert(end);
        let open = std::mem::take(&mut state.open);
        state.line.first(usize::MAX, &mut wakers);
        state.wake_ready(&mut wakers);
        drop(state);
        drop(open);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn close(&self, number: u64) {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let request = state.open.remove(&number);
        if request.is_some() {
            state.wake_for_room(self.max_open, &mut wakers);
        }
        drop(state);
        drop(request);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// Wakes the first in line if there is a place, or, where nobody waits, those who ask whether there
    /// is one.
    fn wake_for_room(&mut self, max_open: usize, wakers: &mut Vec<Waker>) {
        if self.open.len() >= max_open {
            return;
        }
        wakers.extend(self.line.next());
        if self.line.is_empty() {
            self.wake_ready(wakers);
        }
    }

    fn wake_ready(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.ready.iter_mut().filter_map(|(_, waker)| waker.take()));
    }
}

/// Resolves to a place. Dropped before, it leaves the line.
#[derive(Debug)]
pub(super) struct Entering<'a> {
    requests: &'a OpenRequests,
    ticket: Option<Ticket>,
}

impl<'a> Future for Entering<'a> {
    type Output = Result<Open<'a>, End>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let requests = this.requests;
        let mut guard = requests.lock();
        let state = &mut *guard;
        if let Some(end) = state.end.clone() {
            let left = state.line.leave(&mut this.ticket);
            drop(guard);
            drop(left);
            return Poll::Ready(Err(end));
        }
        if !state.line.is_turn(this.ticket) || state.open.len() >= requests.max_open {
            let replaced = state.line.wait(&mut this.ticket, cx.waker());
            drop(guard);
            drop(replaced);
            return Poll::Pending;
        }
        let left = state.line.leave(&mut this.ticket);
        let number = state.next;
        state.next += 1;
        let (request, reply) = oneshot::channel();
        state.open.insert(number, request);
        let mut wakers = Vec::new();
        state.wake_for_room(requests.max_open, &mut wakers);
        drop(guard);
        drop(left);
        wakers.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(Open {
            requests,
            number,
            reply,
        }))
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        if self.ticket.is_none() {
            return;
        }
        let mut wakers = Vec::new();
        let mut state = self.requests.lock();
        let left = state.line.leave(&mut self.ticket);
        // It may have been woken for a place that it does not take.
        state.wake_for_room(self.requests.max_open, &mut wakers);
        drop(state);
        drop(left);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// An open request. Dropped, it is forgotten, and its reply is late.
#[derive(Debug)]
pub(super) struct Open<'a> {
    requests: &'a OpenRequests,
    number: u64,
    reply: oneshot::Receiver<Message>,
}

impl Open<'_> {
    pub(super) fn correlation_data(&self) -> BinaryData {
        self.requests.correlation.data(self.number)
    }

    /// The reply, or why there will be none. Not to be polled again after that.
    pub(super) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, End>> {
        let reply = ready!(Pin::new(&mut self.reply).poll(cx));
        Poll::Ready(reply.map_err(|_| {
            let end = self.requests.lock().end.clone();
            end.expect("an open request is forgotten only when there are no more replies")
        }))
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.requests.close(self.number);
    }
}
