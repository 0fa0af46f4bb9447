//! Sessions on connections that a pool has dialled before they were wanted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{config, publish};
use mqtt_client::{
    QoS, SessionConnector, Version,
    pool::{Connect, Dialled, Pool, PoolConfig, ServiceConnect},
    transport::{BoxConn, Connector},
};
use mqtt_testkit::ScriptedListener;
use tokio::time::{Instant, sleep};
use tower::{ServiceBuilder, ServiceExt, service_fn};

async fn predialled(
    listener: &ScriptedListener,
) -> Pool<impl Connect<Connection = Dialled<BoxConn>> + use<>> {
    let dial = ServiceBuilder::new()
        .concurrency_limit(2)
        .timeout(Duration::from_secs(20))
        .service(Connector::default())
        .map_response(Dialled::new);
    let connect = ServiceConnect::new(dial, listener.url().parse().unwrap());
    let pool = Pool::new(connect, PoolConfig::default()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    pool.warm_up(1, deadline).await.unwrap();
    pool
}

#[tokio::test]
async fn a_session_opens_on_what_was_dialled_before() {
    let listener = ScriptedListener::bind().await.unwrap();
    let pool = predialled(&listener).await;
    let mut server = listener.accept().await;
    // There is no dial behind this one.
    let from_pool = pool.clone();
    let take = service_fn(move |_| {
        let lease = from_pool.try_get();
        std::future::ready(Ok(lease.unwrap().detach().into_conn()))
    });
    let sessions = SessionConnector::with_connector(take, config(Version::V5)).unwrap();
    let endpoint = listener.url().parse().unwrap();
    let (session, connect) = tokio::join!(sessions.connect(endpoint), server.accept());
    assert_eq!(connect.client_id, "gateway");
    let session = session.unwrap();
    assert_eq!(pool.status().size, 0);
    let publish = session.publish(publish(QoS::AtLeastOnce));
    let (published, _) = tokio::join!(publish, async {
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
    });
    published.unwrap();
    // The pool has nothing to say about it any more.
    pool.close().await;
    let (left, _) = tokio::join!(session.disconnect(), server.expect_disconnect());
    left.unwrap();
}

/// As servers do on which no CONNECT comes.
#[tokio::test]
async fn what_the_server_has_closed_meanwhile_is_not_handed_out() {
    let listener = ScriptedListener::bind().await.unwrap();
    let pool = predialled(&listener).await;
    drop(listener.accept().await);
    let deadline = Instant::now() + Duration::from_secs(20);
    while pool.try_get().is_some() {
        assert!(Instant::now() < deadline, "it is still taken for usable");
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(pool.status().size, 0);
}
