//! Several that send to the same place: each has its turn, however much the others send. In virtual
//! time.

use std::collections::BTreeSet;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders, error_code};
use ottla::{Compression, Producer, Record};
use ottla_scenarios::steps::{
    acked, acks, cluster, connect, free, ms, pinned, secs, small_batches, stored, value,
};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;

/// A broker that takes less than a producer has to send.
fn slow(cluster: &Cluster) {
    let rule = FaultRule::new(Fault::Delay(ms(50))).api(ApiKey::PRODUCE);
    cluster.faults().inject(rule.always());
}

/// Sends as much as there is space for.
fn flood(producer: Producer, partition: Option<i32>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let record = Record::to("t").value(&[7; 1_000]);
            let record = match partition {
                Some(partition) => record.partition(partition),
                None => record,
            };
            drop(producer.send(record).await.unwrap());
        }
    })
}

/// How long a record takes of one that sends little, beside one that sends all it can.
async fn beside_a_flood(much_to: Option<i32>, little_to: Option<i32>, settings_differ: bool) {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    slow(&cluster);
    let builder = || {
        let builder = client.producer().compression(Compression::None).batch_size(2 << 10);
        builder.buffer_memory(1 << 20)
    };
    let much = builder().build().unwrap();
    let little = match settings_differ {
        true => builder().linger(ms(6)).build().unwrap(),
        false => much.clone(),
    };
    let flooding = flood(much, much_to);
    tokio::time::sleep(secs(1)).await;
    for _ in 0..3 {
        let record = Record::to("t").value("little");
        let record = match little_to {
            Some(partition) => record.partition(partition),
            None => record,
        };
        let delivery = within("space", little.send(record)).await.unwrap();
        let took = tokio::time::timeout(secs(60), delivery).await;
        took.expect("others are served for ever").unwrap();
    }
    flooding.abort();
}

#[tokio::test(start_paused = true)]
async fn a_clone_has_its_turn_beside_one_that_sends_all_it_can() {
    beside_a_flood(None, None, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_producer_with_other_settings_has_its_turn() {
    for partition in [None, Some(0)] {
        beside_a_flood(partition, partition, true).await;
    }
}

/// To the only partition there is.
#[tokio::test(start_paused = true)]
async fn what_names_its_partition_and_what_does_not_have_their_turns() {
    beside_a_flood(Some(0), None, false).await;
    beside_a_flood(None, Some(0), false).await;
}

/// The numbers in the log of partition 0, without what [`free`] has sent.
fn numbers(cluster: &Cluster) -> Vec<usize> {
    let number = |record: ottla::testing::Record| {
        std::str::from_utf8(&record.value.unwrap()).unwrap().parse().ok()
    };
    stored(cluster, 0).into_iter().filter_map(number).collect()
}

/// A topic of one partition keeps the order, also if it had more of them before it was made anew.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_left_with_one_partition_keeps_its_order() {
    for seed in 0..16 {
        let cluster = cluster(1, 3);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let producer = small_batches(&client).linger(secs(0)).build().unwrap();
        acked(&producer, free()).await;
        cluster.delete_topic("t").unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        while stored(&cluster, 0).is_empty() {
            if let Ok(delivery) = producer.send(free()).await {
                let _ = within("an outcome", delivery).await;
            }
            tokio::time::sleep(secs(1)).await;
        }
        let refused = FaultRule::new(Fault::Error(error_code::NOT_LEADER_OR_FOLLOWER));
        cluster.faults().inject(refused.api(ApiKey::PRODUCE).share(0.6, seed).times(30));
        let mut deliveries = Vec::new();
        for number in 0..20 {
            let value = value(number);
            deliveries.push(producer.send(Record::to("t").value(&value)).await.unwrap());
        }
        acks(deliveries).await;
        assert_eq!(numbers(&cluster), Vec::from_iter(0..20), "seed {seed}");
    }
}

/// Requests are bounded: partitions whose batches do not fit into one have their turn in the next.
#[tokio::test(start_paused = true)]
async fn every_partition_that_is_named_has_its_turn() {
    // As many in flight as a broker gets are filled by the first three of them.
    const PARTITIONS: i32 = 8;
    let cluster = cluster(1, PARTITIONS);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    slow(&cluster);
    // Each has a buffer of its own, as settings differ: none waits for space that others have.
    let producer = |partition: i32| {
        let builder = client.producer().compression(Compression::None).batch_size(512 << 10);
        builder.buffer_memory(12 << 20).linger(ms(5 + partition as u64)).build().unwrap()
    };
    let flooding: Vec<_> = (0..PARTITIONS - 1)
        .map(|partition| {
            let producer = producer(partition);
            tokio::spawn(async move {
                let value = vec![7; 400_000];
                loop {
                    let record = Record::to("t").partition(partition).value(&value);
                    drop(producer.send(record).await.unwrap());
                }
            })
        })
        .collect();
    let producer = producer(PARTITIONS);
    tokio::time::sleep(secs(1)).await;
    // So has what may go to any of them.
    for record in [Record::to("t").partition(PARTITIONS - 1), Record::to("t")] {
        for _ in 0..2 {
            let delivery = within("space", producer.send(record.value("little"))).await.unwrap();
            let took = tokio::time::timeout(secs(20), delivery).await;
            took.expect("others are served for ever").unwrap();
        }
    }
    flooding.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A broker closes the connection by which a request comes that is larger than it takes. What there is for
/// many partitions at a moment is not one request, whether it names them or not.
#[tokio::test(start_paused = true)]
async fn what_many_partitions_have_at_once_goes_in_several_requests() {
    for named in [true, false] {
        let cluster = Cluster::builder()
            .brokers(1)
            .tcp(false)
            .max_request_bytes(2 << 20)
            .topic("t", 40, 1)
            .start_on_current_runtime()
            .unwrap();
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let builder = client.producer().compression(Compression::None).batch_size(100 << 10);
        let producer = builder.linger(secs(1)).build().unwrap();
        acked(&producer, free()).await;
        let value = vec![7; 100_000];
        let mut deliveries = Vec::new();
        for partition in 0..40 {
            let record = Record::to("t").value(&value);
            let record = if named { record.partition(partition) } else { record };
            deliveries.push(within("space", producer.send(record)).await.unwrap());
        }
        acks(deliveries).await;
        let connections = cluster.stats().broker(1).unwrap().connections_accepted;
        assert!(connections <= 2, "named {named}: {connections} connections");
    }
}

/// What is sent a little of stays with a partition for minutes, and not for ever: each has its part in
/// the end.
#[tokio::test(start_paused = true)]
async fn a_choice_is_kept_for_minutes_and_not_for_ever() {
    let cluster = cluster(1, 12);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let first = acked(&producer, free()).await.partition;
    let mut others = BTreeSet::new();
    for seconds in (10..3_600).step_by(10) {
        tokio::time::sleep(secs(10)).await;
        let partition = acked(&producer, free()).await.partition;
        if partition != first {
            assert!(seconds >= 290, "after {seconds} s");
            others.insert(partition);
        }
    }
    assert!(others.len() >= 2, "{others:?}");
}

/// A choice falls with its leader: the next one is kept as long.
#[tokio::test(start_paused = true)]
async fn a_choice_falls_with_its_leader_and_the_next_one_stands() {
    for seed in 0..3 {
        let cluster = cluster(3, 12);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        let first = acked(&producer, free()).await.partition;
        let leader = cluster.partition("t", first).unwrap().leader.unwrap();
        cluster.stop_broker(leader, Leaders::Keep).unwrap();
        // Its connection ends, and no record has met its end.
        tokio::time::sleep(secs(1)).await;
        let mut others = BTreeSet::new();
        for _ in 0..60 {
            others.insert(acked(&producer, free()).await.partition);
            tokio::time::sleep(secs(1)).await;
        }
        assert_eq!(others.len(), 1, "seed {seed}: {others:?}");
    }
}

/// Where most have been sent to that broker, what comes then has no reason to avoid it.
#[tokio::test(start_paused = true)]
async fn what_was_answered_is_not_in_flight_any_more() {
    let mut first = BTreeSet::new();
    for seed in 0..16 {
        let cluster = cluster(2, 2);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        acked(&producer, pinned(1)).await;
        for _ in 0..20 {
            acked(&producer, pinned(0)).await;
        }
        first.insert(acked(&producer, free()).await.partition);
    }
    assert_eq!(first, BTreeSet::from([0, 1]));
}
