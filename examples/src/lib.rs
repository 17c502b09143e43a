//! Example programs, one per language; the Rust ones are in `rust/`.
