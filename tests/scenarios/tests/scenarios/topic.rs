//! Topics that change under a producer: deleted, made anew with fewer partitions or more, led by
//! brokers that nobody knows. In virtual time.

use std::collections::BTreeMap;

use ottla::testing::{ApiKey, Cluster, Fault};
use ottla::{Client, Delivery, ErrorKind, NewTopic, Partitioner, Producer, Record};
use ottla_scenarios::steps::{acked, cluster, connect, free, ms, pinned, secs, seen};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_gone_is_refused_when_the_topic_is_made_anew_with_fewer() {
    let cluster = cluster(3, 6);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..6 {
        acked(&producer, pinned(partition)).await;
    }
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", 2, 3).unwrap();
    let begun = Instant::now();
    let gone = producer.send(pinned(5)).await.unwrap();
    let error = within("an end", gone).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPartition, "{error}");
    assert!(begun.elapsed() < secs(5), "{:?}", begun.elapsed());
    let refused = producer.send(pinned(5)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnknownPartition);
    assert_eq!(acked(&producer, pinned(1)).await.offset, 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_this_client_creates_can_be_used_at_once() {
    let cluster = Cluster::builder().brokers(3).tcp(false).start_on_current_runtime().unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let lost = producer.send(free()).await.unwrap();
    let error = within("an end", lost).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    within("create", client.admin().create_topic(NewTopic::new("t", 3, 3))).await.unwrap();
    acked(&producer, free()).await;
}

fn keyed(client: &Client) -> Producer {
    let producer = client.producer().partitioner(Partitioner::KeyHash);
    producer.batch_size(1 << 10).delivery_timeout(secs(30)).build().unwrap()
}

/// Sends numbered records with one of eight keys, one every millisecond; the number is the value.
async fn send_keyed(producer: &Producer, numbers: std::ops::Range<usize>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let (key, value) = ([number as u8 % 8], number.to_string());
        let record = Record::to("t").key(&key).value(&value);
        deliveries.push(within("space", producer.send(record)).await.unwrap());
        tokio::time::sleep(ms(1)).await;
    }
    deliveries
}

/// Where each number is: partition and offset.
fn found(cluster: &Cluster) -> BTreeMap<usize, (i32, i64)> {
    let mut found = BTreeMap::new();
    for partition in 0..cluster.partitions("t").unwrap() {
        for record in cluster.records("t", partition).unwrap() {
            let number = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            let before = found.insert(number.parse().unwrap(), (partition, record.offset));
            assert_eq!(before, None, "{number} is there twice");
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_topic_grows_under_records_with_keys() {
    let cluster = cluster(3, 2);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = keyed(&client);
    let mut deliveries = send_keyed(&producer, 0..300).await;
    cluster.create_partitions("t", 5).unwrap();
    // Nobody tells: it is noticed with the next metadata, whatever that is for.
    cluster.move_leader("t", 0, 2).unwrap();
    cluster.faults().on(None, ApiKey::PRODUCE, Fault::Error(6), 1);
    deliveries.extend(send_keyed(&producer, 300..2_000).await);
    let mut places = Vec::new();
    for delivery in deliveries {
        let at = within("an ack", delivery).await.unwrap();
        places.push((at.partition, at.offset));
    }
    let found = found(&cluster);
    assert_eq!(
        found.into_values().collect::<Vec<_>>(),
        places,
        "each once, where it is said to be"
    );
    for key in 0..8 {
        let of_it: Vec<_> = places.iter().skip(key).step_by(8).collect();
        let moves = of_it.windows(2).filter(|pair| pair[0].0 != pair[1].0).count();
        assert!(moves <= 1, "a key moves when the topic grows, and then stays");
        for pair in of_it.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            assert!(pair[0].1 < pair[1].1, "of one key and partition in order");
        }
    }
    assert!(places.iter().any(|(partition, _)| *partition > 1), "the new ones are used");
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_made_anew_under_records_with_keys() {
    for (partitions, gap) in [(3, ms(0)), (3, secs(4)), (1, ms(700)), (7, ms(20))] {
        let cluster = cluster(3, 3);
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let producer = keyed(&client);
        let before = send_keyed(&producer, 0..300).await;
        cluster.delete_topic("t").unwrap();
        let meanwhile = tokio::spawn({
            let producer = producer.clone();
            async move {
                let mut open = Vec::new();
                for number in 300usize..3_300 {
                    let (key, value) = ([number as u8 % 8], number.to_string());
                    let record = Record::to("t").key(&key).value(&value);
                    match within("space", producer.send(record)).await {
                        Ok(delivery) => open.push((number, delivery)),
                        Err(e) => assert_eq!(e.kind(), ErrorKind::UnknownTopic, "{e}"),
                    }
                    tokio::time::sleep(ms(1)).await;
                }
                open
            }
        });
        tokio::time::sleep(gap).await;
        cluster.create_topic("t", partitions, 3).unwrap();
        let meanwhile = meanwhile.await.unwrap();
        // What is sent from now on does not notice what was.
        tokio::time::sleep(secs(7)).await;
        let after = send_keyed(&producer, 4_000..4_300).await;
        for delivery in before {
            drop(within("an end", delivery).await);
        }
        let mut told = BTreeMap::new();
        for (number, delivery) in meanwhile {
            if let Ok(at) = within("an end", delivery).await {
                told.insert(number, (at.partition, at.offset));
            }
        }
        for (number, delivery) in (4_000..).zip(after) {
            let at = within("an ack", delivery).await.unwrap();
            told.insert(number, (at.partition, at.offset));
        }
        let found = found(&cluster);
        // Only what was acknowledged before the topic went away may have gone with it.
        let lost: Vec<_> =
            told.iter().filter(|(number, at)| found.get(number) != Some(at)).collect();
        assert!(lost.iter().all(|(number, _)| **number < 600), "{gap:?}: {lost:?}");
        let tail = found.keys().filter(|number| **number >= 4_000).count();
        assert_eq!(tail, 300, "{gap:?}");
    }
}

/// One broker is cut off, and goes on telling of the topic that was, which had fewer partitions.
#[tokio::test(start_paused = true)]
async fn a_topic_that_was_does_not_come_back_under_a_producer() {
    let mut asked = 0;
    for seed in 0..8 {
        let cluster = cluster(3, 1);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        cluster.move_leader("t", 0, 2).unwrap();
        acked(&producer, pinned(0)).await;
        // It is connected all the time.
        cluster.create_topic("u", 1, 3).unwrap();
        cluster.move_leader("u", 0, 1).unwrap();
        acked(&producer, Record::to("u").value("x")).await;
        cluster.cut_off_broker(1).unwrap();
        cluster.delete_topic("t").unwrap();
        cluster.create_topic("t", 3, 3).unwrap();
        for partition in 0..3 {
            cluster.move_leader("t", partition, 2 + partition % 2).unwrap();
        }
        while client.cluster().topics["t"].partitions.len() < 3 {
            if let Ok(delivery) = producer.send(pinned(0)).await {
                drop(within("an end", delivery).await);
            }
            tokio::time::sleep(secs(1)).await;
        }
        let before = seen(&cluster, 1, ApiKey::METADATA);
        for number in 1..=100 {
            let at = acked(&producer, pinned(2)).await;
            assert_eq!(at.offset + 1, number, "seed {seed}");
            acked(&producer, Record::to("u").value("x")).await;
            tokio::time::sleep(secs(60)).await;
        }
        asked += seen(&cluster, 1, ApiKey::METADATA) - before;
    }
    assert!(asked >= 8, "the broker that is behind was asked {asked} times only");
}

#[tokio::test(start_paused = true)]
async fn a_topic_of_ten_thousand_partitions_and_one_of_a_single_one() {
    let many = 10_000;
    let cluster = cluster(3, many);
    cluster.create_topic("one", 1, 3).unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let mut deliveries = Vec::new();
    // All at once: who waits for a send gives others their turn.
    for partition in 0..many {
        deliveries.push(producer.try_send(pinned(partition)).unwrap());
    }
    deliveries.push(producer.try_send(free()).unwrap());
    deliveries.push(producer.try_send(Record::to("one").value("x")).unwrap());
    let begun = Instant::now();
    for delivery in deliveries {
        within("an ack", delivery).await.unwrap();
    }
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
    let requests = cluster.stats().requests_of(ApiKey::PRODUCE);
    assert!(requests <= 12, "{requests} Produce requests");
    assert_eq!(producer.send(pinned(many)).await.unwrap_err().kind(), ErrorKind::UnknownPartition);
}

/// Where brokers make whatever topic is asked for, this client's questions make none.
#[tokio::test(start_paused = true)]
async fn asking_for_a_topic_does_not_make_it() {
    let cluster = Cluster::builder().brokers(1).tcp(false).auto_create_topics(3);
    let cluster = cluster.start_on_current_runtime().unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let error = within("an answer", client.admin().partitions("nobodys")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
    assert!(cluster.topics().is_empty(), "{:?}", cluster.topics());
}

/// A service that goes on sending to it is told at once, and not with each record by a broker.
#[tokio::test(start_paused = true)]
async fn records_of_a_missing_topic_are_refused_at_once_for_a_while() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let record = Record::to("missing").value("x");
    let taken = producer.send(record).await.unwrap();
    let error = within("an end", taken).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
    for _ in 0..10 {
        let error = producer.send(record).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
        tokio::time::sleep(ms(50)).await;
    }
}
