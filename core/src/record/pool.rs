//! A bounded pool of warm buffers.
//!
//! Batches come and go thousands of times a second; asking the allocator for each costs page faults that are
//! dearer than the encoding itself. The pool is last in, first out, because the buffer given back last is the
//! one still in cache. It keeps a bounded number of idle bytes: [`DEFAULT_KEEP`], or [`CLUSTER_KEEP`] in a
//! cluster's pool, where all producers and consumers of the process take their batches, frames and decompressed
//! records from; and `trim` gives back what was not needed for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::compression::Contexts;

/// What a response has around a round number of record bytes: its header, and the names and numbers of a
/// thousand partitions. The large sizes have this much more, or "1 MiB of records" would take the size above.
const AROUND: usize = 64 << 10;

/// Sizes of pooled buffers, ascending. The first four are what open batches grow by; the rest take frames and
/// decompressed batches, two for each power of two: of a buffer that somebody keeps, at most a third is unused.
/// A larger buffer is made to size and not kept.
const CLASSES: [usize; 18] = {
    const K: usize = 1 << 10;
    const M: usize = 1 << 20;
    [
        K,
        4 * K,
        16 * K,
        64 * K,
        96 * K,
        128 * K,
        192 * K,
        256 * K,
        384 * K,
        512 * K,
        768 * K,
        M + AROUND,
        M * 3 / 2 + AROUND,
        2 * M + AROUND,
        3 * M + AROUND,
        4 * M + AROUND,
        6 * M + AROUND,
        8 * M + AROUND,
    ]
};

/// Of each size above this, no more than [`FEW`] idle buffers are kept: three would be half of what a pool keeps.
const HUGE: usize = 3 << 20;
const FEW: usize = 2;

/// Idle bytes that a pool keeps unless told otherwise: about what stays in a last-level cache.
pub(crate) const DEFAULT_KEEP: usize = 8 << 20;

/// Idle bytes that the pool of a cluster keeps: beside the bound of a consumer's memory, so no more than a
/// fraction of that.
pub(crate) const CLUSTER_KEEP: usize = 16 << 20;

/// Warm buffers, shared by everyone who clones it.
#[derive(Clone, Debug)]
pub(crate) struct ChunkPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    keep: usize,
    idle: Mutex<Idle>,
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

    fn take(&self, class: usize) -> Option<Box<[u8]>> {
        let mut idle = self.lock();
        let buf = idle.by_class[class].pop()?;
        idle.bytes -= buf.len();
        idle.least[class] = idle.least[class].min(idle.by_class[class].len());
        Some(buf)
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
        Self(Arc::new(Shared { keep, idle: Mutex::default(), contexts: Contexts::default() }))
    }

    /// An empty chunk with room for at least `min` bytes.
    pub(crate) fn get(&self, min: usize) -> Chunk {
        let Some(class) = class_for(min) else {
            return Chunk { buf: zeroed(min), len: 0, pool: None };
        };
        let buf = self.0.take(class).unwrap_or_else(|| zeroed(CLASSES[class]));
        Chunk { buf, len: 0, pool: Some(Arc::clone(&self.0)) }
    }

    /// The same, if an idle buffer of that size is there: it takes no memory that is not taken yet.
    pub(crate) fn warm(&self, min: usize) -> Option<Chunk> {
        let buf = self.0.take(class_for(min)?)?;
        Some(Chunk { buf, len: 0, pool: Some(Arc::clone(&self.0)) })
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
        if !unused.is_empty() {
            self.0.contexts.clear();
        }
    }

    /// The tables that codecs keep between batches.
    pub(crate) fn contexts(&self) -> &Contexts {
        &self.0.contexts
    }

    /// Bytes of idle buffers at this moment.
    #[cfg(test)]
    pub(crate) fn idle_bytes(&self) -> usize {
        self.0.lock().bytes
    }
}

/// Bytes that a frame of this size takes: its buffer is one of the pool's sizes. A small one is copied, and takes its own.
pub(crate) fn taken_for(frame: usize) -> usize {
    if frame <= COPIED { frame } else { class_for(frame).map_or(frame, |class| CLASSES[class]) }
}

/// Frames of up to about this size are copied out of what was read ahead.
pub(crate) const COPIED: usize = 16 << 10;

fn class_for(min: usize) -> Option<usize> {
    let class = CLASSES.partition_point(|&size| size < min);
    (class < CLASSES.len()).then_some(class)
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

    /// Makes the buffer at least `to` bytes long, where it is: the allocator moves pages of the large ones
    /// instead of copying them, so there are never two. What one of the pool's sizes can hold gets that size,
    /// and goes back to the pool as such.
    pub(crate) fn grow(&mut self, to: usize) {
        if to <= self.buf.len() {
            return;
        }
        let to = class_for(to).map_or(to, |class| CLASSES[class]);
        let mut buf = std::mem::take(&mut self.buf).into_vec();
        buf.reserve_exact(to - buf.len());
        buf.resize(to, 0);
        self.buf = buf.into_boxed_slice();
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
        let Ok(class) = CLASSES.binary_search(&buf.len()) else { return };
        let mut idle = pool.lock();
        let enough = buf.len() > HUGE && idle.by_class[class].len() >= FEW;
        if idle.bytes + buf.len() <= pool.keep && !enough {
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
        let pool = ChunkPool::new(1 << 30);
        let chunk = pool.get((9 << 20) + 1);
        assert_eq!(chunk.capacity(), (9 << 20) + 1);
        drop(chunk);
        assert_eq!(pool.idle_bytes(), 0);
    }

    #[test]
    fn few_are_kept_of_the_largest() {
        let pool = ChunkPool::new(1 << 30);
        for (size, kept) in [(2 << 20, 5), (4 << 20, FEW), (8 << 20, FEW)] {
            let before = pool.idle_bytes();
            let chunks: Vec<_> = (0..5).map(|_| pool.get(size)).collect();
            let each = chunks[0].capacity();
            drop(chunks);
            assert_eq!(pool.idle_bytes() - before, kept * each, "{size}");
        }
    }

    #[test]
    fn only_what_is_idle_is_warm() {
        let pool = ChunkPool::default();
        assert!(pool.warm(2 << 20).is_none());
        drop(pool.get(2 << 20));
        assert!(pool.warm(1 << 20).is_none(), "another size");
        assert!(pool.warm(9 << 20).is_none(), "none of the pool's sizes");
        let chunk = pool.warm(2 << 20).unwrap();
        assert_eq!(pool.idle_bytes(), 0);
        assert!(pool.warm(2 << 20).is_none());
        drop(chunk);
        assert_eq!(pool.idle_bytes(), (2 << 20) + AROUND);
    }

    #[test]
    fn a_chunk_that_grows_keeps_its_bytes_and_its_pool() {
        let pool = ChunkPool::new(1 << 30);
        let mut chunk = pool.get(1 << 10);
        chunk.push(b"abc");
        for to in [0, 1 << 10, 70 << 10, 5 << 20, (8 << 20) + AROUND] {
            chunk.grow(to);
            assert!(chunk.capacity() >= to && chunk.as_ref() == b"abc");
        }
        let last = chunk.capacity();
        assert_eq!(last, CLASSES[CLASSES.len() - 1]);
        drop(chunk);
        assert_eq!(pool.idle_bytes(), last);
        let mut chunk = pool.get(last);
        chunk.grow(20 << 20);
        assert_eq!(chunk.capacity(), 20 << 20, "beyond the pool's sizes it is exact");
        drop(chunk);
        assert_eq!(pool.idle_bytes(), 0);
    }

    proptest::proptest! {
        #[test]
        fn of_a_buffer_at_most_a_third_is_unused(size in (64usize << 10)..(12 << 20)) {
            let unused = ChunkPool::default().get(size).capacity() - size;
            // Of the large ones a third of what the buffer holds beside a response's own bytes.
            proptest::prop_assert!(unused <= (size + unused) / 3 + AROUND, "{unused} for {size}");
        }
    }
}
