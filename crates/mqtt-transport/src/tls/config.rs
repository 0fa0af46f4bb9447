//! How TLS is asked for, as a plain struct.
//!
//! Every option has a value that asks for nothing, so that only what was asked is held against the
//! backend, and a backend is never changed for another behind the caller's back: the two do not
//! accept the same certificates.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{ConfigErrors, Limit};

/// Options of TLS. Holds places of secrets, never secrets.
///
/// ```
/// use mqtt_transport::tls::{Location, TlsConfig, TlsIdentity, Trust};
///
/// let config = TlsConfig::default()
///     .with_trust(Trust::Own)
///     .with_roots([Location::File("/etc/mqtt/ca.pem".into())])
///     .with_identities([TlsIdentity::pem(
///         Location::File("/etc/mqtt/client.pem".into()),
///         Location::Env("MQTT_CLIENT_KEY".into()),
///     )]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The library that does it. Default `native_tls` if it is built in, else `rustls`.
    pub backend: Backend,
    /// Whose certificates are trusted. Default `system`; verification cannot be switched off.
    pub trust: Trust,
    /// Certificates of authorities of our own, each place PEM with one or several, or DER. Also a
    /// server's self-signed certificate, to trust just that (rustls takes one that is not marked as
    /// an authority, native-tls both).
    pub roots: Vec<Location>,
    /// What we show to a server that asks who we are. None by default; native-tls takes one, rustls
    /// several and shows the first that fits what the server accepts.
    pub identities: Vec<TlsIdentity>,
    /// The name that the server's certificate must have, where it is not the endpoint's host.
    pub server_name: Option<String>,
    /// Whether the server is told the name in the clear (SNI). Default true: servers that share an
    /// address need it.
    pub send_server_name: bool,
    /// Application protocols offered (ALPN), the preferred first. None by default: a server on a port
    /// of its own needs none. Each 1 to 255 bytes.
    pub alpn: Vec<String>,
    /// The oldest version spoken. Default 1.2: older ones are broken (RFC 8996).
    pub min_version: TlsVersion,
    /// The newest version spoken. Default 1.3.
    pub max_version: TlsVersion,
    /// Cipher suites by their IANA names, the preferred first; rustls only. Empty by default: the
    /// backend's own choice, all of it forward secret and authenticated in rustls.
    pub cipher_suites: Vec<String>,
    /// Certificates that were revoked; rustls only. Off by default.
    pub revocation: Revocation,
    /// Whether a later connection may begin where an earlier one ended. The backend's way by
    /// default: rustls does, native-tls never.
    pub resumption: Resumption,
    /// How long a handshake may take. Default 5 s. The connect deadline around it counts as well.
    #[serde(with = "crate::duration_text")]
    pub handshake_timeout: Duration,
    /// When files, variables and lists are read again.
    pub reload: Reloading,
}

/// The library that does TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Backend {
    /// The platform's: OpenSSL on Linux, Secure Transport on macOS, SChannel on Windows.
    NativeTls,
    /// rustls, the same everywhere.
    Rustls,
}

impl Backend {
    /// Its name in configuration files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NativeTls => "native_tls",
            Self::Rustls => "rustls",
        }
    }

    /// Whether it is part of this build.
    pub const fn is_built_in(self) -> bool {
        match self {
            Self::NativeTls => cfg!(feature = "native-tls"),
            Self::Rustls => cfg!(feature = "rustls"),
        }
    }
}

impl Default for Backend {
    fn default() -> Self {
        if Self::NativeTls.is_built_in() {
            Self::NativeTls
        } else {
            Self::Rustls
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose certificates are trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trust {
    /// Those the system trusts.
    #[default]
    System,
    /// Those in `roots` only.
    Own,
    /// Both.
    Both,
}

/// Where a piece of material is. In a file: `{ file = "/etc/mqtt/ca.pem" }`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Location {
    /// The content of a file, PEM or DER, at most 1 MiB (a revocation list: 64 MiB).
    File(PathBuf),
    /// The value of an environment variable, PEM or a password.
    Env(String),
    /// What a [`CrlFetcher`](super::CrlFetcher) brings from there; for revocation lists only.
    Url(String),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsIdentity {
    /// The certificate and those up to its authority, its own first. PEM, or a single one in DER.
    pub certificate: Option<Location>,
    /// Its key: PKCS#8 in PEM or DER; rustls also takes PKCS#1 and SEC1. An encrypted PKCS#8 key needs
    /// the feature `encrypted-keys`.
    pub key: Option<Location>,
    /// Certificate and key in one PKCS#12 archive instead; rustls needs the feature `pkcs12`.
    pub pkcs12: Option<Location>,
    /// The password of the key or of the archive.
    pub password: Option<Location>,
}

impl TlsIdentity {
    /// A certificate with its chain, and its key.
    pub fn pem(certificate: Location, key: Location) -> Self {
        Self {
            certificate: Some(certificate),
            key: Some(key),
            ..Self::default()
        }
    }

    /// A PKCS#12 archive.
    pub fn pkcs12(archive: Location) -> Self {
        Self {
            pkcs12: Some(archive),
            ..Self::default()
        }
    }

    /// With the password that is there.
    #[must_use]
    pub fn with_password(mut self, password: Location) -> Self {
        self.password = Some(password);
        self
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        })
    }
}

/// What is held against certificates that were revoked (RFC 5280). Off while there are no lists.
///
/// A list must be current: from its `nextUpdate` on it counts as missing, so it is read again well
/// before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Revocation {
    /// The lists: for each, the places where it may be had, tried in order until one gives a list
    /// that is well-formed and current, so that one out of reach does not stop the rest.
    pub lists: Vec<Vec<Location>>,
    /// Which certificates of a server's chain are looked up. Default `chain`.
    pub depth: RevocationDepth,
    /// What becomes of a certificate about which no list says anything. Default `deny`.
    pub unknown: UnknownRevocation,
    /// Whether material without any list is refused. For a source of your own, which may bring
    /// lists that are not configured here; configured lists are always required. Default false.
    pub required: bool,
}

/// Which certificates are looked up in revocation lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RevocationDepth {
    /// All but the root: there must be a list of each authority in the chain.
    #[default]
    Chain,
    /// The server's own.
    Leaf,
}

/// What becomes of a certificate about which no list says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UnknownRevocation {
    /// It is refused.
    #[default]
    Deny,
    /// It is taken for good.
    Allow,
}

/// Whether a later connection may begin where an earlier one ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resumption {
    /// As the backend does: rustls resumes, native-tls never does.
    #[default]
    BackendDefault,
    /// Never: every handshake is a full one.
    Off,
    /// A backend that cannot is refused.
    Required,
}

/// When material is read again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Reloading {
    /// How often. Default every minute: contents are compared, so a look costs a few file reads, and
    /// a certificate that was replaced is shown soon. 100 ms to 366 days; sooner where a revocation
    /// list would end. The system's own roots are read only together with a change of the rest.
    pub interval: Limit,
    /// How long a source may take. Default 30 s: three places of a list that do not answer.
    #[serde(with = "crate::duration_text")]
    pub timeout: Duration,
    /// By how large a part of it each look may come earlier, at random, so that a fleet does not
    /// read its secret store in step. 0 to 1, default 0.1.
    pub jitter: f64,
    /// A certificate of ours that ends within this time is warned about at every look. Default
    /// 10 days: a third of a 30-day certificate, a ninth of one for 90 days.
    pub warn_before_expiry: Limit,
}

impl Default for Reloading {
    fn default() -> Self {
        Self {
            interval: Limit::After(Duration::from_secs(60)),
            timeout: Duration::from_secs(30),
            jitter: 0.1,
            warn_before_expiry: Limit::After(Duration::from_secs(10 * 24 * 60 * 60)),
        }
    }
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            backend: Backend::default(),
            trust: Trust::System,
            roots: Vec::new(),
            identities: Vec::new(),
            server_name: None,
            send_server_name: true,
            alpn: Vec::new(),
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            cipher_suites: Vec::new(),
            revocation: Revocation::default(),
            resumption: Resumption::default(),
            handshake_timeout: Duration::from_secs(5),
            reload: Reloading::default(),
        }
    }
}

macro_rules! setters {
    ($part:ident { $($with:ident $name:ident: $type:ty,)* }) => {
        impl $part {$(
            #[doc = concat!("With this [`", stringify!($name), "`](Self::", stringify!($name), ").")]
            #[must_use]
            pub fn $with(mut self, $name: impl Into<$type>) -> Self {
                self.$name = $name.into();
                self
            }
        )*}
    };
}

setters! { TlsConfig {
    with_backend backend: Backend,
    with_trust trust: Trust,
    with_roots roots: Vec<Location>,
    with_identities identities: Vec<TlsIdentity>,
    with_server_name server_name: Option<String>,
    with_send_server_name send_server_name: bool,
    with_alpn alpn: Vec<String>,
    with_min_version min_version: TlsVersion,
    with_max_version max_version: TlsVersion,
    with_cipher_suites cipher_suites: Vec<String>,
    with_revocation revocation: Revocation,
    with_resumption resumption: Resumption,
    with_handshake_timeout handshake_timeout: Duration,
    with_reload reload: Reloading,
}}

setters! { Revocation {
    with_lists lists: Vec<Vec<Location>>,
    with_depth depth: RevocationDepth,
    with_unknown unknown: UnknownRevocation,
    with_required required: bool,
}}

setters! { Reloading {
    with_interval interval: Limit,
    with_timeout timeout: Duration,
    with_jitter jitter: f64,
    with_warn_before_expiry warn_before_expiry: Limit,
}}

impl TlsConfig {
    /// Checks everything that can be told without reading material.
    ///
    /// # Errors
    ///
    /// All problems, those with what the backend cannot do among them. Nothing was connected.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        self.check(&mut errors);
        errors.into_result()
    }

    pub(crate) fn check(&self, errors: &mut ConfigErrors) {
        super::checks::check(self, errors);
    }

    /// Whether certificates are looked up in revocation lists.
    pub(super) fn wants_revocation(&self) -> bool {
        self.revocation.required || !self.revocation.lists.is_empty()
    }

    /// Whether it names no material at all.
    pub(crate) fn has_no_places(&self) -> bool {
        self.roots.is_empty() && self.identities.is_empty() && self.revocation.lists.is_empty()
    }
}
