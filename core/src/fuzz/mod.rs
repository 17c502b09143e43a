//! What reads bytes from the network, for fuzzing: `core/fuzz` feeds it what a fuzzer makes up,
//! `core/tests/corpus.rs` what fuzzers found. Not a part of the public interface; there with the
//! feature `fuzz-internals` only, and free to change.
//!
//! Each function takes an input as the fuzzer writes it and panics if the reader under test does
//! what it never may; what an input that it understands comes to is a [`Verdict`]. The readers
//! are judged by something simpler than they are, not by "no panic" alone.

mod frames;
mod logins;
mod membership;
mod records;
mod responses;

pub use frames::frames;
pub use logins::logins;
pub use membership::membership;
pub use records::records;
pub use responses::{known_responses, response, written_response};

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The reader under test was not called: not an input.
    Unfit,
    /// All of it was read.
    Taken,
    /// It was refused, with an error that says why.
    Refused,
}
