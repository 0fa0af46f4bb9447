//! How much is taken, and what happens to one more.

use std::pin::pin;

use mqtt_client::{Delivery, OutboxConfig, Overflow, PublishError, QoS, SessionConfig};

use crate::{
    common::{now, settle},
    drained, full, named, outbox,
};

#[tokio::test(start_paused = true)]
async fn by_default_one_more_waits_and_its_message_stays_its_callers() {
    let (session, mut server, id) = full(outbox(2, Overflow::Wait)).await;
    let publisher = session.publisher();
    for payload in ["a", "b"] {
        drop(publisher.admit(named("t", payload)).await.unwrap());
    }
    let mut waits = pin!(publisher.admit(named("t", "c")));
    assert!(now(&mut waits).await.is_none());
    assert_eq!(session.outbox().messages, 2);
    assert_eq!(session.outbox().waiting, 1);
    let error = publisher.try_admit(named("t", "d")).unwrap_err();
    assert!(matches!(error, PublishError::Full));
    assert_eq!(session.outbox().waiting, 1);

    let (admitted, sent) = tokio::join!(waits, drained(&mut server, id));
    drop(admitted.unwrap());
    assert_eq!(sent, ["a", "b", "c"]);
    assert_eq!(session.outbox(), Default::default());
}

#[tokio::test(start_paused = true)]
async fn one_more_is_refused_where_it_is_not_to_wait() {
    let (session, mut server, id) = full(outbox(1, Overflow::Reject)).await;
    let kept = session.admit(named("t", "a")).await.unwrap();
    let error = session.publish(named("t", "b")).await.unwrap_err();
    assert!(matches!(error, PublishError::Full));
    assert_eq!(error.delivery(), Delivery::NotSent);
    assert_eq!(session.outbox().rejected, 1);
    let (outcome, sent) = tokio::join!(kept, drained(&mut server, id));
    outcome.unwrap();
    assert_eq!(sent, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_gives_way_and_is_told() {
    let (session, mut server, id) = full(outbox(2, Overflow::DropOldest)).await;
    let mut admitted = Vec::new();
    for payload in ["a", "b", "c", "d"] {
        admitted.push(session.admit(named("t", payload)).await.unwrap());
    }
    assert_eq!(session.outbox().displaced, 2);
    assert_eq!(drained(&mut server, id).await, ["c", "d"]);
    let mut outcomes = Vec::new();
    for outcome in admitted {
        outcomes.push(outcome.await);
    }
    for gone in &outcomes[..2] {
        let error = gone.as_ref().unwrap_err();
        assert!(matches!(error, PublishError::Displaced), "{error:?}");
        assert_eq!(error.delivery(), Delivery::NotSent);
    }
    assert!(outcomes[2].is_ok() && outcomes[3].is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_newest_gives_way_without_holding_its_producer_up() {
    let (session, mut server, id) = full(outbox(1, Overflow::DropNewest)).await;
    let kept = session.admit(named("t", "a")).await.unwrap();
    let outcome = session.admit(named("t", "b")).await.unwrap().await;
    assert!(matches!(outcome, Err(PublishError::Displaced)));
    assert_eq!(session.outbox().displaced, 1);
    assert_eq!(drained(&mut server, id).await, ["a"]);
    kept.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_latest_of_a_topic_takes_the_place_of_the_one_before() {
    let (session, mut server, id) = full(outbox(2, Overflow::KeepLatest)).await;
    let before = session.admit(named("a", "a1")).await.unwrap();
    for (topic, payload) in [("b", "b1"), ("a", "a2"), ("a", "a3")] {
        drop(session.admit(named(topic, payload)).await.unwrap());
    }
    assert!(matches!(before.await, Err(PublishError::Displaced)));
    // One topic more than there is room for: the oldest goes.
    drop(session.admit(named("c", "c1")).await.unwrap());
    assert_eq!(session.outbox().messages, 2);
    assert_eq!(session.outbox().displaced, 3);
    assert_eq!(drained(&mut server, id).await, ["b1", "c1"]);
}

/// What takes a place is not taken back by the caller who had it before.
#[tokio::test(start_paused = true)]
async fn dropping_what_was_displaced_withdraws_nothing_else() {
    let (session, mut server, id) = full(outbox(2, Overflow::KeepLatest)).await;
    let publisher = session.publisher();
    {
        let mut before = pin!(publisher.publish(named("a", "a1")));
        assert!(now(&mut before).await.is_none());
        drop(session.admit(named("a", "a2")).await.unwrap());
    }
    assert_eq!(drained(&mut server, id).await, ["a2"]);
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded_and_a_message_larger_than_that_waits_alone() {
    let config = OutboxConfig::default()
        .with_max_bytes(10_usize)
        .with_overflow(Overflow::Reject);
    let (session, mut server, id) = full(config).await;
    let large = session.admit(named("t", "x".repeat(20))).await.unwrap();
    assert_eq!(session.outbox().bytes, 21);
    assert!(session.admit(named("t", "y")).await.is_err());
    let (outcome, sent) = tokio::join!(large, drained(&mut server, id));
    outcome.unwrap();
    assert_eq!(sent, ["x".repeat(20)]);
    assert_eq!(session.outbox().bytes, 0);
}

/// Where the buffer is full and so is the outbox.
#[tokio::test(start_paused = true)]
async fn qos_0_does_not_take_the_place_of_more() {
    let (session, mut server, id) = full(outbox(2, Overflow::DropOldest)).await;
    for payload in ["a", "b"] {
        drop(session.admit(named("t", payload)).await.unwrap());
    }
    // With room in the buffer it passes by.
    let at_most_once = |payload: &str| named("t", payload).with_qos(QoS::AtMostOnce);
    session.publish(at_most_once("now")).await.unwrap();
    assert_eq!(server.expect_publish().await.message.payload, "now");
    // Without a connection nothing does.
    let (session, _server, _) = without_connection(2).await;
    drop(session.admit(named("t", "a")).await.unwrap());
    drop(session.admit(at_most_once("0")).await.unwrap());
    drop(session.admit(named("t", "b")).await.unwrap());
    let outcome = session.publish(at_most_once("0")).await;
    assert!(matches!(outcome, Err(PublishError::Displaced)));
    assert_eq!(session.outbox().messages, 2);
    assert_eq!(drained(&mut server, id).await, ["a", "b"]);
}

async fn without_connection(
    max_messages: usize,
) -> (
    mqtt_client::Session,
    mqtt_testkit::MemoryListener,
    SessionConfig,
) {
    let config = crate::reconnecting(outbox(max_messages, Overflow::DropOldest));
    let (session, server, listener) = crate::open_reconnecting(config.clone()).await;
    drop(server);
    settle().await;
    (session, listener, config)
}

#[tokio::test(start_paused = true)]
async fn bad_bounds_are_refused_all_at_once() {
    let outbox = OutboxConfig::default()
        .with_max_bytes(0_usize)
        .with_max_age(std::time::Duration::ZERO);
    let error = SessionConfig::new("gateway")
        .with_outbox(outbox)
        .validate()
        .unwrap_err()
        .to_string();
    for path in ["session.outbox.max_bytes", "session.outbox.max_age"] {
        assert!(error.contains(path), "{error}");
    }
}
