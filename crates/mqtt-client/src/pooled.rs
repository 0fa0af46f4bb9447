//! Sessions from a pool.

use mqtt_pool::{ConnectContext, Pooled};
use mqtt_transport::{Conn, ConnectDeadline, Connector, Endpoint};
use tower_service::Service;

use crate::{
    connector::SessionConnector,
    error::{ConnectCause, ConnectError},
    session::Session,
};

/// Makes the sessions of a [`Pool`](mqtt_pool::Pool), all at one endpoint.
///
/// Each gets a client identifier of its own: the configured one, `-`, and the number of its slot
/// in the pool, which no two live sessions share. Without a configured one the server names them.
#[derive(Clone, Debug)]
pub struct PooledSessions<C = ConnectDeadline<Connector>> {
    connector: SessionConnector<C>,
    endpoint: Endpoint,
}

impl<C> PooledSessions<C> {
    /// Sessions that `connector` opens at `endpoint`.
    pub fn new(connector: SessionConnector<C>, endpoint: Endpoint) -> Self {
        Self {
            connector,
            endpoint,
        }
    }
}

impl<C> mqtt_pool::Connect for PooledSessions<C>
where
    C: Service<Endpoint, Response: Conn, Error = mqtt_transport::ConnectError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    type Connection = Session;
    type Error = ConnectError;

    async fn connect(&self, context: ConnectContext) -> Result<Session, ConnectError> {
        let client_id = match self.connector.config().client_id.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}-{}", context.slot()),
        };
        let connector =
            self.connector
                .with_client_id(client_id)
                .map_err(|errors| ConnectError {
                    endpoint: self.endpoint.clone(),
                    cause: ConnectCause::Config(errors),
                })?;
        connector.connect(self.endpoint.clone()).await
    }
}

impl Pooled for Session {
    fn is_usable(&self) -> bool {
        !self.refuses()
    }

    async fn close(self) {
        // What was in flight is told to those who wait for it; there is nobody else to tell.
        let _ = self.disconnect().await;
    }
}
