//! Acknowledged on success; and what a failure leads to.

use std::time::Duration;

use mqtt_client::{
    QoS, ReasonCode, ReconnectConfig, Version,
    pool::Limit,
    proto::packet::Packet,
    router::{HandlerError, OnFailure, Path, Route, Router, State},
};

use crate::{
    Log,
    common::{BOTH, accept, config, connector, endpoint, open},
    serve,
};

const SECOND: Duration = Duration::from_secs(1);

/// Takes a second, and does as the payload says.
async fn obey(
    State(log): State<Log>,
    Path(_): Path<u32>,
    order: String,
) -> Result<(), &'static str> {
    tokio::time::sleep(SECOND).await;
    log.add(&*order);
    match &*order {
        "panic" => panic!("as it was told"),
        "fail" => Err("as it was told"),
        _ => Ok(()),
    }
}

fn obeying(log: &Log) -> Router<Log> {
    Router::with_state(log.clone()).route("a/{n}", obey)
}

#[tokio::test(start_paused = true)]
async fn a_message_is_acknowledged_when_its_handler_has_succeeded() {
    for version in BOTH {
        let log = Log::default();
        let (session, mut server) = open(config(version)).await;
        let routes = obeying(&log).build().unwrap();
        let _served = serve(&routes, &session, &mut server, 1).await;
        server.publish("a/1", "", QoS::AtLeastOnce, 1).await;
        server.publish("a/2", "", QoS::ExactlyOnce, 2).await;
        server.publish("a/3", "", QoS::AtMostOnce, 0).await;
        server.expect_silence(SECOND / 2).await;
        server.expect_puback(1).await;
        assert!(matches!(server.recv().await, Packet::PubRec(ack) if ack.packet_id.value() == 2));
        assert_eq!(log.take().len(), 3);
    }
}

/// Rejected by an extractor, failed, panicked: not acknowledged, and neither are those behind it, which are
/// handled all the same.
#[tokio::test(start_paused = true)]
async fn what_is_not_handled_is_left_and_holds_up_acknowledgements() {
    for version in BOTH {
        for (topic, payload) in [("a/x", ""), ("a/1", "fail"), ("a/1", "panic")] {
            let log = Log::default();
            let (session, mut server) = open(config(version)).await;
            let routes = obeying(&log).build().unwrap();
            let (served, _) = serve(&routes, &session, &mut server, 1).await;
            server.publish("a/0", "", QoS::AtLeastOnce, 1).await;
            server.publish(topic, payload, QoS::AtLeastOnce, 2).await;
            server.publish("a/2", "behind", QoS::AtLeastOnce, 3).await;
            server.expect_puback(1).await;
            server.expect_silence(SECOND * 5).await;
            assert!(log.take().contains(&"behind".to_owned()));
            assert!(!served.task.is_finished());
        }
    }
}

/// The promise of leaving a message: with a server that keeps the session it is handled after all, at QoS 2 too.
#[tokio::test(start_paused = true)]
async fn what_is_left_is_handled_when_it_comes_again() {
    async fn at_the_second_time(State(log): State<Log>, order: String) -> Result<(), &'static str> {
        let is_first = log.take().is_empty();
        log.add(order);
        if is_first { Err("not yet") } else { Ok(()) }
    }
    for version in BOTH {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let reconnect = ReconnectConfig::default().with_jitter(Duration::ZERO);
            let config = config(version)
                .with_clean_start(version == Version::V5)
                .with_session_expiry(Limit::After(SECOND * 3_600))
                .with_reconnect(Some(reconnect));
            let (connector, mut listener) = connector(config);
            let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
                let mut server = listener.accept().await;
                server.accept().await;
                server
            });
            let session = session.unwrap();
            let log = Log::default();
            let router = Router::with_state(log.clone()).route("a", at_the_second_time);
            let _served = serve(&router.build().unwrap(), &session, &mut server, 1).await;
            server.publish("a", "", qos, 7).await;
            server.expect_silence(SECOND).await;
            drop(server);
            let mut server = accept(&mut listener, true).await;
            server.publish("a", "", qos, 7).await;
            match server.recv().await {
                Packet::PubAck(ack) | Packet::PubRec(ack) => assert_eq!(ack.packet_id.value(), 7),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// In 3.1.1 an acknowledgement has no code.
#[tokio::test(start_paused = true)]
async fn what_is_not_handled_is_rejected_or_acknowledged_where_that_is_said() {
    let code = ReasonCode::PAYLOAD_FORMAT_INVALID;
    for version in BOTH {
        for (on_failure, expected) in [
            (OnFailure::Reject(code), code),
            (OnFailure::Acknowledge, ReasonCode::SUCCESS),
        ] {
            let expected = match version {
                Version::V3 => ReasonCode::SUCCESS,
                Version::V5 => expected,
            };
            let (session, mut server) = open(config(version)).await;
            let routes = obeying(&Log::default()).with_on_failure(on_failure);
            let routes = routes.build().unwrap();
            let _served = serve(&routes, &session, &mut server, 1).await;
            server.publish("a/1", "fail", QoS::AtLeastOnce, 1).await;
            server.publish("a/2", "panic", QoS::AtLeastOnce, 2).await;
            server.publish("a/x", "", QoS::AtLeastOnce, 3).await;
            for id in 1..=3 {
                let Packet::PubAck(ack) = server.recv().await else {
                    panic!("no acknowledgement");
                };
                assert_eq!((ack.packet_id.value(), ack.reason_code), (id, expected));
            }
        }
    }
}

/// A route's word goes before the router's, and either may depend on the error.
#[tokio::test(start_paused = true)]
async fn a_policy_decides_by_the_error() {
    let (session, mut server) = open(config(Version::V5)).await;
    let routes = obeying(&Log::default())
        .with_route(Route::new("b", obey).with_on_failure(OnFailure::Acknowledge))
        .with_failure_policy(|error| match error {
            HandlerError::Rejected(_) => OnFailure::Reject(ReasonCode::PAYLOAD_FORMAT_INVALID),
            HandlerError::Failed(cause) => {
                assert_eq!(cause.to_string(), "as it was told");
                OnFailure::Reject(ReasonCode::QUOTA_EXCEEDED)
            }
            HandlerError::Panicked => OnFailure::Reject(ReasonCode::UNSPECIFIED_ERROR),
            _ => OnFailure::Leave,
        })
        .build()
        .unwrap();
    let _served = serve(&routes, &session, &mut server, 2).await;
    for (id, topic, payload) in [
        (1, "b", ""),
        (2, "a/x", ""),
        (3, "a/1", "fail"),
        (4, "a/2", "panic"),
    ] {
        server.publish(topic, payload, QoS::AtLeastOnce, id).await;
    }
    for expected in [
        ReasonCode::SUCCESS,
        ReasonCode::PAYLOAD_FORMAT_INVALID,
        ReasonCode::QUOTA_EXCEEDED,
        ReasonCode::UNSPECIFIED_ERROR,
    ] {
        let Packet::PubAck(ack) = server.recv().await else {
            panic!("no acknowledgement");
        };
        assert_eq!(ack.reason_code, expected);
    }
}

/// Requests go on while a message is left, and while handlers run.
#[tokio::test(start_paused = true)]
async fn slow_handlers_delay_neither_keep_alive_nor_publishes() {
    async fn never() {
        std::future::pending().await
    }
    let (session, mut server) =
        open(config(Version::V5).with_keep_alive(Duration::from_secs(10))).await;
    let router = Router::new().with_route(Route::new("a/{n}", never).with_max_in_hand(2));
    let _served = serve(&router.build().unwrap(), &session, &mut server, 1).await;
    for id in 1..=5 {
        server
            .publish(&format!("a/{id}"), "", QoS::AtLeastOnce, id)
            .await;
    }
    let publish = session.publish(crate::common::publish(QoS::AtLeastOnce));
    let (outcome, ()) = tokio::join!(publish, async {
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
    });
    outcome.unwrap();
    assert_eq!(server.recv().await, Packet::PingReq);
}
