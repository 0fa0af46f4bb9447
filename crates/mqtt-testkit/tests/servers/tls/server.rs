//! OpenSSL's server, and what is made for it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use mqtt_testkit::pki::{Authority, Identity, KeyType, Validity};
use mqtt_testkit::{
    ClientCertificate, Handshake, OpensslServer, OpensslServerBuilder, Service, TlsVersion,
};
use openssl::ssl::SslVersion;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Client, VERSIONS_OF_TLS, mqtt_connect, read_packet, tcp};
use crate::wire::{self, VERSIONS, Version};

fn server(identity: &Identity) -> OpensslServerBuilder {
    OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
}

fn echo(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(b"hello")?;
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes)?;
    assert_eq!(&bytes, b"hello");
    Ok(())
}

async fn last(server: &OpensslServer, count: usize) -> Handshake {
    let mut seen = server.handshakes(count).await;
    assert_eq!(seen.len(), count);
    seen.pop().unwrap()
}

#[tokio::test]
async fn each_version_and_kind_of_key_is_served_and_told_of() {
    for key_type in [KeyType::P256, KeyType::Rsa2048, KeyType::Ed25519] {
        let root = Authority::builder("root").key_type(key_type).self_signed();
        let issuing = root.intermediate("issuing");
        let identity = issuing.server(&["localhost"]).key_type(key_type).issue();
        for (version, openssl, name) in VERSIONS_OF_TLS {
            let server = server(&identity)
                .versions(version, version)
                .start()
                .unwrap();
            let mut stream = Client::new(&root.certificate_pem()).connect(server.addr());
            echo(&mut stream).unwrap();
            assert_eq!(stream.ssl().version2(), Some(openssl));
            let seen = last(&server, 1).await;
            assert_eq!(seen.error, None);
            assert_eq!(seen.version, name);
            let cipher = stream.ssl().current_cipher().unwrap();
            assert_eq!(seen.cipher, cipher.standard_name());
            assert_eq!(seen.server_name.as_deref(), Some("localhost"));
            assert!(!seen.resumed);
            assert_eq!((seen.alpn, seen.client_common_name), (None, None));
            assert_eq!(server.received(), 5);
        }
    }
}

#[tokio::test]
async fn ciphers_are_as_chosen() {
    let root = Authority::new("root");
    let server = server(&root.server(&["localhost"]).issue())
        .ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
        .ciphersuites("TLS_AES_128_GCM_SHA256")
        .start()
        .unwrap();
    let names = [
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_AES_128_GCM_SHA256",
    ];
    for (n, (_, version, _)) in VERSIONS_OF_TLS.into_iter().enumerate() {
        let client = Client::new(&root.certificate_pem()).max_version(version);
        client.connect(server.addr());
        assert_eq!(last(&server, n + 1).await.cipher, Some(names[n]));
    }
}

#[tokio::test]
async fn a_bad_server_is_refused() {
    let root = Authority::new("root");
    let trusted = root.certificate_pem();
    let issuing = root.intermediate("issuing");
    let expired = Validity::expired();
    let gone = Authority::builder("root").validity(expired).self_signed();
    let names = ["localhost"];
    let client = "unsuitable certificate purpose";
    for (identity, trusted, reason) in [
        (
            root.server(&names).validity(expired).issue(),
            &trusted,
            "has expired",
        ),
        (
            root.server(&names).validity(Validity::not_yet()).issue(),
            &trusted,
            "not yet valid",
        ),
        (
            root.server(&["other.example"]).issue(),
            &trusted,
            "hostname mismatch",
        ),
        (
            root.client("a").common_name("localhost").issue(),
            &trusted,
            client,
        ),
        (
            issuing.server(&names).without_intermediates().issue(),
            &trusted,
            "unable to get local issuer",
        ),
        (
            Authority::new("root").server(&names).issue(),
            &trusted,
            // The same name and another key.
            "unable to get local issuer",
        ),
        (
            gone.server(&names).issue(),
            &gone.certificate_pem(),
            "has expired",
        ),
        (
            root.server(&names).key_type(KeyType::Rsa1024).issue(),
            &trusted,
            "key too weak",
        ),
        (
            Identity::self_signed(&names).issue(),
            &trusted,
            "self-signed",
        ),
    ] {
        let server = server(&identity).start().unwrap();
        // Whatever the machine's own level is.
        let client = Client::new(trusted).security_level(2);
        let error = client.try_connect(server.addr()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error} instead of {reason}");
        let seen = last(&server, 1).await.error.unwrap();
        assert!(seen.contains("alert"), "{seen}");
    }
}

#[tokio::test]
async fn what_openssl_takes_is_served() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let names = ["localhost"];
    let old_pem = old.certificate_pem();
    let both = format!("{}{old_pem}", new.certificate_pem());
    let identity = new.server(&names).issue();
    let crossed = format!("{}{}", identity.chain_pem(), old.cross_sign(&new).pem());
    let common_name = old.server(&[]).common_name("localhost").issue();
    let weak = old.server(&names).key_type(KeyType::Rsa1024).issue();
    let mut cases = vec![
        (crossed, identity.key_pem(), old_pem.clone()),
        (identity.chain_pem(), identity.key_pem(), both),
        (
            common_name.chain_pem(),
            common_name.key_pem(),
            old_pem.clone(),
        ),
        (weak.chain_pem(), weak.key_pem(), old_pem),
    ];
    for ca in [false, true] {
        let own = Identity::self_signed(&names).ca(ca).issue();
        cases.push((own.chain_pem(), own.key_pem(), own.certificate_pem()));
    }
    for (chain, key, trusted) in cases {
        let server = OpensslServer::builder(&chain, &key).start().unwrap();
        let client = Client::new(&trusted).security_level(0);
        echo(&mut client.connect(server.addr())).unwrap();
    }
}

/// A handshake and a byte back: TLS 1.3 tells the client only then that it is refused.
fn try_echo(client: Client, addr: SocketAddr) -> Result<(), String> {
    let mut stream = client
        .try_connect(addr)
        .map_err(|error| error.to_string())?;
    echo(&mut stream).map_err(|error| error.to_string())
}

#[tokio::test]
async fn clients_show_certificates_as_asked() {
    let (root, clients) = (Authority::new("root"), Authority::new("clients"));
    let trusted = root.certificate_pem();
    let issuing = clients.intermediate("issuing");
    let good = issuing.client("sensor-1").issue();
    let stranger = Authority::new("strangers").client("sensor-2").issue();
    for (_, version, _) in VERSIONS_OF_TLS {
        for mode in [ClientCertificate::Optional, ClientCertificate::Required] {
            let server = server(&root.server(&["localhost"]).issue())
                .client_certificate(mode, &clients.certificate_pem())
                .start()
                .unwrap();
            let client = || Client::new(&trusted).max_version(version);

            try_echo(client().identity(&good), server.addr()).unwrap();
            let seen = last(&server, 1).await;
            assert_eq!(seen.client_common_name.as_deref(), Some("sensor-1"));

            let error = try_echo(client().identity(&stranger), server.addr()).unwrap_err();
            assert!(error.contains("alert unknown ca"), "{error}");
            let seen = last(&server, 2).await.error.unwrap();
            assert!(seen.contains("unable to get local issuer"), "{seen}");

            let result = try_echo(client(), server.addr());
            let seen = last(&server, 3).await;
            assert_eq!(result.is_ok(), mode == ClientCertificate::Optional);
            assert_eq!(seen.error.is_none(), mode == ClientCertificate::Optional);
        }
    }
}

#[tokio::test]
async fn revoked_clients_are_refused() {
    let root = Authority::new("root");
    let [good, revoked] = ["good", "revoked"].map(|name| root.client(name).issue());
    let trusted = root.certificate_pem();
    let crl = root.crl(&[revoked.serial()]);
    let stale = crl.clone().validity(Validity::expired());
    for (crl, good_error, revoked_error) in [
        (crl, None, "certificate revoked"),
        (stale, Some("CRL has expired"), "CRL has expired"),
    ] {
        let server = server(&root.server(&["localhost"]).issue())
            .client_certificate(ClientCertificate::Required, &trusted)
            .client_crl(&crl.issue().pem())
            .start()
            .unwrap();
        let result = try_echo(Client::new(&trusted).identity(&good), server.addr());
        let seen = last(&server, 1).await.error;
        assert_eq!(result.is_ok(), good_error.is_none());
        match good_error {
            None => assert_eq!(seen, None),
            Some(reason) => assert!(seen.as_ref().unwrap().contains(reason), "{seen:?}"),
        }
        try_echo(Client::new(&trusted).identity(&revoked), server.addr()).unwrap_err();
        let seen = last(&server, 2).await.error.unwrap();
        assert!(seen.contains(revoked_error), "{seen}");
    }
}

#[tokio::test]
async fn a_protocol_is_agreed_upon_or_the_client_refused() {
    let root = Authority::new("root");
    let trusted = root.certificate_pem();
    let identity = root.server(&["localhost"]).issue();
    let server = server(&identity).alpn(&["mqtt", "h2"]).start().unwrap();
    let client = || Client::new(&trusted);
    try_echo(client().alpn(b"\x02h2\x04mqtt"), server.addr()).unwrap();
    assert_eq!(last(&server, 1).await.alpn.as_deref(), Some(&b"mqtt"[..]));
    try_echo(client(), server.addr()).unwrap();
    assert_eq!(last(&server, 2).await.alpn, None);
    try_echo(client().alpn(b"\x04http"), server.addr()).unwrap_err();
    assert!(last(&server, 3).await.error.is_some());
}

#[tokio::test]
async fn versions_without_a_common_one_fail() {
    let root = Authority::new("root");
    let trusted = root.certificate_pem();
    let identity = root.server(&["localhost"]).issue();
    for (min, max, client) in [
        (TlsVersion::Tls13, TlsVersion::Tls13, SslVersion::TLS1_2),
        (TlsVersion::Tls11, TlsVersion::Tls11, SslVersion::TLS1_3),
    ] {
        let server = server(&identity).versions(min, max).start().unwrap();
        let client = Client::new(&trusted).max_version(client);
        client.try_connect(server.addr()).unwrap_err();
        assert!(last(&server, 1).await.error.is_some());
    }
}

/// A client that keeps sessions.
fn rustls_client(
    trusted: &Authority,
    identity: Option<&Identity>,
    version: TlsVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = trusted.certificate().der().to_vec();
    roots.add(CertificateDer::from(root)).unwrap();
    let versions = if version == TlsVersion::Tls13 {
        [&rustls::version::TLS13]
    } else {
        [&rustls::version::TLS12]
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let chain = identity.chain_pem();
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
            let key = PrivatePkcs8KeyDer::from(identity.key_der());
            config
                .with_client_auth_cert(
                    chain.map(Result::unwrap).collect(),
                    PrivateKeyDer::from(key),
                )
                .unwrap()
        }
    })
}

fn rustls_connect(
    config: &Arc<ClientConfig>,
    addr: SocketAddr,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(connection, tcp(addr))
}

#[tokio::test]
async fn sessions_are_resumed_and_counted() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    let client = root.client("sensor-1").issue();
    for (version, ..) in VERSIONS_OF_TLS {
        for identity_of_client in [None, Some(&client)] {
            for on in [true, false] {
                let mut builder = server(&identity).resumption(on);
                if identity_of_client.is_some() {
                    let trusted = root.certificate_pem();
                    builder = builder.client_certificate(ClientCertificate::Required, &trusted);
                }
                let server = builder.start().unwrap();
                let config = rustls_client(&root, identity_of_client, version);
                for n in 0..3 {
                    echo(&mut rustls_connect(&config, server.addr())).unwrap();
                    let seen = last(&server, n + 1).await;
                    assert_eq!(seen.error, None);
                    assert_eq!(seen.resumed, on && n > 0, "{n} {on} {seen:?}");
                    let name = identity_of_client.map(|_| "sensor-1");
                    assert_eq!(seen.client_common_name.as_deref(), name);
                }
            }
        }
    }
}

#[tokio::test]
async fn tickets_are_as_many_as_chosen() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    for tickets in [0, 1, 4] {
        let server = server(&identity).tickets(tickets).start().unwrap();
        let config = rustls_client(&root, None, TlsVersion::Tls13);
        let mut first = rustls_connect(&config, server.addr());
        echo(&mut first).unwrap();
        let received = first.conn.tls13_tickets_received();
        assert_eq!(usize::try_from(received).unwrap(), tickets);
    }
}

#[tokio::test]
async fn mqtt_is_answered_in_both_versions() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    let server = server(&identity).service(Service::Mqtt).start().unwrap();
    for version in VERSIONS {
        let mut stream = Client::new(&root.certificate_pem()).connect(server.addr());
        mqtt_connect(&mut stream, version).unwrap();

        // QoS 1, identifier 7, and a ping in one write.
        let mut publish = b"\0\x01a\0\x07".to_vec();
        if version == Version::V5 {
            publish.push(0);
        }
        publish.extend(b"payload");
        let mut bytes = wire::packet(wire::PUBLISH | 2, &publish);
        bytes.extend([0xc0, 0]);
        stream.write_all(&bytes).unwrap();
        let puback = read_packet(&mut stream).unwrap();
        assert_eq!((puback[0], &puback[2..4]), (wire::PUBACK, &[0, 7][..]));
        assert_eq!(read_packet(&mut stream).unwrap(), [wire::PINGRESP, 0]);

        stream.write_all(&[0xe0, 0]).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed");
    }
}

#[tokio::test]
async fn bytes_are_exchanged_as_chosen() {
    const MANY: u64 = 1_000_001;
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    for (receive, send) in [(1, MANY), (MANY, 1), (0, MANY)] {
        let service = Service::Exchange { receive, send };
        let server = server(&identity).service(service).start().unwrap();
        let mut stream = Client::new(&root.certificate_pem()).connect(server.addr());
        let rounds = if receive == 0 { 1 } else { 2 };
        for _ in 0..rounds {
            io::copy(&mut io::repeat(1).take(receive), &mut stream).unwrap();
            let mut answer = (&mut stream).take(send);
            assert_eq!(io::copy(&mut answer, &mut io::sink()).unwrap(), send);
        }
        assert_eq!(server.received(), receive * rounds);
    }
}

#[tokio::test]
async fn dropping_closes_the_connections_and_the_port() {
    let root = Authority::new("root");
    let trusted = root.certificate_pem();
    let identity = root.server(&["localhost"]).issue();
    // One that sends without end to a client that does not read, one that waits, one that is still
    // in its handshake.
    let service = Service::Exchange {
        receive: 1,
        send: u64::MAX,
    };
    let server = server(&identity).service(service).start().unwrap();
    let mut busy = Client::new(&trusted).connect(server.addr());
    busy.write_all(&[0]).unwrap();
    busy.read_exact(&mut [0]).unwrap();
    let mut idle = Client::new(&trusted).connect(server.addr());
    let mut early = tcp(server.addr());
    server.handshakes(2).await;

    let url = format!("mqtt://{}", server.addr());
    drop(server);
    assert_ne!(idle.read(&mut [0]).unwrap_or(0), 1);
    assert_ne!(early.read(&mut [0]).unwrap_or(0), 1);
    wire::refused(&url).await;
}
