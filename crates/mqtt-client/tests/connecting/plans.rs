//! What a policy can plan, and what the application can say meanwhile.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
};

use mqtt_client::{
    Cause, ClosedBy, LostCause, Plan, PublishError, QoS, Session, SessionConnector, SessionState,
    Version,
};
use mqtt_testkit::{MemoryListener, ScriptedServer};
use tokio::time::{Instant, sleep};

use crate::{
    SECOND,
    common::{BOTH, connector, endpoint, now, publish, settle},
    config, open, recorded, resume,
};

/// A session that is held once its connection is cut, and tries again otherwise.
async fn held_when_cut(version: Version) -> (Session, ScriptedServer, MemoryListener) {
    let (connector, mut listener) = connector(config(version));
    let connector = connector.with_reconnect_policy(|interruption| match interruption.cause {
        Cause::Lost(lost) if matches!(lost.cause, LostCause::Cut) => Plan::Hold,
        Cause::Lost(_) | Cause::NotOpened(_) => Plan::retry(SECOND),
    });
    let (session, server) = open(&connector, &mut listener).await;
    (session, server, listener)
}

/// A session object connects again after a cut, with its state [MQTT5-3.1.2-8] [MQTT3-3.1.2-8].
#[tokio::test(start_paused = true)]
async fn a_session_that_was_cut_is_held_and_goes_on_when_it_is_told_to() {
    for version in BOTH {
        let (session, mut server, mut listener) = held_when_cut(version).await;
        let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
        assert!(now(&mut in_flight).await.is_none());
        let first = server.expect_publish().await;
        session.cut();
        // No DISCONNECT: the server is to publish the will.
        server.expect_closed().await;
        settle().await;
        let SessionState::Held { cause, .. } = session.state() else {
            panic!("{:?}", session.state());
        };
        assert!(matches!(cause.cause, LostCause::Cut), "{cause:?}");
        // It stays so, and what is published waits.
        let mut queued = pin!(session.publish(publish(QoS::AtMostOnce)));
        assert!(now(&mut queued).await.is_none());
        sleep(SECOND * 3_600).await;
        assert!(matches!(session.state(), SessionState::Held { .. }));
        // Nothing is there to be cut.
        session.cut();
        settle().await;
        session.reconnect();
        let mut server = resume(&mut listener).await;
        let again = server.expect_publish().await;
        assert!(again.dup && again.packet_id == first.packet_id);
        server.puback(again.packet_id.unwrap()).await;
        in_flight.await.unwrap();
        queued.await.unwrap();
        settle().await;
        assert!(matches!(
            session.state(),
            SessionState::Connected { resumed: true, .. }
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_and_dropping_end_a_hold() {
    let (session, _server, _listener) = held_when_cut(Version::V5).await;
    session.cut();
    settle().await;
    session.disconnect().await.unwrap();
    assert!(matches!(session.state(), SessionState::Disconnected));

    let (session, _server, _listener) = held_when_cut(Version::V5).await;
    session.cut();
    settle().await;
    drop(session);
    settle().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_a_connection_that_takes_no_more_writes() {
    let (connector, mut listener) = mqtt_testkit::memory_with_capacity(256);
    let connector = SessionConnector::with_connector(connector, config(Version::V5)).unwrap();
    let (session, server) = open(&connector, &mut listener).await;
    for _ in 0..50 {
        session.publish(publish(QoS::AtMostOnce)).await.unwrap();
    }
    settle().await;
    let begin = Instant::now();
    session.cut();
    settle().await;
    assert!(matches!(session.state(), SessionState::Waiting { .. }));
    assert!(begin.elapsed() < SECOND);
    drop(server);
    let server = resume(&mut listener).await;
    assert!(
        begin.elapsed() < SECOND * 2,
        "the default plan comes back in a second"
    );
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_an_attempt_and_a_wait() {
    let (session, server, mut listener) = held_when_cut(Version::V5).await;
    drop(server);
    // Dialled, and not answered.
    let mut server = listener.accept().await;
    server.expect_connect().await;
    assert!(matches!(session.state(), SessionState::Connecting { .. }));
    session.cut();
    server.expect_closed().await;
    settle().await;
    assert!(matches!(session.state(), SessionState::Held { .. }));

    session.reconnect();
    drop(resume(&mut listener).await);
    settle().await;
    assert!(matches!(session.state(), SessionState::Waiting { .. }));
    session.cut();
    settle().await;
    assert!(matches!(session.state(), SessionState::Held { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_reconnect_ends_with_a_cut() {
    let (connector, mut listener) = connector(config(Version::V5).with_reconnect(None));
    let (session, _server) = open(&connector, &mut listener).await;
    let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut in_flight).await.is_none());
    session.cut();
    let lost = session.closed().await;
    assert!(matches!(lost.cause, LostCause::Cut), "{lost:?}");
    assert!(matches!(
        in_flight.await.unwrap_err(),
        PublishError::Lost(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn reconnect_cuts_a_delay_short_and_means_nothing_at_other_times() {
    let (connector, mut listener) = connector(config(Version::V5));
    let connector = connector.with_reconnect_policy(|_| Plan::retry(SECOND * 3_600));
    let (session, server) = open(&connector, &mut listener).await;
    session.reconnect();
    settle().await;
    drop(server);
    settle().await;
    // Said too early, it does not shorten this delay.
    assert!(matches!(session.state(), SessionState::Waiting { .. }));
    let begin = Instant::now();
    session.reconnect();
    let _server = resume(&mut listener).await;
    assert!(begin.elapsed() < SECOND);
}

/// Nobody has the session yet who could end the hold.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_being_opened_is_not_held() {
    let (connector, mut listener) = connector(config(Version::V5));
    let connector = connector.with_reconnect_policy(|_| Plan::Hold);
    let (session, ()) = tokio::join!(connector.connect(endpoint()), async {
        drop(listener.accept().await);
    });
    session.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn an_attempt_elsewhere_is_for_once() {
    let (connector, mut listener, dialled) = recorded(config(Version::V5));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let witness = seen.clone();
    let connector = connector.with_reconnect_policy(move |interruption| {
        witness.lock().unwrap().push((
            interruption.endpoint.host().unwrap().to_owned(),
            interruption.cause.closed_by(),
        ));
        match interruption.attempt {
            0 => Plan::retry(SECOND).at("mqtt://b".parse().unwrap()),
            1 => Plan::retry(SECOND),
            _ => Plan::GiveUp.at("mqtt://b".parse().unwrap()),
        }
    });
    let (session, server) = open(&connector, &mut listener).await;
    drop(server);
    let server = resume(&mut listener).await;
    settle().await;
    assert_eq!(session.connected_to(), "mqtt://b".parse().unwrap());
    assert_eq!(session.endpoint(), &endpoint());
    drop(server);
    drop(resume(&mut listener).await);
    let lost = session.closed().await;
    assert_eq!(lost.endpoint, endpoint());
    assert_eq!(
        dialled.endpoints(),
        [
            "mqtt://server.test:1883",
            "mqtt://b:1883",
            "mqtt://server.test:1883"
        ]
    );
    let server = ClosedBy::Server;
    assert_eq!(
        *seen.lock().unwrap(),
        [
            ("server.test".to_owned(), server),
            ("b".to_owned(), server),
            ("server.test".to_owned(), server)
        ]
    );
}

/// A server of 3.1.1 that is told the same client identifier twice closes the older connection
/// without a word: two clients of one name must not kick each other without a pause.
#[tokio::test(start_paused = true)]
async fn kicked_after_each_connack_the_delays_grow_all_the_same() {
    let (connector, mut listener) = connector(config(Version::V3));
    let (session, mut server) = open(&connector, &mut listener).await;
    let mut last = Instant::now();
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        drop(server);
        server = resume(&mut listener).await;
        assert_eq!(last.elapsed(), SECOND * seconds);
        last = Instant::now();
    }
    settle().await;
    assert!(!session.is_closed());
}

/// Whatever the moment, dropping what was asked for leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn the_waits_of_a_session_may_be_dropped() {
    let (session, _server, _listener) = held_when_cut(Version::V5).await;
    session.cut();
    settle().await;
    assert!(now(session.closed()).await.is_none());
    assert!(now(session.disconnect()).await.is_none());
    settle().await;
    assert!(session.is_closed());
}

/// The flag is the session's own: a cut of one leaves the others of the connector alone.
#[tokio::test(start_paused = true)]
async fn a_cut_is_of_one_session() {
    let (connector, mut listener) = connector(config(Version::V5));
    let (one, _server) = open(&connector, &mut listener).await;
    let (other, mut server) = open(&connector, &mut listener).await;
    one.cut();
    settle().await;
    let (outcome, ()) = tokio::join!(other.publish(publish(QoS::AtLeastOnce)), async {
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
    });
    outcome.unwrap();
}

/// The time without a connection makes none stable.
#[tokio::test(start_paused = true)]
async fn a_cut_between_connections_does_not_begin_the_count_anew() {
    let (connector, mut listener) = connector(config(Version::V5));
    let attempts: Arc<Mutex<Vec<u32>>> = Arc::default();
    let record = attempts.clone();
    let connector = connector.with_reconnect_policy(move |interruption| {
        record.lock().unwrap().push(interruption.attempt);
        Plan::retry(SECOND * 3_600)
    });
    let (session, server) = open(&connector, &mut listener).await;
    drop(server);
    for _ in 0..2 {
        sleep(SECOND * 60).await;
        session.cut();
    }
    settle().await;
    assert_eq!(*attempts.lock().unwrap(), [0, 1, 2]);
    // A connection that has held does.
    session.reconnect();
    let server = resume(&mut listener).await;
    sleep(SECOND * 60).await;
    drop(server);
    settle().await;
    assert_eq!(*attempts.lock().unwrap(), [0, 1, 2, 0]);
}
