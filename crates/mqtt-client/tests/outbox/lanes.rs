//! Lanes take turns.

use std::pin::pin;

use futures_util::future::join_all;
use mqtt_client::{Overflow, QoS};

use crate::{
    common::{now, settle},
    drained, full, named, outbox,
};

#[tokio::test(start_paused = true)]
async fn a_lane_with_much_to_say_does_not_hold_up_the_others() {
    let (session, mut server, id) = full(outbox(100, Overflow::Wait)).await;
    for n in 0..5 {
        let noisy = named("t", format!("noisy {n}")).with_lane("noisy");
        drop(session.admit(noisy).await.unwrap());
    }
    for n in 0..2 {
        let quiet = named("t", format!("quiet {n}")).with_lane("quiet");
        drop(session.admit(quiet).await.unwrap());
    }
    let sent = drained(&mut server, id).await;
    let position = |name: &str| sent.iter().position(|sent| sent == name).unwrap();
    // In turn, and in order within a lane.
    assert!(position("quiet 1") <= 3, "{sent:?}");
    assert!(position("quiet 0") < position("quiet 1"));
    for n in 0..4 {
        assert!(position(&format!("noisy {n}")) < position(&format!("noisy {}", n + 1)));
    }
}

/// The same for those that the outbox has no room for.
#[tokio::test(start_paused = true)]
async fn those_that_wait_to_be_taken_are_taken_in_turn() {
    let (session, mut server, id) = full(outbox(1, Overflow::Wait)).await;
    let publish = |lane: &'static str, n: usize| {
        let publish = named("t", format!("{lane} {n}")).with_lane(lane);
        let session = session.clone();
        async move { session.publish(publish).await }
    };
    let noisy: Vec<_> = (0..20).map(|n| publish("noisy", n)).collect();
    let mut noisy = pin!(join_all(noisy));
    assert!(now(&mut noisy).await.is_none());
    let mut quiet = pin!(publish("quiet", 0));
    assert!(now(&mut quiet).await.is_none());
    assert_eq!(session.outbox().waiting, 20);
    let (noisy, quiet, sent) = tokio::join!(noisy, quiet, drained(&mut server, id));
    assert!(noisy.into_iter().all(|outcome| outcome.is_ok()) && quiet.is_ok());
    let position = sent.iter().position(|sent| sent == "quiet 0").unwrap();
    assert!(position <= 3, "{sent:?}");
    let mut in_order = sent.clone();
    in_order.retain(|sent| sent.starts_with("noisy"));
    let expected: Vec<_> = (0..20).map(|n| format!("noisy {n}")).collect();
    assert_eq!(in_order, expected);
}

/// Each lane loses its own oldest first.
#[tokio::test(start_paused = true)]
async fn a_lane_that_overflows_drops_its_own() {
    let (session, mut server, id) = full(outbox(3, Overflow::DropOldest)).await;
    let quiet = session.admit(named("t", "quiet").with_lane(1)).await;
    for n in 0..10 {
        let noisy = named("t", format!("noisy {n}")).with_lane(2);
        drop(session.admit(noisy).await.unwrap());
    }
    let mut sent = drained(&mut server, id).await;
    sent.sort();
    assert_eq!(sent, ["noisy 8", "noisy 9", "quiet"]);
    quiet.unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_outbox_of_one_qos_does_not_hold_up_another() {
    let (session, mut server, id) = full(outbox(8, Overflow::Wait)).await;
    let waits = session.admit(named("t", "waits")).await.unwrap();
    session
        .publish(named("t", "passes").with_qos(QoS::AtMostOnce))
        .await
        .unwrap();
    assert_eq!(server.expect_publish().await.message.payload, "passes");
    settle().await;
    let (outcome, _) = tokio::join!(waits, drained(&mut server, id));
    outcome.unwrap();
}
