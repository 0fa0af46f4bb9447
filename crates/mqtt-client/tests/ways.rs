//! Sessions over every way to a real server.

#![cfg(all(
    feature = "native-tls",
    feature = "quic",
    feature = "rustls-ring",
    feature = "websocket"
))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{error::Error, time::Duration};

use mqtt_client::{
    ConnectCause, Endpoint, Publish, QoS, SessionConfig, SessionConnector, Subscribe, Version,
    transport::{
        ConnectPhase, Connector, QuicOptions,
        tls::{Backend, IdentityMaterial, Tls, TlsConfig, TlsMaterial, Trust, material_from},
    },
};
use mqtt_testkit::{
    Mosquitto, MosquittoTls, QuicFront,
    pki::{Authority, Identity},
};

const BACKENDS: [Backend; 2] = [Backend::NativeTls, Backend::Rustls];
const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

async fn tls(backend: Backend, root: &Authority, identity: Option<&Identity>) -> Connector {
    let mut material = TlsMaterial::default().with_roots([root.certificate_pem().into_bytes()]);
    if let Some(identity) = identity {
        material = material.with_identity(IdentityMaterial::pem(
            identity.chain_pem(),
            identity.key_pem().into_bytes(),
        ));
    }
    let config = TlsConfig::default()
        .with_backend(backend)
        .with_trust(Trust::Own);
    let source = material_from("test", move || {
        let material = material.clone();
        async move { Ok(material) }
    });
    Connector::default().with_tls(Tls::with_source(config, source).await.unwrap())
}

/// Messages of every size and QoS go to the server and come back, in both versions.
async fn round_trip(connector: &Connector, url: &str) {
    for version in [Version::V3, Version::V5] {
        let config = SessionConfig::new("ways").with_version(version);
        let sessions = SessionConnector::with_transport(connector.clone(), config).unwrap();
        let session = sessions.connect(url.parse().unwrap()).await.unwrap();
        let subscribe = Subscribe::new("ways/#").unwrap().with_qos(QoS::ExactlyOnce);
        let mut messages = session.subscribe(subscribe).await.unwrap();
        // Mosquitto's own WebSockets are slow: what is larger would take seconds.
        let largest = if url.starts_with("ws") {
            20_000
        } else {
            300_000
        };
        for qos in LEVELS {
            for len in [0, 1, 1_000, largest] {
                let publish = Publish::new("ways/a", vec![7; len]).unwrap().with_qos(qos);
                session.publish(publish).await.unwrap();
                let wait = tokio::time::timeout(Duration::from_secs(20), messages.recv());
                let message = wait.await.unwrap().unwrap();
                assert_eq!((message.payload.len(), message.qos), (len, qos), "{url}");
            }
        }
        session.disconnect().await.unwrap();
    }
}

#[tokio::test]
async fn plain_and_websocket() {
    let builder = Mosquitto::builder().websockets(true);
    let Some(server) = builder.start_or_skip("plain_and_websocket").await else {
        return;
    };
    let connector = Connector::default();
    for url in [server.tcp_url(), server.unix_url(), server.ws_url()] {
        round_trip(&connector, &url).await;
    }
}

#[tokio::test]
async fn tls_one_way_and_mutual() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    let client = root.client("gateway").issue();
    let options = MosquittoTls::new(identity.chain_pem(), identity.key_pem())
        .client_authority(root.certificate_pem());
    let builder = Mosquitto::builder().tls(options);
    let Some(server) = builder.start_or_skip("tls_mutual").await else {
        return;
    };
    for backend in BACKENDS {
        let connector = tls(backend, &root, Some(&client)).await;
        round_trip(&connector, &server.tls_url()).await;

        // What cannot be mended by trying again says so, in each of its forms.
        let nobody = tls(backend, &root, None).await;
        let stranger = tls(backend, &Authority::new("stranger"), None).await;
        for (connector, words) in [(nobody, "refused our certificate"), (stranger, "tls.roots")] {
            let config = SessionConfig::new("ways");
            let sessions = SessionConnector::with_transport(connector, config).unwrap();
            let endpoint: Endpoint = server.tls_url().parse().unwrap();
            // A server that closes with our CONNECT unread resets, and its words may be lost.
            let mut error = sessions.connect(endpoint.clone()).await.unwrap_err();
            for _ in 0..50 {
                if !error.is_transient() {
                    break;
                }
                error = sessions.connect(endpoint.clone()).await.unwrap_err();
            }
            assert!(!error.is_transient(), "{backend}: {error:?}");
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            assert!(text.contains(&server.tls_url()), "{text}");
            assert!(text.contains(words), "{backend}: {text}");
        }
    }
}

#[tokio::test]
async fn websocket_over_tls() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    let options = MosquittoTls::new(identity.chain_pem(), identity.key_pem()).websockets();
    let builder = Mosquitto::builder().tls(options);
    let Some(server) = builder.start_or_skip("websocket_over_tls").await else {
        return;
    };
    for backend in BACKENDS {
        let connector = tls(backend, &root, None).await;
        round_trip(&connector, &server.wss_url()).await;
    }
}

#[tokio::test]
async fn quic() {
    let Some(server) = Mosquitto::start_or_skip("quic").await else {
        return;
    };
    let root = Authority::new("root");
    let identity = root.server(&["127.0.0.1"]).issue();
    let chain = vec![identity.certificate().der().to_vec().into()];
    let key = identity.key_der().try_into().unwrap();
    let front = QuicFront::start(server.addr(), chain, key).unwrap();
    let source = [std::net::Ipv4Addr::LOCALHOST.into()];
    let connector = tls(Backend::Rustls, &root, None)
        .await
        .with_quic(QuicOptions::default().with_source_addresses(source))
        .unwrap();
    round_trip(&connector, &front.url()).await;

    // Only one of the backends speaks it.
    let native = tls(Backend::NativeTls, &root, None).await;
    let config = SessionConfig::new("ways");
    let sessions = SessionConnector::with_transport(native, config).unwrap();
    let error = sessions.connect(front.url().parse().unwrap()).await;
    let error = error.unwrap_err();
    assert!(!error.is_transient());
    let ConnectCause::Dial(dial) = &error.cause else {
        panic!("{error:?}");
    };
    assert_eq!(dial.phase(), ConnectPhase::Tls);
}
