//! Measurements beside other clients.
