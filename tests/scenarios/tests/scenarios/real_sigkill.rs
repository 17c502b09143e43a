//! A broker dies by SIGKILL while records are on their way, and comes back: what was acknowledged
//! is there, once, in the order of acknowledgement.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ottla::{Acked, Client, NewTopic, Producer, Record};
use ottla_scenarios::interop;
use ottla_test_kafka::{Cluster, Options};

const PARTITIONS: i32 = 6;
const SENDERS: usize = 4;
/// How much is acknowledged before, during and after the outage.
const STAGE: usize = 20_000;
/// A leader election after SIGKILL takes the broker session timeout, 9 s, on an idle machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// Values acknowledged, in the order of sending, with the place the broker named.
type Log = Vec<(String, Acked)>;

/// Sends numbered records until told to stop, at most `WINDOW` unacknowledged.
async fn send(
    producer: Producer,
    topic: String,
    name: String,
    partition: Option<i32>,
    acked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Log {
    const WINDOW: usize = 500;
    let mut log = Log::new();
    let mut open = std::collections::VecDeque::new();
    let mut number = 0;
    loop {
        let stopping = stop.load(Ordering::Acquire);
        while !stopping && open.len() < WINDOW {
            let value = format!("{name}/{number}");
            number += 1;
            let mut record = Record::to(&topic).value(&value);
            if let Some(partition) = partition {
                record = record.partition(partition);
            }
            let delivery = producer.send(record).await.expect("there is buffer space");
            open.push_back((value, delivery));
        }
        let Some((value, delivery)) = open.pop_front() else { return log };
        match delivery.await {
            Ok(at) => log.push((value, at)),
            Err(e) => panic!("{value}: {e}"),
        }
        acked.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn real_sigkill_of_one_of_three_brokers() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let done = tokio::time::timeout(DEADLINE, scenario(&cluster)).await;
        assert!(done.is_ok(), "not done within {DEADLINE:?}\n{}", cluster.logs_tail(20));
    });
}

async fn scenario(cluster: &Cluster) {
    let topic = "numbers".to_owned();
    let client = Client::connect(cluster.bootstrap()).await.unwrap();
    client.admin().create_topic(NewTopic::new(&topic, PARTITIONS, 3)).await.unwrap();
    let producer = client.producer().batch_size(16 << 10).build().unwrap();
    let (acked, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    for sender in 0..SENDERS {
        // Half of them name a partition: those have nowhere else to go.
        let partition = (sender % 2 == 1).then_some(sender as i32);
        tasks.push(tokio::spawn(send(
            producer.clone(),
            topic.clone(),
            format!("s{sender}"),
            partition,
            Arc::clone(&acked),
            Arc::clone(&stop),
        )));
    }
    let reached = |goal: usize| {
        let acked = Arc::clone(&acked);
        async move {
            while acked.load(Ordering::Acquire) < goal {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    reached(STAGE).await;
    // The leader of partition 1, so that a sender that named it is hit.
    let victim = leader(cluster, &topic, 1);
    cluster.kill(victim).unwrap();
    let at_kill = acked.load(Ordering::Acquire);
    reached(at_kill + STAGE).await;
    cluster.restart(victim).unwrap();
    let at_restart = acked.load(Ordering::Acquire);
    reached(at_restart + STAGE).await;
    stop.store(true, Ordering::Release);
    let mut logs = Vec::new();
    for task in tasks {
        logs.push(task.await.unwrap());
    }
    let stats = client.stats();
    println!(
        "{} records acknowledged: {at_kill} before the kill, {} during, {} after; {} retries, {} connects",
        logs.iter().map(Vec::len).sum::<usize>(),
        at_restart - at_kill,
        acked.load(Ordering::Acquire) - at_restart,
        stats.produce_retries,
        stats.connects,
    );
    verify(cluster, &topic, &logs).await;
}

fn leader(cluster: &Cluster, topic: &str, partition: i32) -> u32 {
    let args = ["--bootstrap-server", cluster.bootstrap(), "--describe", "--topic", topic];
    let out = cluster.run_tool("org.apache.kafka.tools.TopicCommand", &args).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let named = format!("Partition: {partition}\t");
    text.lines()
        .find(|line| line.contains(&named))
        .and_then(|line| line.split("Leader: ").nth(1)?.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no leader of partition {partition} in\n{text}"))
}

/// Reads everything back with a client of its own and compares.
async fn verify(cluster: &Cluster, topic: &str, logs: &[Log]) {
    let total = logs.iter().map(Vec::len).sum();
    let rows = interop::read(cluster.bootstrap(), topic, total).await.unwrap();
    let mut at: HashMap<String, (i32, i64)> = HashMap::new();
    for row in rows {
        let value = String::from_utf8(row.value.unwrap()).unwrap();
        let twice = at.insert(value.clone(), (row.partition, row.offset));
        assert_eq!(twice, None, "{value} is in the log twice, also at {:?}", at[&value]);
    }
    let places: HashSet<_> = at.values().collect();
    assert_eq!(places.len(), total, "two records in one place");
    for log in logs {
        let mut last: HashMap<i32, i64> = HashMap::new();
        for (value, acked) in log {
            let found =
                at.get(value).unwrap_or_else(|| panic!("{value} was acknowledged and is lost"));
            // -1: the broker only remembered that it had the batch.
            if acked.offset >= 0 {
                assert_eq!(*found, (acked.partition, acked.offset), "{value}");
            }
            assert_eq!(found.0, acked.partition, "{value}");
            last.insert(found.0, found.1);
        }
        // A record that names its partition is behind those sent before it.
        if last.len() == 1 {
            let offsets: Vec<i64> = log.iter().map(|(value, _)| at[value].1).collect();
            assert!(offsets.is_sorted(), "{} is out of order", log[0].0);
        }
    }
}
