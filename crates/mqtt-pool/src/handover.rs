//! Where members that were dialled, or are returned, meet the callers that wait for a dial.
//!
//! Its one rule: a member goes to the caller that waits for longest, and if nobody waits to the
//! shelf, where the next caller finds it. No member is lost because the caller it was dialled for
//! has given up.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::{sync::oneshot, time::Instant};

use crate::{Connect, DialError, member::Member, state::State, totals::Reason};

pub(crate) struct Handover<C: Connect> {
    state: Arc<State>,
    inner: Mutex<Inner<C>>,
}

struct Inner<C: Connect> {
    /// In the order they came. Those that have given up stay until it is their turn.
    callers: VecDeque<oneshot::Sender<Answer<C>>>,
    /// Idle members that deadpool does not have, the most recent last.
    shelf: Vec<Box<Member<C::Connection>>>,
    is_closed: bool,
    last_error: Option<Arc<DialError<C::Error>>>,
}

/// What a caller gets.
pub(crate) type Answer<C> = Result<Box<Member<<C as Connect>::Connection>>, Refusal>;

/// Why a caller gets nothing and is not to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Unavailable { retry_at: Option<Instant> },
    Closed,
}

impl<C: Connect> Handover<C> {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            inner: Mutex::new(Inner {
                callers: VecDeque::new(),
                shelf: Vec::new(),
                is_closed: false,
                last_error: None,
            }),
        }
    }

    /// Takes a member off the shelf that is fit.
    pub(crate) fn take_spare(&self) -> Option<Box<Member<C::Connection>>> {
        loop {
            let mut member = self.lock().shelf.pop()?;
            let now = Instant::now();
            match member.fit(now) {
                Ok(()) => {
                    member.unpark(now);
                    return Some(member);
                }
                Err(reason) => member.retire(reason),
            }
        }
    }

    /// Waits for a member, in turn.
    pub(crate) fn wait(self: &Arc<Self>) -> Waiting<C> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        if inner.is_closed {
            let _ = sender.send(Err(Refusal::Closed));
        } else {
            // Callers that come and go must not pile up before a server that does not answer.
            if inner.callers.len() > 2 * self.state.expecting.value() + 16 {
                inner.callers.retain(|caller| !caller.is_closed());
            }
            inner.callers.push_back(sender);
            self.state.expecting.add();
        }
        drop(inner);
        self.state.wake();
        Waiting {
            handover: self.clone(),
            answer: receiver,
            is_answered: false,
        }
    }

    /// Gives a member to whoever waits for longest, or keeps it, if it is fit.
    pub(crate) fn hand(&self, member: Box<Member<C::Connection>>) {
        // It may have been retired, have died or become one too many while it was dialled.
        if let Err(reason) = member.fit_to_serve(Instant::now()) {
            member.retire(reason);
            return;
        }
        let mut answer = Ok(member);
        let mut inner = self.lock();
        while let Some(caller) = inner.callers.pop_front() {
            // One that has given up has counted itself out.
            if caller.is_closed() {
                continue;
            }
            self.state.expecting.remove();
            // It cannot give up meanwhile, for that takes the lock.
            answer = match caller.send(answer) {
                Ok(()) => return,
                Err(answer) => answer,
            };
        }
        let Ok(mut member) = answer else {
            return;
        };
        let parked = match inner.is_closed {
            true => Err(Reason::Shutdown),
            false => member.park(),
        };
        match parked {
            Ok(()) => inner.shelf.push(member),
            Err(reason) => {
                drop(inner);
                member.retire(reason);
            }
        }
    }

    /// Tells all who wait that there will be nothing.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        let mut inner = self.lock();
        while let Some(caller) = inner.callers.pop_front() {
            if !caller.is_closed() {
                self.state.expecting.remove();
                let _ = caller.send(Err(refusal));
            }
        }
    }

    /// Takes what is not to be kept off the shelf; the longest idle are asked first.
    pub(crate) fn retain(
        &self,
        mut keep: impl FnMut(&Member<C::Connection>) -> bool,
    ) -> Vec<Box<Member<C::Connection>>> {
        self.lock()
            .shelf
            .extract_if(.., |member| !keep(member))
            .collect()
    }

    /// Ends it: nobody waits any more, and nothing is kept.
    pub(crate) fn close(&self) {
        let shelf = {
            let mut inner = self.lock();
            inner.is_closed = true;
            std::mem::take(&mut inner.shelf)
        };
        self.refuse(Refusal::Closed);
        for member in shelf {
            member.retire(Reason::Shutdown);
        }
    }

    pub(crate) fn last_error(&self) -> Option<Arc<DialError<C::Error>>> {
        self.lock().last_error.clone()
    }

    pub(crate) fn set_last_error(&self, error: Option<DialError<C::Error>>) {
        // What the one before holds may come back to the pool, which takes the lock.
        let before = std::mem::replace(&mut self.lock().last_error, error.map(Arc::new));
        drop(before);
    }

    fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller that waits. Dropped, it passes on what it has been given meanwhile.
pub(crate) struct Waiting<C: Connect> {
    handover: Arc<Handover<C>>,
    answer: oneshot::Receiver<Answer<C>>,
    is_answered: bool,
}

impl<C: Connect> Future for Waiting<C> {
    type Output = Answer<C>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        self.is_answered = true;
        Poll::Ready(answer.unwrap_or(Err(Refusal::Closed)))
    }
}

impl<C: Connect> Drop for Waiting<C> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let given = {
            // With the lock held nobody is answering just now.
            let _inner = self.handover.lock();
            self.answer.close();
            let given = self.answer.try_recv();
            if given.is_err() {
                self.handover.state.expecting.remove();
            }
            given
        };
        if let Ok(Ok(member)) = given {
            self.handover.hand(member);
        }
    }
}

impl<C: Connect> fmt::Debug for Handover<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").finish_non_exhaustive()
    }
}
