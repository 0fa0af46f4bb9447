//! Those that wait to be taken: none is forgotten, and none runs while there is nothing for it.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use mqtt_client::{
    OutboxConfig, Overflow, PublishError, QoS,
    proto::{UsageError, packet::ConnAck},
};
use tower::Service;

use crate::{
    SECOND, accept,
    common::{now, settle},
    drained, full, kept, named, open_reconnecting, outbox, reconnecting,
};

/// A future, and whether it was woken since it was last polled.
struct Task<F>(Pin<Box<F>>, Arc<Woken>);

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<F: Future> Task<F> {
    fn new(future: F) -> Self {
        Self(Box::pin(future), Arc::default())
    }

    fn poll(&mut self) -> Poll<F::Output> {
        self.1.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.1.clone());
        self.0.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn is_woken(&self) -> bool {
        self.1.0.load(Ordering::Relaxed)
    }
}

/// There is room, but not for as much as it has to say.
#[tokio::test(start_paused = true)]
async fn a_large_message_sleeps_until_there_is_room_for_all_of_it() {
    let config = OutboxConfig::default().with_max_bytes(10_usize);
    let (session, mut server, id) = full(config).await;
    drop(session.admit(named("t", "12345")).await.unwrap());
    let publisher = session.publisher();
    let mut large = Task::new(publisher.publish(named("t", "12345678")));
    let mut small = Task::new(publisher.publish(named("t", "1").with_qos(QoS::AtMostOnce)));
    assert!(large.poll().is_pending() && !large.is_woken());
    assert!(small.poll().is_ready(), "the buffer has room for it");
    assert!(!large.is_woken());

    server.puback(id).await;
    settle().await;
    assert!(large.is_woken(), "the one before is sent");
    assert!(large.poll().is_pending());
    assert_eq!(server.expect_publish().await.message.payload, "1");
    let id = server.expect_publish().await.packet_id.unwrap();
    assert_eq!(drained(&mut server, id).await, ["12345678"]);
    assert!(large.poll().is_ready());
}

/// One that the server of the next connection does not take leaves the line to the others.
#[tokio::test(start_paused = true)]
async fn one_that_is_refused_when_its_turn_comes_leaves_its_place() {
    let config = kept(outbox(2, Overflow::Wait)).with_max_in_flight(1_u16);
    let (session, mut server, mut listener) = open_reconnecting(config).await;
    for payload in ["a", "b", "c"] {
        drop(session.admit(named("t", payload)).await.unwrap());
    }
    server.expect_publish().await;
    drop(server);
    settle().await;
    let publisher = session.publisher();
    let mut retained = Task::new(publisher.publish(named("t", "x").with_retain(true)));
    let mut behind = Task::new(publisher.publish(named("t", "d")));
    assert!(retained.poll().is_pending() && behind.poll().is_pending());

    let mut server = listener.accept().await;
    let mut connack = ConnAck::accepted();
    connack.session_present = true;
    connack.properties.retain_available = Some(false);
    server.accept_with(connack).await;
    let id = server.expect_publish().await.packet_id.unwrap();
    server.puback(id).await;
    settle().await;
    let refused = retained.0.await;
    assert!(
        matches!(
            refused,
            Err(PublishError::Usage(UsageError::RetainNotSupported))
        ),
        "{refused:?}"
    );
    let (outcome, _) = tokio::join!(
        async { tokio::time::timeout(SECOND * 60, behind.0).await },
        async {
            let id = server.expect_publish().await.packet_id.unwrap();
            drained(&mut server, id).await
        }
    );
    outcome.expect("it is not stuck").unwrap();
    assert_eq!(session.outbox(), Default::default());
}

/// Where publishes do not wait, `poll_ready` does not either.
#[tokio::test(start_paused = true)]
async fn a_service_that_makes_nobody_wait_is_always_ready() {
    for overflow in [Overflow::Reject, Overflow::DropOldest, Overflow::DropNewest] {
        for max_messages in [0, 1] {
            let (session, mut server, id) = full(outbox(max_messages, overflow)).await;
            let mut publisher = session.publisher();
            for _ in 0..3 {
                let ready = std::future::poll_fn(|cx| publisher.poll_ready(cx));
                let ready = now(pin!(ready)).await;
                assert!(matches!(ready, Some(Ok(()))), "{overflow:?} {max_messages}");
                let _ = now(pin!(publisher.call(named("t", "more")))).await;
            }
            drained(&mut server, id).await;
            let ready = std::future::poll_fn(|cx| publisher.poll_ready(cx));
            assert!(matches!(now(ready).await, Some(Ok(()))));
        }
    }
}

/// Messages that have waited for too long do not keep others out, though nobody looks after them.
#[tokio::test(start_paused = true)]
async fn room_that_is_taken_by_expired_messages_is_found() {
    let config = reconnecting(outbox(1, Overflow::Wait));
    let (session, server, mut listener) = open_reconnecting(config).await;
    drop(server);
    settle().await;
    let old = named("t", "old").with_max_age(Duration::from_millis(500));
    drop(session.admit(old).await.unwrap());
    let publisher = session.publisher();
    let mut first = Task::new(publisher.admit(named("t", "first")));
    assert!(first.poll().is_pending());
    tokio::time::sleep(SECOND * 6 / 10).await;
    assert!(first.is_woken(), "there is room now");
    assert!(first.poll().is_ready());
    assert_eq!(session.outbox().expired, 1);
    let mut server = accept(&mut listener, false).await;
    assert_eq!(server.expect_publish().await.message.payload, "first");
}

/// What expires may come after those who wait for room, past them.
#[tokio::test(start_paused = true)]
async fn room_that_expires_later_than_one_began_to_wait_is_found_as_well() {
    let config = OutboxConfig::default().with_max_bytes(10_usize);
    let (session, server, _listener) = open_reconnecting(reconnecting(config)).await;
    drop(server);
    settle().await;
    let publisher = session.publisher();
    let mut given_up = Task::new(publisher.publish(named("t", "12345")));
    let mut large = Task::new(publisher.publish(named("t", "1234567")));
    assert!(given_up.poll().is_pending() && large.poll().is_pending());
    let small = named("t", "12").with_qos(QoS::AtMostOnce);
    let small = small.with_max_age(Duration::from_millis(500));
    drop(session.admit(small).await.unwrap());
    assert!(large.is_woken() && large.poll().is_pending());
    drop(given_up);
    assert_eq!(session.outbox().bytes, 3);
    tokio::time::sleep(SECOND * 6 / 10).await;
    assert!(large.is_woken() && large.poll().is_pending());
    assert_eq!(session.outbox().bytes, 8);
}

/// A thread of the program's own has no timers, and needs none where nothing is waited for.
#[tokio::test(start_paused = true)]
async fn messages_are_taken_outside_of_a_runtime() {
    let (session, mut server, id) = full(outbox(1, Overflow::Wait)).await;
    let publisher = session.publisher();
    let limited = |payload: &str| named("t", payload).with_max_age(SECOND);
    let (one, other) = (limited("a"), limited("b"));
    let thread = std::thread::spawn(move || (publisher.try_admit(one), publisher.try_admit(other)));
    let (taken, refused) = thread.join().unwrap();
    assert!(matches!(refused, Err(PublishError::Full)));
    let (outcome, sent) = tokio::join!(taken.unwrap(), drained(&mut server, id));
    outcome.unwrap();
    assert_eq!(sent, ["a"]);
}

/// What cannot find room at any rate takes nobody's place.
#[tokio::test(start_paused = true)]
async fn what_is_dropped_displaces_nothing() {
    for overflow in [Overflow::DropOldest, Overflow::KeepLatest] {
        let config = outbox(8, overflow).with_max_bytes(20_usize);
        let config = reconnecting(config).with_max_in_flight(1_u16);
        let (session, server, mut listener) = open_reconnecting(config).await;
        drop(server);
        settle().await;
        let at_most_once = |payload: &str| named("t", payload).with_qos(QoS::AtMostOnce);
        drop(session.admit(named("t", "12345678")).await.unwrap());
        drop(session.admit(at_most_once("small")).await.unwrap());
        let large = session.admit(at_most_once("much too large")).await.unwrap();
        assert!(matches!(large.await, Err(PublishError::Displaced)));
        assert_eq!(session.outbox().messages, 2, "{overflow:?}");
        assert_eq!(session.outbox().displaced, 1);
        let mut server = accept(&mut listener, false).await;
        assert_eq!(server.expect_publish().await.message.payload, "12345678");
        assert_eq!(server.expect_publish().await.message.payload, "small");
    }
}
