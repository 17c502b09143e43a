//! What the producer does when things go wrong, one scenario each, in virtual time.

use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders, Record as Stored};
use ottla::{Acked, Client, Compression, Delivery, ErrorKind, Producer, ProducerBuilder, Record};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use ottla_scenarios::warnings::Warnings;
use tokio::time::Instant;

const NOT_ENOUGH_REPLICAS: i16 = 19;
const NOT_LEADER: i16 = 6;
const OUT_OF_ORDER: i16 = 45;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn cluster(brokers: i32, partitions: i32) -> Cluster {
    Cluster::builder()
        .brokers(brokers)
        .tcp(false)
        .topic("t", partitions, brokers)
        .start_on_current_runtime()
        .unwrap()
}

async fn connect(cluster: &Cluster) -> Client {
    within("connect", virtual_cluster::client(cluster, 1).connect()).await.unwrap()
}

/// A producer whose every record of 900 bytes is a batch of its own.
fn small_batches(client: &Client) -> ProducerBuilder {
    client.producer().batch_size(1 << 10).compression(Compression::None)
}

fn value(number: usize) -> Vec<u8> {
    format!("{number:0900}").into_bytes()
}

async fn send_pinned(producer: &Producer, numbers: std::ops::Range<usize>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let value = value(number);
        let record = Record::to("t").partition(0).value(&value);
        deliveries.push(producer.send(record).await.unwrap());
    }
    deliveries
}

async fn acks(deliveries: Vec<Delivery>) -> Vec<Acked> {
    let mut acks = Vec::new();
    for delivery in deliveries {
        acks.push(within("an ack", delivery).await.unwrap());
    }
    acks
}

fn stored(cluster: &Cluster, partition: i32) -> Vec<Stored> {
    cluster.records("t", partition).unwrap()
}

/// Partition 0 holds the numbers, each once, in order, where the acknowledgements say.
fn assert_in_order(cluster: &Cluster, acks: &[Acked]) {
    let stored = stored(cluster, 0);
    assert_eq!(stored.len(), acks.len(), "a record is missing or doubled");
    for (number, (record, acked)) in stored.iter().zip(acks).enumerate() {
        assert_eq!(record.value.as_deref(), Some(&value(number)[..]), "at offset {number}");
        assert_eq!((acked.partition, acked.offset), (0, number as i64));
    }
}

/// A few records acknowledged, so that the partition has five in flight from then on.
async fn warm(producer: &Producer) -> Vec<Acked> {
    acks(send_pinned(producer, 0..3).await).await
}

async fn survives(fault: FaultRule) -> Cluster {
    let cluster = cluster(3, 3);
    let client = connect(&cluster).await;
    let producer = small_batches(&client).build().unwrap();
    let mut all = warm(&producer).await;
    let fault = cluster.faults().inject(fault.api(ApiKey::PRODUCE));
    all.extend(acks(send_pinned(&producer, 3..60).await).await);
    assert!(!cluster.faults().is_pending(fault), "the fault did not happen");
    assert_in_order(&cluster, &all);
    // No fatal state afterwards, here or elsewhere.
    within("ack", producer.send(Record::to("t").value("x")).await.unwrap()).await.unwrap();
    cluster
}

fn duplicates(cluster: &Cluster) -> u64 {
    cluster.stats().brokers.iter().map(|b| b.produce_duplicates).sum()
}

#[tokio::test(start_paused = true)]
async fn s02_cut_after_the_append() {
    let cluster = survives(FaultRule::new(Fault::CutAfterAppend).after(2)).await;
    assert!(duplicates(&cluster) > 0, "nothing was sent twice: the cut came too early or late");
}

#[tokio::test(start_paused = true)]
async fn s02_cut_before_the_append() {
    survives(FaultRule::new(Fault::CutBeforeAppend).after(2)).await;
}

#[tokio::test(start_paused = true)]
async fn s02_silent_after_the_append() {
    let cluster = survives(FaultRule::new(Fault::BlackHoleAfterAppend).after(2)).await;
    assert!(duplicates(&cluster) > 0);
}

#[tokio::test(start_paused = true)]
async fn not_leader_before_the_append() {
    let cluster = survives(FaultRule::new(Fault::Error(NOT_LEADER)).after(2).times(3)).await;
    assert_eq!(duplicates(&cluster), 0, "what was refused was sent in a new sequence");
}

#[tokio::test(start_paused = true)]
async fn not_leader_after_the_append() {
    let fault = FaultRule::new(Fault::ErrorAfterAppend(NOT_LEADER)).after(2).times(3);
    let cluster = survives(fault).await;
    assert!(duplicates(&cluster) > 0, "what was appended has to be sent again in place");
}

#[tokio::test(start_paused = true)]
async fn request_timed_out_after_the_append() {
    let cluster = survives(FaultRule::new(Fault::ErrorAfterAppend(7)).after(2).times(6)).await;
    assert!(duplicates(&cluster) > 0);
}

#[tokio::test(start_paused = true)]
async fn out_of_order_without_an_elder_goes_on_under_the_next_epoch() {
    let cluster = survives(FaultRule::new(Fault::Error(OUT_OF_ORDER)).after(1)).await;
    assert!(stored(&cluster, 0).iter().any(|record| record.producer_epoch > 0));
}

#[tokio::test(start_paused = true)]
async fn s12_seven_refusals_and_delivered_once() {
    let begun = Instant::now();
    survives(FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).after(1).times(7)).await;
    // The ceilings of seven delays: 100, 200, ... 5,000 ms.
    assert!(begun.elapsed() < secs(12), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_leader_moves_again_and_again() {
    let cluster = cluster(3, 1);
    let client = connect(&cluster).await;
    let producer = small_batches(&client).build().unwrap();
    let mut deliveries = Vec::new();
    for round in 0..30 {
        deliveries.extend(send_pinned(&producer, round * 10..round * 10 + 10).await);
        cluster.move_leader("t", 0, round as i32 % 3 + 1).unwrap();
        tokio::time::sleep(Duration::from_millis(round as u64 * 7 % 40)).await;
    }
    let acks = acks(deliveries).await;
    assert_in_order(&cluster, &acks);
}

#[tokio::test(start_paused = true)]
async fn s03_leaderless_for_a_while() {
    let cluster = cluster(3, 6);
    let client = connect(&cluster).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..6 {
        cluster.remove_leader("t", partition).unwrap();
    }
    let pinned = send_pinned(&producer, 0..5).await;
    let mut free = Vec::new();
    for _ in 0..5 {
        free.push(producer.send(Record::to("t").value("x")).await.unwrap());
    }
    tokio::time::sleep(secs(20)).await;
    assert!(pinned.iter().chain(&free).all(|d| !d.is_done()), "there is nobody to acknowledge");
    for partition in 0..6 {
        cluster.move_leader("t", partition, partition % 3 + 1).unwrap();
    }
    let back = Instant::now();
    acks(pinned).await;
    acks(free).await;
    assert!(back.elapsed() < secs(10), "noticed only after {:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s03_leaderless_past_the_deadline() {
    let cluster = cluster(3, 3);
    let client = connect(&cluster).await;
    let producer = client.producer().delivery_timeout(secs(3)).build().unwrap();
    for partition in 0..3 {
        cluster.remove_leader("t", partition).unwrap();
    }
    let begun = Instant::now();
    let mut deliveries = send_pinned(&producer, 0..3).await;
    deliveries.push(producer.send(Record::to("t").value("x")).await.unwrap());
    for delivery in deliveries {
        let error = within("the timeout", delivery).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(!error.maybe_written());
    }
    assert!((secs(3)..secs(4)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s05_a_full_buffer_drains_under_a_long_linger() {
    let cluster = cluster(1, 1);
    let client = connect(&cluster).await;
    let linger = secs(60);
    let producer = client
        .producer()
        .linger(linger)
        .batch_size(1 << 20)
        .buffer_memory(2 << 20)
        .compression(Compression::None)
        .build()
        .unwrap();
    // The broker is never idle, so that nothing goes early for its sake.
    let slow = FaultRule::new(Fault::DelayAnswer(Duration::from_millis(500)));
    cluster.faults().inject(slow.api(ApiKey::PRODUCE).always());
    let begun = Instant::now();
    let payload = vec![7; 100_000];
    let mut deliveries = Vec::new();
    for _ in 0..60 {
        let sending = producer.send(Record::to("t").value(&payload));
        deliveries.push(within("space", sending).await.unwrap());
    }
    assert!(begun.elapsed() < linger / 2, "sending waited {:?}", begun.elapsed());
    within("flush", producer.flush()).await.unwrap();
    assert!(begun.elapsed() < linger, "flush waited for the linger: {:?}", begun.elapsed());
    acks(deliveries).await;
}

#[tokio::test(start_paused = true)]
async fn s05_the_wait_for_space_is_bounded() {
    let cluster = cluster(1, 1);
    let client = connect(&cluster).await;
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

#[tokio::test(start_paused = true)]
async fn s06_close_while_nothing_is_reachable() {
    let cluster = cluster(3, 3);
    let client = connect(&cluster).await;
    let producer = client.producer().build().unwrap();
    for broker in cluster.broker_ids() {
        cluster.stop_broker(broker, Leaders::Keep).unwrap();
    }
    let deliveries = send_pinned(&producer, 0..10).await;
    let begun = Instant::now();
    let error = within("close", producer.close(secs(5))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!((secs(5)..secs(6)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    for delivery in deliveries {
        let error = delivery.try_get().expect("close resolves everything").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(!error.maybe_written(), "nothing left this process: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn s06_close_while_the_answer_is_lost() {
    let cluster = cluster(1, 1);
    let client = connect(&cluster).await;
    let producer = small_batches(&client).build().unwrap();
    warm(&producer).await;
    cluster.faults().on(1, ApiKey::PRODUCE, Fault::BlackHoleAfterAppend, 1);
    let deliveries = send_pinned(&producer, 3..4).await;
    until("the append", || stored(&cluster, 0).len() == 4).await;
    within("close", producer.close(secs(5))).await.unwrap_err();
    for delivery in deliveries {
        let error = delivery.try_get().expect("close resolves everything").unwrap_err();
        assert!(error.maybe_written(), "it is in the log: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn s06_flush_while_nothing_is_reachable() {
    let cluster = cluster(1, 1);
    let client = connect(&cluster).await;
    let producer = client.producer().delivery_timeout(secs(10)).build().unwrap();
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    let delivery = producer.send(Record::to("t").value("x")).await.unwrap();
    let begun = Instant::now();
    within("flush", producer.flush()).await.unwrap();
    assert!((secs(9)..secs(11)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(delivery.try_get().unwrap().unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn s07_a_sparse_record_has_no_linger_added() {
    let cluster = cluster(3, 6);
    let client = connect(&cluster).await;
    let producer = client.producer().linger(secs(30)).build().unwrap();
    // Virtual time moves only when everybody waits: what is asked of the clock is the linger.
    for round in 0..50 {
        let begun = Instant::now();
        let delivery = producer.send(Record::to("t").value("x")).await.unwrap();
        within("ack", delivery).await.unwrap();
        let took = begun.elapsed();
        assert!(
            took < Duration::from_millis(if round == 0 { 500 } else { 50 }),
            "{round}: {took:?}"
        );
        tokio::time::sleep(secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s07_the_first_record_to_each_of_50_topics() {
    let mut builder = Cluster::builder().brokers(3).tcp(false);
    for topic in 0..50 {
        builder = builder.topic(format!("t{topic}"), 3, 3);
    }
    let cluster = builder.start_on_current_runtime().unwrap();
    let client = connect(&cluster).await;
    let producer = client.producer().linger(secs(30)).build().unwrap();
    for topic in 0..50 {
        let begun = Instant::now();
        let topic = format!("t{topic}");
        let delivery = producer.send(Record::to(&topic).value("x")).await.unwrap();
        within("ack", delivery).await.unwrap();
        assert!(begun.elapsed() < secs(1), "{topic}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn s08_a_leader_named_in_the_answer_is_used_at_once() {
    let cluster = cluster(3, 1);
    let client = connect(&cluster).await;
    let producer = small_batches(&client).build().unwrap();
    warm(&producer).await;
    for (number, leader) in [(3, 2), (4, 3), (5, 1)] {
        cluster.move_leader("t", 0, leader).unwrap();
        let asked = cluster.stats().requests_of(ApiKey::METADATA);
        acks(send_pinned(&producer, number..number + 1).await).await;
        assert_eq!(cluster.stats().requests_of(ApiKey::METADATA), asked, "to broker {leader}");
    }
    assert_eq!(stored(&cluster, 0).len(), 6);
}

#[tokio::test(start_paused = true)]
async fn s11_throttled_means_silent() {
    let cluster = cluster(1, 3);
    let client = connect(&cluster).await;
    let producer = client.producer().build().unwrap();
    cluster.faults().on(1, ApiKey::PRODUCE, Fault::Throttle(secs(5)), 1);
    let first = producer.send(Record::to("t").value("x")).await.unwrap();
    within("ack", first).await.unwrap();
    let throttled = Instant::now();
    let sent = cluster.stats().requests_of(ApiKey::PRODUCE);
    let mut deliveries = send_pinned(&producer, 0..5).await;
    deliveries.push(producer.send(Record::to("t").value("x")).await.unwrap());
    tokio::time::sleep(Duration::from_millis(4_900)).await;
    assert_eq!(cluster.stats().requests_of(ApiKey::PRODUCE), sent, "sent while throttled");
    acks(deliveries).await;
    assert!((secs(5)..secs(6)).contains(&throttled.elapsed()), "{:?}", throttled.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s11_throttled_by_one_broker_records_go_elsewhere() {
    let cluster = cluster(3, 3);
    let client = connect(&cluster).await;
    let producer = small_batches(&client).build().unwrap();
    // Connections to all of them.
    for partition in 0..3 {
        let record = Record::to("t").partition(partition).value("x");
        within("ack", producer.send(record).await.unwrap()).await.unwrap();
    }
    cluster.faults().on(1, ApiKey::PRODUCE, Fault::Throttle(secs(60)), 1);
    within("ack", send_pinned(&producer, 0..1).await.remove(0)).await.unwrap();
    let begun = Instant::now();
    for _ in 0..20 {
        let at = within("ack", producer.send(Record::to("t").value("x")).await.unwrap()).await;
        assert_ne!(at.unwrap().partition, 0);
    }
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s14_a_thousand_topics_share_requests() {
    let mut builder = Cluster::builder().brokers(3).tcp(false);
    for topic in 0..1_000 {
        builder = builder.topic(format!("t{topic}"), 3, 3);
    }
    let cluster = builder.start_on_current_runtime().unwrap();
    let client = connect(&cluster).await;
    let producer = client.producer().build().unwrap();
    for round in ["before the topics are known", "after"] {
        let before = cluster.stats().requests_of(ApiKey::PRODUCE);
        let mut deliveries = Vec::new();
        for topic in 0..1_000 {
            let topic = format!("t{topic}");
            deliveries.push(producer.send(Record::to(&topic).value("x")).await.unwrap());
        }
        acks(deliveries).await;
        let sent = cluster.stats().requests_of(ApiKey::PRODUCE) - before;
        assert!(sent <= 6, "{round}: {sent} Produce requests for 1,000 topics on 3 brokers");
    }
}

/// An answer takes shorter than to name a thousand topics: each answer finds new ones to ask for.
#[tokio::test(start_paused = true)]
async fn s14_topics_that_come_one_after_the_other_share_requests_too() {
    let mut builder = Cluster::builder().brokers(3).tcp(false);
    for topic in 0..1_000 {
        builder = builder.topic(format!("t{topic}"), 3, 3);
    }
    let cluster = builder.start_on_current_runtime().unwrap();
    let client = connect(&cluster).await;
    let slow = FaultRule::new(Fault::Delay(Duration::from_millis(3))).api(ApiKey::METADATA);
    cluster.faults().inject(slow);
    let producer = client.producer().build().unwrap();
    let of = |api| cluster.stats().requests_of(api);
    let (metadata, produce) = (of(ApiKey::METADATA), of(ApiKey::PRODUCE));
    let mut deliveries = Vec::new();
    for topic in 0..1_000 {
        let topic = format!("t{topic}");
        deliveries.push(producer.send(Record::to(&topic).value("x")).await.unwrap());
        if topic.ends_with("00") {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    acks(deliveries).await;
    assert_eq!(of(ApiKey::METADATA) - metadata, 2);
    assert!(of(ApiKey::PRODUCE) - produce <= 6, "{}", of(ApiKey::PRODUCE) - produce);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_producer_and_client_resolve_what_is_left() {
    let warnings = Warnings::default();
    let _listening = tracing::subscriber::set_default(warnings.clone());
    let cluster = cluster(1, 1);
    let client = connect(&cluster).await;
    let producer = client.producer().build().unwrap();
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    let deliveries = send_pinned(&producer, 0..5).await;
    drop(producer);
    drop(client);
    for delivery in deliveries {
        let error = within("an end", delivery).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    let said = warnings.text();
    assert!(said.contains("records=5") && said.contains("dropped"), "{said}");
}

/// The client lives on, and what was given to it: nothing is lost for want of a variable.
#[tokio::test(start_paused = true)]
async fn a_dropped_producers_records_are_delivered_while_its_client_lives() {
    let cluster = cluster(3, 3);
    let client = connect(&cluster).await;
    let producer = client.producer().linger(secs(10)).build().unwrap();
    let deliveries = send_pinned(&producer, 0..5).await;
    drop(producer);
    acks(deliveries).await;
    assert_eq!(stored(&cluster, 0).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn connections_close_with_the_last_handle() {
    let cluster = cluster(3, 6);
    let client = connect(&cluster).await;
    let producer = client.producer().build().unwrap();
    let consumer = client.consumer().topics(["t"]).build().unwrap();
    acks(send_pinned(&producer, 0..6).await).await;
    drop(client);
    drop(consumer);
    assert!(cluster.stats().connections_open() >= 3, "a producer is left");
    drop(producer);
    // Long before they would for being idle.
    until("closed connections", || cluster.stats().connections_open() == 0).await;
}

/// Whatever was being dialled when all connections were lost at once.
#[tokio::test(start_paused = true)]
async fn connections_close_with_the_last_handle_after_a_reset() {
    for seed in 0..60 {
        let cluster = cluster(3, 6);
        let client = virtual_cluster::client(&cluster, seed);
        let client = within("connect", client.connect()).await.unwrap();
        let producer = client.producer().build().unwrap();
        acks(send_pinned(&producer, 0..6).await).await;
        for broker in cluster.broker_ids() {
            cluster.cut_connections(broker).unwrap();
        }
        let mut deliveries = Vec::new();
        for i in 0..20 {
            deliveries.push(producer.send(Record::to("t").value(&value(i))).await.unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        acks(deliveries).await;
        drop((client, producer));
        // What is needed is dialled within 5 s; nothing else may be waited for.
        tokio::time::sleep(secs(5)).await;
        assert_eq!(cluster.stats().connections_open(), 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn s32_nobody_dials_in_a_loop_while_all_brokers_are_down() {
    let cluster = cluster(3, 6);
    let client = connect(&cluster).await;
    let producer = client.producer().build().unwrap();
    within("ack", producer.send(Record::to("t").value("x")).await.unwrap()).await.unwrap();
    for broker in cluster.broker_ids() {
        cluster.stop_broker(broker, Leaders::Keep).unwrap();
    }
    let before = client.stats().connect_failures;
    let deliveries = send_pinned(&producer, 0..5).await;
    let free = producer.send(Record::to("t").value("x")).await.unwrap();
    tokio::time::sleep(secs(60)).await;
    let failures = client.stats().connect_failures - before;
    // Full jitter up to 5 s gives a dial each 2.5 s and broker, on two lanes; twice that is a loop.
    assert!(failures < 3 * 2 * 48, "{failures} dials failed in 60 s");
    for broker in cluster.broker_ids() {
        cluster.start_broker(broker).unwrap();
    }
    acks(deliveries).await;
    within("ack", free).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn s05_trying_again_and_again_empties_a_full_buffer_too() {
    let cluster = cluster(1, 1);
    let client = connect(&cluster).await;
    let producer = client
        .producer()
        .linger(secs(60))
        .batch_size(1 << 20)
        .buffer_memory(1 << 20)
        .compression(Compression::None)
        .build()
        .unwrap();
    // Something is in flight, so that nothing goes because the broker is idle.
    let slow = FaultRule::new(Fault::DelayAnswer(Duration::from_millis(500)));
    cluster.faults().inject(slow.api(ApiKey::PRODUCE).always());
    let begun = Instant::now();
    let payload = vec![7; 100_000];
    let mut taken = Vec::new();
    let mut refused = 0;
    while taken.len() < 30 {
        match producer.try_send(Record::to("t").value(&payload)) {
            Ok(delivery) => taken.push(delivery),
            Err(back) => {
                assert_eq!(back.error.kind(), ErrorKind::BufferFull);
                refused += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    assert!(refused > 0 && begun.elapsed() < secs(30), "{refused}, {:?}", begun.elapsed());
    within("flush", producer.flush()).await.unwrap();
    acks(taken).await;
}

#[tokio::test(start_paused = true)]
async fn s10_what_is_wrong_with_one_record_concerns_that_record_alone() {
    let cluster = cluster(3, 3);
    let client = connect(&cluster).await;
    let producer = client.producer().build().unwrap();
    within("ack", producer.send(Record::to("t").value("known")).await.unwrap()).await.unwrap();
    let sent = cluster.stats().requests_of(ApiKey::PRODUCE);
    let large = vec![0; (1 << 20) + 1];
    let headers = vec![("h", None); 10_001];
    let wrong = [
        (Record::to("t").value(&large), ErrorKind::RecordTooLarge),
        (Record::to("t").timestamp_ms(-1), ErrorKind::InvalidArgument),
        (Record::to("t").headers(&headers), ErrorKind::InvalidArgument),
        (Record::to("t").partition(3), ErrorKind::UnknownPartition),
        (Record::to("t").partition(-1), ErrorKind::UnknownPartition),
        (Record::to("no such name").value("x"), ErrorKind::InvalidArgument),
        (Record::to("").value("x"), ErrorKind::InvalidArgument),
    ];
    // At once, and before any network; in between, all is well.
    let mut well = Vec::new();
    for (record, kind) in wrong {
        let error = producer.send(record).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.maybe_written());
        well.push(producer.try_send(Record::to("t").value("x")).unwrap());
    }
    assert_eq!(cluster.stats().requests_of(ApiKey::PRODUCE), sent);
    acks(well).await;
}
