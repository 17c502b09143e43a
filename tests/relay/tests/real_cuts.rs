//! Responses of real brokers that are lost after the append, with their connections, under load: the
//! client cannot know, sends again in place, and the broker tells that it has the batch. Records that
//! name a partition stay in order there; others may take turns, since what was behind the cut and never
//! left goes wherever there is room.

use std::sync::Arc;
use std::time::Duration;

use ottla::{Client, NewTopic, Producer, Record};
use ottla_relay::load::{self, Dials, Fate, Load, OttlaClient, Place, Verdict, check, read_back};
use ottla_relay::{RelayedCluster, What};
use ottla_test_kafka::Options;

const TOPIC: &str = "cuts";
const PARTITIONS: i32 = 12;
/// Half of them name a partition.
const CLIENTS: usize = 10;
const CUTS: usize = 20;
/// Acknowledged by each client before the first cut, and in all after each.
const SETTLED: usize = 20;
const BETWEEN: usize = 100;
/// Ends a test that would hang.
const DEADLINE: Duration = Duration::from_secs(120);

/// Sends everything to one partition.
struct Pinned {
    producer: Producer,
    partition: i32,
}

impl load::Client for Pinned {
    fn send(&self, topic: &str, value: &str) -> Fate {
        let record = Record::to(topic).partition(self.partition).value(value);
        let taken = self.producer.try_send(record).map_err(|e| e.to_string());
        Box::pin(async move {
            let at = taken?.await.map_err(|e| e.to_string())?;
            Ok(Place { partition: at.partition, offset: at.offset })
        })
    }
}

#[test]
fn real_s02_twenty_responses_lost_under_load() {
    let lab = RelayedCluster::start(Options::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let done = tokio::time::timeout(DEADLINE, cuts(&lab)).await;
        assert!(done.is_ok(), "not done within {DEADLINE:?}\n{}", lab.cluster.logs_tail(20));
    });
}

async fn cuts(lab: &RelayedCluster) {
    let around = Client::connect(lab.cluster.bootstrap()).await.unwrap();
    around.admin().create_topic(NewTopic::new(TOPIC, PARTITIONS, 3)).await.unwrap();
    lab.cluster.wait_in_sync(&[TOPIC]).unwrap();
    let dials = Dials::default();
    let bootstrap = lab.relay.bootstrap();
    let clients = OttlaClient::connect_many(&bootstrap, "cuts-", CLIENTS, &dials);
    let clients = clients.await.unwrap();
    let counted: Vec<_> = clients.iter().map(|c| c.client.clone()).collect();
    let mut free: Vec<Arc<dyn load::Client>> = Vec::new();
    let mut pinned: Vec<Arc<dyn load::Client>> = Vec::new();
    for (partition, client) in (0..PARTITIONS).zip(clients) {
        if partition % 2 == 0 {
            free.push(Arc::new(client));
        } else {
            let producer = client.client.producer().build().unwrap();
            pinned.push(Arc::new(Pinned { producer, partition }));
        }
    }
    let every = Duration::from_millis(10);
    let load = Load::start(&free, "free", TOPIC, every);
    let bound = Load::start(&pinned, "bound", TOPIC, every);
    load.reached(SETTLED).await;
    bound.reached(SETTLED).await;

    let lost = |log: &ottla_relay::Log| {
        log.events().iter().filter(|event| event.what == What::ResponseLost).count()
    };
    for (cut, broker) in (1..=CUTS).zip(lab.relay.brokers().into_iter().cycle()) {
        lab.relay.lose_responses(broker, 1);
        // Whoever writes to that broker next is hit; until then others are acknowledged.
        while lost(&lab.relay.log()) < cut {
            load.reached_in_total(load.acked() + 1).await;
        }
        load.reached_in_total(load.acked() + BETWEEN).await;
    }
    let (free, pinned) = (load.stop().await, bound.stop().await);
    let retries: u64 = counted.iter().map(|client| client.stats().produce_retries).sum();
    let rows = read_back(lab.cluster.bootstrap(), TOPIC).await.unwrap();
    let (free, pinned) = (check(&free, &rows), check(&pinned, &rows));
    println!("{CUTS} answers lost, {retries} retries: free {free:?}, pinned {pinned:?}");
    // Only requests with nothing but retries are counted as such: what was lost may be sent again beside
    // fresh batches of the same client. That each lost answer was asked for again is what the verdicts say.
    assert!(retries > 0, "no lost answer was asked for again");
    assert!(Verdict { out_of_order: 0, ..free }.is_clean(), "{free:?}");
    assert!(pinned.is_clean(), "{pinned:?}");
    assert_eq!(rows.len(), free.acked + pinned.acked, "nothing else was written");
}
