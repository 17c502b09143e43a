//! The drivers of Kafka's system tests on this client, as a test framework uses them: arguments in, lines out, signals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ottla_peers::events::Event;
use ottla_peers::history::{History, What};
use ottla_peers::member::Member;
use ottla_test_broker::Cluster;

const PRODUCER: &str = env!("CARGO_BIN_EXE_verifiable-producer");
const CONSUMER: &str = env!("CARGO_BIN_EXE_verifiable-consumer");

fn start(cluster: &Cluster, history: &History, program: &str, name: &str, args: &[&str]) -> Member {
    let mut command = Command::new(program);
    command.args(["--bootstrap-server", &cluster.bootstrap(), "--topic", "numbers"]).args(args);
    Member::start(name, command, history).unwrap()
}

/// What one of them has said.
fn said(history: &History, name: &str) -> Vec<Event> {
    let own = |all: &[ottla_peers::history::Entry]| {
        let own = all.iter().filter(|entry| &*entry.member == name);
        let said = own.filter_map(|entry| match &entry.what {
            What::Said(event) => Some(event.clone()),
            _ => None,
        });
        said.collect()
    };
    history.with(own)
}

/// Waits until it has said something; every look is at all of it.
fn until(history: &History, name: &str, what: &str, reached: impl Fn(&[Event]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reached(&said(history, name)) {
        assert!(Instant::now() < deadline, "{name}: no {what}: {:?}", said(history, name));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn produce(cluster: &Cluster, history: &History, name: &str, count: usize) -> Vec<Event> {
    let count = count.to_string();
    start(cluster, history, PRODUCER, name, &["--max-messages", &count]).wait().unwrap();
    said(history, name)
}

fn consumed(events: &[Event]) -> u64 {
    let count = |event: &Event| match event {
        Event::RecordsConsumed { count, .. } => *count,
        _ => 0,
    };
    events.iter().map(count).sum()
}

/// The partitions that are with it after all that it said.
fn held(events: &[Event]) -> BTreeSet<i32> {
    let mut held = BTreeSet::new();
    for event in events {
        match event {
            Event::PartitionsAssigned { partitions } => {
                held.extend(partitions.iter().map(|p| p.partition));
            }
            Event::PartitionsRevoked { partitions } => {
                held.retain(|h| !partitions.iter().any(|p| p.partition == *h));
            }
            _ => {}
        }
    }
    held
}

fn cluster() -> (Cluster, History) {
    (Cluster::builder().topic("numbers", 4, 1).start().unwrap(), History::default())
}

#[test]
fn the_producer_tells_of_each_record_and_of_all() {
    let (cluster, history) = cluster();
    let args = ["--max-messages", "60", "--value-prefix", "7", "--repeating-keys", "3"];
    start(&cluster, &history, PRODUCER, "p", &args).wait().unwrap();
    let events = said(&history, "p");
    assert_eq!(events[0], Event::StartupComplete);
    let mut offsets: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    let mut partitions_of_keys: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    let mut values = BTreeSet::new();
    for event in &events[1..61] {
        let Event::ProducerSendSuccess { key, value, topic, partition, offset } = event else {
            panic!("{event:?}");
        };
        assert_eq!(topic, "numbers");
        assert!(offsets.entry(*partition).or_default().insert(*offset));
        let of_key = partitions_of_keys.entry(key.clone().unwrap()).or_default();
        of_key.insert(*partition);
        values.insert(value.clone());
    }
    assert_eq!(values, (0..60).map(|i| format!("7.{i}")).collect());
    assert!(offsets.values().all(|of| of.iter().copied().eq(0..of.len() as i64)), "{offsets:?}");
    assert_eq!(partitions_of_keys.keys().collect::<Vec<_>>(), ["0", "1", "2"]);
    assert!(partitions_of_keys.values().all(|of| of.len() == 1), "{partitions_of_keys:?}");
    let [
        Event::ShutdownComplete,
        Event::ToolData { sent: 60, acked: 60, target_throughput: -1, .. },
    ] = &events[61..]
    else {
        panic!("{:?}", &events[61..]);
    };
}

#[test]
fn the_producer_tells_of_what_failed_and_takes_properties() {
    let cluster = Cluster::builder().start().unwrap();
    let history = History::default();
    let file = std::env::temp_dir().join(format!("ottla-peers-{}.properties", std::process::id()));
    std::fs::write(&file, "# soon\ndelivery.timeout.ms = 300\nrequest.timeout.ms=200\n").unwrap();
    let args = ["--max-messages", "2", "--command-config", file.to_str().unwrap()];
    start(&cluster, &history, PRODUCER, "p", &args).wait().unwrap();
    std::fs::remove_file(&file).unwrap();
    let events = said(&history, "p");
    let failed = events.iter().filter(|event| match event {
        Event::ProducerSendError { topic, exception, message, .. } => {
            topic == "numbers" && exception.starts_with("ottla::ErrorKind::") && !message.is_empty()
        }
        _ => false,
    });
    assert_eq!(failed.count(), 2, "{events:?}");
    assert!(matches!(events.last(), Some(Event::ToolData { sent: 2, acked: 0, .. })));
}

#[test]
fn a_producer_without_an_end_ends_when_it_is_told_to() {
    let (cluster, history) = cluster();
    let producer =
        start(&cluster, &history, PRODUCER, "p", &["--throughput", "200", "--acks", "1"]);
    let acked = |events: &[Event]| {
        events.iter().filter(|e| matches!(e, Event::ProducerSendSuccess { .. })).count()
    };
    until(&history, "p", "acknowledgements", |events| acked(events) >= 20);
    producer.tell_to_leave().unwrap();
    producer.wait().unwrap();
    let events = said(&history, "p");
    let Some(Event::ToolData { sent, acked: told, .. }) = events.last() else {
        panic!("{events:?}")
    };
    assert_eq!((*sent, *told), (acked(&events) as u64, acked(&events) as u64));
}

#[test]
fn the_consumer_reads_so_many_and_the_next_goes_on_behind_them() {
    let (cluster, history) = cluster();
    let sent = produce(&cluster, &history, "p", 100);
    let sent: BTreeSet<(i32, i64, String)> = sent
        .into_iter()
        .filter_map(|event| match event {
            Event::ProducerSendSuccess { value, partition, offset, .. } => {
                Some((partition, offset, value))
            }
            _ => None,
        })
        .collect();
    let args = |count| ["--group-id", "g", "--verbose", "--max-messages", count];
    for (name, count) in [("a", "60"), ("b", "40")] {
        start(&cluster, &history, CONSUMER, name, &args(count)).wait().unwrap();
        let events = said(&history, name);
        assert_eq!(events[0], Event::StartupComplete);
        assert_eq!(consumed(&events).to_string(), count);
        assert_eq!(events.last(), Some(&Event::ShutdownComplete));
        assert_eq!(held(&events), BTreeSet::new(), "what it had is told as given up");
    }
    // Each record once, of both, and each commit is told behind what it is of.
    let both = [said(&history, "a"), said(&history, "b")].concat();
    let read: Vec<(i32, i64, String)> = both
        .iter()
        .filter_map(|event| match event {
            Event::RecordData { value, partition, offset, topic, key: None }
                if topic == "numbers" =>
            {
                Some((*partition, *offset, value.clone().unwrap()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(read.len(), 100);
    assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), sent);
    let pairs = both.windows(2).filter(|pair| matches!(pair[0], Event::RecordsConsumed { .. }));
    for pair in pairs {
        let [
            Event::RecordsConsumed { partitions, .. },
            Event::OffsetsCommitted { offsets, success: true, error: None },
        ] = pair
        else {
            panic!("{pair:?}");
        };
        assert_eq!(offsets[0].partition, partitions[0].partition);
        assert_eq!(offsets[0].offset, partitions[0].max_offset + 1);
    }
}

#[test]
fn a_consumer_that_commits_by_itself_says_nothing_of_it_and_does() {
    let (cluster, history) = cluster();
    produce(&cluster, &history, "p", 50);
    let args = ["--group-id", "g", "--enable-autocommit", "--group-protocol", "consumer"];
    let consumer = start(&cluster, &history, CONSUMER, "a", &args);
    until(&history, "a", "records", |events| consumed(events) == 50);
    consumer.tell_to_leave().unwrap();
    consumer.wait().unwrap();
    let events = said(&history, "a");
    assert!(!events.iter().any(|event| matches!(event, Event::OffsetsCommitted { .. })));
    // Had the first left nothing behind, this would read what is old.
    produce(&cluster, &history, "q", 10);
    let more = [&args[..], &["--max-messages", "10"]].concat();
    start(&cluster, &history, CONSUMER, "b", &more).wait().unwrap();
    let reread = ottla_peers::judge::missing(&history.sorted(), &BTreeMap::new());
    assert_eq!(reread, []);
    let firsts = said(&history, "b").into_iter().filter_map(|event| match event {
        Event::RecordsConsumed { partitions, .. } => Some(partitions),
        _ => None,
    });
    let ends: BTreeMap<i32, i64> = events
        .iter()
        .filter_map(|event| match event {
            Event::RecordsConsumed { partitions, .. } => Some(partitions),
            _ => None,
        })
        .flatten()
        .map(|part| (part.partition, part.max_offset))
        .collect();
    for part in firsts.flatten() {
        let before = ends.get(&part.partition).copied().unwrap_or(-1);
        assert!(part.min_offset > before, "{part:?} after {before}");
    }
}

/// Two members share, and what one gives up is told before the other says that it has it.
fn share(protocol: &[&str]) {
    let (cluster, history) = cluster();
    let args = [&["--group-id", "g"][..], protocol].concat();
    let a = start(&cluster, &history, CONSUMER, "a", &args);
    until(&history, "a", "all partitions", |events| held(events).len() == 4);
    let b = start(&cluster, &history, CONSUMER, "b", &args);
    until(&history, "b", "half of them", |events| held(events).len() == 2);
    until(&history, "a", "the other half", |events| held(events).len() == 2);
    a.tell_to_leave().unwrap();
    a.wait().unwrap();
    until(&history, "b", "all of them", |events| held(events).len() == 4);
    b.tell_to_leave().unwrap();
    b.wait().unwrap();
    assert_eq!(ottla_peers::judge::owned_twice(&history.sorted()), Default::default());
}

#[test]
fn who_gives_up_says_so_before_who_gets_it_cooperative() {
    share(&["--assignment-strategy", "cooperative-sticky", "--session-timeout", "6000"]);
}

#[test]
fn who_gives_up_says_so_before_who_gets_it_eager() {
    let java = "org.apache.kafka.clients.consumer.RangeAssignor";
    share(&["--assignment-strategy", java, "--session-timeout", "6000"]);
}

#[test]
fn who_gives_up_says_so_before_who_gets_it_next() {
    share(&["--group-protocol", "CONSUMER", "--group-remote-assignor", "uniform"]);
}

#[test]
fn what_is_wrong_is_said_and_ends_it() {
    let (cluster, history) = cluster();
    let refused = |program: &str, args: &[&str]| {
        let name: Arc<str> = Arc::from("wrong");
        start(&cluster, &history, program, &name, args).wait().unwrap_err()
    };
    let words = refused(CONSUMER, &["--group-id", "g", "--assignment-strategy", "fair"]);
    assert!(words.contains("fair"), "{words}");
    let words = refused(CONSUMER, &[]);
    assert!(words.contains("--group-id"), "{words}");
    let words = refused(PRODUCER, &["--command-config", "/nonexistent/file"]);
    assert!(words.contains("/nonexistent/file"), "{words}");
    assert!(Path::new(PRODUCER).exists());
}
