//! Opening sessions: dial, CONNECT, CONNACK, and the task that drives what comes after.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use mqtt_pool::{ConfigErrors, DeathNotice};
use mqtt_proto::{
    DecodeError, Decoder, Event, ProtocolError,
    packet::{ConnAck, Connect},
};
use mqtt_transport::{Conn, ConnectDeadline, Connector, DeadlineHandle, Endpoint, WriteDeadline};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tower_service::Service;

use crate::{
    config::SessionConfig,
    driver::Driver,
    error::{ConnectCause, ConnectError},
    session::Session,
    shared::{Core, Shared},
};

/// Opens sessions, over any service that makes connections.
///
/// As a [`Service`] it takes the [`Endpoint`] to connect to. Must be called within a tokio
/// runtime, which gets one task for each session. Dropping its future closes what was dialled.
#[derive(Clone, Debug)]
pub struct SessionConnector<C = ConnectDeadline<Connector>> {
    connector: C,
    config: Arc<SessionConfig>,
    connect: Arc<Connect>,
    /// That of all sessions: one is enough, and smaller than one for each.
    write_deadline: DeadlineHandle,
}

impl SessionConnector {
    /// Dials by the scheme of the endpoint, within the configured `connect_timeout`; with TLS, the
    /// system's authorities are trusted.
    pub fn new(config: SessionConfig) -> Result<Self, ConfigErrors> {
        Self::with_transport(Connector::default(), config)
    }

    /// Dials with `connector`, which knows the options of TCP, TLS, proxies and the rest, within the
    /// configured `connect_timeout`.
    pub fn with_transport(
        connector: Connector,
        config: SessionConfig,
    ) -> Result<Self, ConfigErrors> {
        let config = config.bounded();
        let connector = ConnectDeadline::new(connector, config.connect_timeout);
        Self::with_connector(connector, config)
    }
}

impl<C> SessionConnector<C> {
    /// Dials with this service. `connect_timeout` is then its business.
    pub fn with_connector(connector: C, config: SessionConfig) -> Result<Self, ConfigErrors> {
        let connect = Arc::new(config.connect()?);
        let config = config.bounded();
        Ok(Self {
            connector,
            write_deadline: DeadlineHandle::new(config.write_timeout),
            config: Arc::new(config),
            connect,
        })
    }

    /// The options of the sessions it opens.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// The same, with another client identifier.
    pub(crate) fn with_client_id(&self, client_id: String) -> Result<Self, ConfigErrors>
    where
        C: Clone,
    {
        let config = SessionConfig {
            client_id,
            ..(*self.config).clone()
        };
        let mut other = Self::with_connector(self.connector.clone(), config)?;
        other.write_deadline = self.write_deadline.clone();
        Ok(other)
    }
}

impl<C> SessionConnector<C>
where
    C: Service<Endpoint, Response: Conn, Error = mqtt_transport::ConnectError, Future: Send>
        + Clone
        + Send,
{
    /// Opens a session.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<Session, ConnectError> {
        self.connect_for(endpoint, None).await
    }

    /// Opens a session whose end a pool is told of.
    pub(crate) async fn connect_for(
        &self,
        endpoint: Endpoint,
        notice: Option<DeathNotice>,
    ) -> Result<Session, ConnectError> {
        let mut connector = self.connector.clone();
        let failed = |cause| ConnectError {
            endpoint: endpoint.clone(),
            cause,
        };
        std::future::poll_fn(|cx| connector.poll_ready(cx))
            .await
            .map_err(|error| failed(ConnectCause::Dial(error)))?;
        let dialled = connector.call(endpoint.clone());
        let options = (&*self.config, &*self.connect, self.write_deadline.clone());
        open(dialled, options, &endpoint, notice)
            .await
            .map_err(failed)
    }
}

impl<C> Service<Endpoint> for SessionConnector<C>
where
    C: Service<
            Endpoint,
            Response: Conn,
            Error = mqtt_transport::ConnectError,
            Future: Send + 'static,
        >,
{
    type Response = Session;
    type Error = ConnectError;
    type Future = ConnectFuture;

    /// Ready when the service below is: a limit on dials is a limit on sessions being opened.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        // The endpoint is not known yet; connectors are not refused before it is.
        self.connector.poll_ready(cx).map_err(|error| ConnectError {
            endpoint: error.endpoint().clone(),
            cause: ConnectCause::Dial(error),
        })
    }

    fn call(&mut self, endpoint: Endpoint) -> ConnectFuture {
        let dialled = self.connector.call(endpoint.clone());
        let (config, connect) = (self.config.clone(), self.connect.clone());
        let deadline = self.write_deadline.clone();
        ConnectFuture(Box::pin(async move {
            open(dialled, (&config, &connect, deadline), &endpoint, None)
                .await
                .map_err(|cause| ConnectError { endpoint, cause })
        }))
    }
}

/// The future of [`SessionConnector`] as a service.
#[must_use = "a connect does nothing until polled"]
pub struct ConnectFuture(Pin<Box<dyn Future<Output = Result<Session, ConnectError>> + Send>>);

impl Future for ConnectFuture {
    type Output = Result<Session, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for ConnectFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectFuture").finish_non_exhaustive()
    }
}

/// Dials, shakes hands and hands over to the driver.
async fn open<C: Conn>(
    dialled: impl Future<Output = Result<C, mqtt_transport::ConnectError>>,
    (config, connect, write_deadline): (&SessionConfig, &Connect, DeadlineHandle),
    endpoint: &Endpoint,
    notice: Option<DeathNotice>,
) -> Result<Session, ConnectCause> {
    // Kept until the session is open: the future of a limit on dials holds its permit so long.
    let mut dialled = pin!(dialled);
    let conn = dialled.as_mut().await.map_err(ConnectCause::Dial)?;
    let info = conn.info().clone();
    let mut conn = WriteDeadline::with_handle(conn, write_deadline);
    let mut core = Core::new(config.options());
    let now = Instant::now();
    core.connect(connect.clone(), now.into_std())
        .map_err(ConnectCause::Options)?;
    let mut decoder = Decoder::new(connect.version, config.max_packet_size);
    let deadline = now + config.connack_timeout;
    let exchanged = tokio::time::timeout_at(deadline, exchange(&mut conn, &mut core, &mut decoder))
        .await
        .unwrap_or_else(|_| {
            let error = ProtocolError::ConnAckTimeout {
                timeout: config.connack_timeout,
            };
            Err(ConnectCause::Protocol(error))
        });
    let (connack, input) = match exchanged {
        Ok(exchanged) => exchanged,
        Err(cause) => {
            say_goodbye(&mut conn, &mut core).await;
            return Err(cause);
        }
    };
    tracing::info!(%endpoint, client_id = %connect.client_id, resumed = connack.session_present, "session opened");
    let shared = Arc::new(Shared::new(endpoint.clone(), core, notice));
    tokio::spawn(Driver::new(conn, shared.clone(), decoder, input));
    Ok(Session::new(shared, connack, info, config.quiesce))
}

/// In 5.0 the server is told why, if the connection still takes it [MQTT5 4.13.1]. What has
/// happened is known already, so this has a time of its own and changes nothing about it.
async fn say_goodbye<C: Conn>(conn: &mut C, core: &mut Core) {
    let mut out = core.take_outbound(Default::default());
    let goodbye = async {
        conn.write_all_buf(&mut out).await?;
        conn.shutdown().await
    };
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

/// Enough for a round trip to anywhere.
const GOODBYE: Duration = Duration::from_millis(500);

/// CONNECT to CONNACK. Returns what came behind the CONNACK too.
async fn exchange<C: Conn>(
    conn: &mut C,
    core: &mut Core,
    decoder: &mut Decoder,
) -> Result<(ConnAck, Bytes), ConnectCause> {
    let mut out = core.take_outbound(Default::default());
    let unwritten = async {
        conn.write_all_buf(&mut out).await?;
        conn.flush().await
    }
    .await
    .err();
    let mut read = BytesMut::with_capacity(READ_SIZE);
    loop {
        match conn.read_buf(&mut read).await {
            Ok(0) => return Err(unwritten.map_or(ConnectCause::Closed, ConnectCause::Io)),
            Ok(_) => {}
            // A server that took no CONNECT may have said why before, with an alert of TLS or with
            // a packet; if not, the first error tells more.
            Err(error) if mqtt_transport::is_transient(&error) => {
                return Err(ConnectCause::Io(unwritten.unwrap_or(error)));
            }
            Err(error) => return Err(ConnectCause::Io(error)),
        }
        let mut input = read.split().freeze();
        while let Some(packet) = decoder
            .decode(&mut input)
            .map_err(|error| malformed(core, error))?
        {
            let event = core
                .handle_packet(packet, Instant::now().into_std())
                .map_err(ConnectCause::Protocol)?;
            match event {
                Some(Event::Connected(connected)) => {
                    // Copied, if there is any, so that the session does not keep the buffer.
                    return Ok((connected.connack, Bytes::copy_from_slice(&input)));
                }
                Some(Event::Refused(connack)) => return Err(ConnectCause::Refused(connack)),
                _ => {}
            }
        }
        read.reserve(READ_SIZE);
    }
}

/// A CONNACK with all its properties is smaller; it is freed when the session is open.
const READ_SIZE: usize = 1024;

fn malformed(core: &mut Core, error: DecodeError) -> ConnectCause {
    core.abort(error.reason_code());
    ConnectCause::Malformed(error)
}
