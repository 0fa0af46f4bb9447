//! Which reply is whose, and what becomes of those that are nobody's.

use std::pin::pin;

use mqtt_client::{Message, QoS, RequesterConfig, Version, proto::packet::Packet};
use tower::Service;

use crate::{
    SECOND, asked,
    common::{config, now, open, settle},
    make, reply, request, requester, send,
};

#[tokio::test(start_paused = true)]
async fn replies_find_their_requests_in_any_order() {
    let (requester, _session, mut server) = requester(RequesterConfig::default()).await;
    let requests: Vec<_> = (0..10)
        .map(|_| tokio::spawn(requester.request(request())))
        .collect();
    let mut addresses = Vec::new();
    for _ in 0..10 {
        addresses.push(asked(&mut server).await);
    }
    for (number, address) in addresses.iter().enumerate().rev() {
        reply(&mut server, address, &number.to_string()).await;
    }
    let mut numbers = Vec::new();
    for request in requests {
        let reply = request.await.unwrap().unwrap();
        numbers.push(String::from_utf8(reply.payload.to_vec()).unwrap());
    }
    // Requests are sent in the order in which they were first polled.
    let expected: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected);
    assert_eq!(
        (requester.late_replies(), requester.unknown_replies()),
        (0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_reply_may_overtake_the_acknowledgement() {
    let (requester, session, mut server) = requester(RequesterConfig::default()).await;
    let (answer, packet_id) = tokio::join!(requester.request(request()), async {
        let request = server.expect_publish().await;
        reply(&mut server, &crate::Address::of(&request), "answer").await;
        request.packet_id.unwrap()
    });
    assert_eq!(answer.unwrap().payload, "answer");
    assert_eq!(session.in_flight(), 1);
    server.puback(packet_id).await;
    settle().await;
    assert_eq!(session.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn late_and_unknown_replies_are_counted_and_dropped() {
    let options = RequesterConfig::default().with_timeout(SECOND);
    let (requester, _session, mut server) = requester(options).await;
    let (outcome, address) = tokio::join!(requester.request(request()), asked(&mut server));
    outcome.unwrap_err();
    reply(&mut server, &address, "too late").await;
    let (outcome, again) = tokio::join!(requester.request(request()), async {
        let again = asked(&mut server).await;
        // Without correlation data, with some that was made up, and with that of another.
        let none = Message::new(&again.response_topic, "").unwrap();
        send(&mut server, none).await;
        let mut forged = again.correlation_data.to_vec();
        forged[15] ^= 1;
        let forged = crate::Address {
            correlation_data: forged.into(),
            response_topic: again.response_topic.clone(),
        };
        reply(&mut server, &forged, "forged").await;
        reply(&mut server, &again, "first").await;
        reply(&mut server, &again, "second").await;
        again
    });
    assert_eq!(outcome.unwrap().payload, "first");
    assert_ne!(address.correlation_data, again.correlation_data);
    settle().await;
    assert_eq!(
        (requester.late_replies(), requester.unknown_replies()),
        (2, 2)
    );
    assert_eq!(requester.open(), 0);
}

/// Whoever waits for one reply does not hold up the others, nor the server's window.
#[tokio::test(start_paused = true)]
async fn replies_are_taken_while_nobody_polls() {
    let (session, mut server) = open(config(Version::V5).with_receive_maximum(1_u16)).await;
    let requester = make(&session, &mut server, RequesterConfig::default()).await;
    let mut unpolled = pin!(requester.request(request()));
    assert!(now(&mut unpolled).await.is_none());
    let first = asked(&mut server).await;
    for id in 1..=3 {
        let topic = first.response_topic.as_str();
        server.publish(topic, "", QoS::AtLeastOnce, id).await;
        server.expect_puback(id).await;
    }
    reply(&mut server, &first, "answer").await;
    settle().await;
    assert_eq!(now(unpolled).await.unwrap().unwrap().payload, "answer");
}

/// Dropped after each poll: nothing is left of it, and it was sent once or not at all.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_is_forgotten() {
    for polls in 0..4 {
        for as_service in [false, true] {
            let (mut requester, session, mut server) = requester(RequesterConfig::default()).await;
            let mut future: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = if as_service {
                Box::pin(requester.call(request()))
            } else {
                Box::pin(requester.request(request()))
            };
            let mut address = None;
            for poll in 0..polls {
                assert!(now(&mut future).await.is_none());
                assert_eq!(requester.open(), 1);
                if poll == 1 {
                    address = Some(asked(&mut server).await);
                }
                settle().await;
            }
            drop(future);
            assert_eq!(requester.open(), 0);
            if polls == 0 {
                server.expect_silence(SECOND).await;
            }
            if let Some(address) = address {
                reply(&mut server, &address, "for nobody").await;
                settle().await;
                assert_eq!(requester.late_replies(), 1);
            }
            assert!(!session.is_closed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_requester_that_is_dropped_unsubscribes() {
    let (requester, session, mut server) = requester(RequesterConfig::default()).await;
    let clone = requester.clone();
    let mut waits = Box::pin(clone.request(request()));
    assert!(now(&mut waits).await.is_none());
    let address = asked(&mut server).await;
    drop((requester, clone));
    server.expect_silence(SECOND).await;
    reply(&mut server, &address, "answer").await;
    assert_eq!(waits.as_mut().await.unwrap().payload, "answer");
    drop(waits);
    let unsubscribe = server.expect_unsubscribe().await;
    assert_eq!(
        unsubscribe.filters[0].as_str(),
        address.response_topic.as_str()
    );
    drop(session);
    assert!(matches!(server.recv().await, Packet::Disconnect(_)));
}

#[tokio::test(start_paused = true)]
async fn making_one_may_be_given_up() {
    for polls in 0..3 {
        let (session, mut server) = open(config(Version::V5)).await;
        let mut making = Box::pin(session.requester(RequesterConfig::default()));
        for _ in 0..polls {
            assert!(now(&mut making).await.is_none());
            settle().await;
        }
        drop(making);
        if polls > 0 {
            let topic = server.grant().await.filters[0].filter.to_string();
            let unsubscribe = server.expect_unsubscribe().await;
            assert_eq!(unsubscribe.filters[0].as_str(), topic);
        }
        server.expect_silence(SECOND).await;
    }
}
