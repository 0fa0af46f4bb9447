//! Notices operations that wait too long.
//!
//! One rule: the wake-up for a change of the time is registered before the time is read, so that
//! no change goes unseen.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    sync::futures::OwnedNotified,
    time::{Instant, Sleep, sleep_until},
};

use super::{DeadlineExceeded, DeadlineHandle, Operation};

/// Watches operations of one direction of a connection.
#[derive(Debug)]
pub(super) struct Watch {
    operation: Operation,
    handle: DeadlineHandle,
    /// When the present wait began; `None` while nothing waits.
    since: Option<Instant>,
    /// Made for the first wait.
    expiry: Option<Pin<Box<Expiry>>>,
}

impl Watch {
    pub(super) fn new(operation: Operation, handle: DeadlineHandle) -> Self {
        Self {
            operation,
            handle,
            since: None,
            expiry: None,
        }
    }

    pub(super) fn handle(&self) -> DeadlineHandle {
        self.handle.clone()
    }

    /// Passes on what an operation came to, or its deadline if it waits too long.
    #[inline]
    pub(super) fn check<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.since = None;
            return outcome;
        }
        Poll::Ready(Err(ready!(self.poll_exceeded(cx)).into()))
    }

    fn poll_exceeded(&mut self, cx: &mut Context<'_>) -> Poll<DeadlineExceeded> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let expiry = self
            .expiry
            .get_or_insert_with(|| Box::pin(Expiry::new(self.handle.clone())));
        let timeout = ready!(expiry.as_mut().poll_expired(since, cx));
        self.since = None;
        Poll::Ready(DeadlineExceeded {
            operation: self.operation,
            timeout,
        })
    }
}

pin_project! {
    /// The timer of a deadline that can change.
    #[derive(Debug)]
    pub(super) struct Expiry {
        handle: DeadlineHandle,
        #[pin]
        changed: OwnedNotified,
        #[pin]
        timer: Option<Sleep>,
    }
}

impl Expiry {
    pub(super) fn new(handle: DeadlineHandle) -> Self {
        Self {
            changed: handle.changed(),
            timer: None,
            handle,
        }
    }

    /// Ready with the timeout once it has passed since `since`.
    pub(super) fn poll_expired(
        self: Pin<&mut Self>,
        since: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Duration> {
        let mut this = self.project();
        while this.changed.as_mut().poll(cx).is_ready() {
            this.changed.set(this.handle.changed());
        }
        let Some(timeout) = this.handle.timeout() else {
            return Poll::Pending;
        };
        let Some(deadline) = since.checked_add(timeout) else {
            return Poll::Pending;
        };
        loop {
            let Some(mut timer) = this.timer.as_mut().as_pin_mut() else {
                this.timer.set(Some(sleep_until(deadline)));
                continue;
            };
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(timeout);
            }
            // It was set for an earlier wait or a shorter time, and is moved on now, rather than
            // with every wait.
            timer.as_mut().reset(deadline);
        }
    }
}
