//! What is wrong with a configuration, all of it at once.

use std::{borrow::Cow, fmt, slice};

/// The problems of a configuration. Its text has one line for each.
///
/// A check pushes what it finds and goes on, so that one attempt shows everything there is to
/// mend; [`into_result`](Self::into_result) ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Adds a problem; see [`ConfigError`] for what each part says.
    pub fn push(
        &mut self,
        path: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
        rule: &'static str,
        hint: &'static str,
    ) {
        self.0.push(ConfigError {
            path: path.into(),
            value: value.to_string(),
            rule,
            hint,
        });
    }

    /// Adds the problems of another check.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether there is no problem.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The end of a check.
    ///
    /// # Errors
    ///
    /// `self`, if there is any problem.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The problems in the order they were found.
    pub fn iter(&self) -> slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// The option, like `pool.max_idle`.
    pub path: Cow<'static, str>,
    /// Its value, as text.
    pub value: String,
    /// The rule that the value breaks.
    pub rule: &'static str,
    /// What to do about it.
    pub hint: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            value,
            rule,
            hint,
        } = self;
        write!(f, "{path} is {value}: {rule}; {hint}")
    }
}
