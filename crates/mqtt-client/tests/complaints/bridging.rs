//! A bridge between two servers, which must not take from one what the other does not have.

use mqtt_client::{Publish, QoS, Subscribe, Version};

use crate::{
    SECOND,
    common::{BOTH, accept, settle, subscribed},
    config, open,
};

#[tokio::test(start_paused = true)]
async fn a_bridge_acknowledges_what_the_other_side_has() {
    for version in BOTH {
        let (from, mut upstream, _listener) = open(config(version)).await;
        let (to, mut downstream, mut listener) = open(config(Version::V5)).await;
        let subscribe = Subscribe::new("a/#").unwrap();
        let mut messages = subscribed(&from, &mut upstream, subscribe)
            .await
            .into_manual();
        let bridge = tokio::spawn(async move {
            while let Some(received) = messages.recv().await {
                let message = received.message;
                let publish = Publish::new(message.topic, message.payload).unwrap();
                // Not taken there, it comes again here.
                if to.publish(publish.with_qos(QoS::AtLeastOnce)).await.is_ok() {
                    let _ = received.ack.accept();
                }
            }
        });
        upstream.publish("a/b", "one", QoS::AtLeastOnce, 1).await;
        let sent = downstream.expect_publish().await;
        upstream.expect_silence(SECOND).await;
        // The other server does not answer, and goes away.
        drop(downstream);
        settle().await;
        upstream.expect_silence(SECOND / 2).await;
        let mut downstream = accept(&mut listener, true).await;
        let again = downstream.expect_publish().await;
        assert!(again.dup);
        assert_eq!(again.message.payload, sent.message.payload);
        upstream.expect_silence(SECOND).await;
        downstream.puback(again.packet_id.unwrap()).await;
        upstream.expect_puback(1).await;
        bridge.abort();
    }
}
