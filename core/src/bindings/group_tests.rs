//! Members of groups against the embedded broker.

use std::time::{Duration, Instant};

use ottla_test_broker::{ApiKey, Cluster, Fault, FaultRule, GroupState};

use super::*;
use crate::consumer::{Assignor, Commit, GroupProtocol};
use crate::error::ErrorKind;

const PATIENCE: Duration = Duration::from_secs(60);
const GROUP: &str = "g";

/// A cluster with so many batches of a record in "t", and a client.
fn written(batches: usize) -> (Cluster, HostClient) {
    let cluster = Cluster::builder().brokers(1).topic("t", 1, 1).start().unwrap();
    let options = ClientOptions { bootstrap: cluster.bootstrap(), ..Default::default() };
    let engine = HostClient::connect_wait(options).unwrap();
    let producer = engine.producer(ProducerOptions::default()).unwrap();
    for tag in 0..batches as u64 {
        assert_eq!(producer.submit(tag, "t", std::iter::once(Entry::default())).accepted, 1);
        producer.flush_wait(Some(PATIENCE)).unwrap();
    }
    engine.queue().drain(&mut Vec::new(), usize::MAX);
    (cluster, engine)
}

fn options(group: GroupOptions) -> ConsumerOptions {
    let group = GroupOptions { id: Some(GROUP.into()), ..group };
    let all = Subscription::Topics(vec!["t".into()], Start::Earliest);
    ConsumerOptions { group, ..ConsumerOptions::new(all) }
}

fn committed(cluster: &Cluster) -> Option<i64> {
    cluster.group(GROUP)?.committed("t", 0).map(|at| at.offset)
}

fn next(consumer: &HostConsumer) -> Batch {
    consumer.next(Some(PATIENCE)).unwrap().expect("a batch")
}

/// What comes with this tag, apart from what else does.
fn told(engine: &HostClient, tag: u64) -> Completion {
    told_one_of(engine, &[tag])
}

fn told_one_of(engine: &HostClient, tags: &[u64]) -> Completion {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(engine.queue().wait(Some(left)), "nothing with a tag of {tags:?}");
        let mut one = Vec::new();
        engine.queue().drain(&mut one, 1);
        if let Some(found) = one.pop().filter(|c| tags.contains(&c.tag)) {
            return found;
        }
    }
}

#[test]
fn asking_for_the_next_marks_and_leaving_commits() {
    let (cluster, engine) = written(3);
    let consumer = engine.consumer(options(GroupOptions::default())).unwrap();
    for _ in 0..3 {
        next(&consumer);
    }
    consumer.leave(7);
    consumer.leave(8);
    // Whichever comes first.
    for one in [told_one_of(&engine, &[7, 8]), told_one_of(&engine, &[7, 8])] {
        assert_eq!((one.kind, one.error.is_none()), (CompletionKind::Closed, true));
    }
    assert_eq!(committed(&cluster), Some(2), "the last is in hand");
    assert_eq!(cluster.group(GROUP).unwrap().state, GroupState::Empty);
    consumer.leave_wait(None).unwrap();
    assert_eq!(consumer.next(None).err().unwrap().kind(), ErrorKind::Closed);
    assert_eq!(consumer.commit_wait(None, None).unwrap_err().kind(), ErrorKind::Closed);
    consumer.commit(9, None);
    assert_eq!(told(&engine, 9).error.unwrap().kind(), ErrorKind::Closed);
}

/// A host that keeps what is done by itself reads on without saying anything.
#[test]
fn a_host_that_keeps_its_marks_says_what_is_done() {
    let (cluster, engine) = written(4);
    let by_hand = GroupOptions { commit: Some(Commit::ManualAcked), ..Default::default() };
    let consumer = engine.consumer(options(by_hand)).unwrap();
    let batches: Vec<Batch> = (0..4).map(|_| next(&consumer)).collect();
    let commit = || {
        consumer.commit_wait(None, Some(PATIENCE)).unwrap();
        committed(&cluster).unwrap_or(0)
    };
    assert_eq!(commit(), 0);
    batches[1].ack();
    assert_eq!(commit(), 0);
    let first = batches[0].wanted();
    drop(batches);
    first.ack_before(i64::MAX);
    assert_eq!(commit(), 2);
    let words = first.words();
    assert_eq!(words.standing.load(std::sync::atomic::Ordering::Acquire), 0);
    assert!(words.reached.is_some() && words.handed_on.is_some());
    consumer.commit(5, Some(&[("t".into(), 0, 1)]));
    let done = told(&engine, 5);
    assert_eq!((done.kind, done.error.is_none()), (CompletionKind::Committed, true));
    assert_eq!(committed(&cluster), Some(1));
    consumer.leave_wait(Some(PATIENCE)).unwrap();
    assert_eq!(committed(&cluster), Some(1), "only by hand");
}

#[test]
fn events_come_before_batches_and_only_to_those_who_ask() {
    let (_cluster, engine) = written(1);
    let consumer = engine.consumer(options(GroupOptions::default())).unwrap();
    let Next::Event(GroupEvent::Assigned(parts)) = consumer.next_event(Some(PATIENCE)).unwrap()
    else {
        panic!("it begins with an event")
    };
    assert_eq!(parts.len(), 1);
    assert!(consumer.next_event(Some(PATIENCE)).unwrap().batch().is_some());
    assert!(consumer.subscribe(&[]).is_err());
    consumer.leave_wait(Some(PATIENCE)).unwrap();
    assert!(consumer.subscribe(&["t"]).is_err());
    let other = engine.consumer(options(GroupOptions::default())).unwrap();
    assert_eq!(next(&other).topic(), "t");
}

/// The commit is under way when the consumer leaves.
#[test]
fn leaving_does_not_overtake_a_commit() {
    let (cluster, engine) = written(2);
    let by_hand = GroupOptions { commit: Some(Commit::Manual), ..Default::default() };
    let consumer = engine.consumer(options(by_hand)).unwrap();
    next(&consumer).ack();
    let late = FaultRule::new(Fault::Delay(Duration::from_millis(300)));
    cluster.faults().inject(late.api(ApiKey::OFFSET_COMMIT));
    consumer.commit(5, None);
    consumer.leave(7);
    let first = told_one_of(&engine, &[5, 7]);
    assert_eq!((first.tag, first.error.map(|e| e.to_string())), (5, None));
    assert!(told(&engine, 7).error.is_none());
    assert_eq!(committed(&cluster), Some(1));
}

/// Its last wait was over without anything, and it never asks again: others are to have its partitions.
#[test]
fn who_has_stopped_waiting_leaves() {
    let (cluster, engine) = written(0);
    let short =
        || GroupOptions { max_poll_interval: Some(Duration::from_secs(1)), ..Default::default() };
    let members = || cluster.group(GROUP).map_or(0, |group| group.members.len());
    for how in ["waits", "events", "looks"] {
        let consumer = engine.consumer(options(short())).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let waits = |until: usize| {
            assert!(Instant::now() < deadline, "{} members", members());
            members() != until
        };
        // A wait that gives nothing, as often as it takes to be a member.
        while waits(1) {
            let time = Some(Duration::from_millis(20));
            match how {
                "waits" => assert!(consumer.next(time).unwrap().is_none()),
                "events" => drop(consumer.next_event(time).unwrap()),
                _ => assert!(consumer.try_next().unwrap().is_none()),
            }
        }
        // Who waits for what the queue says does not say by itself that it has stopped.
        consumer.waits_no_more();
        while waits(0) {
            std::thread::yield_now();
        }
    }
}

/// Nobody waits for the group when the client goes, and it leaves all the same.
#[test]
fn a_closed_client_leaves_the_group_behind_its_back() {
    let (cluster, engine) = written(2);
    let consumer = engine.consumer(options(GroupOptions::default())).unwrap();
    next(&consumer);
    next(&consumer);
    consumer.leave(7);
    engine.close();
    assert_eq!(told(&engine, 7).error.unwrap().kind(), ErrorKind::Closed);
    let deadline = Instant::now() + PATIENCE;
    while cluster.group(GROUP).unwrap().state != GroupState::Empty {
        assert!(Instant::now() < deadline, "it does not leave");
        std::thread::yield_now();
    }
    assert_eq!(committed(&cluster), Some(1));
}

#[test]
fn what_is_in_no_group_is_told_so() {
    let echo = HostClient::echo().unwrap();
    let refused = echo.consumer(options(GroupOptions::default())).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Config);
    let all = || ConsumerOptions::new(Subscription::Topics(vec!["t".into()], Start::Earliest));
    let (_cluster, engine) = written(0);
    for engine in [&echo, &engine] {
        let consumer = engine.consumer(all()).unwrap();
        for refused in [consumer.commit_wait(None, None), consumer.subscribe(&["t"])] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        consumer.leave_wait(None).unwrap();
        consumer.leave(3);
        assert!(told(engine, 3).error.is_none());
    }
    assert_eq!(assignors("range, sticky").unwrap(), [Assignor::Range, Assignor::Sticky]);
    assert_eq!(assignors("").unwrap_err().kind(), ErrorKind::Config);
}

/// Each setting of a member arrives: one out of its range is refused by its name.
#[test]
fn every_setting_of_a_member_is_passed_on() {
    let (_cluster, engine) = written(0);
    type Set = fn(&mut GroupOptions);
    let out_of_range: [(&str, Set); 8] = [
        ("group", |o| o.id = Some(String::new())),
        ("instance_id", |o| o.instance_id = Some(String::new())),
        ("group_protocol", |o| {
            o.protocol = Some(GroupProtocol::Next);
            o.assignors = Some(vec![Assignor::Range]);
        }),
        ("remote_assignor", |o| o.remote_assignor = Some(String::new())),
        ("session_timeout", |o| o.session_timeout = Some(Duration::ZERO)),
        ("max_poll_interval", |o| o.max_poll_interval = Some(Duration::ZERO)),
        ("commit_interval", |o| o.commit_interval = Some(Duration::ZERO)),
        ("assignors", |o| o.assignors = Some(Vec::new())),
    ];
    for (name, set) in out_of_range {
        let mut settings = options(GroupOptions::default());
        assert!(engine.consumer(settings.clone()).is_ok());
        set(&mut settings.group);
        let error = engine.consumer(settings).err().expect(name);
        assert!(error.kind() == ErrorKind::Config && error.message().contains(name), "{error}");
    }
}
