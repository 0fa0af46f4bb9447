//! Many tasks on several threads that publish, subscribe, give up and leave at random, with windows
//! and buffers far too small: whatever happens, every future ends, in order, and nothing is left.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod common;

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    future::poll_fn,
    task::Poll,
    time::Duration,
};

use common::{config, endpoint};
use futures_util::future::select_all;
use mqtt_client::{
    Delivery, Message, Publish, PublishError, QoS, ReasonCode, Session, SessionConfig,
    SessionConnector, Subscribe, SubscribeError, Version,
    proto::{
        PacketId,
        packet::{self, Ack, Packet, SubAck, UnsubAck},
    },
};
use mqtt_testkit::{ScriptedListener, ScriptedServer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    task::yield_now,
    time::timeout,
};
use tower::{Service, ServiceExt};

/// Far more than any round takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// At most; with few tasks there is nothing else going on that would hide a lost wake-up.
const PUBLISHERS: u32 = 8;
const SUBSCRIBERS: u32 = 4;
const REQUESTS: u32 = 60;

/// Numbers that look random and are the same for a seed.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64, task: u32) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (u64::from(task) << 32) | 1)
    }

    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 33).unwrap() % n
    }

    fn qos(&mut self) -> QoS {
        match self.below(3) {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }
}

/// What a publisher knows of its messages, in the order in which it polled them.
#[derive(Debug, Default)]
struct Told {
    /// With the server, or at QoS 0 on the way to it.
    sent: Vec<(QoS, Vec<u8>)>,
    /// Known not to have left.
    not_sent: Vec<Vec<u8>>,
}

fn numbered(task: u32, n: u32) -> Vec<u8> {
    [task.to_be_bytes(), n.to_be_bytes()].concat()
}

async fn publishes(session: Session, task: u32, mut random: Random) -> Told {
    let mut publisher = session.publisher();
    let mut told = Told::default();
    for n in 0..REQUESTS {
        let payload = numbered(task, n);
        let qos = random.qos();
        let request = Publish::new("t", payload.clone()).unwrap().with_qos(qos);
        let outcome = match random.below(6) {
            // Given up after so many polls, or a moment.
            0 => {
                let mut future = Box::pin(publisher.publish(request));
                let mut polls = random.below(3);
                poll_fn(|cx| {
                    let polled = future.as_mut().poll(cx);
                    if polls == 0 || polled.is_ready() {
                        return Poll::Ready(());
                    }
                    polls -= 1;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
                continue;
            }
            1 => {
                let moment = Duration::from_micros(random.below(300).into());
                match timeout(moment, publisher.publish(request)).await {
                    Ok(outcome) => outcome,
                    Err(_) => continue,
                }
            }
            // Waits for readiness, and gives that up at times.
            2 => {
                let moment = Duration::from_micros(random.below(2000).into());
                match timeout(moment, publisher.ready()).await {
                    Ok(Ok(ready)) => ready.call(request).await,
                    Ok(Err(error)) => Err(error),
                    Err(_) => continue,
                }
            }
            3 => match publisher.ready().await {
                Ok(ready) => ready.call(request).await,
                Err(error) => Err(error),
            },
            _ => publisher.publish(request).await,
        };
        match outcome {
            Ok(_) => told.sent.push((qos, payload)),
            Err(error) => {
                assert!(
                    matches!(error, PublishError::NotSent(_) | PublishError::Lost(_)),
                    "{error:?}"
                );
                if error.delivery() == Delivery::NotSent {
                    told.not_sent.push(payload);
                }
            }
        }
    }
    told
}

/// Publishes in futures that are all polled in order, and awaits whichever ends first.
async fn publishes_at_once(session: Session, task: u32, mut random: Random) -> Told {
    let publisher = session.publisher();
    let mut told = Told::default();
    let mut n = 0;
    while n < REQUESTS {
        let mut futures = Vec::new();
        for _ in 0..10 {
            let payload = numbered(task, n);
            n += 1;
            let qos = random.qos().max(QoS::AtLeastOnce);
            let request = Publish::new("t", payload.clone()).unwrap().with_qos(qos);
            let future = publisher.publish(request);
            futures.push(Box::pin(async move { (qos, payload, future.await) }));
        }
        while !futures.is_empty() {
            let ((qos, payload, outcome), _, rest) = select_all(futures).await;
            match outcome {
                Ok(_) => told.sent.push((qos, payload)),
                Err(PublishError::NotSent(_)) => told.not_sent.push(payload),
                Err(error) => assert!(matches!(error, PublishError::Lost(_)), "{error:?}"),
            }
            futures = rest;
            if random.below(20) == 0 {
                // The rest is given up.
                break;
            }
        }
    }
    told
}

async fn subscribes(session: Session, task: u32, mut random: Random) {
    for _ in 0..REQUESTS / 4 {
        let shared = random.below(2) == 0;
        let filter = if shared {
            "s/#".to_owned()
        } else {
            format!("s/{task}")
        };
        let request = Subscribe::new(filter)
            .unwrap()
            .with_max_messages(usize::try_from(1 + random.below(8)).unwrap());
        let moment = Duration::from_micros(random.below(2000).into());
        let mut messages = match timeout(moment, session.subscribe(request)).await {
            Ok(Ok(messages)) => messages,
            Ok(Err(error)) => {
                assert!(
                    matches!(error, SubscribeError::Lost(_) | SubscribeError::NotSent(_)),
                    "{error:?}"
                );
                return;
            }
            Err(_) => continue,
        };
        let mut last = None;
        for _ in 0..random.below(30) {
            let moment = Duration::from_micros(random.below(2000).into());
            match timeout(moment, messages.recv()).await {
                Ok(Some(message)) => {
                    let n = u32::from_be_bytes(message.payload.as_ref().try_into().unwrap());
                    assert!(last.is_none_or(|last| last < n), "{n} after {last:?}");
                    last = Some(n);
                }
                Ok(None) => {
                    assert!(session.is_closed(), "the stream ends before the connection");
                    break;
                }
                Err(_) => {}
            }
            if random.below(8) == 0 {
                yield_now().await;
            }
        }
        if random.below(2) == 0 {
            let moment = Duration::from_micros(random.below(2_000).into());
            match timeout(moment, messages.unsubscribe()).await {
                Ok(Ok(_) | Err(SubscribeError::Lost(_) | SubscribeError::NotSent(_))) | Err(_) => {}
                Ok(Err(error)) => panic!("{error:?}"),
            }
        }
    }
}

/// Answers requests, and sends messages as it is asked for things; ends with the connection.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Debug>(
    mut server: ScriptedServer<S>,
    version: Version,
    mut random: Random,
    closes_after: Option<u32>,
) -> Vec<Message> {
    let mut published = Vec::new();
    let mut sent = 0_u32;
    let mut free: Vec<u16> = (1..=8).collect();
    let mut packets = 0;
    let max_sent = 1 + random.below(4);
    while let Some(packet) = server.next().await {
        packets += 1;
        if closes_after == Some(packets) {
            break;
        }
        let mut out = Vec::new();
        match packet {
            Packet::Publish(publish) => {
                match (publish.message.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(id)) => out.push(Packet::PubAck(Ack::new(id))),
                    (QoS::ExactlyOnce, Some(id)) => out.push(Packet::PubRec(Ack::new(id))),
                    _ => {}
                }
                published.push(publish.message);
            }
            Packet::PubRel(ack) => out.push(Packet::PubComp(Ack::new(ack.packet_id))),
            Packet::PubAck(ack) => free.push(ack.packet_id.value()),
            Packet::PubRec(ack) => out.push(Packet::PubRel(Ack::new(ack.packet_id))),
            Packet::PubComp(ack) => free.push(ack.packet_id.value()),
            Packet::Subscribe(subscribe) => out.push(Packet::SubAck(SubAck {
                packet_id: subscribe.packet_id,
                reason_codes: vec![ReasonCode::SUCCESS; subscribe.filters.len()],
                properties: Default::default(),
            })),
            Packet::Unsubscribe(unsubscribe) => {
                out.push(Packet::UnsubAck(UnsubAck {
                    packet_id: unsubscribe.packet_id,
                    reason_codes: vec![ReasonCode::SUCCESS; unsubscribe.filters.len()],
                    properties: Default::default(),
                }));
            }
            Packet::PingReq => out.push(Packet::PingResp),
            Packet::Disconnect(_) => break,
            packet => panic!("{packet:?}"),
        }
        for _ in 0..random.below(max_sent) {
            let mut qos = random.qos();
            let mut packet_id = None;
            if qos != QoS::AtMostOnce {
                match free.pop() {
                    Some(id) => packet_id = PacketId::new(id),
                    None => qos = QoS::AtMostOnce,
                }
            }
            let topic = format!("s/{}", PUBLISHERS + random.below(SUBSCRIBERS));
            let message = Message::new(topic.as_str(), sent.to_be_bytes().to_vec())
                .unwrap()
                .with_qos(qos);
            sent += 1;
            out.push(Packet::Publish(packet::Publish {
                message,
                packet_id,
                dup: false,
            }));
        }
        let mut bytes = Vec::new();
        for packet in out {
            packet.encode(version, &mut bytes).unwrap();
        }
        // The client may have gone, and what it wrote before is still to be read.
        let _ = server.stream_mut().write_all(&bytes).await;
    }
    published
}

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// When all is done.
    Done,
    /// The client leaves in the middle of it.
    Leaves,
    /// The server closes in the middle of it.
    Closes,
}

fn round_config(version: Version, mut random: Random) -> SessionConfig {
    config(version)
        .with_max_in_flight(u16::try_from(1 + random.below(4)).unwrap())
        .with_max_unsent_bytes(usize::try_from(1 + random.below(100)).unwrap())
        .with_receive_maximum(Some(8))
        .with_keep_alive(Duration::ZERO)
}

async fn round<S>(session: Session, server: ScriptedServer<S>, seed: u64, end: End)
where
    S: AsyncRead + AsyncWrite + Unpin + Debug + Send + 'static,
{
    let mut random = Random::new(seed, 1000);
    let closes_after = (end == End::Closes).then(|| 1 + random.below(300));
    let version = session.version();
    let server = tokio::spawn(serve(server, version, Random::new(seed, 999), closes_after));
    let publishers: Vec<_> = (0..=random.below(PUBLISHERS))
        .map(|task| {
            let random = Random::new(seed, task);
            if task % 2 == 0 {
                tokio::spawn(publishes(session.clone(), task, random))
            } else {
                tokio::spawn(publishes_at_once(session.clone(), task, random))
            }
        })
        .collect();
    let subscribers: Vec<_> = (PUBLISHERS..PUBLISHERS + random.below(SUBSCRIBERS + 1))
        .map(|task| tokio::spawn(subscribes(session.clone(), task, Random::new(seed, task))))
        .collect();
    if end == End::Leaves {
        tokio::time::sleep(Duration::from_micros(random.below(5_000).into())).await;
        let _ = timeout(PATIENCE, session.disconnect())
            .await
            .expect("it leaves");
        assert!(session.is_closed());
    }

    let mut told = Vec::new();
    for task in publishers {
        told.push(
            timeout(PATIENCE, task)
                .await
                .expect("every publish ends")
                .unwrap(),
        );
    }
    for task in subscribers {
        timeout(PATIENCE, task)
            .await
            .expect("every subscribe ends")
            .unwrap();
    }
    if end == End::Done {
        // Those given up are completed too.
        timeout(PATIENCE, async {
            while session.in_flight() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("nothing stays in flight");
        timeout(PATIENCE, session.disconnect())
            .await
            .expect("it leaves")
            .unwrap();
    }
    timeout(PATIENCE, session.closed()).await.expect("it ends");
    assert_eq!(session.in_flight(), 0);
    let published = timeout(PATIENCE, server)
        .await
        .expect("the server sees it")
        .unwrap();

    let mut last = HashMap::new();
    for message in &published {
        let (task, n) = message.payload.split_at(4);
        let before = last.insert(task, n);
        assert!(before < Some(n), "{n:?} after {before:?} of {task:?}");
    }
    let arrived: HashSet<_> = published
        .iter()
        .map(|message| message.payload.as_ref())
        .collect();
    for told in told {
        for (qos, payload) in told.sent {
            // What is on its way when the server closes may not arrive.
            if end != End::Closes || qos != QoS::AtMostOnce {
                assert!(
                    arrived.contains(payload.as_slice()),
                    "{qos:?} {payload:?} is lost"
                );
            }
        }
        for payload in told.not_sent {
            assert!(
                !arrived.contains(payload.as_slice()),
                "{payload:?} was sent"
            );
        }
    }
}

/// Every way to end, in both versions, with so many seeds.
const SEEDS: u64 = 8;

fn rounds() -> impl Iterator<Item = (u64, Version, End)> {
    (0..SEEDS).flat_map(|seed| {
        [End::Done, End::Leaves, End::Closes]
            .into_iter()
            .flat_map(move |end| common::BOTH.map(|version| (seed + 1, version, end)))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory() {
    for (seed, version, end) in rounds() {
        let (connector, mut listener) = mqtt_testkit::memory_with_capacity(200);
        let config = round_config(version, Random::new(seed, 998));
        let connector = SessionConnector::with_connector(connector, config).unwrap();
        let (session, server) = tokio::join!(connector.connect(endpoint()), async {
            let mut server = listener.accept().await;
            server.accept().await;
            server
        });
        round(session.unwrap(), server, seed, end).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_tcp() {
    let listener = ScriptedListener::bind().await.unwrap();
    for (seed, version, end) in rounds() {
        let config = round_config(version, Random::new(seed, 997));
        let connector = SessionConnector::new(config).unwrap();
        let endpoint = listener.url().parse().unwrap();
        let (session, server) = tokio::join!(connector.connect(endpoint), async {
            let mut server = listener.accept().await;
            server.accept().await;
            server
        });
        round(session.unwrap(), server, seed, end).await;
    }
}
