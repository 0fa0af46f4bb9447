//! Each publish has its own outcome, whatever the order of acknowledgements and however many connections.

use std::pin::Pin;

use mqtt_client::{
    Publish, PublishError, Published, QoS, ReasonCode, Session, Version,
    proto::packet::{Ack, Packet, Publish as Sent},
};
use mqtt_testkit::ScriptedServer;

use crate::{
    SECOND,
    common::{accept, now, settle},
    config, open,
};

const WINDOW: usize = 8;

type Publishing = Pin<Box<dyn Future<Output = Result<Published, PublishError>>>>;

/// Fills the window with messages that have their number for payload.
async fn fill(session: &Session) -> Vec<Publishing> {
    let mut publishing = Vec::new();
    for number in 0..WINDOW {
        let publish = Publish::new("a", number.to_string()).unwrap();
        let (session, publish) = (session.clone(), publish.with_qos(QoS::AtLeastOnce));
        let mut one: Publishing = Box::pin(async move { session.publish(publish).await });
        assert!(now(&mut one).await.is_none());
        publishing.push(one);
    }
    publishing
}

async fn receive(server: &mut ScriptedServer) -> Vec<Sent> {
    let mut sent = Vec::new();
    for number in 0..WINDOW {
        sent.push(server.expect_publish().await);
        assert_eq!(sent[number].message.payload, number.to_string());
    }
    sent
}

/// In 5.0 the code tells them apart: nobody subscribes to those with odd numbers.
fn code(number: usize) -> ReasonCode {
    match number % 2 {
        0 => ReasonCode::SUCCESS,
        _ => ReasonCode::NO_MATCHING_SUBSCRIBERS,
    }
}

async fn acknowledge(server: &mut ScriptedServer, sent: &[Sent], number: usize) {
    let mut ack = Ack::new(sent[number].packet_id.unwrap());
    ack.reason_code = code(number);
    server.send(Packet::PubAck(ack)).await;
    settle().await;
}

async fn check(outcome: &mut Publishing, number: usize) {
    let outcome = now(outcome).await.expect("an outcome").unwrap();
    let Published::Acknowledged { reason_code, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(reason_code, code(number));
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_out_of_order_end_each_its_own_publish() {
    let config = config(Version::V5).with_max_in_flight(u16::try_from(WINDOW).unwrap());
    let (session, mut server, mut listener) = open(config).await;
    for order in [[7, 6, 5, 4, 3, 2, 1, 0], [3, 0, 7, 4, 1, 6, 2, 5]] {
        let mut outcomes = fill(&session).await;
        let sent = receive(&mut server).await;
        for number in order {
            acknowledge(&mut server, &sent, number).await;
            check(&mut outcomes[number], number).await;
        }
        assert_eq!(session.in_flight(), 0);
    }
    // Some are acknowledged, not the first ones, and the server loses the session.
    let mut outcomes = fill(&session).await;
    let sent = receive(&mut server).await;
    for number in [7, 3] {
        acknowledge(&mut server, &sent, number).await;
        check(&mut outcomes[number], number).await;
    }
    drop(server);
    let mut server = accept(&mut listener, false).await;
    settle().await;
    for number in [0, 1, 2, 4, 5, 6] {
        let outcome = now(&mut outcomes[number]).await.expect("an outcome");
        assert!(matches!(outcome, Err(PublishError::Lost(_))), "{outcome:?}");
    }
    // All of the window is there again.
    let mut outcomes = fill(&session).await;
    let sent = receive(&mut server).await;
    for number in (0..WINDOW).rev() {
        acknowledge(&mut server, &sent, number).await;
        check(&mut outcomes[number], number).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_published_while_others_are_sent_again_has_its_own_outcome() {
    let config = config(Version::V5).with_max_in_flight(u16::try_from(WINDOW).unwrap());
    let (session, mut server, mut listener) = open(config).await;
    let mut earlier = fill(&session).await;
    receive(&mut server).await;
    drop(server);
    settle().await;
    let mut between = fill(&session).await;
    let mut server = accept(&mut listener, true).await;
    let mut later = fill(&session).await;
    let again = receive(&mut server).await;
    assert!(again.iter().all(|sent| sent.dup));
    server.expect_silence(SECOND).await;
    for (number, outcome) in earlier.iter_mut().enumerate() {
        acknowledge(&mut server, &again, number).await;
        check(outcome, number).await;
    }
    for outcomes in [&mut between, &mut later] {
        let sent = receive(&mut server).await;
        assert!(sent.iter().all(|sent| !sent.dup));
        for (number, outcome) in outcomes.iter_mut().enumerate() {
            acknowledge(&mut server, &sent, number).await;
            check(outcome, number).await;
        }
    }
}
