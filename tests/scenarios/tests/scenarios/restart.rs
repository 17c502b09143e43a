//! All brokers restart, one after the other, under load, in virtual time: every record is acknowledged,
//! and there once. (On real Kafka: tests/relay, `real_rolling_restart`.)

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ottla::testing::{Cluster, Leaders};
use ottla::{Acked, Producer, Record};
use ottla_scenarios::steps::{cluster, connect, ms, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;

const BROKERS: i32 = 3;
const PARTITIONS: i32 = 6;
const SENDERS: i32 = 8;
const EVERY: Duration = Duration::from_millis(20);
/// What the controller waits for a broker that says nothing more.
const SESSION: Duration = Duration::from_secs(9);

/// Sends numbered records at a steady pace until told to stop; half of the senders name a partition.
/// Gives where each was acknowledged, in the order of sending.
async fn send(producer: Producer, sender: i32, stop: Arc<AtomicBool>) -> Vec<(String, Acked)> {
    let mut open = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let value = format!("{sender}/{number}");
        let mut record = Record::to("t").value(&value);
        if sender % 2 == 1 {
            record = record.partition(sender % PARTITIONS);
        }
        open.push((value.clone(), producer.send(record).await.unwrap()));
        tokio::time::sleep(EVERY).await;
    }
    let mut acked = Vec::new();
    for (value, delivery) in open {
        match within("an ack", delivery).await {
            Ok(at) => acked.push((value, at)),
            Err(e) => panic!("{value}: {e}"),
        }
    }
    acked
}

/// Restarts all brokers as `restart` does it; gives how many batches were recognised as sent before.
async fn rolled(seed: u64, restart: impl AsyncFn(&Cluster, i32)) -> u64 {
    let cluster = cluster(BROKERS, PARTITIONS);
    // What is in flight when a broker goes away has been appended there, and not acknowledged.
    cluster.set_replica_delay(ms(30));
    let client = connect(virtual_cluster::client(&cluster, seed)).await;
    let producer = client.producer().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| tokio::spawn(send(producer.clone(), sender, Arc::clone(&stop))))
        .collect();
    tokio::time::sleep(secs(5)).await;
    for broker in 1..=BROKERS {
        restart(&cluster, broker).await;
        tokio::time::sleep(secs(5)).await;
        cluster.elect_preferred_leaders();
        tokio::time::sleep(secs(5)).await;
    }
    stop.store(true, Ordering::Relaxed);

    let mut acked = Vec::new();
    for sender in senders {
        acked.push(within("the end", sender).await.unwrap());
    }
    let mut there: HashMap<String, (i32, i64)> = HashMap::new();
    for partition in 0..PARTITIONS {
        for record in cluster.records("t", partition).unwrap() {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            let twice = there.insert(value.clone(), (partition, record.offset));
            assert_eq!(twice, None, "seed {seed}: {value} is there twice");
        }
    }
    assert_eq!(there.len(), acked.iter().map(Vec::len).sum::<usize>(), "seed {seed}");
    for (sender, acked) in acked.iter().enumerate() {
        let places: Vec<_> = acked.iter().map(|(value, _)| there[value]).collect();
        for ((partition, offset), (value, at)) in places.iter().zip(acked) {
            // -1: the broker only remembered that it had the batch.
            let there = at.partition == *partition && (at.offset < 0 || at.offset == *offset);
            assert!(there, "seed {seed}: {value} is said to be at {at:?}");
        }
        assert!(sender % 2 == 0 || places.is_sorted(), "seed {seed}: {sender} is out of order");
        assert!(places.len() > 1_000, "{sender} has sent {}", places.len());
    }
    cluster.stats().brokers.iter().map(|broker| broker.produce_duplicates).sum()
}

#[tokio::test(start_paused = true)]
async fn s01_clean_rolling_restart() {
    for seed in 0..3 {
        rolled(seed, async |cluster, broker| {
            cluster.stop_broker(broker, Leaders::Move).unwrap();
            tokio::time::sleep(secs(10)).await;
            cluster.start_broker(broker).unwrap();
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn s01_hard_rolling_restart() {
    let mut recognised = 0;
    for seed in 0..3 {
        recognised += rolled(seed, async |cluster, broker| {
            cluster.stop_broker(broker, Leaders::Keep).unwrap();
            tokio::time::sleep(SESSION).await;
            cluster.fence_broker(broker).unwrap();
            tokio::time::sleep(secs(10)).await;
            cluster.start_broker(broker).unwrap();
        })
        .await;
    }
    assert!(recognised > 0, "nothing was in doubt: the cuts came too early or late");
}

/// The only leader of a topic goes away for long, and another takes over: what may go anywhere learns of it,
/// also while the client is connected to others.
#[tokio::test(start_paused = true)]
async fn what_may_go_anywhere_follows_the_only_leader() {
    for seed in 0..20 {
        let cluster = cluster(BROKERS, 1);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        within("an ack", producer.send(Record::to("t").value("old")).await.unwrap()).await.unwrap();
        if seed % 2 == 0 {
            tokio::time::sleep(ms(200)).await;
        }
        cluster.stop_broker(1, Leaders::Move).unwrap();
        let sent = producer.send(Record::to("t").value("new")).await.unwrap();
        let at = tokio::time::timeout(secs(5), sent).await;
        assert_eq!(at.expect("learned in time").unwrap().offset, 1, "seed {seed}");
    }
}
