//! Services as connectors.

use std::{error::Error, fmt, future::poll_fn};

use mqtt_transport::{ConfigErrors, ConnectError, Endpoint};
use tower_service::Service;

use crate::{Connect, ConnectContext, Pooled, WeightedEndpoint};

/// Makes the members of a pool by a tower service that takes the endpoint to connect to, with
/// whatever layers are around it.
///
/// The service answers with what is pooled. One that answers with connections is given
/// `map_response(Dialled::new)` of tower's `ServiceExt`, and there is no second adapter for it:
/// what a connection is in a pool, and how it is judged and closed, is the member's business and
/// not the connector's.
///
/// ```
/// use std::time::Duration;
/// use mqtt_pool::{Dialled, Pool, PoolConfig, ServiceConnect};
/// use mqtt_transport::Connector;
/// use tower::{ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dial = ServiceBuilder::new()
///     .concurrency_limit(2) // for all pools that have a clone of it
///     .timeout(Duration::from_secs(3))
///     .service(Connector::default())
///     .map_response(Dialled::new);
/// let connect = ServiceConnect::new(dial, "mqtt://localhost".parse()?);
/// let pool = Pool::new(connect, PoolConfig::default().with_idle_timeout(Duration::from_secs(10)))?;
/// # drop(pool);
/// # Ok(())
/// # }
/// ```
///
/// Each dial is a call of a clone that was ready, whose future lives until the member is there.
///
/// Members do not learn of their [slot](ConnectContext::slot): sessions, whose client identifiers
/// derive from it, have a connector of their own.
pub struct ServiceConnect<S> {
    service: S,
    endpoints: Vec<WeightedEndpoint>,
    /// Where to connect if the pool does not say.
    first: Endpoint,
    is_transient: Box<IsTransient>,
}

type IsTransient = dyn Fn(&ServiceError) -> bool + Send + Sync;

impl<S> ServiceConnect<S> {
    /// Members that `service` makes at `endpoint`.
    pub fn new(service: S, endpoint: Endpoint) -> Self {
        Self {
            service,
            endpoints: vec![endpoint.clone().into()],
            first: endpoint,
            is_transient: Box::new(ServiceError::is_transient),
        }
    }

    /// Members that `service` makes at these endpoints, each with its share of them by weight.
    ///
    /// # Errors
    ///
    /// That there is no endpoint, and what [`WeightedEndpoint::validate_all`] says of them.
    pub fn spread(
        service: S,
        endpoints: impl IntoIterator<Item = WeightedEndpoint>,
    ) -> Result<Self, ConfigErrors> {
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        WeightedEndpoint::validate_all(&endpoints)?;
        match endpoints.first().map(|first| first.endpoint.clone()) {
            Some(first) => Ok(Self {
                endpoints,
                ..Self::new(service, first)
            }),
            // Which has been told above.
            None => Err(ConfigErrors::default()),
        }
    }

    /// With another answer to [`Connect::is_transient`] than
    /// [`ServiceError::is_transient`].
    #[must_use]
    pub fn with_is_transient(
        mut self,
        is_transient: impl Fn(&ServiceError) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.is_transient = Box::new(is_transient);
        self
    }
}

impl<S> Connect for ServiceConnect<S>
where
    S: Service<Endpoint, Response: Pooled, Future: Send> + Clone + Send + Sync + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Connection = S::Response;
    type Error = ServiceError;

    async fn connect(&self, context: ConnectContext) -> Result<S::Response, ServiceError> {
        let endpoint = context.endpoint().unwrap_or(&self.first).clone();
        let mut service = self.service.clone();
        let ready = poll_fn(|context| service.poll_ready(context)).await;
        ready.map_err(ServiceError::new)?;
        service.call(endpoint).await.map_err(ServiceError::new)
    }

    fn is_transient(&self, error: &ServiceError) -> bool {
        (self.is_transient)(error)
    }

    fn endpoints(&self) -> &[WeightedEndpoint] {
        &self.endpoints
    }
}

impl<S: fmt::Debug> fmt::Debug for ServiceConnect<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceConnect")
            .field("service", &self.service)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// Why a service could not connect. It reads as the service's own error does.
///
/// Many of tower's layers make a box of their error, which is no error itself.
#[derive(Debug)]
pub struct ServiceError(Box<dyn Error + Send + Sync>);

impl ServiceError {
    fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// The service's error, or the one it was caused by, that is an `E`.
    pub fn find<E: Error + 'static>(&self) -> Option<&E> {
        let mut error: Option<&(dyn Error + 'static)> = Some(&*self.0);
        while let Some(cause) = error {
            if let Some(found) = cause.downcast_ref() {
                return Some(found);
            }
            error = cause.source();
        }
        None
    }

    /// Whether another attempt can help: what a [`ConnectError`] says of itself, if there is one
    /// among the causes; of any other error it may.
    pub fn is_transient(&self) -> bool {
        self.find::<ConnectError>()
            .is_none_or(ConnectError::is_transient)
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
