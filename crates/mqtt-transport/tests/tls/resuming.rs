//! Resumption, as the server counts it.

use mqtt_testkit::{ClientCertificate, OpensslServer, TlsVersion, pki::Authority};
use mqtt_transport::{
    Conn,
    tls::{Backend, Resumption},
};

use crate::common::*;

const CONNECTIONS: usize = 5;

/// How many of the connections the server resumed, by version and by whether it asks for us.
async fn resumed(
    config: mqtt_transport::tls::TlsConfig,
    version: TlsVersion,
    mutual: bool,
) -> usize {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    let mut builder = OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
        .versions(version, version);
    let mut material = trusting(&root);
    if mutual {
        builder = builder.client_certificate(ClientCertificate::Required, &root.certificate_pem());
        material = showing(material, &root.client("gateway").issue());
    }
    let server = builder.start().unwrap();
    let backend = config.backend;
    let tls = tls_with(config, material).await.unwrap();
    let mut told = 0;
    for _ in 0..CONNECTIONS {
        let mut conn = connect(&tls, &server.url()).await.unwrap();
        echo(&mut conn).await.unwrap();
        let known = conn.info().tls.clone().unwrap();
        assert_eq!(known.resumed.is_some(), backend == Backend::Rustls);
        told += usize::from(known.resumed == Some(true));
    }
    let seen = server.handshakes(CONNECTIONS).await;
    let resumed = seen.iter().filter(|handshake| handshake.resumed).count();
    if backend == Backend::Rustls {
        assert_eq!(told, resumed, "both sides know");
    }
    resumed
}

#[tokio::test]
async fn rustls_resumes_all_but_the_first_and_native_tls_none() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        for mutual in [false, true] {
            let rustls = resumed(config(Backend::Rustls), version, mutual).await;
            assert_eq!(rustls, CONNECTIONS - 1, "{version:?} {mutual}");
            let native = resumed(config(Backend::NativeTls), version, mutual).await;
            assert_eq!(native, 0, "{version:?} {mutual}");
        }
        let off = config(Backend::Rustls).with_resumption(Resumption::Off);
        assert_eq!(resumed(off, version, false).await, 0);
    }
}
