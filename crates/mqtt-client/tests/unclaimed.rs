//! What a session of an earlier process brings before it is subscribed to.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{pin::pin, time::Duration};

use common::{BOTH, accept, connector, endpoint, now, settle, subscribed};
use mqtt_client::{
    LostCause, QoS, ReasonCode, ReconnectConfig, Session, SessionConfig, Subscribe, SubscribeError,
    Unclaimed, Version,
    pool::Limit,
    proto::{
        PacketId,
        packet::{Ack, Packet},
    },
};
use mqtt_testkit::{MemoryListener, ScriptedServer};

const SECOND: Duration = Duration::from_secs(1);

/// A session that goes on with what the server has, and that comes back after a second.
fn config(version: Version) -> SessionConfig {
    SessionConfig::new("gateway")
        .with_version(version)
        .with_clean_start(false)
        .with_session_expiry(Limit::After(SECOND * 3_600))
        .with_adopt_session(true)
        .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)))
}

/// Messages, each "topic payload", are on their way when the session is opened.
async fn adopted(
    config: SessionConfig,
    messages: &[(u16, &str, QoS)],
) -> (Session, ScriptedServer, MemoryListener) {
    let (connector, mut listener) = connector(config);
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = accept(&mut listener, true).await;
        send(&mut server, messages).await;
        server
    });
    settle().await;
    (session.unwrap(), server, listener)
}

async fn send(server: &mut ScriptedServer, messages: &[(u16, &str, QoS)]) {
    for (id, text, qos) in messages {
        let (topic, payload) = text.split_once(' ').unwrap();
        server.publish(topic, payload.to_owned(), *qos, *id).await;
    }
}

fn filter(filter: &'static str) -> Subscribe {
    Subscribe::new(filter).unwrap()
}

fn ack(packet_id: u16) -> Ack {
    Ack::new(PacketId::new(packet_id).unwrap())
}

const ZERO: QoS = QoS::AtMostOnce;
const ONE: QoS = QoS::AtLeastOnce;
const TWO: QoS = QoS::ExactlyOnce;

#[tokio::test(start_paused = true)]
async fn messages_wait_unacknowledged_for_the_first_subscription_that_wants_them() {
    for version in BOTH {
        let sent = [(1, "a/1 x", ONE), (2, "b x", ONE), (3, "a/2 x", TWO)];
        let (session, mut server, _listener) = adopted(config(version), &sent).await;
        server.expect_silence(SECOND).await;
        assert_eq!(session.unclaimed().held, 3);
        // What comes before the SUBACK is behind them.
        let (stream, ()) = tokio::join!(session.subscribe(filter("a/#")), async {
            let id = server.expect_subscribe().await.packet_id;
            assert_eq!(session.unclaimed().held, 1);
            send(&mut server, &[(4, "a/3 x", ONE)]).await;
            settle().await;
            server.suback(id, vec![ReasonCode::GRANTED_QOS_2]).await;
        });
        let mut stream = stream.unwrap();
        assert_eq!(&*stream.recv().await.unwrap().topic, "a/1");
        server.expect_puback(1).await;
        for topic in ["a/2", "a/3"] {
            assert_eq!(&*stream.recv().await.unwrap().topic, topic);
        }
        // In order, behind what is still to be claimed.
        server.expect_silence(SECOND).await;
        let mut other = subscribed(&session, &mut server, filter("+")).await;
        assert_eq!(session.unclaimed().held, 0);
        assert_eq!(&*other.recv().await.unwrap().topic, "b");
        server.expect_puback(2).await;
        assert_eq!(server.recv().await, Packet::PubRec(ack(3)));
        server.expect_puback(4).await;
    }
}

/// A message that is confirmed and thrown away, as nothing was registered when it came, is lost
/// for good. [MQTT5-4.3.3-8] [MQTT3-4.3.3-2]
#[tokio::test(start_paused = true)]
async fn a_qos_2_message_is_not_received_before_it_is_claimed() {
    for version in BOTH {
        let sent = [(7, "a x", TWO)];
        let (session, mut server, mut listener) = adopted(config(version), &sent).await;
        // Nor is it forgotten over any number of connections.
        for _ in 0..3 {
            server.expect_silence(SECOND).await;
            assert_eq!(session.unclaimed().held, 1);
            drop(server);
            server = accept(&mut listener, true).await;
            send(&mut server, &sent).await;
            settle().await;
        }
        let mut stream = subscribed(&session, &mut server, filter("a")).await;
        assert_eq!(stream.recv().await.unwrap().payload, "x");
        assert_eq!(server.recv().await, Packet::PubRec(ack(7)));
        server.send(Packet::PubRel(ack(7))).await;
        assert_eq!(server.recv().await, Packet::PubComp(ack(7)));
        assert!(now(stream.recv()).await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn qos_1_messages_that_come_again_are_held_once() {
    let sent = [(1, "a 1", ONE), (2, "a 2", ONE)];
    let (session, mut server, mut listener) = adopted(config(Version::V5), &sent).await;
    for _ in 0..3 {
        drop(server);
        settle().await;
        server = accept(&mut listener, true).await;
        settle().await;
        assert_eq!(session.unclaimed().held, 0);
        send(&mut server, &sent).await;
        settle().await;
        assert_eq!(session.unclaimed().held, 2);
    }
    let mut stream = subscribed(&session, &mut server, filter("a")).await;
    for id in 1..=2 {
        assert_eq!(stream.recv().await.unwrap().payload, id.to_string());
        server.expect_puback(id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn qos_0_messages_cannot_be_held_and_are_counted() {
    let sent = [(0, "a 1", ZERO), (0, "a 2", ZERO)];
    let (session, mut server, _listener) = adopted(config(Version::V5), &sent).await;
    assert_eq!(session.unclaimed().dropped, 2);
    assert_eq!(session.unclaimed().held, 0);
    let mut stream = subscribed(&session, &mut server, filter("a")).await;
    assert!(now(stream.recv()).await.is_none());
    send(&mut server, &[(0, "a 3", ZERO)]).await;
    assert_eq!(stream.recv().await.unwrap().payload, "3");
    assert_eq!(session.unclaimed().dropped, 2);
}

/// [MQTT5-4.5.0-2] [MQTT3-4.5.0-2]
#[tokio::test(start_paused = true)]
async fn what_is_released_is_acknowledged_and_what_comes_later_at_once() {
    for version in BOTH {
        let sent = [(1, "a x", ONE), (2, "b x", ONE), (3, "b x", TWO)];
        let (session, mut server, _listener) = adopted(config(version), &sent).await;
        let mut stream = subscribed(&session, &mut server, filter("a")).await;
        assert_eq!(session.release_unclaimed(), 2);
        // Behind the one that is claimed and not read.
        server.expect_silence(SECOND).await;
        stream.recv().await.unwrap();
        server.expect_puback(1).await;
        server.expect_puback(2).await;
        assert_eq!(server.recv().await, Packet::PubRec(ack(3)));
        send(&mut server, &[(4, "b x", ONE)]).await;
        server.expect_puback(4).await;
        assert_eq!(session.release_unclaimed(), 0);
        assert!(format!("{session:?}").contains("ledger: None"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_bounded_by_the_receive_maximum() {
    let config = config(Version::V5)
        .with_receive_maximum(Some(2))
        .with_reconnect(None);
    let sent = [(1, "a x", ONE), (2, "a x", TWO), (3, "a x", ONE)];
    let (session, mut server, _listener) = adopted(config, &sent).await;
    let code = server.expect_disconnect().await.reason_code;
    assert_eq!(code, ReasonCode::RECEIVE_MAXIMUM_EXCEEDED);
    let end = session.closed().await;
    assert!(matches!(end.cause, LostCause::Protocol(_)), "{end:?}");
    assert_eq!(session.unclaimed(), Unclaimed::default());
}

/// A subscribe that comes to nothing has read nothing.
#[tokio::test(start_paused = true)]
async fn what_a_subscription_leaves_unread_is_held_again_in_order() {
    for how in ["withdrawn", "refused", "dropped", "dropped, manual"] {
        let sent = [(1, "a 1", ONE), (2, "b 2", ONE), (3, "a 3", TWO)];
        let (session, mut server, _listener) = adopted(config(Version::V5), &sent).await;
        match how {
            "withdrawn" => {
                let mut subscribing = Box::pin(session.subscribe(filter("a")));
                assert!(now(&mut subscribing).await.is_none());
                server.expect_subscribe().await;
                drop(subscribing);
            }
            "refused" => {
                let (outcome, ()) = tokio::join!(session.subscribe(filter("a")), async {
                    let id = server.expect_subscribe().await.packet_id;
                    assert_eq!(session.unclaimed().held, 1);
                    server.suback(id, vec![ReasonCode::NOT_AUTHORIZED]).await;
                });
                assert!(matches!(outcome, Err(SubscribeError::Refused { .. })));
            }
            "dropped" => drop(subscribed(&session, &mut server, filter("a")).await),
            _ => {
                let stream = subscribed(&session, &mut server, filter("a")).await;
                drop(stream.into_manual());
            }
        }
        server.expect_unsubscribe().await;
        server.expect_silence(SECOND).await;
        assert_eq!(session.unclaimed().held, 3, "{how}");
        assert_eq!(session.unprocessed(), 0, "{how}");
        let mut stream = subscribed(&session, &mut server, filter("#")).await;
        for payload in ["1", "2", "3"] {
            assert_eq!(stream.recv().await.unwrap().payload, payload, "{how}");
        }
        server.expect_puback(1).await;
        server.expect_puback(2).await;
        assert_eq!(server.recv().await, Packet::PubRec(ack(3)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_read_is_not_held_again_and_what_several_have_waits_for_all() {
    let (session, mut server, _listener) = adopted(config(Version::V5), &[]).await;
    let mut one = subscribed(&session, &mut server, filter("a")).await;
    let mut two = subscribed(&session, &mut server, filter("+")).await;
    send(&mut server, &[(1, "a 1", ONE), (2, "a 2", ONE)]).await;
    settle().await;
    one.recv().await.unwrap();
    for _ in 0..2 {
        two.recv().await.unwrap();
    }
    server.expect_puback(1).await;
    // The second waits for who has not read it, though that one is gone.
    drop(one);
    server.expect_unsubscribe().await;
    server.expect_silence(SECOND).await;
    assert_eq!(session.unclaimed().held, 1);
    let mut again = subscribed(&session, &mut server, filter("a")).await;
    assert_eq!(again.recv().await.unwrap().payload, "2");
    server.expect_puback(2).await;
}

#[tokio::test(start_paused = true)]
async fn of_several_subscriptions_the_first_claims_a_message() {
    let sent = [(1, "a x", ONE)];
    let (session, mut server, _listener) = adopted(config(Version::V5), &sent).await;
    let first = subscribed(&session, &mut server, filter("a")).await;
    let mut second = subscribed(&session, &mut server, filter("+")).await;
    assert!(now(second.recv()).await.is_none());
    let received = first.into_manual().recv().await.unwrap();
    server.expect_unsubscribe().await;
    server.expect_silence(SECOND).await;
    assert_eq!(received.accept().payload, "x");
    server.expect_puback(1).await;
}

/// The server has forgotten it; what is held is all there is of it.
#[tokio::test(start_paused = true)]
async fn what_is_held_outlives_a_session_that_is_lost_and_no_more_is_held() {
    let sent = [(1, "a x", ONE), (2, "b x", TWO)];
    let (session, server, mut listener) = adopted(config(Version::V5), &sent).await;
    drop(server);
    let mut server = accept(&mut listener, false).await;
    settle().await;
    assert_eq!(session.unclaimed().held, 2);
    send(&mut server, &[(1, "c new", ONE)]).await;
    server.expect_puback(1).await;
    let unread = subscribed(&session, &mut server, filter("d")).await;
    send(&mut server, &[(1, "d new", ONE)]).await;
    settle().await;
    drop(unread);
    server.expect_puback(1).await;
    server.expect_unsubscribe().await;
    assert_eq!(session.unclaimed().held, 2);
    let mut streams = Vec::new();
    for topic in ["a", "b"] {
        let mut stream = subscribed(&session, &mut server, filter(topic)).await;
        assert_eq!(stream.recv().await.unwrap().payload, "x");
        server.expect_silence(SECOND).await;
        streams.push(stream);
    }
    assert!(format!("{session:?}").contains("ledger: None"));
}

#[tokio::test(start_paused = true)]
async fn leaving_acknowledges_nothing_that_was_not_claimed() {
    for whole in [true, false] {
        let sent = [(1, "a x", ONE), (2, "b x", TWO)];
        let (session, mut server, _listener) = adopted(config(Version::V5), &sent).await;
        let stream = subscribed(&session, &mut server, filter("a")).await;
        if whole {
            session.disconnect().await.unwrap();
            assert_eq!(session.unclaimed().held, 0);
        } else {
            drop((session, stream));
            server.expect_unsubscribe().await;
        }
        server.expect_disconnect().await;
    }
}

/// In the process that began the session all is there before the connection is.
#[tokio::test(start_paused = true)]
async fn what_comes_after_a_reconnect_reaches_the_stream_that_was_there_before() {
    for version in BOTH {
        for manual in [false, true] {
            let config = config(version)
                .with_adopt_session(false)
                .with_clean_start(version == Version::V5);
            let (connector, mut listener) = connector(config);
            let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
                let mut server = listener.accept().await;
                server.accept().await;
                server
            });
            let session = session.unwrap();
            let stream = subscribed(&session, &mut server, filter("a")).await;
            drop(subscribed(&session, &mut server, filter("b")).await);
            let id = server.expect_unsubscribe().await.packet_id;
            server.unsuback(id, 1).await;
            drop(server);
            // Behind the CONNACK, at once.
            let mut server = accept(&mut listener, true).await;
            send(&mut server, &[(1, "a 1", TWO), (2, "a 2", ONE)]).await;
            send(&mut server, &[(3, "b x", ONE)]).await;
            settle().await;
            let (mut automatic, mut by_hand) = if manual {
                (None, Some(stream.into_manual()))
            } else {
                (Some(stream), None)
            };
            for payload in ["1", "2"] {
                let message = match (&mut automatic, &mut by_hand) {
                    (Some(stream), _) => stream.recv().await.unwrap(),
                    (None, Some(stream)) => stream.recv().await.unwrap().accept(),
                    (None, None) => unreachable!("one of them is there"),
                };
                assert_eq!(message.payload, payload);
            }
            assert_eq!(server.recv().await, Packet::PubRec(ack(1)));
            server.expect_puback(2).await;
            // What was given up is acknowledged, as ever.
            server.expect_puback(3).await;
            assert_eq!(session.unclaimed().held, 0);
        }
    }
}

/// Everything is there when the answer comes; it does not have to be waited for.
#[tokio::test(start_paused = true)]
async fn messages_are_claimed_while_there_is_no_answer_yet() {
    let sent = [(1, "a x", ONE)];
    let (session, mut server, _listener) = adopted(config(Version::V5), &sent).await;
    let mut subscribing = pin!(session.subscribe(filter("a")));
    assert!(now(&mut subscribing).await.is_none());
    assert_eq!(session.unclaimed().held, 0);
    assert_eq!(session.release_unclaimed(), 0);
    // It is not released with the rest.
    server.expect_subscribe().await;
    server.expect_silence(SECOND).await;
}
