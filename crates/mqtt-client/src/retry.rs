//! When a publish that failed is tried again: a policy for tower's `Retry` layer.
//!
//! Its one rule: what may have arrived is not sent again, unless the caller takes duplicates, and never
//! at QoS 2, where a second packet identifier would make a second message of it.

use std::{error::Error, sync::Arc, time::Duration};

use mqtt_pool::{ConfigErrors, Limit};
use mqtt_proto::QoS;
use tokio::time::{Sleep, sleep};
use tower::retry::{
    Policy,
    budget::{Budget, TpsBudget},
};

use crate::{
    error::{Delivery, PublishError},
    publish::{Publish, Published},
    session_pool::PoolPublishError,
};

/// The options of [`PublishRetry`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryConfig {
    /// How often one publish is tried again. Default 3: with the delays below that outlasts a moment's
    /// trouble, and what lasts longer is better told to the caller.
    pub max_retries: u32,
    /// The longest delay before the first retry; twice as much before each further one. What is waited
    /// is a random part of it, from half of `base`, so that many publishes that failed together do not
    /// come again together. Default 100 ms. Not zero.
    pub base: Duration,
    /// The longest delay of all, at least `base`. Default 5 s.
    pub max: Duration,
    /// Whether a message at QoS 1 that may have arrived is sent again, which may duplicate it, as QoS 1
    /// allows. Default false: not every receiver is ready for it. A session that the server kept sends
    /// it again by itself, without a new identifier, and needs no retry.
    pub allow_duplicates: bool,
    /// How many retries there may be for each publish that succeeds, over all that share the policy: 0.0,
    /// or from 0.001 to 1,000.0; 0.2 by default, so that a server in trouble gets a fifth more work at most.
    pub budget_share: f32,
    /// How many retries a second there may be besides, for programs that publish little. Default 10.
    pub budget_floor: u32,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_retries: 3,
            base: Duration::from_millis(100),
            max: Duration::from_secs(5),
            allow_duplicates: false,
            budget_share: 0.2,
            budget_floor: 10,
        }
    }
}

macro_rules! setters {
    ($($with:ident $name:ident: $type:ty,)*) => {
        impl RetryConfig {$(
            #[doc = concat!("With this [`", stringify!($name), "`](Self::", stringify!($name), ").")]
            #[must_use]
            pub fn $with(mut self, $name: $type) -> Self {
                self.$name = $name;
                self
            }
        )*}
    };
}

setters! {
    with_max_retries max_retries: u32,
    with_base base: Duration,
    with_max max: Duration,
    with_allow_duplicates allow_duplicates: bool,
    with_budget_share budget_share: f32,
    with_budget_floor budget_floor: u32,
}

/// The shares that a budget counts exactly enough.
const SHARES: std::ops::RangeInclusive<f32> = 0.001..=1000.0;

/// The most retries a second that a budget can count over its window.
const MAX_FLOOR: u32 = 1_000_000;

impl RetryConfig {
    /// Everything that is wrong with the options, at once.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        if self.base.is_zero() {
            errors.push(
                "retry.base",
                "0s",
                "must be longer than zero",
                "100 ms is the default",
            );
        }
        if self.max < self.base {
            errors.push(
                "retry.max",
                Limit::After(self.max),
                "must be at least base",
                "raise it, or lower base",
            );
        }
        if self.budget_share != 0.0 && !SHARES.contains(&self.budget_share) {
            errors.push(
                "retry.budget_share",
                self.budget_share,
                "must be 0.0, or from 0.001 to 1000.0",
                "0.2 allows one retry for five publishes",
            );
        }
        if self.budget_floor > MAX_FLOOR {
            errors.push(
                "retry.budget_floor",
                self.budget_floor,
                "must be at most 1000000",
                "10 is the default",
            );
        }
        errors.into_result()
    }

    /// The delay before the retry of this number, counted from 0, where `chance` is from 0.0 to 1.0.
    fn delay(&self, retry: u32, chance: f64) -> Duration {
        let shortest = self.base / 2;
        let longest = self
            .base
            .saturating_mul(2_u32.saturating_pow(retry))
            .min(self.max);
        shortest + longest.saturating_sub(shortest).mul_f64(chance)
    }
}

/// Tries publishes again that did not succeed, as far as that is right.
///
/// | | not sent | may have arrived | rejected |
/// | --- | --- | --- | --- |
/// | QoS 0 | again | if duplicates are allowed | |
/// | QoS 1 | again | if duplicates are allowed | again, if the code may pass |
/// | QoS 2 | again | never | again, if the code may pass |
///
/// All of it only if the error [is transient](PublishFailure::is_transient).
///
/// It is a [`Policy`] of `tower::retry::Retry`, over a [`Publisher`](crate::Publisher), a
/// [`SessionPool`](crate::SessionPool) or layers around one, and goes inside of a deadline for the whole
/// call. Clones share its budget; each publish counts its own retries.
///
/// ```
/// use mqtt_client::{Publisher, PublishRetry, RetryConfig, pool::ConfigErrors};
/// use tower::{ServiceBuilder, retry::Retry};
///
/// fn stack(publisher: Publisher) -> Result<Retry<PublishRetry, Publisher>, ConfigErrors> {
///     let retry = PublishRetry::new(RetryConfig::default())?;
///     Ok(ServiceBuilder::new().retry(retry).service(publisher))
/// }
/// ```
#[derive(Clone, Debug)]
pub struct PublishRetry {
    config: Arc<RetryConfig>,
    budget: Arc<TpsBudget>,
    /// Of the present publish.
    retries: u32,
}

/// For how long a publish counts towards the budget of retries.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

impl PublishRetry {
    /// A policy with these options, and a budget of its own.
    ///
    /// # Errors
    ///
    /// Every rule that the options break.
    pub fn new(config: RetryConfig) -> Result<Self, ConfigErrors> {
        config.validate()?;
        let budget = TpsBudget::new(BUDGET_WINDOW, config.budget_floor, config.budget_share);
        Ok(Self {
            config: Arc::new(config),
            budget: Arc::new(budget),
            retries: 0,
        })
    }

    fn is_right(&self, qos: QoS, error: &impl PublishFailure) -> bool {
        let is_safe = match (error.delivery(), qos) {
            (Delivery::NotSent | Delivery::Rejected, _) => true,
            (Delivery::Unknown, QoS::AtMostOnce | QoS::AtLeastOnce) => self.config.allow_duplicates,
            (Delivery::Unknown, QoS::ExactlyOnce) | (Delivery::Acknowledged, _) => false,
        };
        is_safe && error.is_transient()
    }
}

impl<E: PublishFailure> Policy<Publish, Published, E> for PublishRetry {
    type Future = Sleep;

    fn retry(
        &mut self,
        publish: &mut Publish,
        outcome: &mut Result<Published, E>,
    ) -> Option<Sleep> {
        let Err(error) = outcome else {
            self.budget.deposit();
            return None;
        };
        if !self.is_right(publish.message.qos, error)
            || self.retries >= self.config.max_retries
            || !self.budget.withdraw()
        {
            return None;
        }
        let delay = self.config.delay(self.retries, fastrand::f64());
        self.retries += 1;
        Some(sleep(delay))
    }

    fn clone_request(&mut self, publish: &Publish) -> Option<Publish> {
        Some(publish.clone())
    }
}

/// What [`PublishRetry`] asks of an error.
///
/// Layers that box errors hide it: of a [`BoxError`](tower::BoxError) only the two errors of this crate
/// are known, and anything else is not tried again.
pub trait PublishFailure {
    /// What became of the message.
    fn delivery(&self) -> Delivery;

    /// Whether another attempt may succeed with nothing changed on this side.
    fn is_transient(&self) -> bool;
}

impl PublishFailure for PublishError {
    fn delivery(&self) -> Delivery {
        Self::delivery(self)
    }

    fn is_transient(&self) -> bool {
        Self::is_transient(self)
    }
}

impl PublishFailure for PoolPublishError {
    fn delivery(&self) -> Delivery {
        Self::delivery(self)
    }

    fn is_transient(&self) -> bool {
        Self::is_transient(self)
    }
}

impl PublishFailure for Box<dyn Error + Send + Sync> {
    fn delivery(&self) -> Delivery {
        known(&**self).map_or(Delivery::Unknown, PublishFailure::delivery)
    }

    fn is_transient(&self) -> bool {
        known(&**self).is_some_and(PublishFailure::is_transient)
    }
}

fn known<'a>(error: &'a (dyn Error + Send + Sync + 'static)) -> Option<&'a dyn PublishFailure> {
    if let Some(of_session) = error.downcast_ref::<PublishError>() {
        return Some(of_session);
    }
    let of_pool = error.downcast_ref::<PoolPublishError>()?;
    Some(of_pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_are_drawn_from_half_the_base() {
        let config = RetryConfig::default();
        for (retry, chance, millis) in [
            (0, 0.0, 50),
            (0, 1.0, 100),
            (2, 0.0, 50),
            (2, 1.0, 400),
            (u32::MAX, 1.0, 5_000),
        ] {
            assert_eq!(config.delay(retry, chance), Duration::from_millis(millis));
        }
    }

    #[test]
    fn every_broken_rule_is_told() {
        let config = RetryConfig::default()
            .with_base(Duration::ZERO)
            .with_budget_share(f32::NAN)
            .with_budget_floor(u32::MAX);
        let errors = PublishRetry::new(config)
            .expect_err("three are broken")
            .to_string();
        for option in ["retry.base", "retry.budget_share", "retry.budget_floor"] {
            assert!(errors.contains(option), "{errors}");
        }
        let config = RetryConfig::default().with_max(Duration::from_millis(1));
        assert!(PublishRetry::new(config).is_err());
    }
}
