//! While nothing is given up: how much is held, and that all of it arrives afterwards.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use mqtt_client::{OutboxConfig, Publish, Published, QoS, SessionConfig, SessionConnector};
use mqtt_testkit::memory_with_capacity;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    SECOND,
    common::{endpoint, settle},
    numbered,
};

const PIPE: usize = 4 * 1024;
const MAX_UNSENT: usize = 8 * 1024;
const MAX_MESSAGES: usize = 50;
const MAX_BYTES: usize = 1_000;
const WINDOW: u16 = 20;

fn config() -> SessionConfig {
    let outbox = OutboxConfig::default()
        .with_max_messages(MAX_MESSAGES)
        .with_max_bytes(MAX_BYTES);
    SessionConfig::new("gateway")
        .with_keep_alive(SECOND * 60)
        .with_write_timeout(SECOND * 60)
        .with_max_unsent_bytes(MAX_UNSENT)
        .with_max_in_flight(WINDOW)
        .with_outbox(outbox)
        .with_reconnect(None)
}

/// Each producer has a message at each QoS under way, so that there is far more than fits.
#[tokio::test(start_paused = true)]
async fn what_is_held_stays_within_the_bounds_and_arrives_once_and_in_order() {
    const PRODUCERS: usize = 100;
    const MESSAGES: usize = 30;
    let (memory, mut listener) = memory_with_capacity(PIPE);
    let connector = SessionConnector::with_connector(memory, config()).unwrap();
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS * 3 {
        let publisher = session.publisher();
        producers.spawn(async move {
            // Three producers share a topic, each with a QoS of its own.
            let topic = format!("t/{}", producer / 3);
            for number in (producer % 3..MESSAGES).step_by(3) {
                let outcome = publisher.publish(numbered(&topic, number)).await.unwrap();
                assert_eq!(outcome == Published::Sent, number % 3 == 0);
            }
        });
    }
    for _ in 0..30 {
        sleep(SECOND).await;
        let outbox = session.outbox();
        assert!(outbox.messages <= MAX_MESSAGES, "{outbox:?}");
        assert!(outbox.bytes <= MAX_BYTES, "{outbox:?}");
        assert_eq!(session.in_flight(), usize::from(WINDOW));
        assert!(outbox.waiting <= PRODUCERS * 3);
    }
    assert!(session.outbox().waiting > 0, "more than fits");
    let (published, ()) = tokio::join!(server.serve(), async {
        while let Some(producer) = producers.join_next().await {
            producer.unwrap();
        }
        session.disconnect().await.unwrap();
    });
    assert_eq!(published.len(), PRODUCERS * MESSAGES);
    let mut next = HashMap::new();
    for message in published {
        let number: usize = std::str::from_utf8(&message.payload)
            .unwrap()
            .parse()
            .unwrap();
        let expected = next
            .entry((message.topic.to_string(), number % 3))
            .or_insert(number % 3);
        assert_eq!(number, *expected, "{}", message.topic);
        *expected += 3;
    }
}

/// What is told "sent" has a bound as well: the connection's own buffer and the session's, twice.
#[tokio::test(start_paused = true)]
async fn at_qos_0_no_more_is_told_sent_than_the_buffers_hold() {
    const PAYLOAD: usize = 100;
    let (memory, mut listener) = memory_with_capacity(PIPE);
    let connector = SessionConnector::with_connector(memory, config()).unwrap();
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    let sent = Arc::<AtomicUsize>::default();
    let mut producers = JoinSet::new();
    for _ in 0..4 {
        let (publisher, sent) = (session.publisher(), sent.clone());
        producers.spawn(async move {
            loop {
                let publish = Publish::new("t", vec![0; PAYLOAD]).unwrap();
                if publisher
                    .publish(publish.with_qos(QoS::AtMostOnce))
                    .await
                    .is_err()
                {
                    return;
                }
                sent.fetch_add(PAYLOAD, SeqCst);
            }
        });
    }
    settle().await;
    let at_first = sent.load(SeqCst);
    assert!(
        at_first <= PIPE + 2 * MAX_UNSENT + PAYLOAD,
        "{at_first} bytes"
    );
    sleep(SECOND * 30).await;
    assert_eq!(sent.load(SeqCst), at_first, "nobody has read");
    // The end is told to all of them.
    drop(server);
    while let Some(producer) = producers.join_next().await {
        producer.unwrap();
    }
}
