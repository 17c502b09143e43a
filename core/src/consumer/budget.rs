//! What a consumer's records take of its memory, wherever they are: in a response that is being read, in the buffer, or
//! in a batch that the application keeps. Batches borrow from the response that they came in, which is one piece of
//! memory: the last of them that is kept keeps all of it. So whole responses are counted, and given back when the last
//! batch of them is gone, on whatever thread that is. What a batch is decompressed into is counted like that, too.
//!
//! What requests in flight may bring is the fetcher's to add.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::record::pool::{self, Chunk};

/// The bytes of one consumer.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    held: AtomicUsize,
    /// Whoever waits is woken once no more than this is held; [`NEVER`]: nobody waits.
    wanted: AtomicUsize,
    wake: Arc<Notify>,
}

/// No number of bytes that are held is less than nothing, and none is so large.
const NEVER: usize = usize::MAX;

impl Budget {
    /// `wake`: who waits for room.
    pub(crate) fn new(limit: usize, wake: &Arc<Notify>) -> Arc<Self> {
        let (held, wanted) = (AtomicUsize::new(0), AtomicUsize::new(NEVER));
        Arc::new(Self { limit, held, wanted, wake: Arc::clone(wake) })
    }

    /// Bytes that are held now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// How many more there may be. More may be held than that, too: a batch that is larger than was asked for, and what
    /// somebody decompresses, come all the same.
    pub(crate) fn free(&self) -> usize {
        self.limit.saturating_sub(self.held())
    }

    /// Holds so many bytes until the result is dropped.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.held.fetch_add(bytes, Ordering::SeqCst);
        Charge { budget: Arc::clone(self), bytes: AtomicUsize::new(bytes) }
    }

    /// Wakes once, as soon as so many are free; `None`: not any more.
    pub(crate) fn wake_at(&self, free: Option<usize>) {
        let wanted = free.and_then(|free| self.limit.checked_sub(free)).unwrap_or(NEVER);
        self.wanted.store(wanted, Ordering::SeqCst);
        self.look(self.held());
    }

    /// In one order with [`Self::wake_at`]: either it sees what is given back, or whoever gives back sees what is wanted.
    fn look(&self, held: usize) {
        let wanted = self.wanted.load(Ordering::SeqCst);
        let is_there = wanted != NEVER && held <= wanted;
        // Another one may have done it.
        let exchange =
            |to| self.wanted.compare_exchange(wanted, to, Ordering::SeqCst, Ordering::SeqCst);
        if is_there && exchange(NEVER).is_ok() {
            self.wake.notify_one();
        }
    }

    /// The same bytes, which hold `charge` for as long as any of them is kept.
    pub(crate) fn pin(bytes: Bytes, charge: &Arc<Charge>) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(Pinned { bytes, _charge: Arc::clone(charge) })
    }

    /// A buffer of records, which is held for as long as any of them is kept.
    pub(crate) fn pin_chunk(self: &Arc<Self>, chunk: Chunk) -> Bytes {
        let charge = self.charge(chunk.capacity());
        Bytes::from_owner(Filled { chunk, _charge: charge })
    }

    /// A response with so many bytes of records, which came in one buffer.
    pub(crate) fn response(self: &Arc<Self>, records: usize) -> Arc<Charge> {
        Arc::new(self.charge(pool::taken_for(records)))
    }
}

/// Bytes that are held until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Charge {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Holds so many more.
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.held.fetch_add(bytes, Ordering::SeqCst);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        let before = self.budget.held.fetch_sub(bytes, Ordering::SeqCst);
        self.budget.look(before - bytes);
    }
}

/// Fields are dropped in this order: what is given back is free by then.
struct Pinned {
    bytes: Bytes,
    _charge: Arc<Charge>,
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

struct Filled {
    chunk: Chunk,
    _charge: Charge,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.chunk.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: usize) -> (Arc<Budget>, Arc<Notify>) {
        let wake = Arc::new(Notify::new());
        (Budget::new(limit, &wake), wake)
    }

    fn is_woken(wake: &Notify) -> bool {
        let notified = std::pin::pin!(wake.notified());
        notified.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    /// However small the part of it is that somebody keeps.
    #[test]
    fn a_response_is_held_by_the_last_of_its_batches() {
        let (budget, _) = budget(100);
        let charge = Arc::new(budget.charge(80));
        let frame = Bytes::from(vec![7; 80]);
        let parts = [frame.slice(..1), frame.slice(1..)].map(|part| Budget::pin(part, &charge));
        drop(charge);
        let [kept, rest] = parts;
        drop(rest);
        assert_eq!((budget.held(), budget.free(), &kept[..]), (80, 20, &[7][..]));
        let slice = kept.slice(..1);
        drop(kept);
        assert_eq!(budget.held(), 80, "a part of a part");
        let charge = Arc::new(budget.charge(5));
        charge.add(2);
        assert_eq!((charge.bytes(), budget.held()), (7, 87));
        drop((slice, charge));
        assert_eq!((budget.held(), budget.free()), (0, 100));
    }

    #[test]
    fn what_is_decompressed_is_held_with_its_whole_buffer() {
        let (budget, _) = budget(100);
        let mut chunk = pool::ChunkPool::default().get(10);
        chunk.push(b"abc");
        let capacity = chunk.capacity();
        let bytes = budget.pin_chunk(chunk);
        assert_eq!((budget.held(), budget.free(), &bytes[..]), (capacity, 0, &b"abc"[..]));
        drop(bytes);
        assert_eq!(budget.free(), 100);
    }

    #[test]
    fn who_waits_for_room_is_woken_once() {
        let (budget, wake) = budget(100);
        let [a, b, c] = [50, 30, 20].map(|bytes| budget.charge(bytes));
        budget.wake_at(Some(50));
        drop(c);
        assert!(!is_woken(&wake), "20 are free");
        drop(b);
        assert!(is_woken(&wake) && !is_woken(&wake));
        drop(a);
        assert!(!is_woken(&wake), "nobody waits");
        budget.wake_at(Some(100));
        assert!(is_woken(&wake), "it is there already");
        let d = budget.charge(1);
        budget.wake_at(Some(100));
        budget.wake_at(None);
        drop(d);
        assert!(!is_woken(&wake), "not any more");
        budget.wake_at(Some(101));
        assert!(!is_woken(&wake), "there will never be so much");
    }
}
