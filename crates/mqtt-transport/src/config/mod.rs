//! What configuration structs are made of: limits with a text form, and errors that report every
//! problem at once. The layers above use them too.

mod errors;
mod limit;

pub use errors::{ConfigError, ConfigErrors};
pub use limit::{Limit, ParseLimitError};
