//! Sessions from a pool, over connections in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeSet, pin::pin, time::Duration};

use common::{config, connector, endpoint, now, publish, settle};
use mqtt_client::{
    PooledSessions, QoS, Version,
    pool::{AcquireError, Limit, Pool, PoolConfig},
    proto::packet::ConnAck,
};
use mqtt_testkit::{MemoryConnector, MemoryListener};
use tokio::sync::mpsc;

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
    let start = tokio::time::Instant::now();
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
