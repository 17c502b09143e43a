//! The C interface of Ottla; `include/ottla.h` is generated from this crate.
//!
//! Rules, kept by every export:
//!
//! - A pointer is checked for null before use; a null where none may be is the caller's error,
//!   told as such. Whether a pointer is otherwise valid is the caller's promise.
//! - Nothing unwinds into C: [`boundary`] catches panics and tells them as errors.
//! - A handle is one Rust type, freed by the one `_free` of its kind.
//! - Nothing here calls back into C.
#![allow(non_camel_case_types)]
#![allow(
    clippy::missing_safety_doc,
    reason = "the safety of every export is the first rule above and the rules of the header"
)]

mod ack;
mod batch;
mod boundary;
mod client;
mod completion;
mod consumer;
mod error;
mod group;
mod logs;
mod offsets;
mod options;
mod producer;
mod producer_options;
mod properties;
mod record;
mod security;
mod status;
mod steering;
mod test_broker;
mod test_commands;
mod test_groups;
mod tokens;

pub use ack::*;
pub use batch::*;
pub use client::*;
pub use completion::*;
pub use consumer::*;
pub use error::*;
pub use group::*;
pub use logs::*;
pub use offsets::*;
pub use producer::*;
pub use producer_options::*;
pub use properties::*;
pub use record::*;
pub use security::*;
pub use status::*;
pub use steering::*;
pub use test_broker::*;
pub use test_commands::*;
pub use test_groups::*;
pub use tokens::*;

#[cfg(test)]
mod layout;
