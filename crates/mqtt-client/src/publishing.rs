//! The future that sees a message through, from its caller to its outcome.

use std::{
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use mqtt_proto::{Message, QoS, UsageError};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    error::PublishError,
    outbox::{Offered, Place, shorten_expiry},
    publish::{Publish, Published},
    shared::{Answer, Handle, State, Unsent, Waiter, renew},
    tally::Untold,
};

/// A message from its caller to its outcome, with a handle that is borrowed or shared.
#[derive(Debug)]
pub(crate) struct Publishing<H: Deref<Target = Handle>> {
    pub(crate) handle: H,
    pub(crate) stage: Stage,
    /// Until when it may wait, if it has to and that is limited.
    expires: Option<Instant>,
    /// There once it was waited for with a limit; not before, as a caller that does not wait may have
    /// no runtime.
    timer: Option<Pin<Box<Sleep>>>,
}

/// How far taking a message has come.
pub(crate) enum Taking {
    Ended(Result<(), PublishError>),
    /// It waits, and has to be polled again at this time though nobody wakes it.
    Waits {
        until: Option<Instant>,
    },
}

#[derive(Debug)]
pub(crate) enum Stage {
    /// The message is still the caller's; the place is among those that wait to be taken.
    Waiting {
        publish: Publish,
        place: Option<Place>,
    },
    /// The waiter has this key; the place is in the outbox, if it was not sent at once.
    Taken {
        key: usize,
        place: Option<Place>,
    },
    /// At QoS 0, where there is nothing to wait for.
    Sent,
    /// There was no room for it.
    Displaced,
    Done,
}

impl<H: Deref<Target = Handle>> Publishing<H> {
    pub(crate) fn new(handle: H, publish: Publish) -> Self {
        Self {
            handle,
            stage: Stage::Waiting {
                publish,
                place: None,
            },
            expires: None,
            timer: None,
        }
    }

    /// Until the message is the session's.
    pub(crate) fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PublishError>> {
        let until = match self.take(cx.waker()) {
            Taking::Ended(taken) => return Poll::Ready(taken),
            Taking::Waits { until } => until,
        };
        if until.is_some_and(|until| self.is_time(until, cx)) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Hands the message to the session, as far as it takes it now.
    pub(crate) fn take(&mut self, waker: &Waker) -> Taking {
        let (mut publish, mut place) = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Waiting { publish, place } => (publish, place),
            taken @ (Stage::Taken { .. } | Stage::Sent | Stage::Displaced | Stage::Done) => {
                self.stage = taken;
                return Taking::Ended(Ok(()));
            }
        };
        let has_expired = self
            .expires
            .is_some_and(|expires| expires <= Instant::now());
        let qos = publish.message.qos;
        let shared = &self.handle.shared;
        let mut guard = shared.lock();
        let state = &mut *guard;
        let refused = match state.refusal(&shared.endpoint) {
            Some(lost) => Some(PublishError::NotSent(lost)),
            None => has_expired.then_some(PublishError::Expired),
        };
        if let Some(refused) = refused {
            if let PublishError::Expired = refused {
                state.count_expired();
            }
            let left = state.leave_outbox(qos, &mut place, false);
            shared.leave_room_to_others(guard);
            drop(left);
            return Taking::Ended(Err(refused));
        }
        if !state.sends_at_once(qos, place) {
            let mut wakers = Vec::new();
            if self.expires.is_none() {
                let patience = state.patience(&publish);
                self.expires = patience.and_then(|it| Instant::now().checked_add(it));
            }
            let offered = state.offer(publish, self.expires, &mut place, waker, &mut wakers);
            shared.note_in_flight(state);
            state.wake_waiting(&mut wakers);
            let untold = state.take_untold_in_time();
            drop(guard);
            Untold::tell(untold);
            wakers.into_iter().for_each(Waker::wake);
            return match offered {
                Offered::Taken(key, at) => {
                    let place = Some(at);
                    self.stage = Stage::Taken { key, place };
                    Taking::Ended(Ok(()))
                }
                Offered::Waits {
                    publish,
                    replaced,
                    room,
                } => {
                    drop(replaced);
                    self.stage = Stage::Waiting { publish, place };
                    let until = [self.expires, room].into_iter().flatten().min();
                    Taking::Waits { until }
                }
                Offered::Dropped => {
                    self.stage = Stage::Displaced;
                    Taking::Ended(Ok(()))
                }
                Offered::Refused(error) => Taking::Ended(Err(error)),
            };
        }
        if let Some(expires) = self.expires {
            let patience = state.patience(&publish).unwrap_or_default();
            let left = expires.saturating_duration_since(Instant::now());
            shorten_expiry(&mut publish.message, patience.saturating_sub(left));
        }
        let left = state.leave_outbox(qos, &mut place, true);
        let taken = match send(state, publish.message, waker) {
            Ok(stage) => {
                shared.note_in_flight(state);
                self.stage = stage;
                Ok(())
            }
            Err(error) => Err(error),
        };
        let driver = state.wake_driver();
        if state.outbox.is_some() {
            shared.leave_room_to_others(guard);
        } else {
            drop(guard);
        }
        drop(left);
        driver.into_iter().for_each(Waker::wake);
        Taking::Ended(taken)
    }

    /// Whether it is that late; if not, it is polled again when it is.
    fn is_time(&mut self, at: Instant, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_ready()
    }

    /// Until it is known what became of the message.
    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Result<Published, PublishError>> {
        let (key, place) = match self.stage {
            Stage::Taken { key, place } => (key, place),
            Stage::Sent => {
                self.stage = Stage::Done;
                return Poll::Ready(Ok(Published::Sent));
            }
            Stage::Displaced => {
                self.stage = Stage::Done;
                return Poll::Ready(Err(PublishError::Displaced));
            }
            Stage::Waiting { .. } | Stage::Done => return Poll::Pending,
        };
        // One that was sent waits for its answer however long that takes.
        let expires = self.expires.filter(|_| place.is_some());
        let has_expired = expires.is_some_and(|expires| self.is_time(expires, cx));
        let mut state = self.handle.shared.lock();
        let waiter = match state.waiters.get_mut(key) {
            Some(Waiter::Waiting(waker)) => {
                let replaced = renew(waker, cx.waker());
                let withdrawn = place
                    .filter(|_| has_expired)
                    .and_then(|place| state.withdraw_expired(place, key));
                if withdrawn.is_none() {
                    drop(state);
                    drop(replaced);
                    return Poll::Pending;
                }
                let waiter = state.waiters.try_remove(key);
                self.stage = Stage::Done;
                self.handle.shared.leave_room_to_others(state);
                drop((replaced, waiter, withdrawn));
                return Poll::Ready(Err(PublishError::Expired));
            }
            Some(Waiter::Answered(_)) => state.waiters.remove(key),
            Some(Waiter::Abandoned | Waiter::Restoring(_)) | None => return Poll::Pending,
        };
        self.stage = Stage::Done;
        drop(state);
        Poll::Ready(outcome(waiter))
    }
}

impl<H: Deref<Target = Handle> + Unpin> Future for Publishing<H> {
    type Output = Result<Published, PublishError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Stage::Waiting { .. } = this.stage {
            match this.poll_taken(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            if let (Stage::Taken { .. }, None) = (&this.stage, &this.expires) {
                // Its waiter knows this waker.
                return Poll::Pending;
            }
        }
        this.poll_outcome(cx)
    }
}

impl<H: Deref<Target = Handle>> Drop for Publishing<H> {
    fn drop(&mut self) {
        match &mut self.stage {
            Stage::Sent | Stage::Displaced | Stage::Done | Stage::Waiting { place: None, .. } => {}
            Stage::Waiting { publish, place } => {
                let mut state = self.handle.shared.lock();
                let left = state.leave_outbox(publish.message.qos, place, false);
                self.handle.shared.leave_room_to_others(state);
                drop(left);
            }
            &mut Stage::Taken { key, place } => {
                let mut state = self.handle.shared.lock();
                match place.and_then(|place| state.withdraw(place, key)) {
                    Some(withdrawn) => {
                        let waiter = state.waiters.try_remove(key);
                        self.handle.shared.leave_room_to_others(state);
                        drop((withdrawn, waiter));
                    }
                    None => {
                        let waiter = state.abandon(key);
                        drop(state);
                        drop(waiter);
                    }
                }
            }
        }
    }
}

/// Hands a message to the core, which has room for it.
fn send(state: &mut State, message: Message, waker: &Waker) -> Result<Stage, PublishError> {
    state.lend_buffer();
    let (qos, bytes) = (message.qos, message.payload.len());
    let key = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => {
            Some(state.waiters.insert(Waiter::Waiting(waker.clone())))
        }
    };
    match state.core.publish(message, key.unwrap_or_default()) {
        Ok(_) => {
            state.count_published(qos, bytes, key);
            Ok(key.map_or(Stage::Sent, |key| Stage::Taken { key, place: None }))
        }
        Err(refused) => {
            if let Some(key) = key {
                state.waiters.remove(key);
            }
            let error = refused.error.unwrap_or(UsageError::NotConnected);
            Err(PublishError::Usage(error))
        }
    }
}

fn outcome(waiter: Waiter) -> Result<Published, PublishError> {
    match waiter {
        Waiter::Answered(Answer::Published {
            reason_code,
            properties,
        }) if reason_code.is_error() => Err(PublishError::Rejected {
            reason_code,
            properties,
        }),
        Waiter::Answered(Answer::Published {
            reason_code,
            properties,
        }) => Ok(Published::Acknowledged {
            reason_code,
            properties,
        }),
        Waiter::Answered(Answer::Sent) => Ok(Published::Sent),
        Waiter::Answered(Answer::NotAllowed(error)) => Err(error.into()),
        Waiter::Answered(Answer::NotSent(unsent)) => Err(match unsent {
            Unsent::Displaced => PublishError::Displaced,
            Unsent::Expired => PublishError::Expired,
            Unsent::Lost(lost) => PublishError::NotSent(lost),
        }),
        Waiter::Answered(Answer::Lost(lost)) => Err(PublishError::Lost(lost)),
        Waiter::Answered(Answer::SetAside { connections, lost }) => Err(PublishError::SetAside {
            connections,
            source: lost,
        }),
        Waiter::Answered(Answer::Answered { .. })
        | Waiter::Waiting(_)
        | Waiter::Abandoned
        | Waiter::Restoring(_) => {
            unreachable!(
                "a publish is answered by its acknowledgement or by the end of the connection"
            )
        }
    }
}
