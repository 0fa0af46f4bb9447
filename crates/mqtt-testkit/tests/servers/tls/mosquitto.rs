//! Mosquitto's TLS listener.

use std::io::Write as _;

use mqtt_testkit::pki::{Authority, Identity};
use mqtt_testkit::{Mosquitto, MosquittoTls};
use openssl::ssl::SslVersion;

use super::{Client, VERSIONS_OF_TLS, mqtt_connect, mqtt_connect_as, read_packet};
use crate::wire::{self, Version};

async fn mosquitto(tls: MosquittoTls, test: &str) -> Option<Mosquitto> {
    Mosquitto::builder().tls(tls).start_or_skip(test).await
}

fn for_mosquitto(identity: &Identity) -> MosquittoTls {
    MosquittoTls::new(identity.chain_pem(), identity.key_pem())
}

#[tokio::test]
async fn serves_tls_beside_the_rest() {
    const NAME: &str = "serves_tls_beside_the_rest";
    let root = Authority::new("root");
    let issuing = root.intermediate("issuing");
    let identity = issuing.server(&["localhost"]).issue();
    let Some(mut server) = mosquitto(for_mosquitto(&identity), NAME).await else {
        return;
    };
    let port = server.tls_addr().port();
    assert_eq!(server.tls_url(), format!("mqtts://localhost:{port}"));
    for _ in 0..2 {
        for (_, version, _) in VERSIONS_OF_TLS {
            let client = Client::new(&root.certificate_pem()).max_version(version);
            let mut stream = client.connect(server.tls_addr());
            assert_eq!(stream.ssl().version2(), Some(version));
            mqtt_connect(&mut stream, Version::V5).unwrap();
        }
        wire::converse(&server.tcp_url(), Version::V311).await;
        wire::converse(&server.unix_url(), Version::V311).await;
        server.restart().await.unwrap();
        assert_eq!(server.tls_addr().port(), port);
    }
}

#[tokio::test]
async fn takes_the_versions_and_ciphers_chosen() {
    const NAME: &str = "takes_the_versions_and_ciphers_chosen";
    let root = Authority::new("root");
    let trusted = root.certificate_pem();
    let tls = for_mosquitto(&root.server(&["localhost"]).issue())
        .ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        .ciphersuites("TLS_CHACHA20_POLY1305_SHA256")
        .tcp_nodelay(true);
    let Some(server) = mosquitto(tls.clone(), NAME).await else {
        return;
    };
    let cipher = |version, server: &Mosquitto| {
        let client = Client::new(&trusted).max_version(version);
        let stream = client.try_connect(server.tls_addr()).ok()?;
        stream.ssl().current_cipher().map(|cipher| cipher.name())
    };
    let (old, new) = (SslVersion::TLS1_2, SslVersion::TLS1_3);
    assert_eq!(cipher(old, &server), Some("ECDHE-ECDSA-AES128-GCM-SHA256"));
    assert_eq!(cipher(new, &server), Some("TLS_CHACHA20_POLY1305_SHA256"));

    let server = mosquitto(tls.min_version("tlsv1.3"), NAME).await.unwrap();
    assert_eq!(cipher(old, &server), None);
    assert_eq!(cipher(new, &server), Some("TLS_CHACHA20_POLY1305_SHA256"));
}

/// Whether mosquitto lets a client of this identity in.
fn admitted(server: &Mosquitto, client: Client) -> bool {
    let stream = client.try_connect(server.tls_addr());
    stream.is_ok_and(|mut stream| mqtt_connect(&mut stream, Version::V311).is_ok())
}

#[tokio::test]
async fn asks_for_certificates_and_looks_at_its_list() {
    const NAME: &str = "asks_for_certificates_and_looks_at_its_list";
    let (root, clients) = (Authority::new("root"), Authority::new("clients"));
    let [good, revoked] = ["good", "revoked"].map(|name| clients.client(name).issue());
    let stranger = Authority::new("clients").client("stranger").issue();
    let tls = for_mosquitto(&root.server(&["localhost"]).issue())
        .client_authority(clients.certificate_pem())
        .use_identity_as_username();
    let crl = clients.crl(&[revoked.serial()]).issue().pem();
    for (tls, takes_revoked) in [(tls.clone(), true), (tls.crl(crl), false)] {
        // The certificate's name is user name enough.
        let builder = Mosquitto::builder().tls(tls).allow_anonymous(false);
        let Some(server) = builder.start_or_skip(NAME).await else {
            return;
        };
        for (_, version, _) in VERSIONS_OF_TLS {
            let client = || Client::new(&root.certificate_pem()).max_version(version);
            assert!(admitted(&server, client().identity(&good)));
            assert!(!admitted(&server, client()));
            assert!(!admitted(&server, client().identity(&stranger)));
            let taken = admitted(&server, client().identity(&revoked));
            assert_eq!(taken, takes_revoked, "{}", server.log());
        }
    }
}

#[tokio::test]
async fn changes_its_certificate_while_it_runs() {
    const NAME: &str = "changes_its_certificate_while_it_runs";
    let root = Authority::new("root");
    let identities = [0; 4].map(|_| root.server(&["localhost"]).issue());
    let Some(mut server) = mosquitto(for_mosquitto(&identities[0]), NAME).await else {
        return;
    };
    let connect = |server: &Mosquitto, client_id: &str, expected: &Identity| {
        let client = Client::new(&root.certificate_pem());
        let mut stream = client.connect(server.tls_addr());
        let shown = stream.ssl().peer_certificate().unwrap().to_der().unwrap();
        assert_eq!(shown, expected.certificate().der());
        mqtt_connect_as(client_id, &mut stream, Version::V5).unwrap();
        stream
    };
    let mut first = connect(&server, "first", &identities[0]);
    for identity in &identities[1..] {
        let (chain, key) = (identity.chain_pem(), identity.key_pem());
        server.reload_tls(&chain, &key).await.unwrap();
        connect(&server, "later", identity);
    }
    first.write_all(&[0xc0, 0]).unwrap();
    let pong = read_packet(&mut first).unwrap();
    assert_eq!(pong, [wire::PINGRESP, 0], "an open connection stays");

    server.restart().await.unwrap();
    connect(&server, "last", &identities[3]);
}
