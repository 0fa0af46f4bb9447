//! MQTT sessions as tower services.
//!
//! A [`SessionConnector`] opens [`Session`]s; a session hands out [`Publisher`]s and
//! [`Subscriber`]s, cheap to clone, one kind of request each, so that layers stack on them as on
//! any [`tower::Service`](tower_service::Service). Everyday code calls their methods instead.
//!
//! ```no_run
//! use mqtt_client::{Publish, QoS, SessionConfig, SessionConnector, Subscribe};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let connector = SessionConnector::new(SessionConfig::new("gateway-1"))?;
//! let session = connector.connect("mqtt://localhost".parse()?).await?;
//!
//! let mut states = session.subscribe(Subscribe::new("devices/+/state")?).await?;
//! session.publish(Publish::new("devices/7/state", "on")?.with_qos(QoS::AtLeastOnce)).await?;
//! let message = states.recv().await.ok_or("the connection has ended")?;
//! assert_eq!(&*message.payload, b"on");
//! session.disconnect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Its one contract: **what was asked is answered.** Every publish and subscribe resolves to what
//! is known of it, also when the connection ends, and [`PublishError::delivery`] says whether a
//! message may have been delivered.
//!
//! Sessions come from a [`Pool`](mqtt_pool::Pool) with [`PooledSessions`].

mod buffers;
mod config;
mod connector;
mod driver;
mod error;
mod line;
mod pooled;
mod publish;
#[cfg(feature = "_tls")]
mod rotation;
mod session;
mod shared;
mod subscribe;
mod subscription;

pub use config::SessionConfig;
pub use connector::{ConnectFuture, SessionConnector};
pub use error::{
    ConnectCause, ConnectError, ConnectionLost, Delivery, LostCause, NotQuiet, Operation,
    PublishError, SubscribeError,
};
pub use pooled::PooledSessions;
pub use publish::{Publish, PublishFuture, Published, Publisher};
#[cfg(feature = "_tls")]
pub use rotation::follow_rotation;
pub use session::Session;
pub use subscribe::{Subscribe, SubscribeFuture, Subscriber};
pub use subscription::Subscription;

#[doc(no_inline)]
pub use mqtt_pool as pool;
#[doc(no_inline)]
pub use mqtt_proto::{
    self as proto, Message, QoS, ReasonCode, Secret, TopicFilter, TopicName, Version,
};
#[doc(no_inline)]
pub use mqtt_transport::{self as transport, Endpoint};

/// Compiles the example of the repository's front page.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct FrontPage;
