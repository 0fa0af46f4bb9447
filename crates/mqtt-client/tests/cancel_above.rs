//! The futures of what stands on sessions, dropped after each of their polls.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{convert::Infallible, time::Duration};

use common::{check_clean, config, connector, drop_after, endpoint, open, publish, settle};
use mqtt_client::{
    Message, PooledSessions, QoS, RegistryConfig, Reply, Request, RequesterConfig, ResponderConfig,
    Session, SessionPool, SessionRegistry, Subscribe, Version,
    pool::{PoolConfig, SharedConfig},
    router::Router,
};
use mqtt_testkit::MemoryListener;
use tokio::time::{Instant, sleep};
use tower::service_fn;

const SECOND: Duration = Duration::from_secs(1);

/// More polls than any of the futures here takes.
const POLLS: usize = 7;

/// Serves every connection as a server that wants nothing itself.
fn serve(mut listener: MemoryListener) {
    tokio::spawn(async move {
        loop {
            let mut server = listener.accept_patiently().await;
            tokio::spawn(async move {
                server.accept().await;
                server.serve().await;
            });
        }
    });
}

async fn check_healthy(session: &Session) {
    sleep(Duration::from_millis(20)).await;
    check_clean(session);
    session.publish(publish(QoS::AtLeastOnce)).await.unwrap();
    check_clean(session);
}

async fn served() -> Session {
    let (session, mut server) = open(config(Version::V5)).await;
    tokio::spawn(async move { server.serve().await });
    session
}

#[tokio::test(start_paused = true)]
async fn requesting() {
    for polls in 0..POLLS {
        let session = served().await;
        drop_after(polls, session.requester(RequesterConfig::default())).await;
        check_healthy(&session).await;
        let requester = session.requester(RequesterConfig::default()).await.unwrap();
        let request = Request::new("ask", "question").unwrap();
        let waits = drop_after(polls, requester.request(request)).await;
        assert!(waits, "nobody answers");
        assert_eq!(requester.open(), 0);
        check_healthy(&session).await;
    }
}

#[tokio::test(start_paused = true)]
async fn responding() {
    let respond = |session: Session| async move {
        let echo = service_fn(|it: Message| async { Ok::<_, Infallible>(Reply::new(it.payload)) });
        let asked = Subscribe::new("ask").unwrap();
        session
            .respond(asked, echo, ResponderConfig::default())
            .await
    };
    for polls in 0..POLLS {
        let session = served().await;
        drop_after(polls, respond(session.clone())).await;
        check_healthy(&session).await;
        let responder = respond(session.clone()).await.unwrap();
        assert!(drop_after(polls, responder.ended()).await);
        drop_after(polls, responder.shutdown(SECOND)).await;
        check_healthy(&session).await;
    }
}

#[tokio::test(start_paused = true)]
async fn routing() {
    let routes = Router::new()
        .route("a/{n}", |_: Message| async {})
        .build()
        .unwrap();
    for polls in 0..POLLS {
        let session = served().await;
        drop_after(polls, routes.serve_until(&session, std::future::pending())).await;
        check_healthy(&session).await;
        let subscribed = routes.subscribe(&session).await.unwrap();
        drop_after(
            polls,
            subscribed.serve_until(sleep(Duration::from_millis(2))),
        )
        .await;
        check_healthy(&session).await;
        let subscribed = routes.subscribe(&session).await.unwrap();
        drop_after(polls, subscribed.unsubscribe()).await;
        check_healthy(&session).await;
    }
}

#[tokio::test(start_paused = true)]
async fn publishing_over_a_pool() {
    for polls in 0..POLLS {
        for keyed in [false, true] {
            let (connector, listener) = connector(config(Version::V5).with_max_in_flight(1_u16));
            let sessions = PooledSessions::new(connector, endpoint());
            let shared = SharedConfig::default().with_size(1);
            let pool = SessionPool::new(sessions, PoolConfig::default(), shared).unwrap();
            serve(listener);
            // Of the first few there is no session yet, and each is in the way of the next.
            for _ in 0..3 {
                let message = publish(QoS::AtLeastOnce);
                if keyed {
                    drop_after(polls, pool.publish_keyed("key", message)).await;
                } else {
                    drop_after(polls, pool.publish(message)).await;
                }
            }
            for _ in 0..2 {
                pool.publish_keyed("key", publish(QoS::AtLeastOnce))
                    .await
                    .unwrap();
            }
            settle().await;
            assert_eq!(pool.status().handles, 0);
            let session = pool.sessions().get().await.unwrap();
            check_healthy(&session).await;
            drop(session);
            drop_after(polls, pool.drain(Instant::now() + SECOND)).await;
            drop_after(polls, pool.close()).await;
            pool.close().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_of_devices() {
    for polls in 0..POLLS {
        let (connector, listener) = connector(config(Version::V5));
        let registry =
            SessionRegistry::new(connector, endpoint(), RegistryConfig::default()).unwrap();
        serve(listener);
        drop_after(polls, registry.get("a")).await;
        let session = registry.get("a").await.unwrap();
        check_healthy(&session).await;
        drop(session);
        drop_after(polls, registry.remove("a")).await;
        settle().await;
        check_healthy(&registry.get("a").await.unwrap()).await;
        assert_eq!(registry.status().opening, 0);
        drop_after(polls, registry.drain(Instant::now() + SECOND)).await;
        drop_after(polls, registry.close()).await;
        registry.close().await;
        assert_eq!(registry.status().open, 0);
    }
}
