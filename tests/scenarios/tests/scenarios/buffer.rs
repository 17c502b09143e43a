//! Who may fill the buffer, and who waits for whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{Client, Compression, ErrorKind, Partitioner, Producer, Record};
use ottla_scenarios::steps::{self, acks, connect, ms, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::Instant;

const VALUE: [u8; 1_000] = [b'x'; 1_000];

fn cluster() -> Cluster {
    let cluster = Cluster::builder()
        .brokers(3)
        .tcp(false)
        .topic("stalled", 12, 3)
        .topic("a", 6, 3)
        .topic("b", 6, 3)
        .start_on_current_runtime()
        .unwrap();
    // An append takes its time: what is in flight, and so the buffer, decides on the throughput.
    cluster.set_replica_delay(ms(20));
    cluster
}

async fn client(cluster: &Cluster) -> Client {
    connect(virtual_cluster::client(cluster, 1)).await
}

fn producer(client: &Client) -> Producer {
    client
        .producer()
        .batch_size(16 << 10)
        .compression(Compression::None)
        .partitioner(Partitioner::KeyHash)
        .buffer_memory(4 << 20)
        .max_block(secs(3_600))
        .build()
        .unwrap()
}

/// What of records goes where nobody takes them.
#[derive(Clone, Copy)]
enum Stalled {
    Nothing,
    Topic,
    Partition,
    /// All partitions that a broker leads.
    Broker,
}

/// Records of two topics, spread and by key, that are acknowledged in ten seconds, while others are sent
/// where nothing is taken.
async fn acknowledged(stalled: Stalled, seed: u64) -> u64 {
    let cluster = cluster();
    let client = connect(virtual_cluster::client(&cluster, seed)).await;
    let producer = producer(&client);
    let of = |p: i32| cluster.partition("stalled", p).unwrap().leader == Some(1);
    let partitions: Vec<Option<i32>> = match stalled {
        Stalled::Nothing => Vec::new(),
        Stalled::Topic => vec![None],
        Stalled::Partition => vec![Some(0)],
        Stalled::Broker => (0..12).filter(|p| of(*p)).map(Some).collect(),
    };
    // The partitions of that topic refuse, retriably, for ever: the brokers themselves are well.
    let refused = FaultRule::new(Fault::Error(19)).api(ApiKey::PRODUCE).topic("stalled").always();
    cluster.faults().inject(refused);
    let mut tasks = Vec::new();
    for partition in partitions {
        for _ in 0..4 {
            let producer = producer.clone();
            tasks.push(tokio::spawn(async move {
                loop {
                    let mut record = Record::to("stalled").value(&VALUE);
                    record = match partition {
                        Some(partition) => record.partition(partition),
                        None => record,
                    };
                    drop(producer.send(record).await.unwrap());
                }
            }));
        }
    }
    // The buffer is as full as they can make it.
    tokio::time::sleep(secs(5)).await;
    let acked = Arc::new(AtomicU64::new(0));
    for number in 0..64 {
        let (producer, acked) = (producer.clone(), Arc::clone(&acked));
        tasks.push(tokio::spawn(async move {
            for i in 0u64.. {
                let key = i.to_be_bytes();
                let record = match number % 2 {
                    0 => Record::to("a").value(&VALUE),
                    _ => Record::to("b").value(&VALUE).key(&key),
                };
                let delivery = producer.send(record).await.unwrap();
                let acked = Arc::clone(&acked);
                // One at a time and task: what is measured is who gets in, and how soon.
                if i % 4 == 0 {
                    delivery.await.unwrap();
                    acked.fetch_add(4, Ordering::Relaxed);
                }
            }
        }));
    }
    tokio::time::sleep(secs(10)).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    acked.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn s09_what_is_stalled_leaves_other_topics_their_throughput() {
    // Where records of a run meet, and who is gathered with whom, decides on a tenth of it: four runs of each.
    let (mut alone, mut beside) = (0, [0; 3]);
    for seed in 1..=4 {
        alone += acknowledged(Stalled::Nothing, seed).await;
        for (sum, stalled) in
            beside.iter_mut().zip([Stalled::Topic, Stalled::Partition, Stalled::Broker])
        {
            *sum += acknowledged(stalled, seed).await;
        }
    }
    assert!(alone > 40_000, "{alone}");
    for beside in beside {
        assert!(beside as f64 >= 0.95 * alone as f64, "{beside} of {alone}");
    }
}

#[tokio::test(start_paused = true)]
async fn s09_a_full_quota_is_said_and_others_have_room() {
    let cluster = cluster();
    let client = client(&cluster).await;
    let producer = producer(&client);
    cluster.set_partition_replica_delay("stalled", 0, Some(secs(3_600))).unwrap();
    let to_it = || producer.try_send(Record::to("stalled").partition(0).value(&VALUE));
    let full = loop {
        match to_it() {
            Ok(delivery) => drop(delivery),
            Err(e) => break e,
        }
    };
    assert_eq!(full.kind(), ErrorKind::BufferFull);
    assert!(full.message().contains("their quota of buffer_memory"), "{full}");
    let delivery = producer.try_send(Record::to("a").value(&VALUE)).unwrap();
    within("ack", delivery).await.unwrap();
    // Who waits for the full share waits for no one else's place, and nobody for theirs.
    let waits = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(Record::to("stalled").partition(0).value(&VALUE)).await.is_ok() }
    });
    for _ in 0..100 {
        let delivery = within("space", producer.send(Record::to("a").value(&VALUE))).await.unwrap();
        within("ack", delivery).await.unwrap();
    }
    assert!(!waits.is_finished());
    cluster.set_partition_replica_delay("stalled", 0, Some(ms(1))).unwrap();
    assert!(within("space", waits).await.unwrap());
}

/// Batches that are never full, as they may be as large as the buffer, and a broker that is at work on a
/// request for 20 s: nothing goes because it is full, overdue, or because the broker is idle.
async fn never_full_and_never_idle() -> (Cluster, Client, Producer) {
    let cluster = steps::cluster(1, 1);
    let client = client(&cluster).await;
    let builder = client.producer().linger(secs(60)).batch_size(2 << 20).buffer_memory(2 << 20);
    let producer = builder.compression(Compression::None).build().unwrap();
    steps::acked(&producer, steps::free()).await;
    let slow = FaultRule::new(Fault::DelayResponse(secs(20))).api(ApiKey::PRODUCE);
    cluster.faults().inject(slow);
    drop(producer.try_send(steps::free()).unwrap());
    until("the broker is at work", || client.stats().produce_requests == 2).await;
    (cluster, client, producer)
}

/// Who waits for space has sent what holds it, and all goes on as soon as the broker does.
#[tokio::test(start_paused = true)]
async fn s05_a_full_buffer_drains_under_a_long_linger() {
    let (_cluster, client, producer) = never_full_and_never_idle().await;
    let begun = Instant::now();
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move {
            let payload = vec![7; 100_000];
            let mut deliveries = Vec::new();
            for _ in 0..60 {
                let sending = producer.send(Record::to("t").value(&payload));
                deliveries.push(within("space", sending).await.unwrap());
                if deliveries.len() == 1 {
                    // The engine has looked at what is open: it does not lie before it unseen.
                    tokio::time::sleep(ms(1)).await;
                }
            }
            deliveries
        }
    });
    until("a third request", || client.stats().produce_requests > 2).await;
    assert!(begun.elapsed() < ms(10), "it lingered: {:?}", begun.elapsed());
    let deliveries = within("space for all", sending).await.unwrap();
    assert!(begun.elapsed() < secs(30), "sending waited {:?}", begun.elapsed());
    within("flush", producer.flush()).await.unwrap();
    assert!(begun.elapsed() < secs(30), "flush waited for the linger: {:?}", begun.elapsed());
    acks(deliveries).await;
}

#[tokio::test(start_paused = true)]
async fn s05_the_wait_for_space_is_bounded() {
    let cluster = steps::cluster(1, 1);
    let client = client(&cluster).await;
    let producer = client
        .producer()
        .buffer_memory(1 << 20)
        .max_block(secs(2))
        .compression(Compression::None)
        .build()
        .unwrap();
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    let payload = vec![7; 100_000];
    let mut taken = Vec::new();
    let begun = Instant::now();
    let error = loop {
        match within("space or refusal", producer.send(Record::to("t").value(&payload))).await {
            Ok(delivery) => taken.push(delivery),
            Err(error) => break error,
        }
        assert!(taken.len() < 20, "1 MiB holds no more than ten");
    };
    assert_eq!(error.kind(), ErrorKind::BufferFull);
    assert!((secs(2)..secs(3)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    cluster.start_broker(1).unwrap();
    acks(taken).await;
}

/// The same for who is refused, and does not wait.
#[tokio::test(start_paused = true)]
async fn s05_trying_again_and_again_empties_a_full_buffer_too() {
    let (_cluster, client, producer) = never_full_and_never_idle().await;
    let begun = Instant::now();
    let payload = vec![7; 100_000];
    let mut taken = Vec::new();
    let mut refused = 0;
    while taken.len() < 40 {
        match producer.try_send(Record::to("t").value(&payload)) {
            Ok(delivery) => {
                taken.push(delivery);
                if taken.len() == 1 {
                    tokio::time::sleep(ms(1)).await;
                }
            }
            Err(back) => {
                assert_eq!(back.kind(), ErrorKind::BufferFull);
                refused += 1;
                tokio::time::sleep(ms(10)).await;
                if refused == 1 {
                    assert_eq!(client.stats().produce_requests, 3, "it lingers");
                }
            }
        }
    }
    assert!(refused > 0 && begun.elapsed() < secs(30), "{refused}, {:?}", begun.elapsed());
    within("flush", producer.flush()).await.unwrap();
    acks(taken).await;
}

/// Partitions that nobody leads, as far as is known, have one share together.
#[tokio::test(start_paused = true)]
async fn s09_partitions_without_a_leader_leave_something_for_others() {
    let cluster = cluster();
    let client = client(&cluster).await;
    let producer = client.producer().compression(Compression::None).buffer_memory(16 << 20);
    let producer = producer.batch_size(16 << 10).build().unwrap();
    within("ack", producer.send(Record::to("a").value("x")).await.unwrap()).await.unwrap();
    cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::METADATA).always());
    let mut taken = 0;
    while let Ok(delivery) =
        producer.try_send(Record::to("stalled").partition(taken % 12).value(&VALUE))
    {
        drop(delivery);
        taken += 1;
    }
    // Two thirds, and a piece of memory for each of twelve.
    assert!((7_000..10_500).contains(&taken), "{taken}");
    within("ack", producer.try_send(Record::to("a").value("x")).unwrap()).await.unwrap();
}

/// What is compressed counts with what it takes then.
#[tokio::test(start_paused = true)]
async fn what_is_compressed_leaves_space_for_more() {
    let cluster = steps::cluster(1, 1);
    let client = client(&cluster).await;
    let producer = client.producer().compression(Compression::Lz4).buffer_memory(2 << 20);
    let producer = producer.build().unwrap();
    cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE).always());
    // As they are, fourteen would fill their share.
    for number in 0..25 {
        let sent = producer.try_send(Record::to("t").value(&[7; 100_000]));
        drop(sent.unwrap_or_else(|e| panic!("{number}: {e}")));
        tokio::task::yield_now().await;
    }
}

/// Neither who has waited for space, nor who has given up, is in anybody's way afterwards.
#[tokio::test(start_paused = true)]
async fn s05_who_does_not_wait_any_more_is_not_waited_for() {
    let cluster = steps::cluster(1, 1);
    let client = client(&cluster).await;
    let producer = client.producer().buffer_memory(1 << 20).compression(Compression::None);
    let producer = producer.build().unwrap();
    let slow = FaultRule::new(Fault::DelayResponse(secs(1))).api(ApiKey::PRODUCE);
    cluster.faults().inject(slow.always());
    let payload = vec![7; 100_000];
    let large = Record::to("t").value(&payload);
    while producer.try_send(large).map(drop).is_ok() {}
    tokio::time::timeout(ms(10), producer.send(large)).await.expect_err("there is no space");
    drop(within("space", producer.send(large)).await.unwrap());
    within("flush", producer.flush()).await.unwrap();
    within("ack", producer.try_send(large).unwrap()).await.unwrap();
}
