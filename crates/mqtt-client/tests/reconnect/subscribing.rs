//! What becomes of subscriptions and what they were sent.

use std::pin::pin;

use mqtt_client::{
    Publish, QoS, ReasonCode, Subscribe, SubscribeError, Version,
    proto::packet::{ConnAck, Packet},
};

use crate::{
    SECOND, accept,
    common::{BOTH, now, publish, settle},
    config, held, open, subscribed,
};

#[tokio::test(start_paused = true)]
async fn subscriptions_are_asked_for_again_where_the_session_is_lost() {
    for version in BOTH {
        let (session, mut server, mut listener) = open(config(version)).await;
        let mut streams = Vec::new();
        for number in 0..20 {
            let subscribe = Subscribe::new(format!("devices/{number}")).unwrap();
            let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
            streams.push(stream.unwrap());
        }
        drop(server);
        let mut server = accept(&mut listener, false).await;
        let mut filters = Vec::new();
        while filters.len() < 20 {
            let subscribe = server.grant().await;
            assert!(subscribe.filters.len() <= 8, "{}", subscribe.filters.len());
            filters.extend(
                subscribe
                    .filters
                    .into_iter()
                    .map(|filter| filter.filter.to_string()),
            );
        }
        let expected: Vec<_> = (0..20).map(|number| format!("devices/{number}")).collect();
        assert_eq!(filters, expected);
        server.publish("devices/7", "on", QoS::AtMostOnce, 0).await;
        assert_eq!(streams[7].recv().await.unwrap().payload, "on");
        server.expect_silence(SECOND).await;
    }
}

/// With five packets to ask for twenty subscriptions one by one it would be a flood.
#[tokio::test(start_paused = true)]
async fn no_more_than_four_subscribes_wait_for_an_answer() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut streams = Vec::new();
    for number in 0..50 {
        let subscribe = Subscribe::new(format!("devices/{number}")).unwrap();
        let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
        streams.push(stream.unwrap());
    }
    drop(server);
    let mut server = accept(&mut listener, false).await;
    for _ in 0..4 {
        server.expect_subscribe().await;
    }
    server.expect_silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_the_session_is_not_asked_again() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let subscribe = Subscribe::new("a/+").unwrap();
    let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
    drop(server);
    let mut server = accept(&mut listener, true).await;
    server.expect_silence(SECOND).await;
    server.publish("a/b", "on", QoS::AtLeastOnce, 1).await;
    assert_eq!(stream.unwrap().recv().await.unwrap().payload, "on");
    server.expect_puback(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_refused_later_ends_and_says_why() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut streams = Vec::new();
    for filter in ["good", "bad", "fine"] {
        let subscribe = Subscribe::new(filter).unwrap();
        let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
        streams.push(stream.unwrap());
    }
    drop(server);
    let mut server = accept(&mut listener, false).await;
    let subscribe = server.expect_subscribe().await;
    assert_eq!(subscribe.filters.len(), 3);
    let codes = vec![
        ReasonCode::GRANTED_QOS_2,
        ReasonCode::NOT_AUTHORIZED,
        ReasonCode::GRANTED_QOS_2,
    ];
    server.suback(subscribe.packet_id, codes).await;
    assert_eq!(streams[1].recv().await, None);
    let refused = streams[1].refused().unwrap();
    assert!(
        matches!(&refused, SubscribeError::Refused { reason_codes, .. }
            if *reason_codes == [ReasonCode::NOT_AUTHORIZED]),
        "{refused:?}"
    );
    for index in [0, 2] {
        assert!(streams[index].refused().is_none());
    }
    server.publish("fine", "on", QoS::AtMostOnce, 0).await;
    assert_eq!(streams[2].recv().await.unwrap().payload, "on");
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_that_was_cut_off_is_answered_on_the_next_connection() {
    for session_present in [true, false] {
        let (session, mut server, mut listener) = open(config(Version::V5)).await;
        let mut subscribing = pin!(session.subscribe(Subscribe::new("a/+").unwrap()));
        assert!(now(&mut subscribing).await.is_none());
        server.expect_subscribe().await;
        drop(server);
        let (stream, mut server) = tokio::join!(subscribing, async {
            let mut server = accept(&mut listener, session_present).await;
            server.grant().await;
            server
        });
        server.publish("a/b", "on", QoS::AtMostOnce, 0).await;
        assert_eq!(stream.unwrap().recv().await.unwrap().payload, "on");
    }
}

/// What is sent again fills the outbound buffer, and nobody else asks later.
#[tokio::test(start_paused = true)]
async fn a_subscribe_is_asked_again_behind_any_number_of_publishes() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut publishes = Vec::new();
    for _ in 0..80 {
        let publish = Publish::new("a/b", vec![0; 1_024])
            .unwrap()
            .with_qos(QoS::AtLeastOnce);
        let mut publishing = Box::pin(session.publish(publish));
        assert!(now(&mut publishing).await.is_none());
        server.expect_publish().await;
        publishes.push(publishing);
    }
    let mut subscribing = pin!(session.subscribe(Subscribe::new("a/+").unwrap()));
    assert!(now(&mut subscribing).await.is_none());
    settle().await;
    drop(server);
    let mut server = accept(&mut listener, true).await;
    for _ in 0..80 {
        assert!(server.expect_publish().await.dup);
    }
    server.grant().await;
    subscribing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unsubscribe_is_made_up_for_on_the_next_connection() {
    for session_present in [true, false] {
        let (session, mut server, mut listener) = open(config(Version::V5)).await;
        let (stream, _) = tokio::join!(
            session.subscribe(Subscribe::new("a/+").unwrap()),
            server.grant()
        );
        drop(server);
        settle().await;
        let (left, mut server) = tokio::join!(stream.unwrap().unsubscribe(), async {
            let mut server = accept(&mut listener, session_present).await;
            if session_present {
                let unsubscribe = server.expect_unsubscribe().await;
                server.unsuback(unsubscribe.packet_id, 1).await;
            }
            server
        });
        let codes = left.unwrap().reason_codes;
        assert_eq!(
            codes.len(),
            usize::from(session_present),
            "one if it was asked"
        );
        server.expect_silence(SECOND).await;
    }
}

/// A reader that has stopped holds as much as the server may send, however often it comes back.
#[tokio::test(start_paused = true)]
async fn unread_messages_do_not_add_up_over_connections() {
    for session_present in [true, false] {
        let config = config(Version::V5).with_receive_maximum(Some(10));
        let (session, mut server, mut listener) = open(config).await;
        let subscribe = Subscribe::new("a/+").unwrap().with_max_messages(15);
        let (stream, _) = tokio::join!(session.subscribe(subscribe), server.grant());
        for _ in 0..5 {
            for id in 1..=10 {
                server.publish("a/b", "on", QoS::AtLeastOnce, id).await;
            }
            settle().await;
            drop(server);
            server = accept(&mut listener, session_present).await;
            if !session_present {
                server.grant().await;
            }
        }
        settle().await;
        let mut stream = stream.unwrap();
        let mut held = 0;
        while now(stream.recv()).await.is_some() {
            held += 1;
        }
        assert_eq!(held, if session_present { 0 } else { 15 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_refused_later_holds_up_no_acknowledgement() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut good = subscribed(&session, &mut server, "a/+").await;
    let mut bad = subscribed(&session, &mut server, "a/#").await;
    drop(server);
    let mut server = accept(&mut listener, false).await;
    let subscribe = server.expect_subscribe().await;
    let codes = vec![ReasonCode::GRANTED_QOS_2, ReasonCode::NOT_AUTHORIZED];
    server.suback(subscribe.packet_id, codes).await;
    assert_eq!(bad.recv().await, None);
    server.publish("a/b", "on", QoS::AtLeastOnce, 1).await;
    assert_eq!(good.recv().await.unwrap().payload, "on");
    server.expect_puback(1).await;
    assert_eq!(bad.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn subscribes_that_were_cut_off_and_given_up_leave_nothing() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    for while_asked in [false, true] {
        let mut subscribing = Box::pin(session.subscribe(Subscribe::new("a/+").unwrap()));
        assert!(now(&mut subscribing).await.is_none());
        server.expect_subscribe().await;
        drop(server);
        settle().await;
        if !while_asked {
            drop(subscribing);
            server = accept(&mut listener, true).await;
        } else {
            server = accept(&mut listener, true).await;
            let subscribe = server.expect_subscribe().await;
            drop(subscribing);
            server
                .suback(subscribe.packet_id, vec![ReasonCode::GRANTED_QOS_2])
                .await;
        }
        let unsubscribe = server.expect_unsubscribe().await;
        server.unsuback(unsubscribe.packet_id, 1).await;
        settle().await;
        assert_eq!(held(&session, "Abandoned"), 0, "{session:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_several_streams_leave_nothing_when_they_are_forgotten() {
    for session_present in [true, false] {
        let (session, mut server, mut listener) = open(config(Version::V5)).await;
        let _streams = [
            subscribed(&session, &mut server, "a/+").await,
            subscribed(&session, &mut server, "a/#").await,
        ];
        for _ in 0..5 {
            server.publish("a/b", "on", QoS::AtLeastOnce, 1).await;
            settle().await;
            drop(server);
            server = accept(&mut listener, session_present).await;
            if !session_present {
                server.grant().await;
            }
        }
        settle().await;
        let shared = format!("{session:?}");
        let shared = shared.split("ledger: ").nth(1).unwrap();
        let shared = shared.split("driver:").next().unwrap();
        // One for each loss of the session that the queues still hold would be fine.
        assert!(shared.matches("arrival").count() <= 1, "{shared}");
    }
}

/// Answers out of order: a key that a dropped subscription had is another's by then.
#[tokio::test(start_paused = true)]
async fn a_subscription_in_the_place_of_a_dropped_one_is_asked_for_once() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut streams = Vec::new();
    for number in 0..40 {
        streams.push(subscribed(&session, &mut server, &format!("devices/{number}")).await);
    }
    drop(server);
    let mut server = accept(&mut listener, false).await;
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(server.expect_subscribe().await);
    }
    drop(streams.pop());
    server.expect_unsubscribe().await;
    let mut subscribing = pin!(session.subscribe(Subscribe::new("new").unwrap()));
    assert!(now(&mut subscribing).await.is_none());
    let new = server.expect_subscribe().await;
    for subscribe in asked {
        let codes = vec![ReasonCode::GRANTED_QOS_2; subscribe.filters.len()];
        server.suback(subscribe.packet_id, codes).await;
    }
    let rest = server.expect_subscribe().await;
    let filters: Vec<_> = rest
        .filters
        .iter()
        .map(|filter| filter.filter.to_string())
        .collect();
    let codes = vec![ReasonCode::GRANTED_QOS_2; filters.len()];
    server.suback(rest.packet_id, codes).await;
    settle().await;
    let early = now(&mut subscribing).await;
    // The key of its answer would be that of this publish.
    let mut publishing = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut publishing).await.is_none());
    server
        .suback(new.packet_id, vec![ReasonCode::GRANTED_QOS_2])
        .await;
    settle().await;
    assert!(now(&mut publishing).await.is_none());
    assert!(early.is_none() && filters.len() == 7, "{filters:?}");
    subscribing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_the_next_server_does_not_take_costs_no_other() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let mut good = subscribed(&session, &mut server, "good").await;
    let mut bad = subscribed(&session, &mut server, "bad/#").await;
    let fine = subscribed(&session, &mut server, "fine").await;
    drop(server);
    let mut server = listener.accept().await;
    let mut connack = ConnAck::accepted();
    connack.properties.wildcard_subscription_available = Some(false);
    server.accept_with(connack).await;
    assert_eq!(bad.recv().await, None);
    assert!(matches!(bad.refused(), Some(SubscribeError::Usage(_))));
    server.grant().await;
    server.grant().await;
    assert!(good.refused().is_none() && fine.refused().is_none());
    server.publish("good", "on", QoS::AtMostOnce, 0).await;
    assert_eq!(good.recv().await.unwrap().payload, "on");
}

/// The server that did not get its CONNACK through may have begun a new session.
#[tokio::test(start_paused = true)]
async fn a_session_is_not_trusted_after_a_connack_that_did_not_come() {
    let (session, mut server, mut listener) = open(config(Version::V5)).await;
    let _stream = subscribed(&session, &mut server, "a/+").await;
    drop(server);
    let mut server = listener.accept().await;
    assert!(matches!(server.recv().await, Packet::Connect(_)));
    drop(server);
    let mut server = accept(&mut listener, true).await;
    let asked = server.grant().await;
    assert_eq!(asked.filters.len(), 1);
}
