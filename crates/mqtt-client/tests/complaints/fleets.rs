//! Many sessions of one process, and two of one name.

use std::{collections::BTreeMap, time::Duration};

use mqtt_client::{QoS, SessionConfig, Subscribe, Version};
use mqtt_testkit::ScriptedServer;
use tokio::time::{Instant, timeout};

use crate::{
    SECOND,
    common::{BOTH, connector, endpoint, publish, settle, subscribed},
    tasks,
};

/// A server of 3.1.1 takes the session from the one that has it and says nothing.
#[tokio::test(start_paused = true)]
async fn two_sessions_of_one_name_do_not_chase_each_other() {
    let (connector, mut listener) = connector(
        SessionConfig::new("gateway")
            .with_version(Version::V3)
            .with_keep_alive(Duration::ZERO),
    );
    let both = tokio::spawn(async move {
        let one = connector.connect(endpoint()).await.unwrap();
        let other = connector.connect(endpoint()).await.unwrap();
        tokio::join!(one.closed(), other.closed());
    });
    let begin = Instant::now();
    let mut holds: Option<ScriptedServer> = None;
    let mut connects = 0;
    while begin.elapsed() < SECOND * 3_600 {
        let Ok(mut server) = timeout(SECOND * 90, listener.accept_patiently()).await else {
            panic!("one of them has given up");
        };
        server.accept().await;
        connects += 1;
        holds = Some(server);
        settle().await;
    }
    drop(holds);
    // One of them keeps what it took for as long as the other's longest delay, a minute.
    assert!((60..200).contains(&connects), "{connects}");
    both.abort();
}

/// With the defaults: what came together does not come back together.
#[tokio::test(start_paused = true)]
async fn sessions_that_lose_one_server_come_back_one_by_one() {
    const SESSIONS: usize = 400;
    let (connector, mut listener) = connector(SessionConfig::new(""));
    let mut sessions = Vec::new();
    let mut servers = Vec::new();
    for _ in 0..SESSIONS {
        let (session, server) = tokio::join!(connector.connect(endpoint()), async {
            let mut server = listener.accept().await;
            server.accept().await;
            server
        });
        sessions.push(session.unwrap());
        servers.push(server);
    }
    drop(servers);
    let cut = Instant::now();
    let mut tenths = BTreeMap::<u128, usize>::new();
    let mut servers = Vec::new();
    for _ in 0..SESSIONS {
        let mut server = listener.accept().await;
        server.accept().await;
        *tenths.entry(cut.elapsed().as_millis() / 100).or_default() += 1;
        servers.push(server);
    }
    // Over a second, of which each tenth has a tenth of them, more or less.
    assert!(
        tenths.values().all(|count| *count < SESSIONS / 4),
        "{tenths:?}"
    );
    assert!(
        tenths.keys().all(|tenth| (10..=21).contains(tenth)),
        "{tenths:?}"
    );
}

/// Not of one that was connected, nor of one that waits for its next attempt, nor of one that is told to leave.
#[tokio::test(start_paused = true)]
async fn sessions_that_are_dropped_leave_no_task_and_no_connection() {
    for version in BOTH {
        let before = tasks();
        let mut ends = Vec::new();
        for number in 0..100 {
            let (connector, mut listener) =
                connector(SessionConfig::new(number.to_string()).with_version(version));
            let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
                let mut server = listener.accept().await;
                server.accept().await;
                server
            });
            let session = session.unwrap();
            let stream = subscribed(&session, &mut server, Subscribe::new("a").unwrap()).await;
            match number % 3 {
                0 => {
                    let answered = async {
                        let id = server.expect_publish().await.packet_id.unwrap();
                        server.puback(id).await;
                    };
                    let publishing = session.publish(publish(QoS::AtLeastOnce));
                    let (outcome, ()) = tokio::join!(publishing, answered);
                    outcome.unwrap();
                    ends.push(server);
                }
                1 => {
                    drop(server);
                    settle().await;
                }
                _ => {
                    session.disconnect().await.unwrap();
                    ends.push(server);
                }
            }
            drop((session, stream));
        }
        tokio::time::sleep(SECOND).await;
        assert_eq!(tasks(), before);
        for mut end in ends {
            // Its descriptor is closed when the server sees the end of what came.
            let end = async { while end.next().await.is_some() {} };
            timeout(SECOND, end).await.unwrap();
        }
    }
}
