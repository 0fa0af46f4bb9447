//! Whatever happens, in any order.

use std::time::Duration;

use mqtt_client::{
    QoS, ReasonCode, Session, Subscribe, Version,
    pool::Limit,
    proto::packet::{Ack, ConnAck, Packet},
};
use mqtt_testkit::ScriptedServer;
use tokio::time::{Instant, sleep};

use crate::{
    SECOND,
    common::{BOTH, publish, settle},
    config, open, tasks,
};

/// Answers as a server would, for a time; then it is gone. Never, if the time is `None`.
#[expect(clippy::wildcard_enum_match_arm, reason = "all else needs no answer")]
async fn serve(server: &mut ScriptedServer, lifetime: Option<Duration>) {
    let gone = async {
        match lifetime {
            Some(lifetime) => sleep(lifetime).await,
            None => std::future::pending().await,
        }
    };
    let answering = async {
        while let Some(packet) = server.next().await {
            if lifetime.is_some() && fastrand::u8(..4) == 0 {
                continue;
            }
            match packet {
                Packet::Publish(publish) => {
                    let id = publish.packet_id;
                    match (publish.message.qos, id) {
                        (QoS::AtLeastOnce, Some(id)) => server.puback(id).await,
                        (QoS::ExactlyOnce, Some(id)) => {
                            server.send(Packet::PubRec(Ack::new(id))).await;
                        }
                        _ => {}
                    }
                }
                Packet::PubRel(ack) => server.send(Packet::PubComp(Ack::new(ack.packet_id))).await,
                Packet::Subscribe(subscribe) => {
                    let codes = subscribe.filters.iter();
                    let codes = codes.map(|_| match fastrand::u8(..16) {
                        0 => ReasonCode::NOT_AUTHORIZED,
                        _ => ReasonCode::GRANTED_QOS_2,
                    });
                    let codes = codes.collect();
                    server.suback(subscribe.packet_id, codes).await;
                }
                Packet::Unsubscribe(it) => server.unsuback(it.packet_id, it.filters.len()).await,
                Packet::PingReq => server.send(Packet::PingResp).await,
                Packet::Disconnect(_) => return,
                _ => {}
            }
        }
    };
    tokio::select! { () = gone => {}, () = answering => {} }
}

/// One of many who ask for something, and may lose their patience at any time.
async fn ask(session: Session, number: u32) {
    for _ in 0..10 {
        sleep(Duration::from_millis(fastrand::u64(..2_000))).await;
        let patience = match fastrand::u8(..2) {
            0 => Duration::from_millis(fastrand::u64(..5_000)),
            _ => Duration::from_secs(100_000),
        };
        let asking = async {
            if fastrand::bool() {
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
                let qos = fastrand::choice(qos).expect("there are three");
                let _ = session.publish(publish(qos)).await;
                return;
            }
            let subscribe = Subscribe::new(format!("devices/{}", number % 30)).unwrap();
            let Ok(mut stream) = session.subscribe(subscribe).await else {
                return;
            };
            let patience = Duration::from_millis(fastrand::u64(..8_000));
            let _ = tokio::time::timeout(patience, stream.recv()).await;
            if fastrand::bool() {
                let _ = stream.unsubscribe().await;
            }
        };
        let begin = Instant::now();
        let _ = tokio::time::timeout(patience, asking).await;
        assert!(begin.elapsed() < Duration::from_secs(10_000), "no answer");
    }
}

/// Over any sequence of cuts, failed attempts, lost sessions and lost patience.
#[tokio::test(start_paused = true)]
async fn everything_asked_is_answered_and_nothing_is_left() {
    for round in 0..40 {
        fastrand::seed(round);
        let version = BOTH[fastrand::usize(..2)];
        let mut config = config(version).with_max_in_flight(4_u16);
        if fastrand::u8(..3) == 0 {
            config = config
                .with_clean_start(true)
                .with_session_expiry(Limit::After(Duration::ZERO));
        }
        let clean = version == Version::V3 && config.clean_start
            || config.session_expiry == Limit::After(Duration::ZERO);
        let (session, mut server, mut listener) = open(config).await;
        let mut asking = tokio::task::JoinSet::new();
        for number in 0..60 {
            asking.spawn(ask(session.clone(), number));
        }
        let serving = tokio::spawn(async move {
            for _ in 0..fastrand::u8(5..15) {
                let lifetime = Duration::from_millis(fastrand::u64(..3_000));
                serve(&mut server, Some(lifetime)).await;
                drop(server);
                server = listener.accept().await;
                if fastrand::bool() {
                    // Gone with the CONNECT.
                    if fastrand::bool() {
                        server.recv().await;
                    }
                    drop(server);
                    server = listener.accept().await;
                }
                let mut connack = ConnAck::accepted();
                connack.session_present = !clean && fastrand::bool();
                server.accept_with(connack).await;
            }
            serve(&mut server, None).await;
        });
        let leaves = fastrand::u8(..3) == 0;
        if leaves {
            sleep(Duration::from_millis(fastrand::u64(..20_000))).await;
            let left = tokio::time::timeout(SECOND * 2, session.disconnect()).await;
            let _ = left.expect("it leaves in time");
        }
        while let Some(result) = asking.join_next().await {
            result.unwrap_or_else(|error| panic!("round {round}: {error} {session:#?}"));
        }
        if leaves {
            serving.abort();
        } else {
            sleep(SECOND * 1_000).await;
            assert_eq!(session.in_flight(), 0, "round {round}");
        }
        let shown = format!("{session:#?}");
        for empty in [
            "waiters: {}",
            "subscriptions: {}",
            "ledger: None",
            "restore: None",
        ] {
            assert!(shown.contains(empty), "round {round}: {empty}: {shown}");
        }
        if !leaves {
            session.disconnect().await.unwrap();
            serving.await.unwrap();
        }
        drop(session);
        settle().await;
        assert_eq!(tasks(), 0, "round {round}");
    }
}
