//! A listener for TLS beside the plain ones, and the exchange of its certificate while it runs.
//!
//! The PEM that is chosen here becomes files in mosquitto's folder; the configuration names them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::process::Files;
use super::{Mosquitto, StartError};

/// What mosquitto logs when it begins to reload. It is done before it serves anybody again.
const RELOADING: &str = "Reloading config.";

/// From the signal to that line; some milliseconds are usual.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);

const RELOAD_POLL: Duration = Duration::from_millis(2);

/// How a mosquitto's TLS listener is set up.
///
/// What is not chosen is left as mosquitto ships: TLS 1.2 and 1.3, the ciphers of its OpenSSL, no
/// question for a client's certificate, and Nagle's algorithm on, which costs 40 ms per connection
/// over TLS 1.3 with a client that delays its acknowledgements.
#[derive(Debug, Clone)]
pub struct MosquittoTls {
    chain_pem: String,
    key_pem: String,
    client_authority_pem: Option<String>,
    crl_pem: Option<String>,
    /// Lines for the configuration.
    lines: Vec<String>,
    pub(super) tcp_nodelay: Option<bool>,
}

impl MosquittoTls {
    /// With this certificate, its intermediates after it, and this key, which is not encrypted.
    #[must_use]
    pub fn new(chain_pem: impl Into<String>, key_pem: impl Into<String>) -> Self {
        Self {
            chain_pem: chain_pem.into(),
            key_pem: key_pem.into(),
            client_authority_pem: None,
            crl_pem: None,
            lines: Vec::new(),
            tcp_nodelay: None,
        }
    }

    /// Asks clients for a certificate, refuses those without, and trusts these authorities.
    #[must_use]
    pub fn client_authority(mut self, pem: impl Into<String>) -> Self {
        self.client_authority_pem = Some(pem.into());
        self.line("require_certificate true")
    }

    /// Takes the common name of the client's certificate for its user name. Needs
    /// [`client_authority`](Self::client_authority).
    #[must_use]
    pub fn use_identity_as_username(self) -> Self {
        self.line("use_identity_as_username true")
    }

    /// Refuses clients whose certificates are on this list. Without a valid list of their issuer
    /// all are refused. Needs [`client_authority`](Self::client_authority).
    #[must_use]
    pub fn crl(mut self, pem: impl Into<String>) -> Self {
        self.crl_pem = Some(pem.into());
        self
    }

    /// The lowest version: `tlsv1.2` or `tlsv1.3`. Mosquitto cannot be told a highest one.
    #[must_use]
    pub fn min_version(self, version: &str) -> Self {
        self.line(&format!("tls_version {version}"))
    }

    /// The ciphers for TLS 1.2, by OpenSSL's names, with colons between them.
    #[must_use]
    pub fn ciphers(self, list: &str) -> Self {
        self.line(&format!("ciphers {list}"))
    }

    /// The cipher suites for TLS 1.3, with colons between them.
    #[must_use]
    pub fn ciphersuites(self, list: &str) -> Self {
        self.line(&format!("ciphers_tls1.3 {list}"))
    }

    /// Speaks WebSocket over TLS on this listener: [`Mosquitto::wss_url`].
    #[must_use]
    pub fn websockets(self) -> Self {
        self.line("protocol websockets").line("socket_domain ipv4")
    }

    /// Whether to switch Nagle's algorithm off, on all of the server's listeners.
    #[must_use]
    pub fn tcp_nodelay(mut self, on: bool) -> Self {
        self.tcp_nodelay = Some(on);
        self
    }

    fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    pub(super) fn write_files(&self, files: Files<'_>) -> io::Result<()> {
        write_identity(files, &self.chain_pem, &self.key_pem)?;
        if let Some(pem) = &self.client_authority_pem {
            fs::write(client_authority(files), pem)?;
        }
        if let Some(pem) = &self.crl_pem {
            fs::write(crl(files), pem)?;
        }
        Ok(())
    }

    /// The lines of its listener.
    pub(super) fn config(&self, files: Files<'_>, addr: SocketAddr) -> Vec<String> {
        let mut lines = vec![
            format!("listener {} {}", addr.port(), addr.ip()),
            format!("certfile {}", chain(files).display()),
            format!("keyfile {}", key(files).display()),
        ];
        if self.client_authority_pem.is_some() {
            lines.push(format!("cafile {}", client_authority(files).display()));
        }
        if self.crl_pem.is_some() {
            lines.push(format!("crlfile {}", crl(files).display()));
        }
        lines.extend_from_slice(&self.lines);
        lines
    }
}

impl Mosquitto {
    /// The address of its TLS listener. It stays the same over restarts.
    ///
    /// # Panics
    ///
    /// If it was started without [`tls`](super::MosquittoBuilder::tls).
    #[must_use]
    pub fn tls_addr(&self) -> SocketAddr {
        self.addrs.tls.expect("a mosquitto started with TLS")
    }

    /// Its TLS endpoint: `mqtts://localhost:PORT`. It stays the same over restarts.
    ///
    /// # Panics
    ///
    /// As [`tls_addr`](Self::tls_addr).
    #[must_use]
    pub fn tls_url(&self) -> String {
        format!("mqtts://localhost:{}", self.tls_addr().port())
    }

    /// The endpoint of a listener with [`websockets`](MosquittoTls::websockets):
    /// `wss://localhost:PORT/mqtt`.
    ///
    /// # Panics
    ///
    /// If it was not started with TLS.
    #[must_use]
    pub fn wss_url(&self) -> String {
        format!("wss://localhost:{}/mqtt", self.tls_addr().port())
    }

    /// Gives the TLS listener another certificate and key while it runs (SIGHUP): connections stay,
    /// and whoever connects after this has returned sees the new one.
    ///
    /// A key that does not belong to the certificate is reported in the [log](Self::log) only. Later
    /// [restarts](Self::restart) use the new pair too.
    ///
    /// # Errors
    ///
    /// The files could not be written or the signal not sent, or mosquitto did not react within five
    /// seconds.
    ///
    /// # Panics
    ///
    /// As [`tls_addr`](Self::tls_addr).
    pub async fn reload_tls(&mut self, chain_pem: &str, key_pem: &str) -> Result<(), StartError> {
        assert!(self.addrs.tls.is_some(), "a mosquitto started with TLS");
        let files = self.files();
        write_identity(files, chain_pem, key_pem)
            .map_err(StartError::io("write mosquitto's certificate"))?;
        let Some(pid) = self.pid() else { return Ok(()) };

        let before = reloads(files);
        let mut kill = Command::new("kill");
        kill.arg("-HUP").arg(pid.to_string());
        let sent = kill.status().and_then(|status| match status.success() {
            true => Ok(()),
            false => Err(io::Error::other("kill failed")),
        });
        sent.map_err(StartError::io("send mosquitto a signal"))?;

        let reloaded = async {
            while reloads(files) == before {
                tokio::time::sleep(RELOAD_POLL).await;
            }
        };
        let waited = tokio::time::timeout(RELOAD_TIMEOUT, reloaded).await;
        waited.map_err(|_| StartError::NotReady {
            waited: RELOAD_TIMEOUT,
            log: files.log_tail(),
        })
    }
}

/// How often the present run has reloaded.
fn reloads(files: Files<'_>) -> usize {
    let log = fs::read(files.log()).unwrap_or_default();
    String::from_utf8_lossy(&log).matches(RELOADING).count()
}

fn write_identity(files: Files<'_>, chain_pem: &str, key_pem: &str) -> io::Result<()> {
    fs::write(chain(files), chain_pem)?;
    fs::write(key(files), key_pem)
}

fn chain(files: Files<'_>) -> PathBuf {
    files.dir.join("tls-chain.pem")
}

fn key(files: Files<'_>) -> PathBuf {
    files.dir.join("tls-key.pem")
}

fn client_authority(files: Files<'_>) -> PathBuf {
    files.dir.join("tls-client-authority.pem")
}

fn crl(files: Files<'_>) -> PathBuf {
    files.dir.join("tls-crl.pem")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(tls: &MosquittoTls) -> String {
        let files = Files::new(Path::new("/t"));
        tls.config(files, ([127, 0, 0, 1], 4321).into()).join("\n")
    }

    #[test]
    fn defaults() {
        let expected = "listener 4321 127.0.0.1\n\
            certfile /t/tls-chain.pem\n\
            keyfile /t/tls-key.pem";
        assert_eq!(config(&MosquittoTls::new("", "")), expected);
    }

    #[test]
    fn everything_chosen() {
        let tls = MosquittoTls::new("", "")
            .client_authority("")
            .use_identity_as_username()
            .crl("")
            .min_version("tlsv1.3")
            .ciphers("A:B")
            .ciphersuites("C");
        let expected = "listener 4321 127.0.0.1\n\
            certfile /t/tls-chain.pem\n\
            keyfile /t/tls-key.pem\n\
            cafile /t/tls-client-authority.pem\n\
            crlfile /t/tls-crl.pem\n\
            require_certificate true\n\
            use_identity_as_username true\n\
            tls_version tlsv1.3\n\
            ciphers A:B\n\
            ciphers_tls1.3 C";
        assert_eq!(config(&tls), expected);
    }
}
