//! The buffer alone: what is counted comes back, who waits for room or for records is woken, and what was
//! asked for before a seek is not what is wanted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use bytes::BytesMut;

use super::*;
use crate::cluster::{Handle, by_hand};
use crate::record::builder::{BatchBuilder, HeaderList};
use crate::record::pool::ChunkPool;
use crate::record::{Compression, reader};

/// Bytes of the records of one batch of [`fetched`].
const SIZE: usize = 1_000;

struct Set {
    buffer: Buffer,
    pool: Handle,
}

fn set(buffer_memory: usize, max_partition_bytes: usize) -> Set {
    let consumer = ConsumerConfig { buffer_memory, max_partition_bytes, ..Default::default() };
    Set { buffer: Buffer::new(consumer), pool: by_hand::client() }
}

fn key(partition: i32) -> Key {
    (Arc::from("t"), partition)
}

/// A batch of one record at this offset.
fn fetched(partition: i32, offset: i64, generation: u64) -> FetchedBatch {
    let mut builder = BatchBuilder::new(ChunkPool::default());
    builder.append(None, Some(&[7; SIZE - 9]), HeaderList::NONE, 0).unwrap();
    assert_eq!(builder.len_bytes(), SIZE);
    let sealed = builder.seal(Compression::None).unwrap();
    let mut bytes = BytesMut::from(&sealed.header(-1, -1, -1)[..]);
    sealed.segments().iter().for_each(|segment| bytes.extend_from_slice(segment));
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    let raw = reader::split(bytes.freeze()).next().unwrap().unwrap();
    FetchedBatch { key: key(partition), raw, from: 0, high_watermark: 100, generation }
}

impl Set {
    fn push(&self, batches: impl IntoIterator<Item = FetchedBatch>) {
        self.buffer.push(batches);
    }

    fn take(&self) -> Option<Result<Batch>> {
        self.buffer.take(&self.pool)
    }

    fn offsets(&self) -> Vec<i64> {
        std::iter::from_fn(|| self.take()).map(|next| next.unwrap().base_offset()).collect()
    }

    /// Whether the fetcher was woken since the last time.
    async fn is_woken(&self) -> bool {
        tokio::select! {
            biased;
            () = self.buffer.wake.notified() => true,
            () = tokio::task::yield_now() => false,
        }
    }
}

fn moved(to: i64, generation: u64) -> Vec<Moved> {
    vec![Moved { key: key(0), next: Some(to), generation }]
}

fn error() -> Error {
    Error::new(ErrorKind::Truncated, "cut")
}

#[tokio::test]
async fn every_byte_that_is_taken_or_dropped_is_room_again() {
    let set = set(10 * SIZE, SIZE);
    (0..2).for_each(|p| set.buffer.add_partition(&key(p)));
    set.push((0..4).map(|at| fetched(at % 2, at.into(), 0)));
    assert_eq!(set.buffer.room(), 6 * SIZE);
    set.take().unwrap().unwrap();
    assert_eq!(set.buffer.room(), 7 * SIZE);
    // What a seek drops.
    set.buffer.seek("t", 1, Start::Earliest).unwrap();
    assert_eq!(set.buffer.room(), 9 * SIZE);
    assert_eq!(set.offsets(), [2]);
    assert_eq!(set.buffer.room(), 10 * SIZE);
    // What belongs to nobody any more is handed out, and counted back as well.
    set.push([fetched(0, 9, 0)]);
    set.buffer.remove_partition(&key(0));
    assert_eq!(set.offsets(), [9]);
    assert_eq!(set.buffer.room(), 10 * SIZE);
    set.push([fetched(1, 0, 1), fetched(1, 1, 1)]);
    assert_eq!(set.buffer.room(), 8 * SIZE);
    set.buffer.close();
    assert_eq!(set.buffer.room(), 10 * SIZE);
    set.push([fetched(1, 2, 1)]);
    assert_eq!((set.buffer.room(), set.take().is_none()), (10 * SIZE, true), "it is closed");
}

/// A partition has its share of the buffer, and at least what one fetch may bring of it.
#[tokio::test]
async fn a_partition_is_full_at_its_share() {
    let set = set(8 * SIZE, SIZE);
    (0..4).for_each(|p| set.buffer.add_partition(&key(p)));
    assert!(!set.buffer.is_full(&key(0)) && !set.buffer.is_full(&key(9)));
    set.push([fetched(0, 0, 0)]);
    assert!(!set.buffer.is_full(&key(0)));
    set.push([fetched(0, 1, 0), fetched(1, 0, 0)]);
    assert!(set.buffer.is_full(&key(0)) && !set.buffer.is_full(&key(1)));
    set.take().unwrap().unwrap();
    assert!(!set.buffer.is_full(&key(0)));
    set.push([fetched(0, 2, 0)]);
    set.buffer.seek("t", 0, Start::Earliest).unwrap();
    assert!(!set.buffer.is_full(&key(0)), "nothing of it is there");

    let set = self::set(8 * SIZE, 3 * SIZE);
    (0..8).for_each(|p| set.buffer.add_partition(&key(p)));
    set.push((0..2).map(|at| fetched(0, at, 0)));
    assert!(!set.buffer.is_full(&key(0)));
    set.push([fetched(0, 2, 0)]);
    assert!(set.buffer.is_full(&key(0)));
}

#[tokio::test]
async fn the_fetcher_is_woken_when_there_is_room_again() {
    let set = set(4 * SIZE, SIZE);
    (0..2).for_each(|p| set.buffer.add_partition(&key(p)));
    set.push((0..4).map(|at| fetched(at / 3, at.into(), 0)));
    assert!(!set.is_woken().await);
    set.take().unwrap().unwrap();
    assert!(!set.is_woken().await, "more than half is full");
    set.take().unwrap().unwrap();
    assert!(set.is_woken().await, "half is free");
    set.take().unwrap().unwrap();
    assert!(!set.is_woken().await, "nobody was left out");
    set.buffer.seek("t", 0, Start::Latest).unwrap();
    assert!(set.is_woken().await, "there is somewhere else to go on");
    set.buffer.close();
    assert!(set.is_woken().await);
}

/// One that has its share is left out of requests: it is asked for again before nothing of it is left.
#[tokio::test]
async fn the_fetcher_is_woken_when_half_of_a_share_is_free() {
    let set = set(16 * SIZE, SIZE);
    (0..2).for_each(|p| set.buffer.add_partition(&key(p)));
    set.push((0..8).map(|at| fetched(0, at, 0)));
    assert!(set.buffer.is_full(&key(0)) && !set.buffer.was_taken(&key(0)));
    for left in (0..8).rev() {
        set.take().unwrap().unwrap();
        assert_eq!(set.is_woken().await, left == 4, "{left} left");
        assert!(set.buffer.was_taken(&key(0)) && !set.buffer.was_taken(&key(0)));
    }
    assert!(!set.buffer.was_taken(&key(1)));
}

#[tokio::test]
async fn the_last_seek_counts_and_what_was_asked_for_before_it_does_not() {
    let set = set(100 * SIZE, SIZE);
    set.buffer.add_partition(&key(0));
    set.push([fetched(0, 5, 0)]);
    for _ in 0..3 {
        set.buffer.seek("t", 0, Start::Offset(40)).unwrap();
    }
    set.buffer.seek("t", 0, Start::Offset(50)).unwrap();
    assert_eq!(set.buffer.position("t", 0), Some(50));
    set.push([fetched(0, 6, 0), fetched(0, 40, 3)]);
    assert!(set.take().is_none());
    let seeks = set.buffer.take_seeks();
    let asked: Vec<_> = seeks.iter().map(|seek| (seek.to, seek.generation)).collect();
    assert_eq!(asked, [(Start::Offset(50), 4)]);
    assert!(set.buffer.take_seeks().is_empty());
    set.push([fetched(0, 50, 4)]);
    assert_eq!(set.offsets(), [50]);
    assert_eq!(set.buffer.position("t", 0), Some(51));
    set.buffer.seek("t", 0, Start::Latest).unwrap();
    assert_eq!(set.buffer.position("t", 0), None, "it is not known yet");
    // News of the place that was left.
    set.buffer.moved(error(), moved(7, 4));
    assert!(set.take().unwrap().is_err());
    assert_eq!(set.buffer.position("t", 0), None);
    set.buffer.moved(error(), moved(8, 5));
    assert!(set.take().unwrap().is_err());
    assert_eq!(set.buffer.position("t", 0), Some(8));

    let kind = |result: Result<()>| result.unwrap_err().kind();
    let seek = |p, to| kind(set.buffer.seek("t", p, to));
    assert_eq!(seek(0, Start::Offset(-1)), ErrorKind::InvalidArgument);
    assert_eq!(seek(0, Start::Timestamp(-1)), ErrorKind::InvalidArgument);
    assert_eq!(seek(1, Start::Earliest), ErrorKind::UnknownPartition);
    set.buffer.remove_partition(&key(0));
    assert!(set.buffer.take_seeks().is_empty(), "of a partition that is gone");
    set.buffer.close();
    assert_eq!(seek(0, Start::Earliest), ErrorKind::Closed);
}

/// Another cluster: what is there was read and is handed out, what is on its way is nobody's.
#[tokio::test]
async fn anew_nothing_on_its_way_is_believed() {
    let set = set(100 * SIZE, SIZE);
    set.buffer.add_partition(&key(0));
    set.push([fetched(0, 5, 0)]);
    set.buffer.seek("t", 0, Start::Offset(5)).unwrap();
    set.push([fetched(0, 5, 1)]);
    let generations = set.buffer.begin_anew();
    assert_eq!(generations[&key(0)], 2);
    assert_eq!(set.buffer.position("t", 0), None);
    assert!(set.buffer.take_seeks().is_empty());
    set.push([fetched(0, 6, 1)]);
    assert_eq!(set.offsets(), [5]);
    assert_eq!(set.buffer.position("t", 0), None, "that is an offset of the old one");
}

#[tokio::test]
async fn errors_that_nobody_takes_have_a_bound_and_the_last_word_is_told() {
    let set = set(100 * SIZE, SIZE);
    for _ in 0..MAX_ERRORS + 50 {
        set.buffer.fail(error());
    }
    for _ in 0..10 {
        assert!(set.take().unwrap().is_err());
    }
    // As many as were taken have room again.
    for _ in 0..20 {
        set.buffer.fail(error());
    }
    let told = std::iter::from_fn(|| set.take()).count();
    assert_eq!(told, MAX_ERRORS);
    set.buffer.end(error());
    let mut cx = Context::from_waker(Waker::noop());
    let mut next = || set.buffer.poll_take(&set.pool, &mut cx);
    assert!(matches!(next(), Poll::Ready(Some(Err(_)))));
    assert!(matches!(next(), Poll::Ready(None)));
    assert!(matches!(next(), Poll::Ready(None)));
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker of the application's");
    }
}

/// It runs on the task of the fetcher, which reads on.
#[tokio::test]
async fn a_waker_that_panics_ends_nothing_else() {
    let set = set(100 * SIZE, SIZE);
    set.buffer.add_partition(&key(0));
    let waker = Waker::from(Arc::new(Panics));
    let mut cx = Context::from_waker(&waker);
    assert!(set.buffer.poll_take(&set.pool, &mut cx).is_pending());
    set.push([fetched(0, 0, 0)]);
    assert_eq!(set.offsets(), [0]);
}

/// Whoever asked last is woken, once, by records, by an error, and by the end.
#[tokio::test]
async fn who_asked_last_is_woken() {
    type Event = fn(&Set);
    let events: [Event; 4] = [
        |set| set.push([fetched(0, 0, 0)]),
        |set| set.buffer.fail(error()),
        |set| set.buffer.end(error()),
        |set| set.buffer.close(),
    ];
    for (i, event) in events.into_iter().enumerate() {
        let set = set(100 * SIZE, SIZE);
        set.buffer.add_partition(&key(0));
        let counts: [Arc<Count>; 2] = Default::default();
        for count in &counts {
            let waker = Waker::from(Arc::clone(count));
            for _ in 0..2 {
                let mut cx = Context::from_waker(&waker);
                assert!(set.buffer.poll_take(&set.pool, &mut cx).is_pending());
            }
        }
        // Of a partition that is not read: nothing to wake anybody for.
        set.push([fetched(1, 0, 0)]);
        let woken = || counts.each_ref().map(|count| count.0.load(Ordering::Relaxed));
        assert_eq!(woken(), [0, 0]);
        event(&set);
        event(&set);
        assert_eq!(woken(), [0, 1], "event {i}");
    }
}
