//! Members of other clients beside this one's in one group: each is a process that prints what Kafka's system tests read
//! ([`events`]), whatever it is written in, so that one judge serves all.
//!
//! [`programs`] knows how a member of each client is started, [`member`] starts it, [`history`] keeps what all of them said
//! and what was done to them, and [`judge`] says whether that is what groups promise. [`group`] puts it together, step by step, and
//! [`script`] says which steps. [`rebalance`] measures.

pub mod events;
pub mod group;
pub mod history;
pub mod judge;
pub mod member;
pub mod programs;
pub mod properties;
pub mod rebalance;
pub mod script;
pub mod stop;
