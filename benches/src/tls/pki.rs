//! Certificates of one kind of key: an authority's, a server's and a client's.

use mqtt_testkit::pki::{Authority, Identity, KeyType};
use mqtt_transport::tls::{IdentityMaterial, TlsMaterial};

/// The name in the servers' certificates.
pub(super) const SERVER_NAME: &str = "localhost";

pub(super) struct Pki {
    pub(super) root_pem: String,
    pub(super) server: Identity,
    client: Identity,
}

impl Pki {
    pub(super) fn new(key_type: KeyType) -> Self {
        let root = Authority::builder("root").key_type(key_type).self_signed();
        Self {
            root_pem: root.certificate_pem(),
            server: root.server(&[SERVER_NAME]).key_type(key_type).issue(),
            client: root.client("client").key_type(key_type).issue(),
        }
    }

    /// What a client trusts, and what it shows.
    pub(super) fn material(&self, mutual: bool) -> TlsMaterial {
        let material = TlsMaterial::default().with_roots([self.root_pem.clone().into_bytes()]);
        if !mutual {
            return material;
        }
        let key = self.client.key_pem().into_bytes();
        material.with_identity(IdentityMaterial::pem(self.client.chain_pem(), key))
    }
}
