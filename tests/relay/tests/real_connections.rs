//! How many connections a process has, counted by the relay: producers and consumers share them.

use std::time::{Duration, Instant};

use kafka_protocol::messages::ApiKey;
use ottla::{Client, Environment, NewTopic, Producer, Record};
use ottla_relay::{Relay, RelayedCluster};
use ottla_test_kafka::Options;
use tokio::runtime::Handle;

const TOPIC: &str = "shared";
const PARTITIONS: i32 = 30;
const PRODUCERS: usize = 8;
/// Rounds of one record for each partition.
const ROUNDS: usize = 10;
/// Ends a test that would hang.
const DEADLINE: Duration = Duration::from_secs(120);

/// A client in a "process": those of one environment share everything.
async fn connect(relay: &Relay, process: &Environment) -> Client {
    let client = Client::builder().bootstrap(relay.bootstrap()).environment(process.clone());
    client.connect().await.unwrap()
}

fn process() -> Environment {
    Environment::builder().runtime(Handle::current()).build()
}

/// A record to every partition, so that every broker is used, again and again.
async fn produce(producer: Producer) {
    for _ in 0..ROUNDS {
        let mut sent = Vec::new();
        for partition in 0..PARTITIONS {
            let record = Record::to(TOPIC).partition(partition).value("x");
            sent.push(producer.send(record).await.unwrap());
        }
        for delivery in sent {
            delivery.await.unwrap();
        }
    }
}

/// Whether requests of a kind came to each broker since a moment.
fn everywhere(relay: &Relay, api: ApiKey, since: Instant) -> bool {
    let log = relay.log().between(since, Instant::now());
    relay.brokers().into_iter().all(|broker| log.at_broker(broker).requests(api) > 0)
}

#[test]
fn real_producers_and_a_consumer_of_a_process_share_connections() {
    let cluster = RelayedCluster::start(Options::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let done = tokio::time::timeout(DEADLINE, count(&cluster)).await;
        assert!(done.is_ok(), "not done within {DEADLINE:?}\n{}", cluster.cluster.logs_tail(20));
    });
}

async fn count(cluster: &RelayedCluster) {
    let relay = &cluster.relay;
    let around = Client::connect(cluster.cluster.bootstrap()).await.unwrap();
    around.admin().create_topic(NewTopic::new(TOPIC, PARTITIONS, 3)).await.unwrap();
    cluster.cluster.wait_in_sync(&[TOPIC]).unwrap();

    // Producers alone: a lane for each broker, and one for short calls.
    let from = Instant::now();
    let alone = process();
    let producers: Vec<_> = {
        let mut all = Vec::new();
        for _ in 0..PRODUCERS {
            all.push(connect(relay, &alone).await.producer().build().unwrap());
        }
        all
    };
    let tasks: Vec<_> = producers.iter().map(|p| tokio::spawn(produce(p.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(everywhere(relay, ApiKey::Produce, from), "not every broker was used");
    let open = relay.log().open_at_most(from, Instant::now());
    println!("{PRODUCERS} producers: {open} connections");
    assert!(open <= 3 + 1, "{PRODUCERS} producers on 3 brokers: {open} connections");
    drop(producers);
    let closed = |log: &ottla_relay::Log| {
        let now = Instant::now();
        (log.open_at_most(now, now) == 0).then_some(())
    };
    tokio::task::block_in_place(|| relay.wait(DEADLINE, closed)).expect("a dropped client closes");

    // And with a consumer of everything.
    let from = Instant::now();
    let both = process();
    let mut consumer = connect(relay, &both).await.consumer().topics([TOPIC]).build().unwrap();
    let mut tasks = Vec::new();
    for _ in 0..PRODUCERS {
        let producer = connect(relay, &both).await.producer().build().unwrap();
        tasks.push(tokio::spawn(produce(producer)));
    }
    let mut left = 2 * PRODUCERS * ROUNDS * PARTITIONS as usize;
    while left > 0 {
        left -= consumer.next().await.unwrap().unwrap().into_iter().count();
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(everywhere(relay, ApiKey::Produce, from), "not every broker was produced to");
    assert!(everywhere(relay, ApiKey::Fetch, from), "not every broker was fetched from");
    let open = relay.log().open_at_most(from, Instant::now());
    println!("{PRODUCERS} producers and a consumer: {open} connections");
    let uses = relay.log().between(from, Instant::now()).uses();
    assert!(open <= 3 + 3 + 1, "{PRODUCERS} producers and a consumer: {open} connections {uses:?}");
}
