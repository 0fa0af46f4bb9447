//! What can be chosen about a server, and the OpenSSL context it becomes.

use std::io::{self, Write as _};

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    AlpnError, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslOptions,
    SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;
use openssl::x509::store::{X509Lookup, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use tempfile::NamedTempFile;

use super::{OpensslServer, Service};

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.1, which no client should take today.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    fn openssl(self) -> SslVersion {
        match self {
            Self::Tls11 => SslVersion::TLS1_1,
            Self::Tls12 => SslVersion::TLS1_2,
            Self::Tls13 => SslVersion::TLS1_3,
        }
    }
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientCertificate {
    /// They are asked, and may have none. A bad one fails the handshake.
    Optional,
    /// They are asked, and must have one.
    Required,
}

/// Options of an [`OpensslServer`].
///
/// Judging is left to the client: the server itself would use any key and cipher, however weak.
#[derive(Debug, Clone)]
pub struct OpensslServerBuilder {
    chain_pem: String,
    key_pem: String,
    client: Option<(ClientCertificate, String)>,
    client_crl_pem: Option<String>,
    versions: (TlsVersion, TlsVersion),
    ciphers: Option<String>,
    ciphersuites: Option<String>,
    resumption: bool,
    tickets: Option<usize>,
    nodelay: bool,
    alpn: Vec<Vec<u8>>,
    service: Service,
}

impl OpensslServerBuilder {
    pub(super) fn new(chain_pem: &str, key_pem: &str) -> Self {
        Self {
            chain_pem: chain_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            client: None,
            client_crl_pem: None,
            versions: (TlsVersion::Tls12, TlsVersion::Tls13),
            ciphers: None,
            ciphersuites: None,
            resumption: true,
            tickets: None,
            nodelay: true,
            alpn: Vec::new(),
            service: Service::Echo,
        }
    }

    /// Asks clients for a certificate that these authorities vouch for. Default not asked.
    #[must_use]
    pub fn client_certificate(mut self, mode: ClientCertificate, authorities_pem: &str) -> Self {
        self.client = Some((mode, authorities_pem.to_owned()));
        self
    }

    /// Refuses clients whose certificates are on this list, and all if it is not one of their
    /// issuer or not valid. Default not looked at.
    #[must_use]
    pub fn client_crl(mut self, pem: &str) -> Self {
        self.client_crl_pem = Some(pem.to_owned());
        self
    }

    /// The lowest and the highest version. Default 1.2 and 1.3.
    #[must_use]
    pub fn versions(mut self, min: TlsVersion, max: TlsVersion) -> Self {
        self.versions = (min, max);
        self
    }

    /// The ciphers up to TLS 1.2, by OpenSSL's names, with colons between them. Default OpenSSL's.
    #[must_use]
    pub fn ciphers(mut self, list: &str) -> Self {
        self.ciphers = Some(list.to_owned());
        self
    }

    /// The cipher suites for TLS 1.3, with colons between them. Default OpenSSL's.
    #[must_use]
    pub fn ciphersuites(mut self, list: &str) -> Self {
        self.ciphersuites = Some(list.to_owned());
        self
    }

    /// Whether clients can take up earlier sessions, by ticket or by the server's memory. On by
    /// default.
    #[must_use]
    pub fn resumption(mut self, on: bool) -> Self {
        self.resumption = on;
        self
    }

    /// Tickets given after a full handshake of TLS 1.3. Default OpenSSL's, two.
    #[must_use]
    pub fn tickets(mut self, count: usize) -> Self {
        self.tickets = Some(count);
        self
    }

    /// Whether Nagle's algorithm is off. On by default; off, the first answer of the server waits
    /// for the client's acknowledgement of the tickets, as it does with a mosquitto.
    #[must_use]
    pub fn nodelay(mut self, on: bool) -> Self {
        self.nodelay = on;
        self
    }

    /// Protocols for ALPN, the preferred first. A client that offers only others is refused
    /// (RFC 7301, section 3.2), one that offers none is not. Default none: what clients offer is
    /// ignored.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        self
    }

    /// What happens after the handshake. Default [`Service::Echo`].
    #[must_use]
    pub fn service(mut self, service: Service) -> Self {
        self.service = service;
        self
    }

    /// Starts the server on a port that the system chooses; it accepts connections when this
    /// returns.
    ///
    /// # Errors
    ///
    /// The port or a thread could not be had, or OpenSSL did not like an option: text that is not
    /// PEM, a key of another certificate, an unknown cipher.
    pub fn start(self) -> io::Result<OpensslServer> {
        let (service, nodelay) = (self.service, self.nodelay);
        OpensslServer::start(self.context()?, service, nodelay)
    }

    fn context(self) -> io::Result<SslContext> {
        let mut context = SslContextBuilder::new(SslMethod::tls_server())?;
        // First: the level decides what is taken from here on.
        context.set_security_level(0);
        let (min, max) = self.versions;
        context.set_min_proto_version(Some(min.openssl()))?;
        context.set_max_proto_version(Some(max.openssl()))?;
        if let Some(list) = &self.ciphers {
            context.set_cipher_list(list)?;
        }
        if let Some(list) = &self.ciphersuites {
            context.set_ciphersuites(list)?;
        }
        self.set_identity(&mut context)?;
        self.set_client(&mut context)?;
        self.set_resumption(&mut context)?;
        if !self.alpn.is_empty() {
            context.set_alpn_select_callback(move |_, offered| {
                select(&self.alpn, offered).ok_or(AlpnError::ALERT_FATAL)
            });
        }
        Ok(context.build())
    }

    fn set_identity(&self, context: &mut SslContextBuilder) -> io::Result<()> {
        let mut chain = X509::stack_from_pem(self.chain_pem.as_bytes())?.into_iter();
        let certificate = chain.next().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a chain without certificates")
        })?;
        context.set_certificate(&certificate)?;
        for certificate in chain {
            context.add_extra_chain_cert(certificate)?;
        }
        let key = PKey::private_key_from_pem(self.key_pem.as_bytes())?;
        context.set_private_key(&key)?;
        Ok(())
    }

    fn set_client(&self, context: &mut SslContextBuilder) -> io::Result<()> {
        let Some((mode, authorities)) = &self.client else {
            return Ok(());
        };
        context.set_verify(match mode {
            ClientCertificate::Optional => SslVerifyMode::PEER,
            ClientCertificate::Required => {
                SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT
            }
        });
        // A store apart from the context's own, from which OpenSSL would add to the server's chain.
        let mut store = X509StoreBuilder::new()?;
        for authority in X509::stack_from_pem(authorities.as_bytes())? {
            context.add_client_ca(&authority)?;
            store.add_cert(authority)?;
        }
        if let Some(crl) = &self.client_crl_pem {
            // OpenSSL's safe interface takes lists from files only.
            let mut file = NamedTempFile::new()?;
            file.write_all(crl.as_bytes())?;
            let lookup = store.add_lookup(X509Lookup::file())?;
            lookup.load_crl_file(file.path(), SslFiletype::PEM)?;
            store.set_flags(X509VerifyFlags::CRL_CHECK)?;
        }
        context.set_verify_cert_store(store.build())?;
        Ok(())
    }

    fn set_resumption(&self, context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        // Without one, sessions of clients with a certificate are refused.
        context.set_session_id_context(b"mqtt-testkit")?;
        if let Some(tickets) = self.tickets {
            context.set_num_tickets(tickets)?;
        }
        if !self.resumption {
            context.set_session_cache_mode(SslSessionCacheMode::OFF);
            context.set_options(SslOptions::NO_TICKET);
            context.set_num_tickets(0)?;
        }
        Ok(())
    }
}

/// The first of `ours` that is among those offered, which come with their lengths before them.
fn select<'a>(ours: &[Vec<u8>], offered: &'a [u8]) -> Option<&'a [u8]> {
    let mut names = Vec::new();
    let mut rest = offered;
    while let Some((length, tail)) = rest.split_first() {
        let (name, tail) = tail.split_at_checked(usize::from(*length))?;
        names.push(name);
        rest = tail;
    }
    ours.iter()
        .find_map(|name| names.iter().find(|offered| *offered == name).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_order_decides() {
        let ours = [b"mqtt".to_vec(), b"h2".to_vec()];
        let check = |offered: &[u8], expected: Option<&[u8]>| {
            assert_eq!(select(&ours, offered), expected, "{offered:?}");
        };
        check(b"\x02h2\x04mqtt", Some(b"mqtt"));
        check(b"\x03abc\x02h2", Some(b"h2"));
        check(b"\x03abc", None);
        check(b"\x05mqtt", None);
        check(b"", None);
    }

    #[test]
    fn what_openssl_does_not_like_is_an_error() {
        let identity = crate::pki::Identity::self_signed(&["localhost"]).issue();
        let other = crate::pki::Key::generate(Default::default());
        let builder = |key: &str| OpensslServer::builder(&identity.chain_pem(), key);
        builder(&other.pkcs8_pem()).start().unwrap_err();
        builder("").start().unwrap_err();
        let fine = builder(&identity.key_pem());
        fine.clone().ciphers("none").start().unwrap_err();
        fine.start().unwrap();
        OpensslServer::builder("", &identity.key_pem())
            .start()
            .unwrap_err();
    }
}
