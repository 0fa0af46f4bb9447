//! How a session stands with its server: what the beginning and the end of a connection change,
//! and who is told.

use std::{sync::Arc, task::Waker};

use mqtt_proto::{Connected, UsageError, packet::Connect};
use mqtt_transport::{ConnInfo, Endpoint};
use tokio::{sync::watch, time::Instant};

use crate::{
    error::{ConnectionLost, LostCause},
    reconnect::SessionState,
    shared::{Facts, Shared, State},
    tally::Untold,
};

impl Shared {
    /// Sends CONNECT, which goes on with the session if there is one.
    pub(crate) fn begin_connect(
        &self,
        mut connect: Connect,
        now: Instant,
    ) -> Result<(), UsageError> {
        let mut state = self.lock();
        if state.core.has_state() {
            connect.clean_start = false;
        }
        state.core.connect(connect, now.into_std())
    }

    /// The server has accepted.
    pub(crate) fn on_connected(
        &self,
        connected: Connected<usize>,
        conn: ConnInfo,
        endpoint: Endpoint,
    ) {
        let Connected { connack, lost, .. } = connected;
        let resumed = connack.session_present;
        tracing::info!(%endpoint, resumed, "session opened");
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let ended = Arc::new(ConnectionLost {
            endpoint: endpoint.clone(),
            cause: LostCause::SessionLost,
        });
        state.lose(lost, &ended, &mut wakers);
        // At the first opening it is not one that this process began.
        let adopted = resumed && state.facts.is_none();
        if adopted {
            state.adopt();
        }
        state.facts = Some(Arc::new(Facts {
            endpoint,
            connack,
            conn,
        }));
        state.resume(resumed, &mut wakers);
        state.wake_for_room(&mut wakers);
        self.note_in_flight(&state);
        let news = state.stand(SessionState::Connected { resumed });
        state.interruption = None;
        let is_quiet = state.is_quiet();
        drop(state);
        if adopted {
            tracing::info!("messages wait for their subscriptions until release_unclaimed");
        }
        News::tell(news);
        wakers.into_iter().for_each(Waker::wake);
        if is_quiet {
            // What those who leave have waited for was lost with the session.
            self.changed.notify_waiters();
        }
    }

    /// An attempt to connect has failed. If that may have been after the server had accepted, what it
    /// keeps by the next attempt may be a session that it began then: subscriptions are not trusted
    /// to be there.
    pub(crate) fn abandon_connect(&self, endpoint: &Endpoint, may_be_accepted: bool) {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        if may_be_accepted {
            for (_, queue) in &mut state.subscriptions {
                queue.is_granted = false;
            }
        }
        let lost = Arc::new(ConnectionLost {
            endpoint: endpoint.clone(),
            cause: LostCause::SessionLost,
        });
        state.interrupt(&lost, &mut wakers);
        self.note_in_flight(&state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
    }

    /// The connection is gone and another is tried: tells those whom it ended.
    pub(crate) fn interrupt(&self, cause: LostCause) -> Arc<ConnectionLost> {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let lost = Arc::new(ConnectionLost {
            endpoint: state.endpoint(&self.endpoint).clone(),
            cause,
        });
        state.interrupt(&lost, &mut wakers);
        self.note_in_flight(&state);
        let untold = state.take_untold();
        drop(state);
        Untold::tell(untold);
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
        lost
    }

    pub(crate) fn set_state(&self, standing: SessionState) {
        let news = self.lock().stand(standing);
        News::tell(news);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<SessionState> {
        let mut state = self.lock();
        let standing = state.standing();
        let watch = state
            .watch
            .get_or_insert_with(|| watch::Sender::new(standing));
        watch.subscribe()
    }
}

impl State {
    /// The session stands so from now on.
    pub(crate) fn stand(&mut self, standing: SessionState) -> Option<News> {
        let watch = self.watch.clone();
        let news = watch.map(|watch| News(watch, standing.clone()));
        self.interruption = Some(Box::new(standing));
        news
    }

    /// How the session stands.
    pub(crate) fn standing(&self) -> SessionState {
        match (&self.interruption, &self.facts) {
            (Some(interruption), _) => (**interruption).clone(),
            (None, Some(facts)) => SessionState::Connected {
                resumed: facts.connack.session_present,
            },
            (None, None) => SessionState::Connecting { attempt: 0 },
        }
    }
}

/// How the session stands now, for those who watch, who are told without the lock. Only the task of
/// the session makes news, so they come in order.
pub(crate) struct News(watch::Sender<SessionState>, SessionState);

impl News {
    pub(crate) fn tell(news: Option<Self>) {
        if let Some(Self(watch, standing)) = news {
            watch.send_replace(standing);
        }
    }
}
