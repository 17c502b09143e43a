//! The buffer that a payload is decompressed into: sized by what comes, which is known before, guessed, or
//! counted.

use super::{DecompressError, UNMEASURED, measure};
use crate::record::pool::{Chunk, ChunkPool};

/// A stream whose output outgrows its buffer gets one of twice the size up to here. Beyond, decompressing it
/// once only to count what comes is the smaller cost: of memory, and of what is moved.
const DOUBLED: usize = 1 << 20;

/// Output of more than this is not kept in a buffer that is more than twice as large.
const FITTED: usize = 64 << 10;

/// Bytes in which a stream shows that it goes on behind a full buffer.
const SPILL: usize = 64;

/// A chunk that is being filled, never beyond the limit.
pub(super) struct Filling<'a> {
    out: Chunk,
    bits: i16,
    pool: &'a ChunkPool,
    input: &'a [u8],
    limit: usize,
    /// Whether the buffer's size was counted. Such a one cannot be too small.
    measured: bool,
}

impl<'a> Filling<'a> {
    /// With room for `estimate` bytes, or for as many as there will be.
    pub(super) fn new(
        bits: i16,
        pool: &'a ChunkPool,
        input: &'a [u8],
        limit: usize,
        estimate: usize,
    ) -> Result<Self, DecompressError> {
        let measured = estimate > UNMEASURED;
        let size = if measured { measure(bits, pool, input, limit)? } else { estimate.min(limit) };
        Ok(Self { out: pool.get(size), bits, pool, input, limit, measured })
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Bytes that may be written now.
    pub(super) fn room(&self) -> usize {
        self.out.capacity().min(self.limit) - self.out.len()
    }

    /// What is written, and the room.
    pub(super) fn split(&mut self) -> (&[u8], &mut [u8]) {
        let end = self.out.len() + self.room();
        let (whole, filled) = self.out.whole();
        let (done, free) = whole[..end].split_at_mut(filled);
        (done, free)
    }

    pub(super) fn advance(&mut self, n: usize) {
        self.out.advance(n);
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), DecompressError> {
        if bytes.len() > self.room() {
            self.grow_to_measure()?;
        }
        self.split()
            .1
            .get_mut(..bytes.len())
            .ok_or(DecompressError::Damaged)?
            .copy_from_slice(bytes);
        self.out.advance(bytes.len());
        Ok(())
    }

    /// One step of a stream: `step` writes to the front of what it is given, and says how much. Nothing written
    /// means that nothing is left only if it means so to `step`.
    pub(super) fn fill(
        &mut self,
        step: impl FnOnce(&mut [u8]) -> Result<usize, DecompressError>,
    ) -> Result<usize, DecompressError> {
        if self.room() > 0 {
            let n = step(self.split().1)?;
            self.out.advance(n);
            return Ok(n);
        }
        // Full: that may be all, and the stream's end still to be read.
        let mut spill = [0; SPILL];
        let n = step(&mut spill)?;
        if n > 0 {
            let double = self.out.capacity() * 2;
            if double <= DOUBLED {
                self.grow(double);
            }
            self.push(&spill[..n])?;
        }
        Ok(n)
    }

    /// The buffer gets the size of all that will come, if that is within the limit: nothing else says that it is
    /// not, so there is one place that does.
    pub(super) fn grow_to_measure(&mut self) -> Result<(), DecompressError> {
        if self.measured {
            // It had room for all that was counted.
            return Err(DecompressError::Damaged);
        }
        self.measured = true;
        let size = measure(self.bits, self.pool, self.input, self.limit)?;
        self.grow(size);
        Ok(())
    }

    fn grow(&mut self, size: usize) {
        if size > self.out.capacity() {
            let mut larger = self.pool.get(size);
            larger.push(self.out.as_ref());
            self.out = larger;
        }
    }

    /// What came out, in a buffer that is not much larger: whoever keeps a record keeps the buffer.
    pub(super) fn finish(self) -> Chunk {
        let out = self.out;
        self.pool.contexts().ratios.learn(self.bits, self.input.len(), out.len());
        if out.capacity() <= FITTED || out.capacity() / 2 <= out.len() {
            return out;
        }
        let mut fitting = self.pool.get(out.len());
        fitting.push(out.as_ref());
        fitting
    }
}
