//! TLS, seen by OpenSSL's client, with MQTT in bytes written by hand. Where sessions are taken up
//! again the client is rustls's, since with OpenSSL's that needs `unsafe`.
#![allow(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "all of it is test code, where a panic is a failed test"
)]

mod mosquitto;
mod server;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mqtt_testkit::TlsVersion;
use mqtt_testkit::pki::Identity;
use openssl::pkey::PKey;
use openssl::ssl::{
    HandshakeError, SslConnector, SslConnectorBuilder, SslMethod, SslStream, SslVersion,
};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

use crate::wire::{self, Version};

const VERSIONS_OF_TLS: [(TlsVersion, SslVersion, &str); 2] = [
    (TlsVersion::Tls12, SslVersion::TLS1_2, "TLSv1.2"),
    (TlsVersion::Tls13, SslVersion::TLS1_3, "TLSv1.3"),
];

/// What any answer may take; reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

type Tls = SslStream<TcpStream>;

fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A client of OpenSSL's defaults that trusts nobody but `trusted_pem`.
struct Client {
    connector: SslConnectorBuilder,
}

impl Client {
    fn new(trusted_pem: &str) -> Self {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        let mut store = X509StoreBuilder::new().unwrap();
        for trusted in X509::stack_from_pem(trusted_pem.as_bytes()).unwrap() {
            store.add_cert(trusted).unwrap();
        }
        connector.set_cert_store(store.build());
        Self { connector }
    }

    fn identity(mut self, identity: &Identity) -> Self {
        let mut chain = X509::stack_from_pem(identity.chain_pem().as_bytes())
            .unwrap()
            .into_iter();
        let key = PKey::private_key_from_pem(identity.key_pem().as_bytes()).unwrap();
        let leaf = chain.next().unwrap();
        self.connector.set_certificate(&leaf).unwrap();
        for certificate in chain {
            self.connector.add_extra_chain_cert(certificate).unwrap();
        }
        self.connector.set_private_key(&key).unwrap();
        self
    }

    fn max_version(mut self, version: SslVersion) -> Self {
        self.connector.set_max_proto_version(Some(version)).unwrap();
        self
    }

    fn alpn(mut self, protocols: &[u8]) -> Self {
        self.connector.set_alpn_protos(protocols).unwrap();
        self
    }

    fn security_level(mut self, level: u32) -> Self {
        self.connector.set_security_level(level);
        self
    }

    fn try_connect(self, addr: SocketAddr) -> Result<Tls, HandshakeError<TcpStream>> {
        self.connector.build().connect("localhost", tcp(addr))
    }

    fn connect(self, addr: SocketAddr) -> Tls {
        self.try_connect(addr).unwrap()
    }
}

fn read_packet(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; 2];
    stream.read_exact(&mut packet)?;
    packet.resize(2 + usize::from(packet[1]), 0);
    stream.read_exact(&mut packet[2..])?;
    Ok(packet)
}

/// CONNECT with a clean start and no keep-alive, of up to 127 bytes.
fn connect_packet(version: Version, client_id: &str) -> Vec<u8> {
    let level = u8::try_from(version as u32).unwrap();
    let mut body = b"\0\x04MQTT".to_vec();
    body.extend([level, 2, 0, 0]);
    if version == Version::V5 {
        body.push(0);
    }
    body.extend([0, u8::try_from(client_id.len()).unwrap()]);
    body.extend(client_id.as_bytes());
    wire::packet(0x10, &body)
}

fn mqtt_connect(stream: &mut (impl Read + Write), version: Version) -> io::Result<()> {
    mqtt_connect_as("tls", stream, version)
}

fn mqtt_connect_as(
    client_id: &str,
    stream: &mut (impl Read + Write),
    version: Version,
) -> io::Result<()> {
    stream.write_all(&connect_packet(version, client_id))?;
    let connack = read_packet(stream)?;
    assert_eq!(connack[0], wire::CONNACK);
    assert_eq!(connack[3], 0, "accepted");
    Ok(())
}
