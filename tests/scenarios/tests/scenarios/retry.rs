//! What waits to be sent again, how long it waits, and what is said when it has waited too long.

use std::time::Duration;

use ottla::testing::{ApiKey, Fault, FaultRule};
use ottla::{Compression, Delivery, ErrorKind, OffsetSpec, Producer, Record};
use ottla_scenarios::steps::{
    acked, acks, cluster, connect, free, ms, pinned, secs, seen, send_pinned, small_batches, warm,
};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::Instant;

const NOT_ENOUGH_REPLICAS: i16 = 19;
const REFUSALS: usize = 7;
const SEEDS: u64 = 40;

/// The times between eight attempts at one record whose partition refuses seven.
async fn gaps(seed: u64) -> Vec<Duration> {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, seed)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    let rule = FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE);
    cluster.faults().inject(rule.times(REFUSALS));
    let delivery = producer.send(pinned(0)).await.unwrap();
    let before = seen(&cluster, 1, ApiKey::PRODUCE);
    let mut times = Vec::new();
    for attempt in 0..=REFUSALS as u64 {
        until("an attempt", || seen(&cluster, 1, ApiKey::PRODUCE) > before + attempt).await;
        times.push(Instant::now());
    }
    within("an ack", delivery).await.unwrap();
    assert_eq!(cluster.records("t", 0).unwrap().len(), 2, "seed {seed}: delivered once");
    assert_eq!(seen(&cluster, 1, ApiKey::PRODUCE), before + REFUSALS as u64 + 1, "seed {seed}");
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn s12_gaps_grow_and_no_two_are_alike() {
    let mut all: Vec<Vec<Duration>> = Vec::new();
    for seed in 0..SEEDS {
        all.push(gaps(seed).await);
    }
    let mut means = Vec::new();
    for n in 0..REFUSALS {
        let mut of: Vec<Duration> = all.iter().map(|gaps| gaps[n]).collect();
        of.sort_unstable();
        // Clamped first, then drawn: from nothing to the ceiling, the first and the last alike.
        let ceiling = ms(100 * (1 << n)).min(secs(5));
        let most = of[of.len() - 1];
        assert!(most <= ceiling + ms(3), "gap {n}: {most:?} of {ceiling:?}");
        assert!(most >= ceiling * 3 / 4 && of[0] <= ceiling / 4, "gap {n}: {of:?}");
        let mean = of.iter().sum::<Duration>() / SEEDS as u32;
        assert!((ceiling / 3..ceiling * 2 / 3).contains(&mean), "gap {n}: {mean:?}");
        means.push(mean);
        // A fleet that was refused together comes back one by one: what falls on the same millisecond
        // is what as many draws from so many milliseconds do.
        of.dedup();
        let expected = |draws: f64, days: f64| days * (1.0 - (1.0 - 1.0 / days).powf(draws));
        let distinct = expected(SEEDS as f64, ceiling.as_millis() as f64);
        assert!(of.len() as f64 >= 0.85 * distinct, "gap {n}: {} of {distinct:.1}", of.len());
    }
    // Past the cap they grow no more.
    assert!(means[..6].is_sorted(), "{means:?}");
    // Nor does a run repeat a gap, but for what falls on the same millisecond among the short ones.
    let repeated = all.iter().flat_map(|gaps| gaps.windows(2)).filter(|pair| pair[0] == pair[1]);
    assert!(repeated.count() <= 2, "{all:?}");
}

/// A record of 900 bytes, which is a batch of its own.
fn value(number: usize) -> Vec<u8> {
    format!("{number:0900}").into_bytes()
}

async fn send(producer: &Producer, number: usize) -> Delivery {
    let value = value(number);
    producer.send(Record::to("t").partition(0).value(&value)).await.unwrap()
}

/// What timed out behind a response that never came: the one in flight may have been written, those
/// behind it were not, and what is sent afterwards is acknowledged, under the next epoch.
#[tokio::test(start_paused = true)]
async fn s13_timed_out_behind_a_batch_in_doubt() {
    for appended in [true, false] {
        let cluster = cluster(1, 1);
        let client = virtual_cluster::client(&cluster, 1).request_timeout(secs(4));
        let client = connect(client).await;
        let producer = client.producer().batch_size(1 << 10).compression(Compression::None);
        let producer = producer.delivery_timeout(secs(3)).build().unwrap();
        let fault = match appended {
            true => Fault::BlackHoleAfterAppend,
            false => Fault::BlackHole,
        };
        cluster.faults().inject(FaultRule::new(fault).api(ApiKey::PRODUCE));
        let begun = Instant::now();
        // The first of all: until it is acknowledged nothing is put behind it.
        let doubtful = send(&producer, 1).await;
        tokio::time::sleep(secs(1)).await;
        let queued = [send(&producer, 2).await, send(&producer, 3).await];
        let error = within("the timeout", doubtful).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.maybe_written(), "it was on its way: {error}");
        assert!((secs(3)..ms(3_100)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        for delivery in queued {
            let error = within("the timeout", delivery).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(!error.maybe_written(), "it had no sequence yet: {error}");
        }
        let mut later = Vec::new();
        for number in 4..20 {
            later.push(send(&producer, number).await);
        }
        for delivery in later {
            within("an ack", delivery).await.unwrap();
        }
        let stored = cluster.records("t", 0).unwrap();
        let numbers: Vec<usize> = stored
            .iter()
            .map(|r| std::str::from_utf8(r.value.as_deref().unwrap()).unwrap().parse().unwrap())
            .collect();
        let wanted: Vec<usize> = appended.then_some(1).into_iter().chain(4..20).collect();
        assert_eq!(numbers, wanted);
        let first = &stored[usize::from(appended)];
        assert_eq!(
            (first.producer_epoch, first.sequence),
            (1, 0),
            "a hole in the sequence ends the epoch"
        );
    }
}

/// What was refused for certain leaves no hole: the sequence is rewound, and the epoch goes on.
#[tokio::test(start_paused = true)]
async fn s13_timed_out_while_the_partition_refuses() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().batch_size(1 << 10).compression(Compression::None);
    let producer = producer.delivery_timeout(secs(3)).build().unwrap();
    within("ack", send(&producer, 0).await).await.unwrap();
    let refusal = FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE).always();
    let refusal = cluster.faults().inject(refusal);
    let mut refused = Vec::new();
    for number in 1..8 {
        refused.push(send(&producer, number).await);
    }
    for delivery in refused {
        let error = within("the timeout", delivery).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(!error.maybe_written(), "{error}");
        assert!(error.message().contains("NOT_ENOUGH_REPLICAS"), "what was in its way: {error}");
    }
    cluster.faults().remove(refusal);
    for number in 8..12 {
        within("ack", send(&producer, number).await).await.unwrap();
    }
    let stored = cluster.records("t", 0).unwrap();
    let sequences: Vec<_> = stored.iter().map(|r| (r.producer_epoch, r.sequence)).collect();
    assert_eq!(sequences, [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]);
}

/// A leader that has just moved, a topic that has just been created: who looks up an offset hears of it
/// only if it stays so.
#[tokio::test(start_paused = true)]
async fn a_lookup_of_offsets_is_tried_again() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let admin = client.admin();
    let not_leader = || FaultRule::new(Fault::Error(6)).api(ApiKey::LIST_OFFSETS);
    cluster.faults().inject(not_leader().times(3));
    let wanted = || [("t", 0, OffsetSpec::Latest), ("t", 1, OffsetSpec::Latest)];
    let found = within("offsets", admin.list_offsets(wanted())).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|(_, offset)| matches!(offset, Ok(0))), "{found:?}");
    cluster.faults().inject(not_leader().always());
    let slow = FaultRule::new(Fault::Delay(ms(1))).api(ApiKey::LIST_OFFSETS);
    cluster.faults().inject(slow.always());
    let before = cluster.stats().requests_of(ApiKey::LIST_OFFSETS);
    let began = tokio::time::Instant::now();
    let found = within("an end", admin.list_offsets(wanted())).await.unwrap();
    assert!(found.iter().all(|(_, offset)| offset.is_err()), "{found:?}");
    assert!(began.elapsed() <= secs(31), "no longer than a request may take");
    let asked = cluster.stats().requests_of(ApiKey::LIST_OFFSETS) - before;
    assert!((5..200).contains(&asked), "{asked} in 30 s");
    // What asking again does not change is told at once.
    let before = cluster.stats().requests_of(ApiKey::LIST_OFFSETS);
    let found = within("no", admin.list_offsets([("t", 7, OffsetSpec::Latest)])).await.unwrap();
    assert!(found[0].1.is_err() && cluster.stats().requests_of(ApiKey::LIST_OFFSETS) == before);
}

/// What fails later does not get the pause of what failed before.
#[tokio::test(start_paused = true)]
async fn each_failure_has_a_pause_of_its_own() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    let begun = Instant::now();
    for _ in 0..20 {
        cluster.faults().on(None, ApiKey::PRODUCE, Fault::Error(NOT_ENOUGH_REPLICAS), 1);
        acked(&producer, pinned(0)).await;
    }
    // Fifty milliseconds each, in the mean.
    assert!((ms(400)..secs(2)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

/// Five batches in flight that one cause has refused are one failure, not the fifth in a row.
#[tokio::test(start_paused = true)]
async fn what_is_refused_together_counts_once() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    // The last of them is not full: it does not wait for more, however slow the broker becomes.
    let producer = small_batches(&client).linger(secs(0)).build().unwrap();
    warm(&producer).await;
    // Five are on their way before the first is looked at.
    let slow = FaultRule::new(Fault::Delay(ms(5))).api(ApiKey::PRODUCE);
    cluster.faults().inject(slow.always());
    let begun = Instant::now();
    // Not more often: each that is sent again is paid for.
    for round in 0..3 {
        let rule = FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE);
        let rule = cluster.faults().inject(rule.times(5));
        let numbers = 3 + 5 * round..8 + 5 * round;
        let sent = send_pinned(&producer, numbers).await;
        tokio::time::sleep(ms(26)).await;
        assert!(!cluster.faults().is_pending(rule), "round {round}: all five in flight");
        acks(sent).await;
    }
    assert!(begun.elapsed() < ms(700), "{:?}", begun.elapsed());
}

/// The same, with its pauses, where it may go anywhere and there is one place or several.
#[tokio::test(start_paused = true)]
async fn what_is_refused_wherever_it_goes_is_paced() {
    for partitions in [1, 3, 60] {
        let cluster = cluster(1, partitions);
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let producer = client.producer().build().unwrap();
        acked(&producer, free()).await;
        let rule = FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE);
        let rule = cluster.faults().inject(rule.always());
        let delivery = producer.send(free()).await.unwrap();
        let before = cluster.faults().fired();
        tokio::time::sleep(secs(10)).await;
        let refused = cluster.faults().fired() - before;
        assert!((3..40).contains(&refused), "{partitions} partitions: {refused} in 10 s");
        assert!(cluster.faults().remove(rule));
        let begun = Instant::now();
        within("an ack", delivery).await.unwrap();
        assert!(begun.elapsed() < secs(6), "{:?}", begun.elapsed());
    }
}

/// A broker that went silent may lead no more, and dialling it would not tell.
#[tokio::test(start_paused = true)]
async fn silence_is_a_reason_to_ask_who_leads() {
    let cluster = cluster(3, 1);
    let client = virtual_cluster::client(&cluster, 1).request_timeout(secs(2));
    let client = connect(client).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    let silent = FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE).broker(1);
    cluster.faults().inject(silent.always());
    let begun = Instant::now();
    let delivery = producer.send(pinned(0)).await.unwrap();
    tokio::time::sleep(ms(100)).await;
    cluster.move_leader("t", 0, 2).unwrap();
    within("an ack", delivery).await.unwrap();
    assert!(begun.elapsed() < ms(3_500), "{:?}", begun.elapsed());
}

/// Of partitions that nobody leads it is asked again and again, whether records name them or not.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_back_is_found_by_each_kind_of_record() {
    for record in [pinned(0), free()] {
        let cluster = cluster(3, 1);
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let producer = client.producer().build().unwrap();
        acked(&producer, record).await;
        cluster.remove_leader("t", 0).unwrap();
        let delivery = producer.send(record).await.unwrap();
        tokio::time::sleep(secs(20)).await;
        assert!(!delivery.is_done());
        cluster.move_leader("t", 0, 2).unwrap();
        let back = Instant::now();
        within("an ack", delivery).await.unwrap();
        assert!(back.elapsed() < secs(10), "{:?}", back.elapsed());
    }
}

/// A leader that the response names is asked at once, and not if that goes on: two that name each other
/// would be asked as fast as they can refuse.
#[tokio::test(start_paused = true)]
async fn a_leader_that_keeps_moving_is_paced() {
    let cluster = cluster(2, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    let mut leader = cluster.partition("t", 0).unwrap().leader.unwrap();
    let requests = || seen(&cluster, 1, ApiKey::PRODUCE) + seen(&cluster, 2, ApiKey::PRODUCE);
    let slow = FaultRule::new(Fault::Delay(ms(2))).api(ApiKey::PRODUCE);
    cluster.faults().inject(slow.always());
    let before = requests();
    let delivery = producer.send(pinned(0)).await.unwrap();
    let begun = Instant::now();
    let mut at = before;
    while begun.elapsed() < secs(5) {
        // It moves while the request is on its way to the one that led.
        if requests() > at {
            at = requests();
            leader = 3 - leader;
            cluster.move_leader("t", 0, leader).unwrap();
        }
        tokio::time::sleep(ms(1)).await;
    }
    assert!((3..40).contains(&(at - before)), "{} requests in 5 s", at - before);
    within("an ack", delivery).await.unwrap();
}

/// However often its connection is cut: only what is as large as a request may be is to blame for that.
#[tokio::test(start_paused = true)]
async fn a_small_record_is_not_to_blame_for_cut_connections() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    cluster.faults().on(None, ApiKey::PRODUCE, Fault::CutBeforeAppend, 5);
    acked(&producer, pinned(0)).await;
    assert_eq!(cluster.records("t", 0).unwrap().len(), 2);
}
