//! Taken now, told later.

use std::pin::pin;

use mqtt_client::{
    Overflow, PublishError, Published, QoS, Version,
    proto::{UsageError, packet::ConnAck},
};

use crate::{
    accept,
    common::{config, now, open, open_with, settle},
    drained, full, named, open_reconnecting, outbox, reconnecting,
};

#[tokio::test(start_paused = true)]
async fn an_outcome_comes_after_the_message_was_taken() {
    let (session, mut server) = open(config(Version::V5)).await;
    let outcome = session.admit(named("t", "a")).await.unwrap();
    let mut outcome = pin!(outcome);
    assert!(now(&mut outcome).await.is_none());
    let id = server.expect_publish().await.packet_id.unwrap();
    server.puback(id).await;
    assert!(matches!(outcome.await, Ok(Published::Acknowledged { .. })));

    let at_most_once = named("t", "b").with_qos(QoS::AtMostOnce);
    let outcome = session.admit(at_most_once).await.unwrap().await;
    assert!(matches!(outcome, Ok(Published::Sent)));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_taken_is_sent_though_nobody_asks_for_its_outcome() {
    let (session, mut server, id) = full(outbox(8, Overflow::Wait)).await;
    drop(session.admit(named("t", "a")).await.unwrap());
    drop(session.publisher().try_admit(named("t", "b")).unwrap());
    assert_eq!(drained(&mut server, id).await, ["a", "b"]);
    assert_eq!(session.in_flight(), 0);
}

/// Withdrawn while no byte of it is written, completed by the session afterwards.
#[tokio::test(start_paused = true)]
async fn dropping_a_publish_withdraws_it_from_the_outbox() {
    let (session, mut server, id) = full(outbox(1, Overflow::Wait)).await;
    let mut next = Box::pin(session.publish(named("t", "next")));
    {
        let mut queued = Box::pin(session.publish(named("t", "queued")));
        assert!(now(&mut queued).await.is_none());
        assert!(now(&mut next).await.is_none());
        assert_eq!(
            (session.outbox().messages, session.outbox().waiting),
            (1, 1)
        );
    }
    settle().await;
    // Its place is the next one's.
    assert!(now(&mut next).await.is_none());
    assert_eq!(
        (session.outbox().messages, session.outbox().waiting),
        (1, 0)
    );
    let (outcome, sent) = tokio::join!(next, drained(&mut server, id));
    outcome.unwrap();
    assert_eq!(sent, ["next"]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_outlives_the_connection_and_the_session_on_the_server() {
    let (session, server, mut listener) =
        open_reconnecting(reconnecting(outbox(8, Overflow::Wait))).await;
    drop(server);
    settle().await;
    let queued = session.admit(named("t", "a")).await.unwrap();
    let at_most_once = named("t", "b").with_qos(QoS::AtMostOnce);
    let unacknowledged = session.admit(at_most_once).await.unwrap();
    let mut server = accept(&mut listener, false).await;
    let sent = server.expect_publish().await;
    assert_eq!(sent.message.payload, "a");
    server.puback(sent.packet_id.unwrap()).await;
    assert_eq!(server.expect_publish().await.message.payload, "b");
    assert!(matches!(queued.await, Ok(Published::Acknowledged { .. })));
    assert!(matches!(unacknowledged.await, Ok(Published::Sent)));
}

/// What the server of the next connection does not take is told when it is known.
#[tokio::test(start_paused = true)]
async fn a_queued_message_that_the_server_does_not_take_is_told() {
    let (session, server, mut listener) =
        open_reconnecting(reconnecting(outbox(8, Overflow::Wait))).await;
    drop(server);
    settle().await;
    let refused = named("t", "a").with_retain(true);
    let queued = session.admit(refused.clone()).await.unwrap();
    let mut server = listener.accept().await;
    let mut connack = ConnAck::accepted();
    connack.properties.retain_available = Some(false);
    server.accept_with(connack.clone()).await;
    let error = queued.await.unwrap_err();
    assert!(
        matches!(error, PublishError::Usage(UsageError::RetainNotSupported)),
        "{error:?}"
    );

    // While it is known the message is not taken at all.
    let config = crate::narrow(outbox(8, Overflow::Wait));
    let (session, mut server) = open_with(config, connack).await;
    drop(session.admit(named("t", "first")).await.unwrap());
    server.expect_publish().await;
    assert!(session.admit(refused).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_session_is_told_to_all_that_wait() {
    let (session, server, _) = full(outbox(1, Overflow::Wait)).await;
    let in_flight = session.in_flight();
    let queued = session.admit(named("t", "queued")).await.unwrap();
    let mut waiting = pin!(session.publish(named("t", "waiting")));
    assert!(now(&mut waiting).await.is_none());
    drop(server);
    assert_eq!(in_flight, 1);
    for outcome in [queued.await, waiting.await] {
        assert!(matches!(outcome, Err(PublishError::NotSent(_))));
    }
    assert_eq!(session.outbox().messages, 0);
}
