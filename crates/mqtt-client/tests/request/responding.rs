//! Those who answer: what is answered, where to, how many at a time, and how it ends.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use mqtt_client::{
    Message, QoS, ReasonCode, Reply, Responder, ResponderConfig, ResponderEnd, ResponderError,
    Session, Subscribe, SubscribeError, TopicFilter, Version,
    proto::{
        BinaryData, PacketId, Utf8String,
        packet::{Packet, Publish, PublishProperties},
    },
};
use mqtt_testkit::ScriptedServer;
use tokio::sync::Semaphore;
use tower::{BoxError, Service, ServiceBuilder, service_fn};

use crate::{
    SECOND,
    common::{config, connector, endpoint, now, open, settle},
    lasting,
};

/// Answers what it was asked.
fn echo() -> impl Service<Message, Response = Reply, Error = Infallible, Future: Send> + Send {
    service_fn(|request: Message| async { Ok(Reply::new(request.payload)) })
}

async fn responder<S>(service: S, options: ResponderConfig) -> (Responder, Session, ScriptedServer)
where
    S: Service<Message, Response = Reply> + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send + 'static,
{
    let (session, mut server) = open(config(Version::V5)).await;
    let respond = session.respond(Subscribe::new("ask/+").unwrap(), service, options);
    let (responder, _) = tokio::join!(respond, server.grant());
    (responder.unwrap(), session, server)
}

/// A request from the server's side; `packet_id` is 0 at QoS 0.
async fn ask(server: &mut ScriptedServer, response_topic: &str, qos: QoS, packet_id: u16) {
    let mut message = Message::new("ask/it", packet_id.to_string()).unwrap();
    message.qos = qos;
    let properties = &mut message.properties;
    if !response_topic.is_empty() {
        properties.response_topic = Some(response_topic.try_into().unwrap());
        properties.correlation_data = Some(BinaryData::new(vec![7]).unwrap());
        properties.message_expiry_interval = Some(5);
    }
    server
        .send(Packet::Publish(Publish {
            message,
            packet_id: PacketId::new(packet_id),
            dup: false,
        }))
        .await;
}

/// The next publish; acknowledgements of what was asked are passed over.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes fails the test"
)]
async fn answered(server: &mut ScriptedServer) -> Publish {
    loop {
        match server.recv().await {
            Packet::Publish(publish) => {
                if let Some(id) = publish.packet_id {
                    server.puback(id).await;
                }
                return publish;
            }
            Packet::PubAck(_) => {}
            packet => panic!("expected a reply, got {packet:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_has_the_address_and_the_qos_of_its_request() {
    let (responder, session, mut server) = responder(echo(), ResponderConfig::default()).await;
    for (qos, id) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 1)] {
        ask(&mut server, "replies/7", qos, id).await;
        let Message {
            topic,
            payload,
            qos: replied,
            retain,
            properties,
        } = answered(&mut server).await.message;
        assert_eq!((topic.as_str(), replied, retain), ("replies/7", qos, false));
        assert_eq!(payload, id.to_string());
        assert_eq!(properties.correlation_data.as_deref(), Some(&[7][..]));
        assert_eq!(properties.response_topic, None);
        // What is left of the request's time is the reply's.
        assert_eq!(properties.message_expiry_interval, Some(5));
    }
    settle().await;
    assert_eq!(responder.totals().answered, 2);
    assert_eq!(session.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn messages_that_name_no_response_topic_are_ignored_or_served() {
    let (ignoring, _session, mut server) = responder(echo(), ResponderConfig::default()).await;
    ask(&mut server, "", QoS::AtMostOnce, 0).await;
    server.expect_silence(SECOND).await;
    assert_eq!(ignoring.totals().without_response_topic, 1);

    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let service = service_fn(move |_: Message| {
        count.fetch_add(1, SeqCst);
        async { Ok::<_, Infallible>(Reply::new("for nobody")) }
    });
    let options = ResponderConfig::default().with_serve_without_response_topic(true);
    let (serving, _session, mut server) = responder(service, options).await;
    ask(&mut server, "", QoS::AtMostOnce, 0).await;
    server.expect_silence(SECOND).await;
    assert_eq!(serving.totals().unanswered, 1);
    assert_eq!(calls.load(SeqCst), 1);
}

/// A requester does not make the responder publish anywhere.
#[tokio::test(start_paused = true)]
async fn response_topics_out_of_bounds_are_not_answered_to() {
    let bounded = TopicFilter::new("replies/#").unwrap();
    let dollar = TopicFilter::new("$tenant/#").unwrap();
    for (filter, topic, is_answered) in [
        (None, "anywhere", true),
        (None, "$SYS/broker", false),
        (None, "ask/again", false),
        (Some(bounded.clone()), "replies/7", true),
        (Some(bounded), "commands/7", false),
        (Some(dollar.clone()), "$tenant/7", true),
        (Some(dollar), "replies/7", false),
        (Some(TopicFilter::new("#").unwrap()), "ask/again", false),
    ] {
        let options = ResponderConfig::default().with_response_filter(filter.clone());
        let (responder, _session, mut server) = responder(echo(), options).await;
        ask(&mut server, topic, QoS::AtMostOnce, 0).await;
        if is_answered {
            assert_eq!(answered(&mut server).await.message.topic, topic);
        } else {
            server.expect_silence(SECOND).await;
        }
        let refused = responder.totals().refused_response_topic;
        assert_eq!(refused, u64::from(!is_answered), "{filter:?} {topic}");
    }
}

/// Fails, or panics, by what it is asked.
fn failing() -> impl Service<Message, Response = Reply, Error = BoxError, Future: Send> + Send {
    service_fn(|request: Message| async move {
        assert_ne!(request.payload, "2", "asked to panic");
        Err(format!("{} cannot be done", request.payload.len()).into())
    })
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_answered_as_configured() {
    let (silent, _session, mut server) = responder(failing(), ResponderConfig::default()).await;
    ask(&mut server, "replies/7", QoS::AtLeastOnce, 1).await;
    server.expect_puback(1).await;
    server.expect_silence(SECOND).await;
    assert_eq!((silent.totals().failed, silent.totals().unanswered), (1, 1));

    let options = ResponderConfig::default().with_error_reply(|error| {
        let name = Utf8String::new("error").ok()?;
        let text = Utf8String::new(error.to_string()).ok()?;
        let properties = PublishProperties {
            user_properties: vec![(name, text)],
            ..PublishProperties::default()
        };
        Some(Reply::new("").with_properties(properties))
    });
    let (telling, _session, mut server) = responder(failing(), options).await;
    ask(&mut server, "replies/7", QoS::AtLeastOnce, 2).await;
    server.expect_puback(2).await;
    ask(&mut server, "replies/7", QoS::AtLeastOnce, 1).await;
    let reply = answered(&mut server).await.message;
    let (name, text) = reply.properties.user_properties.first().unwrap();
    assert_eq!(
        (name.as_str(), text.as_str()),
        ("error", "1 cannot be done")
    );
    assert_eq!(reply.properties.correlation_data.as_deref(), Some(&[7][..]));
    settle().await;
    // A panic is counted and does not end the others.
    assert_eq!((telling.totals().failed, telling.totals().answered), (2, 1));
}

/// Answers as permits are given.
fn gated(
    gate: &Arc<Semaphore>,
) -> impl Service<Message, Response = Reply, Error = Infallible, Future: Send> + Send + use<> {
    let gate = gate.clone();
    service_fn(move |request: Message| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(Reply::new(request.payload))
        }
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_waits_in_the_subscription() {
    let gate = Arc::new(Semaphore::new(0));
    for by_layer in [false, true] {
        let (limit, layer) = if by_layer { (64_usize, 2) } else { (2, 64) };
        let service = ServiceBuilder::new()
            .concurrency_limit(layer)
            .service(gated(&gate));
        let options = ResponderConfig::default().with_max_running(limit);
        let (responder, _session, mut server) = responder(service, options).await;
        for id in 1..=5 {
            ask(&mut server, "replies/7", QoS::AtLeastOnce, id).await;
        }
        // Two are taken, and none is acknowledged.
        server.expect_silence(SECOND).await;
        assert_eq!(gate.available_permits(), 0);
        gate.add_permits(1);
        assert_eq!(answered(&mut server).await.message.payload, "1");
        server.expect_puback(1).await;
        server.expect_silence(SECOND).await;
        gate.add_permits(4);
        for _ in 2..=5 {
            answered(&mut server).await;
        }
        settle().await;
        assert_eq!(responder.totals().answered, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_acknowledged_when_the_server_has_its_reply() {
    let (_responder, _session, mut server) = responder(echo(), ResponderConfig::default()).await;
    ask(&mut server, "replies/7", QoS::AtLeastOnce, 1).await;
    let reply = server.expect_publish().await;
    server.expect_silence(SECOND).await;
    server.puback(reply.packet_id.unwrap()).await;
    server.expect_puback(1).await;
    // What is ignored is acknowledged at once.
    ask(&mut server, "", QoS::AtLeastOnce, 2).await;
    let Packet::PubAck(ack) = server.recv().await else {
        panic!("it is not acknowledged");
    };
    assert_eq!(ack.reason_code, ReasonCode::SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_lets_what_runs_finish() {
    let gate = Arc::new(Semaphore::new(0));
    let (responder, session, mut server) =
        responder(gated(&gate), ResponderConfig::default()).await;
    ask(&mut server, "replies/7", QoS::AtLeastOnce, 1).await;
    settle().await;
    let shutdown = tokio::spawn(responder.shutdown(SECOND));
    let unsubscribe = server.expect_unsubscribe().await;
    server.unsuback(unsubscribe.packet_id, 1).await;
    // What comes now is not answered.
    ask(&mut server, "replies/7", QoS::AtLeastOnce, 2).await;
    settle().await;
    assert!(!shutdown.is_finished());
    gate.add_permits(2);
    assert_eq!(answered(&mut server).await.message.payload, "1");
    shutdown.await.unwrap().unwrap();
    for id in [1, 2] {
        server.expect_puback(id).await;
    }
    server.expect_silence(SECOND).await;
    assert!(!session.is_closed());
}

/// The codes of so many PUBACKs, and that there was one UNSUBSCRIBE, in any order.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes fails the test"
)]
async fn given_up(server: &mut ScriptedServer, acknowledgements: usize) -> Vec<ReasonCode> {
    let mut codes = Vec::new();
    for _ in 0..=acknowledgements {
        match server.recv().await {
            Packet::PubAck(ack) => codes.push(ack.reason_code),
            Packet::Unsubscribe(_) => {}
            packet => panic!("expected the end of a responder, got {packet:?}"),
        }
    }
    assert_eq!(codes.len(), acknowledgements);
    server.expect_silence(SECOND).await;
    codes
}

/// Two run, the third is not begun.
async fn three(server: &mut ScriptedServer) {
    for id in 1..=3 {
        ask(server, "replies/7", QoS::AtLeastOnce, id).await;
    }
    server.expect_silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn shutting_down_gives_up_at_its_deadline() {
    let gate = Arc::new(Semaphore::new(0));
    let options = ResponderConfig::default().with_max_running(2_usize);
    let (responder, session, mut server) = responder(gated(&gate), options).await;
    three(&mut server).await;
    let start = tokio::time::Instant::now();
    let error = responder.shutdown(SECOND).await.unwrap_err();
    assert_eq!((error.requests, start.elapsed()), (2, SECOND));
    gate.add_permits(3);
    let codes = given_up(&mut server, 3).await;
    assert_eq!(codes, [ReasonCode::UNSPECIFIED_ERROR; 3]);
    assert_eq!(session.unprocessed(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_gives_up_what_runs_wherever_it_is() {
    for shutdown in [false, true] {
        let gate = Arc::new(Semaphore::new(0));
        let options = ResponderConfig::default().with_max_running(2_usize);
        let (responder, session, mut server) = responder(gated(&gate), options).await;
        three(&mut server).await;
        if shutdown {
            assert!(now(responder.shutdown(SECOND)).await.is_none());
        } else {
            assert!(now(responder.ended()).await.is_none());
            drop(responder);
        }
        settle().await;
        gate.add_permits(1);
        given_up(&mut server, 3).await;
        assert_eq!(Arc::strong_count(&gate), 1, "nothing of it is left");
        assert!(!session.is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_comes_again_where_that_is_asked_for() {
    let gate = Arc::new(Semaphore::new(0));
    let options = ResponderConfig::default()
        .with_max_running(2_usize)
        .with_gives_back(true);
    let (responder, session, mut server) = responder(gated(&gate), options).await;
    three(&mut server).await;
    responder.shutdown(SECOND).await.unwrap_err();
    given_up(&mut server, 0).await;
    assert_eq!(session.unprocessed(), 3);
}

/// A panic would come again too, for ever.
#[tokio::test(start_paused = true)]
async fn a_request_that_panics_does_not_come_again() {
    let options = ResponderConfig::default().with_gives_back(true);
    let (responder, session, mut server) = responder(failing(), options).await;
    ask(&mut server, "replies/7", QoS::AtLeastOnce, 2).await;
    settle().await;
    assert_eq!((responder.totals().failed, session.unprocessed()), (1, 0));
    let Packet::PubAck(ack) = server.recv().await else {
        panic!("it is not acknowledged");
    };
    assert_eq!(ack.reason_code, ReasonCode::UNSPECIFIED_ERROR);
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_session_and_says_so() {
    let (responder, session, server) = responder(echo(), ResponderConfig::default()).await;
    drop(server);
    let end = responder.ended().await;
    assert!(matches!(end, ResponderEnd::SessionOver(_)), "{end:?}");
    assert!(matches!(
        responder.ended().await,
        ResponderEnd::SessionOver(_)
    ));
    responder.shutdown(SECOND).await.unwrap();
    assert!(session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn it_ends_where_the_service_or_the_server_will_have_no_more_of_it() {
    struct Broken;
    impl Service<Message> for Broken {
        type Response = Reply;
        type Error = BoxError;
        type Future = std::future::Pending<Result<Reply, BoxError>>;
        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), BoxError>> {
            std::task::Poll::Ready(Err("out of order".into()))
        }
        fn call(&mut self, _: Message) -> Self::Future {
            pending()
        }
    }
    let (broken, _session, mut server) = responder(Broken, ResponderConfig::default()).await;
    let end = broken.ended().await;
    assert!(
        matches!(&end, ResponderEnd::ServiceFailed(error) if error.to_string() == "out of order"),
        "{end:?}"
    );
    server.expect_unsubscribe().await;

    let (connector, mut listener) = connector(lasting());
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let subscribe = Subscribe::new("ask/+").unwrap();
    let respond = session.respond(subscribe, echo(), ResponderConfig::default());
    let (responder, _) = tokio::join!(respond, server.grant());
    let responder = responder.unwrap();
    // It goes on after a reconnect, until it is refused.
    for is_granted in [true, false] {
        drop(server);
        server = listener.accept().await;
        server.accept().await;
        if is_granted {
            server.grant().await;
            ask(&mut server, "replies/7", QoS::AtMostOnce, 0).await;
            answered(&mut server).await;
        } else {
            let id = server.expect_subscribe().await.packet_id;
            server.suback(id, vec![ReasonCode::NOT_AUTHORIZED]).await;
        }
    }
    let end = responder.ended().await;
    assert!(
        matches!(end, ResponderEnd::Refused(SubscribeError::Refused { .. })),
        "{end:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_work_is_refused_at_once() {
    let (session, mut server) = open(config(Version::V3)).await;
    let subscribe = || Subscribe::new("ask").unwrap();
    let options = ResponderConfig::default();
    let error = session.respond(subscribe(), echo(), options.clone()).await;
    assert!(matches!(error.unwrap_err(), ResponderError::Version));
    let options = options.with_max_running(0_usize);
    let error = session.respond(subscribe(), echo(), options).await;
    assert!(matches!(error.unwrap_err(), ResponderError::Config(_)));
    server.expect_silence(SECOND).await;

    let (session, mut server) = open(config(Version::V5)).await;
    let options = ResponderConfig::default();
    let (made, ()) = tokio::join!(session.respond(subscribe(), echo(), options), async {
        let id = server.expect_subscribe().await.packet_id;
        server.suback(id, vec![ReasonCode::NOT_AUTHORIZED]).await;
    });
    let error = made.unwrap_err();
    assert!(matches!(error, ResponderError::Subscribe(_)), "{error:?}");
}

/// A service may have nothing to say.
#[tokio::test(start_paused = true)]
async fn no_reply_is_no_reply() {
    let (session, mut server) = open(config(Version::V5)).await;
    let nothing = service_fn(|_: Message| async { Ok::<Option<Reply>, Infallible>(None) });
    let subscribe = Subscribe::new("ask/+").unwrap();
    let respond = session.respond(subscribe, nothing, ResponderConfig::default());
    let (responder, _) = tokio::join!(respond, server.grant());
    ask(&mut server, "replies/7", QoS::AtMostOnce, 0).await;
    server.expect_silence(SECOND).await;
    assert_eq!(responder.unwrap().totals().unanswered, 1);
    assert_eq!(Bytes::from_static(b""), Reply::new("").payload);
}
