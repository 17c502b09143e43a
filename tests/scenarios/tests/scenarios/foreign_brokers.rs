//! Brokers that other people wrote: franz-go's fake cluster and librdkafka's mock cluster, each in a
//! process of its own. What they answer is what their authors read in Kafka's protocol.
//!
//! `cargo xtask test --only foreign` fetches them and names their commands in the environment.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::{Client, Commit, Consumer, GroupProtocol, Record};
use ottla_scenarios::wait::{until, within};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const KFAKE: &str = "OTTLA_FOREIGN_KFAKE";
const LIBRDKAFKA: &str = "OTTLA_FOREIGN_LIBRDKAFKA";
const CODECS: [&str; 5] = ["none", "lz4", "snappy", "gzip", "zstd"];
const PARTITIONS: i32 = 6;

/// Brokers of a process that obeys a command a line.
struct Foreign {
    child: Child,
    commands: Option<ChildStdin>,
    responses: BufReader<ChildStdout>,
    bootstrap: String,
    /// The first broker's id.
    first: i32,
}

impl Foreign {
    fn start(variable: &str) -> Self {
        let line = std::env::var(variable)
            .unwrap_or_else(|_| panic!("{variable} is not set: cargo xtask test --only foreign"));
        let mut words = line.split_whitespace();
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{line}: {e}"));
        let commands = child.stdin.take();
        let mut responses = BufReader::new(child.stdout.take().unwrap());
        let mut bootstrap = String::new();
        responses.read_line(&mut bootstrap).unwrap();
        let bootstrap = bootstrap.trim().to_owned();
        assert!(!bootstrap.is_empty(), "'{line}' did not start");
        // One counts its brokers from 0, the other from 1.
        let first = i32::from(variable == LIBRDKAFKA);
        Self { child, commands, responses, bootstrap, first }
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        let mut response = String::new();
        self.responses.read_line(&mut response).unwrap();
        assert_eq!(response.trim(), "ok", "{command}");
    }

    fn topic(&mut self, name: &str, partitions: i32) {
        self.tell(&format!("topic {name} {partitions}"));
    }

    /// All partitions to broker number `k`, from 0.
    fn lead(&mut self, topic: &str, k: impl Fn(i32) -> i32) {
        for partition in 0..PARTITIONS {
            let broker = self.first + k(partition);
            self.tell(&format!("leader {topic} {partition} {broker}"));
        }
    }

    fn down(&mut self, k: i32) {
        self.tell(&format!("down {}", self.first + k));
    }

    fn up(&mut self, k: i32) {
        self.tell(&format!("up {}", self.first + k));
    }

    async fn connect(&self) -> Client {
        within("connect", Client::connect(&self.bootstrap)).await.unwrap()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Both end with their input.
        drop(self.commands.take());
        let _ended = self.child.wait();
    }
}

type Content = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>, i64);

fn content(i: usize) -> Content {
    let key = (!i.is_multiple_of(5)).then(|| format!("key-{i}").into_bytes());
    let value =
        (!i.is_multiple_of(97)).then(|| format!("value-{i}-").repeat(1 + i % 20).into_bytes());
    let header = |value: Option<&str>| ("h".to_owned(), value.map(|v| v.as_bytes().to_vec()));
    let headers = if i.is_multiple_of(3) { vec![header(Some("1")), header(None)] } else { vec![] };
    (key, value, headers, 1_700_000_000_000 + i as i64)
}

/// What is written in each codec is read back, at the place that was acknowledged.
async fn every_codec_comes_back(variable: &str) {
    const COUNT: usize = 3_000;
    let mut brokers = Foreign::start(variable);
    for codec in CODECS {
        brokers.topic(codec, PARTITIONS);
    }
    let client = brokers.connect().await;
    for codec in CODECS {
        let producer = client
            .producer()
            .compression(codec.parse().unwrap())
            .batch_size(16 << 10)
            .build()
            .unwrap();
        let mut deliveries = Vec::new();
        for i in 0..COUNT {
            let (key, value, headers, stamp) = content(i);
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let mut record = Record::to(codec)
                .key_opt(key.as_deref())
                .value_opt(value.as_deref())
                .headers(&headers)
                .timestamp_ms(stamp);
            if i.is_multiple_of(2) {
                record = record.partition(i as i32 / 2 % PARTITIONS);
            }
            deliveries.push(within("space", producer.send(record)).await.unwrap());
        }
        let mut written = BTreeMap::new();
        for (i, delivery) in deliveries.into_iter().enumerate() {
            let acked = within("an ack", delivery).await.unwrap();
            assert!(
                !i.is_multiple_of(2) || acked.partition == i as i32 / 2 % PARTITIONS,
                "{codec} {i}"
            );
            let before = written.insert((acked.partition, acked.offset), i);
            assert_eq!(before, None, "{codec}: two records at one place");
        }
        let mut consumer = client.consumer().topics([codec]).build().unwrap();
        let mut read = BTreeMap::new();
        while read.len() < COUNT {
            let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
            for r in &batch {
                let headers = r.headers().map(|(name, value)| {
                    (str::from_utf8(name).unwrap().to_owned(), value.map(<[u8]>::to_vec))
                });
                let got: Content = (
                    r.key().map(<[u8]>::to_vec),
                    r.value().map(<[u8]>::to_vec),
                    headers.collect(),
                    r.timestamp_ms(),
                );
                read.insert((batch.partition(), r.offset()), got);
            }
        }
        for (place, got) in read {
            assert_eq!(got, content(written[&place]), "{codec} at {place:?}");
        }
        within("close", producer.close(Duration::from_secs(30))).await.unwrap();
    }
}

/// Reads until each of the numbers below `count` was seen; how often each was.
async fn numbers(consumer: &mut Consumer, seen: &mut BTreeMap<usize, u32>, count: usize) {
    while seen.len() < count {
        // What moves while it is asked is told and goes on.
        let Ok(batch) = within("a batch", consumer.next()).await.unwrap() else { continue };
        for record in &batch {
            let text = str::from_utf8(record.value().unwrap()).unwrap();
            *seen.entry(text.parse().unwrap()).or_default() += 1;
        }
    }
}

/// A broker goes with its connections, its partitions move, it comes back, they move on, and again:
/// every record is acknowledged and read.
async fn brokers_go_and_leaders_move(variable: &str, once: bool) {
    const ROUNDS: usize = 6;
    const EACH: usize = 2_000;
    let mut brokers = Foreign::start(variable);
    brokers.topic("t", PARTITIONS);
    brokers.lead("t", |partition| partition % 3);
    let client = brokers.connect().await;
    let producer = client.producer().batch_size(4 << 10).build().unwrap();
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let mut seen = BTreeMap::new();
    let mut deliveries = Vec::new();
    for round in 0..ROUNDS {
        let gone = (round % 3) as i32;
        for i in 0..EACH {
            let number = round * EACH + i;
            let mut record = Record::to("t");
            let value = number.to_string();
            record = record.value(&value);
            if i.is_multiple_of(3) {
                record = record.partition((i / 3) as i32 % PARTITIONS);
            }
            deliveries.push(within("space", producer.send(record)).await.unwrap());
            if i == EACH / 2 {
                brokers.down(gone);
                brokers.lead("t", |partition| (gone + 1 + partition % 2) % 3);
            }
        }
        numbers(&mut consumer, &mut seen, round * EACH + EACH / 4).await;
        brokers.up(gone);
        brokers.lead("t", |partition| (gone + partition) % 3);
    }
    let mut places = BTreeMap::new();
    for (number, delivery) in deliveries.into_iter().enumerate() {
        let acked = within("an ack", delivery).await.unwrap();
        let before = places.insert((acked.partition, acked.offset), number);
        assert!(acked.offset < 0 || before.is_none(), "two records at {acked:?}");
    }
    numbers(&mut consumer, &mut seen, ROUNDS * EACH).await;
    assert!(!once || seen.values().all(|times| *times == 1), "written twice");
    within("close", producer.close(Duration::from_secs(30))).await.unwrap();
}

/// By number: by which members it was read, as often as it was.
type Read = Arc<Mutex<BTreeMap<usize, Vec<usize>>>>;

/// A member that reads until it is told to leave.
struct Member {
    leave: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Member {
    async fn join(brokers: &Foreign, protocol: GroupProtocol, me: usize, read: &Read) -> Self {
        let client = brokers.connect().await;
        let builder = client.consumer().group("g").topics(["t"]).commit(Commit::Marks);
        let mut consumer = builder.group_protocol(protocol).build().unwrap();
        let (leave, mut left) = oneshot::channel();
        let read = Arc::clone(read);
        let task = tokio::spawn(async move {
            loop {
                let batch = tokio::select! {
                    biased;
                    _ = &mut left => break,
                    batch = consumer.next() => batch.expect("nobody closes it").unwrap(),
                };
                for record in &batch {
                    let number = str::from_utf8(record.value().unwrap()).unwrap().parse().unwrap();
                    read.lock().unwrap().entry(number).or_default().push(me);
                }
                // It is asked for the next: this one is done.
            }
            consumer.close().await.unwrap();
            drop(client);
        });
        Self { leave, task }
    }

    async fn leave(self) {
        self.leave.send(()).unwrap();
        within("it has left", self.task).await.unwrap();
    }
}

/// Members share the partitions, one leaves and the others go on where it was; one that comes when all have left goes on
/// where the group was. Nothing is read twice.
async fn members_share_and_go_on(variable: &str, protocol: GroupProtocol) {
    const EACH: usize = 1_000;
    let mut brokers = Foreign::start(variable);
    brokers.topic("t", PARTITIONS);
    let client = brokers.connect().await;
    let producer = client.producer().batch_size(1 << 10).build().unwrap();
    let write = async |round: usize| {
        let mut sent = Vec::new();
        for number in round * EACH..(round + 1) * EACH {
            let (value, partition) = (number.to_string(), number as i32 % PARTITIONS);
            let record = Record::to("t").partition(partition).value(&value);
            sent.push(within("space", producer.send(record)).await.unwrap());
        }
        for delivery in sent {
            within("an ack", delivery).await.unwrap();
        }
    };
    let read = Read::default();
    let has = |rounds: usize| read.lock().unwrap().len() == rounds * EACH;
    let readers = |round: usize| {
        let read = read.lock().unwrap();
        let mut all: Vec<usize> =
            read.range(round * EACH..).flat_map(|(_, by)| by.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let first = Member::join(&brokers, protocol, 0, &read).await;
    write(0).await;
    until("the first reads all", || has(1)).await;
    let second = Member::join(&brokers, protocol, 1, &read).await;
    // Until each has some of what is written.
    let mut rounds = 1;
    while readers(rounds.max(2) - 1) != [0, 1] {
        write(rounds).await;
        rounds += 1;
        until("both read all", || has(rounds)).await;
    }
    first.leave().await;
    write(rounds).await;
    rounds += 1;
    until("the second reads all", || has(rounds)).await;
    assert_eq!(readers(rounds - 1), [1]);
    second.leave().await;
    write(rounds).await;
    rounds += 1;
    let third = Member::join(&brokers, protocol, 2, &read).await;
    until("the third reads what came since", || has(rounds)).await;
    third.leave().await;
    assert_eq!(readers(rounds - 1), [2]);
    let read = read.lock().unwrap();
    let twice: Vec<_> = read.iter().filter(|(_, by)| by.len() != 1).collect();
    assert!(twice.is_empty(), "read more than once: {twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_broker_kfake_every_codec_comes_back() {
    every_codec_comes_back(KFAKE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_broker_kfake_goes_and_leaders_move() {
    brokers_go_and_leaders_move(KFAKE, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_broker_kfake_members_share_and_go_on() {
    members_share_and_go_on(KFAKE, GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_broker_kfake_members_of_the_next_generation_share_and_go_on() {
    members_share_and_go_on(KFAKE, GroupProtocol::Next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_broker_librdkafka_every_codec_comes_back() {
    every_codec_comes_back(LIBRDKAFKA).await;
}

/// The mock does not look at sequences: what was in doubt when its broker went is in the log twice.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_broker_librdkafka_goes_and_leaders_move() {
    brokers_go_and_leaders_move(LIBRDKAFKA, false).await;
}
