//! A real server that is stopped for half a minute, once: one session waits for it, one gives it up.

use std::{collections::HashMap, process::Command, time::Duration};

use mqtt_client::{
    OutboxConfig, QoS, ReconnectConfig, Session, SessionConfig, SessionConnector, SessionState,
    Subscribe, pool::Limit,
};
use mqtt_testkit::Mosquitto;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{SECOND, numbered};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

const PRODUCERS: usize = 8;

/// What the outbox may have, in messages.
const MAX_MESSAGES: usize = 100;

async fn open(server: &Mosquitto, client_id: &str, keep_alive: Duration) -> Session {
    let reconnect = ReconnectConfig::default()
        .with_base(SECOND / 10)
        .with_max(SECOND / 2)
        .with_jitter(SECOND / 10);
    let outbox = OutboxConfig::default().with_max_messages(MAX_MESSAGES);
    let config = SessionConfig::new(client_id)
        .with_clean_start(false)
        .with_session_expiry(Limit::After(SECOND * 3_600))
        .with_keep_alive(keep_alive)
        .with_write_timeout(SECOND * 60)
        .with_outbox(outbox)
        .with_reconnect(Some(reconnect));
    let connector = SessionConnector::new(config).unwrap();
    connector
        .connect(server.tcp_url().parse().unwrap())
        .await
        .unwrap()
}

fn signal(server: &Mosquitto, signal: &str) {
    let pid = server.pid().unwrap().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
    assert!(sent.success());
}

/// Publishes until told to stop; says how many of each were acknowledged.
fn produce(session: &Session, end: Instant) -> JoinSet<(String, usize)> {
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let publisher = session.publisher();
        let topic = format!("{}/{producer}", session.client_id());
        producers.spawn(async move {
            let mut number = 0;
            while Instant::now() < end {
                let outcome = timeout(PATIENCE, publisher.publish(numbered(&topic, number)));
                outcome.await.expect("the outcome is told").unwrap();
                number += 1;
                sleep(Duration::from_millis(5)).await;
            }
            (topic, number)
        });
    }
    producers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_for_half_a_minute_is_waited_for_or_given_up() {
    let name = "a_server_that_stops_for_half_a_minute_is_waited_for_or_given_up";
    let Some(server) = Mosquitto::start_or_skip(name).await else {
        return;
    };
    let reader = open(&server, "reader", SECOND * 60).await;
    let mut stream = reader
        .subscribe(Subscribe::new("#").unwrap())
        .await
        .unwrap();
    let reading = tokio::spawn(async move {
        let mut arrived = HashMap::<String, Vec<usize>>::new();
        while let Some(message) = stream.recv().await {
            // At QoS 0 a message may be gone with the connection.
            if message.qos != QoS::AtMostOnce {
                let number = std::str::from_utf8(&message.payload).unwrap();
                let numbers = arrived.entry(message.topic.to_string()).or_default();
                numbers.push(number.parse().unwrap());
            }
        }
        arrived
    });
    let patient = open(&server, "patient", SECOND * 60).await;
    let hasty = open(&server, "hasty", SECOND * 4).await;
    let end = Instant::now() + SECOND * 34;
    let mut producers = [produce(&patient, end), produce(&hasty, end)];

    sleep(SECOND).await;
    signal(&server, "-STOP");
    let stopped = Instant::now();
    let mut states = hasty.watch_state();
    let is_lost = states.wait_for(|state| !matches!(state, SessionState::Connected { .. }));
    timeout(SECOND * 10, is_lost)
        .await
        .expect("within one and a half keep-alive")
        .unwrap();
    assert!(stopped.elapsed() >= SECOND * 2, "not before it is due");
    while stopped.elapsed() < SECOND * 30 {
        for session in [&patient, &hasty] {
            assert!(session.outbox().messages <= MAX_MESSAGES);
            assert!(session.in_flight() <= PRODUCERS);
        }
        sleep(SECOND / 4).await;
    }
    assert!(matches!(patient.state(), SessionState::Connected { .. }));
    signal(&server, "-CONT");

    let mut published = Vec::new();
    for producers in &mut producers {
        while let Some(producer) = producers.join_next().await {
            published.push(producer.unwrap());
        }
    }
    assert!(matches!(
        hasty.state(),
        SessionState::Connected { resumed: true, .. }
    ));
    // What was acknowledged is on its way to the reader by now.
    sleep(SECOND).await;
    for session in [patient, hasty, reader] {
        session.disconnect().await.unwrap();
    }
    let mut arrived = timeout(PATIENCE, reading).await.unwrap().unwrap();
    for (topic, count) in published {
        let numbers = arrived.remove(&topic).unwrap_or_default();
        let mut at_least_once = numbers.clone();
        at_least_once.retain(|number| number % 3 == 1);
        at_least_once.dedup();
        let exactly_once = numbers.iter().copied().filter(|number| number % 3 == 2);
        assert!(
            at_least_once.into_iter().eq((1..count).step_by(3)),
            "{topic}"
        );
        assert!(exactly_once.eq((2..count).step_by(3)), "{topic}");
    }
}
