//! Publishing over a pool of sessions, over connections in memory and in virtual time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::HashMap,
    error::Error,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{config, connector, endpoint, now, publish, settle};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use mqtt_client::{
    Delivery, PoolPublishError, PooledSessions, Publish, PublishError, Published, QoS,
    SessionConfig, SessionPool, Version,
    pool::{AcquireError, Limit, PoolConfig, SharedConfig},
    proto::packet::Packet,
};
use mqtt_testkit::{MemoryConnector, MemoryListener, ScriptedServer};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn pool_with(
    session: SessionConfig,
    pool: PoolConfig,
    size: usize,
) -> (SessionPool<MemoryConnector>, MemoryListener) {
    let (connector, listener) = connector(session);
    let sessions = PooledSessions::new(connector, endpoint());
    let shared = SharedConfig::default().with_size(size);
    (SessionPool::new(sessions, pool, shared).unwrap(), listener)
}

fn pool(size: usize) -> (SessionPool<MemoryConnector>, MemoryListener) {
    pool_with(config(Version::V5), PoolConfig::default(), size)
}

async fn accept(listener: &mut MemoryListener) -> ScriptedServer {
    let mut server = listener.accept().await;
    server.accept().await;
    server
}

/// What arrived, by session and in the order of arrival.
type Arrived = Arc<Mutex<Vec<(String, Publish)>>>;

/// Serves every connection, and acknowledges after a random while.
fn serve(mut listener: MemoryListener) -> Arrived {
    let arrived = Arrived::default();
    let log = arrived.clone();
    tokio::spawn(async move {
        loop {
            let mut server = listener.accept().await;
            let log = log.clone();
            tokio::spawn(async move {
                let client_id = server.accept().await.client_id.to_string();
                let mut random = fastrand::Rng::with_seed(7);
                while let Some(packet) = server.next().await {
                    if let Packet::Publish(publish) = packet {
                        let entry = (client_id.clone(), publish.message.into());
                        log.lock().unwrap().push(entry);
                        if let Some(id) = publish.packet_id {
                            sleep(Duration::from_millis(random.u64(0..20))).await;
                            server.puback(id).await;
                        }
                    }
                }
            });
        }
    });
    arrived
}

fn message(topic: &str, number: u32) -> Publish {
    Publish::new(topic.to_owned(), number.to_string())
        .unwrap()
        .with_qos(QoS::AtLeastOnce)
}

/// The numbers that arrived for each topic.
fn numbers(arrived: &Arrived) -> HashMap<String, Vec<u32>> {
    let mut numbers: HashMap<_, Vec<_>> = HashMap::new();
    for (_, Publish { message, .. }) in &*arrived.lock().unwrap() {
        let number = std::str::from_utf8(&message.payload).unwrap();
        let of_topic = numbers.entry(message.topic.to_string()).or_default();
        of_topic.push(number.parse().unwrap());
    }
    numbers
}

#[tokio::test(start_paused = true)]
async fn publishes_go_where_less_is_in_flight() {
    let (pool, mut listener) = pool(2);
    let mut servers = [accept(&mut listener).await, accept(&mut listener).await];
    settle().await;
    let mut in_flight: Vec<_> = (0..10)
        .map(|_| Box::pin(pool.publish(publish(QoS::AtLeastOnce))))
        .collect();
    for publish in &mut in_flight {
        assert!(now(publish).await.is_none());
    }
    assert_eq!(pool.status().handles, 10);
    for server in &mut servers {
        for _ in 0..5 {
            let id = server.expect_publish().await.packet_id.unwrap();
            server.puback(id).await;
        }
    }
    for outcome in join_all(in_flight).await {
        assert!(matches!(outcome, Ok(Published::Acknowledged { .. })));
    }
}

/// Order does not cost a round trip for each message.
#[tokio::test(start_paused = true)]
async fn messages_of_a_key_are_in_flight_together() {
    let (pool, mut listener) = pool(2);
    let mut servers = [accept(&mut listener).await, accept(&mut listener).await];
    settle().await;
    let mut in_flight: Vec<_> = (0..10)
        .map(|number| Box::pin(pool.publish_keyed("a", message("a", number))))
        .collect();
    for publish in &mut in_flight {
        assert!(now(publish).await.is_none());
    }
    let [a, b] = &mut servers;
    let server = tokio::select! {
        _ = a.expect_publish() => a,
        _ = b.expect_publish() => b,
    };
    for number in 1..10 {
        let publish = server.expect_publish().await;
        assert_eq!(publish.message.payload, number.to_string());
    }
}

/// Sixteen messages of each key are under way at any time, and members go all the time: for their
/// lifetime, and because they are told to.
#[tokio::test(start_paused = true)]
async fn nothing_fails_and_no_key_gets_out_of_order_while_members_are_recycled() {
    let recycling = PoolConfig::default()
        .with_connect_timeout(SECOND / 2)
        .with_max_lifetime(Limit::After(SECOND));
    let (pool, listener) = pool_with(config(Version::V5), recycling, 3);
    let arrived = serve(listener);
    let publishers = (0..8).map(|key| {
        let mut publisher = pool.by_topic();
        tokio::spawn(async move {
            let topic = format!("devices/{key}");
            let mut under_way = FuturesUnordered::new();
            for number in 0..1_000 {
                if under_way.len() == 16 {
                    under_way.next().await.unwrap();
                }
                let publishing = publisher.ready().await.unwrap();
                let mut publishing = publishing.call(message(&topic, number));
                // Its turn is when it is polled first.
                match now(&mut publishing).await {
                    Some(outcome) => drop(outcome.unwrap()),
                    None => under_way.push(async { publishing.await.unwrap() }),
                }
            }
            while under_way.next().await.is_some() {}
        })
    });
    let publishers = join_all(publishers.collect::<Vec<_>>());
    let mut publishers = pin!(publishers);
    let mut retired = 0;
    let outcomes = loop {
        tokio::select! {
            outcomes = &mut publishers => break outcomes,
            () = sleep(SECOND * 2 / 3) => {
                pool.pool().clear();
                retired += 1;
            }
        }
    };
    for outcome in outcomes {
        outcome.unwrap();
    }
    let gone = pool.pool().totals().closed;
    assert!(
        retired > 5 && gone.generation + gone.lifetime > 15,
        "{gone:?}"
    );
    for (topic, numbers) in numbers(&arrived) {
        assert_eq!(numbers, (0..1_000).collect::<Vec<_>>(), "{topic}");
    }
    let deadline = Instant::now() + SECOND;
    assert!(pool.drain(deadline).await.is_complete());
}

/// The same without keys, where only arriving counts.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_sent_twice_while_members_are_recycled() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (pool, mut listener) = pool(2);
        let served = tokio::spawn(async move {
            let mut servers = Vec::new();
            while let Ok(mut server) = tokio::time::timeout(SECOND * 5, listener.accept()).await {
                servers.push(tokio::spawn(async move {
                    server.accept().await;
                    server.serve().await
                }));
            }
            let mut published = Vec::new();
            for server in servers {
                published.extend(server.await.unwrap());
            }
            published
        });
        let calls = (0..20).map(|_| async {
            for _ in 0..50 {
                pool.publish(publish(qos)).await.unwrap();
                sleep(Duration::from_millis(fastrand::u64(0..40))).await;
            }
        });
        let calls = join_all(calls.collect::<Vec<_>>());
        let recycle = async {
            loop {
                sleep(SECOND / 4).await;
                pool.pool().clear();
            }
        };
        tokio::select! { _ = calls => {}, () = recycle => {} }
        pool.drain(Instant::now() + SECOND).await;
        assert_eq!(served.await.unwrap().len(), 1_000);
    }
}

/// What was sent is lost with its session, what waited behind it is not.
#[tokio::test(start_paused = true)]
async fn what_a_dead_session_did_not_send_goes_over_another() {
    for keyed in [false, true] {
        let session = config(Version::V5).with_max_in_flight(1_u16);
        let (pool, mut listener) = pool_with(session, PoolConfig::default(), 1);
        let mut server = accept(&mut listener).await;
        settle().await;
        let publish = |number| {
            let (pool, publish) = (pool.clone(), message("a", number));
            Box::pin(async move {
                if keyed {
                    pool.publish_keyed("a", publish).await
                } else {
                    pool.publish(publish).await
                }
            })
        };
        let mut sent = publish(0);
        assert!(now(&mut sent).await.is_none());
        let mut wait: Vec<_> = (1..6).map(publish).collect();
        for waiting in &mut wait {
            assert!(now(waiting).await.is_none());
        }
        server.expect_publish().await;
        drop(server);
        let (lost, outcomes, ()) = tokio::join!(sent, join_all(wait), async {
            let mut server = accept(&mut listener).await;
            for number in 1..6 {
                let publish = server.expect_publish().await;
                if keyed {
                    assert_eq!(publish.message.payload, number.to_string());
                }
                server.puback(publish.packet_id.unwrap()).await;
            }
        });
        let lost = lost.unwrap_err();
        assert_eq!(
            (lost.delivery(), lost.is_transient()),
            (Delivery::Unknown, true)
        );
        assert!(lost.source().unwrap().is::<PublishError>());
        for outcome in outcomes {
            outcome.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_two_sessions_did_not_send_is_told() {
    let session = config(Version::V5).with_max_in_flight(1_u16);
    let (pool, mut listener) = pool_with(session, PoolConfig::default(), 1);
    let mut server = accept(&mut listener).await;
    settle().await;
    let calls: Vec<_> = (0..3)
        .map(|number| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.publish(message("a", number)).await })
        })
        .collect();
    server.expect_publish().await;
    drop(server);
    let mut server = accept(&mut listener).await;
    server.expect_publish().await;
    settle().await;
    drop(server);
    let mut deliveries = Vec::new();
    for call in calls {
        deliveries.push(call.await.unwrap().unwrap_err().delivery());
    }
    // One was sent to each, and one to neither.
    let unsent = deliveries.iter().filter(|it| **it == Delivery::NotSent);
    assert_eq!((unsent.count(), deliveries.len()), (1, 3));
}

/// A server that is away keeps those that wait in a lane no longer than any of them may wait.
#[tokio::test(start_paused = true)]
async fn waiting_for_a_session_is_bounded_for_all_of_a_key() {
    let (pool, _listener) = pool(2);
    let start = Instant::now();
    let mut calls = Vec::new();
    for number in 0..20 {
        let mut call = Box::pin(pool.publish_keyed("a", message("a", number)));
        assert!(now(&mut call).await.is_none());
        calls.push(call);
        sleep(Duration::from_millis(10)).await;
    }
    for outcome in join_all(calls).await {
        let error = outcome.unwrap_err();
        assert!(
            matches!(
                error,
                PoolPublishError::Acquire(AcquireError::Timeout { .. })
            ),
            "{error:?}"
        );
        assert_eq!(
            (error.delivery(), error.is_transient()),
            (Delivery::NotSent, true)
        );
    }
    let timeout = pool.pool().config().acquire_timeout;
    assert!(
        start.elapsed() <= timeout + SECOND / 2,
        "{:?}",
        start.elapsed()
    );
}

/// Wherever they are: waiting for their turn, a session, room, or the acknowledgement.
#[tokio::test(start_paused = true)]
async fn futures_may_be_dropped_anywhere() {
    let session = config(Version::V5).with_max_in_flight(1_u16);
    let (pool, mut listener) = pool_with(session, PoolConfig::default(), 1);
    let mut waits = Box::pin(pool.publish_keyed("a", message("a", 0)));
    let mut turn = Box::pin(pool.publish_keyed("a", message("a", 1)));
    assert!(now(&mut waits).await.is_none());
    assert!(now(&mut turn).await.is_none());
    drop(waits);
    drop(turn);
    let mut server = accept(&mut listener).await;
    settle().await;
    let mut sent = Box::pin(pool.publish_keyed("a", message("a", 2)));
    let mut room = Box::pin(pool.publish_keyed("a", message("a", 3)));
    let mut turn = Box::pin(pool.publish_keyed("a", message("a", 4)));
    let mut last = Box::pin(pool.publish_keyed("a", message("a", 5)));
    for future in [&mut sent, &mut room, &mut turn, &mut last] {
        assert!(now(future).await.is_none());
    }
    drop(sent);
    drop(turn);
    drop(room);
    let (outcome, ()) = tokio::join!(last, async {
        for number in [2, 5] {
            let publish = server.expect_publish().await;
            assert_eq!(publish.message.payload, number.to_string());
            server.puback(publish.packet_id.unwrap()).await;
        }
    });
    outcome.unwrap();
    settle().await;
    assert_eq!(pool.status().handles, 0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_refuses_and_a_drained_one_waits_for_answers() {
    let (pool, mut listener) = pool(1);
    let mut server = accept(&mut listener).await;
    settle().await;
    let mut in_flight = Box::pin(pool.publish(message("a", 0)));
    assert!(now(&mut in_flight).await.is_none());
    let mut service = pool.clone();
    service.ready().await.unwrap();
    let mut drained = Box::pin(pool.drain(Instant::now() + SECOND));
    assert!(now(&mut drained).await.is_none());
    let closed = service.ready().await.unwrap_err();
    assert!(matches!(
        closed,
        PoolPublishError::Acquire(AcquireError::Closed)
    ));
    assert!(pool.by_topic().ready().await.is_err());
    let id = server.expect_publish().await.packet_id.unwrap();
    server.puback(id).await;
    let (outcome, report, _) = tokio::join!(in_flight, drained, server.expect_disconnect());
    outcome.unwrap();
    assert!(report.is_complete(), "{report}");
    let refused = pool.publish(message("a", 1)).await.unwrap_err();
    assert!(!refused.is_transient());
}

#[tokio::test]
async fn all_problems_of_the_options_are_told_at_once() {
    let (connector, _listener) = connector(config(Version::V5));
    let sessions = PooledSessions::new(connector, endpoint());
    let options = PoolConfig::default().with_acquire_timeout(Duration::ZERO);
    let errors = SessionPool::new(sessions, options, SharedConfig::default().with_size(0))
        .unwrap_err()
        .to_string();
    assert!(
        errors.contains("pool.acquire_timeout") && errors.contains("shared.size"),
        "{errors}"
    );
}
