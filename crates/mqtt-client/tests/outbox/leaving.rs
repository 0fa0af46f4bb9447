//! Leaving with messages that are not sent.

use std::pin::pin;

use mqtt_client::{Overflow, PublishError};
use tokio::time::{Instant, sleep};

use crate::{
    SECOND, accept,
    common::{now, settle},
    full, kept, named, open_reconnecting, outbox, reconnecting,
};

#[tokio::test(start_paused = true)]
async fn draining_sends_what_was_taken_and_takes_no_more() {
    let (session, mut server, id) = full(outbox(2, Overflow::Wait)).await;
    let mut outcomes = Vec::new();
    for payload in ["a", "b"] {
        outcomes.push(session.admit(named("t", payload)).await.unwrap());
    }
    let mut waiting = pin!(session.publish(named("t", "waiting")));
    assert!(now(&mut waiting).await.is_none());
    let (drained, ()) = tokio::join!(session.drain(SECOND * 10), async {
        server.puback(id).await;
        for payload in ["a", "b"] {
            let sent = server.expect_publish().await;
            assert_eq!(sent.message.payload, payload);
            server.puback(sent.packet_id.unwrap()).await;
        }
        server.expect_disconnect().await;
    });
    drained.unwrap();
    assert!(matches!(waiting.await, Err(PublishError::NotSent(_))));
    for outcome in outcomes {
        outcome.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn draining_ends_in_time_and_reports_what_did_not_make_it() {
    let (session, mut server, _) = full(outbox(2, Overflow::Wait)).await;
    let queued = session.admit(named("t", "queued")).await.unwrap();
    let began = Instant::now();
    let (left, _) = tokio::join!(session.drain(SECOND * 10), server.expect_disconnect());
    assert_eq!(began.elapsed().as_secs(), 10);
    let left = left.unwrap_err();
    assert_eq!(left.in_flight, 1);
    let payloads = |messages: &[mqtt_client::Message]| -> Vec<_> {
        messages
            .iter()
            .map(|message| message.payload.clone())
            .collect()
    };
    assert_eq!(payloads(&left.unacknowledged), ["first"]);
    assert_eq!(payloads(&left.unsent), ["queued"]);
    let report = left.to_string();
    assert_eq!(
        report,
        "1 publishes were not acknowledged within 10s, and 1 not sent"
    );
    assert!(matches!(queued.await, Err(PublishError::NotSent(_))));
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_a_connection_if_there_is_something_to_send() {
    let (session, server, mut listener) =
        open_reconnecting(reconnecting(outbox(8, Overflow::Wait))).await;
    drop(server);
    settle().await;
    let queued = session.admit(named("t", "a")).await.unwrap();
    let (drained, ()) = tokio::join!(session.drain(SECOND * 10), async {
        let mut server = accept(&mut listener, false).await;
        let sent = server.expect_publish().await;
        server.puback(sent.packet_id.unwrap()).await;
        server.expect_disconnect().await;
    });
    drained.unwrap();
    queued.await.unwrap();

    // With nothing to send it does not.
    let (session, server, _listener) =
        open_reconnecting(reconnecting(outbox(8, Overflow::Wait))).await;
    drop(server);
    settle().await;
    let began = Instant::now();
    session.drain(SECOND * 10).await.unwrap();
    assert!(began.elapsed() < SECOND / 10);
}

/// The last handle goes, and its session with it, but not before the usual time.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_dropped_sends_what_it_has_taken() {
    let (session, mut server, id) = full(outbox(8, Overflow::Wait)).await;
    drop(session.admit(named("t", "a")).await.unwrap());
    drop(session);
    sleep(SECOND / 10).await;
    server.puback(id).await;
    let sent = server.expect_publish().await;
    assert_eq!(sent.message.payload, "a");
    server.puback(sent.packet_id.unwrap()).await;
    server.expect_disconnect().await;
}

/// What it waited for is lost: nothing is left to wait for.
#[tokio::test(start_paused = true)]
async fn draining_ends_when_the_server_has_lost_what_was_in_flight() {
    let (session, mut server, mut listener) =
        open_reconnecting(kept(outbox(8, Overflow::Wait))).await;
    let outcome = session.admit(named("t", "a")).await.unwrap();
    server.expect_publish().await;
    drop(server);
    settle().await;
    let began = Instant::now();
    let (drained, _server) = tokio::join!(session.drain(SECOND * 100), async {
        let mut server = accept(&mut listener, false).await;
        server.expect_disconnect().await;
        server
    });
    drained.unwrap();
    assert!(began.elapsed() < SECOND * 10);
    assert!(matches!(outcome.await, Err(PublishError::Lost(_))));
}

/// The last handle may go in a runtime that is not its session's, and that ends before the session
/// has left.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_dropped_in_a_runtime_that_ends_leaves_all_the_same() {
    let (session, mut server, _) = full(outbox(8, Overflow::Wait)).await;
    let elsewhere = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        runtime.block_on(async { drop(session) });
    });
    elsewhere.join().unwrap();
    server.expect_disconnect().await;
}
