//! Byte streams to an MQTT server.
//!
//! A [`Conn`] is any byte stream that knows what it is; the layers above never ask how bytes
//! travel. An [`Endpoint`] says where to, and a connector is a
//! [`tower::Service`](tower_service::Service) from one to the other:
//!
//! | | makes | of |
//! | --- | --- | --- |
//! | [`TcpConnector`] | TCP connections | addresses, which race (RFC 8305) |
//! | [`UnixConnector`] | Unix socket connections | a path or an abstract name |
//! | `ProxyConnector` (feature `proxy`) | tunnels through HTTP CONNECT and SOCKS5 proxies | a connector to the proxy |
//! | `tls::TlsConnector` (`native-tls`, `rustls-ring`, `rustls-aws-lc-rs`) | TLS connections | any connector |
//! | `WebSocketConnector` (`websocket`) | WebSocket connections | any connector |
//! | `QuicConnector` (`quic`) | one stream of a QUIC connection | UDP |
//! | [`Connector`] | whichever the scheme asks for | a [`ConnectorConfig`], or the parts |
//!
//! What else is wanted of a connection is stacked on: [`ConnectDeadline`] on a connector,
//! [`ReadDeadline`] and [`WriteDeadline`] on a connection ([`DeadlinesLayer`] for all three),
//! [`Metered`] to count, [`Stateful`] to close from elsewhere, `Faulty` (`test-util`) to fail in
//! tests, and tower's own layers where they fit.
//!
//! ```
//! use std::time::Duration;
//! use mqtt_transport::{ConnectDeadlineLayer, Connector, Endpoint};
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // At most eight dials at a time, each within three seconds.
//! let mut connector = ServiceBuilder::new()
//!     .concurrency_limit(8)
//!     .layer(ConnectDeadlineLayer::new(Duration::from_secs(3)))
//!     .service(Connector::default());
//! let endpoint: Endpoint = "mqtt://localhost".parse()?;
//! let conn = connector.ready().await?.call(endpoint).await?;
//! println!("{:?}", mqtt_transport::Conn::info(&conn));
//! # Ok(())
//! # }
//! ```

mod config;
mod conn;
mod connector;
mod deadline;
pub mod duration_text;
mod endpoint;
mod error;
#[cfg(feature = "test-util")]
mod fault;
mod forward;
mod happy_eyeballs;
mod metered;
mod progress;
#[cfg(feature = "proxy")]
mod proxy;
#[cfg(feature = "quic")]
mod quic;
mod resolve;
mod stateful;
mod tcp;
#[cfg(feature = "_tls")]
pub mod tls;
#[cfg(unix)]
mod unix;
#[cfg(feature = "websocket")]
mod websocket;

pub use config::{ConfigError, ConfigErrors, Limit, ParseLimitError};
pub use conn::{Address, BoxConn, Conn, ConnInfo, ConnKind, StreamConn};
pub use connector::{ConnectFuture, Connector, ConnectorConfig};
pub use deadline::{
    ConnectDeadline, ConnectDeadlineFuture, ConnectDeadlineLayer, DeadlineConfig, DeadlineConn,
    DeadlineExceeded, DeadlineHandle, Deadlines, DeadlinesFuture, DeadlinesLayer, Operation,
    ReadDeadline, WriteDeadline,
};
pub use endpoint::{Endpoint, EndpointError, Scheme};
pub use error::{ConnectError, ConnectPhase, is_transient};
#[cfg(feature = "test-util")]
pub use fault::{FaultHandle, FaultPlan, Faulty, FaultyConnector, FaultyFuture};
pub use metered::{Metered, describe_metrics};
#[cfg(feature = "proxy")]
pub use proxy::{ProxyConfig, ProxyConnector, ProxyUrl, ProxyUrlError};
#[cfg(feature = "quic")]
pub use quic::{QuicConn, QuicConnector, QuicOptions};
pub use resolve::{Resolve, ResolveFuture};
pub use stateful::{ClosedHere, ConnHandle, ConnState, Stateful};
pub use tcp::{TcpConnector, TcpOptions};
#[cfg(unix)]
pub use unix::UnixConnector;
#[cfg(feature = "websocket")]
pub use websocket::{WebSocketConn, WebSocketConnector, WebSocketHeader, WebSocketOptions};
