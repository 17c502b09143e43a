//! The order of a line alone, and what a queue of it owes its records.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::config::ProducerConfig;
use crate::environment::{Environment, EnvironmentBuilder};
use crate::error::Error;
use crate::policy::pace::{PaceLimits, Strain};
use crate::policy::retry_budget::Cost;
use crate::producer::accumulator::{Event, Shard};
use crate::producer::batch::FailureCause;
use crate::producer::delivery::Unread;
use crate::producer::record::Record;
use crate::record::pool::ChunkPool;

struct Set {
    accumulator: Arc<Accumulator>,
    events: UnboundedReceiver<Event>,
}

fn set(environment: EnvironmentBuilder) -> Set {
    let (tx, events) = unbounded_channel();
    let (env, config) = (environment.build(), ProducerConfig::default());
    let accumulator = Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
    Set { accumulator: Arc::new(accumulator), events }
}

impl Set {
    /// A batch of so many records is open in a queue that has announced itself.
    fn open(&mut self, records: usize) -> Arc<BatchQueue> {
        self.add(records);
        self.announced().expect("not announced")
    }

    fn add(&self, records: usize) {
        for _ in 0..records {
            let (record, sender) = (Record::to("t").value("v"), Unread::new(None));
            assert!(self.accumulator.append(Shard::default(), &record, &sender).is_ok());
        }
    }

    fn announced(&mut self) -> Option<Arc<BatchQueue>> {
        match self.events.try_recv() {
            Ok(Event::Ready(_, _, batch_queue)) => Some(batch_queue),
            _ => None,
        }
    }

    fn batch(&mut self, records: usize) -> Batch {
        let batch_queue = self.open(records);
        let batch = batch_queue.take(&self.accumulator).unwrap();
        assert_eq!(batch_queue.peek(&self.accumulator), Peek::Empty);
        batch
    }
}

fn now() -> Instant {
    Instant::now()
}

/// It was refused so often.
fn refused(batch: &mut Batch, times: usize, at: Instant) {
    let mut rng = StdRng::seed_from_u64(1);
    (0..times).for_each(|_| batch.attempts.came_back(&FailureCause::Failed, at, &mut rng));
}

#[tokio::test]
async fn what_comes_next_was_refused_only_if_that_very_one_was() {
    let mut set = set(Environment::builder());
    let (mut queue, now) = (SendQueue::default(), now());
    assert!(!queue.next_was_refused(now));
    queue.put_back(set.batch(1));
    assert!(!queue.next_was_refused(now), "it was withdrawn");
    let mut other = set.batch(2);
    refused(&mut other, 1, now);
    assert_eq!(other.attempts.cost(), Some(Cost::Definite));
    queue.put_back(other);
    assert!(queue.next_was_refused(now));
}

/// What has to wait holds up nothing that may go anywhere; where all go to the same place, it does.
#[tokio::test]
async fn what_has_to_wait_is_passed_by_others_unless_their_order_counts() {
    let mut set = set(Environment::builder());
    let (mut queue, now) = (SendQueue::default(), now());
    queue.put_back(set.batch(1));
    let mut waits = set.batch(2);
    refused(&mut waits, 9, now);
    let due = waits.attempts.not_before(now).unwrap();
    queue.put_back(waits);
    assert!(queue.pop_back_due(now, true).is_none());
    assert_eq!(queue.pop_back_due(now, false).map(|batch| batch.records()), Some(1));
    assert!(queue.pop_back_due(now, false).is_none());
    assert_eq!(queue.pop_back_due(due, false).map(|batch| batch.records()), Some(2));
}

#[tokio::test]
async fn what_came_back_has_to_be_resolved_by_the_deadline_of_the_oldest() {
    let mut set = set(Environment::builder());
    let mut queue = SendQueue::default();
    assert!(queue.back_deadline().is_none());
    let (mut older, newer) = (set.batch(1), set.batch(1));
    older.deadline = newer.deadline - Duration::from_secs(1);
    let first = older.deadline;
    queue.put_back(older);
    queue.put_back(newer);
    assert_eq!(queue.back_deadline(), Some(first));
}

/// A record that comes later announces its queue anew, which it would not if it were on the list.
#[tokio::test]
async fn a_slot_that_is_empty_is_off_the_list() {
    let mut set = set(Environment::builder());
    let mut queue = SendQueue::default();
    let batch_queue = set.open(1);
    assert!(queue.add(&set.accumulator, &batch_queue));
    drop(batch_queue.take(&set.accumulator));
    queue.forget_empty();
    assert!(queue.is_empty());
    assert!(Arc::ptr_eq(&set.open(1), &batch_queue));
}

/// What open batches wait for while the next request may be made at `next`.
fn gather(now: Instant, next: Option<Instant>) -> Gather {
    let until = next.filter(|at| *at > now);
    let (strain, limits) = (Strain::default(), PaceLimits::default());
    Gather { until, next: until, strain, limits }
}

fn later(next: &Next) -> Option<Instant> {
    if let Next::Later(at) = next { Some(*at) } else { None }
}

/// While no request may be made, what comes into a queue that was just taken from waits for that, and
/// wakes nobody: the queue is on the list till then. If nothing comes, it is off the list.
#[tokio::test]
async fn an_empty_slot_stays_on_the_list_until_the_next_request() {
    let mut set = set(Environment::builder());
    let (mut queue, batch_queue) = (SendQueue::default(), set.open(1));
    let now = now();
    let at = |ms: u64| now + Duration::from_millis(ms);
    queue.add(&set.accumulator, &batch_queue);
    let taken = queue.take(now, true, &gather(now, None)).0;
    assert_eq!(taken.map(|batch| batch.records()), Some(1));
    assert_eq!(later(&queue.next(now, false, &gather(now, Some(at(5))))), Some(at(5)));
    set.add(2);
    assert!(set.announced().is_none());
    assert_eq!(later(&queue.next(at(4), false, &gather(at(4), Some(at(5))))), Some(at(5)));
    let (taken, _) = queue.take(at(5), true, &gather(at(5), None));
    assert_eq!(taken.map(|batch| batch.records()), Some(2));
    // Again, and nothing comes. The next request is somebody else's meanwhile.
    assert_eq!(queue.take(at(5), true, &gather(at(5), Some(at(10)))).1, Some(at(10)));
    assert!(!queue.is_empty());
    assert_eq!(queue.take(at(10), true, &gather(at(10), Some(at(15)))).1, None);
    assert!(queue.is_empty());
    set.add(1);
    assert!(set.announced().is_some_and(|again| Arc::ptr_eq(&again, &batch_queue)));
}

/// Whoever has to be reached for it is not looked for while there is nothing.
#[tokio::test]
async fn a_line_rests_while_all_its_slots_are_empty() {
    let mut set = set(Environment::builder());
    let (mut queue, batch_queue) = (SendQueue::default(), set.open(1));
    let now = now();
    let at = |ms: u64| now + Duration::from_millis(ms);
    queue.add(&set.accumulator, &batch_queue);
    let closed = gather(now, Some(at(5)));
    assert_eq!(queue.rests(now, &closed), None, "there is something");
    assert!(queue.take(now, true, &gather(now, None)).0.is_some());
    assert_eq!(queue.rests(now, &closed), Some(at(5)));
    set.add(1);
    assert_eq!(queue.rests(at(1), &closed), None);
    assert!(queue.take(at(5), true, &gather(at(5), None)).0.is_some());
    assert_eq!(queue.rests(at(5), &gather(at(5), Some(at(10)))), Some(at(10)));
    assert_eq!(queue.rests(at(10), &gather(at(10), Some(at(15)))), None);
    assert!(queue.is_empty());
}

/// One whose records may wait for less, or need not wait, announces what comes.
#[tokio::test]
async fn an_empty_slot_is_off_the_list_where_its_records_would_not_wait() {
    for next in [None, Some(7)] {
        let mut set = set(Environment::builder());
        let (mut queue, batch_queue) = (SendQueue::default(), set.open(1));
        let now = now();
        let next = next.map(|ms| now + Duration::from_millis(ms));
        queue.add(&set.accumulator, &batch_queue);
        assert!(queue.take(now, true, &gather(now, None)).0.is_some());
        assert!(matches!(queue.next(now, false, &gather(now, next)), Next::Nothing));
        set.add(1);
        assert!(set.announced().is_some(), "{next:?}");
    }
}

#[tokio::test]
async fn what_comes_behind_a_batch_that_cannot_be_compressed_is_told_of() {
    let mut set = set(Environment::builder().mishaps(|place| place == "compression"));
    let batch_queue = set.open(1);
    assert!(set.announced().is_none());
    assert!(batch_queue.take(&set.accumulator).is_none());
    assert!(set.announced().is_some_and(|again| Arc::ptr_eq(&again, &batch_queue)));
}

/// Also those of a batch that takes no more records and is no batch to be sent yet.
#[tokio::test]
async fn records_that_are_being_compressed_are_on_their_way() {
    static HOME: OnceLock<Arc<Accumulator>> = OnceLock::new();
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    let mut set = set(Environment::builder().mishaps(|_| {
        SEEN.store(HOME.get().unwrap().unresolved_records(), Ordering::Relaxed);
        false
    }));
    HOME.set(Arc::clone(&set.accumulator)).unwrap();
    let batch = set.batch(3);
    assert_eq!(SEEN.load(Ordering::Relaxed), 3);
    assert_eq!(set.accumulator.unresolved_records(), 3);
    batch.resolve(Err(Error::closed("x")));
    assert_eq!(set.accumulator.unresolved_records(), 0);
}

#[tokio::test]
async fn a_batch_that_is_resolved_gives_its_memory_back() {
    let mut set = set(Environment::builder());
    let batch = set.batch(3);
    assert!(set.accumulator.budget().used() > 0);
    batch.resolve(Err(Error::closed("x")));
    assert_eq!(set.accumulator.budget().used(), 0);
}

/// Pacing holds nothing back for longer than a quarter of its delivery timeout, strained broker or not.
#[tokio::test(start_paused = true)]
async fn a_queue_dozes_no_longer_than_a_quarter_of_the_delivery_timeout() {
    let (tx, events) = unbounded_channel();
    let config =
        ProducerConfig { delivery_timeout: Duration::from_millis(20), ..ProducerConfig::default() };
    let env = Environment::builder().build();
    let accumulator = Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
    let mut set = Set { accumulator: Arc::new(accumulator), events };
    let (limits, mut rng) = (PaceLimits::default(), StdRng::seed_from_u64(1));
    let (mut strain, mut at) = (Strain::default(), now());
    for us in [vec![800; 200], vec![20_000; 400]].concat() {
        at += Duration::from_millis(5);
        strain.answered(Duration::from_micros(us), Duration::ZERO, &limits, at, &mut rng);
    }
    let now = set.accumulator.env().now();
    let next = Some(now + Duration::from_millis(19));
    let gather = Gather { until: next, next, strain, limits };
    let (mut queue, batch_queue) = (SendQueue::default(), set.open(1));
    queue.add(&set.accumulator, &batch_queue);
    let late = now + Duration::from_millis(20);
    assert!(queue.take(late, true, &gather).0.is_some());
    let Next::Later(until) = queue.next(now, false, &gather) else {
        return; // It is off the list, and announces itself.
    };
    // A record that comes now wakes nobody: its batch would be due a quarter of 20 ms later.
    set.add(1);
    assert!(set.announced().is_none() && set.events.try_recv().is_err());
    assert!(until <= now + Duration::from_millis(6), "nobody looks for {:?}", until - now);
}
