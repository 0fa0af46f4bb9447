//! In which phase a connect is, for a deadline around it.
//!
//! A connector marks what it waits for with [`in_phase`]. A mark leaves its phase behind whenever
//! it has to wait, and a deadline takes it right after it polled the connector: the same thread,
//! with nothing in between. The outermost mark counts.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use crate::ConnectPhase;

thread_local! {
    static WAITING: Cell<Option<ConnectPhase>> = const { Cell::new(None) };
}

/// `future`, marked as being in `phase`.
pub(crate) async fn in_phase<F: Future>(phase: ConnectPhase, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let outcome = future.as_mut().poll(cx);
        if outcome.is_pending() {
            WAITING.set(Some(phase));
        }
        outcome
    })
    .await
}

/// Polls, and says in which phase `future` waits, if it was marked.
pub(crate) fn poll_phase<F: Future>(
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> (Poll<F::Output>, Option<ConnectPhase>) {
    WAITING.set(None);
    let outcome = future.poll(cx);
    // Left in its place: a deadline around this one wants to know, too.
    (outcome, WAITING.get())
}
