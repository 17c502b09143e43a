//! The tables codecs work with, kept between batches: making zstd's takes longer than compressing
//! a small batch; and how much came out of the batches before.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Idle contexts of each kind that are kept: as many as threads that seal at one time, usually.
pub(super) const KEEP: usize = 4;

/// Contexts of every codec that is built in.
#[derive(Default)]
pub(crate) struct Contexts {
    pub(super) ratios: Ratios,
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

/// Bytes of output for a byte of input, by codec, in sixteenths: the most of the batches of late. 0 is "none yet".
/// A guess: two threads that learn at a time may lose a lesson.
#[derive(Default)]
pub(super) struct Ratios([AtomicU32; 8]);

impl Ratios {
    /// What text compresses to, before there was a batch.
    const FIRST: u32 = 4 * 16;
    /// Batches that shrink more are measured, or grow: a single one shall not cost the others its room.
    const MOST: u32 = 16 * 16;

    /// About what `input` bytes decompress to, with an eighth to spare.
    pub(super) fn guess(&self, bits: i16, input: usize) -> usize {
        let ratio = match self.of(bits).load(Ordering::Relaxed) {
            0 => Self::FIRST,
            ratio => ratio,
        };
        (input.saturating_mul(ratio as usize) / 16).saturating_mul(9) / 8
    }

    pub(super) fn learn(&self, bits: i16, input: usize, output: usize) {
        let now = (output.saturating_mul(16) / input.max(1)).clamp(16, Self::MOST as usize) as u32;
        let ratio = self.of(bits);
        let old = ratio.load(Ordering::Relaxed);
        ratio.store(now.max(old - old / 8), Ordering::Relaxed);
    }

    fn of(&self, bits: i16) -> &AtomicU32 {
        &self.0[usize::from(bits as u16 & 7)]
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

    #[cfg(test)]
    pub(super) fn any<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).first().map(look)
    }

    /// Lends one that is idle, or what `make` makes. One that is dropped by a panic is not kept.
    pub(super) fn lend<R>(&self, make: impl FnOnce() -> T, work: impl FnOnce(&mut T) -> R) -> R {
        self.lend_if(make, work, |_| true)
    }

    /// The same; one that is not `worth` keeping afterwards is freed.
    pub(super) fn lend_if<R>(
        &self,
        make: impl FnOnce() -> T,
        work: impl FnOnce(&mut T) -> R,
        worth: impl FnOnce(&T) -> bool,
    ) -> R {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = idle.unwrap_or_else(make);
        let result = work(&mut context);
        if worth(&context) {
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEEP {
                idle.push(context);
            }
        }
        result
    }
}
