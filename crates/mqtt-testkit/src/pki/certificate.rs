//! One certificate, and when it is valid.

use std::time::{Duration, SystemTime};

use openssl::x509::X509;
use rcgen::{CertificateParams, DistinguishedName, DnType, SerialNumber};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// From when to when a certificate or a revocation list is valid, in whole seconds.
///
/// The default is from yesterday, in case clocks differ, and for thirty days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    from: SystemTime,
    to: SystemTime,
}

impl Validity {
    /// Between these two.
    #[must_use]
    pub fn between(from: SystemTime, to: SystemTime) -> Self {
        Self { from, to }
    }

    /// From yesterday and for this long from now on.
    #[must_use]
    pub fn for_the_next(duration: Duration) -> Self {
        let now = SystemTime::now();
        Self::between(now - DAY, now + duration)
    }

    /// Over since yesterday.
    #[must_use]
    pub fn expired() -> Self {
        let now = SystemTime::now();
        Self::between(now - 30 * DAY, now - DAY)
    }

    /// From tomorrow on.
    #[must_use]
    pub fn not_yet() -> Self {
        let now = SystemTime::now();
        Self::between(now + DAY, now + 30 * DAY)
    }

    /// The same in rcgen's type.
    pub(super) fn times<Time>(self, epoch: Time) -> [Time; 2]
    where
        Time: Copy + std::ops::Add<Duration, Output = Time>,
    {
        [self.from, self.to].map(|time| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            epoch + since.expect("a time of this century")
        })
    }

    pub(super) fn apply(self, params: &mut CertificateParams) {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        [params.not_before, params.not_after] = self.times(epoch);
    }
}

impl Default for Validity {
    fn default() -> Self {
        Self::for_the_next(30 * DAY)
    }
}

/// One X.509 certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    serial: Vec<u8>,
}

impl Certificate {
    /// What all certificates here have in common: a common name, a serial number of their own, and
    /// the identifier of the issuer's key.
    pub(super) fn params(common_name: &str) -> CertificateParams {
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, common_name);
        let mut serial = [0; 16];
        openssl::rand::rand_bytes(&mut serial).expect("random numbers");
        // Neither negative nor with a leading zero, so that it has one encoding only.
        serial[0] = serial[0] & 0x3f | 0x40;

        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.use_authority_key_identifier_extension = true;
        params
    }

    pub(super) fn new(params: &CertificateParams, issued: &rcgen::Certificate) -> Self {
        let serial = params.serial_number.as_ref();
        Self {
            der: issued.der().to_vec(),
            serial: serial.map(SerialNumber::to_bytes).unwrap_or_default(),
        }
    }

    pub(super) fn x509(&self) -> X509 {
        X509::from_der(&self.der).expect("a certificate made by rcgen")
    }

    /// In DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// In PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        super::key::text(self.x509().to_pem())
    }

    /// Its serial number, most significant byte first.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }
}
