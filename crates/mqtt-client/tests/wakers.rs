//! Wakers that run the code of others: they are woken and dropped without the session's lock.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
    thread,
    time::Duration,
};

use common::{config, no_outbox, now, open, publish, settle};
use futures_util::Stream;
use mqtt_client::{PublishFuture, QoS, Session, Subscribe, Version};
use tower::Service;

/// Runs `test`, and fails rather than hangs if it does not end.
fn check<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(test());
    });
    for _ in 0..500 {
        if thread.is_finished() {
            return thread.join().unwrap();
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("it waits for its own lock");
}

/// Looks at the session when it is woken, as an executor does that polls in place.
struct Looks(Session);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        self.0.in_flight();
    }
}

#[test]
fn the_last_acknowledgement_tells_those_who_leave() {
    check(async || {
        let (session, mut server) = open(config(Version::V5)).await;
        let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
        assert!(now(&mut in_flight).await.is_none());
        let mut leaves = pin!(session.disconnect());
        let waker = Waker::from(Arc::new(Looks(session.clone())));
        let polled = leaves.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
        settle().await;
        in_flight.await.unwrap();
        leaves.await.unwrap();
    });
}

/// The last thing that holds a future, as in an executor whose tasks live in their wakers alone.
struct Holds(#[allow(dead_code, reason = "held for its drop")] Mutex<PublishFuture>);

impl Wake for Holds {
    fn wake(self: Arc<Self>) {}
}

/// Polls twice, with wakers that each hold a publish that waits: the second takes the place of
/// the first.
fn poll_twice<T>(session: &Session, mut poll: impl FnMut(&mut Context<'_>) -> std::task::Poll<T>) {
    for _ in 0..2 {
        let mut waits = session.publisher().call(publish(QoS::AtLeastOnce));
        let polled = Pin::new(&mut waits).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        let waker = Waker::from(Arc::new(Holds(Mutex::new(waits))));
        assert!(poll(&mut Context::from_waker(&waker)).is_pending());
    }
}

#[test]
fn what_a_waker_holds_may_belong_to_the_session() {
    check(async || {
        let config = config(Version::V5)
            .with_max_unsent_bytes(1_usize)
            .with_outbox(no_outbox());
        let (session, mut server) = open(config).await;
        let subscribe = session.subscribe(Subscribe::new("a").unwrap());
        let (messages, _) = tokio::join!(subscribe, server.grant());
        let mut messages = messages.unwrap();
        // The buffer is full from here on, since the connection's task does not get its turn.
        let mut sent = session.publisher().call(publish(QoS::AtLeastOnce));
        let polled = Pin::new(&mut sent).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());

        poll_twice(&session, |cx| Pin::new(&mut messages).poll_next(cx));
        poll_twice(&session, |cx| Pin::new(&mut sent).poll(cx));
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let mut waits = session.publisher().call(publish(qos));
            poll_twice(&session, |cx| Pin::new(&mut waits).poll(cx));
        }
        let mut publisher = session.publisher();
        poll_twice(&session, |cx| publisher.poll_ready(cx));
        let mut subscribing = session.subscriber().call(Subscribe::new("b").unwrap());
        poll_twice(&session, |cx| Pin::new(&mut subscribing).poll(cx));
    });
}
