//! Keys, certificates and archives in every form, and what is wrong with them.

use mqtt_testkit::{
    ClientCertificate, OpensslServer,
    pki::{Authority, Identity, Key, KeyType, Validity},
};
use mqtt_transport::tls::{Backend, IdentityMaterial, TlsError, TlsMaterial};

use crate::common::*;

/// The server sees the identity, or this is what is wrong with it.
async fn shown(
    backend: Backend,
    root: &Authority,
    identity: IdentityMaterial,
) -> Result<(), String> {
    let server_identity = root.server(&["localhost"]).issue();
    let server = OpensslServer::builder(&server_identity.chain_pem(), &server_identity.key_pem())
        .client_certificate(ClientCertificate::Required, &root.certificate_pem())
        .start()
        .unwrap();
    let material = trusting(root).with_identity(identity);
    let tls = tls_with(config(backend), material)
        .await
        .map_err(|error| error.to_string())?;
    visit(&tls, &server.url()).await.unwrap();
    let seen = &server.handshakes(1).await[0];
    assert_eq!(seen.client_common_name.as_deref(), Some("gateway"));
    Ok(())
}

fn with_password(identity: &Identity, key: String, password: &str) -> IdentityMaterial {
    let mut material = IdentityMaterial::pem(identity.chain_pem(), key.into_bytes());
    if let IdentityMaterial::Pem { password: slot, .. } = &mut material {
        *slot = Some(password.into());
    }
    material
}

#[tokio::test]
async fn keys_and_archives_of_every_form() {
    for key_type in [KeyType::P256, KeyType::Rsa2048] {
        let root = Authority::new("root");
        let identity = root
            .intermediate("issuing")
            .client("gateway")
            .key_type(key_type)
            .issue();
        let chain = identity.chain_pem();
        let key = identity.key();
        let other_form = match key_type {
            KeyType::Rsa2048 => key.pkcs1_pem(),
            KeyType::P256 | _ => key.sec1_pem(),
        };
        let pem = |key: String| IdentityMaterial::pem(chain.clone(), key.into_bytes());
        for backend in BACKENDS {
            let check = |material| shown(backend, &root, material);
            check(pem(key.pkcs8_pem())).await.unwrap();
            // Whatever stands around it.
            check(pem(format!("\n# a comment\n{}", key.pkcs8_pem())))
                .await
                .unwrap();
            check(IdentityMaterial::pem(chain.clone(), identity.key_der()))
                .await
                .unwrap();
            let encrypted = key.encrypted_pem("secret");
            check(with_password(&identity, encrypted.clone(), "secret"))
                .await
                .unwrap();
            let wrong = check(with_password(&identity, encrypted.clone(), "wrong")).await;
            assert!(wrong.unwrap_err().contains("open with its password"));
            let missing = check(pem(encrypted)).await.unwrap_err();
            assert!(missing.contains("needs its password"), "{missing}");
            if key_type == KeyType::Rsa2048 {
                let legacy = check(pem(key.legacy_encrypted_pem("secret"))).await;
                assert!(legacy.unwrap_err().contains("openssl pkcs8 -topk8"));
            }

            let other = check(pem(other_form.clone())).await;
            match backend {
                Backend::Rustls => other.unwrap(),
                Backend::NativeTls | _ => assert!(other.unwrap_err().contains("PKCS#8 only")),
            }
            for archive in [identity.pkcs12("secret"), identity.pkcs12_legacy("secret")] {
                let archive = |password: &str| IdentityMaterial::Pkcs12 {
                    archive: archive.clone().into(),
                    password: password.into(),
                };
                check(archive("secret")).await.unwrap();
                let wrong = check(archive("wrong")).await.unwrap_err();
                assert!(wrong.contains("opens with its password"), "{wrong}");
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_when_it_is_read() {
    let root = Authority::new("root");
    let expired = Authority::builder("expired")
        .validity(Validity::expired())
        .self_signed();
    let identity = root.client("gateway").issue();
    let other = Key::generate(KeyType::P256);
    let old = root.client("old").validity(Validity::expired()).issue();
    let early = root.client("early").validity(Validity::not_yet()).issue();
    let root_pem = root.certificate_pem().into_bytes();
    let half = identity.key_pem()[..100].to_owned();
    let of = |identity: &Identity| showing(trusting(&root), identity);
    let pem = |chain: String, key: String| {
        trusting(&root).with_identity(IdentityMaterial::pem(chain, key.into_bytes()))
    };
    let rows: [(&str, TlsMaterial, &[&str]); 10] = [
        ("no roots", TlsMaterial::default(), &["tls.roots is empty"]),
        (
            "text without a certificate",
            TlsMaterial::default().with_roots([b"-----BEGIN NOTHING-----\n".to_vec()]),
            &["tls.roots[0]"],
        ),
        (
            "no certificate",
            TlsMaterial::default().with_roots([b"hello".to_vec(), Vec::new()]),
            &["tls.roots[0]", "tls.roots[1]"],
        ),
        (
            "an expired root among good ones",
            TlsMaterial::default()
                .with_roots([root_pem.clone(), expired.certificate_pem().into_bytes()]),
            &["tls.roots[1]", "CN=expired (expired)"],
        ),
        (
            "a key of another",
            pem(identity.chain_pem(), other.pkcs8_pem()),
            &["tls.identities[0]", "belong together"],
        ),
        (
            "a key half written",
            pem(identity.chain_pem(), half),
            &["tls.identities[0].key"],
        ),
        (
            "an empty key",
            pem(identity.chain_pem(), String::new()),
            &["tls.identities[0].key"],
        ),
        (
            "a certificate half written",
            pem(identity.chain_pem()[..200].to_owned(), identity.key_pem()),
            &["tls.identities[0].certificate"],
        ),
        ("expired", of(&old), &["tls.identities[0]", "(expired)"]),
        ("early", of(&early), &["tls.identities[0]", "not valid yet"]),
    ];
    for (row, material, expected) in rows {
        for backend in BACKENDS {
            let error = tls_with(config(backend), material.clone()).await;
            let Err(TlsError::Config(errors)) = error else {
                panic!("{row}, {backend}: {error:?}");
            };
            let text = errors.to_string();
            for part in expected {
                assert!(text.contains(part), "{row}, {backend}: {text}");
            }
        }
    }
}
