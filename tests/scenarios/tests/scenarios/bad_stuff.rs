//! The view that is all zero when all is well, and the field in which each fault shows. In
//! virtual time.

use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{Client, ErrorKind, InDoubt, Producer, Record, RequestStats};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};

const NOT_LEADER: i16 = 6;
const MESSAGE_TOO_LARGE: i16 = 10;
const NOT_ENOUGH_REPLICAS: i16 = 19;
/// The broker's own fault, where the others are the topic's or the record's.
const STORAGE_ERROR: i16 = 56;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn cluster(brokers: i32) -> Cluster {
    Cluster::builder()
        .brokers(brokers)
        .tcp(false)
        .topic("t", brokers * 2, brokers)
        .start_on_current_runtime()
        .unwrap()
}

async fn connect(cluster: &Cluster) -> Client {
    within("connect", virtual_cluster::client(cluster, 1).connect()).await.unwrap()
}

async fn send(producer: &Producer, partition: i32) -> Result<(), ErrorKind> {
    let record = Record::to("t").partition(partition).value("x");
    let delivery = producer.send(record).await.unwrap();
    within("an end", delivery).await.map(drop).map_err(|e| e.kind())
}

/// A client that has written to every partition without trouble.
async fn at_work(cluster: &Cluster) -> (Client, Producer) {
    let client = connect(cluster).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..cluster.partitions("t").unwrap() {
        send(&producer, partition).await.unwrap();
    }
    assert_all_well(&client, "before the fault");
    (client, producer)
}

fn assert_all_well(client: &Client, when: &str) {
    let stats = client.stats();
    assert!(stats.bad_stuff.is_zero(), "{when}: {}; {stats:?}", stats.bad_stuff);
    assert_eq!(stats.bad_stuff.to_string(), "none");
}

/// A cluster of one broker, one fault, one record sent into it.
async fn one_fault(rule: FaultRule) -> (Client, Cluster, Result<(), ErrorKind>) {
    let cluster = cluster(1);
    let (client, producer) = at_work(&cluster).await;
    let fault = cluster.faults().inject(rule);
    let result = send(&producer, 0).await;
    assert!(!cluster.faults().is_pending(fault), "the fault did not happen");
    (client, cluster, result)
}

fn produce(client: &Client, broker: i32) -> RequestStats {
    client.stats().brokers[&broker].requests["Produce"]
}

#[tokio::test(start_paused = true)]
async fn all_is_well() {
    let cluster = cluster(3);
    let client = connect(&cluster).await;
    let producer = client.producer().build().unwrap();
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let values: Vec<_> = (0..5_000).map(|i| format!("{i:0100}")).collect();
    for round in 0..3 {
        within("acks", producer.send_batch("t", &values).await.unwrap()).await.unwrap();
        let mut left = values.len();
        while left > 0 {
            left -= within("fetch", consumer.next()).await.unwrap().unwrap().len();
        }
        assert_all_well(&client, &format!("after round {round}"));
    }
    // A quiet hour: metadata is refreshed, what nobody uses is closed and opened when it is wanted.
    tokio::time::sleep(secs(3_600)).await;
    assert_all_well(&client, "after an hour");
    within("ack", producer.send(Record::to("t").value("x")).await.unwrap()).await.unwrap();
    assert_all_well(&client, "after the hour's first record");
    let idle: u64 = client.stats().brokers.values().map(|b| b.idle_closes).sum();
    assert!(idle > 0, "no connection was idle for long enough");

    let stats = client.stats();
    let why = &stats.metadata_reasons;
    assert!(why.first_contact == 1 && why.periodic >= 3, "{why:?}");
    assert_eq!(
        stats.metadata_requests,
        why.first_contact + why.new_topic + why.periodic + why.trouble + why.rebootstrap
    );
    assert_eq!(stats.records_acknowledged, 15_001);
    let by_broker: u64 = stats.brokers.values().map(|b| b.records_acknowledged).sum();
    assert_eq!(by_broker, stats.records_acknowledged);
    drop((producer, consumer));
    until("the end of every request", || {
        let requests = client.stats();
        requests.brokers.values().flat_map(|b| b.requests.values()).all(|r| r.in_flight == 0)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_is_what_the_brokers_saw() {
    let cluster = cluster(3);
    let (client, _producer) = at_work(&cluster).await;
    let (ours, theirs) = (client.stats(), cluster.stats());
    let theirs_of = |api| theirs.requests_of(api);
    for (name, api) in [
        ("Produce", ApiKey::PRODUCE),
        ("Metadata", ApiKey::METADATA),
        ("ApiVersions", ApiKey::API_VERSIONS),
        ("InitProducerId", ApiKey::INIT_PRODUCER_ID),
    ] {
        let of = |count: fn(&RequestStats) -> u64| -> u64 {
            ours.brokers.values().filter_map(|b| b.requests.get(name)).map(count).sum()
        };
        assert_eq!(of(|r| r.sent), theirs_of(api), "{name}");
        assert_eq!(of(|r| r.answered), theirs_of(api), "{name}");
        assert_eq!(of(|r| r.latency.count), theirs_of(api), "{name}");
        assert!(of(|r| r.bytes_out) > 0 && of(|r| r.bytes_in) > 0, "{name}");
    }
    assert_eq!(ours.connects, theirs.connections_accepted());
    assert_eq!(ours.connections_open, theirs.connections_open());
    // The bootstrap connection became a broker's.
    let open: u64 = (1..=3).map(|id| ours.brokers[&id].connections_open).sum();
    assert_eq!(open, ours.connections_open, "{ours:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_response() {
    let rule = FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE);
    let (client, _cluster, result) = one_fault(rule).await;
    result.unwrap();
    let bad = client.stats().bad_stuff;
    assert_eq!((bad.errors, bad.retries), (1, 1), "{bad}");
    assert_eq!((bad.losses, bad.timeouts, bad.records_failed), (0, 0, 0), "{bad}");
    let produce = produce(&client, 1);
    assert_eq!((produce.errors, produce.sent), (1, produce.answered));
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_other_requests() {
    for (name, api, code) in [
        ("InitProducerId", ApiKey::INIT_PRODUCER_ID, 14),
        ("ListOffsets", ApiKey::LIST_OFFSETS, NOT_LEADER),
        ("Fetch", ApiKey::FETCH, NOT_LEADER),
    ] {
        let cluster = cluster(1);
        cluster.faults().inject(FaultRule::new(Fault::Error(code)).api(api));
        let client = connect(&cluster).await;
        let producer = client.producer().build().unwrap();
        send(&producer, 0).await.unwrap();
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        within("fetch", consumer.next()).await.unwrap().unwrap();
        let stats = client.stats();
        assert_eq!(stats.bad_stuff.errors, 1, "{name}: {stats:?}");
        let at: u64 =
            stats.brokers.values().filter_map(|b| b.requests.get(name)).map(|r| r.errors).sum();
        assert_eq!(at, 1, "{name}: {stats:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails() {
    let rule = FaultRule::new(Fault::Error(MESSAGE_TOO_LARGE)).api(ApiKey::PRODUCE);
    let (client, _cluster, result) = one_fault(rule).await;
    assert_eq!(result, Err(ErrorKind::RecordTooLarge));
    let bad = client.stats().bad_stuff;
    assert_eq!((bad.records_failed, bad.errors, bad.retries), (1, 1, 0), "{bad}");
    assert_eq!(bad.to_string(), "errors 1, records failed 1");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_names_no_other() {
    let rule = FaultRule::new(Fault::Error(NOT_LEADER)).api(ApiKey::PRODUCE);
    let (client, _cluster, result) = one_fault(rule).await;
    result.unwrap();
    until("metadata", || client.stats().metadata_reasons.trouble > 0).await;
    let stats = client.stats();
    let messages = stats.records_acknowledged as f64;
    let expected = stats.metadata_reasons.trouble as f64 * 1_000.0 / messages;
    assert_eq!(stats.bad_stuff.metadata_per_1000_messages, expected);
    assert_eq!(stats.hints_applied, 0);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_names_the_other() {
    let cluster = cluster(3);
    let (client, producer) = at_work(&cluster).await;
    let leader = cluster.partition("t", 0).unwrap().leader.unwrap();
    cluster.move_leader("t", 0, leader % 3 + 1).unwrap();
    send(&producer, 0).await.unwrap();
    let stats = client.stats();
    assert_eq!(stats.hints_applied, 1);
    assert_eq!(stats.bad_stuff.metadata_per_1000_messages, 0.0, "{}", stats.bad_stuff);
    assert_eq!(stats.bad_stuff.errors, 1, "{}", stats.bad_stuff);
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection() {
    let rule = FaultRule::new(Fault::CutBeforeAppend).api(ApiKey::PRODUCE);
    let (client, cluster, result) = one_fault(rule).await;
    result.unwrap();
    let bad = client.stats().bad_stuff;
    assert_eq!((bad.losses, bad.reconnects, bad.refused), (1, 1, 0), "{bad}");
    assert_eq!(bad.retries, 1, "{bad}");
    assert_eq!(produce(&client, 1).disconnected, 1);
    let open = cluster.stats().connections_open();
    assert_eq!(client.stats().connections_open, open, "the gauge lost count");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_response() {
    let rule = FaultRule::new(Fault::BlackHole).api(ApiKey::PRODUCE);
    let (client, _cluster, result) = one_fault(rule).await;
    result.unwrap();
    let bad = client.stats().bad_stuff;
    assert_eq!((bad.timeouts, bad.losses, bad.reconnects), (1, 1, 1), "{bad}");
    let produce = produce(&client, 1);
    assert_eq!((produce.timeouts, produce.disconnected), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_dial() {
    let cluster = cluster(1);
    let (client, producer) = at_work(&cluster).await;
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    let record = Record::to("t").partition(0).value("x");
    let delivery = producer.send(record).await.unwrap();
    until("a refused dial", || client.stats().bad_stuff.refused > 0).await;
    cluster.start_broker(1).unwrap();
    within("an ack", delivery).await.unwrap();
    let stats = client.stats();
    let broker = &stats.brokers[&1];
    assert_eq!(stats.bad_stuff.timeouts, 0, "{}", stats.bad_stuff);
    assert!(broker.losses >= 1 && broker.reconnects >= 1, "{broker:?}");
    assert!(broker.reconnects <= broker.losses, "{broker:?}");
    let of = |count: fn(&ottla::BrokerStats) -> u64| stats.brokers.values().map(count).sum::<u64>();
    assert_eq!(of(|b| b.dials), stats.connects + stats.connect_failures);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_answers_nothing_but_errors() {
    let cluster = cluster(3);
    let (client, producer) = at_work(&cluster).await;
    let leader = cluster.partition("t", 0).unwrap().leader.unwrap();
    let error = FaultRule::new(Fault::Error(STORAGE_ERROR)).api(ApiKey::PRODUCE);
    let fault = cluster.faults().inject(error.broker(leader).always());
    let delivery = producer.send(Record::to("t").partition(0).value("x")).await.unwrap();
    until("an ejection", || client.stats().bad_stuff.ejections > 0).await;
    cluster.faults().remove(fault);
    within("an ack", delivery).await.unwrap();
    let stats = client.stats();
    let ejected: Vec<_> = stats.brokers.values().map(|b| b.ejections).filter(|n| *n > 0).collect();
    assert_eq!(ejected, [stats.brokers[&leader].ejections], "{stats:?}");
    assert_eq!(stats.bad_stuff.records_failed, 0, "{}", stats.bad_stuff);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_takes_too_long() {
    let cluster = cluster(1);
    cluster.faults().on(1, ApiKey::API_VERSIONS, Fault::BlackHole, 1);
    let client = virtual_cluster::client(&cluster, 1).connect_timeout(secs(60));
    let client = within("connect", client.connect()).await.unwrap();
    let stats = client.stats();
    assert_eq!((stats.bad_stuff.timeouts, stats.connect_failures), (1, 1), "{stats:?}");
    assert_eq!(stats.bad_stuff.losses, 0, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_throttled_producer() {
    let rule = FaultRule::new(Fault::Throttle(secs(5))).api(ApiKey::PRODUCE);
    let (client, _cluster, result) = one_fault(rule).await;
    result.unwrap();
    let stats = client.stats();
    assert_eq!((stats.bad_stuff.throttled, stats.bad_stuff.errors), (1, 0));
    assert_eq!(stats.brokers[&1].throttle_time, secs(5));
    assert_eq!(stats.bad_stuff.to_string(), "throttled 1");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_in_trouble() {
    let cluster = cluster(1);
    let (client, _producer) = at_work(&cluster).await;
    cluster.faults().on(1, ApiKey::FETCH, Fault::Throttle(secs(5)), 1);
    cluster.faults().inject(FaultRule::new(Fault::Error(NOT_LEADER)).api(ApiKey::FETCH).after(1));
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let mut left = 2;
    while left > 0 {
        left -= within("fetch", consumer.next()).await.unwrap().unwrap().len();
    }
    until("both faults", || {
        let bad = client.stats().bad_stuff;
        bad.throttled == 1 && bad.errors == 1
    })
    .await;
    let stats = client.stats();
    assert_eq!(stats.brokers[&1].requests["Fetch"].errors, 1);
    assert_eq!(stats.bad_stuff.records_failed, 0);
}

/// Records that leave the partition that they were bound to are counted, whatever they leave it for.
#[tokio::test(start_paused = true)]
async fn records_that_go_elsewhere() {
    for (fault, in_doubt) in [
        (Fault::Error(NOT_ENOUGH_REPLICAS), InDoubt::Wait),
        (Fault::CutAfterAppend, InDoubt::Reroute),
    ] {
        let cluster = cluster(2);
        let (client, _) = at_work(&cluster).await;
        let producer = client.producer().in_doubt(in_doubt).build().unwrap();
        let known = producer.send(Record::to("t").value("x")).await.unwrap();
        within("an ack", known).await.unwrap();
        assert_eq!(client.stats().records_rerouted, 0);
        cluster.faults().inject(FaultRule::new(fault).api(ApiKey::PRODUCE));
        let sent = producer.send(Record::to("t").value("x")).await.unwrap();
        within("an ack", sent).await.unwrap();
        assert_eq!(client.stats().records_rerouted, 1, "{fault:?}");
    }
}
