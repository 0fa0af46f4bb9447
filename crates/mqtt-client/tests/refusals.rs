//! What is refused on this side: each for its own reason, and nothing is sent.
//!
//! What a server has announced not to take is in `capabilities.rs`, capability by capability.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes is wrong"
)]

mod common;

use std::time::Duration;

use common::{BOTH, config, open, publish, settle};
use mqtt_client::{
    Delivery, LostCause, OutboxConfig, Overflow, Publish, PublishError, QoS, Session,
    SessionConfig, Subscribe, SubscribeError, TopicFilter, TopicName, Version,
    proto::{
        TextError, TopicError, UsageError,
        packet::{PublishProperties, SubscriptionId},
    },
};
use mqtt_testkit::ScriptedServer;

/// These are refused before there is a request.
#[test]
fn a_topic_or_filter_that_is_none_says_what_is_wrong() {
    let long = "x".repeat(65_536);
    for (topic, expected) in [
        ("", TopicError::Empty),
        ("a/+", TopicError::Wildcard),
        ("a\0", TopicError::Text(TextError::Nul)),
    ] {
        assert_eq!(Publish::new(topic, "m").unwrap_err(), expected, "{topic:?}");
        assert_eq!(TopicName::new(topic).unwrap_err(), expected);
    }
    assert!(matches!(
        Publish::new(long.as_str(), "m"),
        Err(TopicError::Text(_))
    ));
    for (filter, expected) in [
        ("", TopicError::Empty),
        ("a/#/b", TopicError::MultiLevel),
        ("a+", TopicError::SingleLevel),
        ("$share/group", TopicError::Share),
        ("a\0", TopicError::Text(TextError::Nul)),
    ] {
        assert_eq!(Subscribe::new(filter).unwrap_err(), expected, "{filter:?}");
        assert_eq!(TopicFilter::new(filter).unwrap_err(), expected);
    }
    assert!(matches!(
        Subscribe::new(long.as_str()),
        Err(TopicError::Text(_))
    ));
}

fn identified() -> Publish {
    publish(QoS::AtMostOnce).with_properties(PublishProperties {
        subscription_identifiers: SubscriptionId::new(1).into_iter().collect(),
        ..PublishProperties::default()
    })
}

fn without_filter() -> Subscribe {
    let mut subscribe = Subscribe::new("a").unwrap();
    subscribe.filters.clear();
    subscribe
}

/// That nothing more comes than the goodbye.
async fn check_silent(session: Session, mut server: ScriptedServer) {
    settle().await;
    let leaves = tokio::spawn(async move { session.disconnect().await });
    server.expect_disconnect().await;
    leaves.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_allowed_says_why_and_is_not_sent() {
    for version in BOTH {
        let (session, server) = open(config(version)).await;
        let error = session.publish(identified()).await.unwrap_err();
        assert!(
            matches!(
                error,
                PublishError::Usage(UsageError::SubscriptionIdentifierInPublish)
            ),
            "{error:?}"
        );
        assert_eq!(error.delivery(), Delivery::NotSent);
        let error = session.subscribe(without_filter()).await.unwrap_err();
        assert!(
            matches!(error, SubscribeError::Usage(UsageError::NoFilter)),
            "{error:?}"
        );
        let mut no_local = Subscribe::new("$share/g/a").unwrap();
        no_local.filters[0].options.no_local = true;
        if version == Version::V5 {
            let error = session.subscribe(no_local).await.unwrap_err();
            assert!(
                matches!(error, SubscribeError::Usage(UsageError::NoLocalShared)),
                "{error:?}"
            );
        }
        assert_eq!((session.in_flight(), session.outbox().messages), (0, 0));
        check_silent(session, server).await;
    }
}

/// A session whose window is full, so that what is published next has to wait.
async fn full(config: SessionConfig) -> (Session, ScriptedServer, mqtt_client::Admitted) {
    let (session, mut server) = open(config.with_max_in_flight(1_u16)).await;
    let first = session.admit(publish(QoS::AtLeastOnce)).await.unwrap();
    server.expect_publish().await;
    (session, server, first)
}

#[tokio::test(start_paused = true)]
async fn what_cannot_wait_is_refused_as_full_and_what_waits_too_long_as_expired() {
    for version in BOTH {
        let none = OutboxConfig::default()
            .with_max_messages(0_usize)
            .with_overflow(Overflow::Reject);
        let (session, mut server, _first) = full(config(version).with_outbox(none)).await;
        let error = session
            .publish(publish(QoS::AtLeastOnce))
            .await
            .unwrap_err();
        assert!(matches!(error, PublishError::Full), "{error:?}");
        assert!(error.is_transient());
        assert_eq!(error.delivery(), Delivery::NotSent);
        server.expect_silence(Duration::from_secs(10)).await;

        let (session, mut server, _first) = full(config(version)).await;
        let short = publish(QoS::AtLeastOnce).with_max_age(Duration::from_secs(1));
        let error = session.publish(short).await.unwrap_err();
        assert!(matches!(error, PublishError::Expired), "{error:?}");
        assert_eq!(error.delivery(), Delivery::NotSent);
        server.expect_silence(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_left_or_lost_its_connection_sends_nothing() {
    for version in BOTH {
        for leaves in [true, false] {
            let (session, mut server) = open(config(version)).await;
            if leaves {
                let (left, _) = tokio::join!(session.disconnect(), server.expect_disconnect());
                left.unwrap();
            } else {
                drop(server);
                session.closed().await;
            }
            let check = |cause: &LostCause| match cause {
                LostCause::Closed => leaves,
                LostCause::ClosedByServer => !leaves,
                _ => false,
            };
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let error = session.publish(publish(qos)).await.unwrap_err();
                assert_eq!(error.delivery(), Delivery::NotSent);
                assert!(
                    matches!(&error, PublishError::NotSent(lost) if check(&lost.cause)),
                    "{error:?}"
                );
            }
            let error = session
                .subscribe(Subscribe::new("a").unwrap())
                .await
                .unwrap_err();
            assert!(
                matches!(&error, SubscribeError::NotSent(lost) if check(&lost.cause)),
                "{error:?}"
            );
        }
    }
}
