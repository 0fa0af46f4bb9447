//! Servers that name another one: whether it is followed there, and with what.
//!
//! Its rules, whatever a policy allows: never from an encrypted connection to a plain one, never to a
//! file of this machine, never in a circle, never on and on.

use std::{collections::VecDeque, fmt, sync::Arc};

use mqtt_proto::{
    ReasonCode, Utf8String,
    packet::{ConnAck, Connect},
};
use mqtt_transport::{Endpoint, EndpointError, Scheme};
use thiserror::Error;

/// Whether a server of 5.0 is followed that says in CONNACK or DISCONNECT to use another one (0x9C) or
/// that it has moved (0x9D), and names it (5.0 section 4.11).
///
/// By default none is: the error names the reference. What a policy allows is still refused if it
/// leads from an encrypted connection (TLS, `wss`, QUIC) or a Unix socket to a plain one, or from
/// elsewhere to a Unix socket. A reference without a scheme keeps that of the endpoint that gave
/// it, and its path if it is a WebSocket; one that names several is tried in their order.
///
/// **Credentials stay at home.** At another host than that of the endpoint the session belongs to,
/// user name and password are withheld, and their [source](crate::CredentialsSource) is not asked,
/// unless [`carrying_credentials`](Self::carrying_credentials) says otherwise. Client identifier,
/// will, TLS identity and the session itself go along.
///
/// Another server to use is for one attempt. One that has moved is looked for there in later attempts
/// too, until one of them fails: then home is asked again.
#[derive(Clone)]
pub struct RedirectPolicy {
    allows: Arc<dyn Fn(&Redirect<'_>) -> bool + Send + Sync>,
    max_hops: u32,
    carries_credentials: bool,
}

/// Where a server sends a session.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Redirect<'a> {
    /// The server that says so.
    pub from: &'a Endpoint,
    /// The one it names.
    pub to: &'a Endpoint,
    /// Whether it is for good: 0x9D.
    pub is_permanent: bool,
}

impl RedirectPolicy {
    /// Follows where this says so. It is called in the session's task and should not block.
    pub fn new(allows: impl Fn(&Redirect<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self {
            allows: Arc::new(allows),
            max_hops: MAX_HOPS,
            carries_credentials: false,
        }
    }

    /// Follows to other ports, paths and schemes of the host that says so.
    pub fn same_host() -> Self {
        Self::new(|redirect| is_same_host(redirect.from, redirect.to))
    }

    /// Follows to these hosts, names or addresses, in any case of letters, and to the host that says
    /// so.
    pub fn hosts<H: Into<String>>(hosts: impl IntoIterator<Item = H>) -> Self {
        let hosts: Vec<String> = hosts
            .into_iter()
            .map(|host| host.into().to_ascii_lowercase())
            .collect();
        Self::new(move |redirect| {
            let is_listed = |host| hosts.iter().any(|listed| listed == host);
            is_same_host(redirect.from, redirect.to) || redirect.to.host().is_some_and(is_listed)
        })
    }

    /// Follows from one server to the next at most so often in one attempt, and after so many
    /// DISCONNECTs before the next stable period. Default 5: more is a circle in all but name.
    #[must_use]
    pub fn with_max_hops(mut self, max_hops: u32) -> Self {
        self.max_hops = max_hops;
        self
    }

    /// Tells other hosts user name and password as well: for policies that know whom they allow.
    #[must_use]
    pub fn carrying_credentials(mut self) -> Self {
        self.carries_credentials = true;
        self
    }

    pub(crate) fn max_hops(&self) -> u32 {
        self.max_hops
    }

    /// Whether `to` is not to be told what belongs to `home`.
    pub(crate) fn withholds(&self, home: &Endpoint, to: &Endpoint) -> bool {
        !self.carries_credentials && home != to && !is_same_host(home, to)
    }

    /// The endpoints it follows to, in their order; if there is none, why not.
    pub(crate) fn targets(
        &self,
        from: &Endpoint,
        code: ReasonCode,
        reference: Option<&Utf8String>,
    ) -> Result<Vec<Endpoint>, RedirectError> {
        let mut targets = Vec::new();
        let mut first_error = None;
        let references = reference.map_or("", |reference| reference);
        for reference in references.split_ascii_whitespace().take(MAX_REFERENCES) {
            match self.target(from, code, reference) {
                Ok(target) => targets.push(target),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        if targets.is_empty() {
            return Err(first_error.unwrap_or(RedirectError::NoReference));
        }
        Ok(targets)
    }

    fn target(
        &self,
        from: &Endpoint,
        code: ReasonCode,
        reference: &str,
    ) -> Result<Endpoint, RedirectError> {
        let to = resolve(from, reference)?;
        let is_downgrade = is_plain(&to) && !is_plain(from);
        let is_file = to.scheme() == Scheme::Unix && from.scheme() != Scheme::Unix;
        if is_downgrade || is_file {
            return Err(RedirectError::Insecure { to });
        }
        let redirect = Redirect {
            from,
            to: &to,
            is_permanent: code == ReasonCode::SERVER_MOVED,
        };
        if (self.allows)(&redirect) {
            Ok(to)
        } else {
            Err(RedirectError::NotAllowed { to })
        }
    }
}

const MAX_HOPS: u32 = 5;

/// Servers of one answer that are looked at.
const MAX_REFERENCES: usize = 8;

/// Servers that are tried in one attempt, whoever named them.
const MAX_TRIED: usize = 16;

impl fmt::Debug for RedirectPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedirectPolicy")
            .field("max_hops", &self.max_hops)
            .field("carries_credentials", &self.carries_credentials)
            .finish_non_exhaustive()
    }
}

/// Whether the code says to use another server.
pub(crate) fn is_redirect(code: ReasonCode) -> bool {
    code == ReasonCode::USE_ANOTHER_SERVER || code == ReasonCode::SERVER_MOVED
}

fn is_plain(endpoint: &Endpoint) -> bool {
    match endpoint.scheme() {
        Scheme::Tls | Scheme::Wss | Scheme::Quic | Scheme::Unix => false,
        // Whatever there will be is taken for the worst.
        Scheme::Tcp | Scheme::Ws | _ => true,
    }
}

fn is_same_host(one: &Endpoint, other: &Endpoint) -> bool {
    one.host().is_some() && one.host() == other.host()
}

fn resolve(from: &Endpoint, reference: &str) -> Result<Endpoint, RedirectError> {
    let is_whole = reference.contains("://");
    let endpoint = if is_whole {
        reference.parse()
    } else {
        let path = if reference.contains('/') {
            ""
        } else {
            from.path()
        };
        format!("{}://{reference}{path}", from.scheme().as_str()).parse()
    };
    endpoint.map_err(RedirectError::NotAnEndpoint)
}

/// Why a server that named another was not followed there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// It named none.
    #[error("it names no other server")]
    NoReference,
    /// What it named is not an endpoint.
    #[error("what it names is not an endpoint")]
    NotAnEndpoint(#[source] EndpointError),
    /// The way there is less secure.
    #[error("the way to {to} is less secure")]
    Insecure {
        /// The server it named.
        to: Endpoint,
    },
    /// The [policy](RedirectPolicy) says no.
    #[error("the policy does not allow {to}")]
    NotAllowed {
        /// The server it named.
        to: Endpoint,
    },
    /// All it named were asked in this attempt already.
    #[error("{to} was asked already")]
    Circle {
        /// The first it named.
        to: Endpoint,
    },
    /// There were too many in a row.
    #[error("there were {max_hops} in a row")]
    TooMany {
        /// How many are followed.
        max_hops: u32,
    },
}

/// The servers of one attempt.
pub(crate) struct Route {
    ahead: VecDeque<Hop>,
    seen: Vec<Endpoint>,
}

/// One of them.
pub(crate) struct Hop {
    pub(crate) to: Endpoint,
    hops: u32,
    /// Whether every server on the way here has moved.
    has_moved: bool,
}

impl Hop {
    /// Whether the session is to be looked for here from now on.
    pub(crate) fn is_new_home(&self) -> bool {
        self.hops > 0 && self.has_moved
    }
}

impl Route {
    /// From there.
    pub(crate) fn new(to: Endpoint) -> Self {
        let mut route = Self {
            ahead: VecDeque::new(),
            seen: Vec::new(),
        };
        route.go_to(vec![to], 0, true);
        route
    }

    pub(crate) fn next(&mut self) -> Option<Hop> {
        if self.seen.len() >= MAX_TRIED {
            return None;
        }
        let hop = self.ahead.pop_front()?;
        self.seen.push(hop.to.clone());
        Some(hop)
    }

    /// Goes where the server `from` has sent the session with a DISCONNECT.
    pub(crate) fn sent_on(from: Endpoint, targets: Vec<Endpoint>, has_moved: bool) -> Self {
        let mut route = Self {
            ahead: VecDeque::new(),
            seen: vec![from],
        };
        route.go_to(targets, 1, has_moved);
        route
    }

    /// Goes where this answer to CONNECT says, before all that is ahead.
    pub(crate) fn follow(
        &mut self,
        policy: &RedirectPolicy,
        hop: &Hop,
        connack: &ConnAck,
    ) -> Result<(), RedirectError> {
        let code = connack.reason_code;
        let reference = connack.properties.server_reference.as_ref();
        let mut targets = policy.targets(&hop.to, code, reference)?;
        let max_hops = policy.max_hops();
        if hop.hops >= max_hops {
            return Err(RedirectError::TooMany { max_hops });
        }
        let first = targets.first().cloned();
        targets.retain(|target| !self.seen.contains(target));
        if let (true, Some(to)) = (targets.is_empty(), first) {
            return Err(RedirectError::Circle { to });
        }
        let has_moved = hop.has_moved && code == ReasonCode::SERVER_MOVED;
        self.go_to(targets, hop.hops + 1, has_moved);
        Ok(())
    }

    fn go_to(&mut self, targets: Vec<Endpoint>, hops: u32, has_moved: bool) {
        for to in targets.into_iter().rev() {
            self.ahead.push_front(Hop {
                to,
                hops,
                has_moved,
            });
        }
    }
}

/// Takes out of a CONNECT what only the home of the session may know.
pub(crate) fn withhold(connect: &mut Connect) {
    connect.user_name = None;
    connect.password = None;
    connect.properties.authentication_method = None;
    connect.properties.authentication_data = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> RedirectPolicy {
        RedirectPolicy::new(|_| true)
    }

    #[track_caller]
    fn check(policy: &RedirectPolicy, from: &str, reference: &str, to: Result<&[&str], &str>) {
        let from = from.parse().unwrap();
        let reference = Utf8String::new(reference.to_owned()).unwrap();
        let targets = policy.targets(&from, ReasonCode::USE_ANOTHER_SERVER, Some(&reference));
        let targets = targets
            .map(|targets| targets.iter().map(ToString::to_string).collect::<Vec<_>>())
            .map_err(|error| error.to_string());
        match (targets, to) {
            (Ok(targets), Ok(to)) => assert_eq!(targets, to, "{reference}"),
            (Err(error), Err(words)) => assert!(error.contains(words), "{reference}: {error}"),
            (targets, _) => panic!("{reference}: {targets:?}"),
        }
    }

    #[test]
    fn references_keep_the_scheme_and_never_lose_encryption() {
        let all = all();
        check(&all, "mqtt://a", "b", Ok(&["mqtt://b:1883"]));
        check(
            &all,
            "mqtt://a",
            "b:99 [::1]:7",
            Ok(&["mqtt://b:99", "mqtt://[::1]:7"]),
        );
        check(&all, "mqtts://a:1", "b", Ok(&["mqtts://b:8883"]));
        check(&all, "wss://a/p", "b", Ok(&["wss://b:443/p"]));
        check(&all, "wss://a/p", "b/q", Ok(&["wss://b:443/q"]));
        check(&all, "mqtt://a", "mqtts://b", Ok(&["mqtts://b:8883"]));
        check(&all, "quic://a", "wss://b/x", Ok(&["wss://b:443/x"]));
        check(&all, "unix:///a", "mqtts://b", Ok(&["mqtts://b:8883"]));
        check(&all, "unix:///a", "unix:///b", Ok(&["unix:///b"]));
        for from in ["mqtts://a", "wss://a", "quic://a", "unix:///a"] {
            for to in ["mqtt://b", "tcp://a:1883", "ws://a/mqtt"] {
                check(&all, from, to, Err("less secure"));
            }
        }
        check(&all, "mqtt://a", "unix:///etc/x", Err("less secure"));
        check(&all, "unix:///a", "b", Err("not an endpoint"));
        check(&all, "mqtt://a", "u:p@b", Err("not an endpoint"));
        check(&all, "mqtt://a", "", Err("names no other"));
        // What cannot be followed does not hide what can.
        check(&all, "mqtts://a", "mqtt://b b:x c", Ok(&["mqtts://c:8883"]));
        let many = "b ".repeat(100);
        check(&all, "mqtt://a", &many, Ok(&["mqtt://b:1883"; 8]));
    }

    #[test]
    fn policies_by_host() {
        let same = RedirectPolicy::same_host();
        check(&same, "mqtt://a", "A:99", Ok(&["mqtt://a:99"]));
        check(&same, "mqtt://a", "b", Err("does not allow mqtt://b"));
        check(&same, "unix:///a", "unix:///b", Err("does not allow"));
        let hosts = RedirectPolicy::hosts(["B.example", "::1"]);
        check(
            &hosts,
            "mqtt://a",
            "b.EXAMPLE",
            Ok(&["mqtt://b.example:1883"]),
        );
        check(&hosts, "mqtt://a", "[::1]", Ok(&["mqtt://[::1]:1883"]));
        check(&hosts, "mqtt://a", "c.b.example", Err("does not allow"));
    }

    #[test]
    fn a_route_has_an_end() {
        // Each server names three new ones.
        let policy = all().with_max_hops(u32::MAX);
        let mut route = Route::new("mqtt://a".parse().unwrap());
        let mut tried = 0;
        while let Some(hop) = route.next() {
            tried += 1;
            let mut connack = ConnAck::refused(ReasonCode::USE_ANOTHER_SERVER);
            let reference = format!("x{tried} y{tried} z{tried}");
            connack.properties.server_reference = Some(Utf8String::new(reference).unwrap());
            route.follow(&policy, &hop, &connack).unwrap();
        }
        assert_eq!(tried, MAX_TRIED);
    }
}
