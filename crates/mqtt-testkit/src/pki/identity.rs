//! What a server or a client shows and proves: a certificate, those above it, and the key.

use std::net::IpAddr;

use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkcs12::Pkcs12;
use openssl::provider::Provider;
use openssl::stack::Stack;
use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyUsagePurpose, SanType,
};

use super::{Authority, Certificate, Key, KeyType, Validity};

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Usage {
    /// To be the server of a TLS connection.
    Server,
    /// To be its client.
    Client,
}

/// The certificate of one server or client, its intermediates, and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate: Certificate,
    intermediates: Vec<Certificate>,
    key: Key,
}

impl Identity {
    /// Options for the identity of a server that is its own issuer.
    #[must_use]
    pub fn self_signed(names: &[&str]) -> IdentityBuilder<'static> {
        IdentityBuilder::new(None, names, &[Usage::Server])
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its own certificate in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// What is sent to the peer, in PEM: its own certificate, then the intermediates, not the root.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        let certificates = std::iter::once(&self.certificate).chain(&self.intermediates);
        certificates.map(Certificate::pem).collect()
    }

    /// The serial number of its own certificate, most significant byte first.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        self.certificate.serial()
    }

    /// The key, for its other forms.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The key as PKCS#8 in PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.pkcs8_pem()
    }

    /// The key as PKCS#8 in DER.
    #[must_use]
    pub fn key_der(&self) -> Vec<u8> {
        self.key.pkcs8_der()
    }

    /// Everything as PKCS#12, encrypted as today: AES-256, and SHA-256 over all.
    #[must_use]
    pub fn pkcs12(&self, password: &str) -> Vec<u8> {
        let cipher = Nid::AES_256_CBC;
        self.pkcs12_with(password, cipher, cipher, MessageDigest::sha256())
    }

    /// Everything as PKCS#12, encrypted as long ago: the key with triple DES, the certificates with
    /// 40 bits of RC2, and SHA-1 over all. OpenSSL 3 does not read it unless told to.
    ///
    /// While it is written, a few milliseconds, OpenSSL can do RC2 in the whole process.
    ///
    /// # Panics
    ///
    /// Without OpenSSL's `legacy` provider, which comes with most packages of the library.
    #[must_use]
    pub fn pkcs12_legacy(&self, password: &str) -> Vec<u8> {
        let _legacy = Provider::try_load(None, "legacy", true).expect("OpenSSL's legacy provider");
        let key = Nid::PBE_WITHSHA1AND3_KEY_TRIPLEDES_CBC;
        let certificates = Nid::PBE_WITHSHA1AND40BITRC2_CBC;
        self.pkcs12_with(password, key, certificates, MessageDigest::sha1())
    }

    fn pkcs12_with(&self, password: &str, key: Nid, certs: Nid, mac: MessageDigest) -> Vec<u8> {
        let mut above = Stack::new().expect("an empty stack");
        for certificate in &self.intermediates {
            above.push(certificate.x509()).expect("room in a stack");
        }
        let mut builder = Pkcs12::builder();
        builder
            .name("identity")
            .pkey(self.key.inner())
            .cert(&self.certificate.x509())
            .ca(above)
            .key_algorithm(key)
            .cert_algorithm(certs)
            .mac_md(mac);
        builder
            .build2(password)
            .and_then(|pkcs12| pkcs12.to_der())
            .expect("algorithms that OpenSSL has")
    }
}

/// Options of an [`Identity`].
#[derive(Debug, Clone)]
pub struct IdentityBuilder<'a> {
    issuer: Option<&'a Authority>,
    params: CertificateParams,
    key_type: KeyType,
    key: Option<Key>,
    with_intermediates: bool,
}

impl<'a> IdentityBuilder<'a> {
    pub(super) fn new(issuer: Option<&'a Authority>, names: &[&str], usages: &[Usage]) -> Self {
        let mut params = Certificate::params(names.first().unwrap_or(&"server"));
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().expect("a name in ASCII")),
            })
            .collect();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Validity::default().apply(&mut params);
        let builder = Self {
            issuer,
            params,
            key_type: KeyType::default(),
            key: None,
            with_intermediates: true,
        };
        builder.usages(usages)
    }

    /// The common name. Beside no other names it makes a certificate of the old sort, which names
    /// its host there only.
    #[must_use]
    pub fn common_name(mut self, name: &str) -> Self {
        self.params
            .distinguished_name
            .push(DnType::CommonName, name);
        self
    }

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

    /// What it may be used for. Default the one it was asked for; none is any.
    #[must_use]
    pub fn usages(mut self, usages: &[Usage]) -> Self {
        let purposes = usages.iter().map(|usage| match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        });
        self.params.extended_key_usages = purposes.collect();
        self
    }

    /// Whether the certificate says that it may issue others, as one should not that a server
    /// shows. Off by default.
    #[must_use]
    pub fn ca(mut self, on: bool) -> Self {
        self.params.is_ca = if on {
            IsCa::Ca(BasicConstraints::Unconstrained)
        } else {
            IsCa::ExplicitNoCa
        };
        self.params
            .key_usages
            .retain(|usage| *usage != KeyUsagePurpose::KeyCertSign);
        if on {
            self.params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        self
    }

    /// Adds a point from which a revocation list is to be had, at each of these addresses.
    #[must_use]
    pub fn crl_distribution_point(mut self, urls: &[&str]) -> Self {
        let uris = urls.iter().map(|url| (*url).to_owned()).collect();
        self.params
            .crl_distribution_points
            .push(CrlDistributionPoint { uris });
        self
    }

    /// Leaves the intermediates out, as a server does that was set up badly.
    #[must_use]
    pub fn without_intermediates(mut self) -> Self {
        self.with_intermediates = false;
        self
    }

    /// Makes the key and has the certificate signed.
    ///
    /// # Panics
    ///
    /// If it is to sign itself with a key too weak for that.
    #[must_use]
    pub fn issue(self) -> Identity {
        let key_type = self.key_type;
        let key = self.key.unwrap_or_else(|| Key::generate(key_type));
        let certificate = match self.issuer {
            Some(issuer) => issuer.sign(&self.params, &key),
            None => {
                let issued = self.params.self_signed(&key.signing());
                Certificate::new(&self.params, &issued.expect("parameters of ours"))
            }
        };
        let intermediates = match self.issuer {
            Some(issuer) if self.with_intermediates => issuer.intermediates().to_vec(),
            _ => Vec::new(),
        };
        Identity {
            certificate,
            intermediates,
            key,
        }
    }
}

#[cfg(test)]
mod tests {
    use openssl::x509::{X509, X509VerifyResult};

    use super::*;

    fn read(der: &[u8], password: &str, identity: &Identity) {
        let parsed = Pkcs12::from_der(der).unwrap().parse2(password).unwrap();
        let certificate = parsed.cert.unwrap();
        assert_eq!(
            certificate.to_der().unwrap(),
            identity.certificate().der().to_vec()
        );
        assert!(parsed.pkey.unwrap().public_eq(identity.key().inner()));
        assert_eq!(parsed.ca.unwrap().len(), 1);
    }

    #[test]
    fn pkcs12_is_read_again_and_the_old_sort_only_when_allowed() {
        let issuing = Authority::new("root").intermediate("issuing");
        let identity = issuing.client("a").issue();
        read(&identity.pkcs12("secret"), "secret", &identity);

        let legacy = identity.pkcs12_legacy("secret");
        let parsed = Pkcs12::from_der(&legacy).unwrap().parse2("secret");
        assert!(parsed.is_err(), "the provider is still loaded");
        let _provider = Provider::try_load(None, "legacy", true).unwrap();
        read(&legacy, "secret", &identity);
    }

    #[test]
    fn the_chain_goes_up_to_below_the_root() {
        let root = Authority::new("root");
        let issuing = root.intermediate("upper").intermediate("lower");
        let whole = issuing.server(&["localhost"]).issue();
        let chain = X509::stack_from_pem(whole.chain_pem().as_bytes()).unwrap();
        let [leaf, lower, upper] = &chain[..] else {
            panic!("{} certificates", chain.len());
        };
        assert_eq!(lower.issued(leaf), X509VerifyResult::OK);
        assert_eq!(upper.issued(lower), X509VerifyResult::OK);
        assert_eq!(
            root.certificate().x509().issued(upper),
            X509VerifyResult::OK
        );

        let alone = issuing.server(&[]).without_intermediates().issue();
        assert_eq!(alone.chain_pem(), alone.certificate_pem());
    }

    #[test]
    fn a_weak_key_of_every_usage() {
        let identity = Authority::builder("root")
            .key_type(KeyType::Rsa2048)
            .self_signed()
            .server(&["a", "::1"])
            .key_type(KeyType::Rsa1024)
            .usages(&[])
            .crl_distribution_point(&["http://one/crl", "http://two/crl"])
            .crl_distribution_point(&["http://three/crl"])
            .issue();
        let x509 = identity.certificate().x509();
        assert_eq!(x509.public_key().unwrap().bits(), 1024);
        assert_eq!(x509.crl_distribution_points().unwrap().len(), 2);
        assert_eq!(x509.subject_alt_names().unwrap().len(), 2);
        let serial = x509.serial_number().to_bn().unwrap().to_vec();
        assert_eq!(serial, identity.serial());
        let text = String::from_utf8(x509.to_text().unwrap()).unwrap();
        assert!(!text.contains("Extended Key Usage"), "{text}");
    }

    #[test]
    fn its_own_issuer() {
        for ca in [false, true] {
            let x509 = Identity::self_signed(&["localhost"]).ca(ca).issue();
            let x509 = x509.certificate().x509();
            assert!(x509.verify(&x509.public_key().unwrap()).unwrap());
            let text = String::from_utf8(x509.to_text().unwrap()).unwrap();
            assert_eq!(text.contains("CA:TRUE"), ca, "{text}");
        }
    }
}
