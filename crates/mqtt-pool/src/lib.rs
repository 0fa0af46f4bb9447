//! A pool of connections or sessions with idle and lifetime recycling
