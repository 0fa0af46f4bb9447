//! A shared pool in numbers.

use std::fmt;

/// A [`SharedPool`](crate::SharedPool) in numbers, at one moment. While others use it they need
/// not add up exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedStatus {
    /// The positions there are.
    pub positions: usize,
    /// The positions whose member can be used.
    pub usable: usize,
    /// The handles that are held on the members of the positions.
    pub handles: usize,
    /// The members that have left their position and stay leased until their last handle is
    /// dropped.
    pub retiring: usize,
}

impl fmt::Display for SharedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} usable, {} handles, {} retiring",
            self.usable, self.positions, self.handles, self.retiring
        )
    }
}
