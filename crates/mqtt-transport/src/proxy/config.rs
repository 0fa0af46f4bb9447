//! Which proxy, and how to speak to it.

use std::{fmt, str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::{ConfigErrors, Endpoint, EndpointError, Limit};

/// A proxy on the way to servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ProxyConfig {
    /// Where the proxy is and what it speaks: `http://proxy:3128` or `socks5://proxy:1080`.
    pub url: ProxyUrl,
    /// The name to give to the proxy. Default none: it is asked without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// The password to `user_name`. Read from configuration, never written to it.
    #[serde(default, skip_serializing, deserialize_with = "secret")]
    pub password: Option<SecretString>,
    /// How long the proxy may take to answer, from its acceptance of the connection until the tunnel
    /// is there; it dials the server within. At least `1ms`. Default 10 s: longer than a dial takes,
    /// shorter than a person waits. Dialling the proxy itself is not part of it: a
    /// [`ConnectDeadline`](crate::ConnectDeadline) bounds all of it.
    #[serde(default = "default_timeout", with = "crate::duration_text")]
    pub timeout: Duration,
    /// Hosts that are reached without the proxy: a name or address as it stands in the endpoint, or
    /// with a dot before it (`.example.com`) all names that end so. Default empty.
    #[serde(default)]
    pub no_proxy: Vec<String>,
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

impl ProxyConfig {
    /// The proxy at `url`, without credentials.
    pub fn new(url: ProxyUrl) -> Self {
        Self {
            url,
            user_name: None,
            password: None,
            timeout: default_timeout(),
            no_proxy: Vec::new(),
        }
    }

    /// With this [`user_name`](Self::user_name) and [`password`](Self::password).
    #[must_use]
    pub fn with_credentials(
        mut self,
        user_name: impl Into<String>,
        password: impl Into<SecretString>,
    ) -> Self {
        self.user_name = Some(user_name.into());
        self.password = Some(password.into());
        self
    }

    /// With this [`timeout`](Self::timeout).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With these hosts in [`no_proxy`](Self::no_proxy).
    #[must_use]
    pub fn with_no_proxy<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.no_proxy = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    ///
    /// All that is wrong, with the names of the options; never the password.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        self.check("proxy", &mut errors);
        errors.into_result()
    }

    /// [`validate`](Self::validate) as part of a larger configuration, in which the options are
    /// found under `path`.
    pub(crate) fn check(&self, path: &str, errors: &mut ConfigErrors) {
        let name = |option: &str| format!("{path}.{option}");
        match (&self.user_name, &self.password) {
            (None, None) => {}
            (None, Some(_)) => errors.push(
                name("user_name"),
                "missing",
                "must be set with a password",
                "set it, or remove the password",
            ),
            (Some(_), None) => errors.push(
                name("password"),
                "missing",
                "must be set with a user name",
                "set it, if only to an empty text for an HTTP proxy that asks for none",
            ),
            (Some(user_name), Some(password)) => {
                self.check_credentials(user_name, password, path, errors);
            }
        }
        if self.timeout < Duration::from_millis(1) {
            errors.push(
                name("timeout"),
                Limit::After(self.timeout),
                "must be at least 1ms",
                "10s is the default",
            );
        }
        for host in &self.no_proxy {
            if host.trim_start_matches('.').is_empty() || host.contains(['*', '/', ' ']) {
                errors.push(
                    name("no_proxy"),
                    format_args!("{host:?}"),
                    "must be names, addresses, or ends of names that begin with a dot",
                    "write .example.com for all names below example.com",
                );
            }
        }
    }

    fn check_credentials(
        &self,
        user_name: &str,
        password: &SecretString,
        path: &str,
        errors: &mut ConfigErrors,
    ) {
        let password = password.expose_secret();
        match self.url.protocol {
            Protocol::Http => {
                if user_name.contains(|c: char| c == ':' || c.is_control()) {
                    errors.push(
                        format!("{path}.user_name"),
                        format_args!("{user_name:?}"),
                        "must have no colon and no control characters",
                        "HTTP cannot send such a name",
                    );
                }
            }
            Protocol::Socks5 => {
                if !(1..=255).contains(&user_name.len()) {
                    errors.push(
                        format!("{path}.user_name"),
                        format_args!("of {} bytes", user_name.len()),
                        "must have from 1 to 255 bytes",
                        "SOCKS5 cannot send such a name",
                    );
                }
                if !(1..=255).contains(&password.len()) {
                    errors.push(
                        format!("{path}.password"),
                        "of a length",
                        "must have from 1 to 255 bytes",
                        "SOCKS5 cannot send such a password",
                    );
                }
            }
        }
    }

    pub(super) fn credentials(&self) -> Option<Credentials> {
        Some(Credentials {
            user_name: self.user_name.clone()?,
            password: self.password.clone()?,
        })
    }

    /// Whether `host` is reached without the proxy. A dot that ends a name counts for nothing.
    pub(super) fn is_bypassed(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.no_proxy.iter().any(|entry| {
            let entry = entry.trim_end_matches('.').to_ascii_lowercase();
            if entry.starts_with('.') {
                host.ends_with(&entry)
            } else {
                host == entry
            }
        })
    }
}

/// A name and the password to it.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) user_name: String,
    pub(super) password: SecretString,
}

/// Where a proxy is: `http://host:port` or `socks5://host:port`, port 80 or 1080 if there is none.
///
/// Holds no credentials: those have their own options.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProxyUrl {
    protocol: Protocol,
    endpoint: Endpoint,
}

/// How a proxy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    /// HTTP CONNECT, over a plain connection.
    Http,
    /// SOCKS5, with names resolved by the proxy.
    Socks5,
}

/// Why a text is not the URL of a proxy. Does not repeat the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// Another scheme than http and socks5, or none.
    #[error("the URL of a proxy begins with http:// or socks5://")]
    Scheme,
    /// A user name or password.
    #[error("the user name or password cannot stand in the URL: set user_name and password")]
    Credentials,
    /// Something after host and port.
    #[error("the URL of a proxy ends after host and port")]
    Path,
    /// Host or port are not valid.
    #[error(transparent)]
    Authority(#[from] EndpointError),
}

impl ProxyUrl {
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The proxy as an endpoint to dial.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl FromStr for ProxyUrl {
    type Err = ProxyUrlError;

    fn from_str(url: &str) -> Result<Self, ProxyUrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(ProxyUrlError::Scheme)?;
        let (protocol, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Protocol::Http, 80),
            // The h is other programs' way to say that the proxy resolves names.
            "socks5" | "socks5h" => (Protocol::Socks5, 1080),
            _ => return Err(ProxyUrlError::Scheme),
        };
        if rest.contains('@') {
            return Err(ProxyUrlError::Credentials);
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(ProxyUrlError::Path);
        }
        Ok(Self {
            protocol,
            endpoint: Endpoint::of_authority(authority, default_port)?,
        })
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Http => "http",
            Protocol::Socks5 => "socks5",
        };
        let host = self.endpoint.host().unwrap_or_default();
        let port = self.endpoint.port().unwrap_or_default();
        write!(f, "{scheme}://{}", Authority(host, port))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ProxyUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProxyUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Host and port as they stand in URLs and requests: IPv6 in brackets.
pub(super) struct Authority<'a>(pub(super) &'a str, pub(super) u16);

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(host, port) = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        #[track_caller]
        fn check(text: &str, expected: Result<&str, ProxyUrlError>) {
            let parsed = text.parse::<ProxyUrl>().map(|url| url.to_string());
            assert_eq!(parsed, expected.map(str::to_owned), "{text}");
        }
        check("http://Proxy:3128", Ok("http://proxy:3128"));
        check("http://proxy/", Ok("http://proxy:80"));
        check("SOCKS5://127.0.0.1", Ok("socks5://127.0.0.1:1080"));
        check("socks5h://[::1]:9", Ok("socks5://[::1]:9"));
        check("proxy:3128", Err(ProxyUrlError::Scheme));
        check("https://proxy", Err(ProxyUrlError::Scheme));
        check("http://me:hunter2@proxy", Err(ProxyUrlError::Credentials));
        check("http://proxy/path", Err(ProxyUrlError::Path));
        check("http://proxy?x", Err(ProxyUrlError::Path));
        check("http://", Err(EndpointError::NoHost.into()));
        check("http://a b", Err(EndpointError::Host.into()));
        check("http://a:0", Err(EndpointError::PortZero.into()));
    }

    #[test]
    fn hosts_that_need_no_proxy() {
        let config = ProxyConfig::new("http://proxy".parse().unwrap()).with_no_proxy([
            "localhost",
            "::1",
            ".Example.com",
        ]);
        for (host, is_bypassed) in [
            ("localhost", true),
            ("localhost.", true),
            ("::1", true),
            ("a.example.com", true),
            ("a.b.example.com.", true),
            ("example.com", false),
            ("badexample.com", false),
            ("localhost.org", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(config.is_bypassed(host), is_bypassed, "{host}");
        }
    }
}
