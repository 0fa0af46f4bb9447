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
//! let message = states.recv().await.ok_or("the session has ended")?;
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
//! A session outlives its connections, as [`ReconnectConfig`] says, or a
//! [policy](SessionConnector::with_reconnect_policy) of one's own; [`Session::watch_state`] tells how it
//! stands. When a connection is lost:
//!
//! | | goes on if the server kept the session | if it did not |
//! | --- | --- | --- |
//! | a publish that was not sent | waits for the next connection, as the [outbox](OutboxConfig) allows | the same |
//! | QoS 0, written | may or may not have arrived; its caller was told "sent" | the same |
//! | QoS 1 and 2, not acknowledged | sent again, its future waits on | [`PublishError::Lost`], or sent anew at [QoS 1](LostPublishes) |
//! | the same, where it ends every connection | [`PublishError::SetAside`] after three | [`PublishError::Lost`] |
//! | a subscription | stays | asked for again; refused, its stream ends and says [why](Subscription::refused) |
//! | a subscribe or unsubscribe without an answer | asked again | the same |
//! | a QoS 1 message that was not read | comes again | stays to be read |
//! | a message that is not [acknowledged](Ack) yet | QoS 1 comes again, QoS 2 is not handed out again | its `Ack` is stale |
//!
//! A message that nobody here subscribes to is acknowledged at once, also one that comes of a subscription
//! that was given up. In a session of an [earlier process](SessionConfig::adopt_session) it waits until
//! somebody does, or until [`Session::release_unclaimed`].
//!
//! The server keeps a session if [`SessionConfig::session_expiry`] asks for it, which it does not by default
//! (in 3.1.1, without [`clean_start`](SessionConfig::clean_start)). Otherwise it ends with each connection.
//!
//! On both stand [`Requester`], which resolves each [`Request`] to its reply, and [`Session::respond`], which
//! answers requests with a service. A [`router`] hands messages to handlers by their topics.
//!
//! Sessions come from a [`Pool`](mqtt_pool::Pool) with [`PooledSessions`]; a [`SessionPool`] publishes over a
//! few of them as over one. A process that speaks as each of its devices has their sessions in a
//! [`SessionRegistry`].
//!
//! A recorder is told what sessions do, see [`describe_metrics`]; each attempt to connect and each connection is
//! a span of `tracing`. `docs/observability.md` in the repository lists all of it.

mod acknowledge;
mod answered;
mod authenticate;
mod buffers;
pub mod cancellation;
mod config;
mod connector;
mod control;
mod credentials;
mod discard;
mod driver;
mod error;
mod gate;
mod handshake;
mod leaving;
mod life;
mod line;
mod manual;
mod metrics;
mod notes;
mod opener;
mod outbox;
mod poison;
mod pooled;
mod publish;
mod publishing;
mod reconnect;
mod redirect;
mod registry;
mod renewal;
mod request;
mod respond;
mod restore;
#[cfg(feature = "retry")]
mod retry;
#[cfg(feature = "_tls")]
mod rotation;
pub mod router;
mod session;
mod session_pool;
mod shared;
mod stall;
mod standing;
mod subscribe;
mod subscription;
mod tally;
mod transient;
mod unclaimed;

pub use acknowledge::{Ack, Received, Stale};
pub use answered::Answered;
pub use authenticate::{
    AuthenticationAttempt, AuthenticationError, Authenticator, ReauthenticateError,
};
#[cfg(feature = "scram")]
pub use authenticate::{Scram, ScramAuthenticator, ScramError};
pub use config::{LostPublishes, SessionConfig};
pub use connector::{ConnectFuture, Dial, SessionConnector};
pub use credentials::{
    Credentials, CredentialsError, CredentialsRequest, CredentialsSource, EnvCredentials,
    FileCredentials,
};
pub use discard::Discard;
pub use error::{
    ConnectCause, ConnectError, ConnectionLost, Delivery, LostCause, NotQuiet, Operation,
    PublishError, SubscribeError,
};
pub use manual::ManualSubscription;
pub use metrics::describe_metrics;
pub use outbox::{OutboxConfig, OutboxStatus, Overflow};
pub use pooled::PooledSessions;
pub use publish::{Admitted, Publish, PublishFuture, Published, Publisher};
pub use reconnect::{Cause, ClosedBy, Interruption, Plan, ReconnectConfig, SessionState};
pub use redirect::{Redirect, RedirectError, RedirectPolicy};
pub use registry::{
    RegisteredSession, RegistryConfig, RegistryError, RegistryStatus, SessionRegistry,
};
pub use request::{
    Request, RequestError, RequestFuture, Requester, RequesterConfig, RequesterError,
};
pub use respond::{
    Reply, Responder, ResponderConfig, ResponderEnd, ResponderError, ResponderTotals, Unfinished,
};
#[cfg(feature = "retry")]
pub use retry::{PublishFailure, PublishRetry, RetryConfig};
#[cfg(feature = "_tls")]
pub use rotation::follow_rotation;
pub use session::Session;
pub use session_pool::{KeyedPublisher, PoolPublishError, PoolPublishFuture, SessionPool};
pub use stall::OnStall;
pub use subscribe::{Subscribe, SubscribeFuture, Subscriber};
pub use subscription::Subscription;
pub use unclaimed::Unclaimed;

#[doc(no_inline)]
pub use mqtt_pool as pool;
#[doc(no_inline)]
pub use mqtt_proto::{
    self as proto, Message, QoS, ReasonCode, Secret, TopicFilter, TopicName, Utf8String, Version,
    session::Limits,
};
#[doc(no_inline)]
pub use mqtt_transport::{self as transport, Endpoint};

/// Compiles the example of the repository's front page.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct FrontPage;
