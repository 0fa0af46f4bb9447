//! Nothing that a message is about, and nothing secret, shows in metrics or traces.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use mqtt_client::{
    OutboxConfig, Publish, QoS, ReconnectConfig, Secret, SessionConfig, Subscribe,
    proto::{ReasonCode, packet::ConnAck},
};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::{
    Recorded, accept,
    common::{connector, endpoint, settle, subscribed},
    recorded,
};

/// What was traced.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A session's life with all that it has to say: messages both ways, a lost connection, refusals.
async fn live(recorded: &Recorded) {
    let reconnect = ReconnectConfig::default().with_jitter(Duration::ZERO);
    let config = SessionConfig::new("the-client-id")
        .with_user_name(Some("the-user".to_owned()))
        .with_password(Some(Secret::new("the-password").unwrap()))
        .with_outbox(OutboxConfig::default().with_max_messages(1_usize))
        .with_reconnect(Some(reconnect));
    let (connector, mut listener) = connector(config);
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), accept(&mut listener));
    let session = session.unwrap();
    let subscribe = Subscribe::new("the-topic/#").unwrap();
    let stream = subscribed(&session, &mut server, subscribe).await;
    for topic in ["the-topic/1", "the-topic-of-nobody"] {
        server
            .publish(topic, "the-payload", QoS::AtMostOnce, 0)
            .await;
    }
    let publish = || {
        let publish = Publish::new("the-topic/2", "the-payload").unwrap();
        publish.with_qos(QoS::AtLeastOnce)
    };
    let lost = session.admit(publish()).await.unwrap();
    settle().await;
    drop(server);
    lost.await.unwrap_err();

    let mut server = listener.accept().await;
    server.expect_connect().await;
    let refused = ConnAck::refused(ReasonCode::SERVER_BUSY);
    server
        .send(mqtt_client::proto::packet::Packet::ConnAck(refused))
        .await;
    drop(server);
    let mut server = accept(&mut listener).await;
    let id = server.expect_subscribe().await.packet_id;
    server.suback(id, vec![ReasonCode::NOT_AUTHORIZED]).await;
    let late = session.admit(publish()).await.unwrap();
    settle().await;
    session.disconnect().await.unwrap_err();
    late.await.unwrap_err();
    drop(stream);
    assert!(recorded.look().len() > 5);
}

#[test]
fn no_topic_payload_or_secret_is_traced_or_recorded() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let mut names = String::new();
    tracing::subscriber::with_default(subscriber, || {
        recorded(async |recorded| {
            live(&recorded).await;
            names = format!("{:?}", recorded.all().into_keys());
        });
    });
    let text = log.text();
    for hidden in ["the-topic", "the-payload", "the-password", "the-user"] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
        assert!(!names.contains(hidden), "{hidden} in {names}");
    }
    assert!(!names.contains("the-client-id"), "{names}");
    assert!(!names.contains("server.test"), "{names}");

    // Each attempt and each connection has its span, with what tells it from others.
    let of = |start: &str| text.lines().filter(|line| line.contains(start)).count();
    let fields = r"endpoint=mqtt://server.test:1883 client_id=the-client-id";
    for (span, new) in [
        (format!("connect{{{fields} attempt=0}}: mqtt_client"), 1),
        (format!("connect{{{fields} attempt=1}}: mqtt_client"), 1),
        (format!("connect{{{fields} attempt=2}}: mqtt_client"), 1),
        (format!("connection{{{fields} number=1}}: mqtt_client"), 1),
        (format!("connection{{{fields} number=2}}: mqtt_client"), 1),
    ] {
        let created = text
            .lines()
            .filter(|line| line.contains(&span) && line.ends_with("new"))
            .count();
        assert_eq!(created, new, "{span} in {text}");
        assert!(of(&span) > 1, "{span} in {text}");
    }
    let ended = format!("connection{{{fields} number=1}}: mqtt_client::life: connection ended");
    assert_eq!(of(&ended), 1, "{text}");
}

/// Whatever a session meets, it is one of these: a recorder's memory is bounded.
#[test]
fn the_series_are_known_from_the_beginning() {
    recorded(async |recorded| {
        let (connector, _listener) = connector(SessionConfig::new("the-client-id"));
        let begin: Vec<_> = recorded.all().into_keys().collect();
        assert_eq!(begin.len(), 22 + 11 + 10 + 4 + 2);
        drop(connector);
        live(&recorded).await;
        assert_eq!(recorded.all().into_keys().collect::<Vec<_>>(), begin);
    });
}
