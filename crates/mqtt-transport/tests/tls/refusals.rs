//! Which certificates are refused, by each backend, with what is said of it.
//!
//! Where the backends differ, the table in the documentation of `tls` says so too.

use mqtt_testkit::{
    ClientCertificate, Handshake, OpensslServer,
    pki::{Authority, Certificate, Identity, KeyType, Usage, Validity},
};
use mqtt_transport::{
    ConnectPhase,
    tls::{Backend, TlsFailure, TlsMaterial},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::*;

/// What becomes of a connection.
#[derive(Clone, Copy)]
enum Outcome {
    Accepted,
    /// The server's certificate is refused, with these words of rustls and of native-tls.
    Refused(&'static str, &'static str),
    /// Native-tls accepts it; rustls does not.
    OnlyNative(&'static str),
    /// Rustls accepts it; native-tls does not.
    OnlyRustls(&'static str),
}
use Outcome::*;

async fn check(row: &str, chain: &str, key: &str, material: TlsMaterial, outcome: Outcome) {
    let server = OpensslServer::builder(chain, key).start().unwrap();
    for backend in BACKENDS {
        let tls = tls(backend, material.clone()).await;
        let refusal = match (outcome, backend) {
            (Accepted | OnlyNative(_), Backend::NativeTls)
            | (Accepted | OnlyRustls(_), Backend::Rustls) => None,
            (Refused(_, words) | OnlyRustls(words), Backend::NativeTls)
            | (Refused(words, _) | OnlyNative(words), Backend::Rustls) => Some(words),
            _ => unreachable!("there are two backends"),
        };
        let connected = connect(&tls, &server.url()).await;
        let Some(words) = refusal else {
            let mut conn = connected.unwrap_or_else(|error| panic!("{row}, {backend}: {error:?}"));
            echo(&mut conn).await.unwrap();
            continue;
        };
        let error = connected.expect_err(row);
        assert_eq!(error.phase(), ConnectPhase::Tls, "{row}, {backend}");
        assert!(!error.is_transient(), "{row}, {backend}: {error:?}");
        let failure = error.io_error().get_ref().unwrap();
        let failure = failure.downcast_ref::<TlsFailure>().unwrap();
        let TlsFailure::ServerCertificate {
            backend: named,
            reason,
            hint,
        } = failure
        else {
            panic!("{row}, {backend}: {failure:?}");
        };
        assert_eq!(*named, backend);
        assert!(reason.contains(words), "{row}, {backend}: {reason}");
        assert!(!hint.is_empty());
        let text = format!("{error}: {failure}");
        assert!(text.contains(&server.url()), "{text}");
        assert!(text.contains(backend.as_str()), "{text}");
    }
}

fn roots(certificates: &[&Certificate]) -> TlsMaterial {
    let pem: Vec<Vec<u8>> = certificates
        .iter()
        .map(|certificate| certificate.pem().into_bytes())
        .collect();
    TlsMaterial::default().with_roots(pem)
}

#[tokio::test]
async fn the_servers_certificate() {
    let root = Authority::new("root");
    let stranger = Authority::new("stranger");
    let issuing = root.intermediate("issuing");
    let trusted = || trusting(&root);
    let leaf = || issuing.server(&["localhost"]);
    let rows: Vec<(&str, Identity, TlsMaterial, Outcome)> = vec![
        ("a good one", leaf().issue(), trusted(), Accepted),
        (
            "expired",
            leaf().validity(Validity::expired()).issue(),
            trusted(),
            Refused("expired", "certificate has expired"),
        ),
        (
            "not yet valid",
            leaf().validity(Validity::not_yet()).issue(),
            trusted(),
            Refused("not valid yet", "not yet valid"),
        ),
        (
            "of another host",
            issuing.server(&["elsewhere.test"]).issue(),
            trusted(),
            Refused("not valid for", "ostname mismatch"),
        ),
        (
            "of an unknown authority",
            stranger.server(&["localhost"]).issue(),
            trusted(),
            Refused("UnknownIssuer", "unable to get local issuer"),
        ),
        (
            "of an authority with a known one's name",
            Authority::new("root").server(&["localhost"]).issue(),
            trusted(),
            Refused("BadSignature", ""),
        ),
        (
            "without its intermediate",
            leaf().without_intermediates().issue(),
            trusted(),
            Refused("UnknownIssuer", "unable to get local issuer"),
        ),
        (
            "without its intermediate, which we have",
            leaf().without_intermediates().issue(),
            roots(&[root.certificate(), issuing.certificate()]),
            Accepted,
        ),
        (
            "of an intermediate that is the only root",
            leaf().issue(),
            roots(&[issuing.certificate()]),
            OnlyRustls("unable to get issuer certificate"),
        ),
        (
            "self-signed, not trusted",
            Identity::self_signed(&["localhost"]).issue(),
            trusted(),
            Refused("UnknownIssuer", "self-signed certificate"),
        ),
        (
            "made for clients",
            leaf().usages(&[Usage::Client]).issue(),
            trusted(),
            Refused("extended key usage", "unsuitable certificate purpose"),
        ),
        (
            "with a common name only",
            issuing.server(&[]).common_name("localhost").issue(),
            trusted(),
            OnlyNative("not valid for"),
        ),
        (
            "RSA",
            leaf().key_type(KeyType::Rsa2048).issue(),
            trusted(),
            Accepted,
        ),
    ];
    for (row, identity, material, outcome) in rows {
        check(
            row,
            &identity.chain_pem(),
            &identity.key_pem(),
            material,
            outcome,
        )
        .await;
    }

    for (ca, outcome) in [(false, Accepted), (true, OnlyNative("CaUsedAsEndEntity"))] {
        let own = Identity::self_signed(&["localhost"]).ca(ca).issue();
        let material = roots(&[own.certificate()]);
        let row = format!("self-signed, trusted, an authority: {ca}");
        check(&row, &own.chain_pem(), &own.key_pem(), material, outcome).await;
    }
}

/// An intermediate with two issuers, the old one's certificate sent first.
#[tokio::test]
async fn the_chain_of_a_cross_signed_intermediate() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let issuing = old.intermediate("issuing");
    let leaf = issuing.server(&["localhost"]).issue();
    let of_new = new.cross_sign(&issuing);
    let chain = format!("{}{}", leaf.chain_pem(), of_new.pem());
    let key = leaf.key_pem();
    check("old", &chain, &key, trusting(&old), Accepted).await;
    let only = OnlyRustls("unable to get local issuer");
    check("new", &chain, &key, trusting(&new), only).await;
}

/// Keys too short for either: OpenSSL's own server does not even show them at the usual level.
#[tokio::test]
async fn a_weak_key() {
    let root = Authority::builder("root")
        .key_type(KeyType::Rsa2048)
        .self_signed();
    let weak = root
        .server(&["localhost"])
        .key_type(KeyType::Rsa1024)
        .issue();
    let server = OpensslServer::builder(&weak.chain_pem(), &weak.key_pem())
        .ciphers("ALL:@SECLEVEL=0")
        .start()
        .unwrap();
    for backend in BACKENDS {
        let tls = tls(backend, trusting(&root)).await;
        let error = connect(&tls, &server.url()).await.expect_err("weak");
        assert!(!error.is_transient(), "{backend}: {error:?}");
        assert_eq!(error.phase(), ConnectPhase::Tls);
    }
}

/// What our certificate is refused for, and where it shows.
#[tokio::test]
async fn our_certificate() {
    let root = Authority::new("root");
    let stranger = Authority::new("stranger");
    let server_identity = root.server(&["localhost"]).issue();
    // It was good when it was read: only the server knows better.
    let revoked = root.client("revoked").issue();
    let crl = root.crl(&[revoked.serial()]).issue();
    let rows: [(&str, Option<Identity>); 4] = [
        ("none", None),
        (
            "of an unknown authority",
            Some(stranger.client("a").issue()),
        ),
        (
            "made for servers",
            Some(root.client("a").usages(&[Usage::Server]).issue()),
        ),
        ("revoked", Some(revoked)),
    ];
    for (row, identity) in rows {
        for version in [
            mqtt_testkit::TlsVersion::Tls12,
            mqtt_testkit::TlsVersion::Tls13,
        ] {
            let server =
                OpensslServer::builder(&server_identity.chain_pem(), &server_identity.key_pem())
                    .versions(version, version)
                    .client_certificate(ClientCertificate::Required, &root.certificate_pem())
                    .client_crl(&crl.pem())
                    .start()
                    .unwrap();
            for backend in BACKENDS {
                let mut material = trusting(&root);
                if let Some(identity) = &identity {
                    material = showing(material, identity);
                }
                let tls = tls(backend, material).await;
                let error = match connect(&tls, &server.url()).await {
                    Err(error) => {
                        assert_eq!(error.phase(), ConnectPhase::Tls);
                        assert!(
                            !error.is_transient(),
                            "{row}, {version:?}, {backend}: {error:?}"
                        );
                        error.io_error().to_string()
                    }
                    // Under TLS 1.3 with what is read first.
                    Ok(mut conn) => {
                        assert_eq!(version, mqtt_testkit::TlsVersion::Tls13, "{row}, {backend}");
                        let error = echo(&mut conn).await.expect_err(row);
                        assert_eq!(
                            error.kind(),
                            std::io::ErrorKind::PermissionDenied,
                            "{error:?}"
                        );
                        error.to_string()
                    }
                };
                // Under TLS 1.2 a server that got none says no more than that it failed.
                let silent = row == "none" && version == mqtt_testkit::TlsVersion::Tls12;
                let words = if silent {
                    "does the server want a certificate of ours"
                } else {
                    "the server refused our certificate"
                };
                assert!(
                    error.contains(words),
                    "{row}, {version:?}, {backend}: {error}"
                );
            }
            let seen: Vec<Handshake> = server.handshakes(2).await;
            assert!(seen.iter().all(|handshake| handshake.error.is_some()));
        }
    }
}

/// A server that does not speak TLS, one that says nothing, and one that leaves.
#[tokio::test]
async fn what_is_no_handshake() {
    let root = Authority::new("root");
    for backend in BACKENDS {
        let tls = tls_with(
            config(backend).with_handshake_timeout(std::time::Duration::from_millis(300)),
            trusting(&root),
        )
        .await
        .unwrap();
        for (said, transient) in [
            (Some(&b"HTTP/1.0 400 Bad Request\r\n\r\n"[..]), false),
            (Some(&b""[..]), true),
            (None, true),
        ] {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
                .await
                .unwrap();
            let url = format!(
                "mqtts://localhost:{}",
                listener.local_addr().unwrap().port()
            );
            let serving = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                match said {
                    Some(bytes) => {
                        // All of it, so that closing is no reset.
                        let mut hello = [0; 4096];
                        let _ = stream.read(&mut hello).await.unwrap();
                        stream.write_all(bytes).await.unwrap();
                    }
                    None => std::future::pending().await,
                }
            });
            let error = connect(&tls, &url).await.unwrap_err();
            assert_eq!(error.phase(), ConnectPhase::Tls);
            assert_eq!(error.is_transient(), transient, "{backend}: {error:?}");
            serving.abort();
        }
    }
}
