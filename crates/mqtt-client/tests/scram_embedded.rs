//! SCRAM-SHA-256 with a server that others wrote.
#![cfg(feature = "scram")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mqtt_client::{
    ConnectCause, Endpoint, Publish, QoS, ReasonCode, Scram, SessionConfig, SessionConnector,
};
use mqtt_testkit::EmbeddedServer;

#[tokio::test]
async fn a_server_of_others_agrees() {
    let server = EmbeddedServer::start_with_scram("gateway", "correct horse")
        .await
        .unwrap();
    let endpoint: Endpoint = server.url().parse().unwrap();
    let connector = |password: &str| {
        let scram = Scram::new("gateway", password).unwrap();
        SessionConnector::new(SessionConfig::new("gateway-1"))
            .unwrap()
            .with_authenticator(move |_| scram.authenticator())
            .unwrap()
    };
    let refused = connector("wrong horse").connect(endpoint.clone()).await;
    let ConnectCause::Refused(connack) = refused.unwrap_err().cause else {
        panic!("a refusal is a CONNACK");
    };
    assert_eq!(connack.reason_code, ReasonCode::NOT_AUTHORIZED);

    let session = connector("correct horse").connect(endpoint).await.unwrap();
    session.reauthenticate().await.unwrap();
    let publish = Publish::new("a/b", "payload").unwrap();
    session
        .publish(publish.with_qos(QoS::AtLeastOnce))
        .await
        .unwrap();
    session.disconnect().await.unwrap();
    server.stop().await.unwrap();
}
