//! QUIC made when first needed: it shares the TLS of a connector, which may be made later.

use std::sync::{Arc, OnceLock};

use super::{QuicConnector, QuicOptions};
use crate::{ConfigErrors, resolve::Resolve, tls::Tls};

/// Options that were checked, and the connector made of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LazyQuic {
    options: QuicOptions,
    connector: Arc<OnceLock<QuicConnector>>,
}

impl LazyQuic {
    pub(crate) fn new(options: QuicOptions) -> Result<Self, ConfigErrors> {
        options.validate()?;
        Ok(Self {
            options,
            connector: Arc::default(),
        })
    }

    /// With the same options, for another TLS or resolver.
    pub(crate) fn anew(&self) -> Self {
        Self {
            options: self.options.clone(),
            connector: Arc::default(),
        }
    }

    /// The connector for this TLS and this resolver, which are the same each time.
    pub(crate) fn of(&self, tls: &Tls, resolver: &Arc<dyn Resolve>) -> &QuicConnector {
        self.connector.get_or_init(|| {
            QuicConnector::with_checked(self.options.clone(), resolver.clone(), tls.clone())
        })
    }
}
