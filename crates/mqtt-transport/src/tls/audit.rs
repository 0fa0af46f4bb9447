//! The trail of what happened to material, and its metrics.
//!
//! Events carry names, fingerprints and dates, never material. Their target is fixed, so that they
//! can be kept apart from other logs.

use std::{sync::Once, time::SystemTime};

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use super::{Generation, Reload, TlsError, certificate::unix_seconds};
use crate::{Endpoint, Limit};

/// The target of all events here.
pub const AUDIT_TARGET: &str = "mqtt_transport::audit";

const RELOADS: &str = "mqtt_transport_tls_reloads_total";
const NOT_AFTER: &str = "mqtt_transport_tls_identity_not_after_seconds";
const AGE: &str = "mqtt_transport_tls_material_age_seconds";
const GENERATION: &str = "mqtt_transport_tls_generation";
const HANDSHAKES: &str = "mqtt_transport_tls_handshakes_total";
const HANDSHAKE_TIME: &str = "mqtt_transport_tls_handshake_seconds";

pub(super) fn describe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        describe_counter!(
            RELOADS,
            Unit::Count,
            "looks at the TLS material by source and result"
        );
        describe_gauge!(
            NOT_AFTER,
            Unit::Seconds,
            "when the first of our certificates ends, since 1970"
        );
        describe_gauge!(
            AGE,
            Unit::Seconds,
            "how long the TLS material has been in use"
        );
        describe_gauge!(
            GENERATION,
            Unit::Count,
            "the number of the TLS material in use"
        );
        describe_counter!(
            HANDSHAKES,
            Unit::Count,
            "TLS handshakes by result, and whether resumed"
        );
        metrics::describe_histogram!(
            HANDSHAKE_TIME,
            Unit::Seconds,
            "how long TLS handshakes that succeeded took"
        );
    });
}

/// A generation is in use from now on.
pub(super) fn renewed(source: &str, version: Option<&str>, generation: &Generation) {
    for identity in &generation.identities {
        tracing::info!(
            target: AUDIT_TARGET,
            source,
            version,
            generation = generation.number,
            fingerprint = identity.fingerprint,
            subject = identity.subject,
            serial = identity.serial,
            not_after = unix_seconds(identity.not_after),
            "TLS identity in use"
        );
    }
    tracing::info!(target: AUDIT_TARGET, source, version, generation = generation.number, "TLS material in use");
    gauges(source, generation);
}

/// Connections of older generations must go.
pub(super) fn retired(source: &str, oldest_allowed: u64) {
    tracing::warn!(target: AUDIT_TARGET, source, oldest_allowed, "older TLS material withdrawn");
}

/// The source was asked again.
pub(super) fn looked(
    source: &str,
    current: &Generation,
    outcome: &Result<Reload, TlsError>,
    warn_before: Limit,
) {
    let result = match outcome {
        Ok(Reload::Unchanged) => "unchanged",
        Ok(Reload::Renewed(_)) => "renewed",
        Err(error) => {
            tracing::error!(
                target: AUDIT_TARGET,
                source,
                generation = current.number,
                error = chain(error),
                "TLS material not renewed, the last good one stays"
            );
            "failed"
        }
    };
    counter!(RELOADS, "source" => source.to_owned(), "result" => result).increment(1);
    gauges(source, current);
    let Limit::After(warn_before) = warn_before else {
        return;
    };
    // A bound beyond all times warns always.
    let soon = SystemTime::now().checked_add(warn_before);
    let ends_soon = |not_after| soon.is_none_or(|soon| not_after <= soon);
    for identity in current
        .identities
        .iter()
        .filter(|one| ends_soon(one.not_after))
    {
        tracing::warn!(
            target: AUDIT_TARGET,
            source,
            fingerprint = identity.fingerprint,
            subject = identity.subject,
            not_after = unix_seconds(identity.not_after),
            "TLS identity ends soon"
        );
    }
}

/// An error and all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn gauges(source: &str, generation: &Generation) {
    let first = generation.identities.iter().map(|one| one.not_after).min();
    if let Some(not_after) = first {
        gauge!(NOT_AFTER, "source" => source.to_owned()).set(float(unix_seconds(not_after)));
    }
    let age = generation.since.elapsed().unwrap_or_default();
    gauge!(AGE, "source" => source.to_owned()).set(age.as_secs_f64());
    gauge!(GENERATION, "source" => source.to_owned()).set(float(generation.number));
}

fn float(value: u64) -> f64 {
    u32::try_from(value).map_or_else(|_| f64::from(u32::MAX), f64::from)
}

/// A handshake has ended.
pub(super) fn handshake(
    endpoint: &Endpoint,
    generation: u64,
    outcome: Result<&super::TlsInfo, &std::io::Error>,
) {
    match outcome {
        Ok(info) => {
            let resumed = match info.resumed {
                Some(true) => "yes",
                Some(false) => "no",
                None => "unknown",
            };
            counter!(HANDSHAKES, "result" => "ok", "resumed" => resumed).increment(1);
            metrics::histogram!(HANDSHAKE_TIME, "resumed" => resumed).record(info.handshake);
        }
        Err(error) => {
            let refused = error
                .get_ref()
                .is_some_and(|inner| inner.is::<super::TlsFailure>());
            let result = if refused { "refused" } else { "broken" };
            counter!(HANDSHAKES, "result" => result, "resumed" => "unknown").increment(1);
            if refused {
                tracing::warn!(target: AUDIT_TARGET, %endpoint, generation, %error, "TLS refused");
            }
        }
    }
}
