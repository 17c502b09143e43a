//! Broker health: who answers with errors, or not at all, is left alone by what can go elsewhere,
//! probed, and taken back; and never are most of the brokers given up. In virtual time.

use std::collections::BTreeMap;

use ottla::testing::{ApiKey, Cluster, Fault, FaultId, FaultRule};
use ottla::{BrokerHealth, Client, Compression, Delivery, InDoubt, Producer, Record};
use ottla_scenarios::network::Network;
use ottla_scenarios::steps::seen;
use ottla_scenarios::steps::{acked, broker, cluster, connect, free, ms, pinned, requests, secs};
use ottla_scenarios::wait::{until, within};
use tokio::time::{Duration, Instant};

/// The broker's own fault, and nothing is written.
const STORAGE_ERROR: i16 = 56;
const NOT_ENOUGH_REPLICAS: i16 = 19;

/// A client connected to all brokers, whose every record of 900 bytes is a batch of its own.
async fn at_work(brokers: i32, partitions: i32) -> (Network, Cluster, Client, Producer) {
    at_work_in_doubt(brokers, partitions, InDoubt::Wait).await
}

async fn at_work_in_doubt(
    brokers: i32,
    partitions: i32,
    in_doubt: InDoubt,
) -> (Network, Cluster, Client, Producer) {
    let cluster = cluster(brokers, partitions);
    let network = Network::new(&cluster);
    let client = connect(network.client(&cluster, 1)).await;
    let builder = client.producer().batch_size(1 << 10).compression(Compression::None);
    let producer = builder.in_doubt(in_doubt).build().unwrap();
    for partition in 0..partitions {
        acked(&producer, pinned(partition)).await;
    }
    (network, cluster, client, producer)
}

const VALUE: [u8; 900] = [7; 900];

/// So many records, wherever they may go; how many went to each partition, and the longest wait.
async fn load(producer: &Producer, records: usize) -> (BTreeMap<i32, usize>, Duration) {
    let mut went = BTreeMap::new();
    let mut longest = Duration::ZERO;
    for _ in 0..records {
        let begun = Instant::now();
        let at = acked(producer, free().value(&VALUE)).await;
        longest = longest.max(begun.elapsed());
        *went.entry(at.partition).or_default() += 1;
        tokio::time::sleep(ms(20)).await;
    }
    (went, longest)
}

fn refuse(cluster: &Cluster, broker: i32, code: i16) -> FaultId {
    let rule = FaultRule::new(Fault::Error(code)).api(ApiKey::PRODUCE).broker(broker);
    cluster.faults().inject(rule.always())
}

/// Sends until the broker is ejected.
async fn until_ejected(client: &Client, producer: &Producer, id: i32) {
    let before = broker(client, id).ejections;
    let begun = Instant::now();
    while broker(client, id).ejections == before {
        load(producer, 1).await;
        assert!(begun.elapsed() < secs(60), "{:?}", broker(client, id));
    }
}

#[tokio::test(start_paused = true)]
async fn five_errors_in_a_row_eject_and_one_probe_at_a_time_looks_again() {
    let (_, cluster, client, producer) = at_work(3, 6).await;
    let before = seen(&cluster, 2, ApiKey::PRODUCE);
    let fault = refuse(&cluster, 2, STORAGE_ERROR);
    until_ejected(&client, &producer, 2).await;
    let ejected = Instant::now();
    assert_eq!(seen(&cluster, 2, ApiKey::PRODUCE) - before, 5);
    assert_eq!(client.cluster().brokers[&2].health, BrokerHealth::Ejected);

    // The first ejection lasts 15 to 30 s: nothing goes there, and all goes on elsewhere.
    let (went, longest) = load(&producer, 600).await;
    assert!(ejected.elapsed() < secs(15), "{:?}", ejected.elapsed());
    assert_eq!(seen(&cluster, 2, ApiKey::PRODUCE) - before, 5, "{went:?}");
    assert!(!went.contains_key(&1) && !went.contains_key(&4), "{went:?}");
    assert!(longest < ms(100), "{longest:?}");

    // Then one request looks whether it is better, and the failure of that one ejects for longer.
    until_ejected(&client, &producer, 2).await;
    assert!((secs(15)..secs(31)).contains(&ejected.elapsed()), "{:?}", ejected.elapsed());
    assert_eq!(seen(&cluster, 2, ApiKey::PRODUCE) - before, 6, "one probe");
    assert_eq!((broker(&client, 2).probes, broker(&client, 2).ejections), (1, 2));

    // The next one, after up to 60 s, finds it well.
    assert!(cluster.faults().remove(fault));
    let begun = Instant::now();
    let mut taken = 0;
    while begun.elapsed() < secs(70) {
        let (went, _) = load(&producer, 50).await;
        let here = went.get(&1).unwrap_or(&0) + went.get(&4).unwrap_or(&0);
        assert!(here == 0 || begun.elapsed() > secs(29), "{:?}: {went:?}", begun.elapsed());
        taken += here;
    }
    assert!(taken > 50, "{taken} records only: it has not been taken back");
    assert_eq!(client.cluster().brokers[&2].health, BrokerHealth::Good);
    assert_eq!(broker(&client, 2).probes, 2);
}

/// A slow probe is one probe: nothing else is sent there until it is answered.
#[tokio::test(start_paused = true)]
async fn a_half_open_broker_gets_one_probe_however_long_it_takes() {
    let (_, cluster, client, producer) = at_work(3, 12).await;
    let fault = refuse(&cluster, 2, STORAGE_ERROR);
    until_ejected(&client, &producer, 2).await;
    assert!(cluster.faults().remove(fault));
    let slow = FaultRule::new(Fault::DelayResponse(secs(10))).api(ApiKey::PRODUCE).broker(2);
    cluster.faults().inject(slow);
    let before = requests(&client, 2, "Produce").sent;
    let mut deliveries = Vec::new();
    let begun = Instant::now();
    // Several batches at once, and partitions enough there, so that one would always like to go.
    let mut burst = async || {
        for _ in 0..4 {
            deliveries.push(producer.send(free().value(&VALUE)).await.unwrap());
        }
        tokio::time::sleep(ms(50)).await;
    };
    while requests(&client, 2, "Produce").sent == before {
        burst().await;
        assert!(begun.elapsed() < secs(40));
    }
    for _ in 0..180 {
        burst().await;
    }
    assert_eq!(requests(&client, 2, "Produce").sent, before + 1);
    let waiting = deliveries.iter().filter(|d| !d.is_done()).count();
    assert!(waiting <= 4, "{waiting} records wait for the probe");
    all(deliveries).await;
}

async fn all(deliveries: Vec<Delivery>) {
    for delivery in deliveries {
        within("an ack", delivery).await.unwrap();
    }
}

/// The probe's connection is cut: that says nothing, and the next probe looks. Also where nothing has to
/// go there again.
#[tokio::test(start_paused = true)]
async fn a_probe_that_is_lost_is_not_the_last() {
    for in_doubt in [InDoubt::Wait, InDoubt::Reroute] {
        let (_, cluster, client, producer) = at_work(3, 6).await;
        let fault = refuse(&cluster, 2, STORAGE_ERROR);
        until_ejected(&client, &producer, 2).await;
        assert!(cluster.faults().remove(fault));
        let builder = client.producer().batch_size(1 << 10).compression(Compression::None);
        let producer = builder.in_doubt(in_doubt).build().unwrap();
        let cut = FaultRule::new(Fault::CutBeforeAppend).api(ApiKey::PRODUCE).broker(2);
        let cut = cluster.faults().inject(cut);
        let begun = Instant::now();
        while cluster.faults().is_pending(cut) {
            drop(producer.send(free().value(&VALUE)).await.unwrap());
            tokio::time::sleep(ms(20)).await;
            assert!(begun.elapsed() < secs(40));
        }
        // The broker is well: what was in doubt, or another probe, tells.
        let begun = Instant::now();
        let mut taken = 0;
        while begun.elapsed() < secs(120) && taken < 20 {
            let (went, _) = load(&producer, 50).await;
            taken += went.get(&1).unwrap_or(&0) + went.get(&4).unwrap_or(&0);
        }
        assert!(taken >= 20, "{in_doubt:?}: {taken} records: it is left alone for ever");
    }
}

/// The same where what was in doubt is sent elsewhere: then nothing but another probe finds it well.
#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cut_is_not_the_last_where_nothing_else_goes_there() {
    let (_, cluster, client, producer) = at_work_in_doubt(3, 6, InDoubt::Reroute).await;
    let fault = refuse(&cluster, 2, STORAGE_ERROR);
    until_ejected(&client, &producer, 2).await;
    assert!(cluster.faults().remove(fault));
    let cut = FaultRule::new(Fault::CutBeforeAppend).api(ApiKey::PRODUCE).broker(2);
    let cut = cluster.faults().inject(cut);
    let begun = Instant::now();
    while cluster.faults().is_pending(cut) {
        load(&producer, 1).await;
        assert!(begun.elapsed() < secs(40));
    }
    assert_eq!(broker(&client, 2).probes, 1);
    let (begun, mut taken) = (Instant::now(), 0);
    while begun.elapsed() < secs(150) && taken < 20 {
        let (went, _) = load(&producer, 50).await;
        taken += went.get(&1).unwrap_or(&0) + went.get(&4).unwrap_or(&0);
    }
    assert!(taken >= 20, "{taken} records: it is left alone for ever");
    assert!(broker(&client, 2).probes > 1);
}

/// One broker that refuses every fourth request, among others that do not: never five in a row, and far
/// below the others. It is found by their comparison.
#[tokio::test(start_paused = true)]
async fn a_broker_that_fails_far_more_often_than_others_is_ejected() {
    let (_, cluster, client, producer) = at_work(6, 6).await;
    let fault = FaultRule::new(Fault::Error(STORAGE_ERROR)).api(ApiKey::PRODUCE).broker(2);
    let fault = cluster.faults().inject(fault.share(0.2, 5).always());
    let begun = Instant::now();
    while broker(&client, 2).ejections == 0 {
        load(&producer, 10).await;
        assert!(begun.elapsed() < secs(60), "{:?}", broker(&client, 2));
    }
    assert_eq!(client.cluster().brokers[&2].health, BrokerHealth::Ejected);
    let before = seen(&cluster, 2, ApiKey::PRODUCE);
    let (went, _) = load(&producer, 300).await;
    assert_eq!(seen(&cluster, 2, ApiKey::PRODUCE), before, "{went:?}");
    assert!(!went.contains_key(&1), "{went:?}");
    for id in [1, 3, 4, 5, 6] {
        assert_eq!(broker(&client, id).ejections, 0);
    }
    assert_eq!(client.stats().bad_stuff.ejections, 1);
    cluster.faults().remove(fault);
}

/// Whoever says that a broker leads by a newer epoch sees it alive: that ends its ejection, and its being
/// thought unreachable, before anything is sent to it.
#[tokio::test(start_paused = true)]
async fn a_broker_that_is_named_by_a_newer_epoch_is_back() {
    for unreachable in [false, true] {
        let (network, cluster, client, producer) = at_work(3, 6).await;
        let (host, _) = cluster.address(2).unwrap();
        if unreachable {
            network.refuse(&host);
            cluster.cut_connections(2).unwrap();
            let health = || client.cluster().brokers[&2].health;
            let begun = Instant::now();
            while health() != BrokerHealth::Unreachable {
                load(&producer, 1).await;
                assert!(begun.elapsed() < secs(70), "it was not dialled");
            }
            network.release(&host);
        } else {
            let fault = refuse(&cluster, 2, STORAGE_ERROR);
            until_ejected(&client, &producer, 2).await;
            assert!(cluster.faults().remove(fault));
        }
        assert_ne!(client.cluster().brokers[&2].health, BrokerHealth::Good);
        let since = Instant::now();
        // Partitions of others are given to it; whoever led them says so.
        for partition in [0, 2] {
            cluster.move_leader("t", partition, 2).unwrap();
        }
        while client.cluster().brokers[&2].health != BrokerHealth::Good {
            load(&producer, 1).await;
            assert!(since.elapsed() < secs(3), "{:?}", client.cluster().brokers[&2]);
        }
    }
}

/// The probe would be a retry, which the budget does not pay for just now: a later one looks.
#[tokio::test(start_paused = true)]
async fn a_probe_that_is_not_sent_is_not_the_last() {
    let (_, cluster, client, producer) = at_work(6, 6).await;
    refuse(&cluster, 2, STORAGE_ERROR);
    until_ejected(&client, &producer, 2).await;
    // All others refuse as well: pinned records empty the budget, and the rest are retries only.
    let mut stuck = Vec::new();
    for id in [1, 3, 4, 5, 6] {
        refuse(&cluster, id, NOT_ENOUGH_REPLICAS);
        stuck.push(producer.send(pinned(id - 1)).await.unwrap());
        stuck.push(producer.send(free().value(&VALUE)).await.unwrap());
    }
    tokio::time::sleep(secs(90)).await;
    assert!(client.stats().retry_budget.produce.delayed > 0, "{:?}", client.stats().retry_budget);
    cluster.faults().clear();
    all(stuck).await;
    let begun = Instant::now();
    let mut taken = 0;
    while begun.elapsed() < secs(330) && taken < 20 {
        taken += load(&producer, 50).await.0.get(&1).unwrap_or(&0);
    }
    assert!(taken >= 20, "{taken} records: it is left alone for ever");
}

#[tokio::test(start_paused = true)]
async fn never_more_than_half_are_given_up() {
    let (_, cluster, client, producer) = at_work(4, 8).await;
    let faults = [refuse(&cluster, 1, STORAGE_ERROR), refuse(&cluster, 2, STORAGE_ERROR)];
    until_ejected(&client, &producer, 1).await;
    while broker(&client, 2).ejections == 0 {
        load(&producer, 1).await;
    }
    assert_eq!(client.stats().panic_entries, 0, "half of them is not more than half");
    let (went, _) = load(&producer, 100).await;
    assert!(went.keys().all(|p| p % 4 >= 2), "{went:?}");
    // A third one, and what is left would have to carry everything: all are used again.
    refuse(&cluster, 3, STORAGE_ERROR);
    let begun = Instant::now();
    let before = seen(&cluster, 1, ApiKey::PRODUCE);
    while client.stats().panic_entries == 0 {
        load(&producer, 1).await;
        assert!(begun.elapsed() < secs(15), "{:?}", client.stats());
    }
    load(&producer, 50).await;
    assert!(seen(&cluster, 1, ApiKey::PRODUCE) > before, "broker 1 is still avoided");
    for fault in faults {
        assert!(cluster.faults().remove(fault));
    }
}

/// Black holes: these brokers take everything, on every connection, and never answer again.
fn silence(cluster: &Cluster, ids: &[i32]) {
    for id in ids {
        let hole = FaultRule::new(Fault::BlackHole).broker(*id);
        cluster.faults().inject(hole.always());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_delays_a_record_or_two_and_is_not_dialled_again() {
    let (network, cluster, client, producer) = at_work(3, 6).await;
    silence(&cluster, &[2]);
    let begun = Instant::now();
    let dials = network.dials("broker-2").len();
    let mut waits = Vec::new();
    let mut lost = Vec::new();
    for _ in 0..1_000 {
        let sent = Instant::now();
        let delivery = producer.send(free().value(&VALUE)).await.unwrap();
        lost.push((sent, delivery));
        tokio::time::sleep(ms(20)).await;
        lost.retain(|(sent, delivery)| {
            if delivery.is_done() {
                waits.push(sent.elapsed());
            }
            !delivery.is_done()
        });
    }
    assert!(begun.elapsed() < secs(29), "before the request timeout");
    assert!(broker(&client, 2).late > 0);
    assert!(lost.len() <= 2, "{} of 1,000 records wait for the silent broker", lost.len());
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    assert!(p99 <= ms(40), "{p99:?}");
    assert_eq!(network.dials("broker-2").len(), dials, "lateness dials nobody");
    assert_eq!(client.stats().bad_stuff.losses, 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_broker_gets_no_new_work_of_any_kind() {
    let (_, cluster, client, producer) = at_work(3, 3).await;
    // A topic that only the late broker leads, and one record that makes it late.
    let only_there = Cluster::create_topic(&cluster, "u", 1, 1);
    only_there.unwrap();
    cluster.move_leader("u", 0, 2).unwrap();
    let record = || ottla::Record::to("u").value(&VALUE);
    acked(&producer, record()).await;
    let slow = FaultRule::new(Fault::DelayResponse(secs(20))).api(ApiKey::PRODUCE).broker(2);
    cluster.faults().inject(slow);
    let mut waiting = vec![producer.send(pinned(1)).await.unwrap()];
    tokio::time::sleep(secs(1)).await;
    let sent = requests(&client, 2, "Produce").sent;
    for _ in 0..20 {
        waiting.push(producer.send(pinned(1).value(&VALUE)).await.unwrap());
        waiting.push(producer.send(record()).await.unwrap());
        tokio::time::sleep(ms(100)).await;
    }
    assert_eq!(requests(&client, 2, "Produce").sent, sent, "more was put behind what is overdue");
    assert_eq!(broker(&client, 2).late, 1);
    all(waiting).await;
}

#[tokio::test(start_paused = true)]
async fn more_than_half_late_at_once_and_nobody_is_avoided() {
    let (_, cluster, client, producer) = at_work(3, 3).await;
    for id in [1, 2] {
        let slow = FaultRule::new(Fault::DelayResponse(secs(10))).api(ApiKey::PRODUCE).broker(id);
        cluster.faults().inject(slow);
    }
    // A stall of most of the cluster: what must go there is pipelined as always.
    let mut waiting =
        vec![producer.send(pinned(0)).await.unwrap(), producer.send(pinned(1)).await.unwrap()];
    tokio::time::sleep(secs(1)).await;
    let sent = |id| requests(&client, id, "Produce").sent;
    let before = [sent(1), sent(2)];
    for partition in [0, 1] {
        for _ in 0..2 {
            let record = pinned(partition).value(&VALUE);
            waiting.push(producer.send(record).await.unwrap());
        }
    }
    tokio::time::sleep(secs(1)).await;
    assert!(sent(1) > before[0] && sent(2) > before[1], "{before:?}: avoided though most are late");
    all(waiting).await;
    until("an answer", || broker(&client, 1).late > 0 && broker(&client, 2).late > 0).await;
}

/// One broker resets connections, another is silent: the third serves on.
#[tokio::test(start_paused = true)]
async fn what_is_refused_here_and_late_there_goes_to_who_is_left() {
    let (_, cluster, client, producer) = at_work(4, 8).await;
    refuse(&cluster, 1, STORAGE_ERROR);
    silence(&cluster, &[2]);
    let mut deliveries = Vec::new();
    for _ in 0..200 {
        deliveries.push(producer.send(free().value(&VALUE)).await.unwrap());
        tokio::time::sleep(ms(50)).await;
    }
    let waiting = deliveries.iter().filter(|d| !d.is_done()).count();
    assert!(waiting <= 2, "{waiting} of 200 records are stuck");
    assert_eq!(client.stats().bad_stuff.records_failed, 0);
}

/// A broker that does not answer is not well, though it says nothing.
#[tokio::test(start_paused = true)]
async fn five_silences_in_a_row_eject() {
    let cluster = cluster(3, 3);
    let network = Network::new(&cluster);
    let client = connect(network.client(&cluster, 1).request_timeout(secs(1))).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..3 {
        acked(&producer, pinned(partition)).await;
    }
    let silent = FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE).broker(2);
    cluster.faults().inject(silent.always());
    let delivery = producer.send(pinned(1)).await.unwrap();
    until("an ejection", || broker(&client, 2).ejections == 1).await;
    assert_eq!(requests(&client, 2, "Produce").timeouts, 5);
    cluster.faults().clear();
    all(vec![delivery]).await;
}

/// An error of the broker's own in one partition is that partition's, if the response has others.
#[tokio::test(start_paused = true)]
async fn a_broker_with_trouble_in_one_partition_is_not_ejected() {
    let (_, cluster, client, producer) = at_work(1, 2).await;
    // What fails in one response is sent again in one request.
    for (partition, code) in [(0, STORAGE_ERROR), (1, NOT_ENOUGH_REPLICAS)] {
        let refused = FaultRule::new(Fault::Error(code)).api(ApiKey::PRODUCE);
        cluster.faults().inject(refused.topic("t").partition(partition).always());
    }
    let before = cluster.faults().fired();
    let stuck = (0..2).map(|p| producer.try_send(pinned(p)).unwrap()).collect();
    tokio::time::sleep(secs(30)).await;
    assert!(cluster.faults().fired() - before >= 14, "seven refusals of each");
    assert_eq!(broker(&client, 1).ejections, 0);
    cluster.faults().clear();
    all(stuck).await;
}

/// Who has to wait for an ejected broker, as nobody else leads anything of the topic, does not wait.
#[tokio::test(start_paused = true)]
async fn what_nobody_else_leads_goes_to_an_ejected_broker_all_the_same() {
    let (_, cluster, client, producer) = at_work(3, 6).await;
    cluster.create_topic("its", 1, 1).unwrap();
    cluster.move_leader("its", 0, 2).unwrap();
    acked(&producer, Record::to("its").value("x")).await;
    let fault = refuse(&cluster, 2, STORAGE_ERROR);
    until_ejected(&client, &producer, 2).await;
    cluster.faults().remove(fault);
    for _ in 0..3 {
        let begun = Instant::now();
        acked(&producer, Record::to("its").value("x")).await;
        assert!(begun.elapsed() < ms(100), "{:?}", begun.elapsed());
    }
    assert_eq!(client.cluster().brokers[&2].health, BrokerHealth::Ejected);
}

/// One that takes several times as long as the others gets that much less, also while nobody waits.
#[tokio::test(start_paused = true)]
async fn a_slow_broker_gets_less_than_the_others() {
    let (_, cluster, _client, producer) = at_work(3, 3).await;
    let slow = FaultRule::new(Fault::DelayResponse(ms(40))).api(ApiKey::PRODUCE).broker(2);
    cluster.faults().inject(slow.always());
    load(&producer, 60).await;
    let (went, _) = load(&producer, 120).await;
    let slow = (0..3).find(|p| cluster.partition("t", *p).unwrap().leader == Some(2)).unwrap();
    let its = went.get(&slow).copied().unwrap_or_default();
    assert!((1..=20).contains(&its), "{went:?}");
}

/// A partition that took nothing for a while gets its part afterwards, and not what it has missed.
#[tokio::test(start_paused = true)]
async fn who_took_nothing_for_a_while_has_no_claim() {
    let (_, cluster, _client, producer) = at_work(3, 3).await;
    let mut after = 0;
    for _ in 0..12 {
        let refuses = FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE);
        let refuses = cluster.faults().inject(refuses.topic("t").partition(0).always());
        load(&producer, 60).await;
        cluster.faults().remove(refuses);
        let mut waited = 0;
        while !load(&producer, 1).await.0.contains_key(&0) {
            waited += 1;
            assert!(waited < 1_000, "it is never used again");
        }
        after += load(&producer, 4).await.0.get(&0).copied().unwrap_or_default();
    }
    assert!(after <= 22, "{after} of 48");
}
