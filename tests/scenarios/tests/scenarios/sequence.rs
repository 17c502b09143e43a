//! Brokers that refuse a batch for its sequence: whether it is in the log by an earlier attempt is not
//! told by that, and under another epoch it would be there twice. And batches that are to be cut while
//! others behind them are in doubt.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders, error_code};
use ottla::{Client, Compression, Delivery, ErrorKind, Producer, Record};
use ottla_scenarios::steps::{
    acks, cluster, connect, ms, requests, secs, send_pinned, small_batches, stored, warm,
};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};

const REQUEST_TIMED_OUT: i16 = error_code::REQUEST_TIMED_OUT;
const OUT_OF_ORDER: i16 = error_code::OUT_OF_ORDER_SEQUENCE_NUMBER;
const UNKNOWN_PRODUCER_ID: i16 = 59;
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;

async fn client(cluster: &Cluster) -> Client {
    connect(virtual_cluster::client(cluster, 1)).await
}

/// Each record is a batch that goes at once: five are in flight.
async fn producer(cluster: &Cluster) -> Producer {
    small_batches(&client(cluster).await).linger(secs(0)).build().unwrap()
}

/// The numbers in the log of partition 0, in its order, but those that [`warm`] has sent.
fn numbers(cluster: &Cluster) -> Vec<usize> {
    let number = |value: bytes::Bytes| std::str::from_utf8(&value).unwrap().parse::<usize>();
    let all = stored(cluster, 0).into_iter().map(|r| number(r.value.unwrap()).unwrap());
    all.filter(|n| *n >= 10).collect()
}

/// The next so many batches are appended, and nobody is told.
fn in_doubt(cluster: &Cluster, batches: usize) {
    let fault = Fault::ErrorAfterAppend(REQUEST_TIMED_OUT);
    cluster.faults().on(None, ApiKey::PRODUCE, fault, batches);
}

/// A broker is shut down and started again: it knows the last batch of each producer.
fn restart(cluster: &Cluster) {
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    cluster.forget_older_batches("t", 0).unwrap();
    cluster.start_broker(1).unwrap();
}

/// So many batches that are in the log, with nobody told, and a leader that has forgotten all but the
/// last.
async fn forgotten(cluster: &Cluster, producer: &Producer, batches: usize) -> Vec<Delivery> {
    warm(producer).await;
    let faults = cluster.faults();
    in_doubt(cluster, batches);
    // Nothing is sent again before the broker is gone.
    let slow = FaultRule::new(Fault::Delay(secs(1))).api(ApiKey::PRODUCE);
    let slow = faults.inject(slow.after(batches));
    let fired = faults.fired();
    let deliveries = send_pinned(producer, 10..10 + batches).await;
    until("all are appended", || faults.fired() >= fired + batches as u64).await;
    restart(cluster);
    faults.remove(slow);
    deliveries
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_forgot_is_acknowledged_and_written_once() {
    let cluster = cluster(1, 1);
    let producer = producer(&cluster).await;
    let deliveries = forgotten(&cluster, &producer, 3).await;
    let acked = acks(deliveries).await;
    assert_eq!(numbers(&cluster), [10, 11, 12]);
    // The leader does not tell where the older ones are.
    let offsets: Vec<_> = acked.iter().map(|a| a.offset).collect();
    assert_eq!(offsets, [-1, -1, 5]);
    assert!(cluster.stats().requests_of(ApiKey::DESCRIBE_PRODUCERS) >= 1);
    // The sequence goes on as if nothing had been.
    acks(send_pinned(&producer, 20..23).await).await;
    assert_eq!(numbers(&cluster), [10, 11, 12, 20, 21, 22]);
    assert!(stored(&cluster, 0).iter().all(|r| r.producer_epoch == 0));
}

/// A later one was acknowledged: the broker took it behind the one that it has forgotten.
#[tokio::test(start_paused = true)]
async fn what_is_forgotten_before_an_acknowledged_one() {
    let cluster = cluster(1, 1);
    let producer = producer(&cluster).await;
    warm(&producer).await;
    in_doubt(&cluster, 1);
    let mut deliveries = send_pinned(&producer, 10..12).await;
    within("the second", deliveries.pop().unwrap()).await.unwrap();
    restart(&cluster);
    let acked = within("the first", deliveries.pop().unwrap()).await.unwrap();
    assert_eq!((acked.offset, numbers(&cluster)), (-1, vec![10, 11]));
}

async fn is_not_told(cluster: &Cluster) {
    let producer = producer(cluster).await;
    let mut deliveries = forgotten(cluster, &producer, 2).await;
    let last = deliveries.pop().unwrap();
    let e = within("the first", deliveries.pop().unwrap()).await.unwrap_err();
    assert!(e.maybe_written() && !e.is_retriable(), "{e}");
    // The broker remembers that one.
    within("the second", last).await.unwrap();
    acks(send_pinned(&producer, 20..23).await).await;
    assert_eq!(numbers(cluster), [10, 11, 20, 21, 22]);
}

/// DescribeProducers is for those who may read the topic.
#[tokio::test(start_paused = true)]
async fn who_may_not_ask_does_not_know() {
    let cluster = cluster(1, 1);
    let refused = Fault::Error(TOPIC_AUTHORIZATION_FAILED);
    cluster.faults().inject(FaultRule::new(refused).api(ApiKey::DESCRIBE_PRODUCERS).always());
    is_not_told(&cluster).await;
}

/// Brokers before 2.8 do not answer DescribeProducers.
#[tokio::test(start_paused = true)]
async fn who_can_tell_nothing() {
    let cluster = Cluster::builder()
        .tcp(false)
        .topic("t", 1, 1)
        .max_version(ApiKey::DESCRIBE_PRODUCERS, -1)
        .start_on_current_runtime()
        .unwrap();
    is_not_told(&cluster).await;
}

/// Leaders that fail to tell are asked again.
#[tokio::test(start_paused = true)]
async fn a_lookup_that_fails_is_made_again() {
    let cluster = cluster(1, 1);
    let faults = cluster.faults();
    faults.on(None, ApiKey::DESCRIBE_PRODUCERS, Fault::CutBeforeAppend, 2);
    for code in [error_code::UNKNOWN_SERVER_ERROR, error_code::NOT_LEADER_OR_FOLLOWER] {
        let refused = FaultRule::new(Fault::Error(code)).api(ApiKey::DESCRIBE_PRODUCERS);
        faults.inject(refused.after(2));
    }
    let producer = producer(&cluster).await;
    let deliveries = forgotten(&cluster, &producer, 2).await;
    acks(deliveries).await;
    assert_eq!(numbers(&cluster), [10, 11]);
}

/// One that is in doubt, whatever its sequence is refused with, stays in place.
#[tokio::test(start_paused = true)]
async fn no_refusal_of_a_sequence_ends_doubt() {
    let refusals = [OUT_OF_ORDER, UNKNOWN_PRODUCER_ID, error_code::INVALID_PRODUCER_EPOCH];
    let doubts =
        [Fault::CutBeforeAppend, Fault::CutAfterAppend, Fault::ErrorAfterAppend(REQUEST_TIMED_OUT)];
    for refusal in refusals {
        for doubt in doubts {
            let cluster = cluster(1, 1);
            let producer = producer(&cluster).await;
            warm(&producer).await;
            let faults = cluster.faults();
            faults.inject(FaultRule::new(doubt).api(ApiKey::PRODUCE));
            faults.inject(FaultRule::new(Fault::Error(refusal)).api(ApiKey::PRODUCE).after(1));
            acks(send_pinned(&producer, 10..11).await).await;
            assert_eq!(numbers(&cluster), [10], "{doubt:?}, {refusal}");
            assert!(stored(&cluster, 0).iter().all(|r| r.producer_epoch == 0), "{refusal}");
        }
    }
}

/// What never was in doubt goes on under the next epoch.
#[tokio::test(start_paused = true)]
async fn a_log_that_lost_records_takes_new_ones() {
    for refusal in [OUT_OF_ORDER, UNKNOWN_PRODUCER_ID, error_code::INVALID_PRODUCER_EPOCH] {
        let cluster = cluster(1, 1);
        let producer = producer(&cluster).await;
        warm(&producer).await;
        cluster.faults().on(None, ApiKey::PRODUCE, Fault::Error(refusal), 1);
        acks(send_pinned(&producer, 10..14).await).await;
        assert_eq!(numbers(&cluster), [10, 11, 12, 13], "{refusal}");
        assert!(stored(&cluster, 0).iter().skip(3).all(|r| r.producer_epoch == 1), "{refusal}");
        assert_eq!(cluster.stats().requests_of(ApiKey::DESCRIBE_PRODUCERS), 0);
    }
}

/// The first request waits until the second is behind it, whose response never comes.
fn second_in_doubt(cluster: &Cluster) {
    let faults = cluster.faults();
    faults.inject(FaultRule::new(Fault::Delay(ms(100))).api(ApiKey::PRODUCE));
    faults.inject(FaultRule::new(Fault::CutBeforeAppend).api(ApiKey::PRODUCE).after(1));
}

/// A batch that is too large, and one behind it that nobody knows of.
async fn cut_before_doubt(
    max_message_bytes: usize,
    numbers: std::ops::Range<usize>,
    large: Option<usize>,
) -> (Cluster, Producer, Vec<Delivery>) {
    let cluster = Cluster::builder()
        .tcp(false)
        .max_message_bytes(max_message_bytes)
        .topic("t", 1, 1)
        .start_on_current_runtime()
        .unwrap();
    let client = client(&cluster).await;
    let producer = client
        .producer()
        .linger(secs(0))
        .batch_size(4 << 10)
        .compression(Compression::None)
        .build()
        .unwrap();
    // Known, and not yet told that it takes less than that.
    for number in 0..3 {
        acks(send_pinned(&producer, number..number + 1).await).await;
    }
    second_in_doubt(&cluster);
    let mut deliveries = Vec::new();
    for number in numbers {
        let value = match large {
            Some(n) if n == number => format!("{number:03000}"),
            _ => format!("{number:0300}"),
        };
        let record = Record::to("t").partition(0).value(&value);
        deliveries.push(producer.send(record).await.unwrap());
    }
    (cluster, producer, deliveries)
}

#[tokio::test(start_paused = true)]
async fn halves_go_where_the_whole_was_refused() {
    let (cluster, _producer, deliveries) = cut_before_doubt(2_000, 10..27, None).await;
    let began = tokio::time::Instant::now();
    let acked = acks(deliveries).await;
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    assert_eq!(numbers(&cluster), (10..27).collect::<Vec<_>>());
    assert!(acked.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    assert!(stored(&cluster, 0).iter().all(|r| r.producer_epoch == 0), "no hole");
}

/// The culprit leaves a hole: what is behind it in doubt cannot be written there any more.
#[tokio::test(start_paused = true)]
async fn a_culprit_before_a_batch_in_doubt_stalls_nobody() {
    let (cluster, producer, deliveries) = cut_before_doubt(2_000, 10..18, Some(12)).await;
    let began = tokio::time::Instant::now();
    let mut expected = Vec::new();
    for (number, delivery) in (10..).zip(deliveries) {
        match within("its end", delivery).await {
            Ok(_) => expected.push(number),
            Err(e) if number == 12 => {
                assert!(e.kind() == ErrorKind::RecordTooLarge && !e.maybe_written(), "{e}");
            }
            Err(e) => assert!(e.maybe_written(), "{number}: {e}"),
        }
    }
    assert!(began.elapsed() < secs(10), "{:?}", began.elapsed());
    assert_eq!(numbers(&cluster), expected, "once each, in order");
    assert_eq!(expected, [10, 11, 13], "the rest was in doubt, and has no place");
    acks(send_pinned(&producer, 20..23).await).await;
    assert_eq!(numbers(&cluster), [10, 11, 13, 20, 21, 22]);
}

/// The broker names the records: the others go on without them.
#[tokio::test(start_paused = true)]
async fn named_culprits_before_a_batch_in_doubt_stall_nobody() {
    let cluster = cluster(1, 1);
    cluster.refuse_timestamps_after("t", 1_800_000_000_000).unwrap();
    let client = client(&cluster).await;
    let producer = client
        .producer()
        .linger(secs(0))
        .batch_size(4 << 10)
        .compression(Compression::None)
        .build()
        .unwrap();
    warm(&producer).await;
    second_in_doubt(&cluster);
    let mut deliveries = Vec::new();
    for number in 10..30 {
        let value = format!("{number:0300}");
        let time = if number == 13 { 1_900_000_000_000 } else { 1_700_000_000_000 };
        let record = Record::to("t").partition(0).value(&value).timestamp_ms(time);
        deliveries.push(producer.send(record).await.unwrap());
    }
    let began = tokio::time::Instant::now();
    let mut expected = Vec::new();
    for (number, delivery) in (10..).zip(deliveries) {
        match within("its end", delivery).await {
            Ok(_) => expected.push(number),
            Err(e) if number == 13 => {
                assert!(e.kind() == ErrorKind::InvalidRecord && !e.maybe_written(), "{e}");
            }
            Err(e) => assert!(e.maybe_written(), "{number}: {e}"),
        }
    }
    assert!(began.elapsed() < secs(10), "{:?}", began.elapsed());
    assert_eq!(numbers(&cluster), expected, "once each, in order");
    assert!(expected.len() >= 9, "{expected:?}");
}

/// One doubtful batch after the other, at brokers that are restarted all the time: every record is in
/// the log once, in order.
#[tokio::test(start_paused = true)]
async fn restarts_in_the_middle_of_doubt() {
    let cluster = cluster(1, 1);
    let producer = producer(&cluster).await;
    warm(&producer).await;
    let mut all = Vec::new();
    for round in 0..40 {
        in_doubt(&cluster, round % 6);
        let numbers = 10 + 5 * round..15 + 5 * round;
        all.extend(numbers.clone());
        let fired = cluster.faults().fired();
        let deliveries = send_pinned(&producer, numbers).await;
        until("in doubt", || cluster.faults().fired() >= fired + (round % 6).min(5) as u64).await;
        restart(&cluster);
        cluster.faults().clear();
        acks(deliveries).await;
    }
    assert_eq!(numbers(&cluster), all);
}

/// However often it fails: with pauses, and with a look at who leads if the leader says that it does not.
#[tokio::test(start_paused = true)]
async fn a_lookup_that_goes_on_failing_is_paced() {
    for code in [error_code::UNKNOWN_SERVER_ERROR, error_code::NOT_LEADER_OR_FOLLOWER] {
        let cluster = cluster(1, 1);
        let client = client(&cluster).await;
        let producer = small_batches(&client).linger(secs(0)).build().unwrap();
        let refused = FaultRule::new(Fault::Error(code)).api(ApiKey::DESCRIBE_PRODUCERS);
        let refused = cluster.faults().inject(refused.always());
        // Something that takes its time, so that time goes on.
        let slow = FaultRule::new(Fault::Delay(ms(1))).api(ApiKey::DESCRIBE_PRODUCERS);
        cluster.faults().inject(slow.always());
        let deliveries = forgotten(&cluster, &producer, 2).await;
        let asked = || cluster.stats().requests_of(ApiKey::DESCRIBE_PRODUCERS);
        until("a first lookup", || asked() > 0).await;
        let metadata = cluster.stats().requests_of(ApiKey::METADATA);
        tokio::time::sleep(secs(10)).await;
        assert!((3..40).contains(&asked()), "{code}: {} in 10 s", asked());
        assert!(requests(&client, 1, "DescribeProducers").errors >= 3, "{code}");
        if code == error_code::NOT_LEADER_OR_FOLLOWER {
            assert!(cluster.stats().requests_of(ApiKey::METADATA) > metadata, "who leads?");
        }
        assert!(cluster.faults().remove(refused));
        acks(deliveries).await;
        assert_eq!(numbers(&cluster), [10, 11]);
    }
}

/// Each refusal begins another epoch, and not at once.
#[tokio::test(start_paused = true)]
async fn a_refused_sequence_is_paced() {
    let cluster = cluster(1, 1);
    let producer = producer(&cluster).await;
    warm(&producer).await;
    let refused = FaultRule::new(Fault::Error(OUT_OF_ORDER)).api(ApiKey::PRODUCE).always();
    let refused = cluster.faults().inject(refused);
    let before = cluster.faults().fired();
    let deliveries = send_pinned(&producer, 10..11).await;
    tokio::time::sleep(secs(10)).await;
    let asked = cluster.faults().fired() - before;
    assert!((3..40).contains(&asked), "{asked} in 10 s");
    assert!(cluster.faults().remove(refused));
    acks(deliveries).await;
    assert_eq!(numbers(&cluster), [10]);
}
