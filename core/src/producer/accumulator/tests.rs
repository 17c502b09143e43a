//! What is open, without a sender: what is looked at before a record is taken, how full a batch gets,
//! and whom the end of one is told to.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::Accumulator;
use super::batch_queue::Peek;
use super::event::Event;
use super::shard::Shard;
use super::validate::{Space, size_of};
use crate::config::{Partitioner, ProducerConfig};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::policy::key_hash;
use crate::producer::delivery::{BatchDelivery, Unread};
use crate::producer::memory::Quotas;
use crate::producer::record::Record;
use crate::record::Compression;
use crate::record::pool::ChunkPool;

/// Batches of a kilobyte.
fn accumulator(
    change: impl FnOnce(&mut ProducerConfig),
) -> (Arc<Accumulator>, UnboundedReceiver<Event>) {
    let (tx, events) = mpsc::unbounded_channel();
    let mut config = ProducerConfig { batch_size: 1 << 10, ..ProducerConfig::default() };
    config.compression = Compression::None;
    change(&mut config);
    let env = Environment::builder().seed(1).build();
    let accumulator = Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
    (Arc::new(accumulator), events)
}

/// Records in each batch that a handle has filled, oldest first.
fn batches(accumulator: &Arc<Accumulator>) -> Vec<usize> {
    let batch_queue = Arc::clone(accumulator.topic("t").unwrap().shard(Shard::default()));
    std::iter::from_fn(|| batch_queue.take(accumulator).map(|batch| batch.records())).collect()
}

/// Whichever way records come into it, and whether or not it ends where a chunk of memory does.
#[test]
fn no_batch_is_larger_than_it_is_to_be() {
    const BYTES: usize = 50;
    let record = Record::to("t").value(&[7; BYTES]);
    for (together, size) in [(false, 1 << 10), (true, 1 << 10), (false, 3 << 9), (true, 3 << 9)] {
        let (accumulator, _events) = accumulator(|config| config.batch_size = size);
        let producer = Unread::new(None);
        if together {
            let mut all = BatchDelivery::default();
            let value = [7; BYTES];
            let values = [&value[..]; 2_000];
            let (taken, result) = accumulator.append_values(
                Shard::default(),
                "t",
                &values,
                &producer,
                None,
                &mut all,
            );
            assert!(result.is_ok() && taken == 2_000);
        } else {
            let mut at_once = 0;
            for _ in 0..2_000 {
                match accumulator.append_at_once(Shard::default(), &record, &producer) {
                    Some(_) => at_once += 1,
                    None => drop(accumulator.append(Shard::default(), &record, &producer).unwrap()),
                }
            }
            assert!(at_once > 1_000, "{at_once} at once");
        }
        let batches = batches(&accumulator);
        assert_eq!(batches.iter().sum::<usize>(), 2_000);
        let most = batches.iter().max().unwrap();
        assert!(most * BYTES <= size, "{most} records in a batch of {size}, together: {together}");
    }
}

/// A record that a batch has room for is looked at like the one that opened it.
#[test]
fn what_is_wrong_with_a_record_is_seen_wherever_it_stands() {
    let (accumulator, _events) = accumulator(|config| config.max_record_size = 100);
    let producer = Unread::new(None);
    let good = Record::to("t").value("x");
    drop(accumulator.append(Shard::default(), &good, &producer).unwrap());
    let at_once = |record: &Record<'_>| {
        accumulator.append_at_once(Shard::default(), record, &producer).is_some()
    };
    assert!(at_once(&good));
    assert!(!at_once(&good.timestamp_ms(-1)), "a time before all times");
    assert!(!at_once(&Record::to("t").value(&[7; 200])), "larger than allowed");
    let mut all = BatchDelivery::default();
    let values: [&[u8]; 3] = [&[1; 10], &[2; 200], &[3; 10]];
    let (taken, result) =
        accumulator.append_values(Shard::default(), "t", &values, &producer, None, &mut all);
    assert_eq!((taken, result.unwrap_err().kind()), (1, ErrorKind::RecordTooLarge));
    let until = accumulator.env.now() + Duration::from_secs(60);
    accumulator.topic("t").unwrap().fail(Error::closed("topic"), until);
    assert!(!at_once(&good), "a topic that takes nothing");
}

/// The sender may be asleep until the time that the open one was to go.
#[test]
fn a_batch_that_is_full_is_told_of() {
    let (accumulator, mut events) = accumulator(|_| {});
    let producer = Unread::new(None);
    let record = Record::to("t").value(&[7; 900]);
    let mut told = || std::iter::from_fn(|| events.try_recv().ok()).count();
    drop(accumulator.append(Shard::default(), &record, &producer).unwrap());
    assert_eq!(told(), 1, "the slot");
    drop(accumulator.append(Shard::default(), &record, &producer).unwrap());
    assert_eq!(told(), 1, "the batch that the record has no room in");
}

/// What is open must go: it is what the space is waiting for.
/// The sender has found the queue empty and comes again later. What may not wait for that tells it; once.
#[test]
fn what_may_not_wait_is_told_of_although_the_sender_comes_again() {
    for (bytes, flushed, tells) in
        [(10, false, false), (1 << 10, false, true), (10, true, true), (1 << 10, true, true)]
    {
        let (accumulator, mut events) = accumulator(|_| {});
        let (topic, producer) = (accumulator.topic("t").unwrap(), Unread::new(None));
        let append = |bytes: usize| {
            let value = vec![7; bytes];
            let record = Record::to("t").value(&value);
            drop(accumulator.append(Shard::default(), &record, &producer).unwrap());
        };
        append(10);
        assert!(matches!(events.try_recv(), Ok(Event::Ready(..))));
        let batch_queue = Arc::clone(topic.shard(Shard::default()));
        batch_queue.take(&accumulator).unwrap().resolve(Err(Error::closed("x")));
        // A caller has opened a batch, and is about to put its record into it.
        accumulator.roll_batch(&topic, &batch_queue, bytes, Space::Spare).unwrap();
        let mut flush = std::pin::pin!(accumulator.flush());
        if flushed {
            assert!(flush.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(matches!(events.try_recv(), Ok(Event::Pressure)));
        }
        assert_eq!(batch_queue.look(&accumulator, true), Peek::Kept);
        append(bytes);
        assert_eq!(matches!(events.try_recv(), Ok(Event::Pressure)), tells, "{bytes} {flushed}");
        if bytes < 1 << 10 {
            append(bytes);
        }
        assert!(events.try_recv().is_err(), "once");
    }
}

#[test]
fn a_quota_that_is_used_up_presses() {
    let (accumulator, mut events) = accumulator(|config| config.buffer_memory = 1 << 20);
    let producer = Unread::new(None);
    let record = Record::to("t").value(&[7; 10_000]);
    let refused = loop {
        if let Err(error) = accumulator.append(Shard::default(), &record, &producer) {
            break error;
        }
    };
    assert_eq!(refused.kind(), ErrorKind::BufferFull);
    assert!(refused.message().contains("quota"), "{refused}");
    let mut told = std::iter::from_fn(|| events.try_recv().ok());
    assert!(told.any(|event| matches!(event, Event::Pressure)));
}

/// Nobody would come for it, and whoever flushes would wait for it.
#[test]
fn what_is_opened_as_the_sender_ends_does_not_stay_open() {
    let (accumulator, events) = accumulator(|_| {});
    let topic = accumulator.topic("t").unwrap();
    let batch_queue = Arc::clone(topic.shard(Shard::default()));
    let record = Record::to("t").value("x");
    let size = size_of(&record);
    accumulator.roll_batch(&topic, &batch_queue, size, Space::Any).unwrap();
    drop(events);
    let taken =
        accumulator.append_in(&topic, &batch_queue, &record, size, Space::Any, None, |_, _| ());
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(accumulator.outstanding(), 0);
}

/// Whether it is full or open.
#[test]
fn what_is_late_leaves_its_slot() {
    let (accumulator, _events) =
        accumulator(|config| config.delivery_timeout = Duration::from_secs(10));
    let producer = Unread::new(None);
    let record = Record::to("t").value(&[7; 900]);
    for _ in 0..2 {
        drop(accumulator.append(Shard::default(), &record, &producer).unwrap());
    }
    let batch_queue = Arc::clone(accumulator.topic("t").unwrap().shard(Shard::default()));
    let now = accumulator.env.now();
    assert!(batch_queue.take_expired(&accumulator, now).is_empty());
    let late = now + Duration::from_secs(10);
    let gone: Vec<_> =
        batch_queue.take_expired(&accumulator, late).iter().map(|b| b.records()).collect();
    assert_eq!(gone, [1, 1]);
    assert!(batch_queue.first_deadline(&accumulator).is_none(), "nothing is left");
}

/// What waited for its partition is older than what it comes behind there.
#[tokio::test(start_paused = true)]
async fn the_first_deadline_of_a_slot_may_be_that_of_its_last_batch() {
    let (accumulator, _events) = accumulator(|config| {
        config.partitioner = Partitioner::KeyHash;
        config.delivery_timeout = Duration::from_secs(10);
    });
    let producer = Unread::new(None);
    let start = accumulator.env.now();
    let waits = Record::to("t").key(b"k").value("v");
    drop(accumulator.append(Shard::default(), &waits, &producer).unwrap());
    tokio::time::advance(Duration::from_secs(1)).await;
    let partition = key_hash::partition(b"k", 3);
    let named = Record::to("t").value(&[7; 700]).partition(partition);
    for _ in 0..2 {
        drop(accumulator.append(Shard::default(), &named, &producer).unwrap());
    }
    let topic = accumulator.topic("t").unwrap();
    let batch_queue = topic.batch_queue(partition);
    assert_eq!(batch_queue.first_deadline(&accumulator), Some(start + Duration::from_secs(11)));
    topic.learned(&accumulator, 3);
    assert_eq!(batch_queue.first_deadline(&accumulator), Some(start + Duration::from_secs(10)));
    let batches =
        std::iter::from_fn(|| batch_queue.take(&accumulator).map(|batch| batch.records()));
    assert_eq!(batches.collect::<Vec<_>>(), [1, 2], "it is in the second one");
}

/// All but so many bytes are somebody else's.
fn leave(accumulator: &Arc<Accumulator>, bytes: usize) {
    let others = Quotas { own: Arc::default(), broker: None };
    accumulator.budget.charge(&others, accumulator.config.buffer_memory - bytes);
}

/// Whoever sent them waits for the rest, and for all of them then.
#[test]
fn what_is_taken_of_many_before_a_refusal_is_in_the_handle() {
    let (accumulator, _events) = accumulator(|config| {
        config.batch_size = 256 << 10;
        config.buffer_memory = 1 << 20;
    });
    leave(&accumulator, 1_000);
    let mut all = BatchDelivery::default();
    let values: [&[u8]; 3] = [&[1; 10], &[2; 2_000], &[3; 10]];
    let producer = Unread::new(None);
    let (taken, result) =
        accumulator.append_values(Shard::default(), "t", &values, &producer, None, &mut all);
    assert_eq!((taken, result.unwrap_err().kind()), (1, ErrorKind::BufferFull));
    assert_eq!(all.len(), 1);
}

/// Else one that wants much would never have it beside many that want little.
#[test]
fn who_does_not_wait_does_not_overtake_who_does() {
    let (accumulator, _events) = accumulator(|config| config.buffer_memory = 1 << 20);
    leave(&accumulator, 200_000);
    let (producer, small) = (Unread::new(None), Record::to("t").value("x"));
    let send =
        || accumulator.append(Shard::default(), &small, &producer).map(drop).map_err(|e| e.kind());
    let own = Quotas { own: Arc::default(), broker: None };
    let mut waits = Box::pin(accumulator.budget.acquire(&own, 300_000));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waits.as_mut().poll(&mut cx).is_pending());
    assert_eq!(send(), Err(ErrorKind::BufferFull), "there is space, and somebody waits for it");
    drop(waits);
    assert_eq!(send(), Ok(()));
}
