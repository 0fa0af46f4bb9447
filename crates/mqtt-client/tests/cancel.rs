//! Every public future, dropped after each of its polls: nothing leaks, and the session goes on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{
    BOTH, check_clean, config, connector, drop_after, endpoint, no_outbox, open, publish, settle,
};
use mqtt_client::{PublishError, QoS, Session, Subscribe, Version};
use tower::{Service, ServiceExt};

/// More polls than any of the futures here takes.
const POLLS: usize = 6;

/// That a session has nothing in flight and all of its window free, and still works.
async fn check_healthy(session: &Session, window: usize) {
    tokio::time::sleep(Duration::from_millis(20)).await;
    check_clean(session);
    let outcomes: Vec<_> = (0..window)
        .map(|_| {
            let publisher = session.publisher();
            tokio::spawn(async move { publisher.publish(publish(QoS::AtLeastOnce)).await })
        })
        .collect();
    for outcome in outcomes {
        outcome.await.unwrap().unwrap();
    }
    check_clean(session);
    assert!(!session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn publishing() {
    const WINDOW: u16 = 2;
    for version in BOTH {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for waiting_before in 0..4 {
                for polls in 0..POLLS {
                    let (session, mut server) =
                        open(config(version).with_max_in_flight(WINDOW)).await;
                    let publisher = session.publisher();
                    // Fill the window, and make a line before it.
                    let others: Vec<_> = (0..waiting_before)
                        .map(|_| {
                            let publisher = session.publisher();
                            tokio::spawn(async move {
                                publisher.publish(publish(QoS::AtLeastOnce)).await
                            })
                        })
                        .collect();
                    settle().await;
                    // The server answers only after some of the polls.
                    let serves = tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(3)).await;
                        server.serve().await.len()
                    });
                    let dropped = drop_after(polls, publisher.publish(publish(qos))).await;
                    for other in others {
                        other.await.unwrap().unwrap();
                    }
                    check_healthy(&session, WINDOW.into()).await;
                    drop((session, publisher));
                    // Withdrawn or completed, and never half of it.
                    let published = serves.await.unwrap() - waiting_before - usize::from(WINDOW);
                    assert!(published <= 1);
                    if !dropped {
                        assert_eq!(published, 1, "{qos:?} {polls}");
                    }
                }
            }
        }
    }
}

/// Until it is taken and then for its outcome, and as a service: until it is ready and then to the end.
#[tokio::test(start_paused = true)]
async fn admitting_and_calling() {
    for version in BOTH {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for (waiting_before, as_service) in [(0, false), (2, false), (0, true), (2, true)] {
                for polls in 0..POLLS {
                    let narrow = config(version)
                        .with_max_in_flight(1_u16)
                        .with_outbox(no_outbox());
                    let (session, mut server) = open(narrow).await;
                    let others: Vec<_> = (0..waiting_before)
                        .map(|_| {
                            let publisher = session.publisher();
                            tokio::spawn(async move {
                                publisher.publish(publish(QoS::AtLeastOnce)).await
                            })
                        })
                        .collect();
                    settle().await;
                    let serves = tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        server.serve().await.len()
                    });
                    let mut publisher = session.publisher();
                    let dropped = drop_after(polls, async {
                        if as_service {
                            let publisher = publisher.ready().await.unwrap();
                            publisher.call(publish(qos)).await.unwrap();
                        } else {
                            let admitted = publisher.admit(publish(qos)).await.unwrap();
                            admitted.await.unwrap();
                        }
                    })
                    .await;
                    for other in others {
                        other.await.unwrap().unwrap();
                    }
                    check_healthy(&session, 1).await;
                    drop((session, publisher));
                    let published = serves.await.unwrap() - waiting_before - 1;
                    assert!(published <= 1);
                    if !dropped {
                        assert_eq!(published, 1, "{qos:?} {polls}");
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn subscribing_receiving_and_unsubscribing() {
    for version in BOTH {
        for polls in 0..POLLS {
            let (session, mut server) = open(config(version)).await;
            let serves = tokio::spawn(async move { server.serve().await });
            drop_after(polls, session.subscribe(Subscribe::new("a").unwrap())).await;
            check_healthy(&session, 1).await;

            let mut messages = session
                .subscribe(Subscribe::new("a").unwrap())
                .await
                .unwrap();
            drop_after(polls, messages.recv()).await;
            drop_after(polls, messages.unsubscribe()).await;
            check_healthy(&session, 1).await;
            drop(session);
            serves.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_taken_only_when_it_is_returned() {
    for polls in 0..3 {
        let (session, mut server) = open(config(Version::V5)).await;
        let (messages, _) = tokio::join!(
            session.subscribe(Subscribe::new("a").unwrap()),
            server.grant()
        );
        let mut messages = messages.unwrap();
        // Dropped while it waits, also after it was woken.
        drop_after(polls, messages.recv()).await;
        server.publish("a", "x", QoS::AtLeastOnce, 1).await;
        settle().await;
        assert_eq!(messages.recv().await.unwrap().payload, "x");
        server.expect_puback(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn receiving_by_hand_and_watching() {
    for version in BOTH {
        for polls in 0..POLLS {
            let (session, mut server) = open(config(version)).await;
            let request = Subscribe::new("a").unwrap();
            let (messages, _) = tokio::join!(session.subscribe(request), server.grant());
            let mut messages = messages.unwrap().into_manual();
            let mut states = session.watch_state();
            drop_after(polls, messages.recv()).await;
            drop_after(polls, states.changed()).await;
            drop_after(polls, session.closed()).await;
            for id in 1..=3 {
                server.publish("a", "x", QoS::AtLeastOnce, id).await;
            }
            settle().await;
            // One that had it within reach gives it to nobody else.
            drop_after(polls, async {
                if polls > 0 {
                    std::future::pending::<()>().await;
                }
                messages.recv().await.unwrap().accept();
            })
            .await;
            for id in 1..=3 {
                assert_eq!(messages.recv().await.unwrap().accept().payload, "x");
                server.expect_puback(id).await;
            }
            let serves = tokio::spawn(async move { server.serve().await });
            drop_after(polls, messages.unsubscribe()).await;
            check_healthy(&session, 1).await;
            drop(session);
            serves.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connecting() {
    for version in BOTH {
        for polls in 0..POLLS {
            let (connector, mut listener) = connector(config(version));
            let serves = tokio::spawn(async move {
                let mut server = listener.accept().await;
                // Whatever was opened is closed again.
                match server.next().await {
                    None => {}
                    Some(_) => {
                        server.send_bytes(&[0x20, 0x02, 0x00]).await;
                        server.next().await;
                    }
                }
                listener
            });
            let dropped = drop_after(polls, connector.connect(endpoint())).await;
            if polls == 0 {
                serves.abort();
            } else {
                assert!(dropped);
                serves.await.unwrap();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn leaving() {
    for polls in 0..POLLS {
        let (session, mut server) = open(config(Version::V5)).await;
        let serves = tokio::spawn(async move { server.serve().await });
        drop_after(polls, session.disconnect()).await;
        drop_after(polls, session.closed()).await;
        drop(session);
        // The server sees the end of it in any case.
        serves.await.unwrap();
    }
}

/// Something is in flight, for which it waits.
#[tokio::test(start_paused = true)]
async fn draining() {
    for version in BOTH {
        for polls in 0..POLLS {
            let (session, mut server) = open(config(version)).await;
            let admitted = session.admit(publish(QoS::AtLeastOnce)).await.unwrap();
            let serves = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                server.serve().await.len()
            });
            drop_after(polls, session.drain(Duration::from_secs(9))).await;
            admitted.await.unwrap();
            if polls > 0 {
                let error = session
                    .publish(publish(QoS::AtLeastOnce))
                    .await
                    .unwrap_err();
                assert!(matches!(error, PublishError::NotSent(_)), "{error:?}");
            }
            check_clean(&session);
            drop(session);
            assert_eq!(serves.await.unwrap(), 1);
        }
    }
}
