//! Sequences of events in which members of groups once stood still, lost records, or read them twice. In virtual time but for
//! two of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, GroupState};
use ottla::{
    Assignor, Client, Commit, Compression, Consumer, ConsumerBuilder, ErrorKind, Event,
    GroupProtocol, Record, Start,
};
use ottla_scenarios::hostile::Hostile;
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
async fn write_ten(client: &Client) {
    let producer = client.producer().linger(ms(5)).compression(Compression::None).build().unwrap();
    let mut sent = Vec::new();
    for number in 0..10 {
        let value = format!("{number:04}");
        // Without a turn for anybody in between: ten are one batch.
        sent.push(producer.try_send(Record::to("t").partition(0).value(&value)).unwrap());
    }
    acks(sent).await;
}

async fn client(cluster: &Cluster, seed: u64) -> Client {
    connect(virtual_cluster::client(cluster, seed)).await
}

/// Most of these need the requests of one protocol; see `groups_next` for the other.
fn member(client: &Client) -> ConsumerBuilder {
    client.consumer().group(GROUP).topics(["t"]).group_protocol(GroupProtocol::Classic)
}

fn committed(cluster: &Cluster, partition: i32) -> Option<i64> {
    cluster.group(GROUP)?.committed("t", partition).map(|at| at.offset)
}

fn is_settled(cluster: &Cluster, members: usize) -> bool {
    cluster
        .group(GROUP)
        .is_some_and(|g| g.state == GroupState::Stable && g.members.len() == members)
}

/// By partition and offset: by whom, as often as it was.
type By = BTreeMap<(i32, i64), Vec<usize>>;

/// What members have handled, by partition and offset, and how many errors they were told.
#[derive(Clone, Default)]
struct Handled {
    records: Arc<Mutex<By>>,
    errors: Arc<AtomicUsize>,
}

impl Handled {
    fn count(&self) -> usize {
        self.records.lock().unwrap().len()
    }

    fn twice(&self) -> usize {
        self.records.lock().unwrap().values().filter(|by| by.len() > 1).count()
    }

    /// The highest offset of partition 0 that it has handled.
    fn last_of(&self, who: usize) -> Option<i64> {
        let records = self.records.lock().unwrap();
        let of = records.iter().filter(|((partition, _), by)| *partition == 0 && by.contains(&who));
        of.map(|((_, offset), _)| *offset).max()
    }

    fn errors(&self) -> usize {
        self.errors.load(Ordering::Relaxed)
    }
}

/// Reads for ever, whatever it is told.
fn reads(mut consumer: Consumer, who: usize, handled: &Handled) -> JoinHandle<()> {
    let handled = handled.clone();
    tokio::spawn(async move {
        while let Some(next) = consumer.next().await {
            let Ok(batch) = next else {
                handled.errors.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let mut records = handled.records.lock().unwrap();
            for record in &batch {
                records.entry((batch.partition(), record.offset())).or_default().push(who);
            }
        }
    })
}

/// The next batch, whatever is told before it.
async fn batch_within(consumer: &mut Consumer, time: Duration) -> Option<ottla::Batch> {
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

/// Ends the program unless it is dropped in time: where a task spins, virtual time stands still, and nothing that waits for
/// it ends.
struct Watchdog {
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    fn new() -> Self {
        let (alive, ended) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if ended.recv_timeout(Duration::from_secs(30)) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("a task spins: virtual time stands still");
                std::process::abort();
            }
        });
        Self { _alive: alive }
    }
}

// --- 1: a lookup of offsets that failed, and nothing to look up any more

#[tokio::test(start_paused = true)]
async fn a_failed_lookup_of_partitions_that_are_gone_again_is_no_reason_to_spin() {
    let _watchdog = Watchdog::new();
    let cluster = Cluster::builder()
        .brokers(1)
        .tcp(false)
        .topic("t", 1, 1)
        .topic("other", 1, 1)
        .start_on_current_runtime()
        .unwrap();
    let client = client(&cluster, 1).await;
    // UNSTABLE_OFFSET_COMMIT.
    cluster.faults().inject(FaultRule::new(Fault::Error(88)).api(ApiKey::OFFSET_FETCH).always());
    let consumer = member(&client).build().unwrap();
    let control = consumer.control();
    let task = reads(consumer, 0, &Handled::default());
    until("it is asked", || cluster.stats().requests_of(ApiKey::OFFSET_FETCH) > 2).await;
    // Everything is given up, and the next assignment is some time away.
    cluster.faults().inject(FaultRule::new(Fault::Delay(secs(5))).api(ApiKey::JOIN_GROUP));
    control.subscribe(["other"]).unwrap();
    tokio::time::sleep(secs(20)).await;
    assert!(is_settled(&cluster, 1));
    task.abort();
}

/// The same with an engine of its own, whose one thread is then taken: nobody of the process gets any further.
#[test]
fn the_engine_goes_on_when_a_lookup_has_failed() {
    let cluster = Cluster::builder().topic("t", 1, 1).topic("other", 1, 1).start().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&cluster.bootstrap()).await.unwrap();
        let producer = client.producer().build().unwrap();
        acked(&producer, Record::to("t").value("x")).await;
        let fails = FaultRule::new(Fault::Error(88)).api(ApiKey::OFFSET_FETCH).always();
        cluster.faults().inject(fails);
        let consumer = member(&client).build().unwrap();
        let control = consumer.control();
        let _task = reads(consumer, 0, &Handled::default());
        until("it is asked", || cluster.stats().requests_of(ApiKey::OFFSET_FETCH) > 2).await;
        cluster.faults().inject(FaultRule::new(Fault::Delay(secs(3))).api(ApiKey::JOIN_GROUP));
        control.subscribe(["other"]).unwrap();
        // Longer than the pause before the next lookup would be.
        tokio::time::sleep(secs(6)).await;
        let sent = async { producer.send(Record::to("t").value("x")).await.unwrap().await };
        let sent = tokio::time::timeout(secs(10), sent).await;
        assert!(sent.is_ok(), "nothing of the engine runs any more");
    });
}

// --- 3: who polls without a pause

/// In real time: the application's thread against the engine's.
#[test]
fn who_looks_again_and_again_does_not_keep_the_member_from_joining() {
    let cluster = Cluster::builder().topic("t", 1, 1).start().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(async {
        let client = Client::connect(&cluster.bootstrap()).await.unwrap();
        acked(&client.producer().build().unwrap(), Record::to("t").value("x")).await;
        client
    });
    let mut consumer = member(&client).build().unwrap();
    let begun = std::time::Instant::now();
    loop {
        if let Some(next) = consumer.try_next() {
            assert_eq!(next.unwrap().len(), 1);
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it is no member yet");
        std::hint::spin_loop();
    }
}

// --- 4: a topic that is deleted and comes back

/// All that is in it was written since the consumer was made.
#[tokio::test(start_paused = true)]
async fn a_topic_that_was_away_is_read_from_its_beginning() {
    let cluster = cluster(3, 1);
    write(&cluster, 0..1, 1).await;
    let client = client(&cluster, 1).await;
    let handled = Handled::default();
    let task = reads(member(&client).start(Start::Latest).build().unwrap(), 0, &handled);
    until("it reads", || cluster.stats().requests_of(ApiKey::FETCH) > 0).await;
    tokio::time::sleep(secs(20)).await;
    cluster.delete_topic("t").unwrap();
    // The leader notices, and so the partition is taken away.
    tokio::time::sleep(secs(3_600)).await;
    cluster.create_topic("t", 1, 3).unwrap();
    write(&cluster, 0..1, 3).await;
    tokio::time::sleep(secs(3_600)).await;
    assert_eq!(handled.count(), 3, "what was written before the new topic was noticed");
    task.abort();
}

// --- 5: topics that are not there yet

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_made_later_is_soon_found() {
    let cluster = Cluster::builder().brokers(3).tcp(false).start_on_current_runtime().unwrap();
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).build().unwrap();
    let error = within("an error", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    cluster.create_topic("t", 1, 3).unwrap();
    write(&cluster, 0..1, 1).await;
    // Without a group it is a matter of five seconds (`a_topic_found_later_is_read_from_its_beginning`).
    assert!(batch_within(&mut consumer, secs(60)).await.is_some());
}

/// Topics that nobody has looked up for 15 minutes are forgotten, and the period grows to 15 minutes +-20 %.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_made_much_later_is_found_at_all() {
    for seed in 1..6 {
        let cluster = Cluster::builder().brokers(3).tcp(false).start_on_current_runtime().unwrap();
        let client = client(&cluster, seed).await;
        let mut consumer = member(&client).build().unwrap();
        let error = within("an error", consumer.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownTopic);
        assert!(batch_within(&mut consumer, secs(6 * 3_600)).await.is_none());
        cluster.create_topic("t", 1, 3).unwrap();
        write(&cluster, 0..1, 1).await;
        assert!(batch_within(&mut consumer, secs(3_600)).await.is_some(), "seed {seed}");
    }
}

// --- 6: a commit that is refused for one partition

/// TOPIC_AUTHORIZATION_FAILED here; UNKNOWN_TOPIC_OR_PARTITION of a topic that was deleted is the same.
#[tokio::test(start_paused = true)]
async fn a_partition_whose_commit_is_refused_does_not_hold_up_the_group() {
    for code in [29, 3] {
        let cluster = cluster(1, 2);
        write(&cluster, 0..2, 2).await;
        let refused = FaultRule::new(Fault::Error(code)).api(ApiKey::OFFSET_COMMIT);
        cluster.faults().inject(refused.topic("t").partition(0).always());
        let handled = Handled::default();
        let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
        let first = reads(member(&one).build().unwrap(), 0, &handled);
        until("all is read", || handled.count() == 4).await;
        tokio::time::sleep(secs(10)).await;
        let second = reads(member(&two).build().unwrap(), 1, &handled);
        // 292 s: until the deadline of giving up.
        until("both are members", || is_settled(&cluster, 2)).await;
        first.abort();
        second.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_refused_again_and_again_is_told_once_a_spell() {
    let cluster = cluster(1, 2);
    write(&cluster, 0..2, 2).await;
    let refused = FaultRule::new(Fault::Error(29)).api(ApiKey::OFFSET_COMMIT);
    cluster.faults().inject(refused.topic("t").partition(0).always());
    let handled = Handled::default();
    let client = client(&cluster, 1).await;
    let task = reads(member(&client).build().unwrap(), 0, &handled);
    tokio::time::sleep(secs(600)).await;
    assert_eq!(handled.count(), 4);
    assert!((1..=11).contains(&handled.errors()), "{} errors in ten minutes", handled.errors());
    task.abort();
}

/// What the application commits has nothing to do with the marks that go out beside it.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_one_partition_is_not_that_of_another() {
    let cluster = cluster(1, 2);
    write(&cluster, 0..2, 2).await;
    let refused = FaultRule::new(Fault::Error(29)).api(ApiKey::OFFSET_COMMIT);
    cluster.faults().inject(refused.topic("t").partition(0).always());
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).commit_interval(secs(3_600)).build().unwrap();
    for _ in 0..4 {
        within("a batch", consumer.next()).await.unwrap().unwrap();
    }
    within("a commit", consumer.commit_to([("t", 1, 1)])).await.unwrap();
    assert_eq!(committed(&cluster, 1), Some(1));
}

// --- 7: a lookup that is refused for one partition

#[tokio::test(start_paused = true)]
async fn a_lookup_that_is_refused_for_one_topic_keeps_nobody_from_another_and_is_told() {
    let cluster = Cluster::builder()
        .brokers(1)
        .tcp(false)
        .topic("t", 1, 1)
        .topic("u", 1, 1)
        .start_on_current_runtime()
        .unwrap();
    write(&cluster, 0..1, 1).await;
    let refused = FaultRule::new(Fault::Error(29)).api(ApiKey::OFFSET_FETCH);
    cluster.faults().inject(refused.topic("u").always());
    let client = client(&cluster, 1).await;
    let handled = Handled::default();
    let consumer = client.consumer().group(GROUP).topics(["t", "u"]).build().unwrap();
    let task = reads(consumer, 0, &handled);
    tokio::time::sleep(secs(60)).await;
    assert_eq!(handled.count(), 1, "a refusal fails only its scope");
    assert!(handled.errors() > 0, "nobody was told");
    task.abort();
}

// --- 8: what is no sign of life

/// OffsetFetch bears no member's id in a classic group, and the coordinator takes it for no sign of life.
#[tokio::test(start_paused = true)]
async fn a_lookup_of_offsets_is_no_proof_of_membership() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 5).await;
    // Heartbeats have no effect (COORDINATOR_LOAD_IN_PROGRESS), and so the session ends.
    cluster.faults().inject(FaultRule::new(Fault::Error(14)).api(ApiKey::HEARTBEAT).always());
    let unstable = FaultRule::new(Fault::Error(88)).api(ApiKey::OFFSET_FETCH).always();
    let unstable = cluster.faults().inject(unstable);
    let handled = Handled::default();
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let first = member(&one).session_timeout(secs(10)).commit_interval(secs(3_600));
    let first = reads(first.build().unwrap(), 0, &handled);
    until("it is a member", || is_settled(&cluster, 1)).await;
    let second = reads(member(&two).build().unwrap(), 1, &handled);
    // The pause between two lookups is up to 5 s.
    tokio::time::sleep(secs(4)).await;
    cluster.faults().remove(unstable);
    until("the first is dead", || cluster.group(GROUP).unwrap().expired == 1).await;
    until("the second is alone", || is_settled(&cluster, 1)).await;
    write(&cluster, 0..1, 5).await;
    until("the second reads", || handled.last_of(1) == Some(9)).await;
    // Its lease ended with its session.
    assert!(handled.last_of(0).is_none_or(|last| last < 5), "both read what came after that");
    first.abort();
    second.abort();
}

// --- 9: what could not be opened

/// "An error, a panic or a drop leaves the batch in hand undone": who ends by the error has not passed it over.
#[tokio::test(start_paused = true)]
async fn who_ends_by_a_damaged_batch_finds_it_again() {
    let cluster = cluster(1, 1);
    let hostile = Hostile::new(&cluster);
    let client = connect(hostile.client(&cluster)).await;
    for _ in 0..3 {
        write_ten(&client).await;
    }
    hostile.change_batches(|mut batch| {
        if i64::from_be_bytes(batch[..8].try_into().unwrap()) == 10 {
            let last = batch.len() - 1;
            batch[last] ^= 1;
        }
        batch
    });
    let mut consumer = member(&client).build().unwrap();
    assert_eq!(within("a batch", consumer.next()).await.unwrap().unwrap().base_offset(), 0);
    let error = within("the damage", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    drop(consumer);
    until("it has left", || cluster.group(GROUP).unwrap().members.is_empty()).await;
    assert_eq!(committed(&cluster, 0), Some(10));
}

// --- 10: logs that are cut back, with batches in hand

#[tokio::test(start_paused = true)]
async fn what_was_in_hand_of_a_log_that_is_gone_is_not_where_to_go_on() {
    let cluster = cluster(3, 1);
    write(&cluster, 0..1, 10).await;
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).commit(Commit::Acked).build().unwrap();
    let mut held = Vec::new();
    for n in 0..10 {
        let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
        // The last one is still being worked on.
        if n < 9 { batch.ack() } else { held.push(batch) }
    }
    assert_eq!(cluster.elect_uncleanly("t", 0, 2, 5).unwrap(), 5);
    write(&cluster, 0..1, 3).await;
    for offset in 5..8 {
        let batch = batch_within(&mut consumer, secs(60)).await.expect("the new log");
        assert_eq!(batch.base_offset(), offset);
        batch.ack();
    }
    within("a commit", consumer.commit()).await.unwrap();
    // Where it stands; 9 is beyond the end.
    assert_eq!(committed(&cluster, 0), Some(8));
    drop(held);
}

// --- 11: where somebody was in another topic of the name

#[tokio::test(start_paused = true)]
async fn how_far_a_batch_of_a_former_topic_was_read_says_nothing_of_this_one() {
    let cluster = cluster(1, 1);
    let client = client(&cluster, 1).await;
    write_ten(&client).await;
    let mut consumer = member(&client).build().unwrap();
    let old = within("a batch", consumer.next()).await.unwrap().unwrap();
    assert_eq!(old.len(), 10);
    old.reached(5);
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let writer = connect(virtual_cluster::client(&cluster, 77)).await;
    write_ten(&writer).await;
    let new = batch_within(&mut consumer, secs(60)).await.expect("the new topic");
    assert_eq!((new.len(), new.base_offset()), (10, 0));
    // None of it was handed on yet.
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(&cluster, 0).unwrap_or(0), 0);
}

// --- 12: a response about an assignment that is over

#[tokio::test(start_paused = true)]
async fn where_the_group_was_before_somebody_else_had_the_partition_says_nothing() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 5).await;
    let handled = Handled::default();
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let build = |client: &Client, id: &str| {
        let builder = member(client).instance_id(id).assignors([Assignor::Range]);
        builder.commit_interval(ms(100)).build().unwrap()
    };
    cluster
        .faults()
        .inject(FaultRule::new(Fault::DelayResponse(secs(25))).api(ApiKey::OFFSET_FETCH));
    let first = reads(build(&one, "b"), 0, &handled);
    until("it asks where to begin", || cluster.stats().requests_of(ApiKey::OFFSET_FETCH) > 0).await;
    // The partition goes to the first by instance id, who reads it.
    let second = reads(build(&two, "a"), 1, &handled);
    until("all is committed", || committed(&cluster, 0) == Some(5)).await;
    second.abort();
    let _ = second.await;
    let members = cluster.group(GROUP).unwrap().members;
    let its = members.iter().find(|member| member.instance.as_deref() == Some("a")).unwrap();
    cluster.expire_member(GROUP, &its.id).unwrap();
    until("the first has it again", || is_settled(&cluster, 1)).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!((handled.count(), handled.twice()), (5, 0));
    assert_eq!(committed(&cluster, 0), Some(5));
    first.abort();
}

// --- 13: what is finished while something else is not

#[tokio::test(start_paused = true)]
async fn at_the_deadline_what_is_finished_is_committed() {
    let cluster = cluster(1, 2);
    write(&cluster, 0..2, 2).await;
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).commit_interval(secs(3_600)).build().unwrap();
    let mut in_hand = None;
    for _ in 0..4 {
        in_hand = Some(within("a batch", consumer.next()).await.unwrap().unwrap());
    }
    // Somebody else closes it, and the application does not come back from this one.
    consumer.control().close().unwrap();
    until("it has left", || cluster.group(GROUP).unwrap().members.is_empty()).await;
    let offsets: i64 = (0..2).map(|p| committed(&cluster, p).unwrap_or(0)).sum();
    assert_eq!(offsets, 3, "three of four are finished");
    drop(in_hand);
}

// --- 14: partitions that the leader hears of first

#[tokio::test(start_paused = true)]
async fn who_hears_of_new_partitions_after_the_leader_is_told_no_error() {
    let cluster = cluster(3, 4);
    let handled = Handled::default();
    let mut clients = Vec::new();
    let mut tasks = Vec::new();
    for seed in 1..6 {
        let client = client(&cluster, seed).await;
        tasks.push(reads(member(&client).build().unwrap(), seed as usize, &handled));
        clients.push(client);
        // The first one leads.
        until("it is a member", || is_settled(&cluster, seed as usize)).await;
    }
    cluster.create_partitions("t", 20).unwrap();
    // The leader's process asks for metadata now, for a reason of its own.
    let producer = clients[0].producer().build().unwrap();
    cluster.faults().on(None, ApiKey::PRODUCE, Fault::Error(6), 1);
    acked(&producer, Record::to("t").partition(0).value("x")).await;
    tokio::time::sleep(secs(1_500)).await;
    write(&cluster, 4..20, 1).await;
    until("all is read", || handled.count() == 17).await;
    assert_eq!(handled.errors(), 0, "nothing was wrong");
    tasks.into_iter().for_each(|task| task.abort());
}

// --- 15: what is assigned cannot be steered

#[tokio::test(start_paused = true)]
async fn what_an_event_says_is_assigned_can_be_sought_and_paused() {
    let cluster = cluster(1, 2);
    write(&cluster, 0..2, 5).await;
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).build().unwrap();
    let event = within("an event", consumer.next_event()).await.unwrap().unwrap();
    assert!(matches!(&event, Event::Assigned(parts) if parts.len() == 2), "{event:?}");
    // Who keeps offsets elsewhere says here where to go on.
    consumer.pause([("t", 1)]).unwrap();
    consumer.seek("t", 0, Start::Offset(3)).unwrap();
    let event = within("a batch", consumer.next_event()).await.unwrap().unwrap();
    let Event::Batch(batch) = event else { panic!("{event:?}") };
    assert_eq!((batch.partition(), batch.base_offset()), (0, 3));
}

// --- 16: an order that nobody can carry out

/// Of a control, while the consumer goes on asking. (Who waits for it in the consumer's place is ended by the max poll
/// interval.)
#[tokio::test(start_paused = true)]
async fn a_commit_ends_although_there_is_no_coordinator() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 2).await;
    let client = client(&cluster, 1).await;
    let consumer = member(&client).commit_interval(secs(3_600)).build().unwrap();
    let (control, handled) = (consumer.control(), Handled::default());
    let task = reads(consumer, 0, &handled);
    until("all is read", || handled.count() == 2).await;
    cluster.remove_coordinator(GROUP);
    let ends = tokio::time::timeout(secs(3_600), control.commit()).await;
    assert!(ends.expect("it waits for ever").is_err());
    task.abort();
}

// --- 17: who has stopped asking

/// Its last wait was given up; it has nothing in hand and never comes back.
#[tokio::test(start_paused = true)]
async fn who_has_stopped_waiting_leaves() {
    let cluster = cluster(1, 2);
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let mut gone = member(&one).max_poll_interval(secs(20)).build().unwrap();
    assert!(tokio::time::timeout(secs(5), gone.next()).await.is_err());
    assert!(is_settled(&cluster, 1));
    write(&cluster, 0..2, 2).await;
    let handled = Handled::default();
    let other = reads(member(&two).max_poll_interval(secs(20)).build().unwrap(), 1, &handled);
    until("the other has all", || handled.count() == 4).await;
    other.abort();
    drop(gone);
}

// --- 18: what is known of a topic that is gone

#[tokio::test(start_paused = true)]
async fn what_was_committed_of_a_former_topic_is_not_committed_of_this_one() {
    let cluster = cluster(1, 1);
    let client = client(&cluster, 1).await;
    write_ten(&client).await;
    let mut consumer = member(&client).commit_interval(secs(3_600)).build().unwrap();
    within("a batch", consumer.next()).await.unwrap().unwrap();
    assert!(tokio::time::timeout(secs(1), consumer.next()).await.is_err());
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(&cluster, 0), Some(10));
    cluster.delete_topic("t").unwrap();
    assert_eq!(committed(&cluster, 0), None, "gone with it");
    cluster.create_topic("t", 1, 1).unwrap();
    let writer = connect(virtual_cluster::client(&cluster, 77)).await;
    write_ten(&writer).await;
    // As many as before.
    let new = batch_within(&mut consumer, secs(60)).await.expect("the new topic");
    assert_eq!((new.len(), new.base_offset()), (10, 0));
    assert!(tokio::time::timeout(secs(1), consumer.next()).await.is_err());
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(&cluster, 0), Some(10), "it has said so");
}

// --- 19: a pause that a rebalance ends

// --- 20: who is woken for nothing

#[tokio::test(start_paused = true)]
async fn who_waits_is_not_woken_by_every_heartbeat() {
    let cluster = cluster(1, 1);
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).build().unwrap();
    assert!(tokio::time::timeout(secs(10), consumer.next()).await.is_err());
    let mut polls = 0;
    let waits = std::future::poll_fn(|cx| {
        polls += 1;
        consumer.poll_next(cx)
    });
    assert!(tokio::time::timeout(secs(300), waits).await.is_err());
    assert!(polls < 10, "{polls} times in five minutes, without a record");
}

// --- 22: a rebalance that is over before a heartbeat tells of it

/// Whoever joins waits for the others for a max poll interval; heartbeats go out every 3 s.
#[tokio::test(start_paused = true)]
async fn a_group_with_a_short_max_poll_interval_comes_to_rest() {
    let cluster = cluster(1, 8);
    let handled = Handled::default();
    let mut tasks = Vec::new();
    for seed in 1..9 {
        let client = client(&cluster, seed).await;
        let builder = member(&client).max_poll_interval(secs(1));
        tasks.push(reads(builder.build().unwrap(), seed as usize, &handled));
    }
    tokio::time::sleep(secs(120)).await;
    let before = cluster.group(GROUP).unwrap().generation;
    tokio::time::sleep(secs(120)).await;
    let group = cluster.group(GROUP).unwrap();
    assert_eq!((group.members.len(), group.generation - before), (8, 0));
    tasks.into_iter().for_each(|task| task.abort());
}
