//! Acknowledging by hand.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{pin::pin, time::Duration};

use common::{BOTH, accept, connector, endpoint, now, publish, settle, subscribed};
use futures_util::StreamExt;
use mqtt_client::{
    ManualSubscription, QoS, ReasonCode, ReconnectConfig, Session, SessionConfig, Stale, Subscribe,
    Version,
    pool::Limit,
    proto::{
        PacketId,
        packet::{Ack, Packet},
    },
};
use mqtt_testkit::{MemoryListener, ScriptedServer};

const SECOND: Duration = Duration::from_secs(1);

/// A session that the server keeps, and that comes back after a second.
fn config(version: Version) -> SessionConfig {
    SessionConfig::new("gateway")
        .with_version(version)
        .with_clean_start(version == Version::V5)
        .with_session_expiry(Limit::After(SECOND * 3_600))
        .with_reconnect(Some(ReconnectConfig::default().with_jitter(Duration::ZERO)))
}

async fn open(version: Version) -> (Session, ScriptedServer, MemoryListener) {
    open_with(config(version)).await
}

async fn open_with(config: SessionConfig) -> (Session, ScriptedServer, MemoryListener) {
    let (connector, mut listener) = connector(config);
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    (session.unwrap(), server, listener)
}

async fn manual(
    session: &Session,
    server: &mut ScriptedServer,
    filter: &'static str,
) -> ManualSubscription {
    subscribed(session, server, Subscribe::new(filter).unwrap())
        .await
        .into_manual()
}

fn ack(packet_id: u16) -> Ack {
    Ack::new(PacketId::new(packet_id).unwrap())
}

fn code(packet_id: u16, reason_code: ReasonCode) -> Ack {
    Ack::with_reason(PacketId::new(packet_id).unwrap(), reason_code)
}

/// [MQTT5-4.6.0-2] [MQTT5-4.6.0-3] [MQTT3-4.6.0-2] [MQTT3-4.6.0-3]
#[tokio::test(start_paused = true)]
async fn accepted_in_any_order_they_are_acknowledged_in_order_of_arrival() {
    for version in BOTH {
        let (session, mut server, _listener) = open(version).await;
        let mut messages = manual(&session, &mut server, "a/#").await;
        let mut received = Vec::new();
        for id in 1..=4 {
            let qos = if id == 3 {
                QoS::ExactlyOnce
            } else {
                QoS::AtLeastOnce
            };
            server.publish("a/b", id.to_string(), qos, id).await;
            received.push(messages.next().await.unwrap());
        }
        let payloads: Vec<_> = received.iter().map(|it| &*it.message.payload).collect();
        assert_eq!(payloads, [b"1", b"2", b"3", b"4"]);
        for index in [3, 1, 1] {
            assert_eq!(received.remove(index).ack.accept(), Ok(()));
            server.expect_silence(SECOND).await;
        }
        // On another thread, and when its stream is gone.
        drop(messages);
        assert_eq!(server.expect_unsubscribe().await.filters, ["a/#"]);
        let first = received.remove(0);
        let message = std::thread::spawn(|| first.accept()).join().unwrap();
        assert_eq!(&*message.payload, b"1");
        server.expect_puback(1).await;
        server.expect_puback(2).await;
        assert_eq!(server.recv().await, Packet::PubRec(ack(3)));
        server.expect_puback(4).await;
        server.send(Packet::PubRel(ack(3))).await;
        assert_eq!(server.recv().await, Packet::PubComp(ack(3)));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_owed_at_qos_0() {
    let (session, mut server, _listener) = open(Version::V5).await;
    let mut messages = manual(&session, &mut server, "a").await;
    for _ in 0..3 {
        server.publish("a", "x", QoS::AtMostOnce, 0).await;
    }
    assert_eq!(messages.recv().await.unwrap().ack.accept(), Ok(()));
    let rejected = messages.recv().await.unwrap().ack;
    assert_eq!(rejected.reject(ReasonCode::QUOTA_EXCEEDED), Ok(()));
    drop(messages.recv().await.unwrap());
    assert_eq!(messages.unprocessed(), 0);
    server.expect_silence(SECOND).await;
}

/// [MQTT5-4.4.0-1] [MQTT3-4.4.0-1]
#[tokio::test(start_paused = true)]
async fn dropped_it_is_not_acknowledged_and_comes_again_on_the_next_connection() {
    for version in BOTH {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let (session, mut server, mut listener) = open(version).await;
            let mut messages = manual(&session, &mut server, "a").await;
            server.publish("a", "1", qos, 1).await;
            server.publish("a", "2", QoS::AtLeastOnce, 2).await;
            drop(messages.recv().await.unwrap());
            assert_eq!(messages.unprocessed(), 1);
            // It counts, and waits behind.
            assert_eq!(messages.recv().await.unwrap().ack.accept(), Ok(()));
            server.expect_silence(SECOND).await;
            drop(server);

            let mut server = accept(&mut listener, true).await;
            settle().await;
            assert_eq!(session.unprocessed(), 0);
            server.publish("a", "1", qos, 1).await;
            server.publish("a", "2", QoS::AtLeastOnce, 2).await;
            assert_eq!(messages.recv().await.unwrap().accept().payload, "1");
            match qos {
                QoS::ExactlyOnce => assert_eq!(server.recv().await, Packet::PubRec(ack(1))),
                QoS::AtMostOnce | QoS::AtLeastOnce => server.expect_puback(1).await,
            }
            assert_eq!(messages.recv().await.unwrap().accept().payload, "2");
            server.expect_puback(2).await;
        }
    }
}

/// The server numbers its messages anew, or begins a new session.
#[tokio::test(start_paused = true)]
async fn one_of_an_earlier_connection_acknowledges_no_other_message_of_its_identifier() {
    for version in BOTH {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for session_present in [true, false] {
                if qos == QoS::ExactlyOnce && session_present {
                    continue; // The message is the same, below.
                }
                let (session, mut server, mut listener) = open(version).await;
                let mut messages = manual(&session, &mut server, "a").await;
                let mut old = Vec::new();
                for _ in 0..3 {
                    server.publish("a", "old", qos, 7).await;
                    old.push(messages.recv().await.unwrap().ack);
                    drop(server);
                    server = accept(&mut listener, session_present).await;
                    if !session_present {
                        server.grant().await;
                    }
                }
                server.publish("a", "new", qos, 7).await;
                let new = messages.recv().await.unwrap();
                assert_eq!(new.message.payload, "new");
                for (n, old) in old.into_iter().enumerate() {
                    match n {
                        0 => assert_eq!(old.accept(), Err(Stale)),
                        1 => assert_eq!(old.reject(ReasonCode::QUOTA_EXCEEDED), Err(Stale)),
                        _ => drop(old),
                    }
                }
                assert_eq!(session.unprocessed(), 0);
                server.expect_silence(SECOND).await;
                assert_eq!(new.ack.accept(), Ok(()));
                assert!(matches!(
                    server.recv().await,
                    Packet::PubAck(ack) | Packet::PubRec(ack) if ack.packet_id.value() == 7
                ));
            }
        }
    }
}

/// [MQTT5-4.3.3-10] [MQTT3-4.3.3-2]
#[tokio::test(start_paused = true)]
async fn at_qos_2_it_counts_on_the_next_connection_and_the_message_is_not_handed_out_again() {
    for version in BOTH {
        for when in ["disconnected", "before the repeat", "after the repeat"] {
            let (session, mut server, mut listener) = open(version).await;
            let mut messages = manual(&session, &mut server, "a").await;
            server.publish("a", "x", QoS::ExactlyOnce, 7).await;
            let received = messages.recv().await.unwrap().ack;
            let mut received = Some(received);
            drop(server);
            settle().await;
            let mut accept_if = |now: &str| {
                if when == now {
                    assert_eq!(received.take().unwrap().accept(), Ok(()), "{when}");
                }
            };
            accept_if("disconnected");
            let mut server = accept(&mut listener, true).await;
            settle().await;
            accept_if("before the repeat");
            server.expect_silence(SECOND).await;
            server.publish("a", "x", QoS::ExactlyOnce, 7).await;
            settle().await;
            accept_if("after the repeat");
            assert_eq!(server.recv().await, Packet::PubRec(ack(7)), "{when}");
            server.send(Packet::PubRel(ack(7))).await;
            assert_eq!(server.recv().await, Packet::PubComp(ack(7)));
            // Not handed out again; its identifier is free for another.
            assert!(now(messages.recv()).await.is_none());
            server.publish("a", "y", QoS::ExactlyOnce, 7).await;
            assert_eq!(messages.recv().await.unwrap().message.payload, "y");
        }
    }
}

/// [MQTT5-4.3.3-9]
#[tokio::test(start_paused = true)]
async fn a_rejected_message_is_told_with_its_code_in_5_0_and_acknowledged_in_3_1_1() {
    let quota = ReasonCode::QUOTA_EXCEEDED;
    let unspecified = ReasonCode::UNSPECIFIED_ERROR;
    for version in BOTH {
        for (said, told) in [
            (quota, quota),
            // No error, and one that a client cannot say here.
            (ReasonCode::SUCCESS, unspecified),
            (ReasonCode::SERVER_BUSY, unspecified),
        ] {
            let told = match version {
                Version::V3 => ReasonCode::SUCCESS,
                Version::V5 => told,
            };
            let (session, mut server, _listener) = open(version).await;
            let mut messages = manual(&session, &mut server, "a").await;
            server.publish("a", "1", QoS::AtLeastOnce, 1).await;
            server.publish("a", "2", QoS::ExactlyOnce, 2).await;
            for _ in 0..2 {
                let received = messages.recv().await.unwrap();
                assert_eq!(received.ack.reject(said), Ok(()));
            }
            assert_eq!(server.recv().await, Packet::PubAck(code(1, told)));
            assert_eq!(server.recv().await, Packet::PubRec(code(2, told)));
            if version == Version::V5 {
                // The server has forgotten it: the identifier brings a new message.
                server.publish("a", "new", QoS::ExactlyOnce, 2).await;
                assert_eq!(messages.recv().await.unwrap().message.payload, "new");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_several_streams_is_acknowledged_when_all_have_accepted_it() {
    let (session, mut server, _listener) = open(Version::V5).await;
    let mut one = manual(&session, &mut server, "a").await;
    let mut two = manual(&session, &mut server, "+").await;
    let mut automatic = subscribed(&session, &mut server, Subscribe::new("#").unwrap()).await;
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        server.publish("a", "x", QoS::AtLeastOnce, 1).await;
        let mut first = Some(one.recv().await.unwrap().ack);
        let mut second = Some(two.recv().await.unwrap().ack);
        for who in order {
            server.expect_silence(SECOND).await;
            match who {
                0 => assert_eq!(first.take().unwrap().accept(), Ok(())),
                1 => assert_eq!(second.take().unwrap().accept(), Ok(())),
                _ => assert_eq!(automatic.recv().await.unwrap().payload, "x"),
            }
        }
        server.expect_puback(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_streams_the_first_that_rejects_a_message_says_its_code() {
    let (session, mut server, _listener) = open(Version::V5).await;
    let mut one = manual(&session, &mut server, "a").await;
    let mut two = manual(&session, &mut server, "+").await;
    let mut automatic = subscribed(&session, &mut server, Subscribe::new("#").unwrap()).await;
    server.publish("a", "x", QoS::AtLeastOnce, 1).await;
    let quota = ReasonCode::QUOTA_EXCEEDED;
    let first = one.recv().await.unwrap().ack;
    assert_eq!(first.reject(quota), Ok(()));
    let second = two.recv().await.unwrap().ack;
    assert_eq!(second.reject(ReasonCode::NOT_AUTHORIZED), Ok(()));
    server.expect_silence(SECOND).await;
    automatic.recv().await.unwrap();
    assert_eq!(server.recv().await, Packet::PubAck(code(1, quota)));
}

/// What one stream has not processed comes again to all of them, once each.
#[tokio::test(start_paused = true)]
async fn a_message_that_one_of_several_streams_drops_is_not_acknowledged() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (session, mut server, mut listener) = open(Version::V5).await;
        let mut one = manual(&session, &mut server, "a").await;
        let mut two = manual(&session, &mut server, "+").await;
        let mut automatic = subscribed(&session, &mut server, Subscribe::new("#").unwrap()).await;
        server.publish("a", "x", qos, 1).await;
        let accepted = one.recv().await.unwrap().ack;
        assert_eq!(accepted.accept(), Ok(()));
        drop(two.recv().await.unwrap());
        assert_eq!(session.unprocessed(), 1);
        // This one does not get to read it before the connection is gone.
        settle().await;
        server.expect_silence(SECOND).await;
        drop(server);
        let mut server = accept(&mut listener, true).await;
        server.publish("a", "x", qos, 1).await;
        settle().await;
        let (first, second) = (one.recv().await.unwrap(), two.recv().await.unwrap());
        assert_eq!(automatic.recv().await.unwrap().payload, "x");
        assert!(now(automatic.recv()).await.is_none(), "{qos:?}");
        assert_eq!(second.ack.accept(), Ok(()));
        server.expect_silence(SECOND).await;
        assert_eq!(first.ack.accept(), Ok(()));
        assert!(matches!(
            server.recv().await,
            Packet::PubAck(ack) | Packet::PubRec(ack) if ack.packet_id.value() == 1
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_stream_has_dropped_cannot_be_accepted_any_more() {
    let (session, mut server, _listener) = open(Version::V5).await;
    let mut one = manual(&session, &mut server, "a").await;
    let mut two = manual(&session, &mut server, "+").await;
    let mut automatic = subscribed(&session, &mut server, Subscribe::new("#").unwrap()).await;
    server.publish("a", "x", QoS::AtLeastOnce, 1).await;
    drop(one.recv().await.unwrap());
    assert_eq!(two.recv().await.unwrap().ack.accept(), Err(Stale));
    assert_eq!(automatic.recv().await.unwrap().payload, "x");
    server.expect_silence(SECOND).await;
    assert_eq!(session.unprocessed(), 1);
    assert!(format!("{session:?}").contains("ledger: None"));
}

/// What several streams owe is forgotten with the connection, though it was handed out.
#[tokio::test(start_paused = true)]
async fn shared_messages_of_earlier_connections_leave_nothing() {
    let (session, mut server, mut listener) = open(Version::V5).await;
    let mut one = manual(&session, &mut server, "a").await;
    let _two = manual(&session, &mut server, "+").await;
    let mut acks = Vec::new();
    for _ in 0..5 {
        server.publish("a", "x", QoS::AtLeastOnce, 1).await;
        acks.push(one.recv().await.unwrap().ack);
        drop(server);
        server = accept(&mut listener, true).await;
        settle().await;
        assert!(format!("{session:?}").contains("ledger: None"));
    }
    for ack in acks {
        assert_eq!(ack.accept(), Err(Stale));
    }
    server.expect_silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn an_ack_does_not_keep_the_session_open() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (session, mut server, _listener) = open(Version::V5).await;
        let mut messages = manual(&session, &mut server, "a").await;
        server.publish("a", "x", qos, 1).await;
        server.publish("a", "y", qos, 2).await;
        let (one, two) = (
            messages.recv().await.unwrap().ack,
            messages.recv().await.unwrap().ack,
        );
        drop((messages, session));
        // What is said now comes behind DISCONNECT.
        assert_eq!(one.accept(), Err(Stale));
        server.expect_unsubscribe().await;
        server.expect_disconnect().await;
        server.expect_closed().await;
        settle().await;
        assert_eq!(two.accept(), Err(Stale));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_can_be_accepted_while_a_session_leaves_and_not_after_it_has_ended() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (session, mut server, _listener) = open(Version::V5).await;
        let mut messages = manual(&session, &mut server, "a").await;
        server.publish("a", "x", qos, 1).await;
        server.publish("a", "y", qos, 2).await;
        let one = messages.recv().await.unwrap().ack;
        let two = messages.recv().await.unwrap().ack;
        let mut publishing = pin!(session.publish(publish(QoS::AtLeastOnce)));
        assert!(now(&mut publishing).await.is_none());
        let mut leaving = pin!(session.disconnect());
        assert!(now(&mut leaving).await.is_none());
        assert_eq!(one.accept(), Ok(()));
        server.expect_publish().await;
        assert!(matches!(
            server.recv().await,
            Packet::PubAck(_) | Packet::PubRec(_)
        ));
        leaving.await.unwrap_err();
        assert_eq!(two.accept(), Err(Stale));
        assert!(messages.recv().await.is_none());
    }
}

/// Automatic streams acknowledge what they leave unread; this one would lose it.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_has_not_processed_what_it_left_unread() {
    for in_batch in [false, true] {
        let (session, mut server, mut listener) = open(Version::V5).await;
        let mut messages = manual(&session, &mut server, "a").await;
        server.publish("a", "0", QoS::AtLeastOnce, 1).await;
        server.publish("a", "1", QoS::AtLeastOnce, 2).await;
        server.publish("a", "2", QoS::ExactlyOnce, 3).await;
        settle().await;
        let first = if in_batch {
            messages.recv().await
        } else {
            None
        };
        drop(messages);
        assert_eq!(server.expect_unsubscribe().await.filters, ["a"]);
        if let Some(first) = first {
            assert_eq!(session.unprocessed(), 2);
            assert_eq!(first.ack.accept(), Ok(()));
            server.expect_puback(1).await;
        } else {
            assert_eq!(session.unprocessed(), 3);
        }
        server.expect_silence(SECOND).await;
        drop(server);
        // There is a stream for it when it comes again.
        settle().await;
        let mut subscribing = pin!(session.subscribe(Subscribe::new("a").unwrap()));
        assert!(now(&mut subscribing).await.is_none());
        let mut server = accept(&mut listener, true).await;
        let id = server.expect_unsubscribe().await.packet_id;
        server.unsuback(id, 1).await;
        let (again, _) = tokio::join!(subscribing, server.grant());
        server.publish("a", "1", QoS::AtLeastOnce, 2).await;
        server.publish("a", "2", QoS::ExactlyOnce, 3).await;
        let mut again = again.unwrap();
        assert_eq!(again.recv().await.unwrap().payload, "1");
        server.expect_puback(2).await;
        assert_eq!(again.recv().await.unwrap().payload, "2");
        assert_eq!(server.recv().await, Packet::PubRec(ack(3)));
    }
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_leaves_what_was_not_read_unprocessed() {
    for answered in [true, false] {
        let (session, mut server, _listener) = open(Version::V5).await;
        let messages = manual(&session, &mut server, "a").await;
        server.publish("a", "x", QoS::AtLeastOnce, 1).await;
        settle().await;
        let mut leaving = Box::pin(messages.unsubscribe());
        assert!(now(&mut leaving).await.is_none());
        let id = server.expect_unsubscribe().await.packet_id;
        if answered {
            server.unsuback(id, 1).await;
            leaving.await.unwrap();
        } else {
            drop(leaving);
            server.unsuback(id, 1).await;
        }
        assert_eq!(session.unprocessed(), 1);
        server.expect_silence(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_becomes_manual_with_what_it_has_read_ahead() {
    let (session, mut server, _listener) = open(Version::V5).await;
    let mut messages = subscribed(&session, &mut server, Subscribe::new("a").unwrap()).await;
    for id in 1..=3 {
        server
            .publish("a", id.to_string(), QoS::AtLeastOnce, id)
            .await;
    }
    settle().await;
    assert_eq!(messages.recv().await.unwrap().payload, "1");
    server.expect_puback(1).await;
    let mut messages = messages.into_manual();
    assert!(messages.refused().is_none());
    assert_eq!(messages.dropped(), 0);
    let two = messages.recv().await.unwrap();
    // A `recv` that is dropped takes nothing.
    {
        let waiting = pin!(messages.recv());
        drop(now(waiting).await);
    }
    server.expect_silence(SECOND).await;
    assert_eq!(two.accept().payload, "2");
    server.expect_puback(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_recv_that_is_dropped_while_it_waits_takes_nothing() {
    let (session, mut server, _listener) = open(Version::V5).await;
    let mut messages = manual(&session, &mut server, "a").await;
    assert!(now(messages.recv()).await.is_none());
    server.publish("a", "x", QoS::AtLeastOnce, 1).await;
    settle().await;
    assert_eq!(messages.recv().await.unwrap().accept().payload, "x");
    server.expect_puback(1).await;
}

/// Everything between its message and the receive maximum waits behind an `Ack` that is kept.
#[tokio::test(start_paused = true)]
async fn a_thousand_accepted_in_reverse_leave_in_order() {
    let (session, mut server, _listener) = open(Version::V5).await;
    let mut messages = manual(&session, &mut server, "a").await;
    let mut acks = Vec::new();
    for id in 1..=1_024 {
        server.publish("a", "x", QoS::AtLeastOnce, id).await;
        acks.push(messages.recv().await.unwrap().ack);
    }
    while let Some(ack) = acks.pop() {
        assert_eq!(ack.accept(), Ok(()));
    }
    for id in 1..=1_024 {
        server.expect_puback(id).await;
    }
    server.publish("a", "x", QoS::AtLeastOnce, 1).await;
    messages.recv().await.unwrap().accept();
    server.expect_puback(1).await;
}
