//! tower's layers over a publisher and over a pool of sessions: each does its job.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{error::Error, time::Duration};

use common::{config, connector, endpoint, now, open, publish, settle};
use mqtt_client::{
    Delivery, PoolPublishError, PooledSessions, Publish, PublishError, PublishFailure,
    PublishRetry, Published, QoS, ReasonCode, RetryConfig, SessionPool, Version,
    pool::{PoolConfig, SharedConfig},
    proto::packet::{Ack, Packet},
};
use mqtt_testkit::{MemoryListener, ScriptedServer};
use tokio::time::Instant;
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt, load_shed::error::Overloaded,
    timeout::error::Elapsed, util::BoxCloneSyncService,
};

const SECOND: Duration = Duration::from_secs(1);

/// A service that publishes, under the names that all tests use.
trait Publishes<E>:
    Service<Publish, Response = Published, Error = E, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S, E> Publishes<E> for S where
    S: Service<Publish, Response = Published, Error = E, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Something to put layers on, and its server.
struct Bench<S> {
    service: S,
    server: ScriptedServer,
    /// Where another session would be connected.
    listener: Option<MemoryListener>,
}

async fn over_a_publisher() -> Bench<impl Publishes<PublishError>> {
    let (session, server) = open(config(Version::V5).with_max_in_flight(2_u16)).await;
    Bench {
        service: session.publisher(),
        server,
        listener: None,
    }
}

async fn over_a_pool() -> Bench<impl Publishes<PoolPublishError>> {
    let (connector, mut listener) = connector(config(Version::V5).with_max_in_flight(2_u16));
    let sessions = PooledSessions::new(connector, endpoint());
    let shared = SharedConfig::default().with_size(1);
    let pool = SessionPool::new(sessions, PoolConfig::default(), shared).unwrap();
    let mut server = listener.accept().await;
    server.accept().await;
    settle().await;
    Bench {
        service: pool,
        server,
        listener: Some(listener),
    }
}

/// Runs a scenario over both.
macro_rules! over_both {
    ($($name:ident: $scenario:path;)*) => {
        mod publisher {
            use super::*;
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                $scenario(over_a_publisher().await).await;
            })*
        }
        mod pool {
            use super::*;
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                $scenario(over_a_pool().await).await;
            })*
        }
    };
}

over_both! {
    a_timeout_ends_the_wait_for_an_answer: timeout;
    load_above_a_limit_is_shed: shed;
    a_limit_on_concurrency_holds_back: limit;
    a_limit_on_rate_spreads: rate;
    a_buffer_takes_what_callers_do_not_wait_with: buffer;
    a_boxed_stack_is_shared_by_many_tasks: boxed;
    what_is_rejected_for_now_is_tried_again: rejected;
    what_is_rejected_for_good_is_not: rejected_for_good;
    what_may_have_arrived_is_not_sent_again: unknown;
    retries_have_a_budget: budget;
    the_whole_stack_works_together: whole;
}

async fn acknowledge(server: &mut ScriptedServer) {
    let id = server.expect_publish().await.packet_id.unwrap();
    server.puback(id).await;
}

async fn reject(server: &mut ScriptedServer, code: ReasonCode) {
    let id = server.expect_publish().await.packet_id.unwrap();
    let ack = Ack::with_reason(id, code);
    server.send(Packet::PubAck(ack)).await;
}

fn one() -> Publish {
    publish(QoS::AtLeastOnce)
}

async fn timeout<E: Error + Send + Sync + 'static>(bench: Bench<impl Publishes<E>>) {
    let service = ServiceBuilder::new()
        .timeout(SECOND * 2)
        .service(bench.service);
    let start = Instant::now();
    let error = service.oneshot(one()).await.unwrap_err();
    assert!(error.is::<Elapsed>(), "{error:?}");
    assert_eq!(start.elapsed(), SECOND * 2);
    drop(bench.server);
}

async fn shed<E: Error + Send + Sync + 'static>(mut bench: Bench<impl Publishes<E>>) {
    let service = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(1)
        .service(bench.service);
    let mut first = Box::pin(service.clone().oneshot(one()));
    assert!(now(&mut first).await.is_none());
    let error = service.clone().oneshot(one()).await.unwrap_err();
    assert!(error.is::<Overloaded>(), "{error:?}");
    let (outcome, ()) = tokio::join!(first, acknowledge(&mut bench.server));
    outcome.unwrap();
    let (outcome, ()) = tokio::join!(service.oneshot(one()), acknowledge(&mut bench.server));
    outcome.unwrap();
}

async fn limit<E: Error + Send + Sync + 'static>(mut bench: Bench<impl Publishes<E>>) {
    let service = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(bench.service);
    let calls: Vec<_> = (0..3)
        .map(|_| tokio::spawn(service.clone().oneshot(one())))
        .collect();
    for _ in 0..3 {
        let id = bench.server.expect_publish().await.packet_id.unwrap();
        bench.server.expect_silence(SECOND).await;
        bench.server.puback(id).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

async fn rate<E: Error + Send + Sync + 'static>(mut bench: Bench<impl Publishes<E>>) {
    // A limit on the rate is not shared by clones.
    let mut service = ServiceBuilder::new()
        .rate_limit(2, SECOND)
        .service(bench.service);
    let start = Instant::now();
    for seconds in [0, 0, 1, 1, 2] {
        let call = service.ready().await.unwrap().call(one());
        let (outcome, ()) = tokio::join!(call, acknowledge(&mut bench.server));
        outcome.unwrap();
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
}

async fn buffer<E: Error + Send + Sync + 'static>(mut bench: Bench<impl Publishes<E>>) {
    let mut service = ServiceBuilder::new()
        .buffer(4)
        .concurrency_limit(1)
        .service(bench.service);
    let mut calls = Vec::new();
    for _ in 0..5 {
        calls.push(service.ready().await.unwrap().call(one()));
        settle().await;
    }
    // One is under way and one waits for the limit; the buffer has the rest.
    assert!(now(service.ready()).await.is_some());
    for call in calls {
        let (outcome, ()) = tokio::join!(call, acknowledge(&mut bench.server));
        outcome.unwrap();
    }
}

async fn boxed<E: Error + Send + Sync + 'static>(mut bench: Bench<impl Publishes<E>>) {
    let service: BoxCloneSyncService<Publish, Published, E> =
        BoxCloneSyncService::new(bench.service);
    let calls: Vec<_> = (0..100)
        .map(|_| tokio::spawn(service.clone().oneshot(one())))
        .collect();
    for _ in 0..100 {
        acknowledge(&mut bench.server).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

fn retry(config: RetryConfig) -> PublishRetry {
    PublishRetry::new(config).unwrap()
}

async fn rejected<E: PublishFailure + Error + Send + Sync + 'static>(
    mut bench: Bench<impl Publishes<E>>,
) {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let service = ServiceBuilder::new()
            .retry(retry(RetryConfig::default()))
            .service(bench.service.clone());
        let start = Instant::now();
        let server = async {
            for code in [ReasonCode::QUOTA_EXCEEDED, ReasonCode::UNSPECIFIED_ERROR] {
                let id = bench.server.expect_publish().await.packet_id.unwrap();
                let ack = Ack::with_reason(id, code);
                bench
                    .server
                    .send(match qos {
                        QoS::ExactlyOnce => Packet::PubRec(ack),
                        QoS::AtLeastOnce | QoS::AtMostOnce => Packet::PubAck(ack),
                    })
                    .await;
            }
            let id = bench.server.expect_publish().await.packet_id.unwrap();
            if qos == QoS::AtLeastOnce {
                bench.server.puback(id).await;
            } else {
                bench.server.send(Packet::PubRec(Ack::new(id))).await;
                bench.server.recv().await;
                bench.server.send(Packet::PubComp(Ack::new(id))).await;
            }
        };
        let (outcome, ()) = tokio::join!(service.oneshot(publish(qos)), server);
        outcome.unwrap();
        let waited = start.elapsed();
        let range = Duration::from_millis(100)..=Duration::from_millis(310);
        assert!(range.contains(&waited), "{waited:?}");
    }
}

async fn rejected_for_good<E: PublishFailure + Error + Send + Sync + 'static>(
    mut bench: Bench<impl Publishes<E>>,
) {
    for code in [ReasonCode::NOT_AUTHORIZED, ReasonCode::TOPIC_NAME_INVALID] {
        let service = ServiceBuilder::new()
            .retry(retry(RetryConfig::default().with_allow_duplicates(true)))
            .service(bench.service.clone());
        let (outcome, ()) = tokio::join!(service.oneshot(one()), reject(&mut bench.server, code));
        assert_eq!(outcome.unwrap_err().delivery(), Delivery::Rejected);
        bench.server.expect_silence(SECOND * 10).await;
    }
}

/// At QoS 1 not unless duplicates are allowed, at QoS 2 never.
async fn unknown<E: PublishFailure + Error + Send + Sync + 'static>(
    bench: Bench<impl Publishes<E>>,
) {
    let Bench {
        service,
        mut server,
        listener,
    } = bench;
    let mut listener = listener;
    for (qos, allowed) in [
        (QoS::AtLeastOnce, false),
        (QoS::ExactlyOnce, true),
        (QoS::AtLeastOnce, true),
    ] {
        let config = RetryConfig::default().with_allow_duplicates(allowed);
        let service = ServiceBuilder::new()
            .retry(retry(config))
            .service(service.clone());
        let call = tokio::spawn(service.oneshot(publish(qos)));
        server.expect_publish().await;
        drop(server);
        let Some(listener) = &mut listener else {
            // There is no other session: what was lost stays lost.
            call.await.unwrap().unwrap_err();
            return;
        };
        server = listener.accept().await;
        server.accept().await;
        if qos == QoS::AtLeastOnce && allowed {
            acknowledge(&mut server).await;
            call.await.unwrap().unwrap();
        } else {
            let error = call.await.unwrap().unwrap_err();
            assert_eq!(error.delivery(), Delivery::Unknown);
            server.expect_silence(SECOND * 5).await;
        }
    }
}

async fn budget<E: PublishFailure + Error + Send + Sync + 'static>(
    mut bench: Bench<impl Publishes<E>>,
) {
    let config = RetryConfig::default()
        .with_max_retries(1)
        .with_budget_share(0.0)
        .with_budget_floor(1);
    let service = ServiceBuilder::new()
        .retry(retry(config))
        .service(bench.service.clone());
    let calls = tokio::spawn(async move {
        for _ in 0..100 {
            service.clone().oneshot(one()).await.unwrap_err();
        }
    });
    let mut publishes = 0;
    while !calls.is_finished() {
        tokio::select! {
            () = reject(&mut bench.server, ReasonCode::QUOTA_EXCEEDED) => publishes += 1,
            () = tokio::time::sleep(SECOND) => {}
        }
    }
    calls.await.unwrap();
    // One each, and a retry for each second of the budget's window.
    assert!((105..=115).contains(&publishes), "{publishes}");
}

/// An error of a layer, beside ours.
fn is_ours(error: &BoxError) -> bool {
    error.is::<PublishError>() || error.is::<PoolPublishError>()
}

/// In the order that the documentation gives: a deadline for all, shedding above a limit, retries
/// within, a timeout for each attempt.
async fn whole<E: PublishFailure + Error + Send + Sync + 'static>(
    mut bench: Bench<impl Publishes<E>>,
) {
    let service = ServiceBuilder::new()
        .timeout(SECOND * 30)
        .load_shed()
        .concurrency_limit(2)
        .retry(retry(RetryConfig::default()))
        .timeout(SECOND)
        .service(bench.service);
    let service: BoxCloneSyncService<Publish, Published, BoxError> =
        BoxCloneSyncService::new(service);

    // Rejected for now, then taken: the policy sees through the box.
    let (outcome, ()) = tokio::join!(service.clone().oneshot(one()), async {
        reject(&mut bench.server, ReasonCode::QUOTA_EXCEEDED).await;
        acknowledge(&mut bench.server).await;
    });
    outcome.unwrap();
    // Rejected for good: the error is still ours.
    let (outcome, ()) = tokio::join!(
        service.clone().oneshot(one()),
        reject(&mut bench.server, ReasonCode::NOT_AUTHORIZED)
    );
    assert!(is_ours(&outcome.unwrap_err()));
    // An attempt that takes too long may have arrived, and is not made again.
    let calls: Vec<_> = (0..3).map(|_| service.clone().oneshot(one())).collect();
    let mut calls: Vec<_> = calls.into_iter().map(Box::pin).collect();
    let mut outcomes = Vec::new();
    for call in &mut calls {
        outcomes.push(now(call).await);
    }
    let shed = outcomes.pop().unwrap().unwrap().unwrap_err();
    assert!(shed.is::<Overloaded>(), "{shed:?}");
    calls.truncate(2);
    for call in calls {
        let error = call.await.unwrap_err();
        assert!(error.is::<Elapsed>(), "{error:?}");
    }
}
