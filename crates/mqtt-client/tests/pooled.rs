//! Sessions from a pool, over connections in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeSet, pin::pin, time::Duration};

use common::{config, connector, endpoint, now, publish, settle};
use mqtt_client::{
    PooledSessions, QoS, Subscribe, Version,
    pool::{AcquireError, Limit, Pool, PoolConfig, Pooled, WeightedEndpoint},
    proto::packet::ConnAck,
};
use mqtt_testkit::{MemoryConnector, MemoryListener, ScriptedServer};
use tokio::{sync::mpsc, time::Instant};

type SessionPool = Pool<PooledSessions<MemoryConnector>>;

fn pool(pool: PoolConfig) -> (SessionPool, MemoryListener) {
    let (connector, listener) = connector(config(Version::V5));
    (
        Pool::new(PooledSessions::new(connector, endpoint()), pool).unwrap(),
        listener,
    )
}

/// Serves every connection; says which client identifiers connect, and which have left.
fn serve(mut listener: MemoryListener) -> (mpsc::Receiver<String>, mpsc::Receiver<String>) {
    let (connects, connected) = mpsc::channel(64);
    let (leaves, left) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            let mut server = listener.accept().await;
            let (connects, leaves) = (connects.clone(), leaves.clone());
            tokio::spawn(async move {
                let client_id = server.accept().await.client_id.to_string();
                connects.send(client_id.clone()).await.unwrap();
                server.serve().await;
                leaves.send(client_id).await.unwrap();
            });
        }
    });
    (connected, left)
}

#[tokio::test(start_paused = true)]
async fn live_sessions_have_names_of_their_own() {
    let (pool, listener) = pool(PoolConfig::default());
    let (mut connected, _left) = serve(listener);
    let (a, b, c) = tokio::try_join!(pool.get(), pool.get(), pool.get()).unwrap();
    let mut names = BTreeSet::new();
    for _ in 0..3 {
        names.insert(connected.recv().await.unwrap());
    }
    assert_eq!(
        names,
        BTreeSet::from(["gateway-0", "gateway-1", "gateway-2"].map(str::to_owned))
    );
    for session in [&a, &b, &c] {
        session.publish(publish(QoS::ExactlyOnce)).await.unwrap();
    }
    drop((a, b, c));
    // The same three serve again.
    let _leases = tokio::try_join!(pool.get(), pool.get(), pool.get()).unwrap();
    settle().await;
    assert!(connected.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_connection_ended_is_not_handed_out_again() {
    let (pool, mut listener) = pool(PoolConfig::default());
    let (lease, server) = tokio::join!(pool.get(), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    drop(lease.unwrap());
    drop(server);
    settle().await;
    let (lease, _server) = tokio::join!(pool.get(), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    assert!(!lease.unwrap().is_closed());
}

/// Two pools would give the same ones to theirs.
#[tokio::test(start_paused = true)]
async fn sessions_without_a_name_are_named_by_the_server() {
    let (connector, listener) = connector(config(Version::V5).with_client_id(""));
    let sessions = PooledSessions::new(connector, endpoint());
    let pool = Pool::new(sessions, PoolConfig::default()).unwrap();
    let (mut connected, _left) = serve(listener);
    let _leases = tokio::try_join!(pool.get(), pool.get()).unwrap();
    assert_eq!(connected.recv().await.unwrap(), "");
    assert_eq!(connected.recv().await.unwrap(), "");
}

/// It was told to leave, and whoever told it did not stay to see it.
#[tokio::test(start_paused = true)]
async fn a_session_that_takes_no_more_requests_is_not_handed_out_again() {
    let (pool, listener) = pool(PoolConfig::default());
    let (_connected, mut left) = serve(listener);
    let lease = pool.get().await.unwrap();
    {
        let mut in_flight = pin!(lease.publish(publish(QoS::AtLeastOnce)));
        assert!(now(&mut in_flight).await.is_none());
        assert!(now(lease.disconnect()).await.is_none());
    }
    drop(lease);
    let lease = pool.get().await.unwrap();
    lease.publish(publish(QoS::AtLeastOnce)).await.unwrap();
    left.recv().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn idle_sessions_leave_in_order() {
    let idle = Limit::After(Duration::from_secs(10));
    let (pool, listener) = pool(PoolConfig::default().with_idle_timeout(idle));
    let (_connected, mut left) = serve(listener);
    drop(pool.get().await.unwrap());
    let start = Instant::now();
    assert_eq!(left.recv().await.unwrap(), "gateway-0");
    assert!(start.elapsed() >= Duration::from_secs(10));
    assert!(
        start.elapsed() <= Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(pool.status().size, 0);
}

#[tokio::test(start_paused = true)]
async fn closing_the_pool_disconnects_its_sessions() {
    let (pool, listener) = pool(PoolConfig::default());
    let (_connected, mut left) = serve(listener);
    let leases = tokio::try_join!(pool.get(), pool.get()).unwrap();
    drop(leases);
    pool.close().await;
    let names: BTreeSet<_> = [left.recv().await.unwrap(), left.recv().await.unwrap()].into();
    assert_eq!(names.len(), 2);
    assert!(matches!(pool.get().await, Err(AcquireError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_whoever_asked_for_a_session() {
    let (pool, mut listener) = pool(PoolConfig::default());
    let (lease, ()) = tokio::join!(pool.get(), async {
        let mut server = listener.accept().await;
        server
            .accept_with(ConnAck::refused(mqtt_client::ReasonCode::NOT_AUTHORIZED))
            .await;
    });
    let report = common::report(&lease.unwrap_err());
    assert!(
        report.contains("mqtt://server.test:1883") && report.contains("not authorized"),
        "{report}"
    );
}

async fn accept(listener: &mut MemoryListener) -> ScriptedServer {
    let mut server = listener.accept().await;
    server.accept().await;
    server
}

#[tokio::test(start_paused = true)]
async fn endpoints_have_their_share_of_the_sessions() {
    let (connector, listener) = connector(config(Version::V5));
    let (a, b): (WeightedEndpoint, WeightedEndpoint) =
        ("mqtt://a".parse().unwrap(), "mqtt://b".parse().unwrap());
    let sessions = PooledSessions::spread(connector, [a.clone(), b.with_weight(2)]).unwrap();
    let pool = Pool::new(sessions, PoolConfig::default()).unwrap();
    let (_connected, _left) = serve(listener);
    let mut leases = Vec::new();
    for _ in 0..6 {
        leases.push(pool.get().await.unwrap());
    }
    let at_a = leases
        .iter()
        .filter(|session| *session.endpoint() == a.endpoint);
    assert_eq!(at_a.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_checked() {
    let (connector, _listener) = connector(config(Version::V5));
    let errors = PooledSessions::spread(connector.clone(), []).unwrap_err();
    assert!(errors.to_string().contains("endpoints"), "{errors}");
    let a: WeightedEndpoint = "mqtt://a".parse().unwrap();
    let errors = PooledSessions::spread(connector, [a.clone(), a]).unwrap_err();
    assert!(errors.to_string().contains("endpoints[1].url"), "{errors}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_is_told_at_once_and_one_for_now_is_not() {
    for (code, is_told) in [
        (mqtt_client::ReasonCode::BAD_USER_NAME_OR_PASSWORD, true),
        (mqtt_client::ReasonCode::SERVER_BUSY, false),
    ] {
        let (pool, mut listener) = pool(PoolConfig::default());
        let refuse = async {
            loop {
                let mut server = listener.accept().await;
                server.accept_with(ConnAck::refused(code)).await;
            }
        };
        let start = Instant::now();
        let error = tokio::select! {
            lease = pool.get() => lease.unwrap_err(),
            () = refuse => unreachable!(),
        };
        if is_told {
            assert!(
                matches!(error, AcquireError::Unavailable { .. }),
                "{error:?}"
            );
            assert!(start.elapsed() < Duration::from_millis(50), "{error:?}");
        } else {
            assert!(matches!(error, AcquireError::Timeout { .. }), "{error:?}");
        }
    }
}

/// Nobody asks for it, and no sweep is due: the session itself tells.
#[tokio::test(start_paused = true)]
async fn an_idle_session_that_ends_is_replaced_at_once() {
    let (pool, mut listener) = pool(PoolConfig::default().with_min_idle(1));
    let server = accept(&mut listener).await;
    settle().await;
    assert_eq!(pool.status().idle, 1);
    let start = Instant::now();
    drop(server);
    let _server = accept(&mut listener).await;
    // The backoff's first pause is shorter than any sweep.
    assert!(
        start.elapsed() < Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn only_what_others_end_is_a_failure_of_the_server() {
    let (pool, mut listener) = pool(PoolConfig::default().with_max_size(1));
    let (lease, mut server) = tokio::join!(pool.get(), accept(&mut listener));
    let lease = lease.unwrap();
    let (left, _) = tokio::join!(lease.disconnect(), server.expect_disconnect());
    left.unwrap();
    drop(lease);
    let start = Instant::now();
    let (lease, server) = tokio::join!(pool.get(), accept(&mut listener));
    assert!(
        start.elapsed() < Duration::from_millis(50),
        "{:?}",
        start.elapsed()
    );
    drop(server);
    settle().await;
    drop(lease);
    let start = Instant::now();
    let (_lease, _server) = tokio::join!(pool.get(), accept(&mut listener));
    assert!(
        start.elapsed() >= Duration::from_millis(100),
        "{:?}",
        start.elapsed()
    );
}

/// Its messages would be the next holder's.
#[tokio::test(start_paused = true)]
async fn a_session_with_an_open_subscription_is_discarded() {
    let (pool, mut listener) = pool(PoolConfig::default());
    let (lease, mut server) = tokio::join!(pool.get(), accept(&mut listener));
    let lease = lease.unwrap();
    let (messages, _) = tokio::join!(
        lease.subscribe(Subscribe::new("a/#").unwrap()),
        server.grant()
    );
    drop(lease);
    server.expect_disconnect().await;
    assert_eq!(pool.status().size, 0);
    assert_eq!(messages.unwrap().recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_subscriptions_are_dropped_goes_back() {
    let (pool, mut listener) = pool(PoolConfig::default());
    let (lease, mut server) = tokio::join!(pool.get(), accept(&mut listener));
    let lease = lease.unwrap();
    let (messages, _) = tokio::join!(
        lease.subscribe(Subscribe::new("a/#").unwrap()),
        server.grant()
    );
    drop(messages);
    drop(lease);
    server.expect_unsubscribe().await;
    assert_eq!(pool.status().idle, 1);
    assert!(pool.try_get().is_some());
}

/// It may be the connection that is stuck, and not the caller who was impatient.
#[tokio::test(start_paused = true)]
async fn a_session_that_owes_an_acknowledgement_is_discarded() {
    let (pool, mut listener) = pool(PoolConfig::default());
    let (lease, mut server) = tokio::join!(pool.get(), accept(&mut listener));
    let lease = lease.unwrap();
    let given_up = now(lease.publish(publish(QoS::AtLeastOnce))).await;
    assert!(given_up.is_none());
    drop(lease);
    let id = server.expect_publish().await.packet_id.unwrap();
    assert_eq!(pool.status().size, 0);
    // It is waited for all the same.
    server.puback(id).await;
    server.expect_disconnect().await;
}

#[tokio::test(start_paused = true)]
async fn the_load_of_a_session_is_what_is_in_flight() {
    let (session, mut server) = common::open(config(Version::V5)).await;
    assert_eq!(Pooled::load(&session), 0);
    let mut first = pin!(session.publish(publish(QoS::AtLeastOnce)));
    let mut second = pin!(session.publish(publish(QoS::ExactlyOnce)));
    assert!(now(&mut first).await.is_none());
    assert!(now(&mut second).await.is_none());
    session.publish(publish(QoS::AtMostOnce)).await.unwrap();
    assert_eq!(Pooled::load(&session), 2);
    let id = server.expect_publish().await.packet_id.unwrap();
    server.puback(id).await;
    first.await.unwrap();
    assert_eq!(Pooled::load(&session), 1);
    drop(server);
    second.await.unwrap_err();
    assert_eq!(Pooled::load(&session), 0);
}
