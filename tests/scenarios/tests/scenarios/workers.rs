//! Several batches at once, in order within each partition; and records one by one. Whatever ends a wait or the work on a
//! batch, nothing is lost.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use ottla::testing::Cluster;
use ottla::{Batch, Client, Commit, Consumer, Error, ErrorKind, Record, Start};
use ottla_scenarios::steps::{acked, cluster, connect, ms, secs, small_batches};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};

/// So many records in each of the partitions, each a batch of its own.
async fn write(cluster: &Cluster, count: usize) {
    let client = connect(virtual_cluster::client(cluster, 77)).await;
    let producer = small_batches(&client).build().unwrap();
    for partition in 0..cluster.partitions("t").unwrap() {
        for _ in 0..count {
            acked(&producer, Record::to("t").partition(partition).value(&[7; 700])).await;
        }
    }
}

async fn reader(cluster: &Cluster) -> (Client, Consumer) {
    let client = connect(virtual_cluster::client(cluster, 1)).await;
    let consumer = client.consumer().topics(["t"]).build().unwrap();
    (client, consumer)
}

/// Of work that fails.
type Failure = Box<dyn std::error::Error>;

/// What is worked on, and what was.
#[derive(Default)]
struct Work {
    active: BTreeMap<i32, i64>,
    most: usize,
    begun: usize,
    done: BTreeMap<i32, Vec<i64>>,
}

impl Work {
    fn begins(work: &RefCell<Self>, batch: &Batch) {
        let mut work = work.borrow_mut();
        let before = work.active.insert(batch.partition(), batch.base_offset());
        assert_eq!(before, None, "two of partition {} at once", batch.partition());
        work.begun += 1;
        work.most = work.most.max(work.active.len());
    }

    fn ends(work: &RefCell<Self>, batch: &Batch) {
        let mut work = work.borrow_mut();
        work.active.remove(&batch.partition());
        let offsets = batch.iter().map(|record| record.offset());
        work.done.entry(batch.partition()).or_default().extend(offsets);
    }

    fn count(&self) -> usize {
        self.done.values().map(Vec::len).sum()
    }

    /// All of each partition was done once, and in order.
    fn assert_all(&self, partitions: i32, count: i64) {
        let all: Vec<i64> = (0..count).collect();
        for partition in 0..partitions {
            assert_eq!(self.done.get(&partition), Some(&all), "partition {partition}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn batches_of_a_partition_come_one_after_the_other_and_partitions_at_once() {
    let cluster = cluster(1, 5);
    write(&cluster, 10).await;
    let (client, mut consumer) = reader(&cluster).await;
    let (work, control) = (RefCell::new(Work::default()), consumer.control());
    let run = consumer.run(3, async |batch: Batch| {
        Work::begins(&work, &batch);
        // Those of partition 0 take long, and hold up nobody else.
        tokio::time::sleep(if batch.partition() == 0 { secs(10) } else { ms(100) }).await;
        // Nothing is taken that nobody works on.
        let taken = client.stats().records_consumed as usize;
        assert_eq!(taken, work.borrow().begun);
        Work::ends(&work, &batch);
        if work.borrow().count() == 50 { control.close() } else { Ok(()) }
    });
    tokio::time::timeout(secs(150), run).await.expect("it is slow, and not for ever").unwrap();
    work.borrow().assert_all(5, 10);
    assert_eq!(work.borrow().most, 3);
    assert!(consumer.next().await.is_none());
}

/// What was under way is finished, and what is not done comes first the next time.
#[tokio::test(start_paused = true)]
async fn an_error_ends_the_run_and_what_is_not_done_comes_again() {
    let cluster = cluster(1, 3);
    write(&cluster, 5).await;
    let (_client, mut consumer) = reader(&cluster).await;
    let work = RefCell::new(Work::default());
    let is_bad = |batch: &Batch| (batch.partition(), batch.base_offset()) == (1, 2);
    let run = consumer.run(3, async |batch: Batch| -> Result<(), Failure> {
        Work::begins(&work, &batch);
        tokio::time::sleep(ms(if is_bad(&batch) { 50 } else { 100 })).await;
        if is_bad(&batch) {
            work.borrow_mut().active.remove(&1);
            return Err("no room".into());
        }
        Work::ends(&work, &batch);
        Ok(())
    });
    assert!(within("an error", run).await.is_err());
    assert!(work.borrow().active.is_empty(), "others were finished");
    assert_eq!(work.borrow().done[&1], [0, 1]);
    let first = within("it", consumer.next()).await.unwrap().unwrap();
    assert!(is_bad(&first));
    Work::ends(&work, &first);
    let control = consumer.control();
    let run = consumer.run(1, async |batch: Batch| {
        Work::begins(&work, &batch);
        Work::ends(&work, &batch);
        if work.borrow().count() == 15 { control.close() } else { Ok(()) }
    });
    within("the rest", run).await.unwrap();
    work.borrow().assert_all(3, 5);
}

/// Dropped, or ended by a panic, at any moment.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_loses_nothing() {
    let cluster = cluster(1, 3);
    write(&cluster, 8).await;
    let (_client, mut consumer) = reader(&cluster).await;
    let work = RefCell::new(Work::default());
    for round in 0..40 {
        let run = consumer.run(2, async |batch: Batch| {
            Work::begins(&work, &batch);
            tokio::time::sleep(ms(40)).await;
            assert!(round % 3 != 1, "a panic that the test wants");
            Work::ends(&work, &batch);
            Ok::<(), Error>(())
        });
        {
            let mut run = pin!(tokio::time::timeout(ms(10 + 7 * round), run));
            let polls = std::future::poll_fn(|cx| {
                match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
                    Ok(poll) => poll.map(|_| ()),
                    Err(_) => Poll::Ready(()),
                }
            });
            polls.await;
        }
        work.borrow_mut().active.clear();
        if work.borrow().count() == 24 {
            break;
        }
    }
    work.borrow().assert_all(3, 8);
}

#[tokio::test(start_paused = true)]
async fn a_number_of_workers_that_makes_no_sense() {
    let cluster = cluster(1, 1);
    let (_client, mut consumer) = reader(&cluster).await;
    for workers in [0, 1_001] {
        let run = consumer.run(workers, async |_| Ok::<(), Error>(()));
        assert_eq!(run.await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

/// A close waits for what is under way, and for nothing else.
#[tokio::test(start_paused = true)]
async fn a_close_ends_the_run_when_what_is_under_way_is_done() {
    let cluster = cluster(1, 2);
    write(&cluster, 3).await;
    let (_client, mut consumer) = reader(&cluster).await;
    let (work, control) = (RefCell::new(Work::default()), consumer.control());
    let run = consumer.run(2, async |batch: Batch| {
        Work::begins(&work, &batch);
        tokio::time::sleep(secs(1)).await;
        Work::ends(&work, &batch);
        Ok::<(), Error>(())
    });
    let closes = async {
        until("work", || work.borrow().active.len() == 2).await;
        control.close().unwrap();
    };
    let (run, ()) = within("the end", async { tokio::join!(run, closes) }).await;
    run.unwrap();
    assert_eq!((work.borrow().begun, work.borrow().count()), (2, 2));
}

/// A group commits what was done, and nothing else, whatever it is told of marks.
#[tokio::test(start_paused = true)]
async fn a_group_commits_what_the_workers_have_done() {
    for commit in [Commit::Marks, Commit::Acked] {
        let cluster = cluster(3, 2);
        write(&cluster, 5).await;
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let member = || client.consumer().group("g").topics(["t"]).commit(commit).build().unwrap();
        let mut consumer = member();
        let work = RefCell::new(Work::default());
        let run = consumer.run(2, async |batch: Batch| -> Result<(), Failure> {
            Work::begins(&work, &batch);
            tokio::time::sleep(ms(100)).await;
            if batch.partition() == 1 && batch.base_offset() == 3 {
                return Err("no room".into());
            }
            Work::ends(&work, &batch);
            Ok(())
        });
        assert!(within("an error", run).await.is_err());
        within("close", consumer.close()).await.unwrap();
        work.borrow_mut().active.clear();
        let committed = |partition| {
            let group = cluster.group("g").unwrap();
            group.committed("t", partition).map_or(0, |at| at.offset)
        };
        assert_eq!(committed(1), 3, "{commit:?}");
        assert_eq!(committed(0), work.borrow().done[&0].len() as i64, "{commit:?}");
        // Its successor begins with what was not done.
        let mut consumer = member();
        let control = consumer.control();
        let run = consumer.run(2, async |batch: Batch| {
            Work::begins(&work, &batch);
            Work::ends(&work, &batch);
            if work.borrow().count() == 10 { control.close() } else { Ok(()) }
        });
        within("the rest", run).await.unwrap();
        work.borrow().assert_all(2, 5);
        within("close", consumer.close()).await.unwrap();
        assert_eq!((committed(0), committed(1)), (5, 5), "{commit:?}");
    }
}

/// Ten records in one batch, and ten in another.
async fn two_batches() -> (Cluster, Client, Consumer) {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().linger(ms(5)).build().unwrap();
    for _ in 0..2 {
        let sent = (0..10).map(|_| producer.try_send(Record::to("t").partition(0).value("x")));
        ottla_scenarios::steps::acks(sent.map(Result::unwrap).collect()).await;
    }
    let consumer = client.consumer().topics(["t"]).build().unwrap();
    (cluster, client, consumer)
}

#[tokio::test(start_paused = true)]
async fn records_come_one_by_one_and_a_stream_that_is_dropped_loses_none() {
    let (_cluster, _client, mut consumer) = two_batches().await;
    let mut read = Vec::new();
    for count in [1, 5, 4, 7] {
        let mut stream = consumer.records();
        for _ in 0..count {
            let record = within("a record", stream.next()).await.unwrap().unwrap();
            assert_eq!((record.topic(), record.partition()), ("t", 0));
            assert_eq!(record.record().value(), Some(&b"x"[..]));
            assert_eq!(record.detach().offset(), record.record().offset());
            read.push(record.record().offset());
        }
    }
    let rest = within("the rest", consumer.next()).await.unwrap().unwrap();
    read.extend(rest.iter().map(|record| record.offset()));
    assert_eq!(read, (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn records_of_a_partition_that_is_paused_wait_and_those_that_were_left_are_gone() {
    let (_cluster, _client, mut consumer) = two_batches().await;
    let control = consumer.control();
    let mut stream = consumer.records();
    let mut next = async |patience| {
        let next = tokio::time::timeout(patience, stream.next()).await.ok()?;
        Some(next.unwrap().unwrap().record().offset())
    };
    assert_eq!(next(secs(5)).await, Some(0));
    control.pause([("t", 0)]).unwrap();
    assert_eq!(next(secs(5)).await, None);
    control.resume([("t", 0)]).unwrap();
    assert_eq!(next(secs(5)).await, Some(1));
    control.seek("t", 0, Start::Offset(15)).unwrap();
    for offset in 15..20 {
        assert_eq!(next(secs(5)).await, Some(offset));
    }
    assert_eq!(next(secs(5)).await, None);
}

/// In a group: the record in hand is not done, nor is what comes behind it.
#[tokio::test(start_paused = true)]
async fn a_group_commits_the_records_before_the_one_in_hand() {
    let (cluster, client, _consumer) = two_batches().await;
    let member = || client.consumer().group("g").topics(["t"]).build().unwrap();
    for (count, committed) in [(4, 3), (10, 12), (1, 12)] {
        let mut consumer = member();
        let mut stream = consumer.records();
        for _ in 0..count {
            within("a record", stream.next()).await.unwrap().unwrap();
        }
        drop(stream);
        within("close", consumer.close()).await.unwrap();
        let at = cluster.group("g").unwrap().committed("t", 0).map_or(0, |at| at.offset);
        assert_eq!(at, committed, "after {count}");
    }
}

/// Records that are acknowledged one by one, of a batch whose rest was kept: the rest says nothing of those before.
#[tokio::test(start_paused = true)]
async fn what_is_kept_of_a_batch_is_acknowledged_without_what_was_handed_out_before() {
    for by_batch in [false, true] {
        let (cluster, client, _consumer) = two_batches().await;
        let member = client.consumer().group("g").topics(["t"]).commit(Commit::Acked);
        let mut consumer = member.build().unwrap();
        let mut stream = consumer.records();
        let mut in_work = Vec::new();
        for _ in 0..3 {
            in_work.push(within("a record", stream.next()).await.unwrap().unwrap());
        }
        drop(stream);
        if by_batch {
            within("the rest", consumer.next()).await.unwrap().unwrap().ack();
        } else {
            let mut stream = consumer.records();
            within("a record", stream.next()).await.unwrap().unwrap().ack();
        }
        within("a commit", consumer.commit()).await.unwrap();
        let at = |cluster: &Cluster| {
            cluster.group("g").unwrap().committed("t", 0).map_or(0, |at| at.offset)
        };
        assert_eq!(at(&cluster), 0, "three are in work");
        in_work.iter().for_each(|record| record.ack());
        within("a commit", consumer.commit()).await.unwrap();
        assert!(at(&cluster) > 3, "{}", at(&cluster));
    }
}

/// Who acknowledges is there as long as it asks for records, though it asks for no batch.
#[tokio::test(start_paused = true)]
async fn who_takes_records_one_by_one_and_acknowledges_them_is_there() {
    let (cluster, client, _consumer) = two_batches().await;
    let member = client.consumer().group("g").topics(["t"]).commit(Commit::Acked);
    let mut consumer = member.max_poll_interval(secs(10)).build().unwrap();
    let mut stream = consumer.records();
    for offset in 0..20 {
        let record = within("a record", stream.next()).await.unwrap().unwrap();
        assert_eq!(record.record().offset(), offset, "each comes once");
        tokio::time::sleep(secs(4)).await;
        record.ack();
        assert_eq!(cluster.group("g").unwrap().members.len(), 1);
    }
}
