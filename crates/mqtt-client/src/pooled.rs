//! Sessions from a pool.

use mqtt_pool::{ConfigErrors, ConnectContext, Pooled, WeightedEndpoint};
use mqtt_transport::{ConnectDeadline, Connector, Endpoint};

use crate::{
    connector::{Dial, SessionConnector},
    error::{ConnectCause, ConnectError},
    session::Session,
};

/// Makes the sessions of a [`Pool`](mqtt_pool::Pool), at one endpoint or spread over several.
///
/// Each gets a client identifier of its own: the configured one, `-`, and the number of its slot
/// in the pool, which no two live sessions share. Without a configured one the server names them.
///
/// The pool learns at once of a session that ends, and replaces it if it wants to. It backs off
/// from a server that ends sessions soon after it accepted them, however it does so, and not for
/// sessions that were told to [`disconnect`](Session::disconnect). A refusal that only a person can
/// mend, as [`ConnectError::is_transient`] says, stops its dialling.
///
/// A session is not asked whether it is alive before it is handed out: its keep-alive finds that
/// out, and the pool's `check_after` has no effect. Its `connect_timeout` is best above those of
/// [`SessionConfig`](crate::SessionConfig) for the dial and the CONNACK together, as it is by
/// default: it would not say where the time went.
///
/// # What a lease leaves behind
///
/// A session goes back to the pool as if it were new or not at all. One with an open
/// [`Subscription`](crate::Subscription), whose messages would be the next holder's, or with a
/// publish that the server has not acknowledged, which tells that it may be stuck, is discarded when
/// its lease is returned: it waits for the acknowledgements, up to `quiesce`, and leaves. So drop
/// subscriptions, or [unsubscribe](crate::Subscription::unsubscribe), and await publishes before
/// the lease is dropped; else each lease costs a connection. Clones and publishers of the session
/// should not outlive its lease: the session is another's then.
#[derive(Clone, Debug)]
pub struct PooledSessions<C = ConnectDeadline<Connector>> {
    connector: SessionConnector<C>,
    endpoints: Vec<WeightedEndpoint>,
    /// Where to connect if the pool does not say.
    first: Endpoint,
}

impl<C: Clone> PooledSessions<C> {
    /// Sessions that `connector` opens at `endpoint`.
    pub fn new(connector: SessionConnector<C>, endpoint: Endpoint) -> Self {
        Self {
            connector: connector.for_pool(),
            endpoints: vec![endpoint.clone().into()],
            first: endpoint,
        }
    }

    /// Sessions that `connector` opens at these endpoints, each with its share of them by weight.
    /// While one cannot be connected to, the others have its share.
    ///
    /// # Errors
    ///
    /// That there is no endpoint, and what [`WeightedEndpoint::validate_all`] says of them.
    pub fn spread(
        connector: SessionConnector<C>,
        endpoints: impl IntoIterator<Item = WeightedEndpoint>,
    ) -> Result<Self, ConfigErrors> {
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        WeightedEndpoint::validate_all(&endpoints)?;
        match endpoints.first().map(|first| first.endpoint.clone()) {
            Some(first) => Ok(Self {
                connector: connector.for_pool(),
                endpoints,
                first,
            }),
            // Which has been told above.
            None => Err(ConfigErrors::default()),
        }
    }
}

impl<C> mqtt_pool::Connect for PooledSessions<C>
where
    C: Dial + Sync,
{
    type Connection = Session;
    type Error = ConnectError;

    async fn connect(&self, context: ConnectContext) -> Result<Session, ConnectError> {
        let endpoint = context.endpoint().unwrap_or(&self.first).clone();
        let client_id = match self.connector.config().client_id.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}-{}", context.slot()),
        };
        let connector = match self.connector.with_client_id(client_id) {
            Ok(connector) => connector,
            Err(errors) => {
                let cause = ConnectCause::Config(errors);
                return Err(ConnectError { endpoint, cause });
            }
        };
        let notice = Some(context.death_notice());
        connector.connect_for(endpoint, notice).await
    }

    fn is_transient(&self, error: &ConnectError) -> bool {
        error.is_transient()
    }

    fn endpoints(&self) -> &[WeightedEndpoint] {
        &self.endpoints
    }
}

impl Pooled for Session {
    fn is_usable(&self) -> bool {
        Self::is_usable(self)
    }

    fn has_failed(&self) -> bool {
        Self::has_failed(self)
    }

    fn is_clean(&self) -> bool {
        Self::is_clean(self)
    }

    fn load(&self) -> usize {
        Self::load(self)
    }

    async fn close(self) {
        // What was in flight is told to those who wait for it; there is nobody else to tell.
        let _ = self.disconnect().await;
    }
}
