//! Requests over connections that are lost.

use std::{pin::pin, time::Duration};

use mqtt_client::{
    Delivery, ReasonCode, RequestError, RequesterConfig, SubscribeError, proto::packet::ConnAck,
};
use mqtt_testkit::{MemoryListener, ScriptedServer};
use tokio::time::Instant;

use crate::{
    SECOND, asked,
    common::{connector, endpoint, now, settle},
    lasting, make, reply, request,
};

async fn accept(listener: &mut MemoryListener, session_present: bool) -> ScriptedServer {
    let mut server = listener.accept().await;
    let mut connack = ConnAck::accepted();
    connack.session_present = session_present;
    server.accept_with(connack).await;
    server
}

#[tokio::test(start_paused = true)]
async fn a_reply_may_come_on_the_next_connection() {
    for (expiry, session_present) in [(3_600, true), (3_600, false), (0, false)] {
        for acknowledged in [true, false] {
            let config = lasting()
                .with_session_expiry(mqtt_client::pool::Limit::After(Duration::from_secs(expiry)));
            let (connector, mut listener) = connector(config);
            let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
                accept(&mut listener, false).await
            });
            let session = session.unwrap();
            let requester = make(&session, &mut server, RequesterConfig::default()).await;
            let mut waits = pin!(requester.request(request()));
            assert!(now(&mut waits).await.is_none());
            let published = server.expect_publish().await;
            if acknowledged {
                server.puback(published.packet_id.unwrap()).await;
                settle().await;
            }
            assert!(now(&mut waits).await.is_none());
            drop(server);
            let (reply, ()) = tokio::join!(waits, async {
                let mut server = accept(&mut listener, session_present).await;
                if !session_present {
                    let subscribe = server.grant().await;
                    let filter = subscribe.filters[0].filter.as_str();
                    assert_eq!(filter, requester.response_topic().as_str());
                }
                if session_present && !acknowledged {
                    assert!(server.expect_publish().await.dup);
                }
                reply(&mut server, &crate::Address::of(&published), "answer").await;
                settle().await;
            });
            assert_eq!(reply.unwrap().payload, "answer");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_session_left_unknown_is_told_at_the_deadline() {
    let (connector, mut listener) = connector(lasting());
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        accept(&mut listener, false).await
    });
    let session = session.unwrap();
    let requester = make(&session, &mut server, RequesterConfig::default()).await;
    let open = tokio::spawn(requester.request(request()));
    server.expect_publish().await;
    drop(server);
    let mut server = accept(&mut listener, false).await;
    server.grant().await;
    let error = open.await.unwrap().unwrap_err();
    assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");
    assert_eq!(error.delivery(), Delivery::Unknown);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_while_there_is_no_connection_waits_for_the_next() {
    let (connector, mut listener) = connector(lasting());
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        accept(&mut listener, false).await
    });
    let session = session.unwrap();
    let requester = make(&session, &mut server, RequesterConfig::default()).await;
    drop(server);
    settle().await;
    let waits = tokio::spawn(requester.request(request()));
    let mut server = accept(&mut listener, false).await;
    // The subscription goes first, so that the reply has somewhere to go.
    server.grant().await;
    let address = asked(&mut server).await;
    reply(&mut server, &address, "answer").await;
    assert_eq!(waits.await.unwrap().unwrap().payload, "answer");
}

#[tokio::test(start_paused = true)]
async fn a_response_topic_that_is_refused_later_ends_every_request() {
    let (connector, mut listener) = connector(lasting());
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        accept(&mut listener, false).await
    });
    let session = session.unwrap();
    let options = RequesterConfig::default().with_max_open(2_usize);
    let requester = make(&session, &mut server, options).await;
    let requests: Vec<_> = (0..3)
        .map(|_| tokio::spawn(requester.request(request().with_timeout(SECOND * 100))))
        .collect();
    for _ in 0..2 {
        asked(&mut server).await;
    }
    drop(server);
    let mut server = accept(&mut listener, false).await;
    let id = server.expect_subscribe().await.packet_id;
    server.suback(id, vec![ReasonCode::NOT_AUTHORIZED]).await;
    let refused = Instant::now();
    for (request, delivery) in requests.into_iter().zip([
        Delivery::Acknowledged,
        Delivery::Acknowledged,
        Delivery::NotSent,
    ]) {
        let error = request.await.unwrap().unwrap_err();
        assert!(
            matches!(
                &error,
                RequestError::Refused {
                    refused: SubscribeError::Refused { .. },
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(error.delivery(), delivery);
        assert_eq!(refused.elapsed(), Duration::ZERO, "told at once");
    }
    let error = now(requester.request(request()))
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, RequestError::Refused { .. }), "{error:?}");
    assert!(!session.is_closed());
}
