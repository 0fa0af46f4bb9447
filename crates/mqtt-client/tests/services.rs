//! Publishers and subscribers as tower services: readiness, and the layers people stack on them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{future::poll_fn, num::NonZeroU32, time::Duration};

use common::{config, no_outbox, now, open, open_with, publish, settle};
use mqtt_client::{
    Delivery, Publish, PublishError, Published, QoS, SessionConnector, Subscribe, Version,
    proto::packet::ConnAck,
};
use mqtt_testkit::ScriptedServer;
use tokio::time::timeout;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry, util::BoxCloneSyncService};

/// Acknowledges so many publishes.
async fn acknowledge(server: &mut ScriptedServer, n: usize) {
    for _ in 0..n {
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_waits_for_room_and_reserves_nothing() {
    let (session, mut server) = open(
        config(Version::V5)
            .with_max_in_flight(1_u16)
            .with_outbox(no_outbox()),
    )
    .await;
    let (mut first, mut second, mut idle) = (
        session.publisher(),
        session.publisher(),
        session.publisher(),
    );
    // All three are ready for the one place; one that is ready and never called holds nobody up.
    for publisher in [&mut first, &mut second, &mut idle] {
        assert!(now(poll_fn(|cx| publisher.poll_ready(cx))).await.is_some());
    }
    let mut sent = Box::pin(first.call(publish(QoS::AtLeastOnce)));
    let mut waits = Box::pin(second.call(publish(QoS::AtLeastOnce)));
    assert!(now(&mut sent).await.is_none());
    assert!(now(&mut waits).await.is_none());
    assert!(now(poll_fn(|cx| idle.poll_ready(cx))).await.is_none());
    let ready = tokio::spawn(async move {
        poll_fn(|cx| idle.poll_ready(cx)).await.unwrap();
        idle
    });
    acknowledge(&mut server, 1).await;
    sent.await.unwrap();
    assert!(!ready.is_finished(), "the one who waits goes first");
    let (outcome, ()) = tokio::join!(waits, acknowledge(&mut server, 1));
    outcome.unwrap();
    ready.await.unwrap();
}

/// The one who waits was woken for the room and does not take it: gives up, or asks for too much.
#[tokio::test(start_paused = true)]
async fn readiness_is_told_of_room_that_the_one_before_does_not_take() {
    let large = Publish::new("t", vec![0; 200]).unwrap();
    for gives_up in [true, false] {
        let mut connack = ConnAck::accepted();
        connack.properties.maximum_packet_size = NonZeroU32::new(100);
        let (session, mut server) = open_with(
            config(Version::V5)
                .with_max_in_flight(1_u16)
                .with_outbox(no_outbox()),
            connack,
        )
        .await;
        let mut publisher = session.publisher();
        let mut sent = Box::pin(publisher.call(publish(QoS::AtLeastOnce)));
        assert!(now(&mut sent).await.is_none());
        let request = large.clone().with_qos(QoS::AtLeastOnce);
        let mut waits = Box::pin(publisher.call(request));
        assert!(now(&mut waits).await.is_none());
        let ready = tokio::spawn(async move { poll_fn(|cx| publisher.poll_ready(cx)).await });
        acknowledge(&mut server, 1).await;
        sent.await.unwrap();
        if gives_up {
            drop(waits);
        } else {
            let error = waits.await.unwrap_err();
            assert!(matches!(error, PublishError::Usage(_)), "{error:?}");
        }
        let ready = timeout(Duration::from_secs(1), ready).await;
        ready.expect("it is not told").unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_fails_when_the_connection_has_ended() {
    let (session, server) = open(config(Version::V5)).await;
    let mut publisher = session.publisher();
    let mut subscriber = session.subscriber();
    drop(server);
    session.closed().await;
    let error = publisher.ready().await.unwrap_err();
    assert_eq!(error.delivery(), Delivery::NotSent);
    assert!(subscriber.ready().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_the_wait_for_an_acknowledgement() {
    let (session, _server) = open(config(Version::V5)).await;
    let mut service = ServiceBuilder::new()
        .timeout(Duration::from_secs(2))
        .service(session.publisher());
    let start = tokio::time::Instant::now();
    let error = service
        .ready()
        .await
        .unwrap()
        .call(publish(QoS::AtLeastOnce))
        .await
        .unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>());
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn load_is_shed_when_the_window_is_full() {
    let (session, mut server) = open(
        config(Version::V5)
            .with_max_in_flight(1_u16)
            .with_outbox(no_outbox()),
    )
    .await;
    let mut service = ServiceBuilder::new()
        .load_shed()
        .service(session.publisher());
    let mut first = Box::pin(
        service
            .ready()
            .await
            .unwrap()
            .call(publish(QoS::AtLeastOnce)),
    );
    assert!(now(&mut first).await.is_none());
    let shed = service
        .ready()
        .await
        .unwrap()
        .call(publish(QoS::AtLeastOnce))
        .await
        .unwrap_err();
    assert!(shed.is::<tower::load_shed::error::Overloaded>());
    let (outcome, ()) = tokio::join!(first, acknowledge(&mut server, 1));
    outcome.unwrap();
    let (outcome, ()) = tokio::join!(
        service
            .ready()
            .await
            .unwrap()
            .call(publish(QoS::AtLeastOnce)),
        acknowledge(&mut server, 1)
    );
    outcome.unwrap();
}

#[tokio::test(start_paused = true)]
async fn limits_buffers_and_boxes_stack() {
    let (session, mut server) = open(config(Version::V5)).await;
    let service = ServiceBuilder::new()
        .buffer(16)
        .concurrency_limit(2)
        .service(session.publisher());
    let service: BoxCloneSyncService<Publish, Published, BoxError> =
        BoxCloneSyncService::new(service);
    let calls: Vec<_> = (0..8)
        .map(|_| tokio::spawn(service.clone().oneshot(publish(QoS::AtLeastOnce))))
        .collect();
    let (first, second) = (server.expect_publish().await, server.expect_publish().await);
    server.expect_silence(Duration::from_secs(1)).await;
    server.puback(first.packet_id.unwrap()).await;
    server.puback(second.packet_id.unwrap()).await;
    acknowledge(&mut server, 6).await;
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

/// Retries what was certainly not delivered, a few times.
#[derive(Clone)]
struct NotDelivered(u32);

impl retry::Policy<Publish, Published, PublishError> for NotDelivered {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Publish,
        result: &mut Result<Published, PublishError>,
    ) -> Option<std::future::Ready<()>> {
        let error = result.as_ref().err()?;
        let again = error.delivery() == Delivery::Rejected && self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        again.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, publish: &Publish) -> Option<Publish> {
        Some(publish.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_policy_can_tell_what_is_safe_to_repeat() {
    use mqtt_client::{
        ReasonCode,
        proto::packet::{Ack, Packet},
    };
    let (session, mut server) = open(config(Version::V5)).await;
    let service = ServiceBuilder::new()
        .retry(NotDelivered(3))
        .service(session.publisher());
    let (outcome, ()) = tokio::join!(service.oneshot(publish(QoS::AtLeastOnce)), async {
        let id = server.expect_publish().await.packet_id.unwrap();
        server
            .send(Packet::PubAck(Ack::with_reason(
                id,
                ReasonCode::QUOTA_EXCEEDED,
            )))
            .await;
        acknowledge(&mut server, 1).await;
    });
    outcome.unwrap();
}

#[tokio::test(start_paused = true)]
async fn connecting_and_subscribing_are_services_too() {
    let (connector, mut listener) = mqtt_testkit::memory();
    let connector = SessionConnector::with_connector(connector, config(Version::V5)).unwrap();
    let connector = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(connector);
    let (session, mut server) = tokio::join!(connector.oneshot(common::endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let (messages, _) = tokio::join!(
        session.subscriber().oneshot(Subscribe::new("a").unwrap()),
        server.grant()
    );
    let mut messages = messages.unwrap();
    server.publish("a", "x", QoS::AtMostOnce, 0).await;
    assert_eq!(messages.recv().await.unwrap().payload, "x");
    settle().await;
}
