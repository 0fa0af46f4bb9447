//! TLS that names no material of its own: the system's trust, read when first needed.

use std::{io, sync::Arc};

use tokio::sync::OnceCell;

use super::{Tls, TlsConfig, TlsError};
use crate::{ConnectError, ConnectPhase, Endpoint, progress::in_phase};

/// What was given, or else what the options come to when first needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct LazyTls(Arc<Lazy>);

#[derive(Debug, Default)]
struct Lazy {
    config: TlsConfig,
    tls: OnceCell<Tls>,
}

impl From<Tls> for LazyTls {
    fn from(tls: Tls) -> Self {
        Self(Arc::new(Lazy {
            config: tls.config().clone(),
            tls: OnceCell::new_with(Some(tls)),
        }))
    }
}

impl LazyTls {
    /// Reads what the options name now, so that what is wrong with it is known at once.
    pub(crate) async fn new(config: TlsConfig) -> Result<Self, TlsError> {
        if config.has_no_places() {
            Ok(Self(Arc::new(Lazy {
                config,
                tls: OnceCell::new(),
            })))
        } else {
            Tls::new(config).await.map(Self::from)
        }
    }

    /// For a connection to `endpoint`.
    pub(crate) async fn of(&self, endpoint: &Endpoint) -> Result<&Tls, ConnectError> {
        let made = self
            .0
            .tls
            .get_or_try_init(|| Tls::new(self.0.config.clone()));
        in_phase(ConnectPhase::Tls, made).await.map_err(|error| {
            let source = io::Error::new(io::ErrorKind::Unsupported, error);
            ConnectError::new(ConnectPhase::Tls, endpoint, source)
        })
    }
}
