//! Members of consumer groups.
//!
//! ```text
//! task     one per consumer: executes what the machine wants, and sees to offsets   task.rs, offsets.rs
//! classic  the machine of a classic member, without I/O                             classic.rs, codes.rs, coordinator.rs, life.rs
//! events   what a machine is told, and what it wants done                           events.rs
//! wire     the bytes that members send one another                                  wire.rs
//! assignors who reads what                                                          assignors/
//! calls    the requests to the coordinator                                          calls.rs
//! ```

pub(crate) mod assignors;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the task is about to have members of both kinds")
)]
pub(crate) mod auto;
pub(super) mod calls;
pub(crate) mod classic;
mod codes;
mod coordinator;
pub(crate) mod events;
mod life;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the task is about to have members of both kinds")
)]
pub(crate) mod next;
mod offsets;
mod settings;
pub(super) mod task;
mod told;
pub(crate) mod wire;

pub use assignors::Assignor;
pub(super) use offsets::{Order, Places};
pub use settings::Commit;
pub(crate) use settings::GroupConfig;
