//! Whatever is published, in whatever way, over whatever server: the promises hold.

use std::{
    collections::{HashMap, HashSet},
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use mqtt_client::{
    Delivery, LostPublishes, OutboxConfig, Overflow, Publish, PublishError, Published, QoS,
    Session, SessionConfig,
    pool::Limit,
    proto::packet::{Ack, ConnAck, Packet},
};
use mqtt_testkit::{MemoryListener, ScriptedServer};
use tokio::time::{Instant, sleep, timeout};
use tower::{Service, ServiceExt};

use crate::{SECOND, common::settle, open_reconnecting, reconnecting};

const ROUNDS: u64 = 100;

/// How often a publish may be polled: far more than there is cause for.
const MAX_POLLS: u32 = 10_000;

/// One message: its lane, which of the publishes, its QoS and its topic.
type Name = (u64, u32, QoS, String);

/// What the server saw.
#[derive(Debug, Default)]
struct Seen {
    /// With the number of the server's session, and whether it was a duplicate.
    arrived: Vec<(Name, u32, bool)>,
    acknowledged: HashSet<Name>,
    session: u32,
}

type Log = Arc<Mutex<Seen>>;

/// What the publishers share.
struct Model {
    session: Session,
    outbox: OutboxConfig,
    resends: bool,
    log: Log,
    /// How many publishes were begun.
    begun: Mutex<u32>,
}

fn any<T, const N: usize>(choice: [T; N]) -> T {
    fastrand::choice(choice).unwrap()
}

/// In steps, so that much happens at the same time.
fn millis(longest: u64) -> Duration {
    Duration::from_millis(50 * fastrand::u64(..longest / 50))
}

impl Model {
    /// The next message, whose number says where it is in the order.
    fn next(&self, lane: u64) -> (Name, Publish) {
        let mut begun = self.begun.lock().unwrap();
        *begun += 1;
        let qos = any([QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let topic = format!("t/{lane}/{}", fastrand::u8(..2));
        let name = (lane, *begun, qos, topic.clone());
        let length = any([0, 8, 40]);
        let payload = format!("{lane} {begun} {}", "x".repeat(length));
        let mut publish = Publish::new(topic, payload).unwrap().with_qos(qos);
        publish = publish.with_retain(fastrand::u8(..8) == 0);
        if lane > 0 {
            publish = publish.with_lane(lane);
        }
        if fastrand::u8(..3) == 0 {
            publish = publish.with_max_age(millis(5_000));
        }
        (name, publish)
    }

    fn check_bounds(&self) {
        let status = self.session.outbox();
        assert!(status.messages <= self.outbox.max_messages, "{status:?}");
        let fits = status.bytes <= self.outbox.max_bytes || status.messages == 1;
        assert!(fits, "{status:?}");
    }

    /// Publishes in one of the ways there are; `None` if nobody waits for the outcome.
    async fn publish(&self, lane: u64) -> Option<(Name, Result<Published, PublishError>)> {
        let publisher = self.session.publisher();
        if fastrand::u8(..4) == 0 {
            let mut publisher = publisher.clone();
            let Ok(ready) = publisher.ready().await else {
                return None;
            };
            let (name, publish) = self.next(lane);
            return Some((name, ready.call(publish).await));
        }
        let (name, publish) = self.next(lane);
        let admitted = match fastrand::u8(..3) {
            0 => return Some((name, publisher.publish(publish).await)),
            1 => publisher.admit(publish).await,
            _ => publisher.try_admit(publish),
        };
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(error) => return Some((name, Err(error))),
        };
        if fastrand::u8(..4) == 0 {
            return None;
        }
        Some((name, admitted.await))
    }

    /// One that publishes now and then, and may lose its patience.
    async fn run(self: Arc<Self>, lane: u64) {
        for _ in 0..12 {
            sleep(millis(1_000)).await;
            let mut publishing = pin!(self.publish(lane));
            let mut polls = 0;
            let counted = poll_fn(|cx| {
                polls += 1;
                assert!(polls < MAX_POLLS, "it is polled without end");
                self.check_bounds();
                publishing.as_mut().poll(cx)
            });
            let gives_up = fastrand::u8(..4) == 0;
            let patience = if gives_up {
                millis(4_000)
            } else {
                SECOND * 100_000
            };
            match timeout(patience, counted).await {
                Ok(Some((name, outcome))) => self.check_outcome(&name, outcome),
                Ok(None) => {}
                Err(_) => assert!(gives_up, "no outcome: {:?}", self.session),
            }
        }
    }

    fn check_outcome(&self, name: &Name, outcome: Result<Published, PublishError>) {
        let log = self.log.lock().unwrap();
        match outcome {
            Ok(Published::Acknowledged { .. }) => {
                assert!(log.acknowledged.contains(name), "{name:?}");
            }
            Ok(_) => assert_eq!(name.2, QoS::AtMostOnce),
            Err(error) if error.delivery() == Delivery::NotSent => {
                let mut arrived = log.arrived.iter();
                let has_arrived = arrived.any(|(arrived, ..)| arrived == name);
                assert!(!has_arrived, "{name:?} {error}");
            }
            Err(error) => assert_ne!(name.2, QoS::AtMostOnce, "{error}"),
        }
    }

    /// It takes no longer than it may, and gives up nothing before.
    async fn check_leaving(&self) {
        let (patience, began) = (millis(8_000), Instant::now());
        let left = timeout(patience + SECOND * 3, self.session.drain(patience)).await;
        let left = left.unwrap_or_else(|_| panic!("it does not leave: {:?}", self.session));
        assert!(left.is_ok() || began.elapsed() >= patience, "{left:?}");
    }

    fn check_order(&self) {
        let log = self.log.lock().unwrap();
        let mut seen = HashMap::new();
        let mut last = HashMap::new();
        for (name, session, dup) in &log.arrived {
            let (lane, number, qos, topic) = name.clone();
            let before = seen.insert(name.clone(), *session);
            if let Some(before) = before {
                let again = self.resends && qos == QoS::AtLeastOnce && before < *session;
                assert!(again || (*dup && before == *session), "twice: {name:?}");
                continue;
            }
            let latest_only = self.outbox.overflow == Overflow::KeepLatest;
            let of = latest_only.then_some(topic);
            let key = (lane, qos == QoS::AtMostOnce, of, *session);
            let before = last.insert(key, number).unwrap_or(0);
            assert!(before < number, "{before} before {name:?}");
        }
    }
}

/// Answers as a server would, for a time; then it is gone. Never, if the time is `None`.
#[expect(clippy::wildcard_enum_match_arm, reason = "all else needs no answer")]
async fn serve(server: &mut ScriptedServer, log: &Log, lifetime: Option<Duration>) {
    let answering = async {
        while let Some(packet) = server.next().await {
            match packet {
                Packet::Publish(it) => {
                    let payload = String::from_utf8(it.message.payload.to_vec()).unwrap();
                    let mut words = payload.split(' ');
                    let lane = words.next().unwrap().parse().unwrap();
                    let number = words.next().unwrap().parse().unwrap();
                    let name: Name = (lane, number, it.message.qos, it.message.topic.to_string());
                    let session = log.lock().unwrap().session;
                    let arrived = (name.clone(), session, it.dup);
                    log.lock().unwrap().arrived.push(arrived);
                    if lifetime.is_some() {
                        if fastrand::u8(..3) == 0 {
                            sleep(millis(1_500)).await;
                        }
                        if fastrand::u8(..16) == 0 {
                            continue;
                        }
                    }
                    log.lock().unwrap().acknowledged.insert(name);
                    match (it.message.qos, it.packet_id) {
                        (QoS::AtLeastOnce, Some(id)) => server.puback(id).await,
                        (QoS::ExactlyOnce, Some(id)) => {
                            server.send(Packet::PubRec(Ack::new(id))).await;
                        }
                        _ => {}
                    }
                }
                Packet::PubRel(ack) => server.send(Packet::PubComp(Ack::new(ack.packet_id))).await,
                Packet::PingReq => server.send(Packet::PingResp).await,
                Packet::Disconnect(_) => return,
                _ => {}
            }
        }
    };
    match lifetime {
        Some(lifetime) => drop(timeout(lifetime, answering).await),
        None => answering.await,
    }
}

/// Comes and goes, with the session or without, and stays in the end.
async fn server(mut listener: MemoryListener, mut server: ScriptedServer, log: Log, keeps: bool) {
    for _ in 0..fastrand::u8(2..10) {
        serve(&mut server, &log, Some(millis(4_000))).await;
        drop(server);
        server = listener.accept().await;
        let mut connack = ConnAck::accepted();
        connack.session_present = keeps && fastrand::u8(..3) > 0;
        if !connack.session_present {
            log.lock().unwrap().session += 1;
        }
        if fastrand::bool() {
            connack.properties.retain_available = Some(false);
        }
        server.accept_with(connack).await;
    }
    serve(&mut server, &log, None).await;
}

fn config(outbox: OutboxConfig, keeps: bool) -> SessionConfig {
    let expiry = if keeps {
        SECOND * 100_000
    } else {
        Duration::ZERO
    };
    reconnecting(outbox)
        .with_session_expiry(Limit::After(expiry))
        .with_max_in_flight(any([1_u16, 3]))
}

fn any_outbox() -> OutboxConfig {
    let overflow = [
        Overflow::Wait,
        Overflow::Wait,
        Overflow::Reject,
        Overflow::DropOldest,
        Overflow::DropNewest,
        Overflow::KeepLatest,
    ];
    let outbox = OutboxConfig::default()
        .with_max_messages(any([0_usize, 1, 3, 20]))
        .with_max_bytes(any([60_usize, 1_000]))
        .with_overflow(any(overflow));
    match fastrand::u8(..3) {
        0 => outbox.with_max_age(SECOND * 3),
        _ => outbox,
    }
}

#[tokio::test(start_paused = true)]
async fn the_promises_hold_over_any_server() {
    for round in 0..ROUNDS {
        fastrand::seed(round);
        let outbox = any_outbox();
        let (keeps, resends) = (fastrand::bool(), fastrand::bool());
        let mut config = config(outbox.clone(), keeps);
        if resends {
            config = config.with_lost_publishes(LostPublishes::ResendAtLeastOnce);
        }
        let (session, first, listener) = open_reconnecting(config).await;
        let log = Log::default();
        let serving = tokio::spawn(server(listener, first, log.clone(), keeps));
        let begun = Mutex::default();
        let model = Arc::new(Model {
            session,
            outbox,
            resends,
            log,
            begun,
        });
        let mut running = tokio::task::JoinSet::new();
        for number in 0..24 {
            running.spawn(model.clone().run(number % 6));
        }
        let leaves = fastrand::u8(..3) == 0;
        if leaves {
            sleep(millis(15_000)).await;
            model.check_leaving().await;
            serving.abort();
        }
        while let Some(ended) = running.join_next().await {
            ended.unwrap_or_else(|error| panic!("round {round}, {:?}: {error}", model.outbox));
        }
        sleep(SECOND * 1_000).await;
        model.check_order();
        let Model { session, .. } = Arc::into_inner(model).expect("all others have ended");
        let status = session.outbox();
        assert_eq!((status.messages, status.bytes, status.waiting), (0, 0, 0));
        if !leaves {
            assert_eq!(session.in_flight(), 0, "round {round}");
        }
        let shown = format!("{session:#?}");
        assert!(shown.contains("waiters: {}"), "round {round}: {shown}");
        if !leaves {
            session.disconnect().await.unwrap();
            serving.await.unwrap();
        }
        drop(session);
        settle().await;
    }
}
