//! Sessions that outlive their connections.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use common::{BOTH, connector, endpoint, now, publish, report, settle};
use mqtt_client::{
    LostCause, Plan, Publish, PublishError, Published, QoS, ReasonCode, ReconnectConfig, Session,
    SessionConfig, SessionState, Subscribe, SubscribeError, Subscription, Version,
    pool::Limit,
    proto::packet::{Ack, ConnAck, Disconnect, Packet},
};
use mqtt_testkit::{MemoryListener, ScriptedServer};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// A session that the server keeps for an hour, and that comes back after exactly 1, 2, 4 ... s.
fn config(version: Version) -> SessionConfig {
    SessionConfig::new("gateway")
        .with_version(version)
        .with_clean_start(version == Version::V5)
        .with_session_expiry(Limit::After(SECOND * 3_600))
        .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)))
}

async fn open(config: SessionConfig) -> (Session, ScriptedServer, MemoryListener) {
    let (connector, mut listener) = connector(config);
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    (session.unwrap(), server, listener)
}

/// Accepts the next connection: with the session, or without.
async fn accept(listener: &mut MemoryListener, session_present: bool) -> ScriptedServer {
    let mut server = listener.accept().await;
    let mut connack = ConnAck::accepted();
    connack.session_present = session_present;
    let connect = server.accept_with(connack).await;
    assert!(!connect.clean_start, "it goes on with its session");
    server
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn a_publish_outlives_its_connection_where_the_server_keeps_the_session() {
    for version in BOTH {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let (session, mut server, mut listener) = open(config(version)).await;
            let mut publishing = pin!(session.publish(publish(qos)));
            assert!(now(&mut publishing).await.is_none());
            let first = server.expect_publish().await;
            drop(server);
            let (outcome, ()) = tokio::join!(publishing, async {
                let mut server = accept(&mut listener, true).await;
                let again = server.expect_publish().await;
                assert!(again.dup && again.packet_id == first.packet_id);
                if qos == QoS::AtLeastOnce {
                    server.puback(again.packet_id.unwrap()).await;
                } else {
                    let id = again.packet_id.unwrap();
                    server.send(Packet::PubRec(Ack::new(id))).await;
                    assert!(matches!(server.recv().await, Packet::PubRel(_)));
                    server.send(Packet::PubComp(Ack::new(id))).await;
                }
                settle().await;
                drop(server);
            });
            assert!(matches!(outcome.unwrap(), Published::Acknowledged { .. }));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_publish_in_flight_is_lost_with_the_session_and_one_that_waits_is_not() {
    let (session, mut server, mut listener) =
        open(config(Version::V5).with_max_in_flight(1_u16)).await;
    let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
    let mut waiting = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut in_flight).await.is_none() && now(&mut waiting).await.is_none());
    server.expect_publish().await;
    drop(server);
    let (in_flight, waiting, ()) = tokio::join!(in_flight, waiting, async {
        let mut server = accept(&mut listener, false).await;
        let published = server.expect_publish().await;
        assert!(!published.dup);
        server.puback(published.packet_id.unwrap()).await;
        settle().await;
    });
    let error = in_flight.unwrap_err();
    assert!(matches!(error, PublishError::Lost(_)), "{error:?}");
    assert!(
        report(&error).ends_with("the server has lost the session"),
        "{}",
        report(&error)
    );
    assert!(matches!(waiting.unwrap(), Published::Acknowledged { .. }));
}

/// Without an expiry the session ends with its connection, and nothing hangs.
#[tokio::test(start_paused = true)]
async fn without_an_expiry_what_was_in_flight_is_lost_at_once() {
    let config = config(Version::V5).with_session_expiry(Limit::After(Duration::ZERO));
    let (session, mut server, mut listener) = open(config).await;
    let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut in_flight).await.is_none());
    server.expect_publish().await;
    let cut = Instant::now();
    drop(server);
    let error = in_flight.await.unwrap_err();
    assert!(matches!(error, PublishError::Lost(_)), "{error:?}");
    assert_eq!(cut.elapsed(), Duration::ZERO);
    let mut server = listener.accept().await;
    assert!(server.accept().await.clean_start);
    session.publish(publish(QoS::AtMostOnce)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_published_while_there_is_no_connection_waits_for_the_next() {
    let (session, server, mut listener) = open(config(Version::V5)).await;
    drop(server);
    settle().await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        // Dropped before it was sent, it is withdrawn.
        assert!(now(session.publish(publish(qos))).await.is_none());
    }
    let (outcome, mut server) = tokio::join!(session.publish(publish(QoS::AtMostOnce)), async {
        accept(&mut listener, true).await
    });
    outcome.unwrap();
    assert_eq!(server.expect_publish().await.message.qos, QoS::AtMostOnce);
    server.expect_silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_asked_for_again_where_the_session_is_lost() {
    for version in BOTH {
        let (session, mut server, mut listener) = open(config(version)).await;
        let mut streams = Vec::new();
        for number in 0..20 {
            let subscribe = Subscribe::new(format!("devices/{number}")).unwrap();
            let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
            streams.push(stream.unwrap());
        }
        drop(server);
        let mut server = accept(&mut listener, false).await;
        let mut filters = Vec::new();
        while filters.len() < 20 {
            let subscribe = server.grant().await;
            assert!(subscribe.filters.len() <= 8, "{}", subscribe.filters.len());
            filters.extend(
                subscribe
                    .filters
                    .into_iter()
                    .map(|filter| filter.filter.to_string()),
            );
        }
        let expected: Vec<_> = (0..20).map(|number| format!("devices/{number}")).collect();
        assert_eq!(filters, expected);
        server.publish("devices/7", "on", QoS::AtMostOnce, 0).await;
        assert_eq!(streams[7].recv().await.unwrap().payload, "on");
        server.expect_silence(SECOND).await;
    }
}

/// With five packets to ask for twenty subscriptions one by one it would be a flood.
#[tokio::test(start_paused = true)]
async fn no_more_than_four_subscribes_wait_for_an_answer() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut streams = Vec::new();
    for number in 0..50 {
        let subscribe = Subscribe::new(format!("devices/{number}")).unwrap();
        let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
        streams.push(stream.unwrap());
    }
    drop(server);
    let mut server = accept(&mut listener, false).await;
    for _ in 0..4 {
        server.expect_subscribe().await;
    }
    server.expect_silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_the_session_is_not_asked_again() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let subscribe = Subscribe::new("a/+").unwrap();
    let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
    drop(server);
    let mut server = accept(&mut listener, true).await;
    server.expect_silence(SECOND).await;
    server.publish("a/b", "on", QoS::AtLeastOnce, 1).await;
    assert_eq!(stream.unwrap().recv().await.unwrap().payload, "on");
    server.expect_puback(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_refused_later_ends_and_says_why() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut streams = Vec::new();
    for filter in ["good", "bad", "fine"] {
        let subscribe = Subscribe::new(filter).unwrap();
        let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
        streams.push(stream.unwrap());
    }
    drop(server);
    let mut server = accept(&mut listener, false).await;
    let subscribe = server.expect_subscribe().await;
    assert_eq!(subscribe.filters.len(), 3);
    let codes = vec![
        ReasonCode::GRANTED_QOS_2,
        ReasonCode::NOT_AUTHORIZED,
        ReasonCode::GRANTED_QOS_2,
    ];
    server.suback(subscribe.packet_id, codes).await;
    assert_eq!(streams[1].recv().await, None);
    let refused = streams[1].refused().unwrap();
    assert!(
        matches!(&refused, SubscribeError::Refused { reason_codes, .. }
            if *reason_codes == [ReasonCode::NOT_AUTHORIZED]),
        "{refused:?}"
    );
    for index in [0, 2] {
        assert!(streams[index].refused().is_none());
    }
    server.publish("fine", "on", QoS::AtMostOnce, 0).await;
    assert_eq!(streams[2].recv().await.unwrap().payload, "on");
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_that_was_cut_off_is_answered_on_the_next_connection() {
    for session_present in [true, false] {
        let (session, mut server, mut listener) = open(config(Version::V5)).await;
        let mut subscribing = pin!(session.subscribe(Subscribe::new("a/+").unwrap()));
        assert!(now(&mut subscribing).await.is_none());
        server.expect_subscribe().await;
        drop(server);
        let (stream, mut server) = tokio::join!(subscribing, async {
            let mut server = accept(&mut listener, session_present).await;
            server.grant().await;
            server
        });
        server.publish("a/b", "on", QoS::AtMostOnce, 0).await;
        assert_eq!(stream.unwrap().recv().await.unwrap().payload, "on");
    }
}

/// What is sent again fills the outbound buffer, and nobody else asks later.
#[tokio::test(start_paused = true)]
async fn a_subscribe_is_asked_again_behind_any_number_of_publishes() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut publishes = Vec::new();
    for _ in 0..80 {
        let publish = Publish::new("a/b", vec![0; 1_024])
            .unwrap()
            .with_qos(QoS::AtLeastOnce);
        let mut publishing = Box::pin(session.publish(publish));
        assert!(now(&mut publishing).await.is_none());
        server.expect_publish().await;
        publishes.push(publishing);
    }
    let mut subscribing = pin!(session.subscribe(Subscribe::new("a/+").unwrap()));
    assert!(now(&mut subscribing).await.is_none());
    settle().await;
    drop(server);
    let mut server = accept(&mut listener, true).await;
    for _ in 0..80 {
        assert!(server.expect_publish().await.dup);
    }
    server.grant().await;
    subscribing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unsubscribe_is_made_up_for_on_the_next_connection() {
    for session_present in [true, false] {
        let (session, mut server, mut listener) = open(config(Version::V5)).await;
        let (stream, _) = tokio::join!(
            session.subscribe(Subscribe::new("a/+").unwrap()),
            server.grant()
        );
        drop(server);
        settle().await;
        let (left, mut server) = tokio::join!(stream.unwrap().unsubscribe(), async {
            let mut server = accept(&mut listener, session_present).await;
            if session_present {
                let unsubscribe = server.expect_unsubscribe().await;
                server.unsuback(unsubscribe.packet_id, 1).await;
            }
            server
        });
        left.unwrap();
        server.expect_silence(SECOND).await;
    }
}

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

/// A reader that has stopped holds as much as the server may send, however often it comes back.
#[tokio::test(start_paused = true)]
async fn unread_messages_do_not_add_up_over_connections() {
    for session_present in [true, false] {
        let config = config(Version::V5).with_receive_maximum(Some(10));
        let (session, mut server, mut listener) = open(config).await;
        let subscribe = Subscribe::new("a/+").unwrap().with_max_messages(15);
        let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
        for _ in 0..5 {
            for id in 1..=10 {
                server.publish("a/b", "on", QoS::AtLeastOnce, id).await;
            }
            settle().await;
            drop(server);
            server = accept(&mut listener, session_present).await;
            if !session_present {
                server.grant().await;
            }
        }
        settle().await;
        let mut stream = stream.unwrap();
        let mut held = 0;
        while now(stream.recv()).await.is_some() {
            held += 1;
        }
        assert_eq!(held, if session_present { 0 } else { 15 });
    }
}

async fn subscribed(session: &Session, server: &mut ScriptedServer, filter: &str) -> Subscription {
    let subscribe = Subscribe::new(filter.to_owned()).unwrap();
    let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
    stream.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_refused_later_holds_up_no_acknowledgement() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut good = subscribed(&session, &mut server, "a/+").await;
    let mut bad = subscribed(&session, &mut server, "a/#").await;
    drop(server);
    let mut server = accept(&mut listener, false).await;
    let subscribe = server.expect_subscribe().await;
    let codes = vec![ReasonCode::GRANTED_QOS_2, ReasonCode::NOT_AUTHORIZED];
    server.suback(subscribe.packet_id, codes).await;
    assert_eq!(bad.recv().await, None);
    server.publish("a/b", "on", QoS::AtLeastOnce, 1).await;
    assert_eq!(good.recv().await.unwrap().payload, "on");
    server.expect_puback(1).await;
    assert_eq!(bad.recv().await, None);
}

/// What a session holds, as far as its `Debug` shows it.
fn held(session: &Session, what: &str) -> usize {
    format!("{session:#?}").matches(what).count()
}

#[tokio::test(start_paused = true)]
async fn subscribes_that_were_cut_off_and_given_up_leave_nothing() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    for while_asked in [false, true] {
        let mut subscribing = Box::pin(session.subscribe(Subscribe::new("a/+").unwrap()));
        assert!(now(&mut subscribing).await.is_none());
        server.expect_subscribe().await;
        drop(server);
        settle().await;
        if !while_asked {
            drop(subscribing);
            server = accept(&mut listener, true).await;
        } else {
            server = accept(&mut listener, true).await;
            let subscribe = server.expect_subscribe().await;
            drop(subscribing);
            server
                .suback(subscribe.packet_id, vec![ReasonCode::GRANTED_QOS_2])
                .await;
        }
        let unsubscribe = server.expect_unsubscribe().await;
        server.unsuback(unsubscribe.packet_id, 1).await;
        settle().await;
        assert_eq!(held(&session, "Abandoned"), 0, "{session:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_several_streams_leave_nothing_when_they_are_forgotten() {
    for session_present in [true, false] {
        let (session, mut server, mut listener) = open(config(Version::V5)).await;
        let _streams = [
            subscribed(&session, &mut server, "a/+").await,
            subscribed(&session, &mut server, "a/#").await,
        ];
        for _ in 0..5 {
            server.publish("a/b", "on", QoS::AtLeastOnce, 1).await;
            settle().await;
            drop(server);
            server = accept(&mut listener, session_present).await;
            if !session_present {
                server.grant().await;
            }
        }
        settle().await;
        let shared = format!("{session:?}");
        let shared = shared.split("shared_acks: ").nth(1).unwrap();
        let shared = shared.split("driver:").next().unwrap();
        // One for each loss of the session that the queues still hold would be fine.
        assert!(shared.matches("arrival").count() <= 1, "{shared}");
    }
}

/// Answers out of order: a key that a dropped subscription had is another's by then.
#[tokio::test(start_paused = true)]
async fn a_subscription_in_the_place_of_a_dropped_one_is_asked_for_once() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut streams = Vec::new();
    for number in 0..40 {
        streams.push(subscribed(&session, &mut server, &format!("devices/{number}")).await);
    }
    drop(server);
    let mut server = accept(&mut listener, false).await;
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(server.expect_subscribe().await);
    }
    drop(streams.pop());
    server.expect_unsubscribe().await;
    let mut subscribing = pin!(session.subscribe(Subscribe::new("new").unwrap()));
    assert!(now(&mut subscribing).await.is_none());
    let new = server.expect_subscribe().await;
    for subscribe in asked {
        let codes = vec![ReasonCode::GRANTED_QOS_2; subscribe.filters.len()];
        server.suback(subscribe.packet_id, codes).await;
    }
    let rest = server.expect_subscribe().await;
    let filters: Vec<_> = rest
        .filters
        .iter()
        .map(|filter| filter.filter.to_string())
        .collect();
    let codes = vec![ReasonCode::GRANTED_QOS_2; filters.len()];
    server.suback(rest.packet_id, codes).await;
    settle().await;
    let early = now(&mut subscribing).await;
    // The key of its answer would be that of this publish.
    let mut publishing = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut publishing).await.is_none());
    server
        .suback(new.packet_id, vec![ReasonCode::GRANTED_QOS_2])
        .await;
    settle().await;
    assert!(now(&mut publishing).await.is_none());
    assert!(early.is_none() && filters.len() == 7, "{filters:?}");
    subscribing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_the_next_server_does_not_take_costs_no_other() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut good = subscribed(&session, &mut server, "good").await;
    let mut bad = subscribed(&session, &mut server, "bad/#").await;
    let fine = subscribed(&session, &mut server, "fine").await;
    drop(server);
    let mut server = listener.accept().await;
    let mut connack = ConnAck::accepted();
    connack.properties.wildcard_subscription_available = Some(false);
    server.accept_with(connack).await;
    assert_eq!(bad.recv().await, None);
    assert!(matches!(bad.refused(), Some(SubscribeError::Usage(_))));
    server.grant().await;
    server.grant().await;
    assert!(good.refused().is_none() && fine.refused().is_none());
    server.publish("good", "on", QoS::AtMostOnce, 0).await;
    assert_eq!(good.recv().await.unwrap().payload, "on");
}

/// The server that did not get its CONNACK through may have begun a new session.
#[tokio::test(start_paused = true)]
async fn a_session_is_not_trusted_after_a_connack_that_did_not_come() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let _stream = subscribed(&session, &mut server, "a/+").await;
    drop(server);
    let mut server = listener.accept().await;
    assert!(matches!(server.recv().await, Packet::Connect(_)));
    drop(server);
    let mut server = accept(&mut listener, true).await;
    let asked = server.grant().await;
    assert_eq!(asked.filters.len(), 1);
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

/// Answers as a server would, for a time; then it is gone. Never, if the time is `None`.
#[expect(clippy::wildcard_enum_match_arm, reason = "all else needs no answer")]
async fn serve(server: &mut ScriptedServer, lifetime: Option<Duration>) {
    let gone = async {
        match lifetime {
            Some(lifetime) => sleep(lifetime).await,
            None => std::future::pending().await,
        }
    };
    let answering = async {
        while let Some(packet) = server.next().await {
            if lifetime.is_some() && fastrand::u8(..4) == 0 {
                continue;
            }
            match packet {
                Packet::Publish(publish) => {
                    let id = publish.packet_id;
                    match (publish.message.qos, id) {
                        (QoS::AtLeastOnce, Some(id)) => server.puback(id).await,
                        (QoS::ExactlyOnce, Some(id)) => {
                            server.send(Packet::PubRec(Ack::new(id))).await;
                        }
                        _ => {}
                    }
                }
                Packet::PubRel(ack) => server.send(Packet::PubComp(Ack::new(ack.packet_id))).await,
                Packet::Subscribe(subscribe) => {
                    let codes = subscribe.filters.iter();
                    let codes = codes.map(|_| match fastrand::u8(..16) {
                        0 => ReasonCode::NOT_AUTHORIZED,
                        _ => ReasonCode::GRANTED_QOS_2,
                    });
                    let codes = codes.collect();
                    server.suback(subscribe.packet_id, codes).await;
                }
                Packet::Unsubscribe(it) => server.unsuback(it.packet_id, it.filters.len()).await,
                Packet::PingReq => server.send(Packet::PingResp).await,
                Packet::Disconnect(_) => return,
                _ => {}
            }
        }
    };
    tokio::select! { () = gone => {}, () = answering => {} }
}

/// One of many who ask for something, and may lose their patience at any time.
async fn ask(session: Session, number: u32) {
    for _ in 0..10 {
        sleep(Duration::from_millis(fastrand::u64(..2_000))).await;
        let patience = match fastrand::u8(..2) {
            0 => Duration::from_millis(fastrand::u64(..5_000)),
            _ => Duration::from_secs(100_000),
        };
        let asking = async {
            if fastrand::bool() {
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
                let qos = fastrand::choice(qos).expect("there are three");
                let _ = session.publish(publish(qos)).await;
                return;
            }
            let subscribe = Subscribe::new(format!("devices/{}", number % 30)).unwrap();
            let Ok(mut stream) = session.subscribe(subscribe).await else {
                return;
            };
            let patience = Duration::from_millis(fastrand::u64(..8_000));
            let _ = tokio::time::timeout(patience, stream.recv()).await;
            if fastrand::bool() {
                let _ = stream.unsubscribe().await;
            }
        };
        let begin = Instant::now();
        let _ = tokio::time::timeout(patience, asking).await;
        assert!(begin.elapsed() < Duration::from_secs(10_000), "no answer");
    }
}

/// Over any sequence of cuts, failed attempts, lost sessions and lost patience.
#[tokio::test(start_paused = true)]
async fn everything_asked_is_answered_and_nothing_is_left() {
    for round in 0..40 {
        fastrand::seed(round);
        let version = BOTH[fastrand::usize(..2)];
        let mut config = config(version).with_max_in_flight(4_u16);
        if fastrand::u8(..3) == 0 {
            config = config
                .with_clean_start(true)
                .with_session_expiry(Limit::After(Duration::ZERO));
        }
        let clean = version == Version::V3 && config.clean_start
            || config.session_expiry == Limit::After(Duration::ZERO);
        let (session, mut server, mut listener) = open(config).await;
        let mut asking = tokio::task::JoinSet::new();
        for number in 0..60 {
            asking.spawn(ask(session.clone(), number));
        }
        let serving = tokio::spawn(async move {
            for _ in 0..fastrand::u8(5..15) {
                let lifetime = Duration::from_millis(fastrand::u64(..3_000));
                serve(&mut server, Some(lifetime)).await;
                drop(server);
                server = listener.accept().await;
                if fastrand::bool() {
                    // Gone with the CONNECT.
                    if fastrand::bool() {
                        server.recv().await;
                    }
                    drop(server);
                    server = listener.accept().await;
                }
                let mut connack = ConnAck::accepted();
                connack.session_present = !clean && fastrand::bool();
                server.accept_with(connack).await;
            }
            serve(&mut server, None).await;
        });
        let leaves = fastrand::u8(..3) == 0;
        if leaves {
            sleep(Duration::from_millis(fastrand::u64(..20_000))).await;
            let left = tokio::time::timeout(SECOND * 2, session.disconnect()).await;
            let _ = left.expect("it leaves in time");
        }
        while let Some(result) = asking.join_next().await {
            result.unwrap_or_else(|error| panic!("round {round}: {error} {session:#?}"));
        }
        if leaves {
            serving.abort();
        } else {
            sleep(SECOND * 1_000).await;
            assert_eq!(session.in_flight(), 0, "round {round}");
        }
        let shown = format!("{session:#?}");
        for empty in [
            "waiters: {}",
            "subscriptions: {}",
            "shared_acks: None",
            "restore: None",
        ] {
            assert!(shown.contains(empty), "round {round}: {empty}: {shown}");
        }
        if !leaves {
            session.disconnect().await.unwrap();
            serving.await.unwrap();
        }
        drop(session);
        settle().await;
        assert_eq!(tasks(), 0, "round {round}");
    }
}
