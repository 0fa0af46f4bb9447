//! What a program sees that works on, of a link or a reader that does not.

use mqtt_client::{QoS, SessionState, Subscribe, Version, proto::packet::Packet};

use crate::{
    SECOND,
    common::{accept, now, publish, report, settle, subscribed},
    config, open,
};

/// Nothing comes and nothing breaks: what is in flight can be seen at once, and the state says what is
/// wrong within one and a half times the keep-alive.
#[tokio::test(start_paused = true)]
async fn a_link_that_stalls_is_seen_in_the_state() {
    let config = config(Version::V5).with_keep_alive(SECOND * 10);
    let (session, _stalled, mut listener) = open(config).await;
    let mut state = session.watch_state();
    state.borrow_and_update();
    let mut publishing = Box::pin(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut publishing).await.is_none());
    assert_eq!(session.in_flight(), 1);
    let begin = tokio::time::Instant::now();
    state.changed().await.unwrap();
    assert!(begin.elapsed() <= SECOND * 15, "{:?}", begin.elapsed());
    let seen = state.borrow_and_update().clone();
    let SessionState::Waiting { attempt, cause, .. } = seen else {
        panic!("{seen:?}");
    };
    assert_eq!(attempt, 1);
    assert!(report(&*cause).contains("nothing"), "{}", report(&*cause));
    let mut server = accept(&mut listener, true).await;
    let id = server.expect_publish().await.packet_id.unwrap();
    server.puback(id).await;
    publishing.await.unwrap();
    assert!(matches!(
        session.state(),
        SessionState::Connected { resumed: true, .. }
    ));
}

/// What a stream does not read at QoS 1 holds back acknowledgements, whose order is the protocol's, and
/// with them the server's window. Until that is full nobody else waits; keep-alive, publishes and QoS 0
/// never do.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_at_qos_1_delays_acknowledgements_alone() {
    let config = config(Version::V5)
        .with_keep_alive(SECOND * 10)
        .with_receive_maximum(Some(10));
    let (session, mut server, _listener) = open(config).await;
    let mut stopped = subscribed(&session, &mut server, Subscribe::new("stopped").unwrap()).await;
    let mut reads = subscribed(&session, &mut server, Subscribe::new("reads").unwrap()).await;
    for id in 1..=5 {
        server.publish("stopped", "", QoS::AtLeastOnce, id).await;
        server.publish("reads", "", QoS::AtLeastOnce, id + 5).await;
    }
    for _ in 0..5 {
        reads.recv().await.unwrap();
    }
    // The window is full: what still comes is QoS 0, of which the other stream has all.
    for _ in 0..100 {
        server.publish("reads", "", QoS::AtMostOnce, 0).await;
        reads.recv().await.unwrap();
    }
    let (outcome, ()) = tokio::join!(session.publish(publish(QoS::AtLeastOnce)), async {
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
    });
    outcome.unwrap();
    for _ in 0..10 {
        assert_eq!(server.recv().await, Packet::PingReq);
        server.send(Packet::PingResp).await;
    }
    for _ in 0..5 {
        stopped.recv().await.unwrap();
    }
    settle().await;
    for id in 1..=5 {
        server.expect_puback(id).await;
        server.expect_puback(id + 5).await;
    }
}
