//! Every record is resolved by its delivery timeout, whatever does not happen meanwhile. In virtual
//! time.

use ottla::testing::{ApiKey, Fault, FaultRule, Leaders};
use ottla::{ErrorKind, Partitioner, Producer, Record};
use ottla_scenarios::steps::{acked, cluster, connect, flushed, free, ms, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::{Duration, Instant};

/// Each of three records, some time apart, takes a delivery timeout of 3 s and no longer.
async fn three_time_out(producer: &Producer, record: Record<'_>, apart: Duration) {
    for _ in 0..3 {
        let begun = Instant::now();
        let delivery = producer.send(record).await.unwrap();
        let error = within("the timeout", delivery).await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_written()), (ErrorKind::Timeout, false));
        let took = begun.elapsed();
        assert!((secs(3)..secs(3) + ms(100)).contains(&took), "{took:?}");
        tokio::time::sleep(apart).await;
    }
}

/// One record after the other times out while nobody can be asked about their topic.
#[tokio::test(start_paused = true)]
async fn s03_records_of_a_topic_that_nobody_knows_time_out_one_after_the_other() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().partitioner(Partitioner::KeyHash);
    let producer = producer.delivery_timeout(secs(3)).build().unwrap();
    for broker in cluster.broker_ids() {
        cluster.stop_broker(broker, Leaders::Keep).unwrap();
    }
    for record in [free(), free().partition(1), free().key("k")] {
        three_time_out(&producer, record, secs(20)).await;
    }
}

/// The same while there is no producer id to be had.
#[tokio::test(start_paused = true)]
async fn s03_records_without_a_producer_id_time_out_one_after_the_other() {
    let cluster = cluster(1, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().delivery_timeout(secs(3)).build().unwrap();
    let silent = FaultRule::new(Fault::BlackHole).api(ApiKey::INIT_PRODUCER_ID);
    cluster.faults().inject(silent.always());
    for record in [free(), free().partition(1)] {
        three_time_out(&producer, record, secs(2)).await;
    }
    cluster.faults().clear();
    acked(&producer, Record::to("t").value("x")).await;
}

/// Records with keys wait for their partitions as the flush begins; what others send meanwhile is
/// none of its business.
#[tokio::test(start_paused = true)]
async fn s06_a_flush_of_records_that_wait_for_their_partition_ends_by_the_delivery_timeout() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().partitioner(Partitioner::KeyHash);
    let producer = producer.delivery_timeout(secs(5)).build().unwrap();
    acked(&producer, free()).await;
    cluster.create_topic("u", 3, 3).unwrap();
    for broker in cluster.broker_ids() {
        cluster.stop_broker(broker, Leaders::Keep).unwrap();
    }
    let first = producer.send(Record::to("u").key("k").value("x")).await.unwrap();
    let others = tokio::spawn({
        let producer = producer.clone();
        async move {
            loop {
                drop(producer.send(free()).await);
                tokio::time::sleep(ms(100)).await;
            }
        }
    });
    let begun = Instant::now();
    assert!(flushed(&producer).await > 0);
    assert!(begun.elapsed() < secs(5) + ms(100), "{:?}", begun.elapsed());
    assert_eq!(first.try_get().unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    others.abort();
}

/// A record that waited for its partition comes behind younger ones there, and is resolved first.
#[tokio::test(start_paused = true)]
async fn s03_a_record_that_waited_for_its_partition_does_not_get_the_time_of_those_before_it() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().partitioner(Partitioner::KeyHash).batch_size(1 << 10);
    let producer = producer.delivery_timeout(secs(10)).build().unwrap();
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    let begun = Instant::now();
    let old = producer.send(free().key("k")).await.unwrap();
    tokio::time::sleep(secs(4)).await;
    let large = vec![7; 2_000];
    let mut young = Vec::new();
    for _ in 0..3 {
        let record = Record::to("t").partition(0).value(&large);
        young.push(producer.send(record).await.unwrap());
    }
    let refused = FaultRule::new(Fault::Error(19)).api(ApiKey::PRODUCE);
    cluster.faults().inject(refused.always());
    cluster.start_broker(1).unwrap();
    let error = within("the timeout", old).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_written()), (ErrorKind::Timeout, false));
    assert!((secs(10)..secs(10) + ms(100)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    for delivery in young {
        within("the timeout", delivery).await.unwrap_err();
    }
    assert!((secs(14)..secs(14) + ms(100)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

/// Each in its own time, though the same silence is the end of both.
#[tokio::test(start_paused = true)]
async fn s03_what_is_in_flight_ends_one_after_the_other() {
    let cluster = cluster(1, 2);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().delivery_timeout(secs(3)).build().unwrap();
    for partition in 0..2 {
        acked(&producer, free().partition(partition)).await;
    }
    cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE).always());
    let begun = Instant::now();
    let mut sent = Vec::new();
    for partition in 0..2 {
        sent.push(producer.send(free().partition(partition)).await.unwrap());
        tokio::time::sleep(secs(1)).await;
    }
    for (number, delivery) in (0..).zip(sent) {
        let error = within("the timeout", delivery).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let due = secs(3 + number);
        assert!((due..due + ms(100)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
}
