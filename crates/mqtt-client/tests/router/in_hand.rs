//! How many messages are in hand, and in which order they are handled.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use mqtt_client::{
    Message, QoS, Version,
    router::{Incoming, Order, Route, Router, State},
};
use mqtt_testkit::ScriptedServer;

use crate::{
    Log,
    common::{config, open, settle},
    serve,
};

const SECOND: Duration = Duration::from_secs(1);

/// Takes a second, and notes its begin and end.
async fn slow(State(log): State<Log>, message: Message) {
    let text = String::from_utf8_lossy(&message.payload).into_owned();
    log.add(format!("+{text}"));
    tokio::time::sleep(SECOND).await;
    log.add(format!("-{text}"));
}

/// Messages to `topic`, each with its number.
async fn publish(server: &mut ScriptedServer, messages: &[(&str, u16)]) {
    for &(topic, id) in messages {
        server
            .publish(topic, id.to_string(), QoS::AtLeastOnce, id)
            .await;
    }
    settle().await;
}

async fn check(order: Order, rounds: &[&[&str]]) {
    let (session, mut server) = open(config(Version::V5)).await;
    let log = Log::default();
    let router = Router::with_state(log.clone());
    let router = router.with_route(Route::new("a/{x}", slow).with_order(order));
    let _served = serve(&router.build().unwrap(), &session, &mut server, 1).await;
    publish(
        &mut server,
        &[("a/x", 1), ("a/x", 2), ("a/y", 3), ("a/x", 4)],
    )
    .await;
    for round in rounds {
        let mut seen = log.take();
        // What runs at the same time may begin and end in any order.
        seen.sort();
        assert_eq!(seen, *round, "{order:?}");
        tokio::time::sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_topic_are_handled_one_after_the_other() {
    let rounds: [&[_]; 4] = [&["+1", "+3"], &["+2", "-1", "-3"], &["+4", "-2"], &["-4"]];
    check(Order::Topic, &rounds).await;
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_route_are_handled_one_after_the_other_if_asked() {
    let rounds: [&[_]; 5] = [
        &["+1"],
        &["+2", "-1"],
        &["+3", "-2"],
        &["+4", "-3"],
        &["-4"],
    ];
    check(Order::Route, &rounds).await;
}

#[tokio::test(start_paused = true)]
async fn messages_are_handled_at_the_same_time_if_asked() {
    check(
        Order::None,
        &[&["+1", "+2", "+3", "+4"], &["-1", "-2", "-3", "-4"]],
    )
    .await;
}

/// A route takes no more than it may, and another is not held up by that.
#[tokio::test(start_paused = true)]
async fn a_route_that_is_full_leaves_room_to_others() {
    let (session, mut server) = open(config(Version::V5)).await;
    let log = Log::default();
    let routes = Router::with_state(log.clone())
        .with_route(Route::new("slow/{n}", slow).with_max_in_hand(2))
        .with_route(Route::new("other/{n}", slow))
        .build()
        .unwrap();
    let _served = serve(&routes, &session, &mut server, 2).await;
    let slow: Vec<_> = (1..=5).map(|id| (format!("slow/{id}"), id)).collect();
    let messages: Vec<_> = slow.iter().map(|(topic, id)| (&**topic, *id)).collect();
    publish(&mut server, &messages).await;
    publish(&mut server, &[("other/6", 6)]).await;
    let mut seen = log.take();
    seen.sort();
    assert_eq!(seen, ["+1", "+2", "+6"]);
    for id in 1..=6 {
        server.expect_puback(id).await;
    }
}

/// Where there is room for one message only, each route gets it in turn.
#[tokio::test(start_paused = true)]
async fn a_flood_for_one_route_does_not_starve_another() {
    let (session, mut server) = open(config(Version::V5)).await;
    let log = Log::default();
    let routes = Router::with_state(log.clone())
        .route("a/{n}", slow)
        .route("b/{n}", slow)
        .with_max_in_hand(1)
        .build()
        .unwrap();
    let _served = serve(&routes, &session, &mut server, 2).await;
    let floods = [
        ("a/1", 1),
        ("a/1", 2),
        ("a/1", 3),
        ("a/1", 4),
        ("a/1", 5),
        ("a/1", 6),
    ];
    publish(&mut server, &floods).await;
    publish(&mut server, &floods.map(|(_, id)| ("b/1", id + 6))).await;
    tokio::time::sleep(SECOND * 6).await;
    let seen = log.take();
    for route in [["+1", "+2"], ["+7", "+8"]] {
        assert!(
            route.iter().all(|id| seen.contains(&(*id).to_owned())),
            "{seen:?}"
        );
    }
}

/// Of the same topic too: what waits its turn is in hand.
#[tokio::test(start_paused = true)]
async fn all_routes_together_take_no_more_than_the_router_may() {
    for topic in ["a/1", "a/2"] {
        let (session, mut server) = open(config(Version::V5)).await;
        let log = Log::default();
        let routes = Router::with_state(log.clone())
            .route("a/{n}", slow)
            .route("b/{n}", slow)
            .with_max_in_hand(3)
            .build()
            .unwrap();
        let _served = serve(&routes, &session, &mut server, 2).await;
        publish(
            &mut server,
            &[("a/1", 1), (topic, 2), ("b/1", 3), ("b/2", 4), ("b/3", 5)],
        )
        .await;
        let began = log.take();
        assert_eq!(began.len(), if topic == "a/1" { 2 } else { 3 }, "{began:?}");
        for id in 1..=5 {
            server.expect_puback(id).await;
        }
    }
}

/// Thousands of messages over a few topics, with handlers that take their time: all handled, once, each topic in
/// order, never more at a time than allowed.
#[tokio::test(start_paused = true)]
async fn a_flood_is_handled_in_order_and_within_bounds() {
    const MESSAGES: usize = 3_000;
    /// How many are being handled, and were at most, of both routes and of the first.
    static RUNNING: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    static MOST: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    async fn handler(State(log): State<Log>, incoming: Incoming) {
        let message = incoming.message();
        let number: u64 = String::from_utf8_lossy(&message.payload).parse().unwrap();
        let counted = if incoming.pattern() == Some("a/{n}") {
            2
        } else {
            1
        };
        for (running, most) in RUNNING.iter().zip(&MOST).take(counted) {
            most.fetch_max(
                running.fetch_add(1, Ordering::Relaxed) + 1,
                Ordering::Relaxed,
            );
        }
        tokio::time::sleep(Duration::from_millis(number * 7 % 5)).await;
        log.add(format!("{} {number}", &*message.topic));
        for running in RUNNING.iter().take(counted) {
            running.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let (session, mut server) = open(config(Version::V5)).await;
    let log = Log::default();
    let routes = Router::with_state(log.clone())
        .with_route(Route::new("a/{n}", handler).with_max_in_hand(3))
        .with_route(Route::new("a/0", handler))
        .with_max_in_hand(4)
        .build()
        .unwrap();
    let _served = serve(&routes, &session, &mut server, 2).await;
    for number in 0..MESSAGES {
        let topic = format!("a/{}", number % 5);
        server
            .publish(&topic, number.to_string(), QoS::AtMostOnce, 0)
            .await;
    }
    tokio::time::sleep(SECOND * 60).await;
    let mut last = HashMap::new();
    let seen = log.take();
    assert_eq!(seen.len(), MESSAGES);
    for line in seen {
        let (topic, number) = line.split_once(' ').unwrap();
        let number: i64 = number.parse().unwrap();
        let before = last.insert(topic.to_owned(), number);
        assert!(before.unwrap_or(-1) < number, "{line} after {before:?}");
    }
    assert_eq!(
        MOST.each_ref().map(|most| most.load(Ordering::Relaxed)),
        [4, 3]
    );
}
