//! Certificate revocation lists.

use std::time::SystemTime;

use openssl::x509::X509Crl;
use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint,
    KeyIdMethod, RevokedCertParams, SerialNumber,
};

use super::{Authority, Validity};

/// A certificate revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crl {
    der: Vec<u8>,
}

impl Crl {
    /// In DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// In PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        let crl = X509Crl::from_der(&self.der).expect("a list made by rcgen");
        super::key::text(crl.to_pem())
    }
}

/// Options of a [`Crl`].
#[derive(Debug, Clone)]
pub struct CrlBuilder<'a> {
    issuer: &'a Authority,
    revoked: Vec<Vec<u8>>,
    number: u64,
    validity: Validity,
    issuing_distribution_point: Option<CrlIssuingDistributionPoint>,
}

impl<'a> CrlBuilder<'a> {
    pub(super) fn new(issuer: &'a Authority, revoked: &[&[u8]]) -> Self {
        Self {
            issuer,
            revoked: revoked.iter().map(|serial| serial.to_vec()).collect(),
            number: 1,
            validity: Validity::default(),
            issuing_distribution_point: None,
        }
    }

    /// Its number; a newer list has a higher one. Default 1.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    /// From when it holds (`thisUpdate`), and when the next one is due (`nextUpdate`). Default from
    /// yesterday and for thirty days.
    #[must_use]
    pub fn validity(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    /// Limits it to the certificates with this distribution point. Default all of its issuer.
    #[must_use]
    pub fn issuing_distribution_point(mut self, url: &str) -> Self {
        self.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec![url.to_owned()],
            },
            scope: None,
        });
        self
    }

    /// Has it signed.
    #[must_use]
    pub fn issue(self) -> Crl {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let [this_update, next_update] = self.validity.times(epoch);
        let now = Validity::between(SystemTime::now(), SystemTime::now());
        let [revocation_time, _] = now.times(epoch);
        let revoked_certs = self.revoked.into_iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time,
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(self.number),
            issuing_distribution_point: self.issuing_distribution_point,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(&self.issuer.issuer());
        Crl {
            der: crl.expect("parameters of ours").der().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use openssl::x509::CrlStatus;

    use super::*;

    #[test]
    fn names_the_revoked_and_no_other() {
        let authority = Authority::new("root");
        let [good, revoked] = ["good", "revoked"].map(|name| authority.client(name).issue());
        let crl = authority
            .crl(&[revoked.serial()])
            .number(7)
            .validity(Validity::expired())
            .issuing_distribution_point("http://crl.example/1")
            .issue();

        let crl = X509Crl::from_pem(crl.pem().as_bytes()).unwrap();
        let key = authority.certificate().x509().public_key().unwrap();
        assert!(crl.verify(&key).unwrap());
        let now = openssl::asn1::Asn1Time::days_from_now(0).unwrap();
        assert!(crl.next_update().unwrap() < now);
        let status = crl.get_by_cert(&revoked.certificate().x509());
        assert!(matches!(status, CrlStatus::Revoked(_)));
        let status = crl.get_by_cert(&good.certificate().x509());
        assert!(matches!(status, CrlStatus::NotRevoked));
    }
}
