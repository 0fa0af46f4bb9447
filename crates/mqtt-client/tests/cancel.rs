//! Every public future, dropped after each of its polls: nothing leaks, and the session goes on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{pin::pin, task::Poll, time::Duration};

use common::{BOTH, config, connector, endpoint, open, publish, settle};
use mqtt_client::{QoS, Session, Subscribe, Version};

/// Polls a future so many times, letting everyone else run in between, and drops it.
///
/// Returns whether it was still pending.
async fn drop_after<F: Future>(polls: usize, future: F) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        let ready =
            std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if ready {
            return false;
        }
        settle().await;
    }
    true
}

/// More polls than any of the futures here takes.
const POLLS: usize = 6;

/// That a session has nothing in flight and all of its window free, and still works.
async fn check_healthy(session: &Session, window: usize) {
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(session.in_flight(), 0);
    let outcomes: Vec<_> = (0..window)
        .map(|_| {
            let publisher = session.publisher();
            tokio::spawn(async move { publisher.publish(publish(QoS::AtLeastOnce)).await })
        })
        .collect();
    for outcome in outcomes {
        outcome.await.unwrap().unwrap();
    }
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
