//! Messages that may not wait for ever.

use std::{pin::pin, time::Duration};

use mqtt_client::{
    Delivery, OutboxConfig, Overflow, Publish, PublishError, QoS, proto::packet::PublishProperties,
};
use tokio::time::{Instant, sleep};

use crate::{SECOND, common::now, drained, full, named, outbox};

fn expiring(seconds: u32) -> Publish {
    named("t", "expires").with_properties(PublishProperties {
        message_expiry_interval: Some(seconds),
        ..PublishProperties::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waited_for_too_long_is_not_sent_and_its_caller_is_told_in_time() {
    let limited = OutboxConfig::default().with_max_age(SECOND * 5);
    for (config, publish) in [
        (OutboxConfig::default(), expiring(5)),
        (
            OutboxConfig::default(),
            named("t", "x").with_max_age(SECOND * 5),
        ),
        (limited.clone(), named("t", "x")),
        // The shortest counts.
        (limited, expiring(3_600)),
    ] {
        let (session, mut server, id) = full(config).await;
        let began = Instant::now();
        let error = session.publish(publish.clone()).await.unwrap_err();
        assert!(matches!(error, PublishError::Expired), "{error:?}");
        assert_eq!(error.delivery(), Delivery::NotSent);
        assert_eq!(began.elapsed().as_secs(), 5);
        assert_eq!(session.outbox().expired, 1);
        assert_eq!(session.outbox().messages, 0);

        // Nobody looks at this one: it is found when it would be sent.
        drop(session.admit(publish).await.unwrap());
        sleep(SECOND * 6).await;
        assert_eq!(drained(&mut server, id).await, [""; 0]);
        assert_eq!(session.outbox().expired, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_expires_while_it_waits_to_be_taken() {
    let (session, mut server, id) = full(outbox(0, Overflow::Wait)).await;
    let error = session.publish(expiring(5)).await.unwrap_err();
    assert!(matches!(error, PublishError::Expired), "{error:?}");
    assert_eq!(session.outbox().waiting, 0);
    assert_eq!(session.outbox().expired, 1);
    assert_eq!(drained(&mut server, id).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_time_it_has_waited_is_taken_off_its_expiry() {
    for max_messages in [0, 8] {
        let (session, mut server, id) = full(outbox(max_messages, Overflow::Wait)).await;
        let mut waits = pin!(session.publish(expiring(60)));
        assert!(now(&mut waits).await.is_none());
        sleep(Duration::from_millis(20_500)).await;
        server.puback(id).await;
        let (outcome, ()) = tokio::join!(waits, async {
            let sent = server.expect_publish().await;
            let properties = &sent.message.properties;
            assert_eq!(properties.message_expiry_interval, Some(40));
            server.puback(sent.packet_id.unwrap()).await;
        });
        outcome.unwrap();
        // What does not wait is sent as it is.
        let (outcome, ()) = tokio::join!(session.publish(expiring(60)), async {
            let sent = server.expect_publish().await;
            let properties = &sent.message.properties;
            assert_eq!(properties.message_expiry_interval, Some(60));
            server.puback(sent.packet_id.unwrap()).await;
        });
        outcome.unwrap();
    }
}

/// They make room before anything else gives way.
#[tokio::test(start_paused = true)]
async fn what_has_expired_does_not_fill_the_outbox() {
    for overflow in [Overflow::Reject, Overflow::DropOldest, Overflow::DropNewest] {
        let (session, mut server, id) = full(outbox(2, overflow)).await;
        let stays = session.admit(named("t", "stays")).await.unwrap();
        drop(session.admit(expiring(1)).await.unwrap());
        sleep(SECOND * 2).await;
        let new = session.admit(named("t", "new")).await.unwrap();
        assert_eq!(session.outbox().expired, 1);
        assert_eq!(session.outbox().displaced, 0);
        assert_eq!(drained(&mut server, id).await, ["stays", "new"]);
        stays.await.unwrap();
        new.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_in_time_does_not_expire() {
    let (session, mut server, id) = full(OutboxConfig::default()).await;
    let mut publishing = pin!(session.publish(expiring(5).with_qos(QoS::AtLeastOnce)));
    assert!(now(&mut publishing).await.is_none());
    server.puback(id).await;
    let sent = server.expect_publish().await;
    // The acknowledgement takes longer than the message was good for.
    let (outcome, ()) = tokio::join!(publishing, async {
        sleep(SECOND * 20).await;
        server.puback(sent.packet_id.unwrap()).await;
    });
    outcome.unwrap();
}
