//! A subscription whose messages are acknowledged by hand.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use crate::{
    acknowledge::{Received, Verdict},
    answered::Answered,
    error::SubscribeError,
    subscribe::Unsubscribing,
    subscription::Subscription,
};

/// The messages of one subscribe request, each with the [`Ack`](crate::Ack) that it is to be
/// acknowledged by. Made by [`Subscription::into_manual`], and a stream as that is: the same order,
/// bounds and end.
///
/// A QoS 1 or 2 message counts against the receive maximum until its `Ack` is used, so as many as that
/// can be worked on at a time. Around the loss of a connection a QoS 1 message can be handed out twice,
/// the first time with an `Ack` that is stale.
///
/// Dropping it unsubscribes without waiting, and what was not read counts as not processed: it is not
/// acknowledged on this connection, with the consequences that dropping an [`Ack`](crate::Ack) has. If
/// nothing subscribes to it when it comes again, it is acknowledged then.
#[derive(Debug)]
pub struct ManualSubscription {
    subscription: Subscription,
}

impl ManualSubscription {
    pub(crate) fn new(subscription: Subscription) -> Self {
        Self { subscription }
    }

    /// The next message; `None` when [`Subscription::recv`] says so.
    ///
    /// Cancel safe: a message is taken only when it is returned.
    pub async fn recv(&mut self) -> Option<Received> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Why the server does not grant the subscription any more, if it was asked for again and
    /// refused.
    pub fn refused(&self) -> Option<SubscribeError> {
        self.subscription.refused()
    }

    /// How many QoS 0 messages were dropped: [`Subscription::dropped`].
    pub fn dropped(&self) -> u64 {
        self.subscription.dropped()
    }

    /// How many messages of the session, not of this stream alone, acknowledgements wait behind:
    /// [`Session::unprocessed`](crate::Session::unprocessed).
    pub fn unprocessed(&self) -> usize {
        self.subscription.shared().lock().core.given_back()
    }

    /// Unsubscribes and waits for the server's answer. What was not read counts as not processed.
    ///
    /// Nothing is asked of the server while another stream of this session has the same filters.
    /// If the future is dropped the subscription is given up all the same.
    pub async fn unsubscribe(mut self) -> Result<Answered, SubscribeError> {
        let answer = self.subscription.give_up(true, Verdict::GivenBack)?;
        Unsubscribing::new(self.subscription.handle(), answer).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        let delivery = self.subscription.poll_delivery(cx, false);
        delivery.map(|delivery| {
            delivery.map(|it| Received::new(self.subscription.shared(), it.message, it.ack))
        })
    }
}

impl Stream for ManualSubscription {
    type Item = Received;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.get_mut().poll_recv(cx)
    }
}

impl Drop for ManualSubscription {
    fn drop(&mut self) {
        // The subscription inside finds itself given up.
        let _ = self.subscription.give_up(false, Verdict::GivenBack);
    }
}
