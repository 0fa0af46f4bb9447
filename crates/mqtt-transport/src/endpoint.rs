//! Where a server is: parsed from a URL, refused if part of it could not be honoured.

use std::{fmt, path::Path, str::FromStr, sync::Arc};

use http::uri::Authority;
use thiserror::Error;

/// The way to a server, as the scheme of its URL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// `mqtt://` or `tcp://`: MQTT over TCP, port 1883.
    Tcp,
    /// `mqtts://`, `ssl://` or `tls://`: MQTT over TLS over TCP, port 8883.
    Tls,
    /// `unix://`: MQTT over a Unix domain socket.
    Unix,
    /// `ws://`: MQTT over WebSocket, port 80.
    Ws,
    /// `wss://`: MQTT over WebSocket over TLS, port 443.
    Wss,
    /// `quic://`: MQTT over QUIC, port 14567.
    Quic,
}

impl Scheme {
    /// The scheme by its first name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "mqtt",
            Self::Tls => "mqtts",
            Self::Unix => "unix",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Quic => "quic",
        }
    }

    /// The port of a URL that names none; a Unix socket has none.
    pub const fn default_port(self) -> Option<u16> {
        match self {
            Self::Tcp => Some(1883),
            Self::Tls => Some(8883),
            Self::Unix => None,
            Self::Ws => Some(80),
            Self::Wss => Some(443),
            Self::Quic => Some(14_567),
        }
    }

    fn parse(scheme: &str) -> Option<Self> {
        Some(match scheme.to_ascii_lowercase().as_str() {
            "mqtt" | "tcp" => Self::Tcp,
            "mqtts" | "ssl" | "tls" => Self::Tls,
            "unix" => Self::Unix,
            "ws" => Self::Ws,
            "wss" => Self::Wss,
            "quic" => Self::Quic,
            _ => return None,
        })
    }
}

/// Where to connect. Cheap to clone; prints as a URL that parses to the same endpoint.
///
/// Holds no credentials: those belong to the session's options.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(Arc<Parts>);

#[derive(PartialEq, Eq, Hash)]
struct Parts {
    scheme: Scheme,
    /// A name or an address, IPv6 without brackets; empty for a Unix socket.
    host: String,
    /// 0 for a Unix socket.
    port: u16,
    /// Of a Unix socket or a WebSocket request; empty otherwise.
    path: String,
}

/// Why a text is not an endpoint. Does not repeat the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// No scheme.
    #[error("the scheme is missing: write mqtt://host for plain TCP, mqtts://host for TLS")]
    NoScheme,
    /// A scheme that is not known.
    #[error("the scheme {0:?} is not one of mqtt, tcp, mqtts, ssl, tls, unix, ws, wss, quic")]
    UnknownScheme(String),
    /// A user name or password.
    #[error("the user name or password cannot stand in the URL: set it in the session's options")]
    Credentials,
    /// No host.
    #[error("the host is missing")]
    NoHost,
    /// Host or port cannot be read.
    #[error("the host or port is not valid")]
    Authority,
    /// Port 0.
    #[error("port 0 cannot be connected to")]
    PortZero,
    /// A path where none can be honoured.
    #[error("the path cannot be honoured by this scheme: only unix, ws and wss have one")]
    Path,
    /// A Unix socket without an absolute path.
    #[error("the path of a Unix socket must be absolute: unix:///run/mqtt.sock")]
    SocketPath,
    /// A query.
    #[error("the query (after ?) cannot be honoured")]
    Query,
    /// A fragment.
    #[error("the fragment (after #) cannot be honoured")]
    Fragment,
}

impl Endpoint {
    /// How to connect.
    pub fn scheme(&self) -> Scheme {
        self.0.scheme
    }

    /// The name or address of the host, IPv6 without brackets; `None` for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        Some(self.0.host.as_str()).filter(|host| !host.is_empty())
    }

    /// The port; `None` for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        Some(self.0.port).filter(|port| *port != 0)
    }

    /// The path of a WebSocket request; empty for other schemes.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The path of a Unix socket.
    pub fn socket_path(&self) -> Option<&Path> {
        (self.0.scheme == Scheme::Unix).then(|| Path::new(&self.0.path))
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(url: &str) -> Result<Self, EndpointError> {
        let (scheme, rest) = url.split_once("://").ok_or(EndpointError::NoScheme)?;
        // What does not have the form of a scheme may be anything, a password among it.
        if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(EndpointError::NoScheme);
        }
        let scheme =
            Scheme::parse(scheme).ok_or_else(|| EndpointError::UnknownScheme(scheme.to_owned()))?;
        if scheme == Scheme::Unix {
            // All of it is the path: a file name may hold any other character.
            if !rest.starts_with('/') || rest.len() < 2 || rest.contains('\0') {
                return Err(EndpointError::SocketPath);
            }
            return Ok(Self::from(Parts {
                scheme,
                host: String::new(),
                port: 0,
                path: rest.to_owned(),
            }));
        }
        // Anywhere, since a password may hold a slash.
        if rest.contains('@') {
            return Err(EndpointError::Credentials);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if rest.contains('#') {
            return Err(EndpointError::Fragment);
        }
        if rest.contains('?') {
            return Err(EndpointError::Query);
        }
        let (host, port) = parse_authority(authority)?;
        let port = match port.or_else(|| scheme.default_port()) {
            None | Some(0) => return Err(EndpointError::PortZero),
            Some(port) => port,
        };
        let path = match (scheme, rest) {
            (Scheme::Ws | Scheme::Wss, "" | "/") => "/mqtt",
            (Scheme::Ws | Scheme::Wss, path) => path,
            (_, "" | "/") => "",
            _ => return Err(EndpointError::Path),
        };
        Ok(Self::from(Parts {
            scheme,
            host,
            port,
            path: path.to_owned(),
        }))
    }
}

/// Host, without brackets, and port.
fn parse_authority(text: &str) -> Result<(String, Option<u16>), EndpointError> {
    if text.is_empty() || text.starts_with(':') {
        return Err(EndpointError::NoHost);
    }
    let authority: Authority = text.parse().map_err(|_| EndpointError::Authority)?;
    let host = authority.host();
    let has_port = text.len() > host.len();
    let port = authority.port_u16();
    if has_port && port.is_none() {
        return Err(EndpointError::Authority);
    }
    let host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => {
            address
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| EndpointError::Authority)?;
            address
        }
        None => host,
    };
    Ok((host.to_ascii_lowercase(), port))
}

impl From<Parts> for Endpoint {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = EndpointError;

    fn try_from(url: &str) -> Result<Self, EndpointError> {
        url.parse()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts {
            scheme,
            host,
            port,
            path,
        } = &*self.0;
        write!(f, "{}://", scheme.as_str())?;
        match scheme.default_port() {
            None => {}
            Some(_) if host.contains(':') => write!(f, "[{host}]:{port}")?,
            Some(_) => write!(f, "{host}:{port}")?,
        }
        f.write_str(path)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted() {
        #[track_caller]
        fn check(
            url: &str,
            scheme: Scheme,
            host: Option<&str>,
            port: Option<u16>,
            path: &str,
            printed: &str,
        ) {
            let endpoint: Endpoint = url.parse().unwrap();
            assert_eq!(
                (
                    endpoint.scheme(),
                    endpoint.host(),
                    endpoint.port(),
                    endpoint.path()
                ),
                (scheme, host, port, path)
            );
            assert_eq!(endpoint.to_string(), printed);
            assert_eq!(printed.parse(), Ok(endpoint));
        }
        check(
            "mqtt://a",
            Scheme::Tcp,
            Some("a"),
            Some(1883),
            "",
            "mqtt://a:1883",
        );
        check(
            "MQTT://A.Example/",
            Scheme::Tcp,
            Some("a.example"),
            Some(1883),
            "",
            "mqtt://a.example:1883",
        );
        check(
            "tcp://1.2.3.4:99",
            Scheme::Tcp,
            Some("1.2.3.4"),
            Some(99),
            "",
            "mqtt://1.2.3.4:99",
        );
        check(
            "mqtts://a",
            Scheme::Tls,
            Some("a"),
            Some(8883),
            "",
            "mqtts://a:8883",
        );
        check(
            "ssl://a:1",
            Scheme::Tls,
            Some("a"),
            Some(1),
            "",
            "mqtts://a:1",
        );
        check(
            "tls://[::1]",
            Scheme::Tls,
            Some("::1"),
            Some(8883),
            "",
            "mqtts://[::1]:8883",
        );
        check(
            "mqtt://[fe80::1]:5",
            Scheme::Tcp,
            Some("fe80::1"),
            Some(5),
            "",
            "mqtt://[fe80::1]:5",
        );
        check(
            "ws://a",
            Scheme::Ws,
            Some("a"),
            Some(80),
            "/mqtt",
            "ws://a:80/mqtt",
        );
        check(
            "wss://a/x/y",
            Scheme::Wss,
            Some("a"),
            Some(443),
            "/x/y",
            "wss://a:443/x/y",
        );
        check(
            "quic://a",
            Scheme::Quic,
            Some("a"),
            Some(14_567),
            "",
            "quic://a:14567",
        );
        check(
            "unix:///run/m q.sock",
            Scheme::Unix,
            None,
            None,
            "/run/m q.sock",
            "unix:///run/m q.sock",
        );
        let socket: Endpoint = "unix:///a".parse().unwrap();
        assert_eq!(socket.socket_path(), Some(Path::new("/a")));
    }

    #[test]
    fn refused() {
        #[track_caller]
        fn check(url: &str, error: EndpointError) {
            assert_eq!(url.parse::<Endpoint>(), Err(error), "{url}");
        }
        check("localhost:1883", EndpointError::NoScheme);
        check("http://a", EndpointError::UnknownScheme("http".to_owned()));
        check("mqtt://", EndpointError::NoHost);
        check("mqtt://:1883", EndpointError::NoHost);
        check("mqtt://user:secret@a", EndpointError::Credentials);
        check("mqtt://a:0", EndpointError::PortZero);
        check("mqtt://a:", EndpointError::Authority);
        check("mqtt://a:70000", EndpointError::Authority);
        check("mqtt://a:b", EndpointError::Authority);
        check("mqtt://[::1", EndpointError::Authority);
        check("mqtt://[x]", EndpointError::Authority);
        check("mqtt://a b", EndpointError::Authority);
        check("mqtt://a/path", EndpointError::Path);
        check("mqtt://a?x=1", EndpointError::Query);
        check("ws://a/mqtt#x", EndpointError::Fragment);
        check("unix://relative", EndpointError::SocketPath);
        check("unix:///", EndpointError::SocketPath);
        check("unix://@abstract", EndpointError::SocketPath);
    }

    #[test]
    fn a_password_is_not_repeated() {
        for url in [
            "mqtt://user:hunter2@host",
            "ws://user:1234/hunter2@host/mqtt",
            "user:hunter2@host?x=http://y",
        ] {
            let error = url.parse::<Endpoint>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}");
        }
    }
}
