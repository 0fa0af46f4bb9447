//! The real servers, spoken to in bytes written by hand, so that no codec of ours can hide a fault
//! of theirs or of itself.

#[cfg(feature = "embedded")]
mod embedded;
mod mosquitto;
#[cfg(feature = "tls")]
mod tls;
mod wire;
