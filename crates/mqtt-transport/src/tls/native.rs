//! native-tls: the platform's library.
//!
//! Its connector takes tens of milliseconds of CPU to build, since it reads the system's roots even
//! where they are not wanted: one for each generation, and never in a task.

use native_tls::{Certificate, Identity, Protocol, TlsConnector};
use secrecy::{ExposeSecret, SecretString};

use super::{
    TlsConfig, TlsVersion, Trust,
    parsed::{Parsed, ParsedIdentity, ParsedKey},
};
use crate::ConfigErrors;

/// Builds a connector. Blocks.
pub(super) fn build(
    config: &TlsConfig,
    parsed: Parsed,
    errors: &mut ConfigErrors,
) -> Option<tokio_native_tls::TlsConnector> {
    let mut builder = TlsConnector::builder();
    builder
        .min_protocol_version(Some(protocol(config.min_version)))
        .max_protocol_version(Some(protocol(config.max_version)))
        .use_sni(config.send_server_name)
        .disable_built_in_roots(config.trust == Trust::Own);
    for root in &parsed.roots {
        match Certificate::from_der(root) {
            Ok(root) => {
                builder.add_root_certificate(root);
            }
            Err(error) => errors.push(
                "tls.roots",
                error,
                "native-tls must be able to read it",
                "look at it with openssl x509 -text",
            ),
        }
    }
    if let Some(material) = parsed.identities.first() {
        match identity(material) {
            Ok(identity) => {
                builder.identity(identity);
            }
            Err(error) => refuse_identity(&error, errors),
        }
    }
    if !config.alpn.is_empty() {
        let protocols: Vec<&str> = config.alpn.iter().map(String::as_str).collect();
        builder.request_alpns(&protocols);
    }
    match builder.build() {
        Ok(connector) => Some(connector.into()),
        Err(error) => {
            if parsed.identities.is_empty() {
                errors.push(
                    "tls",
                    error,
                    "native-tls must take the options",
                    "see the platform's TLS configuration",
                );
            } else {
                refuse_identity(&error, errors);
            }
            None
        }
    }
}

fn refuse_identity(error: &native_tls::Error, errors: &mut ConfigErrors) {
    errors.push(
        "tls.identities[0]",
        error,
        "certificate, key and password must belong together",
        "compare: openssl x509 -noout -pubkey -in CERTIFICATE; openssl pkey -pubout -in KEY",
    );
}

fn identity(identity: &ParsedIdentity) -> Result<Identity, native_tls::Error> {
    match &identity.key {
        #[cfg(not(feature = "pkcs12"))]
        ParsedKey::Archive { archive, password } => {
            Identity::from_pkcs12(archive.expose_secret(), password.expose_secret())
        }
        ParsedKey::Der { der, .. } => {
            let certificates: String = identity
                .certificates
                .iter()
                .map(|certificate| pem("CERTIFICATE", certificate))
                .collect();
            let key = SecretString::from(pem("PRIVATE KEY", der.expose_secret()));
            Identity::from_pkcs8(certificates.as_bytes(), key.expose_secret().as_bytes())
        }
    }
}

/// The only form that the library takes.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    let body = SecretString::from(STANDARD.encode(der));
    let mut rest = body.expose_secret();
    // As long as it gets, so that no copy is left behind by growing.
    let mut text = String::with_capacity(rest.len() + rest.len() / 64 + 2 * label.len() + 40);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

fn protocol(version: TlsVersion) -> Protocol {
    match version {
        TlsVersion::V1_2 => Protocol::Tlsv12,
        TlsVersion::V1_3 => Protocol::Tlsv13,
    }
}
