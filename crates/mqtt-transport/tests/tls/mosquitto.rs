//! A real MQTT server over TLS.

use std::time::Duration;

use mqtt_testkit::{Mosquitto, MosquittoTls, pki::Authority};
use mqtt_transport::{
    BoxConn, Conn,
    tls::{Backend, TlsVersion},
};

use tokio::time::Instant;

use crate::common::*;

async fn start(tls: MosquittoTls, test: &str) -> Option<Mosquitto> {
    Mosquitto::builder().tls(tls).start_or_skip(test).await
}

#[tokio::test]
async fn sessions_one_way_and_mutual() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    for mutual in [false, true] {
        let mut options = MosquittoTls::new(identity.chain_pem(), identity.key_pem());
        let mut material = trusting(&root);
        if mutual {
            options = options.client_authority(root.certificate_pem());
            material = showing(material, &root.client("gateway").issue());
        }
        let Some(server) = start(options, "tls_sessions").await else {
            return;
        };
        for backend in BACKENDS {
            for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
                let config = config(backend)
                    .with_min_version(version)
                    .with_max_version(version);
                let tls = tls_with(config, material.clone()).await.unwrap();
                for connection in 0..3 {
                    let conn = connect(&tls, &server.tls_url()).await.unwrap();
                    let resumed = conn.info().tls.as_ref().unwrap().resumed;
                    let expected = (backend == Backend::Rustls).then_some(connection > 0);
                    assert_eq!(resumed, expected, "{version}, {connection}");
                    let mut conn: BoxConn = Box::new(conn);
                    connack(&mut conn).await.unwrap();
                }
            }
            if mutual {
                // It closes with our CONNECT unread, and a reset may take its words along.
                let tls = tls(backend, trusting(&root)).await;
                let mut told = false;
                for _ in 0..50 {
                    let conn = connect(&tls, &server.tls_url()).await.unwrap();
                    let mut conn: BoxConn = Box::new(conn);
                    let error = connack(&mut conn).await.unwrap_err();
                    told = error.kind() == std::io::ErrorKind::PermissionDenied;
                    if told {
                        break;
                    }
                }
                assert!(told, "{backend}");
            }
        }
    }
}

/// How long Linux puts an acknowledgement off, at least.
#[cfg(target_os = "linux")]
const DELAYED_ACKNOWLEDGEMENT: Duration = Duration::from_millis(40);

/// Mosquitto leaves Nagle's algorithm on, so that under TLS 1.3 CONNACK waits behind the session
/// tickets until those are acknowledged. At most nine connections for one without the wait, for a
/// machine that is busy with other things.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connack_does_not_wait_for_a_delayed_acknowledgement() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    let options = MosquittoTls::new(identity.chain_pem(), identity.key_pem());
    let Some(server) = start(options, "connack_without_delay").await else {
        return;
    };
    for backend in BACKENDS {
        let tls = tls(backend, trusting(&root)).await;
        let mut times = Vec::new();
        while times.len() < 9 && times.iter().all(|time| *time >= DELAYED_ACKNOWLEDGEMENT) {
            let begun = Instant::now();
            let mut conn: BoxConn = Box::new(connect(&tls, &server.tls_url()).await.unwrap());
            connack(&mut conn).await.unwrap();
            times.push(begun.elapsed());
        }
        assert!(
            times.iter().any(|time| *time < DELAYED_ACKNOWLEDGEMENT),
            "{backend}: {times:?}"
        );
    }
}
