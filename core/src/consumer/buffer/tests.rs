//! The buffer alone: what is counted comes back, who waits for room or for records is woken, what was asked for
//! before a seek is not what is wanted, and commands hold as they return.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::BytesMut;

use super::*;
use crate::cluster::{Handle, by_hand};
use crate::consumer::TopicPartition;
use crate::consumer::batch::Batch;
use crate::consumer::budget::Charge;
use crate::consumer::claim::Standing;
use crate::error::{ErrorKind, Result};
use crate::record::builder::{BatchBuilder, HeaderList};
use crate::record::pool::ChunkPool;
use crate::record::{Compression, reader};

/// Bytes of the records of one batch of [`fetched`].
const SIZE: usize = 1_000;

struct Set {
    buffer: Buffer,
    pool: Handle,
    /// Of the partitions 0, 1 ... of topic `t`.
    slots: Vec<SlotId>,
}

/// One that reads so many partitions.
fn set(partitions: i32, buffer_memory: usize, max_partition_bytes: usize) -> Set {
    let consumer = ConsumerConfig { buffer_memory, max_partition_bytes, ..Default::default() };
    let buffer = Buffer::new(consumer);
    let slots = (0..partitions).map(|p| buffer.add(&key(p)).0).collect();
    Set { buffer, pool: by_hand::client(), slots }
}

fn key(partition: i32) -> Key {
    (Arc::from("t"), partition)
}

/// A batch of one record at this offset, whose records have so many bytes.
pub(super) fn fetched(offset: i64, size: usize) -> Fetched {
    let raw = reader::split(batch(offset, size)).next().unwrap().unwrap();
    assert_eq!(raw.payload().len(), size);
    Fetched { raw, from: 0, frame: size }
}

/// The same as it comes from a broker.
pub(in crate::consumer) fn one_record(offset: i64) -> bytes::Bytes {
    batch(offset, SIZE)
}

fn batch(offset: i64, size: usize) -> bytes::Bytes {
    let build = |value: &[u8]| {
        let mut builder = BatchBuilder::new(ChunkPool::default());
        builder.append(None, Some(value), HeaderList::NONE, 0).unwrap();
        builder
    };
    let mut value = vec![7; size];
    // What is around the value, which is less around a shorter one.
    for _ in 0..2 {
        let around = build(&value).len_bytes() - value.len();
        value.resize(size - around, 7);
    }
    let sealed = build(&value).seal(Compression::None).unwrap();
    let mut bytes = BytesMut::from(&sealed.header(-1, -1, -1)[..]);
    sealed.segments().iter().for_each(|segment| bytes.extend_from_slice(segment));
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes.freeze()
}

impl Set {
    fn incarnation(&self, partition: usize) -> u64 {
        self.buffer.lock().shelves.get(self.slots[partition]).unwrap().incarnation
    }

    /// Batches of a partition, at these offsets, as they are wanted now.
    fn push(&self, partition: usize, offsets: impl IntoIterator<Item = i64>) {
        self.push_as(self.incarnation(partition), partition, offsets);
    }

    fn push_as(&self, incarnation: u64, partition: usize, offsets: impl IntoIterator<Item = i64>) {
        let batches: Vec<_> = offsets.into_iter().map(|at| self.response(at)).collect();
        let next = batches.last().map_or(0, |last| last.raw.last_offset + 1);
        self.buffer.push(self.slots[partition], incarnation, batches, ((next, 0), 100));
    }

    /// A batch that is a response of its own.
    fn response(&self, offset: i64) -> Fetched {
        self.part(offset, SIZE, &Arc::new(self.buffer.budget.charge(SIZE)))
    }

    fn part(&self, offset: i64, size: usize, of: &Arc<Charge>) -> Fetched {
        let bytes = Budget::pin(batch(offset, size), of);
        let raw = reader::split(bytes).next().unwrap().unwrap();
        Fetched { raw, from: 0, frame: of.bytes() }
    }

    fn moved(&self, incarnation: u64, then: Then) {
        self.buffer.tell(error(), &[(self.slots[0], incarnation)], then);
    }

    fn position(&self, partition: i32) -> Option<i64> {
        self.buffer.position("t", partition)
    }

    /// Bytes that may come.
    fn room(&self) -> usize {
        self.buffer.survey(&[]).free
    }

    fn is_dry(&self) -> bool {
        self.buffer.lock().is_dry()
    }

    /// What has changed since the last time: bytes that are queued, and that were taken, by partition.
    fn amounts(&self) -> Vec<(usize, usize, usize)> {
        let place = |slot| self.slots.iter().position(|known| *known == slot).unwrap();
        let amounts = self.buffer.survey(&[]).amounts.into_iter();
        let mut amounts: Vec<_> =
            amounts.map(|amount| (place(amount.slot), amount.bytes, amount.drained)).collect();
        amounts.sort_unstable();
        amounts
    }

    /// The fetcher waits until so many bytes of broker 1's partitions are taken, or so many are free.
    fn mark(&self, taken: Option<usize>, free: Option<usize>) {
        let taken = taken.map(|bytes| (1, bytes)).into_iter().collect();
        self.buffer.mark(Marks { taken, free, dry: !self.is_dry() });
    }

    fn take(&self) -> Option<Result<Batch>> {
        self.buffer.take(&self.pool)
    }

    fn poll(&self, who: u64, waker: &Waker) -> Poll<Option<Result<Batch>>> {
        self.buffer.poll_take_until(who, &[], &self.pool, &mut Context::from_waker(waker))
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

fn error() -> Error {
    Error::new(ErrorKind::Truncated, "cut")
}

#[tokio::test]
async fn every_byte_that_is_taken_or_dropped_is_room_again() {
    let set = set(2, 10 * SIZE, SIZE);
    (0..4).for_each(|at| set.push(at as usize % 2, [at]));
    assert_eq!(set.room(), 6 * SIZE);
    set.take().unwrap().unwrap();
    assert_eq!(set.room(), 7 * SIZE);
    // What a seek drops.
    set.buffer.seek("t", 1, Start::Earliest).unwrap();
    assert_eq!(set.room(), 9 * SIZE);
    assert_eq!(set.offsets(), [2]);
    assert_eq!(set.room(), 10 * SIZE);
    // What belongs to nobody any more is handed out, and counted back as well.
    set.push(0, [9]);
    set.buffer.retire(set.slots[0]);
    assert_eq!(set.offsets(), [9]);
    assert_eq!(set.room(), 10 * SIZE);
    // What is not wanted is not.
    set.push(1, [0, 1]);
    assert_eq!(set.room(), 8 * SIZE);
    let incarnation = set.incarnation(1);
    set.buffer.unassign(&[("t", 1)]).unwrap();
    set.push_as(incarnation, 1, [2]);
    assert_eq!((set.room(), set.offsets()), (10 * SIZE, vec![]));

    let set = self::set(1, 10 * SIZE, SIZE);
    set.push(0, [0, 1]);
    assert_eq!(set.room(), 8 * SIZE);
    set.buffer.close();
    assert_eq!(set.room(), 10 * SIZE);
    set.push(0, [2]);
    assert_eq!((set.room(), set.take().is_none()), (10 * SIZE, true), "it is closed");
}

#[tokio::test]
async fn the_fetcher_sees_what_has_changed() {
    let set = set(3, 100 * SIZE, SIZE);
    assert_eq!(set.amounts(), []);
    set.push(0, [0, 1]);
    set.push(2, [0]);
    assert_eq!(set.amounts(), [(0, 2 * SIZE, 0), (2, SIZE, 0)]);
    assert_eq!(set.amounts(), [], "once");
    (0..3).for_each(|_| _ = set.take().unwrap().unwrap());
    set.push(1, []);
    assert_eq!(set.amounts(), [(0, 0, 2 * SIZE), (2, 0, SIZE)]);
    // What a seek drops was not taken.
    set.push(0, [2, 3]);
    set.take().unwrap().unwrap();
    set.buffer.seek("t", 0, Start::Latest).unwrap();
    assert_eq!(set.amounts(), [(0, 0, SIZE)]);
    // News takes no memory.
    set.moved(set.incarnation(0), Then::Stays);
    assert!(set.take().unwrap().is_err());
    assert_eq!(set.amounts(), []);
}

/// One that is large counts for a while, and not for ever.
#[tokio::test]
async fn the_largest_batch_is_one_of_late() {
    let set = set(1, 100 * SIZE, SIZE);
    let push = |size| {
        let batch = vec![fetched(0, size)];
        set.buffer.push(set.slots[0], set.incarnation(0), batch, ((1, 0), 100));
        set.buffer.survey(&[]).amounts[0].largest
    };
    assert_eq!((push(SIZE), push(16 * SIZE), push(SIZE)), (SIZE, 16 * SIZE, 15 * SIZE));
    (0..100).for_each(|_| _ = push(SIZE));
    assert_eq!(push(SIZE), SIZE);
}

#[tokio::test]
async fn the_fetcher_is_woken_when_as_much_is_taken_as_it_waits_for() {
    let set = set(3, 100 * SIZE, SIZE);
    let of = [(set.slots[0], 1), (set.slots[1], 1), (set.slots[2], 2)];
    (0..3).for_each(|partition| set.push(partition, 0..8));
    set.buffer.survey(&of);
    set.mark(Some(4 * SIZE), None);
    let mut taken = [0; 3];
    for _ in 0..24 {
        let batch = set.take().unwrap().unwrap();
        taken[batch.partition() as usize] += 1;
        let reached = taken[0] + taken[1] == 4 && batch.partition() < 2;
        assert_eq!(set.is_woken().await, reached, "{taken:?}");
    }
    // What was taken between the look and the mark counts, and what was taken before does not.
    set.push(0, 0..6);
    set.take().unwrap().unwrap();
    set.buffer.survey(&[]);
    (0..2).for_each(|_| _ = set.take().unwrap().unwrap());
    set.mark(Some(3 * SIZE), None);
    assert!(!set.is_woken().await);
    set.take().unwrap().unwrap();
    assert!(set.is_woken().await);
    set.buffer.survey(&[]);
    (0..2).for_each(|_| _ = set.take().unwrap().unwrap());
    set.mark(Some(2 * SIZE), None);
    assert!(set.is_woken().await, "at once");
    // A mark that another one has replaced.
    set.push(0, 0..2);
    set.mark(Some(SIZE), None);
    set.is_woken().await;
    set.mark(None, None);
    set.take().unwrap().unwrap();
    assert!(!set.is_woken().await);
}

#[tokio::test]
async fn the_fetcher_is_woken_when_there_is_room_again() {
    let set = set(2, 4 * SIZE, SIZE);
    set.push(0, 0..3);
    set.push(1, [3]);
    set.mark(None, Some(2 * SIZE));
    assert!(!set.is_woken().await);
    set.take().unwrap().unwrap();
    assert!(!set.is_woken().await, "not enough");
    set.take().unwrap().unwrap();
    assert!(set.is_woken().await, "half is free");
    set.take().unwrap().unwrap();
    assert!(!set.is_woken().await, "it does not wait");
    set.mark(None, Some(3 * SIZE));
    assert!(set.is_woken().await, "it is there already");
    // However much it waits for: with nothing to take nothing more will be free.
    set.mark(None, Some(100 * SIZE));
    assert!(!set.is_woken().await);
    set.take().unwrap().unwrap();
    assert!(set.is_woken().await && set.is_dry());
    set.buffer.seek("t", 0, Start::Latest).unwrap();
    assert!(set.is_woken().await, "there is somewhere else to go on");
    type Act = fn(&Set) -> Result<()>;
    let acts: [Act; 4] = [
        |set| set.buffer.pause(&[("t", 0)], true),
        |set| set.buffer.pause(&[("t", 0)], false),
        |set| set.buffer.assign(vec![(key(7), Start::Earliest)]),
        |set| set.buffer.unassign(&[("t", 7)]),
    ];
    for act in acts {
        act(&set).unwrap();
        assert!(set.is_woken().await);
    }
    set.buffer.close();
    assert!(set.is_woken().await);
}

#[tokio::test]
async fn the_last_seek_counts_and_what_was_asked_for_before_it_does_not() {
    let set = set(1, 100 * SIZE, SIZE);
    let first = set.incarnation(0);
    set.push(0, [5]);
    for _ in 0..3 {
        set.buffer.seek("t", 0, Start::Offset(40)).unwrap();
    }
    let second = set.incarnation(0);
    set.buffer.seek("t", 0, Start::Offset(50)).unwrap();
    assert_eq!(set.position(0), Some(50));
    set.push_as(first, 0, [6]);
    set.push_as(second, 0, [40]);
    assert!(set.take().is_none());
    let (slot, incarnation) = (set.slots[0], set.incarnation(0));
    let seek = Some(Start::Offset(50));
    let commands = [Command::Change { slot, incarnation, seek, paused: false }];
    assert_eq!(set.buffer.take_commands(), commands);
    assert!(set.buffer.take_commands().is_empty());
    set.push(0, [50]);
    assert_eq!(set.offsets(), [50]);
    assert_eq!(set.position(0), Some(51));
    let before = set.incarnation(0);
    set.buffer.seek("t", 0, Start::Latest).unwrap();
    assert_eq!(set.position(0), None, "it is not known yet");
    // News of the place that was left.
    set.moved(before, Then::At(7, 0));
    assert!(set.take().unwrap().is_err());
    assert_eq!(set.position(0), None);
    set.buffer.starts(slot, before, (7, 0));
    assert_eq!(set.position(0), None);
    set.moved(set.incarnation(0), Then::At(8, 0));
    assert!(set.take().unwrap().is_err());
    assert_eq!(set.position(0), Some(8));

    let kind = |result: Result<()>| result.unwrap_err().kind();
    let seek = |p, to| kind(set.buffer.seek("t", p, to));
    assert_eq!(seek(0, Start::Offset(-1)), ErrorKind::InvalidArgument);
    assert_eq!(seek(0, Start::Timestamp(-1)), ErrorKind::InvalidArgument);
    assert_eq!(seek(1, Start::Earliest), ErrorKind::UnknownPartition);
    set.buffer.retire(slot);
    assert!(set.buffer.take_commands().is_empty(), "of a partition that is gone");
    set.buffer.close();
    assert_eq!(seek(0, Start::Earliest), ErrorKind::Closed);
}

/// Another cluster: what is there was read and is handed out, what is on its way is nobody's.
#[tokio::test]
async fn anew_nothing_on_its_way_is_believed() {
    let set = set(1, 100 * SIZE, SIZE);
    set.push(0, [5]);
    set.buffer.seek("t", 0, Start::Offset(5)).unwrap();
    set.push(0, [5]);
    let before = set.incarnation(0);
    let renewed = set.buffer.begin_anew();
    assert_eq!(renewed, [(set.slots[0], set.incarnation(0))]);
    assert!(set.incarnation(0) > before);
    assert_eq!(set.position(0), None);
    let seeks = |command: &Command| matches!(command, Command::Change { seek: Some(_), .. });
    assert!(!set.buffer.take_commands().iter().any(seeks));
    set.push_as(before, 0, [6]);
    assert_eq!(set.offsets(), [5]);
    assert_eq!(set.position(0), None, "that is an offset of the old one");
}

/// A topic made anew: where the application wants to go on counts there, too.
#[tokio::test]
async fn a_seek_that_nobody_heard_of_outlives_its_topic() {
    let set = set(1, 100 * SIZE, SIZE);
    set.push(0, [5]);
    let incarnation = set.buffer.renew(set.slots[0]).unwrap();
    assert_eq!((set.incarnation(0), set.position(0)), (incarnation, None));
    set.buffer.seek("t", 0, Start::Offset(9)).unwrap();
    set.buffer.renew(set.slots[0]).unwrap();
    assert_eq!(set.position(0), Some(9));
    assert_eq!(set.buffer.take_commands().len(), 1);
    set.buffer.unassign(&[("t", 0)]).unwrap();
    assert_eq!(set.buffer.renew(set.slots[0]), None);
}

#[tokio::test]
async fn a_command_holds_as_it_returns() {
    let set = set(2, 100 * SIZE, SIZE);
    set.push(0, [1, 2]);
    set.push(1, [3]);
    let named = |partition| TopicPartition { topic: "t".into(), partition };
    // All or none.
    let refused = set.buffer.pause(&[("t", 0), ("t", 7)], true).unwrap_err();
    assert_eq!((refused.kind(), set.buffer.paused()), (ErrorKind::UnknownPartition, vec![]));
    set.buffer.pause(&[("t", 0), ("t", 0)], true).unwrap();
    assert_eq!(set.buffer.paused(), [named(0)]);
    assert_eq!(set.offsets(), [3]);
    // A seek while it is paused: from there on, when it is resumed.
    set.buffer.seek("t", 0, Start::Offset(40)).unwrap();
    set.push(0, [40]);
    assert!(set.take().is_none());
    let (slot, incarnation) = (set.slots[0], set.incarnation(0));
    let seek = Some(Start::Offset(40));
    let commands = [Command::Change { slot, incarnation, seek, paused: true }];
    assert_eq!(set.buffer.take_commands(), commands);
    set.buffer.pause(&[("t", 0)], false).unwrap();
    assert_eq!(set.offsets(), [40]);
    let commands = [Command::Change { slot, incarnation, seek: None, paused: false }];
    assert_eq!(set.buffer.take_commands(), commands);
    // Assigned and left again, all or none.
    set.buffer.assign(vec![(key(5), Start::Offset(8)), (key(1), Start::Offset(9))]).unwrap();
    assert_eq!((set.position(5), set.position(1)), (Some(8), Some(9)));
    assert!(set.buffer.unassign(&[("t", 5), ("t", 6)]).is_err());
    set.push(1, [9]);
    set.buffer.unassign(&[("t", 1), ("t", 5), ("t", 1)]).unwrap();
    assert_eq!((set.buffer.assignment(), set.offsets()), (vec![named(0)], vec![]));
    let commands = set.buffer.take_commands();
    let kinds = commands.iter().map(|command| match command {
        Command::Assign { key, .. } => ("assign", key.1),
        Command::Unassign { key, .. } => ("unassign", key.1),
        Command::Change { .. } => ("change", -1),
    });
    // That of a seek in what is left by now is none.
    assert_eq!(kinds.collect::<Vec<_>>(), [("assign", 5), ("unassign", 1), ("unassign", 5)]);
    set.buffer.close();
    for refused in [
        set.buffer.pause(&[("t", 0)], true),
        set.buffer.assign(vec![(key(5), Start::Earliest)]),
        set.buffer.unassign(&[("t", 0)]),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[tokio::test]
async fn lag_is_known_without_asking() {
    let set = set(2, 100 * SIZE, SIZE);
    let lag = |partition| set.buffer.lag("t", partition);
    assert_eq!((lag(0), lag(7)), (None, None));
    set.buffer.starts(set.slots[0], set.incarnation(0), (10, 0));
    assert_eq!((set.position(0), lag(0)), (Some(10), None), "where it ends is not known");
    set.push(0, [10, 11]);
    assert_eq!(lag(0), Some(90));
    set.take();
    assert_eq!(lag(0), Some(89));
    // An end that is told while there is nothing else, and one that the position is beyond.
    set.buffer.push(set.slots[0], set.incarnation(0), vec![], ((12, 0), 500));
    assert_eq!(lag(0), Some(489));
    set.take();
    set.buffer.push(set.slots[0], set.incarnation(0), vec![], ((12, 0), 5));
    assert_eq!(lag(0), Some(0));
    set.buffer.seek("t", 0, Start::Earliest).unwrap();
    assert_eq!(lag(0), None);
}

#[tokio::test]
async fn errors_that_nobody_takes_have_a_bound_and_the_last_word_is_told() {
    let set = set(1, 100 * SIZE, SIZE);
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
    // It comes behind all that is there.
    set.buffer.end(error());
    set.push(0, [0]);
    set.buffer.fail(error());
    let next = || set.poll(0, Waker::noop());
    let kinds = [(); 3].map(|()| matches!(next(), Poll::Ready(Some(Ok(_)))));
    assert_eq!(kinds, [false, true, false]);
    assert!(matches!(next(), Poll::Ready(None)));
    assert!(matches!(next(), Poll::Ready(None)));
}

/// However many errors there are: who reads gets on.
#[tokio::test]
async fn errors_and_batches_take_turns() {
    let set = set(1, 100 * SIZE, SIZE);
    set.push(0, 0..3);
    (0..5).for_each(|_| set.buffer.fail(error()));
    let told: Vec<bool> = std::iter::from_fn(|| set.take()).map(|next| next.is_err()).collect();
    assert_eq!(told, [true, false, true, false, true, false, true, true]);
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

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
    let set = set(1, 100 * SIZE, SIZE);
    assert!(set.poll(0, &Waker::from(Arc::new(Panics))).is_pending());
    set.push(0, [0]);
    assert_eq!(set.offsets(), [0]);
}

/// Whoever asked last is woken, once, by records, by an error, and by the end.
#[tokio::test]
async fn who_asked_last_is_woken() {
    type Event = fn(&Set);
    let events: [Event; 5] = [
        |set| set.push(0, [0]),
        |set| set.buffer.fail(error()),
        |set| set.moved(set.incarnation(0), Then::Stays),
        |set| set.buffer.end(error()),
        |set| set.buffer.close(),
    ];
    for (i, event) in events.into_iter().enumerate() {
        let set = set(2, 100 * SIZE, SIZE);
        let counts: [Arc<Count>; 2] = Default::default();
        for count in &counts {
            let waker = Waker::from(Arc::clone(count));
            for _ in 0..2 {
                assert!(set.poll(0, &waker).is_pending());
            }
        }
        // Of a partition that is not read or is paused, or a position alone: nothing to wake anybody for.
        set.push_as(0, 0, [0]);
        set.buffer.pause(&[("t", 1)], true).unwrap();
        set.push(1, [0]);
        set.buffer.starts(set.slots[0], set.incarnation(0), (0, 0));
        let woken = || counts.each_ref().map(|count| count.get());
        assert_eq!(woken(), [0, 0]);
        event(&set);
        event(&set);
        assert_eq!(woken(), [0, 1], "event {i}");
    }
}

#[tokio::test]
async fn two_who_wait_are_both_woken() {
    let set = set(1, 100 * SIZE, SIZE);
    let counts: [Arc<Count>; 2] = Default::default();
    for (who, count) in counts.iter().enumerate() {
        assert!(set.poll(who as u64, &Waker::from(Arc::clone(count))).is_pending());
    }
    set.buffer.pause(&[("t", 0)], true).unwrap();
    set.push(0, [0]);
    assert_eq!(counts.each_ref().map(|count| count.get()), [0, 0]);
    set.buffer.pause(&[("t", 0)], false).unwrap();
    assert_eq!(counts.each_ref().map(|count| count.get()), [1, 1]);
}

/// The last offsets hold nothing that is handed out.
#[tokio::test]
async fn who_waits_for_a_position_is_woken_when_it_is_passed() {
    let set = set(2, 100 * SIZE, SIZE);
    let ends = [0, 1].map(|partition| (TopicPartition { topic: "t".into(), partition }, 10));
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let poll = || {
        let mut cx = Context::from_waker(&waker);
        set.buffer.poll_take_until(0, &ends, &set.pool, &mut cx)
    };
    let pass = |partition: usize, next| {
        let incarnation = set.incarnation(partition);
        set.buffer.push(set.slots[partition], incarnation, vec![], ((next, 0), 20));
    };
    assert!(poll().is_pending());
    pass(0, 9);
    assert_eq!(count.get(), 1);
    pass(0, 10);
    assert_eq!(count.get(), 1, "it has not looked since");
    assert!(poll().is_pending());
    set.push(1, [8]);
    assert_eq!(count.get(), 2);
    assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
    assert!(poll().is_pending());
    pass(1, 12);
    assert_eq!(count.get(), 3);
    assert!(matches!(poll(), Poll::Ready(None)));
    // Of what is not read nothing is there.
    set.buffer.unassign(&[("t", 0)]).unwrap();
    assert!(poll().is_pending());
}

/// Whoever hands records on one by one asks it before each.
#[tokio::test]
async fn a_batch_in_hand_knows_where_it_stands() {
    let set = set(2, 100 * SIZE, SIZE);
    (0..2).for_each(|partition| set.push(partition, [0]));
    let [first, other] = [0, 1].map(|_| set.take().unwrap().unwrap());
    let (of, count) = ([("t", first.partition())], Arc::new(Count::default()));
    assert!(set.poll(0, &Waker::from(Arc::clone(&count))).is_pending());
    set.buffer.pause(&of, true).unwrap();
    assert_eq!((first.standing(), other.standing()), (Standing::Paused, Standing::Current));
    assert_eq!(count.get(), 0);
    // Its rest may be all there is, and nobody else knows of that.
    set.buffer.pause(&of, false).unwrap();
    assert_eq!((first.standing(), count.get()), (Standing::Current, 1));
    // A topic made anew: what was read of the old one is wanted all the same.
    let slot = set.slots[usize::try_from(first.partition()).unwrap()];
    set.buffer.renew(slot).unwrap();
    assert_eq!(first.standing(), Standing::Current);
    set.buffer.seek("t", first.partition(), Start::Offset(5)).unwrap();
    assert_eq!((first.standing(), other.standing()), (Standing::Left, Standing::Current));
    set.buffer.pause(&of, true).unwrap();
    set.buffer.seek("t", first.partition(), Start::Offset(6)).unwrap();
    set.buffer.pause(&of, false).unwrap();
    assert_eq!(first.standing(), Standing::Left);
    set.buffer.unassign(&[("t", other.partition())]).unwrap();
    assert_eq!(other.standing(), Standing::Left);
}

/// A batch is opened without the lock.
#[tokio::test]
async fn what_is_left_while_it_is_opened_is_not_handed_out() {
    let set = set(1, 100 * SIZE, SIZE);
    set.push(0, [0, 1]);
    let opened = set.buffer.pop(&mut set.buffer.lock(), &set.pool).unwrap();
    assert!(set.buffer.show(&set.pool, opened).is_some());
    let opened = set.buffer.pop(&mut set.buffer.lock(), &set.pool).unwrap();
    set.buffer.seek("t", 0, Start::Offset(1)).unwrap();
    assert!(set.buffer.show(&set.pool, opened).is_none());
    assert_eq!(set.position(0), Some(1));
}

/// Who seeks, or assigns, may be another thread than the one that reads up to an end.
#[tokio::test]
async fn who_waits_for_a_position_is_woken_when_it_is_set() {
    let set = set(1, 100 * SIZE, SIZE);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let poll = |partition| {
        let ends = [(TopicPartition { topic: "t".into(), partition }, 10)];
        let mut cx = Context::from_waker(&waker);
        set.buffer.poll_take_until(0, &ends, &set.pool, &mut cx)
    };
    assert!(poll(0).is_pending());
    set.buffer.seek("t", 0, Start::Offset(10)).unwrap();
    assert_eq!(count.get(), 1);
    assert!(matches!(poll(0), Poll::Ready(None)));
    assert!(poll(1).is_pending());
    set.buffer.assign(vec![(key(1), Start::Offset(10))]).unwrap();
    assert_eq!(count.get(), 2);
    assert!(matches!(poll(1), Poll::Ready(None)));
}

/// What is paused stays for as long as the application likes, and is in nobody's way.
#[tokio::test]
async fn with_nothing_but_what_is_paused_there_is_nothing_to_take() {
    let set = set(2, 4 * SIZE, 4 * SIZE);
    assert!(set.is_dry());
    set.push(0, 0..4);
    assert_eq!((set.room(), set.is_dry()), (0, false));
    set.buffer.pause(&[("t", 0)], true).unwrap();
    assert_eq!((set.room(), set.is_dry()), (0, true));
    set.push(1, [0]);
    assert!(!set.is_dry());
    set.mark(None, Some(4 * SIZE));
    assert_eq!(set.offsets(), [0]);
    assert!(set.is_woken().await && set.is_dry(), "there is nothing to take again");
    set.buffer.pause(&[("t", 0)], false).unwrap();
    assert_eq!((set.offsets().len(), set.room()), (4, 4 * SIZE));
    // However it ends, the books are right.
    for end in 0..3 {
        set.push(0, [end]);
        set.buffer.pause(&[("t", 0)], end % 2 == 0).unwrap();
        set.buffer.seek("t", 0, Start::Earliest).unwrap();
        assert_eq!((set.room(), set.is_dry()), (4 * SIZE, true));
    }
}

/// A change that the fetcher has not heard of is of the partition that had the number then.
#[tokio::test]
async fn a_change_is_of_who_had_the_number() {
    let set = set(1, 100 * SIZE, SIZE);
    set.buffer.pause(&[("t", 0)], true).unwrap();
    set.buffer.retire(set.slots[0]);
    set.buffer.assign(vec![(key(1), Start::Earliest)]).unwrap();
    assert_eq!(set.buffer.lock().shelves.find("t", 1), Some(set.slots[0]), "the same number");
    set.buffer.seek("t", 1, Start::Offset(50)).unwrap();
    let commands = set.buffer.take_commands();
    assert!(
        matches!(
            commands[..],
            [Command::Assign { .. }, Command::Change { seek: Some(Start::Offset(50)), .. }]
        ),
        "{commands:?}"
    );
}

/// Batches without records take memory as well.
#[tokio::test]
async fn nothing_counts_nothing() {
    let set = set(1, 100 * SIZE, SIZE);
    let mut bytes = BytesMut::from(&batch(0, SIZE)[..61]);
    bytes[8..12].copy_from_slice(&49i32.to_be_bytes());
    let raw = reader::split(bytes.freeze()).next().unwrap().unwrap();
    assert!(raw.payload().is_empty() && raw.count == 1);
    let fetched = vec![Fetched { raw, from: 0, frame: 61 }];
    set.buffer.push(set.slots[0], set.incarnation(0), fetched, ((1, 0), 100));
    assert!(set.amounts()[0].1 > 0);
}

/// A response is one piece of memory, which the last of its batches keeps.
#[tokio::test]
async fn a_response_is_room_again_with_the_last_of_its_batches() {
    let set = set(2, 100 * SIZE, SIZE);
    let charge = Arc::new(set.buffer.budget.charge(40 * SIZE));
    for partition in 0..2 {
        let batches = [0, 1].map(|at| set.part(at, SIZE, &charge)).into();
        set.buffer.push(set.slots[partition], set.incarnation(partition), batches, ((2, 0), 2));
    }
    drop(charge);
    set.mark(None, Some(100 * SIZE));
    let kept = set.take().unwrap().unwrap();
    assert_eq!(set.offsets().len(), 3);
    assert_eq!((set.room(), set.is_woken().await), (60 * SIZE, true), "all is taken");
    set.mark(None, Some(100 * SIZE));
    assert!(!set.is_woken().await);
    let clone = kept.clone();
    drop(kept);
    assert_eq!(set.room(), 60 * SIZE);
    drop(clone);
    assert_eq!((set.room(), set.is_woken().await), (100 * SIZE, true));
}

/// Of 100 responses the application keeps a hundredth each.
#[tokio::test]
async fn small_parts_that_are_kept_do_not_keep_their_responses_for_ever() {
    let set = set(1, 100 * SIZE, SIZE);
    let mut kept = Vec::new();
    for at in 0..100 {
        let charge = Arc::new(set.buffer.budget.charge(17 * SIZE));
        let batches = vec![set.part(at, SIZE, &charge)];
        set.buffer.push(set.slots[0], set.incarnation(0), batches, ((at + 1, 0), 100));
        kept.push(set.take().unwrap().unwrap());
    }
    let offsets: Vec<i64> = kept.iter().map(Batch::base_offset).collect();
    assert_eq!(offsets, (0..100).collect::<Vec<_>>());
    let held = set.buffer.budget.held();
    // Until half of the memory is kept they are whole; then copies, in buffers of 1 and 4 KiB.
    assert!(held < (4 * 17 + 96 * 5) * SIZE, "{held}");
    // What is a good part of its response is not copied.
    let charge = Arc::new(set.buffer.budget.charge(15 * SIZE));
    let batches = vec![set.part(100, SIZE, &charge)];
    drop(charge);
    set.buffer.push(set.slots[0], set.incarnation(0), batches, ((101, 0), 101));
    kept.push(set.take().unwrap().unwrap());
    assert_eq!(set.buffer.budget.held(), held + 15 * SIZE);
    drop(kept);
    assert_eq!(set.buffer.budget.held(), 0);
}

/// An application that keeps batches goes on without the memory of their response.
#[tokio::test]
async fn what_is_detached_keeps_nothing() {
    let set = set(1, 100 * SIZE, SIZE);
    set.push(0, [7]);
    let batch = set.take().unwrap().unwrap();
    let (record, detached) = (batch.get(0).unwrap().detach(), batch.detach());
    assert_eq!(set.room(), 99 * SIZE);
    assert_eq!(detached.get(0).unwrap().value(), batch.get(0).unwrap().value());
    let (alone, at) = batch.detach_one(batch.iter().position());
    drop(batch);
    assert_eq!((set.room(), detached.base_offset(), record.offset()), (100 * SIZE, 7, 7));
    assert_eq!(record.value(), detached.get(0).unwrap().value());
    assert_eq!(record.value(), alone.iter_from(at).next().unwrap().value());
}

/// What a batch is decompressed into is held as long as the batch is.
#[tokio::test]
async fn decompressed_bytes_are_held() {
    let set = set(1, 1000 * SIZE, SIZE);
    let mut builder = BatchBuilder::new(ChunkPool::default());
    builder.append(None, Some(&[7; 100 * SIZE]), HeaderList::NONE, 0).unwrap();
    let sealed = builder.seal(Compression::Lz4).unwrap();
    let mut bytes = BytesMut::from(&sealed.header(-1, -1, -1)[..]);
    sealed.segments().iter().for_each(|segment| bytes.extend_from_slice(segment));
    let charge = Arc::new(set.buffer.budget.charge(bytes.len()));
    let raw = reader::split(Budget::pin(bytes.freeze(), &charge)).next().unwrap().unwrap();
    let fetched = vec![Fetched { raw, from: 0, frame: charge.bytes() }];
    drop(charge);
    set.buffer.push(set.slots[0], set.incarnation(0), fetched, ((1, 0), 1));
    assert!(set.buffer.budget.held() < 2 * SIZE);
    let batch = set.take().unwrap().unwrap();
    let held = set.buffer.budget.held();
    assert!((100 * SIZE..200 * SIZE).contains(&held), "{held}");
    drop(batch);
    assert_eq!(set.buffer.budget.held(), 0);
}

/// Thousands of partitions have had their backlog at some time.
#[tokio::test]
async fn an_empty_queue_keeps_no_room_for_a_backlog() {
    let set = set(1, 1000 * SIZE, SIZE);
    set.push(0, 0..200);
    assert_eq!(set.offsets().len(), 200);
    let state = set.buffer.lock();
    assert_eq!(state.shelves.get(set.slots[0]).unwrap().capacity(), 0);
}

/// Also those that are taken after their partition has become another one.
#[tokio::test]
async fn a_batch_knows_the_end_that_came_with_it() {
    let set = set(1, 100 * SIZE, SIZE);
    set.push(0, [3]);
    set.buffer.renew(set.slots[0]);
    assert_eq!(set.take().unwrap().unwrap().high_watermark(), 100);
}
