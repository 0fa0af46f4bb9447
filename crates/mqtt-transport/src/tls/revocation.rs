//! Which revocation lists are used.
//!
//! A verifier takes the first list whose issuer's name fits. An older one before a newer would let
//! what was revoked since pass, and one of an authority that has another key now would make good
//! certificates fail. So of the lists of one issuer and distribution point the newest is kept, and
//! two keys under one name are refused.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime},
};

use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};
use x509_parser::{
    extensions::ParsedExtension,
    prelude::{FromDer, X509Extension},
    revocation_list::CertificateRevocationList,
};

use super::{
    certificate::{hex, system_time},
    parsed::{is_pem, pem_problem},
};

/// The lists in `content`, PEM or DER.
pub(super) fn parse(content: &[u8]) -> io::Result<Vec<CertificateRevocationListDer<'static>>> {
    if !is_pem(content) {
        return Ok(vec![content.to_vec().into()]);
    }
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(content).collect();
    let lists = lists.map_err(|error| invalid(pem_problem(&error)))?;
    if lists.is_empty() {
        return Err(invalid("there is no X509 CRL in it"));
    }
    Ok(lists)
}

/// That all lists in `content` are well-formed and count now; says until when.
pub(super) fn check_current(content: &[u8]) -> io::Result<SystemTime> {
    let mut until = None;
    for der in parse(content)? {
        let facts = facts(&der)?;
        facts.check_current(SystemTime::now())?;
        let first = until.get_or_insert(facts.next_update);
        *first = facts.next_update.min(*first);
    }
    until.ok_or_else(|| invalid("there is no X509 CRL in it"))
}

/// What decides between lists.
struct Facts {
    issuer: Vec<u8>,
    distribution_point: Vec<u8>,
    key: Vec<u8>,
    number: Vec<u8>,
    this_update: SystemTime,
    next_update: SystemTime,
}

impl Facts {
    fn check_current(&self, now: SystemTime) -> io::Result<()> {
        if now > self.next_update {
            Err(invalid("it has expired (nextUpdate has passed)"))
        } else if now < self.this_update {
            Err(invalid("it is not valid yet (thisUpdate is to come)"))
        } else {
            Ok(())
        }
    }
}

fn facts(der: &[u8]) -> io::Result<Facts> {
    let (_, list) = CertificateRevocationList::from_der(der)
        .map_err(|error| invalid(format!("not a revocation list: {error}")))?;
    let next_update = list
        .next_update()
        .ok_or_else(|| invalid("it does not say until when it counts (nextUpdate)"))?;
    let extensions = list.extensions();
    Ok(Facts {
        issuer: list.issuer().as_raw().to_vec(),
        distribution_point: raw(extensions, |parsed| {
            matches!(parsed, ParsedExtension::IssuingDistributionPoint(_))
        }),
        key: extensions
            .iter()
            .find_map(|extension| {
                let ParsedExtension::AuthorityKeyIdentifier(key) = extension.parsed_extension()
                else {
                    return None;
                };
                key.key_identifier.as_ref().map(|key| key.0.to_vec())
            })
            .unwrap_or_default(),
        // Padded, so that the order of bytes is the order of numbers.
        number: list
            .crl_number()
            .map(|number| {
                let bytes = number.to_bytes_be();
                let mut padded = vec![0; 32_usize.saturating_sub(bytes.len())];
                padded.extend(bytes);
                padded
            })
            .unwrap_or_default(),
        this_update: system_time(list.last_update()),
        next_update: system_time(next_update),
    })
}

fn raw(extensions: &[X509Extension<'_>], is: impl Fn(&ParsedExtension<'_>) -> bool) -> Vec<u8> {
    extensions
        .iter()
        .find(|extension| is(extension.parsed_extension()))
        .map(|extension| extension.value.to_vec())
        .unwrap_or_default()
}

/// The lists to use, and until when the first of them counts.
#[derive(Debug, Default)]
pub(super) struct Selected {
    #[cfg_attr(
        not(feature = "rustls"),
        expect(dead_code, reason = "native-tls takes none")
    )]
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    pub(super) next_update: Option<SystemTime>,
}

/// Chooses among all lists of a generation. Each must count now.
pub(super) fn select(
    lists: Vec<CertificateRevocationListDer<'static>>,
    now: SystemTime,
) -> io::Result<Selected> {
    let mut newest: BTreeMap<(Vec<u8>, Vec<u8>), (Facts, CertificateRevocationListDer<'static>)> =
        BTreeMap::new();
    let mut keys: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for der in lists {
        let facts = facts(&der)?;
        facts.check_current(now)?;
        let key = keys
            .entry(facts.issuer.clone())
            .or_insert_with(|| facts.key.clone());
        if *key != facts.key {
            let reason = format!(
                "two lists of one authority's name are signed with different keys ({} and {})",
                hex(key),
                hex(&facts.key)
            );
            return Err(invalid(reason));
        }
        let place = (facts.issuer.clone(), facts.distribution_point.clone());
        match newest.get(&place) {
            Some((known, _))
                if (&known.number, known.this_update) >= (&facts.number, facts.this_update) => {}
            _ => {
                newest.insert(place, (facts, der));
            }
        }
    }
    let next_update = newest.values().map(|(facts, _)| facts.next_update).min();
    // A list of everything and one of a single distribution point may both fit a certificate.
    let mut newest: Vec<_> = newest.into_values().collect();
    newest.sort_by_key(|(facts, _)| std::cmp::Reverse((facts.this_update, facts.number.clone())));
    Ok(Selected {
        lists: newest.into_iter().map(|(_, der)| der).collect(),
        next_update,
    })
}

/// Until when to have read the lists again: well before the first of them ends.
pub(super) fn refresh_at(next_update: SystemTime, now: SystemTime) -> Duration {
    let left = next_update.duration_since(now).unwrap_or_default();
    left / 2
}

/// That a list is signed by whom it names, where that authority is among `certificates`; a list
/// that is not would make every handshake fail, so it must not replace one that is.
#[cfg(feature = "rustls")]
pub(super) fn check_signature(
    der: &[u8],
    certificates: &[rustls_pki_types::CertificateDer<'static>],
    algorithms: &[&'static dyn rustls_pki_types::SignatureVerificationAlgorithm],
) -> io::Result<()> {
    use x509_parser::certificate::X509Certificate;

    let (_, list) = CertificateRevocationList::from_der(der)
        .map_err(|error| invalid(format!("not a revocation list: {error}")))?;
    let mut known = false;
    for authority in certificates {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else {
            continue;
        };
        if authority.subject().as_raw() != list.issuer().as_raw() {
            continue;
        }
        known = true;
        let key = authority.public_key();
        let verified = algorithms.iter().any(|algorithm| {
            algorithm
                .verify_signature(
                    &key.subject_public_key.data,
                    list.tbs_cert_list.as_ref(),
                    &list.signature_value.data,
                )
                .is_ok()
        });
        if verified {
            return Ok(());
        }
    }
    if known {
        Err(invalid("its signature is not that of its issuer"))
    } else {
        Ok(())
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}
