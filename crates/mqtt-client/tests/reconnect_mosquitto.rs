//! Sessions over links that are cut and servers that are killed, with mosquitto.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use mqtt_client::{
    Publish, PublishError, QoS, ReconnectConfig, Session, SessionConfig, SessionConnector,
    SessionState, Subscribe, pool::Limit,
};
use mqtt_testkit::Mosquitto;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(client_id: &str) -> SessionConfig {
    let reconnect = ReconnectConfig::default()
        .with_base(Duration::from_millis(10))
        .with_max(Duration::from_millis(20))
        .with_jitter(Duration::from_millis(10));
    SessionConfig::new(client_id)
        .with_session_expiry(Limit::After(Duration::from_secs(3_600)))
        .with_reconnect(Some(reconnect))
}

async fn open(client_id: &str, server: SocketAddr) -> Session {
    let connector = SessionConnector::new(config(client_id)).unwrap();
    let endpoint = format!("mqtt://{server}").parse().unwrap();
    connector.connect(endpoint).await.unwrap()
}

/// Stands before the server; what goes through it is cut when told.
async fn front(server: SocketAddr, cut: Arc<Notify>, links: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (cut, links) = (cut.clone(), links.clone());
            tokio::spawn(async move {
                let Ok(mut server) = TcpStream::connect(server).await else {
                    return;
                };
                links.fetch_add(1, SeqCst);
                tokio::select! {
                    () = cut.notified() => {}
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                }
            });
        }
    });
    addr
}

/// [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT5-4.4.0-1] [MQTT5-4.6.0-1]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_link_that_is_cut_again_and_again_every_message_arrives() {
    const TASKS: usize = 8;
    const MESSAGES: usize = 200;
    const CUTS: usize = 40;
    let Some(server) = Mosquitto::start_or_skip("reconnect over cuts").await else {
        return;
    };
    let (cut, links) = (Arc::new(Notify::new()), Arc::<AtomicUsize>::default());
    let front = front(server.addr(), cut.clone(), links.clone()).await;

    let reader = open("reader", server.addr()).await;
    let mut stream = reader
        .subscribe(Subscribe::new("t/#").unwrap())
        .await
        .unwrap();
    let reading = tokio::spawn(async move {
        let mut seen: HashMap<String, Vec<usize>> = HashMap::new();
        let mut distinct = 0;
        while distinct < TASKS * MESSAGES {
            let message = stream.recv().await;
            let message = message.unwrap_or_else(|| panic!("the reader is {:?}", reader.state()));
            let number: usize = String::from_utf8_lossy(&message.payload).parse().unwrap();
            let numbers = seen.entry(message.topic.to_string()).or_default();
            let again = numbers.contains(&number);
            assert!(!(again && number % 2 == 1), "QoS 2 arrives once: {number}");
            if !again {
                assert_eq!(numbers.len(), number, "first arrivals are in order");
                numbers.push(number);
                distinct += 1;
            }
        }
    });
    let writer = open("writer", front).await;

    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let publisher = writer.publisher();
        tasks.spawn(async move {
            for number in 0..MESSAGES {
                let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][number % 2];
                let publish = Publish::new(format!("t/{task}"), number.to_string())
                    .unwrap()
                    .with_qos(qos);
                let outcome = timeout(PATIENCE, publisher.publish(publish)).await;
                outcome.expect("the outcome is told").unwrap();
                sleep(Duration::from_millis(5)).await;
            }
        });
    }
    for _ in 0..CUTS {
        sleep(Duration::from_millis(25)).await;
        cut.notify_waiters();
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    assert!(links.load(SeqCst) > CUTS / 2, "{links:?} connections");
    assert!(matches!(writer.state(), SessionState::Connected { .. }));

    timeout(PATIENCE, reading)
        .await
        .expect("what was acknowledged arrives")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_comes_back_with_a_server_that_was_killed() {
    let Some(mut server) = Mosquitto::start_or_skip("reconnect to a killed server").await else {
        return;
    };
    let session = open("survivor", server.addr()).await;
    let subscribe = Subscribe::new("echo").unwrap();
    let mut stream = session.subscribe(subscribe).await.unwrap();
    let mut lost = 0;
    for round in 0..5 {
        server.kill();
        // It is told of once the session is lost for sure, and the one behind it goes through.
        let publish = |text: String| {
            Publish::new("echo", text)
                .unwrap()
                .with_qos(QoS::AtLeastOnce)
        };
        let early = tokio::spawn({
            let (session, message) = (session.clone(), publish(format!("early {round}")));
            async move { session.publish(message).await }
        });
        sleep(Duration::from_millis(100)).await;
        server.restart().await.unwrap();
        match timeout(PATIENCE, early).await.expect("it is told").unwrap() {
            Ok(_) => {}
            Err(PublishError::Lost(_)) => lost += 1,
            Err(error) => panic!("{error:?}"),
        }
        let late = publish(format!("late {round}"));
        timeout(PATIENCE, session.publish(late))
            .await
            .unwrap()
            .unwrap();
        // The subscription is there again; it may have come after the publish.
        let heard = async {
            loop {
                let message = timeout(Duration::from_millis(500), stream.recv()).await;
                match message {
                    Ok(message) if message.as_ref().unwrap().payload.starts_with(b"again") => break,
                    Ok(message) => assert!(message.is_some(), "{:?}", stream.refused()),
                    Err(_) => {
                        let again = publish(format!("again {round}"));
                        session.publish(again).await.unwrap();
                    }
                }
            }
        };
        timeout(PATIENCE, heard).await.expect("subscribed again");
    }
    assert!(lost <= 5);
    assert!(!session.is_closed());
    session.disconnect().await.unwrap();
}
