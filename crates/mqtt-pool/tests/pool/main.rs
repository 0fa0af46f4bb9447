//! The pool against a server that counts, in virtual time.

mod acquiring;
mod closing;
mod configuring;
mod idling;
mod leasing;
mod living;
mod metering;
mod server;
mod slots;
