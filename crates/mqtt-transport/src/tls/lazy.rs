//! TLS that was not configured: the system's trust, read when first needed.

use std::{io, sync::Arc};

use tokio::sync::OnceCell;

use super::{Tls, TlsConfig};
use crate::{ConnectError, ConnectPhase, Endpoint, progress::in_phase};

/// What was given, or else the defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct LazyTls(Arc<OnceCell<Tls>>);

impl From<Tls> for LazyTls {
    fn from(tls: Tls) -> Self {
        Self(Arc::new(OnceCell::new_with(Some(tls))))
    }
}

impl LazyTls {
    /// For a connection to `endpoint`.
    pub(crate) async fn of(&self, endpoint: &Endpoint) -> Result<&Tls, ConnectError> {
        let made = self.0.get_or_try_init(|| Tls::new(TlsConfig::default()));
        in_phase(ConnectPhase::Tls, made).await.map_err(|error| {
            let source = io::Error::new(io::ErrorKind::Unsupported, error);
            ConnectError::new(ConnectPhase::Tls, endpoint, source)
        })
    }
}
