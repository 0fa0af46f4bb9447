//! A program that reads and publishes in one task, or in a handler, gets on.

use mqtt_client::{
    Message, Publish, QoS, Session, SessionConnector, Subscribe, Version,
    proto::packet::Packet,
    router::{Router, State},
};
use tokio::time::timeout;

use crate::{
    SECOND,
    common::{BOTH, accept, endpoint, no_outbox, publish, settle, subscribed},
    config, open,
};

const MESSAGES: u16 = 300;

/// Longer than the connection takes at once.
fn long(id: u16) -> String {
    format!("{id:0>100}")
}

/// With room for one publish, a connection that takes 64 bytes, and a server that reads nothing before
/// it has said everything: whatever can be full is.
#[tokio::test(start_paused = true)]
async fn a_task_that_reads_and_publishes_gets_on() {
    for version in BOTH {
        let (connector, mut listener) = mqtt_testkit::memory_with_capacity(64);
        let config = config(version)
            .with_max_in_flight(1_u16)
            .with_max_unsent_bytes(1_usize)
            .with_outbox(no_outbox())
            .with_reconnect(None);
        let connector = SessionConnector::with_connector(connector, config).unwrap();
        let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
            let mut server = listener.accept().await;
            server.accept().await;
            server
        });
        let session = session.unwrap();
        let mut messages = subscribed(&session, &mut server, Subscribe::new("in").unwrap()).await;
        let server = tokio::spawn(async move {
            for id in 1..=MESSAGES {
                server.publish("in", long(id), QoS::AtLeastOnce, id).await;
            }
            server.serve().await
        });
        for _ in 0..MESSAGES {
            let message = messages.recv().await.unwrap();
            let publish = Publish::new("out", message.payload).unwrap();
            session
                .publish(publish.with_qos(QoS::AtLeastOnce))
                .await
                .unwrap();
        }
        session.disconnect().await.unwrap();
        let published = server.await.unwrap();
        let published = published.into_iter().map(|message| message.payload);
        assert!(published.eq((1..=MESSAGES).map(long)));
    }
}

/// However few handlers run at a time, and with room for one publish.
#[tokio::test(start_paused = true)]
async fn a_handler_may_publish_and_wait_for_the_outcome() {
    async fn answer(State(session): State<Session>, message: Message) {
        let publish = Publish::new("out", message.payload).unwrap();
        session
            .publish(publish.with_qos(QoS::AtLeastOnce))
            .await
            .unwrap();
    }
    for max_in_hand in [1, 4] {
        let config = config(Version::V5)
            .with_max_in_flight(1_u16)
            .with_outbox(no_outbox());
        let (session, mut server, _listener) = open(config).await;
        let routes = Router::with_state(session.clone())
            .route("in/{n}", answer)
            .with_max_in_hand(max_in_hand)
            .build()
            .unwrap();
        let serving = session.clone();
        let serving = tokio::spawn(async move { routes.serve(&serving).await.map(drop) });
        server.grant().await;
        for id in 1..=50 {
            let topic = format!("in/{id}");
            server.publish(&topic, "", QoS::AtLeastOnce, id).await;
        }
        let (mut published, mut acknowledged) = (0, 0);
        while published < 50 || acknowledged < 50 {
            match server.recv().await {
                Packet::Publish(sent) => {
                    server.puback(sent.packet_id.unwrap()).await;
                    published += 1;
                }
                Packet::PubAck(_) => acknowledged += 1,
                packet => panic!("{packet:?}"),
            }
        }
        serving.abort();
    }
}

/// The deadline is the caller's, who then knows that nothing was sent and nothing will be.
#[tokio::test(start_paused = true)]
async fn a_publish_while_there_is_no_connection_ends_at_its_deadline() {
    for outbox in [no_outbox(), Default::default()] {
        let (session, server, mut listener) = open(config(Version::V5).with_outbox(outbox)).await;
        drop(server);
        settle().await;
        let publishing = session.publish(publish(QoS::AtLeastOnce));
        timeout(SECOND / 2, publishing).await.unwrap_err();
        assert_eq!(
            (session.outbox().messages, session.outbox().waiting),
            (0, 0)
        );
        let mut server = accept(&mut listener, true).await;
        server.expect_silence(SECOND * 5).await;
    }
}

/// What waits are publishes, not answers to what is read, so reading on makes nothing grow.
#[tokio::test(start_paused = true)]
async fn large_publishes_that_wait_for_the_server_do_not_stop_the_reading() {
    let (connector, mut listener) = mqtt_testkit::memory_with_capacity(64);
    let config = config(Version::V5).with_reconnect(None);
    let connector = SessionConnector::with_connector(connector, config).unwrap();
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.accept().await;
        server.accept().await;
        server
    });
    let session = session.unwrap();
    // One is being written, the other waits.
    for _ in 0..2 {
        let publish = Publish::new("out", vec![0; 1024 * 1024]).unwrap();
        session.publish(publish).await.unwrap();
        settle().await;
    }
    // The server reads nothing until it has said everything.
    for id in 1..=MESSAGES {
        let publish = server.publish("in", long(id), QoS::AtMostOnce, 0);
        timeout(SECOND, publish).await.expect("the client reads");
    }
    for _ in 0..2 {
        server.expect_publish().await;
    }
}
