//! What a requester subscribes to, what its requests say, and what is refused at once.

use std::time::Duration;

use mqtt_client::{
    Delivery, Message, PublishError, QoS, ReasonCode, Request, RequestError, RequesterConfig,
    RequesterError, SubscribeError, Version,
    proto::{
        Utf8String,
        packet::{Ack, ConnAck, Packet, PublishProperties},
    },
};
use tokio::time::Instant;

use crate::{
    Address, SECOND, asked,
    common::{config, now, open, open_with, report, settle},
    make, reply, request, requester,
};

/// [MQTT5-3.3.2-13] [MQTT5-3.3.2-14]
#[tokio::test(start_paused = true)]
async fn the_response_topic_is_of_the_client_and_unguessable() {
    let (session, mut server) = open(config(Version::V5)).await;
    let mut topics = Vec::new();
    for _ in 0..2 {
        let requester = make(&session, &mut server, RequesterConfig::default()).await;
        let topic = requester.response_topic().to_string();
        let own = topic.strip_prefix("responses/gateway/").unwrap().to_owned();
        assert_eq!(own.len(), 32, "{own}");
        topics.push((own, requester));
    }
    assert_ne!(topics[0].0, topics[1].0);
}

/// [MQTT5-3.1.2-28] and section 4.10.1
#[tokio::test(start_paused = true)]
async fn response_information_is_the_basis_where_it_was_asked_for() {
    let mut connack = ConnAck::accepted();
    let information = Utf8String::new("tenants/9/answers/").unwrap();
    connack.properties.response_information = Some(information);
    let config = config(Version::V5).with_request_response_information(true);
    let (connector, mut listener) = crate::common::connector(config);
    let (session, (connect, mut server)) =
        tokio::join!(connector.connect(crate::common::endpoint()), async {
            let mut server = listener.accept().await;
            (server.accept_with(connack).await, server)
        });
    let asked_for = connect.properties.request_response_information;
    assert_eq!(asked_for, Some(true));
    let options = RequesterConfig::default().with_response_prefix("elsewhere");
    let requester = make(&session.unwrap(), &mut server, options).await;
    let topic = requester.response_topic().as_str();
    let own = topic.strip_prefix("tenants/9/answers/").unwrap();
    assert_eq!(own.len(), 32, "{topic}");
}

#[tokio::test(start_paused = true)]
async fn response_information_that_is_no_topic_is_refused() {
    let mut connack = ConnAck::accepted();
    connack.properties.response_information = Some(Utf8String::new("a/#").unwrap());
    let (session, mut server) = open_with(config(Version::V5), connack).await;
    let error = session.requester(RequesterConfig::default()).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, RequesterError::ResponseTopic(_)),
        "{error:?}"
    );
    server.expect_silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_version_without_response_topics_is_refused() {
    let (session, mut server) = open(config(Version::V3)).await;
    let error = session.requester(RequesterConfig::default()).await;
    assert!(matches!(error.unwrap_err(), RequesterError::Version));
    server.expect_silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_response_topic_that_is_refused_makes_no_requester() {
    let (session, mut server) = open(config(Version::V5)).await;
    let (made, ()) = tokio::join!(session.requester(RequesterConfig::default()), async {
        let id = server.expect_subscribe().await.packet_id;
        server.suback(id, vec![ReasonCode::NOT_AUTHORIZED]).await;
    });
    let error = made.unwrap_err();
    assert!(
        matches!(
            error,
            RequesterError::Subscribe(SubscribeError::Refused { .. })
        ),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_carries_its_address_and_its_time() {
    for (options, own_expiry, expiry) in [
        (RequesterConfig::default(), None, Some(3)),
        (RequesterConfig::default(), Some(60), Some(60)),
        (
            RequesterConfig::default().with_expire_requests(false),
            None,
            None,
        ),
    ] {
        let (requester, _session, mut server) = requester(options).await;
        let properties = PublishProperties {
            message_expiry_interval: own_expiry,
            content_type: Some(Utf8String::new("text/plain").unwrap()),
            ..PublishProperties::default()
        };
        let request = request()
            .with_properties(properties)
            .with_timeout(Duration::from_millis(2_001));
        let (answer, ()) = tokio::join!(requester.request(request), async {
            let request = server.expect_publish().await;
            let properties = &request.message.properties;
            assert_eq!(properties.message_expiry_interval, expiry);
            assert_eq!(
                properties.response_topic.as_ref().unwrap(),
                requester.response_topic()
            );
            assert!(properties.content_type.is_some());
            assert_eq!(request.message.qos, QoS::AtLeastOnce);
            assert_eq!(request.message.topic, "ask");
            server.puback(request.packet_id.unwrap()).await;
            reply(&mut server, &Address::of(&request), "answer").await;
        });
        assert_eq!(answer.unwrap().payload, "answer");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_the_requesters_to_set_is_refused() {
    let (requester, _session, mut server) = requester(RequesterConfig::default()).await;
    let mut with_topic = request();
    with_topic.message.properties.response_topic = Some("elsewhere".try_into().unwrap());
    let mut with_data = request();
    let data = mqtt_client::proto::BinaryData::new("mine").unwrap();
    with_data.message.properties.correlation_data = Some(data);
    for request in [with_topic, with_data] {
        let error = requester.request(request).await.unwrap_err();
        assert!(matches!(error, RequestError::Reserved), "{error:?}");
        assert_eq!(error.delivery(), Delivery::NotSent);
    }
    let retained = Message::new("ask", "").unwrap().with_retain(true);
    let error = requester.request(Request::from(retained)).await;
    assert!(matches!(error.unwrap_err(), RequestError::Retained));
    server.expect_silence(SECOND).await;
    assert_eq!(requester.open(), 0);
}

/// [MQTT5 3.4.2.1] [MQTT5 3.5.2.1]
#[tokio::test(start_paused = true)]
async fn where_nobody_subscribes_nobody_is_waited_for() {
    let (requester, _session, mut server) = requester(RequesterConfig::default()).await;
    let start = Instant::now();
    let none = ReasonCode::NO_MATCHING_SUBSCRIBERS;
    let (outcome, ()) = tokio::join!(requester.request(request()), async {
        let id = server.expect_publish().await.packet_id.unwrap();
        server
            .send(Packet::PubAck(Ack::with_reason(id, none)))
            .await;
    });
    assert!(matches!(outcome.unwrap_err(), RequestError::NoSubscribers));
    let request = request().with_qos(QoS::ExactlyOnce);
    let (outcome, ()) = tokio::join!(requester.request(request), async {
        let id = server.expect_publish().await.packet_id.unwrap();
        server
            .send(Packet::PubRec(Ack::with_reason(id, none)))
            .await;
        assert!(matches!(server.recv().await, Packet::PubRel(_)));
        server.send(Packet::PubComp(Ack::new(id))).await;
    });
    assert!(matches!(outcome.unwrap_err(), RequestError::NoSubscribers));
    assert_eq!((start.elapsed(), requester.open()), (Duration::ZERO, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_server_refuses_is_over() {
    let (requester, _session, mut server) = requester(RequesterConfig::default()).await;
    let (outcome, ()) = tokio::join!(requester.request(request()), async {
        let id = server.expect_publish().await.packet_id.unwrap();
        let refused = Ack::with_reason(id, ReasonCode::NOT_AUTHORIZED);
        server.send(Packet::PubAck(refused)).await;
    });
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, RequestError::Publish(PublishError::Rejected { .. })),
        "{error:?}"
    );
    assert_eq!(error.delivery(), Delivery::Rejected);
    assert_eq!(
        report(&error),
        "the request was not published: the server rejected the message: not authorized (0x87)"
    );
    assert_eq!(requester.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn time_is_over_wherever_the_request_is_and_says_what_is_known_of_it() {
    let options = RequesterConfig::default().with_timeout(SECOND * 2);
    for (qos, acknowledged, delivery) in [
        (QoS::AtMostOnce, false, Delivery::Unknown),
        (QoS::AtLeastOnce, false, Delivery::Unknown),
        (QoS::AtLeastOnce, true, Delivery::Acknowledged),
    ] {
        let (requester, _session, mut server) = requester(options.clone()).await;
        let start = Instant::now();
        let (outcome, ()) = tokio::join!(requester.request(request().with_qos(qos)), async {
            let request = server.expect_publish().await;
            if acknowledged {
                server.puback(request.packet_id.unwrap()).await;
            }
        });
        let error = outcome.unwrap_err();
        assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");
        assert_eq!((error.delivery(), start.elapsed()), (delivery, SECOND * 2));
        assert_eq!(requester.open(), 0);
    }
    // Without a place or room in the window nothing was sent.
    let (session, mut server) = open(config(Version::V5).with_max_in_flight(1_u16)).await;
    let requester = make(&session, &mut server, options.with_max_open(2_usize)).await;
    let mut requests: Vec<_> = (0..3)
        .map(|_| tokio::spawn(requester.request(request())))
        .collect();
    let mut late = requests.split_off(1);
    for late in &mut late {
        let error = late.await.unwrap().unwrap_err();
        assert!(matches!(error, RequestError::TimedOut { timeout, .. } if timeout == SECOND * 2));
        assert_eq!(error.delivery(), Delivery::NotSent);
    }
    assert_eq!(asked(&mut server).await.correlation_data.len(), 16);
    server.expect_silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_ends_its_requests() {
    let (requester, session, server) = requester(RequesterConfig::default()).await;
    let open = tokio::spawn(requester.request(request()));
    settle().await;
    drop(server);
    let error = open.await.unwrap().unwrap_err();
    assert!(matches!(error, RequestError::Lost { .. }), "{error:?}");
    assert_eq!(error.delivery(), Delivery::Unknown);
    session.closed().await;
    let error = now(requester.request(request()))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.delivery(), Delivery::NotSent);
    let mut service = requester.clone();
    let ready = tower::ServiceExt::<Request>::ready(&mut service).await;
    assert_eq!(ready.unwrap_err().delivery(), Delivery::NotSent);
}
