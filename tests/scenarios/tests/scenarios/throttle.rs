//! Throttling: a response that asks for a pause mutes its lane for it, whatever the request, and
//! nothing else. In virtual time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, Compression, NewTopic, OffsetSpec, Producer, Record, Start};
use ottla_scenarios::steps::{acked, broker, cluster, connect, connected, free, ms, pinned, secs};
use ottla_scenarios::steps::{requests, seen};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::{Duration, Instant};

fn throttle(cluster: &Cluster, broker: i32, api: ApiKey, pause: Duration) {
    cluster.faults().on(broker, api, Fault::Throttle(pause), 1);
}

fn small(client: &Client) -> Producer {
    client.producer().batch_size(1 << 10).compression(Compression::None).build().unwrap()
}

/// How long a call takes.
async fn timed<T>(what: &str, call: impl Future<Output = ottla::Result<T>>) -> Duration {
    let begun = Instant::now();
    within(what, call).await.unwrap();
    begun.elapsed()
}

const VALUE: [u8; 900] = [7; 900];

/// A client with little to send in a cluster of twenty uses six; one that is throttled is stood in
/// for by the other five, and nobody else.
#[tokio::test(start_paused = true)]
async fn s11_throttling_moves_records_inside_the_subset_and_never_widens_it() {
    let cluster = cluster(20, 40);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = small(&client);
    let values = [VALUE; 60];
    let burst = async || {
        let sent = within("space", producer.send_batch("t", &values)).await.unwrap();
        within("acks", sent).await.unwrap();
    };
    for _ in 0..30 {
        burst().await;
        tokio::time::sleep(ms(500)).await;
    }
    let subset: Vec<i32> = client.stats().acknowledged_by_broker.into_keys().collect();
    assert_eq!(subset.len(), 6, "{subset:?}");

    let muted = subset[0];
    throttle(&cluster, muted, ApiKey::PRODUCE, secs(30));
    until("throttled", || {
        let _ = producer.try_send(free());
        broker(&client, muted).throttled == 1
    })
    .await;
    let before = seen(&cluster, muted, ApiKey::PRODUCE);
    for _ in 0..50 {
        let begun = Instant::now();
        burst().await;
        assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
        tokio::time::sleep(ms(500)).await;
    }
    assert_eq!(seen(&cluster, muted, ApiKey::PRODUCE), before, "sent while muted");
    let used: Vec<i32> = client.stats().acknowledged_by_broker.into_keys().collect();
    assert_eq!(used, subset);

    // All of them: then it is waited for, since going elsewhere is what quotas are against.
    tokio::time::sleep(secs(10)).await;
    for id in &subset {
        throttle(&cluster, *id, ApiKey::PRODUCE, secs(20));
    }
    let begun = Instant::now();
    until("all throttled", || {
        let _ = producer.try_send(free().value(&VALUE));
        // One of them has been before.
        let again = |id: &i32| broker(&client, *id).throttled > u64::from(*id == muted);
        subset.iter().all(again)
    })
    .await;
    assert!(begun.elapsed() < secs(10), "{:?}", begun.elapsed());
    acked(&producer, free()).await;
    assert!((secs(10)..secs(31)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let used: Vec<i32> = client.stats().acknowledged_by_broker.into_keys().collect();
    assert_eq!(used, subset);
}

#[tokio::test(start_paused = true)]
async fn s11_a_throttled_fetch_mutes_its_lane_and_nothing_else() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let mut other = client.consumer().topics(["t"]).build().unwrap();
    within("a record", consumer.next()).await.unwrap().unwrap();
    within("a record", other.next()).await.unwrap().unwrap();
    drop(other);
    tokio::time::sleep(secs(2)).await;

    throttle(&cluster, 1, ApiKey::FETCH, secs(10));
    until("throttled", || broker(&client, 1).throttled == 1).await;
    let begun = Instant::now();
    let before = seen(&cluster, 1, ApiKey::FETCH);
    while begun.elapsed() < secs(9) {
        let sent = Instant::now();
        acked(&producer, free()).await;
        let offsets = client.admin();
        timed("offsets", offsets.list_offsets([("t", 0, OffsetSpec::Latest)])).await;
        assert!(sent.elapsed() < ms(100), "{:?}", sent.elapsed());
        tokio::time::sleep(ms(500)).await;
    }
    assert_eq!(seen(&cluster, 1, ApiKey::FETCH), before, "sent while muted");
    // Another consumer has a lane of its own.
    let start = Start::Offset(0);
    let mut free = client.consumer().assign([("t", 0, start)]).build().unwrap();
    within("a record", free.next()).await.unwrap().unwrap();
    assert!(begun.elapsed() < ms(9_700), "{:?}", begun.elapsed());
    within("a record", consumer.next()).await.unwrap().unwrap();
    assert!((ms(9_900)..secs(11)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

/// Every short call: what comes next goes to another broker, or waits where there is none.
#[tokio::test(start_paused = true)]
async fn s11_a_throttled_short_call_mutes_the_control_lane() {
    for api in [ApiKey::METADATA, ApiKey::CREATE_TOPICS, ApiKey::LIST_OFFSETS] {
        let cluster = cluster(1, 1);
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let admin = client.admin();
        within("metadata", admin.partitions("t")).await.unwrap();
        throttle(&cluster, 1, api, secs(5));
        cluster.create_topic("u", 1, 1).unwrap();
        cluster.create_topic("v", 1, 1).unwrap();
        let first = match api {
            ApiKey::METADATA => timed("metadata", admin.partitions("u")).await,
            ApiKey::CREATE_TOPICS => {
                timed("a topic", admin.create_topic(NewTopic::new("w", 1, 1))).await
            }
            _ => timed("offsets", admin.list_offsets([("t", 0, OffsetSpec::Latest)])).await,
        };
        assert!(first < ms(100), "{api:?}: the answer that asks for the pause has come: {first:?}");
        let sent = requests(&client, 1, "Metadata").sent;
        let silent = async {
            tokio::time::sleep(ms(4_500)).await;
            assert_eq!(requests(&client, 1, "Metadata").sent, sent, "{api:?}: sent while muted");
        };
        let (second, ()) = tokio::join!(timed("metadata", admin.partitions("v")), silent);
        assert!((ms(4_900)..ms(5_200)).contains(&second), "{api:?}: {second:?}");
        let stats = broker(&client, 1);
        assert_eq!((stats.throttled, stats.throttle_time), (1, secs(5)), "{api:?}");
        assert!(stats.connections_open <= 1, "{api:?}: a second connection evades the quota");
    }
}

#[tokio::test(start_paused = true)]
async fn s11_a_throttled_short_call_leaves_other_brokers_and_produce_alone() {
    for seed in 0..5 {
        let cluster = cluster(3, 3);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        for partition in 0..3 {
            acked(&producer, pinned(partition)).await;
        }
        let rule = FaultRule::new(Fault::Throttle(secs(20))).api(ApiKey::METADATA);
        cluster.faults().inject(rule);
        for topic in 0..20 {
            let name = format!("u{topic}");
            cluster.create_topic(&name, 3, 1).unwrap();
            let begun = Instant::now();
            acked(&producer, Record::to(&name).value("x")).await;
            acked(&producer, free()).await;
            assert!(begun.elapsed() < secs(1), "seed {seed}, {name}: {:?}", begun.elapsed());
            tokio::time::sleep(ms(500)).await;
        }
        assert_eq!(client.stats().bad_stuff.throttled, 1);
        assert_eq!(connected(&client), [1, 2, 3]);
    }
}

/// A lane that Metadata muted is no good for Produce: it gets one of its own.
#[tokio::test(start_paused = true)]
async fn s11_produce_does_not_take_over_a_muted_control_lane() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    throttle(&cluster, 1, ApiKey::METADATA, secs(20));
    within("metadata", client.admin().partitions("t")).await.unwrap();
    // The producer's id is a short call, and waits; its first record must not wait once more.
    throttle(&cluster, 1, ApiKey::INIT_PRODUCER_ID, secs(20));
    let producer = client.producer().build().unwrap();
    let begun = Instant::now();
    acked(&producer, free()).await;
    assert!(begun.elapsed() < secs(21), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s33_a_broker_that_asks_for_weeks_of_silence_is_not_believed() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    acked(&producer, free()).await;
    within("a record", consumer.next()).await.unwrap().unwrap();
    throttle(&cluster, 1, ApiKey::FETCH, Duration::from_millis(i32::MAX as u64));
    until("throttled", || broker(&client, 1).throttled == 1).await;
    acked(&producer, free()).await;
    let hour = tokio::time::timeout(secs(3_600), consumer.next()).await;
    hour.expect("a record within the hour").unwrap().unwrap();
}
