//! Sessions by device, over connections in memory and in virtual time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server answers what it knows"
)]

mod common;

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{config, connector, endpoint, now, publish, settle};
use futures_util::future::join_all;
use mqtt_client::{
    Publish, QoS, ReasonCode, ReconnectConfig, RegisteredSession, RegistryConfig, RegistryError,
    SessionConfig, SessionConnector, SessionRegistry, SessionState, Subscribe, Version,
    pool::Limit,
    proto::packet::{ConnAck, Packet},
};
use mqtt_testkit::{MemoryConnector, MemoryListener, ScriptedServer};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

type Registry = SessionRegistry<MemoryConnector>;

const SECOND: Duration = Duration::from_secs(1);

fn options() -> RegistryConfig {
    RegistryConfig::default()
}

/// Sessions that reconnect after a second at first.
fn reconnecting() -> SessionConfig {
    config(Version::V5)
        .with_keep_alive(Duration::ZERO)
        .with_reconnect(Some(ReconnectConfig::default()))
}

fn registry_with(session: SessionConfig, options: RegistryConfig) -> (Registry, MemoryListener) {
    let (connector, listener) = connector(session);
    let registry = SessionRegistry::new(connector, endpoint(), options).unwrap();
    (registry, listener)
}

fn registry(options: RegistryConfig) -> (Registry, MemoryListener) {
    registry_with(reconnecting(), options)
}

/// A server for many, which can be restarted.
#[derive(Clone)]
struct Server {
    counts: Arc<Mutex<Counts>>,
    /// Whether it is up; with `false` it ends every connection.
    up: watch::Sender<bool>,
    /// How long it takes to answer CONNECT.
    answers_after: Duration,
}

#[derive(Default)]
struct Counts {
    dials: usize,
    /// Connections without an answer to CONNECT yet, and the most there were.
    shaking_hands: usize,
    most_shaking_hands: usize,
    connects: HashMap<String, usize>,
    live: HashSet<String>,
    most_live: usize,
    refused: HashSet<String>,
    published: usize,
}

impl Server {
    fn start(mut listener: MemoryListener, answers_after: Duration) -> Self {
        let server = Self {
            counts: Arc::default(),
            up: watch::Sender::new(true),
            answers_after,
        };
        let this = server.clone();
        tokio::spawn(async move {
            loop {
                let connection = listener.accept_patiently().await;
                this.with(|counts| counts.dials += 1);
                let this = this.clone();
                tokio::spawn(async move { this.serve(connection).await });
            }
        });
        server
    }

    fn with<T>(&self, f: impl FnOnce(&mut Counts) -> T) -> T {
        f(&mut self.counts.lock().unwrap())
    }

    async fn serve(self, mut connection: ScriptedServer) {
        let mut up = self.up.subscribe();
        if !*up.borrow() {
            return;
        }
        let client_id = connection.expect_connect().await.client_id.to_string();
        self.with(|counts| {
            counts.shaking_hands += 1;
            counts.most_shaking_hands = counts.most_shaking_hands.max(counts.shaking_hands);
            *counts.connects.entry(client_id.clone()).or_default() += 1;
        });
        sleep(self.answers_after).await;
        let is_refused = self.with(|counts| {
            counts.shaking_hands -= 1;
            counts.refused.contains(&client_id)
        });
        if is_refused {
            let code = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
            connection
                .send(Packet::ConnAck(ConnAck::refused(code)))
                .await;
            return;
        }
        self.with(|counts| {
            assert!(
                counts.live.insert(client_id.clone()),
                "{client_id} came twice"
            );
            counts.most_live = counts.most_live.max(counts.live.len());
        });
        let exchange = async {
            connection.send(Packet::ConnAck(ConnAck::accepted())).await;
            while let Some(packet) = connection.next_patiently().await {
                match packet {
                    Packet::Publish(publish) => {
                        self.with(|counts| counts.published += 1);
                        if let Some(id) = publish.packet_id {
                            connection.puback(id).await;
                        }
                    }
                    Packet::Subscribe(subscribe) => {
                        let grants = vec![ReasonCode::SUCCESS; subscribe.filters.len()];
                        connection.suback(subscribe.packet_id, grants).await;
                    }
                    Packet::Disconnect(_) => break,
                    _ => {}
                }
            }
        };
        tokio::select! {
            () = exchange => {}
            _ = up.wait_for(|up| !up) => {}
        }
        self.with(|counts| counts.live.remove(&client_id));
    }
}

fn device(number: usize) -> String {
    format!("device-{number}")
}

async fn open_all(registry: &Registry, devices: usize) -> Vec<RegisteredSession> {
    let mut opened = JoinSet::new();
    for number in 0..devices {
        let registry = registry.clone();
        opened.spawn(async move { registry.get(&device(number)).await.unwrap() });
    }
    opened.join_all().await
}

#[tokio::test(start_paused = true)]
async fn a_session_is_opened_once_however_many_ask_for_it() {
    let (registry, listener) = registry(options());
    let server = Server::start(listener, SECOND);
    let calls = (0..100).map(|_| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.get("device").await.unwrap() })
    });
    let handles = join_all(calls.collect::<Vec<_>>()).await;
    assert_eq!(server.with(|counts| counts.dials), 1);
    let status = registry.status();
    assert_eq!((status.open, status.idle, status.waiting), (1, 0, 0));
    let first = handles.first().unwrap().as_ref().unwrap();
    assert_eq!(first.client_id(), "device");
    first.publish(publish(QoS::AtLeastOnce)).await.unwrap();
    let clone = first.clone();
    drop(handles);
    assert_eq!(registry.status().idle, 0);
    drop(clone);
    assert_eq!(registry.status().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_opening_to_others() {
    let (registry, listener) = registry(options());
    let server = Server::start(listener, SECOND);
    let mut first = Box::pin(registry.get("device"));
    assert!(now(&mut first).await.is_none());
    let second = tokio::spawn({
        let registry = registry.clone();
        async move { registry.get("device").await.map(drop) }
    });
    settle().await;
    drop(first);
    second.await.unwrap().unwrap();
    // And one that nobody waits for is there for the next.
    let mut third = Box::pin(registry.get("other"));
    assert!(now(&mut third).await.is_none());
    settle().await;
    drop(third);
    sleep(SECOND * 2).await;
    let start = Instant::now();
    registry.get("other").await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(server.with(|counts| counts.dials), 2);
}

/// Nobody has waited for so long that it would only take a place.
#[tokio::test(start_paused = true)]
async fn an_opening_that_nobody_wants_any_more_is_given_up() {
    let (registry, _listener) = registry(options());
    let error = registry.get("device").await.unwrap_err();
    assert!(matches!(error, RegistryError::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains("1 opening"), "{error}");
    assert_eq!(registry.status().opening, 1);
    sleep(SECOND * 6).await;
    assert_eq!(registry.status().opening, 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_idles_out_unless_it_has_something_open() {
    let options = options().with_idle_timeout(Limit::After(SECOND * 10));
    let (registry, listener) = registry(options);
    let server = Server::start(listener, Duration::ZERO);
    let idle = registry.get("idle").await.unwrap();
    let subscribed = registry.get("subscribed").await.unwrap();
    let held = registry.get("held").await.unwrap();
    let stream = subscribed
        .subscribe(Subscribe::new("a").unwrap())
        .await
        .unwrap();
    drop((idle, subscribed));
    sleep(SECOND * 9).await;
    assert_eq!(registry.status().open, 3);
    sleep(SECOND * 2).await;
    assert!(!server.with(|counts| counts.live.contains("idle")));
    assert_eq!(registry.status().open, 2);
    drop(stream);
    sleep(SECOND * 60).await;
    let live = server.with(|counts| counts.live.clone());
    assert_eq!(live, HashSet::from(["held".to_owned()]));
    held.publish(publish(QoS::AtLeastOnce)).await.unwrap();
}

/// Whoever asks at that moment has the session before it is closed, or the next one after it has left;
/// the server sees no name twice.
#[tokio::test(start_paused = true)]
async fn idling_out_and_asking_may_meet() {
    let options = options().with_idle_timeout(Limit::After(SECOND));
    let (registry, listener) = registry(options);
    let server = Server::start(listener, Duration::from_millis(3));
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let askers = (0..3).map(|_| {
            let (registry, late) = (registry.clone(), random.u64(0..5));
            tokio::spawn(async move {
                sleep(Duration::from_millis(late)).await;
                let session = registry.get("device").await.unwrap();
                session.publish(publish(QoS::AtLeastOnce)).await.unwrap();
            })
        });
        for asker in askers.collect::<Vec<_>>() {
            asker.await.unwrap();
        }
        sleep(SECOND - Duration::from_millis(random.u64(0..5))).await;
    }
    assert_eq!(server.with(|counts| counts.published), 900);
    let connects = server.with(|counts| counts.connects["device"]);
    assert!((50..=250).contains(&connects), "{connects}");
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_the_longest_idle_makes_room() {
    let (registry, listener) = registry(options().with_max_sessions(3_usize));
    let server = Server::start(listener, Duration::ZERO);
    let held = registry.get("held").await.unwrap();
    for name in ["first", "second"] {
        drop(registry.get(name).await.unwrap());
        sleep(SECOND).await;
    }
    // Used again, so that the other is idle for longer.
    drop(registry.get("first").await.unwrap());
    let third = registry.get("third").await.unwrap();
    let live = server.with(|counts| counts.live.clone());
    let names = ["held", "first", "third"].map(str::to_owned);
    assert_eq!(live, HashSet::from(names));
    let fourth = registry.get("fourth").await.unwrap();
    // All are in use: the next waits, in turn, until a handle is dropped.
    let mut fifth = Box::pin(registry.get("fifth"));
    let waits = timeout(SECOND, &mut fifth).await;
    assert!(waits.is_err());
    drop(third);
    fifth.await.unwrap();
    let error = {
        let _fifth = registry.get("fifth").await.unwrap();
        registry.get("sixth").await.unwrap_err()
    };
    assert!(error.is_transient());
    assert_eq!(server.with(|counts| counts.most_live), 3);
    drop((held, fourth));
}

/// What was opened is for those who waited for it, however late they look.
#[tokio::test(start_paused = true)]
async fn a_session_is_not_closed_before_it_was_used() {
    let (registry, listener) = registry(options().with_max_sessions(1_usize));
    let _server = Server::start(listener, Duration::ZERO);
    let mut first = Box::pin(registry.get("first"));
    assert!(now(&mut first).await.is_none());
    let second = tokio::spawn({
        let registry = registry.clone();
        async move { registry.get("second").await.map(drop) }
    });
    sleep(SECOND * 2).await;
    let first = now(first).await.expect("it is open").unwrap();
    first.publish(publish(QoS::AtLeastOnce)).await.unwrap();
    drop(first);
    second.await.unwrap().unwrap();
}

/// In real time and in parallel, where anything may come between anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_share_few_places() {
    let (registry, mut listener) = registry(
        options()
            .with_max_sessions(4_usize)
            .with_acquire_timeout(SECOND * 60),
    );
    let served = tokio::spawn(async move {
        loop {
            let mut server = listener.accept_patiently().await;
            tokio::spawn(async move {
                server.accept().await;
                server.serve().await;
            });
        }
    });
    let mut devices = JoinSet::new();
    for number in 0..12 {
        let registry = registry.clone();
        devices.spawn(async move {
            for round in 0..50 {
                let session = registry.get(&device((number + round) % 8)).await.unwrap();
                session.publish(publish(QoS::AtLeastOnce)).await.unwrap();
            }
        });
    }
    devices.join_all().await;
    let status = registry.status();
    assert!(status.open <= 4 && status.opening == 0, "{status}");
    let deadline = Instant::now() + SECOND * 60;
    assert!(registry.drain(deadline).await.is_complete());
    served.abort();
}

/// With one place for two, each goes on getting its turn.
#[tokio::test(start_paused = true)]
async fn one_place_is_shared_by_many() {
    let (registry, listener) = registry(options().with_max_sessions(1_usize));
    let server = Server::start(listener, Duration::from_millis(1));
    let devices = (0..4).map(|number| {
        let registry = registry.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                let session = registry.get(&device(number)).await.unwrap();
                session.publish(publish(QoS::AtLeastOnce)).await.unwrap();
            }
        })
    });
    for device in devices.collect::<Vec<_>>() {
        device.await.unwrap();
    }
    assert_eq!(
        server.with(|counts| (counts.published, counts.most_live)),
        (200, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn one_device_that_is_refused_stops_no_other() {
    let (registry, listener) = registry(options());
    let server = Server::start(listener, Duration::ZERO);
    server.with(|counts| counts.refused.insert("bad".to_owned()));
    for _ in 0..10 {
        let error = registry.get("bad").await.unwrap_err();
        let is_refusal = matches!(error, RegistryError::Connect { .. });
        assert!(is_refusal && !error.is_transient(), "{error:?}");
        let report = common::report(&error);
        assert!(report.contains("bad user name or password"), "{report}");
        let start = Instant::now();
        registry.get("good").await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    // It was asked for once, and is again when the time has come, or when told that it was mended.
    assert_eq!(server.with(|counts| counts.connects["bad"]), 1);
    sleep(SECOND * 301).await;
    registry.get("bad").await.unwrap_err();
    assert_eq!(server.with(|counts| counts.connects["bad"]), 2);
    server.with(|counts| counts.refused.clear());
    registry.get("bad").await.unwrap_err();
    assert!(!registry.remove("bad").await);
    registry.get("bad").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_restarts_is_not_stormed_and_has_all_of_them_back() {
    const DEVICES: usize = 2_000;
    let options = options().with_max_connecting(8_u32);
    let options = options.with_acquire_timeout(SECOND * 60);
    let (registry, listener) = registry(options);
    let server = Server::start(listener, Duration::from_millis(5));
    let handles = open_all(&registry, DEVICES).await;
    assert_eq!(server.with(|counts| counts.most_shaking_hands), 8);
    drop(handles);
    let before = server.with(|counts| counts.dials);
    server.up.send_replace(false);
    sleep(SECOND * 120).await;
    let tried = server.with(|counts| counts.dials) - before;
    // With pauses up to 30 s some twenty; each on its own it would be a dozen thousand.
    assert!((5..60).contains(&tried), "{tried}");
    let waiting = registry.clone();
    let waiting = tokio::spawn(async move { waiting.get("newcomer").await.map(drop) });
    server.up.send_replace(true);
    waiting.await.unwrap().unwrap();
    let back = async {
        while server.with(|counts| counts.live.len()) <= DEVICES {
            sleep(SECOND).await;
        }
    };
    timeout(SECOND * 120, back)
        .await
        .expect("some are not back");
    assert_eq!(server.with(|counts| counts.most_shaking_hands), 8);
    for number in [0, DEVICES - 1] {
        let session = registry.get(&device(number)).await.unwrap();
        assert!(matches!(session.state(), SessionState::Connected { .. }));
        session.publish(publish(QoS::AtLeastOnce)).await.unwrap();
    }
    assert!(
        registry
            .drain(Instant::now() + SECOND * 60)
            .await
            .is_complete()
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_is_opened_anew() {
    let (registry, listener) = registry_with(config(Version::V5), options());
    let server = Server::start(listener, Duration::ZERO);
    let old = registry.get("device").await.unwrap();
    server.up.send_replace(false);
    old.closed().await;
    server.up.send_replace(true);
    let new = registry.get("device").await.unwrap();
    new.publish(publish(QoS::AtLeastOnce)).await.unwrap();
    // The handle on the old one says nothing about the new one.
    drop(old);
    assert_eq!(registry.status().idle, 0);
    // And one that nobody asks for does not occupy its place for long.
    drop(new);
    server.up.send_replace(false);
    sleep(SECOND * 11).await;
    assert_eq!(registry.status().open, 0);
}

#[tokio::test(start_paused = true)]
async fn removing_closes_whoever_has_it() {
    let (registry, listener) = registry(options());
    let server = Server::start(listener, SECOND);
    assert!(!registry.remove("device").await);
    let session = registry.get("device").await.unwrap();
    assert!(registry.remove("device").await);
    assert!(server.with(|counts| counts.live.is_empty()));
    session
        .publish(publish(QoS::AtLeastOnce))
        .await
        .unwrap_err();
    // One that is being opened is closed when it is open.
    let mut opening = Box::pin(registry.get("device"));
    assert!(now(&mut opening).await.is_none());
    let mut removed = Box::pin(registry.remove("device"));
    assert!(now(&mut removed).await.is_none());
    drop(opening);
    assert!(removed.await);
    assert!(server.with(|counts| counts.live.is_empty()));
    // And also if nobody stays to see it.
    registry.get("device").await.unwrap();
    assert!(now(registry.remove("device")).await.is_none());
    settle().await;
    assert!(server.with(|counts| counts.live.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_handles_and_closing_does_not() {
    let (registry, listener) = registry(options());
    let server = Server::start(listener, Duration::ZERO);
    let handles = open_all(&registry, 10).await;
    let mut handles = handles.into_iter();
    let held = handles.next().unwrap();
    drop(handles);
    let mut waiting = Box::pin(registry.get("late"));
    assert!(now(&mut waiting).await.is_none());
    registry.close().await;
    assert!(matches!(waiting.await, Err(RegistryError::Closed)));
    assert_eq!(server.with(|counts| counts.live.len()), 1);
    held.publish(publish(QoS::AtLeastOnce)).await.unwrap();
    let report = registry.drain(Instant::now() + SECOND).await;
    assert_eq!((report.in_use, report.is_complete()), (1, false));
    let mut drained = pin!(registry.drain(Instant::now() + SECOND * 60));
    assert!(now(&mut drained).await.is_none());
    drop(held);
    assert!(drained.await.is_complete());
    assert!(server.with(|counts| counts.live.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_closes_the_registry() {
    let (registry, listener) = registry(options());
    let server = Server::start(listener, Duration::ZERO);
    let held = registry.get("held").await.unwrap();
    drop(registry.get("idle").await.unwrap());
    drop(registry.clone());
    settle().await;
    assert_eq!(server.with(|counts| counts.live.len()), 2);
    drop(registry);
    settle().await;
    assert_eq!(server.with(|counts| counts.live.len()), 1);
    drop(held);
    settle().await;
    assert!(server.with(|counts| counts.live.is_empty()));
}

/// A connector of the user's that panics.
#[derive(Clone)]
struct Panics;

impl tower::Service<mqtt_client::Endpoint> for Panics {
    type Response = mqtt_client::transport::StreamConn<tokio::io::DuplexStream>;
    type Error = mqtt_client::transport::ConnectError;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: mqtt_client::Endpoint) -> Self::Future {
        panic!("as the test wants it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_told_and_ends_nothing_else() {
    let connector = SessionConnector::with_connector(Panics, reconnecting()).unwrap();
    let registry = SessionRegistry::new(connector, endpoint(), options()).unwrap();
    let error = registry.get("device").await.unwrap_err();
    assert!(common::report(&error).contains("panicked"), "{error:?}");
    assert_eq!(registry.status().opening, 0);
    registry.get("other").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_allowed_is_told() {
    let (registry, _listener) = registry(options());
    let error = registry.get("nul\0").await.unwrap_err();
    assert!(
        common::report(&error).contains("session.client_id"),
        "{error:?}"
    );
    let (connector, _listener) = connector(reconnecting());
    let broken = options()
        .with_max_sessions(0_usize)
        .with_idle_timeout(Limit::After(Duration::ZERO))
        .with_acquire_timeout(Duration::ZERO)
        .with_max_connecting(0_u32);
    let errors = SessionRegistry::new(connector, endpoint(), broken).unwrap_err();
    let errors = errors.to_string();
    for option in [
        "max_sessions",
        "idle_timeout",
        "acquire_timeout",
        "max_connecting",
    ] {
        assert!(errors.contains(option), "{errors}");
    }
}

/// All devices of a process, as a gateway has them.
#[tokio::test(start_paused = true)]
async fn five_thousand_devices_speak_for_themselves() {
    const DEVICES: usize = 5_000;
    let options = options().with_acquire_timeout(SECOND * 60);
    let (registry, listener) = registry(options);
    let server = Server::start(listener, Duration::from_millis(1));
    let mut devices = JoinSet::new();
    for number in 0..DEVICES {
        let registry = registry.clone();
        devices.spawn(async move {
            let session = registry.get(&device(number)).await.unwrap();
            let publish = Publish::new(format!("devices/{number}"), "on").unwrap();
            session
                .publish(publish.with_qos(QoS::AtLeastOnce))
                .await
                .unwrap();
        });
    }
    devices.join_all().await;
    let status = registry.status();
    assert_eq!((status.open, status.idle), (DEVICES, DEVICES));
    assert_eq!(server.with(|counts| counts.published), DEVICES);
    sleep(SECOND * 301).await;
    assert_eq!(registry.status().open, 0);
    assert!(server.with(|counts| counts.live.is_empty()));
}
