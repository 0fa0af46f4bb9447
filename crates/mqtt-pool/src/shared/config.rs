//! The options of a shared pool and their rules.

use serde::{Deserialize, Serialize};

use crate::{ConfigErrors, PoolConfig};

/// The options of a [`SharedPool`](crate::SharedPool).
///
/// ```
/// use mqtt_pool::{PoolConfig, SharedConfig};
///
/// let pool = PoolConfig::default().with_max_size(4);
/// let config = SharedConfig::default().with_size(3);
/// assert_eq!(config.validate(&pool), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SharedConfig {
    /// How many members are shared out; from 1 to one less than the `max_size` of the pool that
    /// they are leased from, so that a replacement can be connected before an old member goes.
    /// Default 2: when one connection is lost, work goes on over the other.
    pub size: usize,
}

impl Default for SharedConfig {
    fn default() -> Self {
        Self { size: 2 }
    }
}

impl SharedConfig {
    /// Sets [`size`](Self::size).
    #[must_use]
    pub fn with_size(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// Checks every option against its rule, beside the options of the pool that members are
    /// leased from.
    ///
    /// # Errors
    ///
    /// All the rules that are broken, under paths that begin with `shared`.
    pub fn validate(&self, pool: &PoolConfig) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        if !(1..pool.max_size).contains(&self.size) {
            errors.push(
                "shared.size",
                self.size,
                "must be from 1 to one less than the pool's max_size",
                "lower it, or raise max_size: a replacement is connected before the old member goes",
            );
        }
        errors.into_result()
    }
}
