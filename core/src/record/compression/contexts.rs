//! The tables codecs work with, kept between batches: making zstd's takes longer than compressing
//! a small batch.

use std::sync::{Mutex, PoisonError};

/// Idle contexts of each kind that are kept: as many as threads that seal at one time, usually.
pub(super) const KEEP: usize = 4;

/// Contexts of every codec that is built in.
#[derive(Default)]
pub(crate) struct Contexts {
    #[cfg(feature = "gzip")]
    pub(super) deflate: Idle<super::gzip::Deflate>,
    #[cfg(feature = "lz4")]
    pub(super) lz4: Idle<super::lz4::Tables>,
    #[cfg(feature = "snappy")]
    pub(super) snappy: Idle<super::snappy::Tables>,
    #[cfg(feature = "zstd")]
    pub(super) zstd: Idle<zstd::zstd_safe::CCtx<'static>>,
    #[cfg(feature = "zstd")]
    pub(super) unzstd: Idle<zstd::zstd_safe::DCtx<'static>>,
}

impl Contexts {
    /// Forgets those that are idle.
    pub(crate) fn clear(&self) {
        #[cfg(feature = "gzip")]
        self.deflate.clear();
        #[cfg(feature = "lz4")]
        self.lz4.clear();
        #[cfg(feature = "snappy")]
        self.snappy.clear();
        #[cfg(feature = "zstd")]
        self.zstd.clear();
        #[cfg(feature = "zstd")]
        self.unzstd.clear();
    }
}

impl std::fmt::Debug for Contexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contexts").finish_non_exhaustive()
    }
}

/// Contexts of one kind that nobody uses at the moment.
pub(super) struct Idle<T>(Mutex<Vec<T>>);

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Idle<T> {
    fn clear(&self) {
        let idle = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Freed without the lock: zstd's take megabytes.
        drop(idle);
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Lends one that is idle, or what `make` makes. One that is dropped by a panic is not kept.
    pub(super) fn lend<R>(&self, make: impl FnOnce() -> T, work: impl FnOnce(&mut T) -> R) -> R {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = idle.unwrap_or_else(make);
        let result = work(&mut context);
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEEP {
            idle.push(context);
        }
        result
    }
}
