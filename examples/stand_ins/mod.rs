//! What the examples bring along so that they run anywhere: a secret store, an authority, and TLS in
//! front of a server. All on loopback, on ports that the system chose, and gone when dropped.

mod authority;
mod store;
mod tls_front;

pub(crate) use authority::{Authority, Issued};
pub(crate) use store::Store;
pub(crate) use tls_front::TlsFront;
