//! An authority that issues certificates, to clients and to servers on this host.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, Error, IsCa,
    Issuer, KeyPair,
};

pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate, its key, and the certificate of its authority, in PEM. Not printable: it holds a
/// key.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) ca: String,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = params("authority")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self {
            certificate: params.self_signed(&key)?,
            issuer: Issuer::new(params, key),
        })
    }

    /// For a program that is called `name`, and reached at 127.0.0.1 if it is a server.
    pub(crate) fn issue(&self, name: &str) -> Result<Issued, Error> {
        let key = KeyPair::generate()?;
        let certificate = params(name)?.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            ca: self.certificate.pem(),
        })
    }
}

fn params(name: &str) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}
