//! What is refused before anything is connected, and what a configuration file says.

use mqtt_testkit::pki::Authority;
use mqtt_transport::{
    ConfigErrors, Limit,
    tls::{
        Backend, Location, Reloading, Resumption, Revocation, TlsConfig, TlsError, TlsIdentity,
        TlsVersion, Trust,
    },
};

use crate::common::*;

fn paths(errors: &ConfigErrors) -> Vec<&str> {
    errors.iter().map(|error| &*error.path).collect()
}

fn file(path: &str) -> Location {
    Location::File(path.into())
}

#[test]
fn everything_that_native_tls_lacks_is_named_at_once() {
    let identity = TlsIdentity::pem(file("/a"), file("/b"));
    let errors = TlsConfig::default()
        .with_backend(Backend::NativeTls)
        .with_cipher_suites(["TLS_AES_128_GCM_SHA256".to_owned()])
        .with_revocation(Revocation::default().with_lists([vec![file("/crl")]]))
        .with_resumption(Resumption::Required)
        .with_identities([identity.clone(), identity])
        .validate()
        .unwrap_err();
    assert_eq!(
        paths(&errors),
        [
            "tls.cipher_suites",
            "tls.revocation",
            "tls.resumption",
            "tls.identities"
        ]
    );
    for error in &errors {
        assert!(error.hint.contains("rustls"), "{error}");
    }
}

#[test]
fn every_rule_is_checked() {
    let url = Location::Url("http://a/ca".to_owned());
    let errors = TlsConfig::default()
        .with_backend(Backend::Rustls)
        .with_roots([url])
        .with_min_version(TlsVersion::V1_3)
        .with_max_version(TlsVersion::V1_2)
        .with_alpn([String::new()])
        .with_handshake_timeout(std::time::Duration::ZERO)
        .with_cipher_suites(["TLS_RSA_WITH_AES_128_CBC_SHA".to_owned()])
        .with_revocation(Revocation::default().with_lists([vec![]]))
        .with_identities([TlsIdentity::default()])
        .with_reload(
            Reloading::default()
                .with_interval(Limit::After(std::time::Duration::from_millis(1)))
                .with_jitter(2.0),
        )
        .validate()
        .unwrap_err();
    for path in [
        "tls.roots",
        "tls.roots[0]",
        "tls.min_version",
        "tls.alpn[0]",
        "tls.handshake_timeout",
        "tls.cipher_suites[0]",
        "tls.revocation.lists[0]",
        "tls.identities[0]",
        "tls.reload.interval",
        "tls.reload.jitter",
    ] {
        assert!(paths(&errors).contains(&path), "{path} is not in\n{errors}");
    }
}

/// A library that is given one of these checks nothing, or less than it seems.
#[test]
fn names_that_check_nothing_are_refused() {
    for backend in BACKENDS {
        for name in ["", ".", ".example", "a b", "\u{fc}ber.example"] {
            let errors = config(backend).with_server_name(name.to_owned()).validate();
            assert_eq!(paths(&errors.unwrap_err()), ["tls.server_name"], "{name:?}");
        }
    }
}

#[test]
fn suites_must_serve_each_version() {
    let suites = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        config(Backend::Rustls).with_cipher_suites(names)
    };
    let (old, new) = (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "TLS_AES_128_GCM_SHA256",
    );
    assert!(suites(&[old, new]).validate().is_ok());
    for names in [[old], [new]] {
        let errors = suites(&names).validate().unwrap_err();
        assert_eq!(paths(&errors), ["tls.cipher_suites"]);
    }
    let only = suites(&[new]).with_min_version(TlsVersion::V1_3);
    assert!(only.validate().is_ok());
}

#[test]
fn a_file_says_all_of_it() {
    let text = r#"
        backend = "rustls"
        trust = "both"
        roots = [{ file = "/etc/mqtt/old.pem" }, { env = "MQTT_NEW_CA" }]
        server_name = "broker.example"
        alpn = ["mqtt"]
        min_version = "1.3"
        cipher_suites = ["TLS_AES_128_GCM_SHA256"]
        resumption = "required"
        handshake_timeout = "2s"

        [[identities]]
        certificate = { file = "/etc/mqtt/client.pem" }
        key = { env = "MQTT_CLIENT_KEY" }
        password = { file = "/run/secrets/key-password" }

        [revocation]
        lists = [[{ url = "http://crl.example/ca.crl" }, { file = "/var/lib/ca.crl" }]]
        depth = "leaf"

        [reload]
        interval = "5m"
        warn_before_expiry = "never"
    "#;
    let read: TlsConfig = toml::from_str(text).unwrap();
    read.validate().unwrap();
    assert_eq!(read.backend, Backend::Rustls);
    assert_eq!(read.trust, Trust::Both);
    assert_eq!(read.roots.len(), 2);
    assert_eq!(read.revocation.lists[0].len(), 2);
    assert_eq!(read.reload.interval.to_string(), "5m");
    // What is not said is the default, and what is written is read again.
    assert_eq!(read.max_version, TlsVersion::V1_3);
    let written = toml::to_string(&read).unwrap();
    assert_eq!(toml::from_str::<TlsConfig>(&written).unwrap(), read);

    for unknown in ["verify = false", "[reload]\nevery = \"1m\""] {
        let error = toml::from_str::<TlsConfig>(unknown).unwrap_err();
        assert!(error.to_string().contains("unknown field"), "{error}");
    }
    assert!(toml::from_str::<TlsConfig>("handshake_timeout = \"never\"").is_err());
}

#[tokio::test]
async fn nothing_printed_has_a_key_or_a_password_in_it() {
    let root = Authority::new("root");
    let identity = root.client("gateway").issue();
    let key = identity.key_pem();
    let secret: String = key.lines().nth(1).unwrap().to_owned();
    let material = showing(trusting(&root), &identity);
    let mut printed = format!("{material:?}");
    for backend in BACKENDS {
        let tls = tls(backend, material.clone()).await;
        let generation = tls.generation();
        printed += &format!("{tls:?} {generation:?} {:?}", tls.config());
    }
    let damaged = key.replacen("A", "!", 5);
    let broken = trusting(&root).with_identity(mqtt_transport::tls::IdentityMaterial::pem(
        identity.chain_pem(),
        damaged.into_bytes(),
    ));
    let error: TlsError = tls_with(config(Backend::Rustls), broken).await.unwrap_err();
    printed += &format!("{error} {error:?}");
    assert!(!printed.contains(&secret), "{printed}");
    let bytes = format!("{:?}", &identity.key_der()[40..48]);
    assert!(!printed.contains(bytes.trim_matches(['[', ']'])));
}
