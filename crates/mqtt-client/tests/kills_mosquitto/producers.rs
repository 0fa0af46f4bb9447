//! Those who publish, each over its own source of sessions, and write down what they were told.

use std::{collections::VecDeque, pin::Pin, time::Duration};

use futures_util::future::BoxFuture;
use mqtt_client::{
    Delivery, PoolPublishError, Publish, PublishError, Published, QoS, Session, SessionPool,
    SessionRegistry,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    PATIENCE,
    account::{Id, Outcome, Told},
    common::now,
};

/// Publishes that one producer has under way at most.
const UNDER_WAY: usize = 8;

/// What messages go over.
#[expect(clippy::large_enum_variant, reason = "there are eighteen of them")]
#[derive(Clone)]
pub(crate) enum Way {
    /// By key, over sessions that end with their connections.
    Pool(SessionPool),
    /// Over a session that reconnects, in a lane.
    Session(Session),
    /// The same, of a registry that is asked for it each time.
    Registry(SessionRegistry, String),
}

impl Way {
    /// In order, if it is called in order and each future polled before the next call.
    async fn publish(&self, source: usize, publish: Publish) -> BoxFuture<'static, Outcome> {
        match self {
            Self::Pool(pool) => {
                let pool = pool.clone();
                Box::pin(async move {
                    let outcome = pool.publish_keyed(&source, publish).await;
                    told(outcome, PoolPublishError::delivery)
                })
            }
            Self::Session(session) => {
                let publisher = session.publisher();
                let publish = publish.with_lane(source);
                Box::pin(
                    async move { told(publisher.publish(publish).await, PublishError::delivery) },
                )
            }
            Self::Registry(registry, client_id) => {
                match registry.get(client_id).await {
                    Ok(session) => Box::pin(async move {
                        told(session.publish(publish).await, PublishError::delivery)
                    }),
                    Err(_) => Box::pin(async { Outcome::NotSent }),
                }
            }
        }
    }
}

fn told<E: std::fmt::Debug>(
    outcome: Result<Published, E>,
    delivery: fn(&E) -> Delivery,
) -> Outcome {
    match outcome {
        Ok(Published::Sent) => Outcome::Sent,
        Ok(_) => Outcome::Acknowledged,
        Err(error) => match delivery(&error) {
            Delivery::NotSent => Outcome::NotSent,
            Delivery::Unknown => Outcome::Unknown,
            Delivery::Rejected | Delivery::Acknowledged => panic!("{error:?}"),
            _ => unreachable!("another kind of delivery"),
        },
    }
}

type UnderWay = (Id, Instant, Pin<Box<dyn Future<Output = Told> + Send>>);

/// Publishes at random QoS until told to stop; returns what became of every message.
pub(crate) async fn produce(
    way: Way,
    source: usize,
    seed: u64,
    stop: watch::Receiver<bool>,
) -> Vec<Told> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut numbers = [0; 3];
    let (mut under_way, mut log) = (VecDeque::<UnderWay>::new(), Vec::new());
    while !*stop.borrow() {
        if under_way.len() == UNDER_WAY {
            log.push(outcome(under_way.pop_front()).await);
        }
        let qos = random.usize(..3);
        let id = Id {
            source,
            qos,
            number: numbers[qos],
        };
        numbers[qos] += 1;
        let level = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][qos];
        let publish = Publish::new(id.topic(), id.payload())
            .unwrap()
            .with_qos(level);
        let started = Instant::now();
        let publishing = way.publish(source, publish).await;
        let mut publishing = Box::pin(async move {
            let outcome = publishing.await;
            Told {
                id,
                started,
                ended: Instant::now(),
                outcome,
            }
        });
        // Its place among the others is taken when it is polled first.
        match now(&mut publishing).await {
            Some(told) => log.push(told),
            None => {
                // What has ended is told by the task, so that the time of it is right.
                let task = tokio::spawn(publishing);
                let publishing = Box::pin(async { task.await.unwrap() });
                under_way.push_back((id, started, publishing));
            }
        }
        sleep(Duration::from_millis(random.u64(40..120))).await;
    }
    while let Some(publishing) = under_way.pop_front() {
        log.push(outcome(Some(publishing)).await);
    }
    assert_eq!(
        log.len(),
        numbers.iter().sum::<usize>(),
        "every outcome is told"
    );
    log
}

async fn outcome(publishing: Option<UnderWay>) -> Told {
    let (id, started, publishing) = publishing.expect("there is one");
    let told = timeout(PATIENCE, publishing).await;
    told.unwrap_or_else(|_| panic!("{id:?} is not answered for {:?}", started.elapsed()))
}
