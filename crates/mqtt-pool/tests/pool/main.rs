//! The pool against a server that counts, in virtual time.

mod acquiring;
mod budgeting;
mod calling_back;
mod changing;
mod closing;
mod configuring;
mod dialling;
mod draining;
mod endpoints;
mod gating;
mod idling;
mod keeping;
mod leaking;
mod leasing;
mod living;
mod metering;
mod model;
mod server;
mod sharing;
mod sharing_by_key;
mod sharing_ends;
mod sharing_replaces;
mod slots;
mod warnings;
