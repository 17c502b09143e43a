//! The exchange of Fetches with one broker, without I/O: [`session`] decides what the next request says, and knows what
//! the broker was told.

pub(crate) mod known;
pub(crate) mod session;
