//! One connector for every scheme.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::{
    BoxConn, ConfigErrors, ConnectError, Endpoint, Scheme, StreamConn, TcpConnector, TcpOptions,
};

/// Makes the connection that the scheme of an endpoint asks for.
///
/// A scheme it cannot honour is refused; never is a plain connection made where another was asked
/// for. Always ready. Dropping its future gives the attempt up.
///
/// By default it speaks TLS with the system's trust; give it a [`Tls`](crate::tls::Tls) for more, or
/// make it of a [`ConnectorConfig`].
#[derive(Clone, Debug, Default)]
pub struct Connector {
    tcp: TcpConnector,
    #[cfg(feature = "proxy")]
    proxy: Option<crate::ProxyConnector>,
    #[cfg(feature = "_tls")]
    tls: crate::tls::LazyTls,
    #[cfg(feature = "websocket")]
    websocket: std::sync::Arc<crate::websocket::Upgrade>,
    #[cfg(feature = "quic")]
    quic: crate::quic::LazyQuic,
}

/// How a [`Connector`] is described in a configuration file; every part may be left out.
///
/// ```
/// let config: mqtt_transport::ConnectorConfig = toml::from_str(
///     r#"
///     [tcp]
///     keepalive = "2m"
///     "#,
/// )?;
/// config.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConnectorConfig {
    /// Options of TCP.
    pub tcp: TcpOptions,
    /// Options and places of TLS.
    #[cfg(feature = "_tls")]
    pub tls: crate::tls::TlsConfig,
    /// A proxy to go through; none by default.
    #[cfg(feature = "proxy")]
    pub proxy: Option<crate::ProxyConfig>,
    /// Options of WebSocket.
    #[cfg(feature = "websocket")]
    pub websocket: crate::WebSocketOptions,
    /// Options of QUIC.
    #[cfg(feature = "quic")]
    pub quic: crate::QuicOptions,
}

impl ConnectorConfig {
    /// Checks everything that can be told without reading material.
    ///
    /// # Errors
    ///
    /// All problems.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        self.tcp.check("tcp", &mut errors);
        #[cfg(feature = "_tls")]
        self.tls.check(&mut errors);
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &self.proxy {
            proxy.check("proxy", &mut errors);
        }
        #[cfg(feature = "websocket")]
        self.websocket.check("websocket", &mut errors);
        #[cfg(feature = "quic")]
        self.quic.check("quic", &mut errors);
        errors.into_result()
    }

    /// Makes the connector, for which it reads the material that TLS names; the system's, if it
    /// names none, is read when first needed. Within a tokio runtime.
    ///
    /// # Errors
    ///
    /// All that is wrong with the options; or with the material, if they are right.
    pub async fn connector(self) -> Result<Connector, ConfigErrors> {
        self.validate()?;
        let connector = Connector::new(self.tcp);
        #[cfg(feature = "_tls")]
        let connector = {
            let tls = crate::tls::LazyTls::new(self.tls).await;
            connector.with_lazy_tls(tls.map_err(crate::tls::TlsError::into_config_errors)?)
        };
        #[cfg(feature = "proxy")]
        let connector = match self.proxy {
            Some(proxy) => connector.with_proxy(proxy)?,
            None => connector,
        };
        #[cfg(feature = "websocket")]
        let connector = connector.with_websocket(self.websocket)?;
        #[cfg(feature = "quic")]
        let connector = connector.with_quic(self.quic)?;
        Ok(connector)
    }
}

impl Connector {
    /// With these options for TCP.
    pub fn new(tcp: TcpOptions) -> Self {
        Self::default().with_tcp(TcpConnector::new(tcp))
    }

    /// With this for TCP; QUIC resolves names by its resolver, too.
    #[must_use]
    pub fn with_tcp(mut self, tcp: TcpConnector) -> Self {
        #[cfg(feature = "proxy")]
        {
            self.proxy = self.proxy.map(|proxy| proxy.with_inner(tcp.clone()));
        }
        #[cfg(feature = "quic")]
        {
            self.quic = self.quic.anew();
        }
        self.tcp = tcp;
        self
    }

    /// With these options and material for TLS.
    #[cfg(feature = "_tls")]
    #[must_use]
    pub fn with_tls(self, tls: crate::tls::Tls) -> Self {
        self.with_lazy_tls(tls.into())
    }

    #[cfg(feature = "_tls")]
    fn with_lazy_tls(mut self, tls: crate::tls::LazyTls) -> Self {
        self.tls = tls;
        #[cfg(feature = "quic")]
        {
            self.quic = self.quic.anew();
        }
        self
    }

    /// Through this proxy, to whatever is reached over TCP.
    ///
    /// # Errors
    ///
    /// What [`ProxyConfig::validate`](crate::ProxyConfig::validate) finds.
    #[cfg(feature = "proxy")]
    pub fn with_proxy(mut self, proxy: crate::ProxyConfig) -> Result<Self, ConfigErrors> {
        self.proxy = Some(crate::ProxyConnector::new(self.tcp.clone(), proxy)?);
        Ok(self)
    }

    /// With these options for WebSocket.
    ///
    /// # Errors
    ///
    /// What [`WebSocketOptions::validate`](crate::WebSocketOptions::validate) finds.
    #[cfg(feature = "websocket")]
    pub fn with_websocket(
        mut self,
        websocket: crate::WebSocketOptions,
    ) -> Result<Self, ConfigErrors> {
        self.websocket = crate::websocket::Upgrade::new(websocket)?.into();
        Ok(self)
    }

    /// With these options for QUIC.
    ///
    /// # Errors
    ///
    /// What [`QuicOptions::validate`](crate::QuicOptions::validate) finds.
    #[cfg(feature = "quic")]
    pub fn with_quic(mut self, quic: crate::QuicOptions) -> Result<Self, ConfigErrors> {
        self.quic = crate::quic::LazyQuic::new(quic)?;
        Ok(self)
    }

    /// Connects.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<BoxConn, ConnectError> {
        match endpoint.scheme() {
            Scheme::Tcp => Ok(Box::new(self.dial(endpoint).await?)),
            #[cfg(unix)]
            Scheme::Unix => Ok(Box::new(crate::UnixConnector.connect(endpoint).await?)),
            #[cfg(feature = "_tls")]
            Scheme::Tls => {
                let tls = self.tls.of(&endpoint).await?;
                let conn = self.dial(endpoint.clone()).await?;
                Ok(Box::new(tls.handshake(conn, &endpoint).await?))
            }
            #[cfg(feature = "websocket")]
            Scheme::Ws => {
                let request = self.websocket.request(&endpoint)?;
                let conn = self.dial(endpoint.clone()).await?;
                Ok(Box::new(
                    self.websocket.run(conn, request, &endpoint).await?,
                ))
            }
            #[cfg(all(feature = "websocket", feature = "_tls"))]
            Scheme::Wss => {
                let request = self.websocket.request(&endpoint)?;
                let tls = self.tls.of(&endpoint).await?;
                let conn = self.dial(endpoint.clone()).await?;
                let conn = tls.handshake(conn, &endpoint).await?;
                Ok(Box::new(
                    self.websocket.run(conn, request, &endpoint).await?,
                ))
            }
            #[cfg(feature = "quic")]
            Scheme::Quic => {
                let tls = self.tls.of(&endpoint).await?;
                Ok(Box::new(
                    self.quic
                        .of(tls, self.tcp.resolver())
                        .connect(endpoint)
                        .await?,
                ))
            }
            #[cfg(not(all(unix, feature = "websocket", feature = "quic")))]
            scheme => {
                let reason = format!("{}:// is not part of this build", scheme.as_str());
                let source = std::io::Error::new(std::io::ErrorKind::Unsupported, reason);
                Err(ConnectError::new(
                    crate::ConnectPhase::Choose,
                    &endpoint,
                    source,
                ))
            }
        }
    }

    /// Over TCP, through the proxy if there is one.
    async fn dial(&self, endpoint: Endpoint) -> Result<StreamConn<TcpStream>, ConnectError> {
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &self.proxy {
            return proxy.clone().call(endpoint).await;
        }
        self.tcp.connect(endpoint).await
    }
}

impl Service<Endpoint> for Connector {
    type Response = BoxConn;
    type Error = ConnectError;
    type Future = ConnectFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> ConnectFuture {
        let connector = self.clone();
        ConnectFuture(Box::pin(async move { connector.connect(endpoint).await }))
    }
}

/// The future of [`Connector`] as a service.
#[must_use = "a connect does nothing until polled"]
pub struct ConnectFuture(Pin<Box<dyn Future<Output = Result<BoxConn, ConnectError>> + Send>>);

impl Future for ConnectFuture {
    type Output = Result<BoxConn, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ConnectFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectFuture").finish_non_exhaustive()
    }
}
