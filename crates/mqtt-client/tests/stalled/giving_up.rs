//! When the connection is given up, how soon, and that the session goes on with the next one.

use std::{collections::HashMap, io::ErrorKind, time::Duration};

use mqtt_client::{
    ConnectionLost, LostCause, Operation, QoS, ReconnectConfig, Session, SessionConfig,
    SessionConnector, SessionState,
    pool::Limit,
    proto::{
        ProtocolError,
        packet::{Ack, Packet},
    },
};
use mqtt_testkit::{MemoryListener, ScriptedServer, memory_with_capacity};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    SECOND,
    common::{accept, endpoint},
    numbered,
};

const PRODUCERS: usize = 8;
const MESSAGES: usize = 30;

/// Less than the first message of each producer.
const PIPE: usize = 32;

async fn open(config: SessionConfig) -> (Session, ScriptedServer, MemoryListener) {
    let reconnect = ReconnectConfig::default().with_jitter(Duration::ZERO);
    let config = config
        .with_clean_start(false)
        .with_session_expiry(Limit::Never)
        .with_reconnect(Some(reconnect));
    let (memory, mut listener) = memory_with_capacity(PIPE);
    let connector = SessionConnector::with_connector(memory, config).unwrap();
    let (session, server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    (session.unwrap(), server, listener)
}

/// Publishes from all sides; each outcome is a good one.
fn produce(session: &Session) -> JoinSet<()> {
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let publisher = session.publisher();
        producers.spawn(async move {
            for number in 0..MESSAGES {
                let publish = numbered(&format!("t/{producer}"), number);
                publisher.publish(publish).await.unwrap();
            }
        });
    }
    producers
}

/// Waits until the connection is given up, and says after how long and why.
async fn given_up(session: &Session) -> (Duration, ConnectionLost) {
    let start = Instant::now();
    let mut states = session.watch_state();
    let mut lost = None;
    let is_lost = states.wait_for(|state| match state {
        SessionState::Waiting { cause, .. } => {
            lost = Some(cause.clone());
            true
        }
        SessionState::Connected { .. } => false,
        state => panic!("{state:?}"),
    });
    timeout(SECOND * 60, is_lost).await.unwrap().unwrap();
    (start.elapsed(), (*lost.unwrap()).clone())
}

/// The server comes back with the session, having read nothing: it gets every message at QoS 1 and 2
/// once, in order, and each is told so.
async fn recover(session: Session, mut listener: MemoryListener, mut producers: JoinSet<()>) {
    let mut server = accept(&mut listener, true).await;
    let ((), arrived) = tokio::join!(
        async {
            while let Some(producer) = producers.join_next().await {
                producer.unwrap();
            }
            assert_eq!((session.in_flight(), session.outbox().messages), (0, 0));
            session.disconnect().await.unwrap();
        },
        serve(&mut server)
    );
    for (topic, numbers) in arrived {
        for qos in 1..=2 {
            let of_qos = numbers.iter().copied().filter(|number| number % 3 == qos);
            let expected = (qos..MESSAGES).step_by(3);
            assert!(of_qos.eq(expected), "{topic}: {numbers:?}");
        }
    }
}

/// Acknowledges whatever comes until the client leaves, and says what came for each topic.
async fn serve(server: &mut ScriptedServer) -> HashMap<String, Vec<usize>> {
    let mut arrived = HashMap::<_, Vec<_>>::new();
    while let Some(packet) = server.next().await {
        match packet {
            Packet::Publish(publish) => {
                let number = std::str::from_utf8(&publish.message.payload).unwrap();
                let numbers = arrived
                    .entry(publish.message.topic.to_string())
                    .or_default();
                numbers.push(number.parse().unwrap());
                match (publish.message.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(id)) => server.puback(id).await,
                    (QoS::ExactlyOnce, Some(id)) => {
                        server.send(Packet::PubRec(Ack::new(id))).await;
                    }
                    _ => {}
                }
            }
            Packet::PubRel(ack) => server.send(Packet::PubComp(Ack::new(ack.packet_id))).await,
            Packet::PingReq => server.send(Packet::PingResp).await,
            Packet::Disconnect(_) => break,
            packet => panic!("{packet:?}"),
        }
    }
    assert_eq!(arrived.len(), PRODUCERS);
    arrived
}

/// The server reads nothing: the write that makes no progress is given up.
#[tokio::test(start_paused = true)]
async fn a_write_without_progress_ends_at_its_deadline() {
    let config = SessionConfig::new("gateway")
        .with_keep_alive(SECOND * 300)
        .with_write_timeout(SECOND * 10);
    let (session, _server, listener) = open(config).await;
    let producers = produce(&session);
    let (after, lost) = given_up(&session).await;
    assert!((SECOND * 10..SECOND * 11).contains(&after), "{after:?}");
    let LostCause::Io {
        operation: Operation::Write,
        source,
    } = lost.cause
    else {
        panic!("{lost:?}");
    };
    assert_eq!(source.kind(), ErrorKind::TimedOut);
    recover(session, listener, producers).await;
}

/// [MQTT5-3.1.2-20] The server reads nothing, and nothing waits to be written for long: one and a half
/// keep-alive after it was heard last it is given up.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_heard_is_given_up_within_one_and_a_half_keep_alive() {
    let config = SessionConfig::new("gateway")
        .with_keep_alive(SECOND * 10)
        .with_write_timeout(SECOND * 300);
    let (session, _server, listener) = open(config).await;
    let producers = produce(&session);
    let (after, lost) = given_up(&session).await;
    assert!((SECOND * 10..=SECOND * 15).contains(&after), "{after:?}");
    let LostCause::Protocol(error) = lost.cause else {
        panic!("{lost:?}");
    };
    assert!(
        matches!(error, ProtocolError::KeepAliveTimeout { .. }),
        "{error:?}"
    );
    recover(session, listener, producers).await;
}

/// It accepts connections while it is stalled, and answers none: each attempt ends in its time, and the
/// session is there when the server is.
#[tokio::test(start_paused = true)]
async fn attempts_at_a_stalled_server_end_in_time_until_it_answers() {
    let config = SessionConfig::new("gateway")
        .with_keep_alive(SECOND * 4)
        .with_connack_timeout(SECOND * 5);
    let (session, _server, mut listener) = open(config).await;
    let producers = produce(&session);
    let (after, _) = given_up(&session).await;
    assert!(after <= SECOND * 6, "{after:?}");
    let stalled = Instant::now();
    let mut attempts = Vec::new();
    while stalled.elapsed() < SECOND * 30 {
        // Accepted by the system, as it were: nobody reads CONNECT.
        attempts.push(listener.accept().await);
        let accepted = Instant::now();
        let mut states = session.watch_state();
        let is_given_up = states.wait_for(|state| matches!(state, SessionState::Waiting { .. }));
        timeout(SECOND * 60, is_given_up).await.unwrap().unwrap();
        assert_eq!(accepted.elapsed(), SECOND * 5);
    }
    assert!(attempts.len() >= 3, "{}", attempts.len());
    recover(session, listener, producers).await;
}
