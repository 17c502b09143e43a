//! Batches that a broker refuses for some of their records, or for their size.

use std::collections::BTreeSet;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, Compression, Delivery, ErrorKind, Producer, Record};
use ottla_scenarios::steps::{cluster, connect, flushed, ms, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;

const INVALID_RECORD: i16 = 87;

async fn client(cluster: &Cluster) -> Client {
    connect(virtual_cluster::client(cluster, 1)).await
}

/// Ready, and with its topic known: what is sent next is in one batch.
async fn producer(client: &Client, compression: Compression) -> Producer {
    let producer = client.producer().linger(secs(1)).compression(compression).build().unwrap();
    let first = producer.send(Record::to("t").key(b"first").value("")).await.unwrap();
    within("the first ack", first).await.unwrap();
    producer
}

fn values(cluster: &Cluster, partitions: i32) -> Vec<String> {
    let stored = (0..partitions).flat_map(|p| cluster.records("t", p).unwrap());
    let text = |value: Option<bytes::Bytes>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    stored.map(|record| text(record.value)).filter(|value| !value.is_empty()).collect()
}

/// Sends records in one go; those whose number `bad` picks have no key.
fn send(producer: &Producer, n: usize, bad: impl Fn(usize) -> bool) -> Vec<Delivery> {
    (0..n)
        .map(|i| {
            let (key, value) = (i.to_be_bytes(), format!("{i}"));
            let record = Record::to("t").value(&value).headers(&[("h", Some(b"x"))]);
            let record = if bad(i) { record } else { record.key(&key) };
            producer.try_send(record).unwrap()
        })
        .collect()
}

async fn only_the_culprits_fail(compression: Compression, prepare: impl Fn(&Cluster)) {
    let cluster = cluster(3, 3);
    cluster.compact("t").unwrap();
    prepare(&cluster);
    let client = client(&cluster).await;
    let producer = producer(&client, compression).await;
    let bad = |i: usize| i == 0 || i == 37 || i == 38 || i == 99;
    let deliveries = send(&producer, 100, bad);
    assert_eq!(flushed(&producer).await, 4);
    let mut at = Vec::new();
    for (i, delivery) in deliveries.into_iter().enumerate() {
        match delivery.try_get().expect("flush waits for what a batch was split into") {
            Ok(acked) => at.push((acked.partition, acked.offset, i)),
            Err(e) => {
                assert!(bad(i), "{i}: {e}");
                assert_eq!(e.kind(), ErrorKind::InvalidRecord, "{e}");
                assert!(!e.maybe_written() && !e.is_retriable(), "{e}");
            }
        }
    }
    assert_eq!(at.len(), 96);
    for (partition, offset, i) in at {
        let record = &cluster.records("t", partition).unwrap()[offset as usize];
        assert_eq!(record.value.as_deref(), Some(i.to_string().as_bytes()));
        assert_eq!(record.key.as_deref(), Some(&i.to_be_bytes()[..]));
        assert_eq!(record.headers.len(), 1);
    }
    let all = values(&cluster, 3);
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (96, 96));
}

#[tokio::test(start_paused = true)]
async fn s10_of_a_mixed_batch_only_the_culprits_fail() {
    only_the_culprits_fail(Compression::None, |_| ()).await;
    only_the_culprits_fail(Compression::Lz4, |_| ()).await;
    only_the_culprits_fail(Compression::ZSTD, |_| ()).await;
}

/// Brokers before Produce version 8 do not say which records are to blame.
#[tokio::test(start_paused = true)]
async fn s10_culprits_are_found_where_the_broker_does_not_name_them() {
    let cluster = Cluster::builder()
        .brokers(1)
        .tcp(false)
        .max_version(ApiKey::PRODUCE, 7)
        .topic("t", 1, 1)
        .start_on_current_runtime()
        .unwrap();
    cluster.compact("t").unwrap();
    let client = client(&cluster).await;
    let producer = producer(&client, Compression::Lz4).await;
    let one = |i: usize| i == 21;
    let record = |i: usize| (i.to_be_bytes(), i.to_string());
    let deliveries: Vec<_> = (0..64)
        .map(|i| {
            let (key, value) = record(i);
            let record = Record::to("t").partition(0).value(&value);
            producer.try_send(if one(i) { record } else { record.key(&key) }).unwrap()
        })
        .collect();
    assert_eq!(flushed(&producer).await, 1);
    for (i, delivery) in deliveries.iter().enumerate() {
        assert_eq!(delivery.try_get().unwrap().is_err(), one(i), "{i}");
    }
    assert_eq!(values(&cluster, 1).len(), 63);
    // What names a partition keeps its order there.
    let expected: Vec<_> = (0..64).filter(|i| !one(*i)).map(|i| i.to_string()).collect();
    assert_eq!(values(&cluster, 1), expected);
}

/// Kafka 4 refuses timestamps that are an hour ahead.
#[tokio::test(start_paused = true)]
async fn one_bad_timestamp_fails_alone() {
    const LATEST: i64 = 1_800_000_000_000;
    for (records, compression) in
        [(100, Compression::None), (100, Compression::Lz4), (1, Compression::None)]
    {
        let cluster = cluster(3, 3);
        cluster.refuse_timestamps_after("t", LATEST).unwrap();
        let client = client(&cluster).await;
        let producer = producer(&client, compression).await;
        let bad = records / 2;
        let deliveries: Vec<_> = (0..records)
            .map(|i| {
                let value = i.to_string();
                let time = LATEST + i64::from(i == bad);
                producer.try_send(Record::to("t").value(&value).timestamp_ms(time)).unwrap()
            })
            .collect();
        assert_eq!(flushed(&producer).await, 1);
        for (i, delivery) in deliveries.iter().enumerate() {
            match delivery.try_get().unwrap() {
                Ok(acked) => assert!(i != bad && acked.offset >= 0),
                Err(e) => {
                    assert!(i == bad && e.kind() == ErrorKind::InvalidRecord, "{i}: {e}");
                    assert!(!e.maybe_written() && !e.is_retriable(), "{e}");
                    assert!(e.to_string().contains("1800000000001"), "{e}");
                }
            }
        }
        assert_eq!(values(&cluster, 3).len(), records - 1);
    }
}

/// What the broker refuses before it appends anything is not written, whatever it is refused for.
#[tokio::test(start_paused = true)]
async fn refusals_before_the_append_are_certain() {
    // CORRUPT_MESSAGE alone is sent again.
    for code in [10, 17, 18, 21, 29, 32, 43, 76, 87] {
        let cluster = cluster(1, 1);
        let client = client(&cluster).await;
        let producer = producer(&client, Compression::None).await;
        let fault = FaultRule::new(Fault::Error(code)).api(ApiKey::PRODUCE).always();
        cluster.faults().inject(fault);
        for delivery in send(&producer, 5, |_| false) {
            let e = within("its end", delivery).await.unwrap_err();
            assert!(!e.maybe_written() && e.broker_code() == Some(code), "{code}: {e}");
        }
        if code == 29 {
            // Not for one of its records: there is nothing to be gained by taking it apart.
            assert_eq!(cluster.stats().requests_of(ApiKey::PRODUCE), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn s10_a_batch_larger_than_the_topic_takes_goes_in_parts() {
    let cluster = Cluster::builder()
        .brokers(3)
        .tcp(false)
        .max_message_bytes(20_000)
        .topic("t", 3, 3)
        .start_on_current_runtime()
        .unwrap();
    let client = client(&cluster).await;
    let producer = producer(&client, Compression::None).await;
    let value = |i: usize| format!("{i:0500}");
    // 100 KB in one batch, through one handle.
    let sent = producer.send_batch("t", (0..200).map(value)).await.unwrap();
    let acked = within("acks", sent).await.unwrap();
    assert_eq!(acked.records, 200);
    let before = cluster.stats().requests_of(ApiKey::PRODUCE);
    // What was learned once is not learned again: no batch is refused any more.
    let errors = client.stats().bad_stuff;
    let sent = producer.send_batch("t", (200..2_000).map(value)).await.unwrap();
    within("acks", sent).await.unwrap();
    assert_eq!(client.stats().bad_stuff, errors);
    let after = cluster.stats().requests_of(ApiKey::PRODUCE);
    assert!(after - before <= 1_800 * 600 / 10_000 + 3, "{}", after - before);
    let all: BTreeSet<_> = values(&cluster, 3).into_iter().collect();
    assert_eq!((all.len(), values(&cluster, 3).len()), (2_000, 2_000));
}

#[tokio::test(start_paused = true)]
async fn s10_a_record_larger_than_the_topic_takes_fails_alone() {
    let cluster = Cluster::builder()
        .brokers(3)
        .tcp(false)
        .max_message_bytes(20_000)
        .topic("t", 3, 3)
        .start_on_current_runtime()
        .unwrap();
    let client = client(&cluster).await;
    let producer = producer(&client, Compression::None).await;
    let large = "x".repeat(30_000);
    let mut deliveries = Vec::new();
    for i in 0..41 {
        let value = if i == 20 { large.clone() } else { format!("{i}") };
        deliveries.push(producer.send(Record::to("t").value(&value)).await.unwrap());
    }
    for (i, delivery) in deliveries.into_iter().enumerate() {
        match (i, within("its result", delivery).await) {
            (20, Err(e)) => {
                assert_eq!(e.kind(), ErrorKind::RecordTooLarge, "{e}");
                assert!(!e.maybe_written());
            }
            (20, Ok(_)) => panic!("the topic does not take that"),
            (i, result) => drop(result.unwrap_or_else(|e| panic!("{i}: {e}"))),
        }
    }
    assert_eq!(values(&cluster, 3).len(), 40);
}

/// A refusal after doubt proves nothing: such a batch is not taken apart, or it could be in the log
/// twice.
#[tokio::test(start_paused = true)]
async fn a_batch_in_doubt_is_not_taken_apart() {
    let cluster = cluster(1, 1);
    let client = client(&cluster).await;
    let producer = producer(&client, Compression::None).await;
    let faults = cluster.faults();
    faults.inject(FaultRule::new(Fault::CutAfterAppend).api(ApiKey::PRODUCE));
    faults.inject(FaultRule::new(Fault::Error(INVALID_RECORD)).api(ApiKey::PRODUCE).after(1));
    let deliveries = send(&producer, 10, |_| false);
    assert!(flushed(&producer).await > 0);
    for delivery in deliveries {
        let e = delivery.try_get().unwrap().unwrap_err();
        assert!(e.kind() == ErrorKind::InvalidRecord && e.maybe_written(), "{e}");
    }
    assert_eq!(values(&cluster, 1).len(), 10, "once");
}

/// A broker that takes smaller requests than the topic takes batches.
fn narrow(brokers: i32) -> Cluster {
    Cluster::builder()
        .brokers(brokers)
        .tcp(false)
        .max_message_bytes(64 << 20)
        .max_request_bytes(3 << 20)
        .topic("t", 3, 1)
        .start_on_current_runtime()
        .unwrap()
}

/// Without a word the broker closes the connection: that one record must not close it for others again
/// and again.
#[tokio::test(start_paused = true)]
async fn a_record_larger_than_a_request_may_be_fails_alone() {
    for partition in [Some(0), None] {
        let cluster = narrow(1);
        let client = client(&cluster).await;
        let producer = client.producer().compression(Compression::None);
        let producer = producer.linger(secs(0)).max_record_size(8 << 20).build().unwrap();
        let small = |i: usize| format!("{i}");
        let record = |value| match partition {
            Some(partition) => Record::to("t").value(value).partition(partition),
            None => Record::to("t").value(value),
        };
        within("ack", producer.send(Record::to("t").value("0")).await.unwrap()).await.unwrap();
        let large = vec![b'x'; 5 << 20];
        let began = tokio::time::Instant::now();
        let large = producer.send(record(&large[..])).await.unwrap();
        let mut others = Vec::new();
        for i in 1..200 {
            let value = small(i);
            // To the same partition, to others, and to any.
            let other = Record::to("t").value(&value);
            let other = if i % 4 == 0 { other } else { other.partition(i as i32 % 4 - 1) };
            others.push(producer.send(other).await.unwrap());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let e = within("its end", large).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::RecordTooLarge, "{e}");
        assert!(!e.maybe_written() && e.to_string().contains("socket.request.max.bytes"), "{e}");
        assert!(began.elapsed() < secs(10), "{:?}", began.elapsed());
        for other in others {
            within("ack", other).await.unwrap();
        }
        assert_eq!(values(&cluster, 3).len(), 200);
        let connections = cluster.stats().broker(1).unwrap().connections_accepted;
        assert!(connections <= 5, "{connections} connections");
    }
}

/// A large record may be what the connection ended for, and nobody knows whether it was written: it is sent
/// again in its place, alone, which tells whether it is to blame.
#[tokio::test(start_paused = true)]
async fn a_large_record_in_doubt_goes_alone() {
    let cluster = narrow(1);
    let client = client(&cluster).await;
    let producer = client.producer().compression(Compression::None).linger(secs(0));
    let producer = producer.max_record_size(8 << 20).build().unwrap();
    within("ack", producer.send(Record::to("t").value("")).await.unwrap()).await.unwrap();
    let cut = FaultRule::new(Fault::CutAfterAppend).api(ApiKey::PRODUCE).always();
    cluster.faults().inject(cut);
    let began = tokio::time::Instant::now();
    let large = vec![b'x'; 2 << 20];
    let large = producer.send(Record::to("t").partition(0).value(&large)).await.unwrap();
    let e = within("its end", large).await.unwrap_err();
    assert!(e.kind() == ErrorKind::RecordTooLarge && e.maybe_written(), "{e}");
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    assert_eq!(values(&cluster, 1).len(), 1);
}

/// However many others there are, its turn comes: they wait for as long as it takes.
#[tokio::test(start_paused = true)]
async fn a_large_record_in_doubt_has_its_turn_beside_a_stream_of_others() {
    let cluster = narrow(1);
    let client = client(&cluster).await;
    let producer = client.producer().compression(Compression::None).linger(secs(0));
    let producer = producer.max_record_size(8 << 20).build().unwrap();
    within("ack", producer.send(Record::to("t").value("")).await.unwrap()).await.unwrap();
    // Before the first is answered the next is on its way.
    let slow = FaultRule::new(Fault::Delay(ms(50))).api(ApiKey::PRODUCE).always();
    cluster.faults().inject(slow);
    let others = producer.clone();
    let others = tokio::spawn(async move {
        let mut sent = Vec::new();
        for _ in 0..2_000 {
            sent.push(others.send(Record::to("t").partition(1).value("")).await.unwrap());
            tokio::time::sleep(ms(5)).await;
        }
        for delivery in sent {
            within("ack", delivery).await.unwrap();
        }
    });
    tokio::time::sleep(secs(1)).await;
    let large = vec![b'x'; 2 << 20];
    let large = producer.send(Record::to("t").partition(0).value(&large)).await.unwrap();
    tokio::time::sleep(ms(20)).await;
    cluster.cut_connections(1).unwrap();
    let took = tokio::time::timeout(secs(4), large).await;
    took.expect("others are served for ever").unwrap();
    assert!(!others.is_finished());
    others.await.unwrap();
    assert_eq!(values(&cluster, 1).len(), 1);
}

/// A batch of many records is cut instead: each of them may be sent.
#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_a_request_may_be_goes_in_parts() {
    let cluster = narrow(1);
    let client = client(&cluster).await;
    let producer = client.producer().compression(Compression::None).batch_size(8 << 20);
    let producer = producer.linger(secs(1)).build().unwrap();
    within("ack", producer.send(Record::to("t").value("0")).await.unwrap()).await.unwrap();
    let mut deliveries = Vec::new();
    for i in 1..9 {
        let value = format!("{}{i}", "0".repeat(900_000));
        deliveries.push(producer.send(Record::to("t").partition(0).value(&value)).await.unwrap());
    }
    for delivery in deliveries {
        within("ack", delivery).await.unwrap();
    }
    let all: Vec<usize> = values(&cluster, 1).iter().map(|v| v.parse().unwrap()).collect();
    let all: Vec<usize> = all.into_iter().filter(|n| *n > 0).collect();
    assert_eq!(all, (1..9).collect::<Vec<_>>());
}

/// The memory of a batch that is taken apart is free again, as often as that happens.
#[tokio::test(start_paused = true)]
async fn what_is_cut_gives_its_memory_back() {
    let cluster = cluster(1, 1);
    let client = client(&cluster).await;
    let producer = client.producer().compression(Compression::None).buffer_memory(1 << 20);
    let producer = producer.linger(secs(1)).build().unwrap();
    let first = producer.send(Record::to("t").value("")).await.unwrap();
    within("the first ack", first).await.unwrap();
    let value = "x".repeat(50_000);
    for round in 0..30 {
        cluster.faults().on(None, ApiKey::PRODUCE, Fault::Error(INVALID_RECORD), 1);
        let mut deliveries = Vec::new();
        for _ in 0..4 {
            let sent = producer.try_send(Record::to("t").value(&value));
            deliveries.push(sent.unwrap_or_else(|e| panic!("round {round}: {e}")));
        }
        for delivery in deliveries {
            within("ack", delivery).await.unwrap();
        }
    }
    assert_eq!(values(&cluster, 1).len(), 120);
}

/// A flush waits for the parts of a batch as it did for the whole.
#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_all_that_a_batch_was_cut_into() {
    let cluster = cluster(1, 1);
    let client = client(&cluster).await;
    let producer = producer(&client, Compression::None).await;
    cluster.faults().on(None, ApiKey::PRODUCE, Fault::Error(10), 1);
    let slow = Fault::DelayResponse(std::time::Duration::from_millis(100));
    cluster.faults().inject(FaultRule::new(slow).api(ApiKey::PRODUCE).after(1).always());
    let deliveries = send(&producer, 10, |_| false);
    assert_eq!(flushed(&producer).await, 0);
    assert!(deliveries.iter().all(Delivery::is_done));
}

/// The parts of a batch have the time that is left of it.
#[tokio::test(start_paused = true)]
async fn a_piece_has_no_more_time_than_its_batch() {
    let cluster = cluster(1, 1);
    let client = client(&cluster).await;
    let producer = client.producer().delivery_timeout(secs(3)).build().unwrap();
    let first = producer.send(Record::to("t").value("")).await.unwrap();
    within("the first ack", first).await.unwrap();
    let faults = cluster.faults();
    faults.on(None, ApiKey::PRODUCE, Fault::Delay(secs(2)), 1);
    faults.on(None, ApiKey::PRODUCE, Fault::Error(10), 1);
    faults.inject(FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE).after(1).always());
    let begun = tokio::time::Instant::now();
    for delivery in send(&producer, 10, |_| false) {
        let error = within("its end", delivery).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    let late = secs(3) + std::time::Duration::from_millis(100);
    assert!((secs(3)..late).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}
