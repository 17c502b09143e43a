//! One error: a sentence that says what failed, and what to do about it.

use std::fmt;

/// What went wrong, in words for the person who runs the tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

/// Result of anything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Puts what was being done in front of an error of the operating system.
pub trait Context<T> {
    /// The error becomes `doing: error`.
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error(format!("{doing}: {e}")))
    }
}
