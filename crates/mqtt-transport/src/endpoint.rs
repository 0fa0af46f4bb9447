//! Where a server is: parsed from a URL, refused if part of it could not be honoured.

use std::{fmt, net::Ipv6Addr, path::Path, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The way to a server, as the scheme of its URL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// `mqtt://` or `tcp://`: MQTT over TCP, port 1883.
    Tcp,
    /// `mqtts://`, `ssl://` or `tls://`: MQTT over TLS over TCP, port 8883.
    Tls,
    /// `unix:///path`: MQTT over a Unix domain socket. `unix://@name`, on Linux alone: a socket
    /// of the abstract namespace.
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
    /// Of a Unix socket, or its abstract name after an `@`, or of a WebSocket request; empty
    /// otherwise.
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
    /// The host is neither a name nor an address.
    #[error(
        "the host is not a name of letters, digits, '-', '_' and '.', an IPv4 address, or an IPv6 \
         address in brackets; an international name is written in its xn-- form"
    )]
    Host,
    /// A host name of more than 253 characters, or with more than 63 between two dots.
    #[error("the host name is too long: names have up to 253 characters, 63 between dots")]
    HostTooLong,
    /// An IPv6 address with a zone.
    #[error("the zone (after %) of an IPv6 address cannot be honoured")]
    Zone,
    /// A port that is no number up to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// Port 0.
    #[error("port 0 cannot be connected to")]
    PortZero,
    /// A path where none can be honoured.
    #[error("the path cannot be honoured by this scheme: only unix, ws and wss have one")]
    Path,
    /// A character that cannot stand in the path of a request.
    #[error(
        "the path has a character that cannot stand in a URL, like a space: write it as a percent-escape"
    )]
    PathCharacter,
    /// A Unix socket with neither an absolute path nor an abstract name.
    #[error(
        "a Unix socket is given by an absolute path, unix:///run/mqtt.sock, or on Linux by an \
         abstract name, unix://@mqtt"
    )]
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

    /// The path of a WebSocket request, or what follows `unix://`; empty for other schemes.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The path of a Unix socket; `None` if it has an abstract name.
    pub fn socket_path(&self) -> Option<&Path> {
        (self.0.scheme == Scheme::Unix && self.abstract_name().is_none())
            .then(|| Path::new(&self.0.path))
    }

    /// The abstract name of a Unix socket, which exists on Linux alone.
    pub fn abstract_name(&self) -> Option<&str> {
        self.0.path.strip_prefix('@')
    }

    /// The TCP endpoint `authority` (host and perhaps port) of another kind of URL.
    #[cfg(feature = "proxy")]
    pub(crate) fn of_authority(authority: &str, default_port: u16) -> Result<Self, EndpointError> {
        let (host, port) = parse_authority(authority)?;
        Ok(Self::from(Parts {
            scheme: Scheme::Tcp,
            host,
            port: port.unwrap_or(default_port),
            path: String::new(),
        }))
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
            let is_named = rest.starts_with(['/', '@']) && rest.len() >= 2;
            if !is_named || rest.contains('\0') {
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
        let Some(port) = port.or_else(|| scheme.default_port()) else {
            return Err(EndpointError::Port);
        };
        let path = match (scheme, rest) {
            (Scheme::Ws | Scheme::Wss, "" | "/") => "/mqtt",
            (Scheme::Ws | Scheme::Wss, path) if path.bytes().all(is_path_byte) => path,
            (Scheme::Ws | Scheme::Wss, _) => return Err(EndpointError::PathCharacter),
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

/// What may stand in the path of a request (RFC 3986, section 3.3). An escape is not looked into:
/// what it means is the server's business.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte)
}

/// Host, without brackets and in lower case, and port.
fn parse_authority(text: &str) -> Result<(String, Option<u16>), EndpointError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(text) => {
            let (address, port) = text.split_once(']').ok_or(EndpointError::Host)?;
            check_ipv6(address)?;
            (address, port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            check_host(host)?;
            (host, port)
        }
    };
    let port = match port.strip_prefix(':') {
        Some(port) => Some(parse_port(port)?),
        None if port.is_empty() => None,
        None => return Err(EndpointError::Port),
    };
    Ok((host.to_ascii_lowercase(), port))
}

fn check_ipv6(address: &str) -> Result<(), EndpointError> {
    if address.contains('%') {
        return Err(EndpointError::Zone);
    }
    match address.parse::<Ipv6Addr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(EndpointError::Host),
    }
}

/// Refuses what is no name, so that no resolver, header or server name is ever handed one.
fn check_host(host: &str) -> Result<(), EndpointError> {
    if host.is_empty() {
        return Err(EndpointError::NoHost);
    }
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !host.bytes().all(is_name_byte) {
        return Err(EndpointError::Host);
    }
    // A dot at the end says that the name is complete.
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > 253 || name.split('.').any(|label| label.len() > 63) {
        return Err(EndpointError::HostTooLong);
    }
    if name.split('.').any(str::is_empty) {
        return Err(EndpointError::Host);
    }
    Ok(())
}

fn parse_port(text: &str) -> Result<u16, EndpointError> {
    // Numbers of Rust may begin with a plus, ports may not.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EndpointError::Port);
    }
    match text.parse() {
        Ok(0) => Err(EndpointError::PortZero),
        Ok(port) => Ok(port),
        Err(_) => Err(EndpointError::Port),
    }
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

/// As its URL.
impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
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
        check(
            "ws://a_b-c.:8080/%7Eme/x;y=1",
            Scheme::Ws,
            Some("a_b-c."),
            Some(8080),
            "/%7Eme/x;y=1",
            "ws://a_b-c.:8080/%7Eme/x;y=1",
        );
        check(
            "unix://@mqtt/1@x",
            Scheme::Unix,
            None,
            None,
            "@mqtt/1@x",
            "unix://@mqtt/1@x",
        );
    }

    #[test]
    fn a_unix_socket_has_a_path_or_an_abstract_name() {
        let socket: Endpoint = "unix:///a".parse().unwrap();
        assert_eq!(socket.socket_path(), Some(Path::new("/a")));
        assert_eq!(socket.abstract_name(), None);
        let socket: Endpoint = "unix://@/a".parse().unwrap();
        assert_eq!(socket.socket_path(), None);
        assert_eq!(socket.abstract_name(), Some("/a"));
        let other: Endpoint = "mqtt://a".parse().unwrap();
        assert_eq!((other.socket_path(), other.abstract_name()), (None, None));
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
        check("mqtt://a:", EndpointError::Port);
        check("mqtt://a:70000", EndpointError::Port);
        check("mqtt://a:+80", EndpointError::Port);
        check("mqtt://a:-1", EndpointError::Port);
        check("mqtt://a:8 0", EndpointError::Port);
        check("mqtt://a:b", EndpointError::Port);
        check("mqtt://a:1:2", EndpointError::Port);
        check("mqtt://::1", EndpointError::NoHost);
        check("mqtt://[::1]1883", EndpointError::Port);
        check("mqtt://[::1", EndpointError::Host);
        check("mqtt://[x]", EndpointError::Host);
        check("mqtt://[]", EndpointError::Host);
        check("mqtt://[127.0.0.1]", EndpointError::Host);
        check("mqtt://[fe80::1%eth0]", EndpointError::Zone);
        check("mqtt://[fe80::1%25eth0]:1883", EndpointError::Zone);
        check("mqtt://a b", EndpointError::Host);
        check("mqtt://a,b", EndpointError::Host);
        check("mqtt://a%41", EndpointError::Host);
        check("mqtt://a\r\nb", EndpointError::Host);
        check("mqtt://b\u{fc}cher", EndpointError::Host);
        check("mqtt://a..b", EndpointError::Host);
        check("mqtt://.a", EndpointError::Host);
        check("mqtt://.", EndpointError::Host);
        check(
            &format!("mqtt://{}", "a".repeat(64)),
            EndpointError::HostTooLong,
        );
        check(
            &format!("mqtt://{}ab", "abc.".repeat(63)),
            EndpointError::HostTooLong,
        );
        check("mqtt://a/path", EndpointError::Path);
        check("mqtt://a?x=1", EndpointError::Query);
        check("ws://a/mqtt#x", EndpointError::Fragment);
        check("ws://a/a b", EndpointError::PathCharacter);
        check("ws://a/\r\nX: y", EndpointError::PathCharacter);
        check("ws://a/\u{fc}", EndpointError::PathCharacter);
        check("unix://relative", EndpointError::SocketPath);
        check("unix:///", EndpointError::SocketPath);
        check("unix:///a\0b", EndpointError::SocketPath);
        check("unix://@", EndpointError::SocketPath);
    }

    #[test]
    fn the_longest_names_are_taken() {
        for host in ["a".repeat(63), format!("{}a", "abc.".repeat(63))] {
            let endpoint: Endpoint = format!("mqtt://{host}").parse().unwrap();
            assert_eq!(endpoint.host(), Some(host.as_str()));
        }
    }

    #[test]
    fn no_text_panics_and_what_is_taken_prints_as_itself() {
        const PIECES: [&str; 28] = [
            "mqtt", "ws", "wss", "quic", "unix", "://", "://", ":", "/", "@", "[", "]", "::1", "%",
            "?", "#", ".", "-", "_", "a", "Z", "0", "1883", "65536", " ", "\0", "\u{fc}", "+",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        let mut taken = 0;
        for _ in 0..50_000 {
            let scheme = ["mqtt://", "ws://", "unix://", ""][random.usize(..4)];
            let rest: String = (0..random.usize(..8))
                .map(|_| PIECES[random.usize(..PIECES.len())])
                .collect();
            let text = format!("{scheme}{rest}");
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                taken += 1;
                assert_eq!(endpoint.to_string().parse(), Ok(endpoint), "{text:?}");
            }
        }
        assert!(taken > 1_000, "only {taken}");
    }

    #[test]
    fn it_is_text_in_configuration() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Options {
            server: Endpoint,
        }
        let options: Options = toml::from_str("server = 'ssl://A.Example'").unwrap();
        assert_eq!(options.server, "mqtts://a.example:8883".parse().unwrap());
        let written = toml::to_string(&options).unwrap();
        assert_eq!(written, "server = \"mqtts://a.example:8883\"\n");
        assert_eq!(toml::from_str(&written), Ok(options));

        let error = toml::from_str::<Options>("server = 'mqtt://a:0'").unwrap_err();
        assert!(error.to_string().contains("port 0 cannot"), "{error}");
        assert!(toml::from_str::<Options>("server = 1883").is_err());
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
