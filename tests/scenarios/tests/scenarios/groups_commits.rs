//! Commits that the application asks for, while partitions come and go: a commit that is said to have been made was, and what is
//! committed is what was done. In virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, GroupState};
use ottla::{
    Assignor, Batch, Client, Commit, Compression, Consumer, ConsumerBuilder, ErrorKind, Event,
    Record, Standing,
};
use ottla_scenarios::steps::{acked, acks, cluster, connect, ms, secs, small_batches};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::task::JoinHandle;

const GROUP: &str = "g";

/// So many records in each of the partitions, each a batch of its own.
async fn write(cluster: &Cluster, partitions: std::ops::Range<i32>, count: usize) {
    let client = connect(virtual_cluster::client(cluster, 77)).await;
    let producer = small_batches(&client).build().unwrap();
    for partition in partitions {
        for _ in 0..count {
            acked(&producer, Record::to("t").partition(partition).value(&[7; 700])).await;
        }
    }
}

/// Ten records in one batch in partition 0.
async fn write_ten(cluster: &Cluster) {
    let client = connect(virtual_cluster::client(cluster, 78)).await;
    let producer = client.producer().linger(ms(5)).compression(Compression::None).build().unwrap();
    // Without a turn for anybody in between: ten are one batch.
    let send = |_| producer.try_send(Record::to("t").partition(0).value("x")).unwrap();
    acks((0..10).map(send).collect()).await;
}

async fn client(cluster: &Cluster, seed: u64) -> Client {
    connect(virtual_cluster::client(cluster, seed)).await
}

fn member(client: &Client) -> ConsumerBuilder {
    client.consumer().group(GROUP).topics(["t"]).assignors([Assignor::Range])
}

fn committed(cluster: &Cluster, partition: i32) -> Option<i64> {
    cluster.group(GROUP)?.committed("t", partition).map(|at| at.offset)
}

fn is_settled(cluster: &Cluster, members: usize) -> bool {
    cluster
        .group(GROUP)
        .is_some_and(|g| g.state == GroupState::Stable && g.members.len() == members)
}

/// The next batch, whatever is told before it.
async fn batch_within(consumer: &mut Consumer, time: Duration) -> Option<Batch> {
    tokio::time::timeout(time, async {
        loop {
            if let Ok(batch) = consumer.next().await.expect("it is open") {
                return batch;
            }
        }
    })
    .await
    .ok()
}

/// Asks for the next, and gives up the wait: what was in hand is done.
async fn asks_once(consumer: &mut Consumer) {
    assert!(tokio::time::timeout(secs(1), consumer.next()).await.is_err());
}

/// Reads for ever, and counts the records.
fn reads(mut consumer: Consumer) -> (JoinHandle<()>, Arc<AtomicUsize>) {
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    let task = tokio::spawn(async move {
        while let Some(next) = consumer.next().await {
            if let Ok(batch) = next {
                count.fetch_add(batch.len(), Ordering::Relaxed);
            }
        }
    });
    (task, read)
}

// --- how far a batch was handed on

#[tokio::test(start_paused = true)]
async fn how_far_a_batch_was_handed_on_says_nothing_of_a_log_that_was_cut_back() {
    let cluster = cluster(3, 1);
    write(&cluster, 0..1, 10).await;
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).commit_interval(secs(3_600)).build().unwrap();
    for offset in 0..10 {
        let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
        batch.reached(offset);
    }
    // All of it is done, so that nothing is open when the log is cut back.
    asks_once(&mut consumer).await;
    assert_eq!(cluster.elect_uncleanly("t", 0, 2, 5).unwrap(), 5);
    write_ten(&cluster).await;
    let batch = batch_within(&mut consumer, secs(60)).await.expect("the new log");
    assert_eq!((batch.base_offset(), batch.next_offset()), (5, 15));
    // None of it was handed on yet.
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(&cluster, 0), Some(5));
}

/// Two threads: one is at the last batch of the old topic still while the other is given the new one's.
#[tokio::test(start_paused = true)]
async fn who_is_still_at_a_former_topic_says_nothing_of_this_one() {
    let cluster = cluster(1, 1);
    write_ten(&cluster).await;
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).commit(Commit::Acked).build().unwrap();
    let old = within("a batch", consumer.next()).await.unwrap().unwrap();
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    write_ten(&cluster).await;
    let new = batch_within(&mut consumer, secs(60)).await.expect("the new topic");
    assert_eq!((new.len(), new.base_offset()), (10, 0));
    old.reached(6);
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(&cluster, 0).unwrap_or(0), 0);
    new.reached(3);
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(&cluster, 0), Some(3));
}

// --- commits while partitions are given up

#[tokio::test(start_paused = true)]
async fn a_rebalance_waits_for_the_commit_that_was_asked_for() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 2).await;
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let mut consumer = member(&one).commit(Commit::Manual).build().unwrap();
    let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
    let (other, _) = reads(member(&two).commit(Commit::Manual).build().unwrap());
    let group = || cluster.group(GROUP).unwrap();
    until("the group rebalances", || group().state == GroupState::PreparingRebalance).await;
    tokio::time::sleep(secs(10)).await;
    batch.ack();
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(&cluster, 0), Some(1));
    other.abort();
}

/// It works on with its own pace: between the end of a batch and the commit of it nothing is taken away.
#[tokio::test(start_paused = true)]
async fn who_commits_by_hand_may_do_so_before_it_asks_for_the_next() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 2).await;
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let mut consumer = member(&one).commit(Commit::Manual).build().unwrap();
    let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
    let (other, _) = reads(member(&two).commit(Commit::Manual).build().unwrap());
    let group = || cluster.group(GROUP).unwrap();
    until("the group rebalances", || group().state == GroupState::PreparingRebalance).await;
    tokio::time::sleep(secs(10)).await;
    batch.ack();
    tokio::time::sleep(secs(10)).await;
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(&cluster, 0), Some(1));
    until("all are members", || is_settled(&cluster, 2)).await;
    other.abort();
}

/// Nothing is in hand, so that nobody waits for anything. What it has not committed others read again, and it is not told
/// that it were committed.
#[tokio::test(start_paused = true)]
async fn what_has_gone_without_a_commit_is_not_said_to_be_committed() {
    let cluster = cluster(1, 2);
    write(&cluster, 0..2, 1).await;
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let consumer = member(&one).commit(Commit::Manual).build().unwrap();
    let control = consumer.control();
    let (first, read) = reads(consumer);
    until("it has all", || read.load(Ordering::Relaxed) == 2).await;
    let mut second = member(&two).commit(Commit::Manual).build().unwrap();
    let its = within("a batch", second.next()).await.unwrap().unwrap();
    until("it has its own again", || read.load(Ordering::Relaxed) == 3).await;
    let error = within("a commit", control.commit()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    // What it has is committed all the same, and it is told once.
    assert_eq!(committed(&cluster, 1 - its.partition()), Some(1));
    assert_eq!(committed(&cluster, its.partition()), None);
    within("a commit", control.commit()).await.unwrap();
    first.abort();
}

/// COORDINATOR_LOAD_IN_PROGRESS until the time to give up is over.
#[tokio::test(start_paused = true)]
async fn a_commit_that_still_waits_when_its_partition_goes_has_failed() {
    let cluster = cluster(1, 2);
    write(&cluster, 0..2, 1).await;
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let loads = FaultRule::new(Fault::Error(14)).api(ApiKey::OFFSET_COMMIT).always();
    let loads = cluster.faults().inject(loads);
    let consumer = member(&one).max_poll_interval(secs(20)).build().unwrap();
    let control = consumer.control();
    let (first, read) = reads(consumer);
    until("it has all", || read.load(Ordering::Relaxed) == 2).await;
    let mut second = member(&two).max_poll_interval(secs(20)).build().unwrap();
    let asks = async { (second.next().await.unwrap().unwrap(), second) };
    let commits = async {
        tokio::time::sleep(secs(1)).await;
        control.commit().await
    };
    let goes = async {
        until("both are members", || is_settled(&cluster, 2)).await;
        cluster.faults().remove(loads);
    };
    let ((its, second), commit, ()) =
        within("all", async { tokio::join!(asks, commits, goes) }).await;
    assert_eq!(committed(&cluster, its.partition()), None);
    assert_eq!(commit.unwrap_err().kind(), ErrorKind::Fenced);
    first.abort();
    drop(second);
}

/// Its response never comes, the member is expelled, and is one again before that is known.
#[tokio::test(start_paused = true)]
async fn a_commit_under_way_of_a_membership_that_is_over_has_failed() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 1).await;
    let one = client(&cluster, 1).await;
    let consumer = member(&one).commit(Commit::Manual).build().unwrap();
    let control = consumer.control();
    let (task, read) = reads(consumer);
    until("it has all", || read.load(Ordering::Relaxed) == 1).await;
    let cut = FaultRule::new(Fault::Delay(secs(20))).api(ApiKey::OFFSET_COMMIT);
    cluster.faults().inject(cut);
    let sent = cluster.stats().requests_of(ApiKey::OFFSET_COMMIT);
    let places = control.clone();
    let commit = tokio::spawn(async move { places.commit_to([("t", 0, 1)]).await });
    until("it is sent", || cluster.stats().requests_of(ApiKey::OFFSET_COMMIT) > sent).await;
    let members = cluster.group(GROUP).unwrap().members;
    cluster.expire_member(GROUP, &members[0].id).unwrap();
    until("it is one again", || {
        is_settled(&cluster, 1) && cluster.group(GROUP).unwrap().members[0].id != members[0].id
    })
    .await;
    until("it reads again", || read.load(Ordering::Relaxed) == 2).await;
    let error = within("a commit", commit).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_eq!(committed(&cluster, 0), None);
    task.abort();
}

// --- several commits, and commits that nobody waits for

#[tokio::test(start_paused = true)]
async fn of_two_commits_the_later_one_counts() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 3).await;
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).commit(Commit::Manual).build().unwrap();
    for _ in 0..3 {
        within("a batch", consumer.next()).await.unwrap().unwrap();
    }
    let control = consumer.control();
    // While the first is under way the others wait, and are then made together.
    let late = || FaultRule::new(Fault::Delay(secs(1))).api(ApiKey::OFFSET_COMMIT);
    cluster.faults().inject(late());
    let [low, other] = [1, 0].map(|at| control.commit_to([("t", 0, at)]));
    let all = async { tokio::join!(biased; other, low, control.commit()) };
    let (other, low, all) = within("all", all).await;
    assert!(other.is_ok() && low.is_ok() && all.is_ok());
    assert_eq!(committed(&cluster, 0), Some(2));
    // The other way round.
    cluster.faults().inject(late());
    let low = control.commit_to([("t", 0, 1)]);
    let all = async { tokio::join!(biased; control.commit(), control.commit(), low) };
    let (_, all, low) = within("all", all).await;
    assert!(low.is_ok() && all.is_ok());
    assert_eq!(committed(&cluster, 0), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_nobody_waits_for_any_more_is_made_all_the_same() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 3).await;
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).commit(Commit::Manual).build().unwrap();
    within("a batch", consumer.next()).await.unwrap().unwrap();
    cluster.remove_coordinator(GROUP);
    let given_up = tokio::time::timeout(secs(1), consumer.commit_to([("t", 0, 2)])).await;
    assert!(given_up.is_err());
    tokio::time::sleep(secs(5)).await;
    cluster.move_coordinator(GROUP, 1).unwrap();
    until("it is committed", || committed(&cluster, 0) == Some(2)).await;
}

/// A program of librdkafka's that stores offsets as its workers finish, and commits them itself.
#[tokio::test(start_paused = true)]
async fn what_is_stored_by_hand_is_not_done_by_asking_for_the_next() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 3).await;
    let client = client(&cluster, 1).await;
    let said = [("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
    let mut consumer = member(&client).from_properties(said).build().unwrap();
    let mut batches = Vec::new();
    for _ in 0..3 {
        batches.push(within("a batch", consumer.next()).await.unwrap().unwrap());
    }
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(&cluster, 0).unwrap_or(0), 0);
    batches[0].ack();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(committed(&cluster, 0).unwrap_or(0), 0);
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(&cluster, 0), Some(1));
}

// --- a close right behind a commit

#[tokio::test(start_paused = true)]
async fn a_close_waits_for_the_commits_that_were_asked_for_before() {
    for slow in [false, true] {
        let cluster = cluster(1, 1);
        write(&cluster, 0..1, 2).await;
        let client = client(&cluster, 1).await;
        let mut consumer = member(&client).commit(Commit::Manual).build().unwrap();
        let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
        batch.ack();
        if slow {
            let late = FaultRule::new(Fault::Delay(secs(2))).api(ApiKey::OFFSET_COMMIT);
            cluster.faults().inject(late);
        }
        let control = consumer.control();
        let both = async { tokio::join!(biased; control.commit(), consumer.close()) };
        let (commit, close) = within("both", both).await;
        assert!(close.is_ok());
        commit.unwrap();
        assert_eq!(committed(&cluster, 0), Some(1));
        assert!(cluster.group(GROUP).unwrap().members.is_empty(), "it has left");
    }
}

#[tokio::test(start_paused = true)]
async fn several_commits_and_a_close_behind_them_are_all_done() {
    let cluster = cluster(1, 1);
    cluster.create_topic("u", 5, 1).unwrap();
    write(&cluster, 0..1, 2).await;
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).commit_interval(secs(3_600)).build().unwrap();
    let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
    let control = consumer.control();
    let both = async {
        tokio::join!(
            biased;
            control.commit(),
            control.commit_to([("u", 3, 7)]),
            control.commit_to([("u", 4, 8)]),
            consumer.close()
        )
    };
    let (first, second, third, close) = within("all", both).await;
    assert!(first.is_ok() && close.is_ok());
    second.unwrap();
    third.unwrap();
    let at = |partition| cluster.group(GROUP).unwrap().committed("u", partition).unwrap().offset;
    assert_eq!((at(3), at(4)), (7, 8));
    drop(batch);
}

// --- what an events program is told

/// Of one partition it is not known yet where the group was, when another member comes.
#[tokio::test(start_paused = true)]
async fn what_is_said_to_have_come_is_said_to_go() {
    let cluster = cluster(1, 2);
    write(&cluster, 0..2, 1).await;
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    // UNSTABLE_OFFSET_COMMIT.
    let unstable = FaultRule::new(Fault::Error(88)).api(ApiKey::OFFSET_FETCH);
    let unstable = cluster.faults().inject(unstable.topic("t").partition(1).always());
    let mut consumer = member(&one).build().unwrap();
    let mut its: Vec<i32> = Vec::new();
    let event = within("an event", consumer.next_event()).await.unwrap().unwrap();
    let Event::Assigned(parts) = event else { panic!("{event:?}") };
    assert_eq!(parts.iter().map(|part| part.partition).collect::<Vec<_>>(), [0]);
    its.extend(parts.iter().map(|part| part.partition));
    let batch = within("a batch", consumer.next_event()).await.unwrap().unwrap();
    assert!(matches!(batch, Event::Batch(_)));
    let (other, _) = reads(member(&two).build().unwrap());
    let group = || cluster.group(GROUP).unwrap();
    until("the group rebalances", || group().state == GroupState::PreparingRebalance).await;
    // By now partition 1 is given up, and then what is asked for it is answered.
    tokio::time::sleep(secs(10)).await;
    cluster.faults().remove(unstable);
    tokio::time::sleep(secs(10)).await;
    while let Ok(Some(event)) = tokio::time::timeout(secs(60), consumer.next_event()).await {
        match event.unwrap() {
            Event::Assigned(parts) => {
                for part in parts {
                    assert!(!its.contains(&part.partition), "{part:?} has come twice");
                    its.push(part.partition);
                }
            }
            Event::GivingUp { partitions, .. } | Event::Lost(partitions) => {
                for part in partitions {
                    assert!(its.contains(&part.partition), "{part:?} goes, and never came");
                    its.retain(|of| *of != part.partition);
                }
            }
            _ => {}
        }
    }
    its.sort_unstable();
    let read: Vec<i32> = consumer.assignment().iter().map(|part| part.partition).collect();
    assert_eq!(its, read);
    other.abort();
}

/// Who asks for batches between two events misses none of these, and holds nobody up.
#[tokio::test(start_paused = true)]
async fn what_the_group_says_waits_for_who_asks_for_it() {
    let cluster = cluster(1, 2);
    write(&cluster, 0..2, 1).await;
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let mut consumer = member(&one).build().unwrap();
    let event = within("an event", consumer.next_event()).await.unwrap().unwrap();
    assert!(matches!(&event, Event::Assigned(parts) if parts.len() == 2), "{event:?}");
    for _ in 0..2 {
        within("a batch", consumer.next()).await.unwrap().unwrap();
    }
    let (other, _) = reads(member(&two).build().unwrap());
    let waits = tokio::time::timeout(secs(100), consumer.next());
    let settles = until("both are members", || is_settled(&cluster, 2));
    let (waited, ()) = tokio::join!(waits, settles);
    assert!(waited.is_err(), "there is nothing more");
    let mut said = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(secs(10), consumer.next_event()).await {
        said.push(match event.unwrap() {
            Event::Assigned(parts) => ("comes", parts.len()),
            Event::GivingUp { partitions, .. } => ("goes", partitions.len()),
            event => panic!("{event:?}"),
        });
    }
    assert_eq!(said, [("goes", 2), ("comes", 1)]);
    other.abort();
}

/// What a ledger keeps is bounded: a partition of which too much is in hand waits, others do not, and acknowledging has it go on.
#[tokio::test(start_paused = true)]
async fn a_partition_of_which_too_much_is_in_hand_waits_for_acknowledgements() {
    const MOST: i64 = 10_000;
    let cluster = cluster(1, 2);
    let one = client(&cluster, 1).await;
    let producer = one.producer().linger(ms(5)).build().unwrap();
    let send = |_| producer.try_send(Record::to("t").partition(0).value("x")).unwrap();
    // Filled whatever the sizes of batches are, with one more behind that.
    acks((0..2 * MOST + 2_000).map(send).collect()).await;
    acked(&producer, Record::to("t").partition(0).value("last")).await;
    let mut consumer = member(&one).commit(Commit::Acked).build().unwrap();
    let mut kept = Vec::new();
    let mut ranges = 0;
    while ranges < MOST {
        let batch = batch_within(&mut consumer, secs(30)).await.expect("less than may be open");
        // Every second record is finished; the first that is not is the first of the batch.
        for at in (batch.base_offset() + 1..batch.next_offset()).step_by(2) {
            batch.ack_range(at, at + 1);
        }
        ranges += (batch.len() as i64 + 1) / 2;
        kept.push(batch);
    }
    assert!(batch_within(&mut consumer, secs(60)).await.is_none(), "one more batch");
    acked(&producer, Record::to("t").partition(1).value("x")).await;
    let other =
        batch_within(&mut consumer, secs(30)).await.expect("of a partition that is not full");
    assert_eq!(other.partition(), 1);
    other.ack();
    for batch in kept.drain(..) {
        batch.ack();
    }
    loop {
        let batch = batch_within(&mut consumer, secs(30)).await.expect("it goes on");
        batch.ack();
        if batch.next_offset() > 2 * MOST + 2_000 {
            break;
        }
    }
    consumer.commit().await.unwrap();
    assert_eq!(committed(&cluster, 0), Some(2 * MOST + 2_001));
}

/// Who waits only because it has finished nothing of so much is not there: it leaves, and what it had is somebody's again, which
/// may be its own.
#[tokio::test(start_paused = true)]
async fn who_acknowledges_nothing_does_not_wait_for_ever() {
    let cluster = cluster(1, 1);
    let one = client(&cluster, 1).await;
    let producer = small_batches(&one).build().unwrap();
    let mut sends = Vec::new();
    for _ in 0..10_050 {
        sends.push(producer.send(Record::to("t").partition(0).value(&[7; 700])).await.unwrap());
    }
    acks(sends).await;
    let mut consumer =
        member(&one).commit(Commit::Acked).max_poll_interval(secs(20)).build().unwrap();
    let mut kept = Vec::new();
    while kept.len() < 10_000 {
        kept.push(batch_within(&mut consumer, secs(10)).await.expect("less than may be open"));
    }
    let again = batch_within(&mut consumer, secs(60)).await.expect("not for ever");
    assert_eq!(again.base_offset(), 0, "from where it was committed");
    assert_eq!(kept[0].standing(), Standing::Left);
}

/// So many records in partition 0, each a batch of its own.
async fn write_batches(client: &Client, count: usize) {
    let producer = small_batches(client).build().unwrap();
    let mut sends = Vec::new();
    for _ in 0..count {
        sends.push(producer.send(Record::to("t").partition(0).value(&[7; 700])).await.unwrap());
    }
    acks(sends).await;
}

/// All that may be in hand of partition 0.
async fn fill(consumer: &mut Consumer) -> Vec<Batch> {
    let mut kept = Vec::new();
    while kept.len() < 10_000 {
        kept.push(batch_within(consumer, secs(10)).await.expect("less than may be open"));
    }
    assert!(batch_within(consumer, secs(10)).await.is_none(), "one more batch");
    kept
}

/// What is fetched of a partition that is full is nothing that anybody could take: neither a budget that is used up nor enough that
/// is queued keeps the others from being read.
#[tokio::test(start_paused = true)]
async fn what_is_full_is_in_nobodys_way() {
    for memory in [2 << 20, 64 << 20] {
        let cluster = cluster(1, 2);
        let one = client(&cluster, 1).await;
        write_batches(&one, 16_000).await;
        let builder = member(&one).commit(Commit::Acked).max_bytes(1 << 20);
        let mut consumer = builder.buffer_memory(memory).build().unwrap();
        let kept = fill(&mut consumer).await;
        // More than a response of another one.
        let value = vec![7; 100 << 10];
        let producer = one.producer().compression(Compression::None).build().unwrap();
        for _ in 0..40 {
            acked(&producer, Record::to("t").partition(1).value(&value[..])).await;
        }
        for at in 0..40 {
            let other = batch_within(&mut consumer, secs(30)).await.expect("of the other one");
            assert_eq!((other.partition(), other.base_offset()), (1, at), "{memory}");
            other.ack();
        }
        kept.iter().for_each(Batch::ack);
        let next = batch_within(&mut consumer, secs(30)).await.expect("it goes on");
        assert_eq!((next.partition(), next.base_offset()), (0, 10_000));
    }
}

/// Who works off what is too much is there, and so is who waits for another partition.
#[tokio::test(start_paused = true)]
async fn who_works_off_what_is_too_much_or_waits_for_others_is_there() {
    for others in [false, true] {
        let cluster = cluster(1, if others { 2 } else { 1 });
        let one = client(&cluster, 1).await;
        write_batches(&one, 10_050).await;
        let builder = member(&one).commit(Commit::Acked).max_poll_interval(secs(20));
        let mut consumer = builder.build().unwrap();
        let kept = fill(&mut consumer).await;
        // In a task of its own: whoever polls asks anew.
        let works = tokio::spawn(async move {
            for batch in kept.iter().take(12) {
                tokio::time::sleep(secs(5)).await;
                if !others {
                    batch.ack();
                }
            }
            kept
        });
        let nothing = batch_within(&mut consumer, secs(61)).await;
        assert!(nothing.is_none(), "it left, with others: {others}");
        let kept = works.await.unwrap();
        assert_eq!(kept[12].standing(), Standing::Current, "with others: {others}");
    }
}
