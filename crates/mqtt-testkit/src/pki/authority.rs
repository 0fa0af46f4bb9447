//! Certificate authorities: roots, intermediates, and roots that vouch for one another.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::{Certificate, CrlBuilder, IdentityBuilder, Key, KeyType, Usage, Validity};

/// A certificate authority.
///
/// Two of the same name have different keys, as when an authority is given a new one.
#[derive(Debug, Clone)]
pub struct Authority {
    params: CertificateParams,
    key: Key,
    certificate: Certificate,
    /// From its own certificate up to the one below the root; nothing for a root.
    intermediates: Vec<Certificate>,
}

impl Authority {
    /// A root with the [builder](AuthorityBuilder)'s defaults.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::builder(name).self_signed()
    }

    /// Options for one that differs from the defaults.
    #[must_use]
    pub fn builder(name: &str) -> AuthorityBuilder {
        let mut params = Certificate::params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        Validity::default().apply(&mut params);
        AuthorityBuilder {
            params,
            key_type: KeyType::default(),
            key: None,
        }
    }

    /// An authority below this one, with the builder's defaults.
    #[must_use]
    pub fn intermediate(&self, name: &str) -> Self {
        Self::builder(name).signed_by(self)
    }

    /// A certificate from this authority for the name and the key of another: who trusts this one
    /// then trusts what the other has issued, if sent this certificate too.
    ///
    /// A server that sends it has `format!("{}{}", identity.chain_pem(), cross_signed.pem())` as its
    /// chain.
    #[must_use]
    pub fn cross_sign(&self, other: &Self) -> Certificate {
        let mut params = other.params.clone();
        params.serial_number = Certificate::params("").serial_number;
        self.sign(&params, &other.key)
    }

    /// Options for the identity of a server. `names` are what it is reached by: host names and IP
    /// addresses. The first is also its common name.
    #[must_use]
    pub fn server(&self, names: &[&str]) -> IdentityBuilder<'_> {
        IdentityBuilder::new(Some(self), names, &[Usage::Server])
    }

    /// Options for the identity of a client.
    #[must_use]
    pub fn client(&self, common_name: &str) -> IdentityBuilder<'_> {
        IdentityBuilder::new(Some(self), &[], &[Usage::Client]).common_name(common_name)
    }

    /// Options for a list of the certificates, by serial number, that this authority has revoked.
    #[must_use]
    pub fn crl(&self, revoked: &[&[u8]]) -> CrlBuilder<'_> {
        CrlBuilder::new(self, revoked)
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its own certificate in PEM: what clients are given to trust.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// Its key, to make another authority with the same one.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn intermediates(&self) -> &[Certificate] {
        &self.intermediates
    }

    pub(super) fn issuer(&self) -> Issuer<'_, KeyPair> {
        Issuer::from_params(&self.params, self.key.signing())
    }

    pub(super) fn sign(&self, params: &CertificateParams, key: &Key) -> Certificate {
        let issued = params.signed_by(&key.public(), &self.issuer());
        Certificate::new(params, &issued.expect("parameters of ours"))
    }
}

/// Options of an [`Authority`].
#[derive(Debug, Clone)]
pub struct AuthorityBuilder {
    params: CertificateParams,
    key_type: KeyType,
    key: Option<Key>,
}

impl AuthorityBuilder {
    /// What kind of key to make. Default P-256.
    #[must_use]
    pub fn key_type(mut self, key_type: KeyType) -> Self {
        self.key_type = key_type;
        self
    }

    /// This key instead of a new one.
    #[must_use]
    pub fn key(mut self, key: &Key) -> Self {
        self.key = Some(key.clone());
        self
    }

    /// When it is valid. Default now.
    #[must_use]
    pub fn validity(mut self, validity: Validity) -> Self {
        validity.apply(&mut self.params);
        self
    }

    /// A root.
    ///
    /// # Panics
    ///
    /// With a key too weak to sign with.
    #[must_use]
    pub fn self_signed(self) -> Authority {
        let (params, key) = self.parts();
        let issued = params.self_signed(&key.signing());
        Authority {
            certificate: Certificate::new(&params, &issued.expect("parameters of ours")),
            params,
            key,
            intermediates: Vec::new(),
        }
    }

    /// An authority below `issuer`.
    #[must_use]
    pub fn signed_by(self, issuer: &Authority) -> Authority {
        let (params, key) = self.parts();
        let certificate = issuer.sign(&params, &key);
        let mut intermediates = vec![certificate.clone()];
        intermediates.extend_from_slice(&issuer.intermediates);
        Authority {
            certificate,
            params,
            key,
            intermediates,
        }
    }

    fn parts(self) -> (CertificateParams, Key) {
        let key_type = self.key_type;
        let key = self.key.unwrap_or_else(|| Key::generate(key_type));
        (self.params, key)
    }
}
