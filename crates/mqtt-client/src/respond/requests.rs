//! The requests of a responder, and what is owed for each: it is acknowledged when it was answered.
//!
//! Acknowledgements leave in order, so one that never came would hold up those of the whole session.
//! What is not answered when the responder ends is therefore rejected, unless it was asked for that it
//! comes again.

use std::task::{Context, Poll, ready};

use mqtt_proto::{Message, ReasonCode};

use crate::{
    acknowledge::{Ack, Received, Verdict},
    error::SubscribeError,
    subscription::Subscription,
};

/// The stream of requests. Dropped, it unsubscribes, and settles what was not read.
#[derive(Debug)]
pub(super) struct Requests {
    subscription: Subscription,
    gives_back: bool,
}

impl Requests {
    pub(super) fn new(subscription: Subscription, gives_back: bool) -> Self {
        Self {
            subscription,
            gives_back,
        }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Message, Owed)>> {
        let Some(delivery) = ready!(self.subscription.poll_delivery(cx, false)) else {
            return Poll::Ready(None);
        };
        let shared = self.subscription.shared();
        let Received { message, ack } = Received::new(shared, delivery.message, delivery.ack);
        let owed = Owed {
            ack: Some(ack),
            gives_back: self.gives_back,
        };
        Poll::Ready(Some((message, owed)))
    }

    pub(super) fn refused(&self) -> Option<SubscribeError> {
        self.subscription.refused()
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        let verdict = if self.gives_back {
            Verdict::GivenBack
        } else {
            Verdict::Taken(ReasonCode::UNSPECIFIED_ERROR)
        };
        // The subscription inside finds itself given up.
        let _ = self.subscription.give_up(false, verdict);
    }
}

/// The acknowledgement of a request. Dropped, as when the responder ends or its service panics, it says
/// that there was no answer.
#[derive(Debug)]
pub(super) struct Owed {
    ack: Option<Ack>,
    gives_back: bool,
}

impl Owed {
    /// All that there is to be done was done. A stale acknowledgement has nobody to tell.
    pub(super) fn accept(mut self) {
        let _ = self.ack.take().map(Ack::accept);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        // What has panicked would do so again.
        if !self.gives_back || std::thread::panicking() {
            let reject = |ack: Ack| ack.reject(ReasonCode::UNSPECIFIED_ERROR);
            let _ = self.ack.take().map(reject);
        }
    }
}
