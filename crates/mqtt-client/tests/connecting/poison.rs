//! Publishes that a server does not survive.

use std::{pin::pin, time::Duration};

use mqtt_client::{
    Delivery, Publish, PublishError, QoS, ReasonCode, ReconnectConfig, Session, SessionConfig,
    Version,
    proto::packet::{Disconnect, Packet},
};
use mqtt_testkit::{MemoryListener, ScriptedServer};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    SECOND,
    common::{BOTH, connector, now, report, settle},
    config, open, resume,
};

fn message(payload: &str, qos: QoS) -> Publish {
    Publish::new("a/b", payload.to_owned())
        .unwrap()
        .with_qos(qos)
}

/// Does not read further than a message that says "poison", and closes without having told anybody
/// what it took before that in the same moment.
async fn fall_ill(server: &mut ScriptedServer) -> Vec<String> {
    let mut taken = Vec::new();
    let mut seen = Vec::new();
    loop {
        let packet = timeout(Duration::from_millis(10), server.next()).await;
        match packet {
            Ok(Some(Packet::Publish(publish))) => {
                let payload = String::from_utf8(publish.message.payload.to_vec()).unwrap();
                let is_poison = payload == "poison";
                seen.push(payload);
                if is_poison {
                    return seen;
                }
                taken.extend(publish.packet_id);
            }
            Ok(Some(Packet::PingReq)) => server.send(Packet::PingResp).await,
            Ok(Some(packet)) => panic!("{packet:?}"),
            Ok(None) => return seen,
            Err(_) => {
                for id in taken.drain(..) {
                    server.puback(id).await;
                }
                if seen.is_empty() {
                    // Its patience while nothing comes.
                    sleep(SECOND).await;
                }
            }
        }
    }
}

/// What is sent on each connection, until one is given nothing but what is harmless.
async fn until_it_holds(
    mut server: ScriptedServer,
    listener: &mut MemoryListener,
) -> Vec<Vec<String>> {
    let mut connections = Vec::new();
    for _ in 0..20 {
        match timeout(SECOND * 120, fall_ill(&mut server)).await {
            Ok(seen) => connections.push(seen),
            Err(_) => return connections,
        }
        drop(server);
        server = resume(listener).await;
    }
    panic!("it goes on: {connections:?}");
}

fn check_set_aside(outcome: Result<mqtt_client::Published, PublishError>, times: u32) {
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, PublishError::SetAside { connections, .. } if connections == times),
        "{error:?}"
    );
    assert_eq!(error.delivery(), Delivery::Unknown);
    assert!(report(&error).contains("set aside after"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_ends_every_connection_is_set_aside_and_the_session_goes_on() {
    for version in BOTH {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let (connector, mut listener) = connector(config(version));
            let (session, server) = open(&connector, &mut listener).await;
            let poison = session.publish(message("poison", qos));
            let ((), connections, ()) = tokio::join!(
                async { check_set_aside(poison.await, 3) },
                until_it_holds(server, &mut listener),
                async {
                    sleep(SECOND * 2).await;
                    // It waits behind the resends.
                    session
                        .publish(message("later", QoS::AtLeastOnce))
                        .await
                        .unwrap();
                }
            );
            assert_eq!(connections, [["poison"], ["poison"], ["poison"]]);
            assert_eq!(session.in_flight(), 0);
            assert!(!session.is_closed());
        }
    }
}

/// The acknowledgements of those before it are lost with each connection, so that the first of them
/// looks guilty. It is sent alone before it is blamed.
#[tokio::test(start_paused = true)]
async fn the_innocent_before_and_behind_it_are_delivered() {
    let (connector, mut listener) = connector(config(Version::V5));
    let (session, server) = open(&connector, &mut listener).await;
    let innocent = ["one", "two", "three", "four"];
    let publishing = async {
        let [one, two, three, four] =
            innocent.map(|payload| session.publish(message(payload, QoS::AtLeastOnce)));
        let poison = session.publish(message("poison", QoS::AtLeastOnce));
        let (one, two, poison, three, four) = tokio::join!(one, two, poison, three, four);
        for outcome in [one, two, three, four] {
            outcome.unwrap();
        }
        check_set_aside(poison, 3);
    };
    let ((), connections) = tokio::join!(publishing, until_it_holds(server, &mut listener));
    let batch = ["one", "two", "poison"];
    assert_eq!(connections[0], batch);
    assert_eq!(connections[1], batch);
    // One at a time, from here on.
    assert_eq!(connections[2], batch);
    assert_eq!(connections[3], ["poison"]);
    assert_eq!(connections[4], ["poison"]);
    assert_eq!(connections.len(), 5);
}

/// A server that is away in whatever is sent to it, or not, blames nobody.
#[tokio::test(start_paused = true)]
async fn a_server_that_falls_ill_by_itself_costs_no_publish() {
    let (connector, mut listener) = connector(config(Version::V5));
    let (session, server) = open(&connector, &mut listener).await;
    let mut publishing = pin!(session.publish(message("m", QoS::AtLeastOnce)));
    assert!(now(&mut publishing).await.is_none());
    let mut server = Some(server);
    for _ in 0..12 {
        drop(server.take());
        let resumed = resume(&mut listener).await;
        sleep(SECOND).await;
        server = Some(resumed);
    }
    let mut server = server.unwrap();
    let packet = server.expect_publish().await;
    assert!(now(&mut publishing).await.is_none());
    server.puback(packet.packet_id.unwrap()).await;
    publishing.await.unwrap();
}

/// What the server says it closes for counts, and so does that it was stable.
#[tokio::test(start_paused = true)]
async fn other_reasons_and_stable_connections_acquit() {
    async fn sent_again(
        session: &Session,
        mut server: ScriptedServer,
        listener: &mut MemoryListener,
        goodbye: Option<ReasonCode>,
        after: Duration,
    ) {
        let mut publishing = pin!(session.publish(message("m", QoS::AtLeastOnce)));
        assert!(now(&mut publishing).await.is_none());
        for _ in 0..8 {
            server.expect_publish().await;
            let begin = Instant::now();
            while let Some(rest) = after.checked_sub(begin.elapsed()) {
                match timeout(rest, server.recv()).await {
                    Ok(_) => server.send(Packet::PingResp).await,
                    Err(_) => break,
                }
            }
            if let Some(code) = goodbye {
                server.send(Packet::Disconnect(Disconnect::new(code))).await;
                server.expect_closed().await;
            }
            drop(server);
            server = resume(listener).await;
        }
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
        publishing.await.unwrap();
    }
    let shutting_down = Some(ReasonCode::SERVER_SHUTTING_DOWN);
    for (goodbye, after) in [(shutting_down, Duration::ZERO), (None, SECOND * 40)] {
        let (connector, mut listener) = connector(config(Version::V5));
        let (session, server) = open(&connector, &mut listener).await;
        sent_again(&session, server, &mut listener, goodbye, after).await;
    }
}

fn with_set_aside_after(after: Option<u32>) -> SessionConfig {
    let reconnect = ReconnectConfig::default()
        .with_jitter(Duration::ZERO)
        .with_set_aside_after(after);
    config(Version::V5).with_reconnect(Some(reconnect))
}

#[tokio::test(start_paused = true)]
async fn how_often_is_an_option() {
    let (connector, mut listener) = connector(with_set_aside_after(Some(2)));
    let (session, server) = open(&connector, &mut listener).await;
    let poison = session.publish(message("poison", QoS::AtLeastOnce));
    let (outcome, connections) = tokio::join!(poison, until_it_holds(server, &mut listener));
    check_set_aside(outcome, 2);
    assert_eq!(connections.len(), 2);

    let (connector, mut listener) = crate::common::connector(with_set_aside_after(None));
    let (session, mut server) = open(&connector, &mut listener).await;
    let mut poison = pin!(session.publish(message("poison", QoS::AtLeastOnce)));
    assert!(now(&mut poison).await.is_none());
    for _ in 0..30 {
        assert_eq!(fall_ill(&mut server).await, ["poison"]);
        drop(server);
        server = resume(&mut listener).await;
    }
    assert!(now(&mut poison).await.is_none());
    let errors = with_set_aside_after(Some(1)).validate().unwrap_err();
    assert!(
        errors.to_string().contains("reconnect.set_aside_after"),
        "{errors}"
    );
}

/// Dropped by its caller, a publish is the session's to complete, or to set aside.
#[tokio::test(start_paused = true)]
async fn a_publish_that_nobody_waits_for_is_set_aside_too() {
    let (connector, mut listener) = connector(config(Version::V5));
    let (session, server) = open(&connector, &mut listener).await;
    assert!(
        now(session.publish(message("poison", QoS::AtLeastOnce)))
            .await
            .is_none()
    );
    let connections = until_it_holds(server, &mut listener).await;
    assert_eq!(connections.len(), 3);
    settle().await;
    assert_eq!(session.in_flight(), 0);
}
