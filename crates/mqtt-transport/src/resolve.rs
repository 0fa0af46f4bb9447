//! From a name to addresses, by the system or by what the user puts in its place.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
};

use crate::{ConnectError, ConnectPhase, Endpoint, progress::in_phase};

/// Finds the addresses of names, for [`TcpConnector`](crate::TcpConnector).
///
/// Closures that take a host and a port and return a future of addresses implement it:
///
/// ```
/// use mqtt_transport::{TcpConnector, TcpOptions};
///
/// // One server, whatever its name.
/// let connector = TcpConnector::new(TcpOptions::default())
///     .with_resolver(|_: &str, port: u16| async move { Ok(vec![([127, 0, 0, 1], port).into()]) });
/// ```
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of `host`, the best first; an empty list is an error to who asks.
    ///
    /// `host` is never an address. `port` is the endpoint's, to be put into the answers; a resolver
    /// that knows a better one may put that. The future is dropped when the connect is given up.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> ResolveFuture<'a>;
}

/// The future of [`Resolve::resolve`].
pub type ResolveFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

impl<F, R> Resolve for F
where
    F: Fn(&str, u16) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
{
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> ResolveFuture<'a> {
        Box::pin(self(host, port))
    }
}

/// The system's resolver: `getaddrinfo`, on one of tokio's blocking threads.
///
/// It gives its addresses in the order of RFC 6724, so that a family that cannot be reached comes
/// last. It cannot be interrupted: the thread of a connect that was given up stays busy until the
/// system answers. Bound the connects that run at once, with tower's `ConcurrencyLimit` for example.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> ResolveFuture<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// The addresses of an endpoint, at least one. A host that is an address is not looked up.
pub(crate) async fn addresses(
    resolver: &dyn Resolve,
    endpoint: &Endpoint,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let failed = |kind, text| {
        let source = io::Error::new(kind, text);
        ConnectError::new(ConnectPhase::Resolve, endpoint, source)
    };
    let (Some(host), Some(port)) = (endpoint.host(), endpoint.port()) else {
        return Err(failed(
            io::ErrorKind::InvalidInput,
            "it needs a host and a port",
        ));
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let addresses = in_phase(ConnectPhase::Resolve, resolver.resolve(host, port))
        .await
        .map_err(|source| ConnectError::new(ConnectPhase::Resolve, endpoint, source))?;
    if addresses.is_empty() {
        return Err(failed(io::ErrorKind::NotFound, "the name has no addresses"));
    }
    Ok(addresses)
}
