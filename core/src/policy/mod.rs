//! Decisions without I/O and without a clock of their own: input, state, now and a generator in,
//! a decision out. One per file; the simulation uses them unchanged.

pub(crate) mod backoff;
pub(crate) mod key_hash;
pub(crate) mod spread;
