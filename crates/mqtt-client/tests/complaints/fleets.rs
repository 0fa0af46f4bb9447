//! Many sessions of one process, and two of one name.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use mqtt_client::{
    QoS, SessionConfig, Subscribe, Version,
    pool::{BackoffConfig, DialBudget, DialGate},
    proto::packet::{ConnAck, Packet},
};
use mqtt_testkit::{MemoryListener, ScriptedServer};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

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
        sleep(SECOND).await;
        assert_eq!(tasks(), before);
        for mut end in ends {
            // Its descriptor is closed when the server sees the end of what came.
            let end = async { while end.next().await.is_some() {} };
            timeout(SECOND, end).await.unwrap();
        }
    }
}

/// What a server of many has seen, and what it holds.
#[derive(Debug, Default)]
struct Seen {
    is_away: bool,
    dials: usize,
    shaking_hands: usize,
    most_shaking_hands: usize,
    open: Vec<ScriptedServer>,
}

/// Takes five milliseconds for each CONNECT, and closes at once while it is away.
async fn serve_many(mut listener: MemoryListener, seen: Arc<Mutex<Seen>>) {
    loop {
        let mut server = listener.accept_patiently().await;
        let is_away = {
            let mut seen = seen.lock().unwrap();
            seen.dials += 1;
            seen.is_away
        };
        if is_away {
            continue;
        }
        let seen = seen.clone();
        tokio::spawn(async move {
            server.expect_connect().await;
            {
                let mut seen = seen.lock().unwrap();
                seen.shaking_hands += 1;
                seen.most_shaking_hands = seen.most_shaking_hands.max(seen.shaking_hands);
            }
            sleep(Duration::from_millis(5)).await;
            seen.lock().unwrap().shaking_hands -= 1;
            server.send(Packet::ConnAck(ConnAck::accepted())).await;
            seen.lock().unwrap().open.push(server);
        });
    }
}

/// Through one gate: eight at a time when all come, and a probe now and then while the server is away.
#[tokio::test(start_paused = true)]
async fn ten_thousand_sessions_dial_a_few_at_a_time() {
    const SESSIONS: usize = 10_000;
    let budget = DialBudget::new(NonZeroU32::new(8).unwrap());
    let gate = DialGate::new(BackoffConfig::default(), budget).unwrap();
    let config = SessionConfig::new("").with_keep_alive(Duration::ZERO);
    let (connector, listener) = connector(config);
    let connector = connector.with_dial_gate(gate);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let server = tokio::spawn(serve_many(listener, seen.clone()));
    let mut opening = JoinSet::new();
    for _ in 0..SESSIONS {
        let connector = connector.clone();
        opening.spawn(async move { connector.connect(endpoint()).await.unwrap() });
    }
    let sessions = opening.join_all().await;
    let before = {
        let mut seen = seen.lock().unwrap();
        assert_eq!(seen.open.len(), SESSIONS);
        seen.is_away = true;
        seen.open.clear();
        seen.dials
    };
    sleep(SECOND * 600).await;
    {
        let mut seen = seen.lock().unwrap();
        let tried = seen.dials - before;
        assert!((5..100).contains(&tried), "{tried}");
        seen.is_away = false;
    }
    let back = async {
        while seen.lock().unwrap().open.len() < SESSIONS {
            sleep(SECOND).await;
        }
    };
    timeout(SECOND * 120, back)
        .await
        .expect("some are not back");
    assert_eq!(seen.lock().unwrap().most_shaking_hands, 8);
    drop(sessions);
    server.abort();
}
