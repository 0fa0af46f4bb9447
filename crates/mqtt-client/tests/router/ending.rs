//! How serving ends.

use std::{future::pending, pin::pin, time::Duration};

use mqtt_client::{
    LostCause, QoS, ReasonCode, ReconnectConfig, SessionConfig, Version,
    proto::packet::Packet,
    router::{Route, Router, ServeEnd, State},
};

use crate::{
    Log,
    common::{BOTH, config, connector, endpoint, now, open, settle},
    router, serve,
};

const SECOND: Duration = Duration::from_secs(1);

async fn slow(State(log): State<Log>, text: String) {
    log.add(format!("+{text}"));
    tokio::time::sleep(SECOND).await;
    log.add(format!("-{text}"));
}

/// What was taken is handled and acknowledged; what was not is not; and then it unsubscribes.
#[tokio::test(start_paused = true)]
async fn shutting_down_finishes_what_was_taken() {
    for version in BOTH {
        let (session, mut server) = open(config(version)).await;
        let log = Log::default();
        let routes = Router::with_state(log.clone())
            .route("a/{n}", slow)
            .with_max_in_hand(2)
            .build()
            .unwrap();
        let (mut served, _) = serve(&routes, &session, &mut server, 1).await;
        // The second waits for the first, the third has no room.
        for id in 1..=3 {
            server
                .publish("a/1", id.to_string(), QoS::AtLeastOnce, id)
                .await;
        }
        settle().await;
        served.shut_down();
        server.expect_puback(1).await;
        server.expect_puback(2).await;
        assert_eq!(log.take(), ["+1", "-1", "+2", "-2"]);
        let Ok(ServeEnd::ShutDown(subscribed)) = served.task.await.unwrap() else {
            panic!("it was told to shut down");
        };
        server.expect_silence(SECOND).await;
        let (outcome, ()) = tokio::join!(subscribed.unsubscribe(), async {
            let id = server.expect_unsubscribe().await.packet_id;
            server.unsuback(id, 1).await;
        });
        outcome.unwrap();
        server.expect_silence(SECOND).await;
    }
}

/// Where the session is left first the server keeps the subscriptions.
#[tokio::test(start_paused = true)]
async fn leaving_the_session_before_the_subscriptions_keeps_them() {
    let (session, mut server) = open(config(Version::V5)).await;
    let routes = router(&Log::default(), &["a", "b"]).build().unwrap();
    let (mut served, _) = serve(&routes, &session, &mut server, 2).await;
    served.shut_down();
    let end = served.task.await.unwrap().unwrap();
    let (outcome, _) = tokio::join!(session.disconnect(), server.expect_disconnect());
    outcome.unwrap();
    drop(end);
    server.expect_closed().await;
}

#[tokio::test(start_paused = true)]
async fn shutting_down_before_the_answers_gives_the_subscriptions_up() {
    let (session, mut server) = open(config(Version::V5)).await;
    let routes = router(&Log::default(), &["a"]).build().unwrap();
    let (end, id) = tokio::join!(
        routes.serve_until(&session, tokio::time::sleep(SECOND)),
        async { server.expect_subscribe().await.packet_id },
    );
    assert!(matches!(end, Ok(ServeEnd::ShutDown(_))));
    assert_eq!(server.expect_unsubscribe().await.filters, ["a"]);
    server.suback(id, vec![ReasonCode::GRANTED_QOS_2]).await;
}

/// What waited for room in its route was taken from the subscription already.
#[tokio::test(start_paused = true)]
async fn shutting_down_finishes_what_waited_for_room() {
    let (session, mut server) = open(config(Version::V5)).await;
    let log = Log::default();
    let routes = Router::with_state(log.clone())
        .with_route(Route::new("a/{n}", slow).with_max_in_hand(1))
        .build()
        .unwrap();
    let (mut served, _) = serve(&routes, &session, &mut server, 1).await;
    for id in 1..=3 {
        server
            .publish("a/1", id.to_string(), QoS::AtLeastOnce, id)
            .await;
    }
    settle().await;
    served.shut_down();
    server.expect_puback(1).await;
    server.expect_puback(2).await;
    let Ok(ServeEnd::ShutDown(subscribed)) = served.task.await.unwrap() else {
        panic!("it was told to shut down");
    };
    assert_eq!(log.take(), ["+1", "-1", "+2", "-2"]);
    // And may go on.
    tokio::spawn(subscribed.serve_until(pending()));
    server.expect_puback(3).await;
}

/// Also what a stream has not handed out when others have nothing left.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_session_is_told_after_what_was_received_is_handled() {
    for version in BOTH {
        let (session, mut server) = open(config(version)).await;
        let log = Log::default();
        let routes = Router::with_state(log.clone())
            .route("a/{n}", slow)
            .route("b/{n}", slow)
            .with_max_in_hand(1)
            .build()
            .unwrap();
        let (served, _) = serve(&routes, &session, &mut server, 2).await;
        for n in 0..10 {
            server
                .publish("a/1", n.to_string(), QoS::AtMostOnce, 0)
                .await;
        }
        settle().await;
        drop(server);
        let Ok(ServeEnd::SessionEnded(lost)) = served.task.await.unwrap() else {
            panic!("the session has ended");
        };
        assert!(matches!(lost.cause, LostCause::ClosedByServer));
        assert_eq!(log.take().len(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn a_router_without_routes_ends_with_the_session_or_when_told() {
    let (session, server) = open(config(Version::V5)).await;
    let routes = Router::new().build().unwrap();
    let end = routes
        .serve_until(&session, tokio::time::sleep(SECOND))
        .await;
    assert!(matches!(end, Ok(ServeEnd::ShutDown(_))));
    let (end, ()) = tokio::join!(routes.serve(&session), async { drop(server) });
    assert!(matches!(end, Ok(ServeEnd::SessionEnded(_))));
}

/// Serving goes on over connections, and ends when a later server refuses a route.
#[tokio::test(start_paused = true)]
async fn serving_outlives_connections_until_a_route_is_refused() {
    let reconnect = ReconnectConfig::default().with_jitter(Duration::ZERO);
    let config = SessionConfig::new("gateway").with_reconnect(Some(reconnect));
    let (connector, mut listener) = connector(config);
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let log = Log::default();
    let routes = router(&log, &["a", "b"]).build().unwrap();
    let (served, _) = serve(&routes, &session, &mut server, 2).await;
    for refused in [false, true] {
        drop(server);
        server = listener.accept().await;
        server.accept().await;
        for _ in 0..2 {
            let subscribe = server.expect_subscribe().await;
            let codes = subscribe
                .filters
                .iter()
                .map(|filter| match &*filter.filter {
                    "b" if refused => ReasonCode::NOT_AUTHORIZED,
                    _ => ReasonCode::GRANTED_QOS_2,
                });
            let codes: Vec<_> = codes.collect();
            let done = codes.len() == 2;
            server.suback(subscribe.packet_id, codes).await;
            if done {
                break;
            }
        }
        settle().await;
        if !refused {
            server.publish("a", "", QoS::AtLeastOnce, 1).await;
            server.expect_puback(1).await;
            assert_eq!(log.take(), ["a a"]);
        }
    }
    let Ok(ServeEnd::Refused(error)) = served.task.await.unwrap() else {
        panic!("it was refused");
    };
    assert_eq!(error.pattern, "b");
}

/// While it subscribes, while a handler runs, which is aborted and its message not acknowledged, and while it finishes.
#[tokio::test(start_paused = true)]
async fn dropping_the_future_gives_everything_up() {
    let (session, mut server) = open(config(Version::V5)).await;
    let log = Log::default();
    let routes = Router::with_state(log.clone())
        .route("a/{n}", slow)
        .build()
        .unwrap();
    {
        let mut dropped = pin!(routes.serve(&session));
        assert!(now(&mut dropped).await.is_none());
        settle().await;
    }
    let id = server.expect_subscribe().await.packet_id;
    server.expect_unsubscribe().await;
    server.suback(id, vec![ReasonCode::GRANTED_QOS_2]).await;

    let (mut served, _) = serve(&routes, &session, &mut server, 1).await;
    server.publish("a/1", "1", QoS::AtLeastOnce, 1).await;
    settle().await;
    served.task.abort();
    assert!((&mut served.task).await.unwrap_err().is_cancelled());
    assert!(matches!(server.recv().await, Packet::Unsubscribe(_)));
    server.expect_silence(SECOND * 5).await;
    assert_eq!(log.take(), ["+1"]);

    // And while it finishes what was taken.
    let (mut served, _) = serve(&routes, &session, &mut server, 1).await;
    server.publish("a/1", "2", QoS::AtLeastOnce, 2).await;
    settle().await;
    served.shut_down();
    settle().await;
    served.task.abort();
    assert!((&mut served.task).await.unwrap_err().is_cancelled());
    assert!(matches!(server.recv().await, Packet::Unsubscribe(_)));
    server.expect_silence(SECOND * 5).await;
    assert_eq!(log.take(), ["+2"]);
}
