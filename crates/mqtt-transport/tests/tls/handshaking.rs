//! Handshakes that succeed, and what is known of them.

use mqtt_testkit::{
    ClientCertificate, OpensslServer,
    pki::{Authority, Identity},
};
use mqtt_transport::{
    Conn, ConnKind, TcpConnector,
    tls::{Backend, TlsConnector, TlsVersion},
};
use tower::ServiceExt;

use crate::common::*;

const VERSIONS: [(TlsVersion, mqtt_testkit::TlsVersion, &str); 2] = [
    (TlsVersion::V1_2, mqtt_testkit::TlsVersion::Tls12, "TLSv1.2"),
    (TlsVersion::V1_3, mqtt_testkit::TlsVersion::Tls13, "TLSv1.3"),
];

fn server(identity: &Identity) -> mqtt_testkit::OpensslServerBuilder {
    OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
}

#[tokio::test]
async fn one_way_and_mutual_in_both_versions() {
    let root = Authority::new("root");
    let server_identity = root.intermediate("issuing").server(&["localhost"]).issue();
    let client_identity = root.client("gateway").issue();
    for backend in BACKENDS {
        for (version, servers, name) in VERSIONS {
            for mutual in [false, true] {
                let mut builder = server(&server_identity).versions(servers, servers);
                let mut material = trusting(&root);
                if mutual {
                    builder = builder
                        .client_certificate(ClientCertificate::Required, &root.certificate_pem());
                    material = showing(material, &client_identity);
                }
                let server = builder.alpn(&["mqtt"]).start().unwrap();
                let config = config(backend).with_alpn(["mqtt".to_owned()]);
                let tls = tls_with(config, material).await.unwrap();
                let mut conn = connect(&tls, &server.url()).await.unwrap();
                echo(&mut conn).await.unwrap();

                let seen = &server.handshakes(1).await[0];
                assert_eq!((seen.error.as_ref(), seen.version), (None, name));
                assert_eq!(seen.server_name.as_deref(), Some("localhost"));
                assert_eq!(seen.alpn.as_deref(), Some(&b"mqtt"[..]));
                let shown = seen.client_common_name.as_deref();
                assert_eq!(shown, mutual.then_some("gateway"), "{backend} {name}");

                let info = conn.info();
                assert_eq!(info.kind, ConnKind::Tcp);
                let known = info.tls.as_ref().unwrap();
                assert_eq!((known.backend, known.generation), (backend, 1));
                assert_eq!(known.alpn.as_deref(), Some(&b"mqtt"[..]));
                let leaf = server_identity.certificate().der();
                assert_eq!(known.peer_certificates[0], leaf);
                match backend {
                    Backend::Rustls => {
                        assert_eq!(known.version, Some(version));
                        assert_eq!(known.cipher_suite, seen.cipher);
                        assert_eq!(known.resumed, Some(false));
                        assert_eq!(known.peer_certificates.len(), 2);
                    }
                    Backend::NativeTls | _ => {
                        assert_eq!((known.version, known.cipher_suite), (None, None));
                        assert_eq!(known.resumed, None);
                        assert_eq!(known.peer_certificates.len(), 1);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn versions_are_kept_to() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    for backend in BACKENDS {
        for (version, _, name) in VERSIONS {
            let server = server(&identity).start().unwrap();
            let only = config(backend)
                .with_min_version(version)
                .with_max_version(version);
            let tls = tls_with(only, trusting(&root)).await.unwrap();
            visit(&tls, &server.url()).await.unwrap();
            assert_eq!(server.handshakes(1).await[0].version, name, "{backend}");
        }
        let old = mqtt_testkit::TlsVersion::Tls12;
        let server = server(&identity).versions(old, old).start().unwrap();
        let new = config(backend).with_min_version(TlsVersion::V1_3);
        let tls = tls_with(new, trusting(&root)).await.unwrap();
        let error = visit(&tls, &server.url()).await.unwrap_err();
        assert!(error.contains("no agreement on TLS"), "{backend}: {error}");
    }
}

#[tokio::test]
async fn another_name_and_addresses_are_checked() {
    let root = Authority::new("root");
    let named = root.server(&["broker.test"]).issue();
    let addressed = root.server(&["127.0.0.1"]).issue();
    for backend in BACKENDS {
        let server = server(&named).start().unwrap();
        let tls = tls_with(
            config(backend).with_server_name("broker.test".to_owned()),
            trusting(&root),
        )
        .await
        .unwrap();
        visit(&tls, &server.url()).await.unwrap();
        let asked = server.handshakes(1).await[0].server_name.clone();
        assert_eq!(asked.as_deref(), Some("broker.test"));

        let silent = config(backend)
            .with_server_name("broker.test".to_owned())
            .with_send_server_name(false);
        let tls = tls_with(silent, trusting(&root)).await.unwrap();
        visit(&tls, &server.url()).await.unwrap();
        assert_eq!(server.handshakes(2).await[1].server_name, None);

        let server = self::server(&addressed).start().unwrap();
        let tls = tls_with(config(backend), trusting(&root)).await.unwrap();
        let url = format!("mqtts://{}", server.addr());
        visit(&tls, &url).await.unwrap();
    }
}

/// The dot that ends an absolute name is in no certificate.
#[tokio::test]
async fn an_absolute_name_is_the_same_name() {
    let root = Authority::new("root");
    let server = server(&root.server(&["localhost"]).issue())
        .start()
        .unwrap();
    for backend in BACKENDS {
        let tls = tls(backend, trusting(&root)).await;
        let url = server.url().replace("localhost", "localhost.");
        let tcp = TcpConnector::default().with_resolver(|_: &str, port| async move {
            Ok(vec![std::net::SocketAddr::from(([127, 0, 0, 1], port))])
        });
        let connector = TlsConnector::new(tcp, tls);
        let mut conn = connector.oneshot(url.parse().unwrap()).await.unwrap();
        echo(&mut conn).await.unwrap();
    }
    for seen in server.handshakes(2).await {
        assert_eq!(seen.server_name.as_deref(), Some("localhost"));
    }
}

#[tokio::test]
async fn rustls_offers_the_suites_that_were_asked_for() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    for suite in [
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_AES_128_GCM_SHA256",
    ] {
        let server = server(&identity).start().unwrap();
        let config = config(Backend::Rustls)
            .with_min_version(TlsVersion::V1_3)
            .with_cipher_suites([suite.to_owned()]);
        let tls = tls_with(config, trusting(&root)).await.unwrap();
        let conn = connect(&tls, &server.url()).await.unwrap();
        assert_eq!(conn.info().tls.as_ref().unwrap().cipher_suite, Some(suite));
        assert_eq!(server.handshakes(1).await[0].cipher, Some(suite));
    }
}

/// Rustls shows the one that fits what the server names.
#[tokio::test]
async fn one_of_several_identities_is_shown() {
    let root = Authority::new("root");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server_identity = root.server(&["localhost"]).issue();
    let material = showing(
        showing(trusting(&root), &old.client("of-old").issue()),
        &new.client("of-new").issue(),
    );
    let tls = tls(Backend::Rustls, material).await;
    for (authority, name) in [(&old, "of-old"), (&new, "of-new")] {
        let server = server(&server_identity)
            .client_certificate(ClientCertificate::Required, &authority.certificate_pem())
            .start()
            .unwrap();
        visit(&tls, &server.url()).await.unwrap();
        let shown = server.handshakes(1).await[0].client_common_name.clone();
        assert_eq!(shown.as_deref(), Some(name));
    }
}

/// Until the server is heard, each read that waits asks for quick acknowledgements, and none later.
#[tokio::test]
async fn acknowledgements_are_hastened_until_the_server_is_heard() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    for backend in BACKENDS {
        let server = server(&identity).start().unwrap();
        let endpoint: mqtt_transport::Endpoint = server.url().parse().unwrap();
        let tls = tls(backend, trusting(&root)).await;
        let stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
        let conn = mqtt_transport::StreamConn::new(stream, mqtt_transport::ConnInfo::memory())
            .with_acknowledge_at_once(|_| {
                ASKED.fetch_add(1, Ordering::Relaxed);
            });
        let mut conn = tls.handshake(conn, &endpoint).await.unwrap();
        let asked = || ASKED.swap(0, Ordering::Relaxed);
        assert_eq!(asked(), 0, "the library reads by itself until here");

        let short = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(short, conn.read_u8()).await.is_err());
        assert!(asked() > 0, "{backend}");
        conn.write_all(b"a").await.unwrap();
        conn.flush().await.unwrap();
        conn.read_u8().await.unwrap();
        asked();
        assert!(tokio::time::timeout(short, conn.read_u8()).await.is_err());
        assert_eq!(asked(), 0, "{backend}");
    }
}
