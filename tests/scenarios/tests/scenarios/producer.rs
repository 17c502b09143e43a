//! What the producer does when things go wrong, one scenario each, in virtual time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{Acked, ErrorKind, Record};
use ottla_scenarios::steps::{
    acks, cluster, connect, ms, secs, send_pinned, small_batches, stored, value, warm,
};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::Instant;

const NOT_ENOUGH_REPLICAS: i16 = 19;
const NOT_LEADER: i16 = 6;
const OUT_OF_ORDER: i16 = 45;

/// Partition 0 holds the numbers, each once, in order, where the acknowledgements say.
fn assert_in_order(cluster: &Cluster, acks: &[Acked]) {
    let stored = stored(cluster, 0);
    assert_eq!(stored.len(), acks.len(), "a record is missing or doubled");
    for (number, (record, acked)) in stored.iter().zip(acks).enumerate() {
        assert_eq!(record.value.as_deref(), Some(&value(number)[..]), "at offset {number}");
        assert_eq!((acked.partition, acked.offset), (0, number as i64));
    }
}

async fn survives(fault: FaultRule) -> Cluster {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
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
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = small_batches(&client).build().unwrap();
    let mut deliveries = Vec::new();
    for round in 0..30 {
        deliveries.extend(send_pinned(&producer, round * 10..round * 10 + 10).await);
        cluster.move_leader("t", 0, round as i32 % 3 + 1).unwrap();
        tokio::time::sleep(ms(round as u64 * 7 % 40)).await;
    }
    let acks = acks(deliveries).await;
    assert_in_order(&cluster, &acks);
}

#[tokio::test(start_paused = true)]
async fn s03_leaderless_for_a_while() {
    let cluster = cluster(3, 6);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
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
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
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
async fn s07_a_sparse_record_has_no_linger_added() {
    let cluster = cluster(3, 6);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().linger(secs(30)).build().unwrap();
    // Virtual time moves only when everybody waits: what is asked of the clock is the linger.
    for round in 0..50 {
        let begun = Instant::now();
        let delivery = producer.send(Record::to("t").value("x")).await.unwrap();
        within("ack", delivery).await.unwrap();
        let took = begun.elapsed();
        assert!(took < ms(if round == 0 { 500 } else { 50 }), "{round}: {took:?}");
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
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
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
async fn s08_a_leader_named_in_the_response_is_used_at_once() {
    let cluster = cluster(3, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
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
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    cluster.faults().on(1, ApiKey::PRODUCE, Fault::Throttle(secs(5)), 1);
    let first = producer.send(Record::to("t").value("x")).await.unwrap();
    within("ack", first).await.unwrap();
    let throttled = Instant::now();
    // The broker reads nothing meanwhile: what counts is what the client has sent.
    let sent = client.stats().produce_requests;
    let mut deliveries = send_pinned(&producer, 0..5).await;
    deliveries.push(producer.send(Record::to("t").value("x")).await.unwrap());
    tokio::time::sleep(ms(4_900)).await;
    assert_eq!(client.stats().produce_requests, sent, "sent while throttled");
    acks(deliveries).await;
    assert!((secs(5)..secs(6)).contains(&throttled.elapsed()), "{:?}", throttled.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s11_throttled_by_one_broker_records_go_elsewhere() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
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
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for round in ["before the topics are known", "after"] {
        let before = cluster.stats().requests_of(ApiKey::PRODUCE);
        let mut deliveries = Vec::new();
        for topic in 0..1_000 {
            let topic = format!("t{topic}");
            // At once: the engine is on this thread, and would have turns in between.
            deliveries.push(producer.try_send(Record::to(&topic).value("x")).unwrap());
        }
        acks(deliveries).await;
        let sent = cluster.stats().requests_of(ApiKey::PRODUCE) - before;
        assert!(sent <= 6, "{round}: {sent} Produce requests for 1,000 topics on 3 brokers");
    }
}

/// A response takes shorter than to name a thousand topics: each response finds new ones to ask for.
#[tokio::test(start_paused = true)]
async fn s14_topics_that_come_one_after_the_other_share_requests_too() {
    let mut builder = Cluster::builder().brokers(3).tcp(false);
    for topic in 0..1_000 {
        builder = builder.topic(format!("t{topic}"), 3, 3);
    }
    let cluster = builder.start_on_current_runtime().unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let slow = FaultRule::new(Fault::Delay(ms(3))).api(ApiKey::METADATA);
    cluster.faults().inject(slow);
    let producer = client.producer().build().unwrap();
    let of = |api| cluster.stats().requests_of(api);
    let (metadata, produce) = (of(ApiKey::METADATA), of(ApiKey::PRODUCE));
    let mut deliveries = Vec::new();
    for topic in 0..1_000 {
        let topic = format!("t{topic}");
        deliveries.push(producer.send(Record::to(&topic).value("x")).await.unwrap());
        if topic.ends_with("00") {
            tokio::time::sleep(ms(3)).await;
        }
    }
    acks(deliveries).await;
    assert_eq!(of(ApiKey::METADATA) - metadata, 2);
    assert!(of(ApiKey::PRODUCE) - produce <= 6, "{}", of(ApiKey::PRODUCE) - produce);
}

#[tokio::test(start_paused = true)]
async fn s32_nobody_dials_in_a_loop_while_all_brokers_are_down() {
    let cluster = cluster(3, 6);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
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
async fn s10_what_is_wrong_with_one_record_concerns_that_record_alone() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
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

/// Its end is waited for by what names its partition, too.
#[tokio::test(start_paused = true)]
async fn s11_what_must_go_there_goes_when_the_silence_ends() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = small_batches(&client).build().unwrap();
    warm(&producer).await;
    cluster.faults().on(1, ApiKey::PRODUCE, Fault::Throttle(secs(5)), 1);
    acks(send_pinned(&producer, 3..4).await).await;
    let throttled = Instant::now();
    acks(send_pinned(&producer, 4..5).await).await;
    assert!((secs(5)..secs(6)).contains(&throttled.elapsed()), "{:?}", throttled.elapsed());
}

/// Those behind a refused batch are refused for their sequence: its shadow, and no log that has lost
/// something.
#[tokio::test(start_paused = true)]
async fn out_of_order_behind_a_refused_one_is_its_shadow() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = small_batches(&client).build().unwrap();
    warm(&producer).await;
    let slow = FaultRule::new(Fault::Delay(ms(5))).api(ApiKey::PRODUCE);
    cluster.faults().inject(slow.always());
    let refused = Fault::Error(NOT_ENOUGH_REPLICAS);
    cluster.faults().on(None, ApiKey::PRODUCE, refused, 1);
    let acks = acks(send_pinned(&producer, 3..8).await).await;
    assert_eq!(acks.len(), 5);
    let errors = client.stats().brokers[&1].requests["Produce"].errors;
    assert!(errors > 1, "{errors}: nothing was behind it");
    assert!(stored(&cluster, 0).iter().all(|record| record.producer_epoch == 0));
}

/// What can be known of a record is said at once, also on the short way that most records take.
#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_record_is_said_at_once() {
    let cluster = cluster(1, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().max_record_size(200_000).build().unwrap();
    let missing = producer.send(Record::to("missing").value("x")).await.unwrap();
    assert_eq!(within("an end", missing).await.unwrap_err().kind(), ErrorKind::UnknownTopic);
    let headers = vec![("h", None); 10_001];
    let (fits, large) = (vec![7; 200_000], vec![7; 200_001]);
    let record = Record::to("t").value("x");
    acks(vec![producer.send(record).await.unwrap()]).await;
    // A batch is open, which takes what is all right as it comes.
    let mut taken = vec![producer.try_send(record).unwrap()];
    let refused = [
        (Record::to("missing").value("x"), ErrorKind::UnknownTopic),
        (record.timestamp_ms(-1), ErrorKind::InvalidArgument),
        (record.headers(&headers), ErrorKind::InvalidArgument),
        (record.partition(-1), ErrorKind::UnknownPartition),
        (record.partition(3), ErrorKind::UnknownPartition),
        (record.value(&large), ErrorKind::RecordTooLarge),
    ];
    for (number, (record, kind)) in refused.into_iter().enumerate() {
        let error = producer.try_send(record).map(drop).unwrap_err();
        assert_eq!(error.kind(), kind, "{number}: {error}");
    }
    let fits = record.value(&fits);
    for record in [fits, fits.partition(2), record.headers(&headers[1..])] {
        taken.push(producer.try_send(record).unwrap());
    }
    acks(taken).await;
}

/// The short way takes nothing away from a record.
#[tokio::test(start_paused = true)]
async fn what_comes_into_an_open_batch_is_all_there() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let headers = [("h", Some(&b"1"[..]))];
    let records = [
        Record::to("t").value("0"),
        Record::to("t").value("1").timestamp_ms(77),
        Record::to("t").value("2").headers(&headers),
        Record::to("t").key("k"),
    ];
    let acks = acks(records.map(|record| producer.try_send(record).unwrap()).into()).await;
    let stored = stored(&cluster, 0);
    let values: Vec<_> = stored.iter().map(|record| record.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"0"[..]), Some(b"1"), Some(b"2"), None]);
    assert_eq!((stored[1].timestamp, acks[1].timestamp_ms), (77, 77));
    assert_eq!(stored[2].headers.len(), 1);
    assert_eq!(stored[3].key.as_deref(), Some(&b"k"[..]));
}

/// Records bear the time of the engine's clock, which goes on.
#[tokio::test(start_paused = true)]
async fn records_bear_the_time_they_were_sent_at() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let first = acks(send_pinned(&producer, 0..1).await).await[0].timestamp_ms;
    tokio::time::sleep(secs(100)).await;
    let apart = acks(send_pinned(&producer, 1..2).await).await[0].timestamp_ms - first;
    assert!((100_000..101_000).contains(&apart), "{apart} ms");
}
