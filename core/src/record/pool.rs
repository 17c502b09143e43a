//! A bounded pool of warm buffers.
//!
//! Batches come and go thousands of times a second; asking the allocator for each costs page faults that are
//! dearer than the encoding itself. The pool is last in, first out, because the buffer given back last is the
//! one still in cache. It keeps a bounded number of idle bytes: [`DEFAULT_KEEP`], or 32 MiB in a cluster's
//! pool, where all producers and consumers of the process take their batches, frames and decompressed records
//! from; and `trim` gives back what was not needed for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(any(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
use super::compression::Contexts;

/// Sizes of pooled buffers, ascending. The first four are what open batches grow by; the large
/// ones take decompressed batches. A larger buffer is made to size and not kept.
const CLASSES: [usize; 7] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];

/// Idle bytes that a pool keeps unless told otherwise: about what stays in a last-level cache.
pub(crate) const DEFAULT_KEEP: usize = 8 << 20;

/// Warm buffers, shared by everyone who clones it.
#[derive(Clone, Debug)]
pub(crate) struct ChunkPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    keep: usize,
    idle: Mutex<Idle>,
    #[cfg(any(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
    contexts: Contexts,
}

#[derive(Debug, Default)]
struct Idle {
    by_class: [Vec<Box<[u8]>>; CLASSES.len()],
    /// For each class, the smallest number of idle buffers since the last `trim`: that many were not needed.
    least: [usize; CLASSES.len()],
    bytes: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Idle> {
        // Nothing in the critical sections leaves the state half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ChunkPool {
    fn default() -> Self {
        Self::new(DEFAULT_KEEP)
    }
}

impl ChunkPool {
    /// A pool that keeps at most `keep` bytes of idle buffers. What is handed out is not counted:
    /// the memory budget of producer or consumer bounds that.
    pub(crate) fn new(keep: usize) -> Self {
        Self(Arc::new(Shared {
            keep,
            idle: Mutex::default(),
            #[cfg(any(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
            contexts: Contexts::default(),
        }))
    }

    /// An empty chunk with room for at least `min` bytes.
    pub(crate) fn get(&self, min: usize) -> Chunk {
        let Some(class) = class_for(min) else {
            return Chunk { buf: zeroed(min), len: 0, pool: None };
        };
        let warm = {
            let mut idle = self.0.lock();
            let warm = idle.by_class[class].pop();
            if let Some(buf) = &warm {
                idle.bytes -= buf.len();
                idle.least[class] = idle.least[class].min(idle.by_class[class].len());
            }
            warm
        };
        let buf = warm.unwrap_or_else(|| zeroed(CLASSES[class]));
        Chunk { buf, len: 0, pool: Some(Arc::clone(&self.0)) }
    }

    /// Gives idle buffers back to the allocator that were not needed since the last call: a burst an hour ago
    /// is no reason to hold its buffers.
    pub(crate) fn trim(&self) {
        let mut unused = Vec::new();
        let mut idle = self.0.lock();
        let Idle { by_class, least, bytes } = &mut *idle;
        for (class, least) in by_class.iter_mut().zip(least) {
            // The buffers at the bottom were given back longest ago.
            unused.extend(class.drain(..*least));
            *least = class.len();
        }
        *bytes -= unused.iter().map(|buf| buf.len()).sum::<usize>();
        drop(idle);
        #[cfg(any(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
        if !unused.is_empty() {
            self.0.contexts.clear();
        }
    }

    /// The tables that codecs keep between batches.
    #[cfg(any(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
    pub(crate) fn contexts(&self) -> &Contexts {
        &self.0.contexts
    }

    /// Bytes of idle buffers at this moment.
    #[cfg(test)]
    pub(crate) fn idle_bytes(&self) -> usize {
        self.0.lock().bytes
    }
}

fn class_for(min: usize) -> Option<usize> {
    CLASSES.iter().position(|&size| size >= min)
}

fn zeroed(len: usize) -> Box<[u8]> {
    vec![0; len].into_boxed_slice()
}

/// A buffer from a pool: `len` bytes written, room for more. Goes back when dropped, also from
/// within the `Bytes` that [`Chunk::freeze`] makes.
#[derive(Debug)]
pub(crate) struct Chunk {
    // Always initialised to its end, so that safe code can write into the room without clearing it.
    buf: Box<[u8]>,
    len: usize,
    pool: Option<Arc<Shared>>,
}

impl Chunk {
    /// A chunk without room.
    pub(crate) fn empty() -> Self {
        Self { buf: Box::default(), len: 0, pool: None }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.buf.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes not written yet. Their content is whatever an earlier user left.
    #[inline]
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.buf[self.len..]
    }

    /// Everything up to the buffer's end, and how much of it is written.
    #[cfg(feature = "lz4")]
    pub(crate) fn whole(&mut self) -> (&mut [u8], usize) {
        (&mut self.buf, self.len)
    }

    /// Counts `n` more bytes as written.
    #[inline]
    pub(crate) fn advance(&mut self, n: usize) {
        assert!(n <= self.buf.len() - self.len, "a chunk cannot hold more than its buffer");
        self.len += n;
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.room()[..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(crate) fn freeze(self) -> bytes::Bytes {
        bytes::Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else { return };
        let buf = std::mem::take(&mut self.buf);
        let Some(class) = CLASSES.iter().position(|&size| size == buf.len()) else { return };
        let mut idle = pool.lock();
        if idle.bytes + buf.len() <= pool.keep {
            idle.bytes += buf.len();
            idle.by_class[class].push(buf);
        } else {
            // Freed after the lock is gone: returning memory to the system can take long.
            drop(idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_in_first_out_and_clean_length() {
        let pool = ChunkPool::default();
        let mut a = pool.get(10);
        a.push(b"a");
        let mut b = pool.get(10);
        b.push(b"b");
        drop(a);
        drop(b.freeze());
        assert_eq!(pool.idle_bytes(), 2048);
        let mut again = pool.get(1);
        assert_eq!(again.len(), 0);
        assert_eq!(again.room()[0], b'b', "the buffer given back last comes first");
    }

    #[test]
    fn keeps_no_more_than_its_bound() {
        let pool = ChunkPool::new(3 << 10);
        let chunks: Vec<_> = (0..10).map(|_| pool.get(1024)).collect();
        drop(chunks);
        assert_eq!(pool.idle_bytes(), 3 << 10);
        drop(pool.get(16 << 10));
        assert_eq!(pool.idle_bytes(), 3 << 10);
    }

    #[test]
    fn what_nobody_needs_is_given_back() {
        let pool = ChunkPool::default();
        let chunks: Vec<_> = (0..10).map(|_| pool.get(1024)).collect();
        drop(chunks);
        pool.trim();
        assert_eq!(pool.idle_bytes(), 10 << 10, "they were used just now");
        let three: Vec<_> = (0..3).map(|_| pool.get(1024)).collect();
        drop(three);
        pool.trim();
        assert_eq!(pool.idle_bytes(), 3 << 10);
        pool.trim();
        assert_eq!(pool.idle_bytes(), 0);
    }

    #[test]
    fn oversized_is_made_to_size_and_not_kept() {
        let pool = ChunkPool::default();
        let chunk = pool.get((4 << 20) + 1);
        assert_eq!(chunk.capacity(), (4 << 20) + 1);
        drop(chunk);
        assert_eq!(pool.idle_bytes(), 0);
    }
}
