//! What a fork does. The child has the thread that forked and no other: the engine's does not exist
//! there, and its locks may be held for ever. So whatever was made before must say so at once instead of
//! waiting, and its destructor must not touch anything.
//!
//! The process id tells it for certain, at the price of a system call: asked once per wait and per
//! batch. Bindings that hear of forks as they happen ([`in_child`](crate::bindings::in_child)) have it
//! noticed by every call.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, ErrorKind};

static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks lie behind this process, of those that somebody has told of.
#[inline]
pub fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// A fork has made this process.
pub(crate) fn forked_here() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The process that something was made in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pid: u32,
    forks: u32,
}

impl Origin {
    pub(crate) fn here() -> Self {
        Self { pid: std::process::id(), forks: forks() }
    }

    /// Whether it is this one.
    pub(crate) fn is_here(self) -> bool {
        self.seems_here() && self.pid == std::process::id()
    }

    /// Another process than this one.
    #[cfg(test)]
    pub(crate) fn elsewhere() -> Self {
        Self { pid: 0, forks: forks() }
    }

    /// The same as far as it is known without asking the system.
    #[inline]
    pub(crate) fn seems_here(self) -> bool {
        self.forks == forks()
    }
}

/// The error of every call in a forked child.
pub(crate) fn forked() -> Error {
    Error::new(ErrorKind::Forked, "this process is a fork of the one that made the client")
}
