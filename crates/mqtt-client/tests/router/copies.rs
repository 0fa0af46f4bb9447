//! What is subscribed to, and that a message which comes by several subscriptions is handled once.

use std::future::pending;

use mqtt_client::{
    Message, QoS, ReasonCode, Subscribe, Version,
    proto::{
        PacketId,
        packet::{ConnAck, Packet, Publish, RetainHandling, SubscribeFilter, SubscriptionId},
    },
    router::{Route, Router},
};
use mqtt_testkit::ScriptedServer;

use crate::{
    Log,
    common::{BOTH, config, open, open_with, settle},
    noting, router, serve,
};

#[tokio::test(start_paused = true)]
async fn each_route_is_subscribed_to_in_its_own_way() {
    for version in BOTH {
        let (session, mut server) = open(config(version)).await;
        let log = Log::default();
        let qos_1 = Route::new("devices/{id}/state", noting("state")).with_qos(QoS::AtLeastOnce);
        let shared =
            Route::new("$share/group/jobs/{*job}", noting("job")).with_subscribe(|mut it| {
                it.filters[0].options.retain_handling = RetainHandling::DoNotSend;
                it
            });
        let routes = Router::with_state(log.clone())
            .with_route(qos_1)
            .with_route(shared)
            .build()
            .unwrap();
        let (_served, mut filters) = serve(&routes, &session, &mut server, 2).await;
        filters.sort_by_key(|filter| filter.filter.clone());
        let [job, state] = &*filters else {
            panic!("{filters:?}");
        };
        assert_eq!(job.filter, "$share/group/jobs/#");
        assert_eq!(state.filter, "devices/+/state");
        assert_eq!(state.options.qos, QoS::AtLeastOnce);
        if version == Version::V5 {
            assert_eq!(job.options.retain_handling, RetainHandling::DoNotSend);
        }
        server.publish("jobs/a/b", "", QoS::AtLeastOnce, 1).await;
        server
            .publish("devices/7/state", "", QoS::AtLeastOnce, 2)
            .await;
        server.expect_puback(1).await;
        server.expect_puback(2).await;
        let mut seen = log.take();
        seen.sort();
        assert_eq!(seen, ["job jobs/a/b", "state devices/7/state"]);
    }
}

/// The filters of a server that is about to grant them, each with its identifier.
async fn granted(
    server: &mut ScriptedServer,
    count: usize,
) -> Vec<(SubscribeFilter, Option<SubscriptionId>)> {
    let mut granted = Vec::new();
    for _ in 0..count {
        let mut subscribe = server.grant().await;
        let id = subscribe.properties.subscription_identifier;
        granted.push((subscribe.filters.remove(0), id));
    }
    settle().await;
    granted.sort_by_key(|(filter, _)| filter.filter.clone());
    granted
}

async fn publish(server: &mut ScriptedServer, topic: &str, ids: &[SubscriptionId], packet_id: u16) {
    let mut message = Message::new(topic.to_owned(), "")
        .unwrap()
        .with_qos(QoS::AtLeastOnce);
    message.properties.subscription_identifiers = ids.to_vec();
    let publish = Publish {
        message,
        packet_id: PacketId::new(packet_id),
        dup: false,
    };
    server.send(Packet::Publish(publish)).await;
}

/// `[MQTT5-3.3.4-2]` and what follows it: a server sends one copy with all identifiers, or one for each subscription.
#[tokio::test(start_paused = true)]
async fn overlapping_routes_handle_a_message_once() {
    let (session, mut server) = open(config(Version::V5)).await;
    let log = Log::default();
    let routes = router(&log, &["a/b", "a/{x}", "{*all}", "$SYS/x"])
        .build()
        .unwrap();
    let serving = session.clone();
    let task = tokio::spawn(async move { routes.serve(&serving).await });
    let filters = granted(&mut server, 4).await;
    let ids: Vec<_> = filters.iter().filter_map(|(_, id)| *id).collect();
    let [all, plus, exact] = *ids else {
        panic!("those that overlap, and no others: {filters:?}");
    };
    assert_eq!(filters[1].1, None);
    // One copy for each.
    for (packet_id, id) in (1..).zip([all, exact, plus]) {
        publish(&mut server, "a/b", &[id], packet_id).await;
        server.expect_puback(packet_id).await;
    }
    assert_eq!(log.take(), ["a/b a/b"]);
    // One for all.
    publish(&mut server, "a/b", &[plus, all, exact], 4).await;
    server.expect_puback(4).await;
    assert_eq!(log.take(), ["a/b a/b"]);
    publish(&mut server, "a/c", &[plus, all], 5).await;
    server.expect_puback(5).await;
    assert_eq!(log.take(), ["a/{x} a/c"]);
    assert!(!task.is_finished());
}

/// In 3.1.1, and on servers that say so: a route that another covers comes by the subscription of that.
#[tokio::test(start_paused = true)]
async fn without_identifiers_there_is_one_copy_where_a_route_covers_another() {
    for version in BOTH {
        let mut connack = ConnAck::accepted();
        if version == Version::V5 {
            connack.properties.subscription_identifiers_available = Some(false);
        }
        let (session, mut server) = open_with(config(version), connack).await;
        let log = Log::default();
        let at = |qos, pattern| Route::new(pattern, noting(pattern)).with_qos(qos);
        let routes = Router::with_state(log.clone())
            .with_route(at(QoS::AtLeastOnce, "a/b"))
            .with_route(at(QoS::AtMostOnce, "a/{x}"))
            .with_route(at(QoS::AtMostOnce, "a/{*rest}"))
            .with_route(at(QoS::AtMostOnce, "x/{y}/c"))
            .with_route(at(QoS::AtMostOnce, "x/b/{z}"))
            .build()
            .unwrap();
        let task = tokio::spawn(async move { routes.serve(&session).await });
        let filters = granted(&mut server, 3).await;
        let asked: Vec<_> = filters
            .iter()
            .map(|(filter, id)| (&*filter.filter, filter.options.qos, *id))
            .collect();
        let expected = [
            ("a/#", QoS::AtLeastOnce, None),
            ("x/+/c", QoS::AtMostOnce, None),
            ("x/b/+", QoS::AtMostOnce, None),
        ];
        assert_eq!(asked, expected);
        for (id, topic) in (1..).zip(["a/b", "a/c", "a", "x/b/c"]) {
            server.publish(topic, "", QoS::AtLeastOnce, id).await;
            server.expect_puback(id).await;
        }
        assert_eq!(
            log.take(),
            ["a/b a/b", "a/{x} a/c", "a/{*rest} a", "x/b/{z} x/b/c"]
        );
        // Where neither covers the other, nobody can tell this copy from a second message.
        server.publish("x/b/c", "", QoS::AtLeastOnce, 5).await;
        server.expect_puback(5).await;
        assert_eq!(log.take(), ["x/b/{z} x/b/c"]);
        assert!(!task.is_finished());
    }
}

/// One subscription that covers all routes: a message comes once, whatever the server does with those that overlap.
#[tokio::test(start_paused = true)]
async fn one_subscription_can_serve_all_routes() {
    for version in BOTH {
        for has_fallback in [false, true] {
            let (session, mut server) = open(config(version)).await;
            let log = Log::default();
            let subscribe = session.subscribe(Subscribe::new("a/#").unwrap());
            let (subscription, _) = tokio::join!(subscribe, server.grant());
            let mut router = router(&log, &["a/b", "a/{x}"]);
            let mut expected = vec!["a/b a/b", "a/{x} a/c"];
            if has_fallback {
                router = router.with_fallback(noting("fallback"));
                expected.extend(["fallback a/c/d", "fallback a"]);
            }
            let routes = router.build().unwrap();
            let attached = routes.attach(&session, subscription.unwrap().into_manual());
            let task = tokio::spawn(attached.serve_until(pending()));
            for (id, topic) in (1..).zip(["a/b", "a/c", "a/c/d", "a"]) {
                server.publish(topic, "", QoS::AtLeastOnce, id).await;
                // What nobody handles is acknowledged too.
                server.expect_puback(id).await;
            }
            assert_eq!(log.take(), expected);
            drop(server);
            task.await.unwrap();
        }
    }
}

/// More at once than is looked at before other tasks get their turn, while no handler runs that would wake it.
#[tokio::test(start_paused = true)]
async fn many_messages_that_nobody_handles_hold_up_nothing() {
    let (session, mut server) = open(config(Version::V5)).await;
    let log = Log::default();
    let subscribe = session.subscribe(Subscribe::new("#").unwrap());
    let (subscription, _) = tokio::join!(subscribe, server.grant());
    let routes = router(&log, &["a"]).build().unwrap();
    let attached = routes.attach(&session, subscription.unwrap().into_manual());
    for _ in 0..1_000 {
        server.publish("b", "", QoS::AtMostOnce, 0).await;
    }
    server.publish("a", "", QoS::AtMostOnce, 0).await;
    settle().await;
    tokio::spawn(attached.serve_until(pending()));
    settle().await;
    assert_eq!(log.take(), ["a a"]);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_refused_is_named_and_none_is_served() {
    let (session, mut server) = open(config(Version::V5)).await;
    let routes = router(&Log::default(), &["a", "b/{x}"]).build().unwrap();
    let (outcome, ()) = tokio::join!(routes.serve(&session), async {
        for _ in 0..2 {
            let subscribe = server.expect_subscribe().await;
            let code = match &*subscribe.filters[0].filter {
                "a" => ReasonCode::GRANTED_QOS_2,
                _ => ReasonCode::NOT_AUTHORIZED,
            };
            server.suback(subscribe.packet_id, vec![code]).await;
        }
    });
    let error = outcome.unwrap_err();
    assert_eq!(error.pattern, "b/{x}");
    let given_up = [
        server.expect_unsubscribe().await.filters.remove(0),
        server.expect_unsubscribe().await.filters.remove(0),
    ];
    assert!(given_up.iter().any(|filter| *filter == *"a"));
}
