//! WebSocket, over a connection of any kind [MQTT5 6].
//!
//! [`WebSocketConnector`] wraps the connector that makes the connection below, and asks the server
//! to turn it into a WebSocket. Its one rule: the subprotocol `mqtt` is asked for and must be what
//! the server chooses [MQTT5-6.0.0-3] [MQTT5-6.0.0-4].

mod conn;
mod error;
mod options;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Request, Uri, header};
use tokio_tungstenite::tungstenite::{client::IntoClientRequest, protocol::WebSocketConfig};
use tower_service::Service;

pub use conn::WebSocketConn;
pub use options::{WebSocketHeader, WebSocketOptions};

use crate::{
    ConfigErrors, Conn, ConnKind, ConnectError, ConnectPhase, Endpoint, Scheme, progress::in_phase,
};

/// The name under which MQTT is registered.
const SUBPROTOCOL: HeaderValue = HeaderValue::from_static("mqtt");

/// What waits beside one message: its header, answers to pings, and the last word.
const WRITE_SLACK: usize = 1024;

/// Makes WebSocket connections, for `ws` and `wss`, over those of the connector `S`.
///
/// For `wss` the one below must encrypt; over bare TCP or a Unix socket that scheme is refused. It
/// is ready when the one below is. Dropping its future gives the attempt up.
#[derive(Clone, Debug)]
pub struct WebSocketConnector<S> {
    inner: S,
    upgrade: Arc<Upgrade>,
}

/// How a connection becomes a WebSocket.
#[derive(Debug, Default)]
pub(crate) struct Upgrade {
    options: WebSocketOptions,
    /// Those of the options; they print without their values.
    headers: HeaderMap,
}

impl<S> WebSocketConnector<S> {
    /// Over the connections of `inner`, with these options.
    ///
    /// # Errors
    ///
    /// What [`WebSocketOptions::validate`] finds.
    pub fn new(inner: S, options: WebSocketOptions) -> Result<Self, ConfigErrors> {
        Ok(Self {
            inner,
            upgrade: Arc::new(Upgrade::new(options)?),
        })
    }
}

impl<S> Service<Endpoint> for WebSocketConnector<S>
where
    S: Service<Endpoint, Error = ConnectError>,
    S::Response: Conn,
    S::Future: Send + 'static,
{
    type Response = WebSocketConn<S::Response>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let upgrade = self.upgrade.clone();
        // Before the dial: one that cannot become a WebSocket need not be made.
        let request = upgrade.request(&endpoint);
        let connect = request.map(|request| (request, self.inner.call(endpoint.clone())));
        Box::pin(async move {
            let (request, connect) = connect?;
            upgrade.run(connect.await?, request, &endpoint).await
        })
    }
}

impl Upgrade {
    pub(crate) fn new(options: WebSocketOptions) -> Result<Self, ConfigErrors> {
        options.validate()?;
        let mut headers = HeaderMap::new();
        for (name, value) in options.headers.iter().filter_map(WebSocketHeader::to_http) {
            headers.append(name, value);
        }
        Ok(Self { options, headers })
    }

    /// What will be asked of the server; to be made before the connection is.
    pub(crate) fn request(&self, endpoint: &Endpoint) -> Result<Request<()>, ConnectError> {
        let failed = |phase, kind, reason: String| {
            ConnectError::new(phase, endpoint, io::Error::new(kind, reason))
        };
        let scheme = endpoint.scheme();
        let (Scheme::Ws | Scheme::Wss, Some(host), Some(port)) =
            (scheme, endpoint.host(), endpoint.port())
        else {
            let reason = "a WebSocket needs an endpoint that begins with ws:// or wss://";
            let kind = io::ErrorKind::InvalidInput;
            return Err(failed(ConnectPhase::Choose, kind, reason.to_owned()));
        };
        let mut authority = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        // The usual port is left out, as browsers do: servers compare the name with their own.
        if Some(port) != scheme.default_port() {
            authority.push_str(&format!(":{port}"));
        }
        let mut request = Uri::builder()
            .scheme(scheme.as_str())
            .authority(authority)
            .path_and_query(endpoint.path())
            .build()
            .map_err(tokio_tungstenite::tungstenite::Error::from)
            .and_then(IntoClientRequest::into_client_request)
            .map_err(|error| {
                let reason = format!("this cannot be asked for: {error}");
                failed(ConnectPhase::Upgrade, io::ErrorKind::InvalidInput, reason)
            })?;
        request.headers_mut().extend(self.headers.clone());
        request
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        Ok(request)
    }

    pub(crate) async fn run<C: Conn>(
        &self,
        conn: C,
        request: Request<()>,
        endpoint: &Endpoint,
    ) -> Result<WebSocketConn<C>, ConnectError> {
        let failed = |phase, source| ConnectError::new(phase, endpoint, source);
        if endpoint.scheme() == Scheme::Wss && is_bare(&conn) {
            let reason = "wss:// needs TLS, and the connection below has none";
            let source = io::Error::new(io::ErrorKind::Unsupported, reason);
            return Err(failed(ConnectPhase::Choose, source));
        }
        let WebSocketOptions {
            handshake_timeout,
            max_message_size,
            max_write_size,
            read_buffer_size,
            close_timeout,
            ..
        } = self.options;
        // Each message is written at once, since what comes here was batched above.
        let config = WebSocketConfig::default()
            .read_buffer_size(read_buffer_size)
            .write_buffer_size(0)
            .max_write_buffer_size(max_write_size.saturating_add(WRITE_SLACK))
            .max_message_size(Some(max_message_size))
            .max_frame_size(Some(max_message_size));
        let upgrade = tokio_tungstenite::client_async_with_config(request, conn, Some(config));
        let upgrade = tokio::time::timeout(handshake_timeout, upgrade);
        let (stream, response) = match in_phase(ConnectPhase::Upgrade, upgrade).await {
            Ok(outcome) => outcome.map_err(error::on_upgrade),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the server did not open it within {handshake_timeout:?}"),
            )),
        }
        .map_err(|source| failed(ConnectPhase::Upgrade, source))?;
        if response
            .headers()
            .contains_key(header::SEC_WEBSOCKET_EXTENSIONS)
        {
            return Err(failed(ConnectPhase::Upgrade, error::extension()));
        }
        Ok(WebSocketConn::new(stream, max_write_size, close_timeout))
    }
}

/// Whether a connection is known not to be encrypted. One of the user's may be.
fn is_bare(conn: &impl Conn) -> bool {
    let info = conn.info();
    #[cfg(feature = "_tls")]
    if info.tls.is_some() {
        return false;
    }
    matches!(info.kind, ConnKind::Tcp | ConnKind::Unix)
}
