//! What the design rests on, as it is written in the repository (`core/docs`). `ARCHITECTURE.md`, at the
//! top of the repository, says which part of the code does what, and on which thread.

#[doc = include_str!("../docs/contract.md")]
pub mod contract {}

#[doc = include_str!("../docs/rules.md")]
pub mod rules {}

#[doc = include_str!("../docs/security.md")]
pub mod security {}

#[doc = include_str!("../docs/groups.md")]
pub mod groups {}

#[doc = include_str!("../docs/pacing.md")]
pub mod pacing {}
