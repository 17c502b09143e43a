//! Decisions without I/O and without a clock of their own: input, state, now and a generator in,
//! a decision out. One per file; the simulation uses them unchanged.

pub(crate) mod agreement;
pub(crate) mod backoff;
pub(crate) mod chatter;
pub(crate) mod ejection;
pub(crate) mod in_flight;
pub(crate) mod key_hash;
pub(crate) mod latency;
pub(crate) mod linger;
pub(crate) mod log_limit;
pub(crate) mod metadata_refresh;
pub(crate) mod pace;
pub(crate) mod pacing;
pub(crate) mod read_ahead;
pub(crate) mod reconnect;
pub(crate) mod replica;
pub(crate) mod retry_budget;
pub(crate) mod silence;
pub(crate) mod spell;
pub(crate) mod spread;
pub(crate) mod subset;
pub(crate) mod token_renewal;
pub(crate) mod trickle;
pub(crate) mod turns;
