//! A registry in numbers.

use std::fmt;

/// A [`SessionRegistry`](crate::SessionRegistry) in numbers, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryStatus {
    /// The sessions that are open, whether or not they have a connection at the moment.
    pub open: usize,
    /// Those of them on which there is no handle.
    pub idle: usize,
    /// The sessions that are being opened, or wait for room.
    pub opening: usize,
    /// The sessions that are saying goodbye.
    pub closing: usize,
    /// The callers without an answer yet.
    pub waiting: usize,
    /// The devices that the server has refused, and that are not tried again yet.
    pub refused: usize,
    /// The sessions there may be.
    pub max_sessions: usize,
}

impl RegistryStatus {
    pub(super) fn sessions(&self) -> usize {
        self.open + self.opening + self.closing
    }
}

impl fmt::Display for RegistryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} open, {} of them idle, {} opening, {} closing, {} waiting, at most {}",
            self.open, self.idle, self.opening, self.closing, self.waiting, self.max_sessions
        )
    }
}
