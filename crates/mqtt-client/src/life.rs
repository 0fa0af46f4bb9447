//! The task of a session: it drives one connection after the other.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use mqtt_transport::{Endpoint, WriteDeadline};
use tokio::time::{Instant, sleep};
use tower_service::Service;

use crate::{
    connector::Dial,
    driver::Driver,
    error::{ConnectError, ConnectionLost, LostCause},
    notes::Due,
    opener::Opener,
    reconnect::{Cause, Plan, SessionState},
    shared::Shared,
};

pub(crate) struct Life<C: Dial> {
    stage: Stage<C>,
    /// What opens the next connection, while it does not.
    opener: Option<Opener<C>>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "a session is connected nearly always, and the task is boxed anyway"
)]
enum Stage<C: Dial> {
    Connected(Driver<WriteDeadline<C::Response>>),
    /// Boxed, so that it takes no memory of a session that is connected.
    Reconnecting {
        shared: Arc<Shared>,
        reopened: Pin<Box<dyn Future<Output = Result<Reopened<C>, LostCause>> + Send>>,
    },
}

type Reopened<C> = (
    Driver<WriteDeadline<<C as Service<Endpoint>>::Response>>,
    Opener<C>,
);

impl<C: Dial> Life<C> {
    pub(crate) fn new(driver: Driver<WriteDeadline<C::Response>>, opener: Opener<C>) -> Self {
        Self {
            stage: Stage::Connected(driver),
            opener: Some(opener),
        }
    }
}

impl<C: Dial> Future for Life<C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            match &mut this.stage {
                Stage::Connected(driver) => {
                    let span = this.opener.as_ref().and_then(Opener::span);
                    let entered = span.map(|span| span.enter());
                    let polled = Pin::new(&mut *driver).poll(cx);
                    if let Poll::Ready(cause) = &polled {
                        let endpoint = &driver.shared().endpoint;
                        tracing::info!(%endpoint, %cause, "connection ended");
                    }
                    drop(entered);
                    let Poll::Ready(cause) = polled else {
                        match this.opener.as_mut().and_then(|opener| opener.poll_due(cx)) {
                            Some(Due::Renewal) => driver.shared().change_connections(),
                            Some(Due::Resends) => driver.shared().release_resends(),
                            None => return Poll::Pending,
                        }
                        continue;
                    };
                    let shared = driver.shared().clone();
                    let mut opener = this.opener.take();
                    if let Some(opener) = &mut opener {
                        opener.on_ended(&shared, &cause);
                    }
                    let goes_on = |opener: &Opener<C>| opener.reopens() && !shared.is_departing();
                    let Some(mut opener) = opener.filter(goes_on) else {
                        // Told to leave before a renewal was done, it has left.
                        let is_leaving = matches!(cause, LostCause::Renewed);
                        shared.end(if is_leaving { LostCause::Closed } else { cause });
                        return Poll::Ready(());
                    };
                    if matches!(cause, LostCause::Cut) {
                        shared.forget_cut();
                    }
                    let culprit = opener.on_connection_lost(&shared, &cause);
                    let lost = shared.interrupt(cause);
                    if let Some(culprit) = culprit {
                        shared.set_aside(culprit, &lost);
                    }
                    let reopened = Box::pin(reopen(opener, shared.clone(), lost));
                    this.stage = Stage::Reconnecting { shared, reopened };
                }
                Stage::Reconnecting { shared, reopened } => {
                    match ready!(reopened.as_mut().poll(cx)) {
                        Ok((driver, opener)) => {
                            this.stage = Stage::Connected(driver);
                            this.opener = Some(opener);
                        }
                        Err(cause) => {
                            shared.end(cause);
                            return Poll::Ready(());
                        }
                    }
                }
            }
        }
    }
}

impl<C: Dial> Life<C> {
    fn shared(&self) -> &Shared {
        match &self.stage {
            Stage::Connected(driver) => driver.shared(),
            Stage::Reconnecting { shared, .. } => shared,
        }
    }
}

/// Tries until there is a connection, the policy gives up or the session is told to leave.
async fn reopen<C: Dial>(
    mut opener: Opener<C>,
    shared: Arc<Shared>,
    mut lost: Arc<ConnectionLost>,
) -> Result<Reopened<C>, LostCause> {
    let mut failed: Option<Arc<ConnectError>> = None;
    loop {
        let cause = match &failed {
            Some(error) => Cause::NotOpened(error),
            None => Cause::Lost(&lost),
        };
        let plan = opener.plan(cause);
        let attempt = opener.attempts();
        let waited = match &plan {
            Plan::GiveUp => {
                return Err(match failed {
                    Some(error) => LostCause::NotReopened(error),
                    None => lost.cause.clone(),
                });
            }
            Plan::Hold => hold(&shared, &lost).await,
            Plan::Retry { after, .. } => wait(&shared, &lost, *after, attempt).await,
        };
        let to = match plan {
            Plan::Retry { endpoint, .. } => endpoint,
            Plan::Hold | Plan::GiveUp => None,
        };
        let opened = match waited {
            Waited::ToTheEnd => {
                shared.set_state(SessionState::Connecting { attempt });
                tokio::select! {
                    biased;
                    () = shared.departed() => Err(Stopped::Left),
                    () = shared.was_cut() => {
                        // The server may have accepted already.
                        shared.abandon_connect(&lost.endpoint, true);
                        Err(Stopped::Cut)
                    }
                    result = opener.reopen(to, cause, &shared) => Ok(result),
                }
            }
            Waited::Stopped(stopped) => Err(stopped),
        };
        match opened {
            Ok(Ok(driver)) => return Ok((driver, opener)),
            Ok(Err(error)) => {
                tracing::warn!(%error, cause = ?error.cause, attempt, "not reconnected");
                let error = Arc::new(error);
                lost = Arc::new(ConnectionLost {
                    endpoint: error.endpoint.clone(),
                    cause: LostCause::NotReopened(error.clone()),
                });
                failed = Some(error);
            }
            Err(Stopped::Left) => return Err(LostCause::Closed),
            Err(Stopped::Cut) => {
                lost = shared.interrupt(LostCause::Cut);
                failed = None;
            }
        }
    }
}

enum Waited {
    ToTheEnd,
    Stopped(Stopped),
}

/// Why an attempt is not made, or not to its end.
enum Stopped {
    Left,
    Cut,
}

/// Waits for the next attempt to be due.
async fn wait(
    shared: &Shared,
    lost: &Arc<ConnectionLost>,
    after: Duration,
    attempt: u32,
) -> Waited {
    tracing::warn!(endpoint = %lost.endpoint, attempt, ?after, "reconnecting");
    shared.forget_reconnect();
    shared.set_state(SessionState::Waiting {
        until: far_from(Instant::now(), after),
        attempt,
        cause: lost.clone(),
    });
    tokio::select! {
        biased;
        () = shared.departed() => Waited::Stopped(Stopped::Left),
        () = shared.was_cut() => Waited::Stopped(Stopped::Cut),
        () = shared.was_told_to_reconnect() => Waited::ToTheEnd,
        () = sleep(after) => Waited::ToTheEnd,
    }
}

/// Waits for the application to ask for a connection.
async fn hold(shared: &Shared, lost: &Arc<ConnectionLost>) -> Waited {
    tracing::info!(endpoint = %lost.endpoint, "held without a connection");
    shared.forget_reconnect();
    shared.set_state(SessionState::Held {
        cause: lost.clone(),
    });
    let waited = tokio::select! {
        biased;
        () = shared.departed() => Waited::Stopped(Stopped::Left),
        () = shared.was_told_to_reconnect() => Waited::ToTheEnd,
    };
    // There was nothing to cut.
    shared.forget_cut();
    waited
}

fn far_from(now: Instant, after: Duration) -> Instant {
    now + after.min(crate::config::FOREVER)
}

impl<C: Dial> Drop for Life<C> {
    fn drop(&mut self) {
        if let (Stage::Connected(driver), Some(opener)) = (&self.stage, &mut self.opener) {
            opener.on_ended(driver.shared(), &LostCause::TaskDropped);
        }
        self.shared().end(LostCause::TaskDropped);
    }
}

impl<C: Dial> fmt::Debug for Life<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life")
            .field("endpoint", &self.shared().endpoint)
            .finish_non_exhaustive()
    }
}
