//! What is kept of topics ends with their use: a service that names a new one with every job stays as it
//! is, and what is used again after long goes on as if nothing had been.

use allocation_counter::measure;
use ottla::testing::Cluster;
use ottla::{Client, Compression, ErrorKind, Partitioner, Producer, Record};
use ottla_scenarios::mishaps::Mishaps;
use ottla_scenarios::network::Network;
use ottla_scenarios::seeds::runtime;
use ottla_scenarios::steps::{cluster, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::runtime::Runtime;

struct Service {
    runtime: Runtime,
    cluster: Cluster,
    _client: Client,
    producer: Producer,
    next: usize,
}

impl Service {
    fn new() -> Self {
        let runtime = runtime();
        let (cluster, client, producer) = runtime.block_on(async {
            let cluster = cluster(1, 1);
            let client = virtual_cluster::client(&cluster, 1).connect().await.unwrap();
            let producer = client.producer().compression(Compression::None).build().unwrap();
            (cluster, client, producer)
        });
        Self { runtime, cluster, _client: client, producer, next: 0 }
    }

    /// Bytes that are kept after so many topics, one each second, that were not there before.
    fn kept(&mut self, topics: usize, there: bool) -> i64 {
        let numbers = self.next..self.next + topics;
        self.next = numbers.end;
        let kept = measure(|| {
            self.runtime.block_on(async {
                for number in numbers {
                    self.job(number, there).await;
                    tokio::time::sleep(secs(1)).await;
                }
                // What was used last is of long ago, too.
                tokio::time::sleep(secs(3_600)).await;
                self.job(usize::MAX, true).await;
            });
        });
        kept.bytes_current
    }

    async fn job(&self, number: usize, there: bool) {
        let topic = format!("job-{number}");
        if there {
            self.cluster.create_topic(&topic, 2, 1).unwrap();
        }
        let record = Record::to(&topic).value("x");
        let record = if number.is_multiple_of(2) { record.partition(1) } else { record };
        let delivery = self.producer.send(record).await.unwrap();
        match within("its end", delivery).await {
            Ok(_) => assert!(there),
            Err(e) => assert!(!there && e.kind() == ErrorKind::UnknownTopic, "{e}"),
        }
        if there {
            self.cluster.delete_topic(&topic).unwrap();
        }
    }
}

/// 6 KiB and more would be kept for each topic, if all were. What does grow is the pool of buffers, up to its
/// own limit: to 4 MiB in the first 10,000 topics, and no further in 100,000.
const FLAT: i64 = 4 << 20;
/// Seven times as much as that, if they were.
const TOPICS: usize = 5_000;

#[test]
fn short_lived_topics() {
    let mut service = Service::new();
    service.kept(1_000, true);
    let kept = service.kept(TOPICS, true);
    assert!(kept < FLAT, "{kept} bytes");
}

#[test]
fn topics_that_are_missing() {
    let mut service = Service::new();
    service.kept(1_000, false);
    let kept = service.kept(TOPICS, false);
    assert!(kept < FLAT, "{kept} bytes");
}

/// Also those that nobody uses any more as the sender panics, whose successor never heard of them.
#[test]
fn topics_of_before_a_panic() {
    let (runtime, mishaps) = (runtime(), Mishaps::default());
    let (cluster, _client, producer) = runtime.block_on(async {
        let cluster = cluster(1, 1);
        let environment = mishaps.at(Network::new(&cluster).environment(1));
        let client = Client::builder().bootstrap(cluster.bootstrap()).environment(environment);
        let client = within("client", client.connect()).await.unwrap();
        let producer = client.producer().compression(Compression::None).build().unwrap();
        (cluster, client, producer)
    });
    let job = async |topic: &str| {
        cluster.create_topic(topic, 1, 1).unwrap();
        let sent = producer.send(Record::to(topic).partition(0).value("x")).await.unwrap();
        within("its end", sent).await.unwrap();
        cluster.delete_topic(topic).unwrap();
    };
    let jobs = |numbers: std::ops::Range<usize>| {
        runtime.block_on(async {
            for number in numbers {
                job(&format!("job-{number}")).await;
                if number % 500 == 499 {
                    mishaps.order("sender", 1);
                    job("panics").await;
                    assert_eq!(mishaps.left("sender"), 0);
                    tokio::time::sleep(secs(3_600)).await;
                    job("later").await;
                }
            }
        });
    };
    jobs(0..1_000);
    let kept = measure(|| jobs(1_000..1_000 + TOPICS)).bytes_current;
    assert!(kept < FLAT, "{kept} bytes");
}

/// Producers whose settings differ have batches of their own for each topic.
#[test]
fn producers_that_come_and_go() {
    let service = Service::new();
    let jobs = |n: u64| {
        service.runtime.block_on(async {
            for i in 0..n {
                let settings = service._client.producer().linger(secs(0));
                let producer = settings.delivery_timeout(secs(10 + i)).build().unwrap();
                let sent = producer.send(Record::to("t").value("x")).await.unwrap();
                within("ack", sent).await.unwrap();
            }
        });
    };
    jobs(200);
    let kept = measure(|| jobs(3_000)).bytes_current;
    assert!(kept < FLAT, "{kept} bytes");
}

/// The broker remembers the sequence of a partition for a day; this client for minutes. Batches are alike,
/// so that one taken for another would be lost.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_used_again() {
    let cluster = cluster(3, 3);
    let client = virtual_cluster::client(&cluster, 1).connect().await.unwrap();
    let hashed = client.producer().partitioner(Partitioner::KeyHash).build().unwrap();
    let spread = client.producer().build().unwrap();
    let mut sent = 0;
    for round in 0..60u64 {
        for i in 0..3u8 {
            let key = [i];
            let records = [
                (&hashed, Record::to("t").key(&key).value("x")),
                (&hashed, Record::to("t").partition(i32::from(i)).value("x")),
                (&spread, Record::to("t").value("x")),
            ];
            for (producer, record) in records {
                let delivery = producer.send(record).await.unwrap();
                assert!(within("ack", delivery).await.unwrap().offset >= 0);
                sent += 1;
            }
        }
        // From a minute to an hour: known still, or let go, by the producer or by all.
        tokio::time::sleep(secs(60 * (1 + round * 7 % 60))).await;
    }
    let all: usize = (0..3).map(|p| cluster.records("t", p).unwrap().len()).sum();
    assert_eq!(all, sent);
    let epochs = cluster.records("t", 0).unwrap().iter().map(|r| r.producer_epoch).max();
    assert!(epochs > Some(5), "nothing was forgotten: {epochs:?}");
}
