//! What a [`TlsConfig`] may not ask for, and what the chosen backend cannot do of it.

use std::time::Duration;

use super::{
    Backend, Location, Resumption, TlsConfig, TlsVersion, Trust,
    config::{TlsIdentity, UnknownRevocation},
};
use crate::{ConfigErrors, Limit};

/// Reading material more often only burns the processor.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(366 * 24 * 60 * 60);

const USE_RUSTLS: &str = "set tls.backend to rustls and build with rustls-ring or rustls-aws-lc-rs";

pub(super) fn check(config: &TlsConfig, errors: &mut ConfigErrors) {
    if !config.backend.is_built_in() {
        errors.push(
            "tls.backend",
            config.backend,
            "must be part of this build",
            "build with the feature native-tls, rustls-ring or rustls-aws-lc-rs",
        );
    }
    if config.trust == Trust::System && !config.roots.is_empty() {
        errors.push(
            "tls.roots",
            format!("{} places", config.roots.len()),
            "is not used while tls.trust is system",
            "set tls.trust to own, or to both",
        );
    }
    if config.min_version > config.max_version {
        errors.push(
            "tls.min_version",
            config.min_version,
            "must not be newer than tls.max_version",
            "1.2 to 1.3 is the default",
        );
    }
    if let Some(name) = &config.server_name
        && super::name::parse(name).is_err()
    {
        errors.push(
            "tls.server_name",
            format!("{name:?}"),
            "must be a host name in ASCII or an address",
            "an international name is written with xn--",
        );
    }
    for (index, protocol) in config.alpn.iter().enumerate() {
        if !(1..=255).contains(&protocol.len()) {
            errors.push(
                format!("tls.alpn[{index}]"),
                format!("{protocol:?}"),
                "1 to 255 bytes",
                "servers that want one expect mqtt",
            );
        }
    }
    if config.handshake_timeout.is_zero() {
        errors.push(
            "tls.handshake_timeout",
            "0s",
            "more than zero",
            "5s is the default",
        );
    }
    if let Limit::After(interval) = config.reload.interval
        && !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval)
    {
        errors.push(
            "tls.reload.interval",
            config.reload.interval,
            "100ms to 366d",
            "1m is the default; never switches it off",
        );
    }
    if config.reload.timeout.is_zero() {
        errors.push(
            "tls.reload.timeout",
            "0s",
            "more than zero",
            "30s is the default",
        );
    }
    // From its end on a list counts as missing, and then nobody is trusted.
    if config.reload.interval == Limit::Never && config.wants_revocation() {
        errors.push(
            "tls.reload.interval",
            config.reload.interval,
            "revocation lists must be read again before they end",
            "1m is the default",
        );
    }
    if !(0.0..=1.0).contains(&config.reload.jitter) {
        errors.push(
            "tls.reload.jitter",
            config.reload.jitter,
            "0 to 1",
            "0.1 is the default",
        );
    }
    for (index, identity) in config.identities.iter().enumerate() {
        check_identity(config.backend, index, identity, errors);
    }
    check_places(config, errors);
    match config.backend {
        Backend::NativeTls => check_native(config, errors),
        Backend::Rustls => check_rustls(config, errors),
    }
}

fn check_identity(
    backend: Backend,
    index: usize,
    identity: &TlsIdentity,
    errors: &mut ConfigErrors,
) {
    let path = format!("tls.identities[{index}]");
    let whole = matches!(
        (&identity.certificate, &identity.key, &identity.pkcs12),
        (Some(_), Some(_), None) | (None, None, Some(_))
    );
    if !whole {
        errors.push(
            path,
            "incomplete or ambiguous",
            "needs certificate and key, or pkcs12",
            "give the places of both parts, or of one archive",
        );
    } else if identity.pkcs12.is_some() && backend == Backend::Rustls && !cfg!(feature = "pkcs12") {
        errors.push(
            format!("{path}.pkcs12"),
            "given",
            "needs the feature pkcs12 with rustls",
            "build with it, or convert: openssl pkcs12 -in FILE -nodes",
        );
    } else if identity.pkcs12.is_some() && identity.password.is_none() {
        errors.push(
            format!("{path}.password"),
            "missing",
            "an archive needs one",
            "give its place, also of an empty one",
        );
    }
}

/// Only lists of revocations are fetched from elsewhere: roots and keys would make whoever answers
/// there the one to be trusted.
fn check_places(config: &TlsConfig, errors: &mut ConfigErrors) {
    let mut refuse = |path: String, location: &Location| {
        if matches!(location, Location::Url(_)) {
            errors.push(
                path,
                location,
                "only revocation lists can be fetched from a URL",
                "use a file, an environment variable, or a MaterialSource of your own",
            );
        }
    };
    for (index, root) in config.roots.iter().enumerate() {
        refuse(format!("tls.roots[{index}]"), root);
    }
    for (index, identity) in config.identities.iter().enumerate() {
        let parts = [
            ("certificate", &identity.certificate),
            ("key", &identity.key),
            ("pkcs12", &identity.pkcs12),
            ("password", &identity.password),
        ];
        for (name, part) in parts {
            if let Some(location) = part {
                refuse(format!("tls.identities[{index}].{name}"), location);
            }
        }
    }
    for (index, places) in config.revocation.lists.iter().enumerate() {
        if places.is_empty() {
            errors.push(
                format!("tls.revocation.lists[{index}]"),
                "[]",
                "needs at least one place",
                "remove it, or say where the list is",
            );
        }
        if places.iter().any(has_credentials) {
            errors.push(
                format!("tls.revocation.lists[{index}]"),
                "a URL with a user name or password",
                "secrets have no place in a URL that is logged",
                "let the CrlFetcher know them",
            );
        }
    }
}

fn has_credentials(place: &Location) -> bool {
    let Location::Url(url) = place else {
        return false;
    };
    let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    let end = authority.find('/').unwrap_or(authority.len());
    authority.get(..end).is_some_and(|part| part.contains('@'))
}

fn check_native(config: &TlsConfig, errors: &mut ConfigErrors) {
    if !config.cipher_suites.is_empty() {
        errors.push(
            "tls.cipher_suites",
            config.cipher_suites.join(","),
            "native-tls cannot choose cipher suites",
            USE_RUSTLS,
        );
    }
    if config.wants_revocation() {
        errors.push(
            "tls.revocation",
            format!("{} lists", config.revocation.lists.len()),
            "native-tls takes no revocation lists",
            USE_RUSTLS,
        );
    }
    if config.resumption == Resumption::Required {
        errors.push(
            "tls.resumption",
            "required",
            "native-tls never resumes a session",
            USE_RUSTLS,
        );
    }
    if config.identities.len() > 1 {
        errors.push(
            "tls.identities",
            format!("{} identities", config.identities.len()),
            "native-tls takes one",
            USE_RUSTLS,
        );
    }
    if cfg!(target_vendor = "apple") && config.min_version == TlsVersion::V1_3 {
        errors.push(
            "tls.min_version",
            config.min_version,
            "native-tls speaks no TLS 1.3 on Apple's platforms",
            USE_RUSTLS,
        );
    }
    if cfg!(any(target_vendor = "apple", windows)) && !config.identities.is_empty() {
        // It would put the key into a key store of the system; see the module's documentation.
        errors.push(
            "tls.identities",
            format!("{} identities", config.identities.len()),
            "native-tls does not keep keys in memory on this platform",
            USE_RUSTLS,
        );
    }
    if cfg!(windows) && config.trust != Trust::System {
        errors.push(
            "tls.trust",
            format!("{:?}", config.trust),
            "native-tls cannot replace the system's roots on Windows",
            USE_RUSTLS,
        );
    }
}

fn check_rustls(config: &TlsConfig, errors: &mut ConfigErrors) {
    if !config.wants_revocation() && config.revocation.unknown == UnknownRevocation::Allow {
        errors.push(
            "tls.revocation.unknown",
            "allow",
            "means nothing without tls.revocation.lists",
            "give lists, set tls.revocation.required for a source of your own, or leave it out",
        );
    }
    #[cfg(feature = "rustls")]
    super::rustls_backend::check_cipher_suites(config, errors);
}
