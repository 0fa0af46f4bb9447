//! What is wrong with a router, and why a message was not handled.

use std::fmt;

use mqtt_proto::TopicError;
use thiserror::Error;

use crate::error::SubscribeError;

/// An error of anybody's, as tower's layers have it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is wrong with the patterns of a router, all of it at once. Its text has one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternErrors(pub(super) Vec<PatternError>);

impl PatternErrors {
    /// The problems, in the order of the routes.
    pub fn iter(&self) -> std::slice::Iter<'_, PatternError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a PatternErrors {
    type Item = &'a PatternError;
    type IntoIter = std::slice::Iter<'a, PatternError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for PatternErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
            if let PatternError::Filter { source, .. } = error {
                write!(f, ": {source}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for PatternErrors {}

/// Why a pattern is not one, or not beside another.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PatternError {
    /// As a topic filter it is not allowed.
    #[error("`{pattern}` is not a topic filter")]
    Filter {
        /// The pattern.
        pattern: String,
        /// Why not.
        source: TopicError,
    },
    /// A brace is neither doubled nor part of a capture.
    #[error(
        "`{level}` in `{pattern}`: a capture is a whole level, `{{name}}` or `{{*name}}`, and other braces are doubled"
    )]
    Braces {
        /// The pattern.
        pattern: String,
        /// Its level.
        level: String,
    },
    /// `{*name}` or `#` with a level behind it.
    #[error("in `{pattern}` something follows what takes the rest")]
    RestNotLast {
        /// The pattern.
        pattern: String,
    },
    /// Two captures have one name.
    #[error("`{pattern}` captures `{name}` twice")]
    NameTwice {
        /// The pattern.
        pattern: String,
        /// The name.
        name: String,
    },
    /// Two routes are for exactly the same topics.
    #[error("`{first}` and `{second}` are for the same topics")]
    Conflict {
        /// The pattern that was added first.
        first: String,
        /// The other.
        second: String,
    },
}

/// Why a message counts as not handled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// An extractor did not find in it what the handler takes; its
    /// [`Rejection`](super::FromMessage::Rejection) is the source, and can be downcast.
    #[error("the message is not what the handler takes")]
    Rejected(#[source] BoxError),
    /// The handler returned an error, or a layer did.
    #[error("the handler failed")]
    Failed(#[source] BoxError),
    /// The handler panicked.
    #[error("the handler panicked")]
    Panicked,
    /// No route matches its topic, and there is no fallback.
    #[error("no route matches the topic")]
    NotRouted,
}

impl HandlerError {
    /// What comes out of layers: this error, if they passed it on as it was.
    pub(super) fn from_layers(error: impl Into<BoxError>) -> Self {
        error
            .into()
            .downcast::<Self>()
            .map_or_else(Self::Failed, |error| *error)
    }
}

/// A route could not be subscribed to, so that none is served.
#[derive(Clone, Debug, Error)]
#[error("cannot subscribe for `{pattern}`")]
#[non_exhaustive]
pub struct ServeError {
    /// The pattern of the route.
    pub pattern: String,
    /// Why.
    #[source]
    pub cause: SubscribeError,
}
