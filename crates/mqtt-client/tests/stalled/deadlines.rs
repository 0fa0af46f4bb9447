//! What callers allow for a publish is kept, whatever the server does.

use mqtt_client::{OutboxConfig, Publish, PublishError, QoS, SessionConfig, Version};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{Service, ServiceBuilder, ServiceExt, timeout::error::Elapsed};

use crate::{
    SECOND,
    common::{config, open, settle},
    numbered,
};

const WINDOW: u16 = 5;

fn stalling() -> SessionConfig {
    config(Version::V5)
        .with_keep_alive(SECOND * 60)
        .with_write_timeout(SECOND * 60)
        .with_max_in_flight(WINDOW)
        .with_outbox(OutboxConfig::default().with_max_messages(10_usize))
}

fn named(name: String) -> Publish {
    Publish::new("t", name).unwrap().with_qos(QoS::AtLeastOnce)
}

/// Sent or in the outbox: a timeout ends each in its time, and withdraws what was not sent. What waits to
/// be ready has not begun, and follows when others are done.
#[tokio::test(start_paused = true)]
async fn a_timeout_is_kept_by_every_publish() {
    let (session, mut server) = open(stalling()).await;
    let mut callers = JoinSet::new();
    for number in 0..100 {
        let mut service = ServiceBuilder::new()
            .timeout(SECOND * 2)
            .service(session.publisher());
        callers.spawn(async move {
            let publishing = service
                .ready()
                .await
                .unwrap()
                .call(named(number.to_string()));
            let start = Instant::now();
            let error = publishing.await.unwrap_err();
            assert!(error.is::<Elapsed>(), "{error:?}");
            let elapsed = start.elapsed();
            assert!(
                (SECOND * 2..SECOND * 2 + SECOND / 100).contains(&elapsed),
                "{elapsed:?}"
            );
        });
    }
    for _ in 0..26 {
        sleep(SECOND).await;
        assert!(session.outbox().messages <= 10);
    }
    while let Some(caller) = callers.try_join_next() {
        caller.unwrap();
    }
    assert!(callers.is_empty(), "{} go on", callers.len());
    assert_eq!(session.outbox(), Default::default());
    assert_eq!(session.in_flight(), usize::from(WINDOW));

    let (published, ()) = tokio::join!(server.serve(), async {
        session.publish(named("after".to_owned())).await.unwrap();
        session.disconnect().await.unwrap();
    });
    let payloads: Vec<_> = published.iter().map(|message| &*message.payload).collect();
    assert_eq!(payloads, [&b"0"[..], b"1", b"2", b"3", b"4", b"after"]);
}

/// [`PublishError::Expired`] comes when it is due and not when the server is back; what has expired is
/// never sent.
#[tokio::test(start_paused = true)]
async fn what_is_good_for_a_while_expires_in_that_while() {
    let (session, mut server) = open(stalling()).await;
    let mut callers = JoinSet::new();
    for number in 0..30_u32 {
        let publisher = session.publisher();
        callers.spawn(async move {
            let start = Instant::now();
            let max_age = SECOND * (1 + number % 3);
            let publish = named(number.to_string()).with_max_age(max_age);
            (publisher.publish(publish).await, start.elapsed(), max_age)
        });
    }
    sleep(SECOND * 30).await;
    let mut expired = 0;
    while let Some(caller) = callers.try_join_next() {
        let (outcome, elapsed, max_age) = caller.unwrap();
        assert!(matches!(outcome, Err(PublishError::Expired)), "{outcome:?}");
        // A timer has the resolution of a millisecond.
        assert!(
            (max_age..=max_age + SECOND / 100).contains(&elapsed),
            "{elapsed:?}"
        );
        expired += 1;
    }
    assert_eq!(expired, 30 - u64::from(WINDOW));
    assert_eq!(session.outbox().expired, expired);
    assert_eq!(session.outbox().messages, 0);

    let (published, ()) = tokio::join!(server.serve(), async {
        while let Some(caller) = callers.join_next().await {
            caller.unwrap().0.unwrap();
        }
        session.disconnect().await.unwrap();
    });
    assert_eq!(published.len(), usize::from(WINDOW));
}

/// Dropping a producer half-way through the stall leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn producers_that_are_gone_leave_nothing_to_send() {
    let (session, mut server) = open(stalling()).await;
    let mut callers = JoinSet::new();
    for number in 0..300 {
        let publisher = session.publisher();
        callers.spawn(async move { publisher.publish(numbered("t", number)).await });
    }
    settle().await;
    callers.shutdown().await;
    assert_eq!(session.outbox(), Default::default());
    sleep(SECOND * 30).await;
    let (published, outcome) = tokio::join!(server.serve(), session.disconnect());
    outcome.unwrap();
    let acknowledged = published
        .iter()
        .filter(|message| message.qos != QoS::AtMostOnce);
    assert_eq!(acknowledged.count(), usize::from(WINDOW));
}
