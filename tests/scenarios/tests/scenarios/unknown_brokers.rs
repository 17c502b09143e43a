//! Leaders that are no brokers of the cluster, as far as anybody knows: nobody dials them, and nobody
//! goes round in circles meanwhile. In virtual time, which stands still for who does.

use ottla::testing::{ApiKey, Fault, Leaders};
use ottla::{ErrorKind, Record};
use ottla_scenarios::steps::{acked, cluster, connect, free, pinned, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn nothing_is_reachable_for_so_long_that_brokers_are_forgotten() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().delivery_timeout(secs(30)).build().unwrap();
    for partition in 0..3 {
        acked(&producer, pinned(partition)).await;
    }
    for broker in cluster.broker_ids() {
        cluster.stop_broker(broker, Leaders::Keep).unwrap();
    }
    let mut lost = Vec::new();
    while !client.cluster().brokers.is_empty() {
        for partition in 0..3 {
            lost.push(producer.send(pinned(partition)).await.unwrap());
        }
        lost.push(producer.send(free()).await.unwrap());
        tokio::time::sleep(secs(10)).await;
    }
    // Records that must go somewhere, while it is not known what there is.
    for partition in 0..3 {
        lost.push(producer.send(pinned(partition)).await.unwrap());
    }
    for delivery in lost {
        let error = within("a timeout", delivery).await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_written()), (ErrorKind::Timeout, false), "{error}");
    }
    for broker in cluster.broker_ids() {
        cluster.start_broker(broker).unwrap();
    }
    acked(&producer, pinned(0)).await;
    acked(&producer, free()).await;
}

/// What is known of one topic is older than the list of brokers, which came with another one.
#[tokio::test(start_paused = true)]
async fn a_broker_leaves_while_its_response_is_waited_for() {
    let cluster = cluster(3, 3);
    cluster.create_topic("u", 3, 2).unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..3 {
        acked(&producer, pinned(partition)).await;
    }
    cluster.faults().on(3, ApiKey::PRODUCE, Fault::BlackHoleAfterAppend, 1);
    let waits = producer.send(pinned(2)).await.unwrap();
    until("the append", || cluster.records("t", 2).unwrap().len() == 2).await;
    cluster.fence_broker(3).unwrap();
    acked(&producer, Record::to("u").partition(0).value("x")).await;
    assert!(!client.cluster().brokers.contains_key(&3), "{:?}", client.cluster());
    cluster.stop_broker(3, Leaders::Move).unwrap();
    let begun = Instant::now();
    assert_eq!(within("an ack", waits).await.unwrap().offset, 1);
    assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
}
