//! A member, by hand.
