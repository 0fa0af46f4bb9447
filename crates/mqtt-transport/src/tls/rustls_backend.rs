//! rustls: the same on every platform, with resumption, cipher order, revocation and several
//! identities.
//!
//! A configuration is never changed once it is in use: the tickets in it would keep an old identity
//! and a revoked server alive. Each generation has a new one, which costs microseconds.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    ClientConfig, RootCertStore, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
    client::{ResolvesClientCert, Resumption as Sessions, WebPkiServerVerifier},
    crypto::CryptoProvider,
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use secrecy::ExposeSecret;

use super::{
    Resumption, TlsConfig, TlsVersion, Trust,
    certificate::CertificateFacts,
    config::{RevocationDepth, UnknownRevocation},
    parsed::{KeyForm, Parsed, ParsedIdentity, ParsedKey},
    revocation,
};
use crate::ConfigErrors;

#[cfg(not(any(feature = "rustls-ring", feature = "rustls-aws-lc-rs")))]
compile_error!("the feature rustls needs a provider: enable rustls-ring or rustls-aws-lc-rs");

/// Always named: with two providers in a program rustls does not choose by itself.
fn provider() -> CryptoProvider {
    #[cfg(feature = "rustls-aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(all(feature = "rustls-ring", not(feature = "rustls-aws-lc-rs")))]
    return rustls::crypto::ring::default_provider();
    #[cfg(not(any(feature = "rustls-ring", feature = "rustls-aws-lc-rs")))]
    unreachable!("does not compile")
}

/// The IANA name: rustls marks the suites of TLS 1.3.
pub(super) fn iana_name(suite: SupportedCipherSuite) -> Option<&'static str> {
    let name = suite.suite().as_str()?;
    Some(match name {
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        other => other,
    })
}

/// The suites asked for, in that order.
fn cipher_suites(config: &TlsConfig, provider: &CryptoProvider) -> Vec<SupportedCipherSuite> {
    let find = |name: &String| {
        let mut all = provider.cipher_suites.iter().copied();
        all.find(|suite| iana_name(*suite) == Some(name.as_str()))
    };
    config.cipher_suites.iter().filter_map(find).collect()
}

fn versions(config: &TlsConfig) -> Vec<&'static SupportedProtocolVersion> {
    let wanted = config.min_version..=config.max_version;
    [(TlsVersion::V1_3, &TLS13), (TlsVersion::V1_2, &TLS12)]
        .into_iter()
        .filter(|(version, _)| wanted.contains(version))
        .map(|(_, version)| version)
        .collect()
}

pub(super) fn check_cipher_suites(config: &TlsConfig, errors: &mut ConfigErrors) {
    let provider = provider();
    let known: Vec<_> = provider
        .cipher_suites
        .iter()
        .filter_map(|suite| iana_name(*suite))
        .collect();
    for (index, name) in config.cipher_suites.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            errors.push(
                format!("tls.cipher_suites[{index}]"),
                format!("{name} (known: {})", known.join(", ")),
                "must be a suite that rustls has, by its IANA name",
                "leave the list out for rustls's own choice",
            );
        }
    }
    let versions = versions(config);
    let chosen = cipher_suites(config, &provider);
    if !chosen.is_empty()
        && let Some(missing) = versions
            .iter()
            .find(|version| !chosen.iter().any(|suite| suite.version() == **version))
    {
        errors.push(
            "tls.cipher_suites",
            config.cipher_suites.join(","),
            "needs a suite of each version from tls.min_version to tls.max_version",
            if missing.version == rustls::ProtocolVersion::TLSv1_3 {
                "add one of TLS 1.3, like TLS_AES_128_GCM_SHA256, or lower tls.max_version"
            } else {
                "add one of TLS 1.2, like TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, or raise tls.min_version"
            },
        );
    }
}

pub(super) fn build(
    config: &TlsConfig,
    parsed: Parsed,
    errors: &mut ConfigErrors,
) -> Option<Arc<ClientConfig>> {
    let mut provider = provider();
    if !config.cipher_suites.is_empty() {
        provider.cipher_suites = cipher_suites(config, &provider);
    }
    let provider = Arc::new(provider);
    let roots = Arc::new(roots(config.trust, &parsed, errors)?);
    let algorithms = provider.signature_verification_algorithms.all;
    for list in &parsed.revocation.lists {
        if let Err(error) = revocation::check_signature(list, &parsed.roots, algorithms) {
            errors.push(
                "tls.revocation.lists",
                error,
                "a list must be signed by its authority",
                "fetch it again; openssl crl -CAfile ROOT -in LIST checks it",
            );
            return None;
        }
    }
    let mut verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
    // An empty set of lists would mean no check.
    if !parsed.revocation.lists.is_empty() {
        verifier = verifier
            .with_crls(parsed.revocation.lists)
            .enforce_revocation_expiration();
        if config.revocation.depth == RevocationDepth::Leaf {
            verifier = verifier.only_check_end_entity_revocation();
        }
        if config.revocation.unknown == UnknownRevocation::Allow {
            verifier = verifier.allow_unknown_revocation_status();
        }
    }
    let verifier = match verifier.build() {
        Ok(verifier) => verifier,
        Err(error) => {
            errors.push(
                "tls.revocation.lists",
                error,
                "rustls must be able to read roots and lists",
                "look at them with openssl crl -text",
            );
            return None;
        }
    };
    let builder = match ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(config))
    {
        Ok(builder) => builder.with_webpki_verifier(verifier),
        Err(error) => {
            errors.push(
                "tls.cipher_suites",
                error,
                "rustls must take versions and suites together",
                "leave the list out for rustls's own choice",
            );
            return None;
        }
    };
    let mut keys = Vec::new();
    for (index, identity) in parsed.identities.iter().enumerate() {
        match certified_key(identity, &provider) {
            Ok(key) => keys.push(key),
            Err(error) => errors.push(
                format!("tls.identities[{index}]"),
                error,
                "certificate and key must belong together",
                "compare: openssl x509 -noout -pubkey -in CERTIFICATE; openssl pkey -pubout -in KEY",
            ),
        }
    }
    let mut built = if keys.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_resolver(Arc::new(Identities(keys)))
    };
    built.enable_sni = config.send_server_name;
    built.alpn_protocols = config
        .alpn
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    if config.resumption == Resumption::Off {
        built.resumption = Sessions::disabled();
    }
    Some(Arc::new(built))
}

fn roots(trust: Trust, parsed: &Parsed, errors: &mut ConfigErrors) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in &parsed.roots {
        if let Err(error) = roots.add(root.clone()) {
            errors.push(
                "tls.roots",
                error,
                "rustls must be able to read it",
                "look at it with openssl x509 -text",
            );
        }
    }
    if trust != Trust::Own {
        let now = SystemTime::now();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the system's roots cannot be read");
        }
        // What the system still lists though it has ended, or cannot be read, is left out.
        let usable = found.certs.into_iter().filter(|root| {
            CertificateFacts::from_der(root).is_some_and(|facts| facts.check_validity(now).is_ok())
        });
        roots.add_parsable_certificates(usable);
    }
    if roots.is_empty() {
        errors.push(
            "tls.trust",
            "no roots",
            "somebody must be trusted",
            "install the system's (ca-certificates), or give tls.roots",
        );
        return None;
    }
    Some(roots)
}

fn certified_key(
    identity: &ParsedIdentity,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let (form, der) = match &identity.key {
        ParsedKey::Der { form, der } => (form, der.expose_secret().to_vec()),
        #[cfg(not(feature = "pkcs12"))]
        ParsedKey::Archive { .. } => {
            let reason = "an archive needs the feature pkcs12";
            return Err(rustls::Error::General(reason.to_owned()));
        }
    };
    let key = match form {
        KeyForm::Pkcs1 => PrivateKeyDer::from(PrivatePkcs1KeyDer::from(der)),
        KeyForm::Pkcs8 => PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der)),
        KeyForm::Sec1 => PrivateKeyDer::from(PrivateSec1KeyDer::from(der)),
    };
    CertifiedKey::from_der(identity.certificates.clone(), key, provider).map(Arc::new)
}

/// Shows the first identity that the server can verify, if possible one of an authority it names.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let mut usable = self
            .0
            .iter()
            .filter(|key| key.key.choose_scheme(sigschemes).is_some());
        let named = usable.clone().find(|key| {
            key.cert.iter().any(|certificate| {
                issuer(certificate).is_some_and(|issuer| root_hint_subjects.contains(&&*issuer))
            })
        });
        named.or_else(|| usable.next()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }

    fn only_raw_public_keys(&self) -> bool {
        false
    }
}

/// The issuer of a certificate, as servers name the authorities they accept.
fn issuer(der: &[u8]) -> Option<Vec<u8>> {
    use x509_parser::prelude::{FromDer, X509Certificate};

    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.issuer().as_raw().to_vec())
}
