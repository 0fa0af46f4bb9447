//! Byte streams to an MQTT server.
//!
//! A [`Conn`] is any byte stream that knows what it is; the layers above never ask how bytes
//! travel. An [`Endpoint`] says where to, and a connector is a
//! [`tower::Service`](tower_service::Service) from one to the other: [`TcpConnector`],
//! [`UnixConnector`], or [`Connector`], which chooses by scheme. What else is wanted of a connection
//! is stacked on: [`ConnectDeadline`] on a connector, [`ReadDeadline`] and [`WriteDeadline`] on a
//! connection, and tower's own layers where they fit.
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
mod endpoint;
mod error;
mod happy_eyeballs;
mod progress;
#[cfg(feature = "proxy")]
mod proxy;
mod resolve;
mod tcp;
#[cfg(feature = "_tls")]
pub mod tls;
#[cfg(unix)]
mod unix;

pub use config::{ConfigError, ConfigErrors, Limit, ParseLimitError};
pub use conn::{Address, BoxConn, Conn, ConnInfo, ConnKind, StreamConn};
pub use connector::{ConnectFuture, Connector};
pub use deadline::{
    ConnectDeadline, ConnectDeadlineLayer, DeadlineExceeded, DeadlineHandle, Operation,
    ReadDeadline, WriteDeadline,
};
pub use endpoint::{Endpoint, EndpointError, Scheme};
pub use error::{ConnectError, ConnectPhase, is_transient};
#[cfg(feature = "proxy")]
pub use proxy::{ProxyConfig, ProxyConnector, ProxyUrl, ProxyUrlError};
pub use resolve::{Resolve, ResolveFuture};
pub use tcp::{TcpConnector, TcpOptions};
#[cfg(unix)]
pub use unix::UnixConnector;
