//! Material taken apart and checked, the same for both backends.
//!
//! What the backends would find late, find only at a connect or not at all is found here: empty and
//! expired roots, identities out of their time, keys in a form that cannot be used. Every problem is
//! reported, not the first.

use std::time::SystemTime;

use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::{
    Backend, IdentityMaterial, TlsMaterial, Trust, certificate::CertificateFacts, revocation,
};
use crate::ConfigErrors;

#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) identities: Vec<ParsedIdentity>,
    pub(super) revocation: revocation::Selected,
}

/// A certificate with its chain and its key.
#[derive(Debug)]
pub(super) struct ParsedIdentity {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) key: ParsedKey,
    /// Of its own certificate.
    pub(super) facts: Option<CertificateFacts>,
}

#[derive(Debug)]
pub(super) enum ParsedKey {
    /// Plain, in DER.
    Der { form: KeyForm, der: SecretSlice<u8> },
    /// With its certificates in an archive, for a library that opens it by itself.
    #[cfg(not(feature = "pkcs12"))]
    #[cfg_attr(
        not(feature = "native-tls"),
        expect(dead_code, reason = "rustls cannot open it and was refused")
    )]
    Archive {
        archive: SecretSlice<u8>,
        password: SecretString,
    },
}

/// The ASN.1 around a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyForm {
    Pkcs1,
    Pkcs8,
    Sec1,
}

impl ParsedKey {
    /// `None` if it is not known.
    fn form(&self) -> Option<KeyForm> {
        match self {
            Self::Der { form, .. } => Some(*form),
            #[cfg(not(feature = "pkcs12"))]
            Self::Archive { .. } => None,
        }
    }
}

pub(super) fn parse(
    material: TlsMaterial,
    trust: Trust,
    backend: Backend,
    errors: &mut ConfigErrors,
) -> Parsed {
    let now = SystemTime::now();
    let roots = roots(&material, now, errors);
    if trust == Trust::Own && material.roots.is_empty() {
        errors.push(
            "tls.roots",
            "empty",
            "somebody must be trusted",
            "give the authority's certificate, or set tls.trust to system",
        );
    }
    let mut identities = Vec::new();
    for (index, material) in material.identities.into_iter().enumerate() {
        let path = format!("tls.identities[{index}]");
        if let Some(parsed) = identity(material, backend, &path, errors) {
            if let Some(facts) = &parsed.facts
                && let Err(reason) = facts.check_validity(now)
            {
                errors.push(
                    path,
                    format!("{} ({reason})", facts.subject),
                    "the certificate must count now",
                    "renew it; and see that this machine's clock is right",
                );
            }
            identities.push(parsed);
        }
    }
    let mut lists: Vec<CertificateRevocationListDer<'static>> = Vec::new();
    for (index, content) in material.revocation_lists.iter().enumerate() {
        match revocation::parse(content) {
            Ok(parsed) => lists.extend(parsed),
            Err(error) => errors.push(
                format!("tls.revocation.lists[{index}]"),
                error,
                "must be a revocation list in PEM or DER",
                "look at it with openssl crl -text",
            ),
        }
    }
    let revocation = revocation::select(lists, now).unwrap_or_else(|error| {
        errors.push(
            "tls.revocation.lists",
            error,
            "each list must count now, and be the only authority's of its name",
            "fetch the authority's present list",
        );
        revocation::Selected::default()
    });
    Parsed {
        roots,
        identities,
        revocation,
    }
}

fn roots(
    material: &TlsMaterial,
    now: SystemTime,
    errors: &mut ConfigErrors,
) -> Vec<CertificateDer<'static>> {
    let mut roots: Vec<CertificateDer<'static>> = Vec::new();
    for (index, content) in material.roots.iter().enumerate() {
        let path = format!("tls.roots[{index}]");
        let Some(certificates) = certificates(content, &path, errors) else {
            continue;
        };
        for root in certificates {
            match CertificateFacts::from_der(&root) {
                None => errors.push(
                    path.clone(),
                    "not an X.509 certificate",
                    "must be certificates in PEM or DER",
                    "look at it with openssl x509 -text",
                ),
                Some(facts) => {
                    // The backends differ here: one would trust an expired root.
                    if let Err(reason) = facts.check_validity(now) {
                        errors.push(
                            path.clone(),
                            format!("{} ({reason})", facts.subject),
                            "a root must count now",
                            "replace it by its successor, or remove it",
                        );
                    } else if !roots.contains(&root) {
                        roots.push(root);
                    }
                }
            }
        }
    }
    roots
}

pub(super) fn is_pem(content: &[u8]) -> bool {
    content
        .windows(b"-----BEGIN".len())
        .any(|window| window == b"-----BEGIN")
}

/// What is wrong with PEM. The library's own text repeats lines of it, which may be a key's.
pub(super) fn pem_problem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a PEM section does not end; are its lines apart?",
        pem::Error::IllegalSectionStart { .. } => "a PEM section does not begin well",
        pem::Error::Base64Decode(_) => "a PEM section is not base64",
        pem::Error::NoItemsFound => "there is no section of this kind in it",
        pem::Error::SectionTooLarge | pem::Error::Io(_) | _ => "it is not well-formed PEM",
    }
}

/// The certificates in `content`, one at least.
fn certificates(
    content: &[u8],
    path: &str,
    errors: &mut ConfigErrors,
) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = if is_pem(content) {
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
        match parsed {
            Ok(certificates) => certificates,
            Err(error) => {
                errors.push(
                    path.to_owned(),
                    pem_problem(&error),
                    "must be certificates in PEM or DER",
                    "it may be damaged or half written",
                );
                return None;
            }
        }
    } else if content.is_empty() {
        Vec::new()
    } else {
        vec![content.to_vec().into()]
    };
    if certificates.is_empty() {
        errors.push(
            path.to_owned(),
            "no certificate in it",
            "must be certificates in PEM or DER",
            "a PEM certificate begins with -----BEGIN CERTIFICATE-----",
        );
        return None;
    }
    Some(certificates)
}

fn identity(
    material: IdentityMaterial,
    backend: Backend,
    path: &str,
    errors: &mut ConfigErrors,
) -> Option<ParsedIdentity> {
    let (certificates, key) = match material {
        IdentityMaterial::Pem {
            certificate,
            key: material,
            password,
        } => {
            let certificates = certificates(&certificate, &format!("{path}.certificate"), errors);
            let key = key(&material, password.as_ref(), &format!("{path}.key"), errors);
            (certificates?, key?)
        }
        IdentityMaterial::Pkcs12 { archive, password } => {
            open_archive(archive, password, &format!("{path}.pkcs12"), errors)?
        }
    };
    if backend == Backend::NativeTls
        && let Some(form) = key.form()
        && form != KeyForm::Pkcs8
    {
        errors.push(
            format!("{path}.key"),
            format!("{form:?}"),
            "native-tls takes keys in PKCS#8 only",
            "convert it: openssl pkcs8 -topk8 -nocrypt; or set tls.backend to rustls",
        );
        return None;
    }
    let facts = certificates
        .first()
        .and_then(|own| CertificateFacts::from_der(own));
    if facts.is_none() && key.form().is_some() {
        errors.push(
            format!("{path}.certificate"),
            "not an X.509 certificate",
            "must be certificates in PEM or DER",
            "look at it with openssl x509 -text",
        );
        return None;
    }
    Some(ParsedIdentity {
        certificates,
        key,
        facts,
    })
}

fn key(
    material: &SecretSlice<u8>,
    password: Option<&SecretString>,
    path: &str,
    errors: &mut ConfigErrors,
) -> Option<ParsedKey> {
    let content = material.expose_secret();
    let text = std::str::from_utf8(content).unwrap_or_default();
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        return decrypt(text, password, path, errors);
    }
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        errors.push(
            path.to_owned(),
            "encrypted in the old way of OpenSSL",
            "that form is not read",
            "convert it: openssl pkcs8 -topk8",
        );
        return None;
    }
    let key = if is_pem(content) {
        PrivateKeyDer::from_pem_slice(content).map_err(|error| pem_problem(&error))
    } else {
        PrivateKeyDer::try_from(content.to_vec())
    };
    match key {
        Ok(key) => {
            let form = match &key {
                PrivateKeyDer::Pkcs1(_) => KeyForm::Pkcs1,
                PrivateKeyDer::Sec1(_) => KeyForm::Sec1,
                PrivateKeyDer::Pkcs8(_) | _ => KeyForm::Pkcs8,
            };
            let der = key.secret_der().to_vec().into();
            wipe(key);
            Some(ParsedKey::Der { form, der })
        }
        Err(error) => {
            errors.push(
                path.to_owned(),
                error,
                "must be a private key in PEM or DER",
                "a PEM key begins with -----BEGIN PRIVATE KEY-----; it may be half written",
            );
            None
        }
    }
}

/// The type does not wipe itself.
fn wipe(mut key: PrivateKeyDer<'static>) {
    secrecy::zeroize::Zeroize::zeroize(&mut key);
}

#[cfg(feature = "encrypted-keys")]
fn decrypt(
    text: &str,
    password: Option<&SecretString>,
    path: &str,
    errors: &mut ConfigErrors,
) -> Option<ParsedKey> {
    use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};

    let Some(password) = password else {
        errors.push(
            path.to_owned(),
            "encrypted",
            "needs its password",
            "give the place of it as the identity's password",
        );
        return None;
    };
    let start = text.find("-----BEGIN").unwrap_or_default();
    // Not the library's texts: they are about the content.
    let decrypted = SecretDocument::from_pem(text.get(start..).unwrap_or_default())
        .map_err(|_| "it is not well-formed PEM")
        .and_then(|(_, document)| {
            EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
                .map_err(|_| "it is not an encrypted PKCS#8 key")?
                .decrypt(password.expose_secret())
                .map_err(|_| "the password or the encryption is not the right one")
        });
    match decrypted {
        Ok(key) => Some(ParsedKey::Der {
            form: KeyForm::Pkcs8,
            der: key.as_bytes().to_vec().into(),
        }),
        Err(error) => {
            errors.push(
                path.to_owned(),
                error,
                "must open with its password",
                "is it the right one? openssl pkcs8 -in FILE asks for it",
            );
            None
        }
    }
}

#[cfg(not(feature = "encrypted-keys"))]
fn decrypt(
    _: &str,
    _: Option<&SecretString>,
    path: &str,
    errors: &mut ConfigErrors,
) -> Option<ParsedKey> {
    errors.push(
        path.to_owned(),
        "encrypted",
        "needs the feature encrypted-keys",
        "build with it, or decrypt the key: openssl pkcs8 -in FILE -out NEW",
    );
    None
}

/// Opens it here, for either backend; it reads old encryptions too.
#[cfg(feature = "pkcs12")]
fn open_archive(
    archive: SecretSlice<u8>,
    password: SecretString,
    path: &str,
    errors: &mut ConfigErrors,
) -> Option<(Vec<CertificateDer<'static>>, ParsedKey)> {
    use p12_keystore::{KeyStore, Pkcs12ImportPolicy};

    let store = KeyStore::from_pkcs12(
        archive.expose_secret(),
        password.expose_secret(),
        Pkcs12ImportPolicy::Relaxed,
    );
    let problem = match &store {
        Ok(store) => match store.private_key_chain() {
            Some((_, chain)) if !chain.certs().is_empty() => {
                let certificates = chain.certs().iter();
                let certificates = certificates.map(|one| one.as_der().to_vec().into());
                let key = ParsedKey::Der {
                    form: KeyForm::Pkcs8,
                    der: chain.key().as_der().to_vec().into(),
                };
                return Some((certificates.collect(), key));
            }
            _ => "it holds no key with a certificate".to_owned(),
        },
        Err(error) => error.to_string(),
    };
    errors.push(
        path.to_owned(),
        problem,
        "must be a PKCS#12 archive that opens with its password",
        "openssl pkcs12 -info shows what is in it",
    );
    None
}

/// The library opens it; rustls, which cannot, was refused before.
#[cfg(not(feature = "pkcs12"))]
fn open_archive(
    archive: SecretSlice<u8>,
    password: SecretString,
    _: &str,
    _: &mut ConfigErrors,
) -> Option<(Vec<CertificateDer<'static>>, ParsedKey)> {
    Some((Vec::new(), ParsedKey::Archive { archive, password }))
}
