//! Members of consumer groups.
//!
//! ```text
//! task     one per consumer: executes what the machine wants, and sees to offsets   task.rs, offsets.rs
//! classic  the machine of a classic member, without I/O                             classic.rs, codes.rs, coordinator.rs, life.rs
//! next     the same of the next generation (KIP-848)                                next.rs
//! auto     which of the two                                                         auto.rs
//! events   what a machine is told, and what it wants done                           events.rs
//! wire     the bytes that members send one another                                  wire.rs
//! wish     what is subscribed to: names and patterns                                wish.rs
//! look     which topics match a pattern, as brokers see them                        look.rs
//! assignors who reads what                                                          assignors/
//! calls    the requests to the coordinator                                          calls.rs
//! ```

pub(crate) mod assignors;
pub(crate) mod auto;
pub(super) mod calls;
pub(crate) mod classic;
mod codes;
mod coordinator;
pub(crate) mod events;
mod life;
mod look;
pub(crate) mod next;
mod offsets;
mod settings;
pub(super) mod task;
mod told;
pub(crate) mod wire;
pub(crate) mod wish;

pub use assignors::Assignor;
pub(super) use offsets::{Order, Places};
pub(crate) use settings::GroupConfig;
pub use settings::{Commit, GroupProtocol};
