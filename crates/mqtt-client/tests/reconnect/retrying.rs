//! Whether and when another connection is opened, and who is told.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use mqtt_client::{
    LostCause, Plan, PublishError, QoS, ReasonCode, Session, SessionState, Version,
    proto::packet::{ConnAck, Disconnect, Packet},
};
use tokio::time::{Instant, sleep};

use crate::{
    SECOND, accept,
    common::{connector, endpoint, now, publish, report, settle},
    config, open, tasks,
};

#[tokio::test(start_paused = true)]
async fn attempts_come_later_and_later_and_a_stable_connection_begins_anew() {
    let (session, server, mut listener) = open(config(Version::V5)).await;
    let mut state = session.watch_state();
    assert!(matches!(
        *state.borrow_and_update(),
        SessionState::Connected { .. }
    ));
    sleep(SECOND * 31).await;
    let cut = Instant::now();
    drop(server);
    for seconds in [1, 1 + 2, 1 + 2 + 4, 1 + 2 + 4 + 8] {
        // The server is there, and says nothing but goodbye.
        drop(listener.accept().await);
        assert_eq!(cut.elapsed(), SECOND * seconds);
        settle().await;
        let SessionState::Waiting { attempt, cause, .. } = session.state() else {
            panic!("{:?}", session.state());
        };
        assert!(attempt > 1, "{attempt}");
        assert!(
            report(&*cause).contains("before CONNACK"),
            "{}",
            report(&*cause)
        );
    }
    let server = accept(&mut listener, true).await;
    settle().await;
    assert!(matches!(
        session.state(),
        SessionState::Connected { resumed: true, .. }
    ));
    // It is kicked at once: the delays go on where they were.
    let cut = Instant::now();
    drop(server);
    let server = accept(&mut listener, true).await;
    assert!(cut.elapsed() >= SECOND * 32, "{:?}", cut.elapsed());
    sleep(SECOND * 31).await;
    let cut = Instant::now();
    drop(server);
    let _server = accept(&mut listener, true).await;
    assert!(cut.elapsed() < SECOND * 2, "{:?}", cut.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_only_a_person_can_mend_ends_the_session() {
    let (session, server, mut listener) = open(config(Version::V5)).await;
    let mut waiting = pin!(session.publish(publish(QoS::AtLeastOnce)));
    drop(server);
    settle().await;
    assert!(now(&mut waiting).await.is_none());
    let mut server = listener.accept().await;
    server
        .accept_with(ConnAck::refused(ReasonCode::BAD_USER_NAME_OR_PASSWORD))
        .await;
    let lost = session.closed().await;
    assert!(matches!(lost.cause, LostCause::NotReopened(_)), "{lost:?}");
    assert!(
        report(&*lost).contains("bad user name or password"),
        "{}",
        report(&*lost)
    );
    assert!(matches!(session.state(), SessionState::Failed(_)));
    assert!(matches!(
        waiting.await.unwrap_err(),
        PublishError::NotSent(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_taken_over_does_not_fight() {
    let (session, mut server, _listener) = open(config(Version::V5)).await;
    let goodbye = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
    server.send(Packet::Disconnect(goodbye)).await;
    let lost = session.closed().await;
    assert!(matches!(lost.cause, LostCause::Disconnected(_)), "{lost:?}");
    settle().await;
    assert_eq!(tasks(), 0, "nobody is left who could connect");
}

#[tokio::test(start_paused = true)]
async fn leaving_ends_the_waiting_for_a_connection() {
    let (session, server, _listener) = open(config(Version::V5)).await;
    drop(server);
    settle().await;
    let begin = Instant::now();
    session.disconnect().await.unwrap();
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert!(matches!(session.state(), SessionState::Disconnected));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_the_waiting_for_a_connection() {
    let (session, server, _listener) = open(config(Version::V5)).await;
    drop(server);
    settle().await;
    drop(session);
    settle().await;
    assert_eq!(tasks(), 0, "nobody is left who could connect");
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    assert_eq!(tasks, 0);
}

#[tokio::test(start_paused = true)]
async fn opening_is_tried_again_and_not_for_ever() {
    let (connector, mut listener) = connector(config(Version::V5));
    let begin = Instant::now();
    let (session, attempts) = tokio::join!(connector.connect(endpoint()), async {
        let mut attempts = 0;
        while attempts < 6 {
            drop(listener.accept().await);
            attempts += 1;
        }
        attempts
    });
    assert_eq!(attempts, 6);
    assert_eq!(begin.elapsed(), SECOND * (1 + 2 + 4 + 8 + 16));
    assert!(report(&session.unwrap_err()).contains("before CONNACK"));

    // And not at all where it cannot help.
    let (session, ()) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server
            .accept_with(ConnAck::refused(ReasonCode::BANNED))
            .await;
    });
    assert!(report(&session.unwrap_err()).contains("banned"));
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_ones_own_decides() {
    let asked = Arc::new(AtomicU32::new(0));
    let (connector, mut listener) = connector(config(Version::V5));
    let counter = asked.clone();
    let connector = connector.with_reconnect_policy(move |interruption| {
        assert_eq!(
            interruption.attempt,
            counter.fetch_add(1, Ordering::Relaxed)
        );
        assert!(interruption.was_open);
        match interruption.attempt {
            0 => Plan::retry(Duration::from_millis(10)),
            _ => Plan::GiveUp,
        }
    });
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let cut = Instant::now();
    drop(server);
    drop(listener.accept().await);
    assert_eq!(cut.elapsed(), Duration::from_millis(10));
    session.closed().await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn retries_of_the_opening_are_not_those_of_the_session() {
    let mut config = config(Version::V5);
    let reconnect = config.reconnect.take().unwrap();
    let config = config.with_reconnect(Some(reconnect.with_max_retries(Some(1))));
    let (connector, mut listener) = connector(config);
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        drop(listener.accept().await);
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    drop(server);
    let _server = accept(&mut listener, true).await;
    settle().await;
    assert!(!session.is_closed());
}

/// [`std::task::Wake`] that asks the session how it stands.
struct Asks(Session, std::sync::mpsc::Sender<bool>);

impl std::task::Wake for Asks {
    fn wake(self: Arc<Self>) {
        let shown = format!("{:?}", self.0);
        let _ = self.1.send(shown.contains("<locked>"));
    }
}

/// A waker is the code of others, which may take the lock.
#[tokio::test(start_paused = true)]
async fn those_who_watch_the_state_are_woken_without_the_lock() {
    let (session, server, _listener) = open(config(Version::V5)).await;
    let mut state = session.watch_state();
    state.borrow_and_update();
    let (sender, woken) = std::sync::mpsc::channel();
    let waker = Arc::new(Asks(session.clone(), sender)).into();
    let mut changed = pin!(state.changed());
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(changed.as_mut().poll(&mut cx).is_pending());
    drop(server);
    settle().await;
    assert!(!woken.try_recv().unwrap());
}
