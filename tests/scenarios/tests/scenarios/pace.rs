//! How many Produce requests a client makes: one for each record while they are few, and no more than its
//! pace once they are many, with nothing waiting for longer than its linger. In virtual time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, PaceLimits};
use ottla::{Client, ClientBuilder, Delivery, Producer, Record};
use ottla_scenarios::steps::{acked, acks, cluster, connect, free, ms, pinned, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::{Duration, Instant};

/// What the default is.
const PER_SECOND: u64 = 180;

fn sent(client: &Client) -> u64 {
    client.stats().produce_requests
}

/// Sends until a record has to wait: virtual time stands still for as long as there is something to do at once.
async fn spend(producer: &Producer) {
    let begun = Instant::now();
    for _ in 0..3_000 {
        acked(producer, free()).await;
        if begun.elapsed() >= ms(4) {
            return;
        }
    }
    panic!("no record had to wait");
}

/// A client whose pool has used up what it had saved.
async fn spent(cluster: &Cluster, seed: u64) -> (Client, Producer) {
    let client = connect(virtual_cluster::client(cluster, seed)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    let before = sent(&client);
    spend(&producer).await;
    assert!((900..1_100).contains(&(sent(&client) - before)), "{}", sent(&client) - before);
    (client, producer)
}

/// Sends so many records one after the other, so far apart; the longest that one was on its way.
async fn trickle(producer: &Producer, records: u64, apart: Duration) -> Duration {
    trickle_of(producer, free, records, apart).await
}

async fn trickle_of(
    producer: &Producer,
    record: impl Fn() -> Record<'static>,
    records: u64,
    apart: Duration,
) -> Duration {
    let mut waiting = Vec::new();
    for _ in 0..records {
        let (delivery, begun) = (producer.send(record()).await.unwrap(), Instant::now());
        waiting.push(tokio::spawn(async move {
            within("an ack", delivery).await.unwrap();
            begun.elapsed()
        }));
        tokio::time::sleep(apart).await;
    }
    let mut longest = Duration::ZERO;
    for one in waiting {
        longest = longest.max(one.await.unwrap());
    }
    longest
}

/// A thousand records that are awaited one by one are a thousand round trips, as few ones always are.
#[tokio::test(start_paused = true)]
async fn few_records_are_not_paced_and_the_first_thousand_are_not() {
    let cluster = cluster(3, 6);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    let (before, begun) = (sent(&client), Instant::now());
    for _ in 0..990 {
        acked(&producer, free()).await;
    }
    assert_eq!(sent(&client) - before, 990);
    assert!(begun.elapsed() < ms(10), "{:?}", begun.elapsed());
    tokio::time::sleep(secs(10)).await;
    let before = sent(&client);
    let longest = trickle(&producer, 1_000, ms(10)).await;
    assert_eq!(sent(&client) - before, 1_000);
    assert!(longest < ms(1), "{longest:?}");
}

/// However many records a second: no more requests than the pace has, and no record waits for longer than
/// the linger.
#[tokio::test(start_paused = true)]
async fn many_records_are_gathered() {
    let cluster = cluster(3, 6);
    let (client, producer) = spent(&cluster, 1).await;
    for apart in [ms(4), ms(1)] {
        let (before, begun) = (sent(&client), Instant::now());
        let longest = trickle(&producer, 4_000, apart).await;
        let per_second = (sent(&client) - before) as f64 / begun.elapsed().as_secs_f64();
        let most = PER_SECOND as f64 * 1.01;
        assert!((150.0..most).contains(&per_second), "{per_second} a second, {apart:?} apart");
        assert!(longest <= ms(7), "{longest:?}, {apart:?} apart");
    }
}

/// Two clients of a process, and producers with settings of their own, are one pool and one pace.
#[tokio::test(start_paused = true)]
async fn all_producers_of_a_process_have_one_pace() {
    let cluster = cluster(1, 4);
    let settings = virtual_cluster::client(&cluster, 1);
    let one = connect(settings.clone()).await;
    let other = connect(settings.client_id("other")).await;
    // A linger that does not end it.
    let producers: Vec<Producer> = [&one, &other, &one]
        .into_iter()
        .enumerate()
        .map(|(i, client)| client.producer().linger(secs(1 + i as u64)).build().unwrap())
        .collect();
    for producer in &producers {
        acked(producer, free()).await;
    }
    spend(&producers[0]).await;
    let (before, begun) = (sent(&one), Instant::now());
    let mut tasks = Vec::new();
    for producer in producers {
        tasks.push(tokio::spawn(async move { trickle(&producer, 3_000, ms(1)).await }));
    }
    let mut longest = Duration::ZERO;
    for task in tasks {
        longest = longest.max(task.await.unwrap());
    }
    let per_second = (sent(&one) - before) as f64 / begun.elapsed().as_secs_f64();
    assert!((150.0..182.0).contains(&per_second), "{per_second} a second");
    // Each has its turn.
    assert!(longest <= ms(60), "{longest:?}");
}

/// What goes to one broker goes together: a topic whose turn to make a request has not come rides with
/// one that makes one.
#[tokio::test(start_paused = true)]
async fn what_gathers_rides_with_what_goes_to_the_same_broker() {
    let mut builder = Cluster::builder().brokers(1).tcp(false);
    for topic in 0..50 {
        builder = builder.topic(format!("t{topic}"), 2, 1);
    }
    let cluster = builder.start_on_current_runtime().unwrap();
    let client = connect(unpaced(&cluster)).await;
    let producer = client.producer().linger(ms(50)).build().unwrap();
    let topics: Vec<String> = (0..50).map(|topic| format!("t{topic}")).collect();
    let all = topics.iter().map(|topic| producer.try_send(Record::to(topic).value("x")).unwrap());
    acks(all.collect()).await;
    for pinned in [false, true] {
        let before = sent(&client);
        let mut deliveries: Vec<Delivery> = Vec::new();
        for topic in &topics {
            let record = Record::to(topic).value("x");
            let record = if pinned { record.partition(1) } else { record };
            deliveries.push(producer.try_send(record).unwrap());
            tokio::time::sleep(ms(1)).await;
        }
        acks(deliveries).await;
        // One that began at the first, and one that began behind it.
        let requests = sent(&client) - before;
        assert!(requests <= 2, "{requests} requests, pinned: {pinned}");
    }
}

/// A client that may never make a request before it has to.
fn unpaced(cluster: &Cluster) -> ClientBuilder {
    let limits = PaceLimits { per_second: 0.0, burst: 0.0, ..PaceLimits::default() };
    virtual_cluster::client_with(cluster, 1, |environment| environment.pace(limits))
}

/// Without any request to make, each batch has its linger; what does not wait for that does not wait.
#[tokio::test(start_paused = true)]
async fn what_has_to_go_goes_at_once() {
    type Settings = fn(ottla::ProducerBuilder) -> ottla::ProducerBuilder;
    let large = vec![7; 2_000];
    let cases: [(&str, Settings, &[u8], Range); 4] = [
        ("a small one", |b| b, b"x", ms(30)..ms(33)),
        ("without a linger", |b| b.linger(Duration::ZERO), b"x", ms(0)..ms(1)),
        ("a full one", |b| b, &large, ms(0)..ms(1)),
        ("one with little time", |b| b.delivery_timeout(ms(40)), b"x", ms(10)..ms(13)),
    ];
    for (what, settings, value, expected) in cases {
        let cluster = cluster(1, 2);
        let client = connect(unpaced(&cluster)).await;
        let builder = client.producer().linger(ms(30)).batch_size(1 << 10);
        let producer = settings(builder).build().unwrap();
        // The broker is connected, and its topic known.
        let warm = client.producer().build().unwrap();
        acked(&warm, free()).await;
        for record in [free().value(value), pinned(1).value(value)] {
            let begun = Instant::now();
            let delivery = producer.try_send(record).unwrap();
            within("an ack", delivery).await.unwrap();
            let took = begun.elapsed();
            assert!(expected.contains(&took), "{what}: {took:?}");
        }
    }
}

type Range = std::ops::Range<Duration>;

/// Nor does what a flush, a close, or somebody without space waits for.
#[tokio::test(start_paused = true)]
async fn who_waits_for_it_ends_the_gathering() {
    let cluster = cluster(1, 2);
    let client = connect(unpaced(&cluster)).await;
    let warm = client.producer().build().unwrap();
    acked(&warm, free()).await;
    let builder = client.producer().linger(secs(30)).delivery_timeout(secs(600));
    let producer = builder.clone().build().unwrap();
    for record in [free(), pinned(1)] {
        let begun = Instant::now();
        let delivery = producer.try_send(record).unwrap();
        producer.flush().await.unwrap();
        assert!(delivery.is_done() && begun.elapsed() < ms(1), "{:?}", begun.elapsed());
    }
    let tight = builder.buffer_memory(1 << 20).batch_size(1 << 20).build().unwrap();
    let (begun, large) = (Instant::now(), vec![7; 300 << 10]);
    for _ in 0..10 {
        drop(tight.send(free().value(&large)).await.unwrap());
    }
    assert!(begun.elapsed() < ms(20), "{:?}", begun.elapsed());
    tight.flush().await.unwrap();
    let begun = Instant::now();
    let delivery = producer.try_send(free()).unwrap();
    producer.close(secs(1)).await.unwrap();
    assert!(delivery.is_done() && begun.elapsed() < ms(1), "{:?}", begun.elapsed());
}

/// Brokers whose responses take ten times as long are spared, by clients that do not know of one another;
/// they come back to their pace when the brokers have.
#[tokio::test(start_paused = true)]
async fn brokers_that_are_strained_get_fewer_requests() {
    let cluster = cluster(1, 4);
    for seed in 1..4 {
        let (client, producer) = spent(&cluster, seed).await;
        trickle(&producer, 1_000, ms(1)).await;
        let slow = FaultRule::new(Fault::DelayResponse(ms(10))).api(ApiKey::PRODUCE).always();
        cluster.faults().inject(slow);
        trickle(&producer, 4_000, ms(1)).await;
        let (before, begun) = (sent(&client), Instant::now());
        let longest = trickle(&producer, 4_000, ms(1)).await;
        let strained = (sent(&client) - before) as f64 / begun.elapsed().as_secs_f64();
        assert!((40.0..70.0).contains(&strained), "{strained} a second");
        assert!(longest < ms(34), "{longest:?}");
        cluster.faults().clear();
        trickle(&producer, 10_000, ms(1)).await;
        let (before, begun) = (sent(&client), Instant::now());
        let longest = trickle(&producer, 2_000, ms(1)).await;
        let after = (sent(&client) - before) as f64 / begun.elapsed().as_secs_f64();
        assert!((150.0..182.0).contains(&after), "{after} a second, ten seconds later");
        assert!(longest <= ms(7), "{longest:?}");
    }
}

/// Others of its process, whose records go to another broker, are not made to wait for it.
#[tokio::test(start_paused = true)]
async fn who_lets_nothing_gather_leaves_others_their_turn() {
    let cluster = cluster(2, 2);
    let (client, producer) = spent(&cluster, 1).await;
    let hasty = client.producer().linger(Duration::ZERO).build().unwrap();
    acked(&hasty, pinned(0)).await;
    acked(&producer, pinned(1)).await;
    let floods = tokio::spawn(async move { trickle_of(&hasty, || pinned(0), 4_000, ms(1)).await });
    tokio::time::sleep(secs(1)).await;
    let longest = trickle_of(&producer, || pinned(1), 50, ms(50)).await;
    assert!(longest <= ms(2), "{longest:?}");
    floods.await.unwrap();
}

/// What is spared one broker is not taken from the others.
#[tokio::test(start_paused = true)]
async fn for_a_strained_broker_no_other_pays() {
    let cluster = cluster(2, 2);
    let (_client, producer) = spent(&cluster, 1).await;
    for partition in 0..2 {
        acked(&producer, pinned(partition)).await;
    }
    trickle_of(&producer, || pinned(0), 1_000, ms(1)).await;
    let slow = FaultRule::new(Fault::DelayResponse(ms(10))).api(ApiKey::PRODUCE).broker(1).always();
    cluster.faults().inject(slow);
    let strained = producer.clone();
    let floods =
        tokio::spawn(async move { trickle_of(&strained, || pinned(0), 8_000, ms(1)).await });
    tokio::time::sleep(secs(4)).await;
    let longest = trickle_of(&producer, || pinned(1), 50, ms(50)).await;
    assert!(longest <= ms(2), "{longest:?}");
    let longest = floods.await.unwrap();
    assert!(longest >= ms(20), "it is not strained: {longest:?}");
}

/// A program that lets nothing gather is told of it, once it lasts.
#[tokio::test(start_paused = true)]
async fn a_request_for_each_of_many_records_is_bad_stuff() {
    let cluster = cluster(1, 4);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().linger(Duration::ZERO).build().unwrap();
    trickle(&producer, 25_000, ms(1)).await;
    let stats = client.stats();
    assert!(stats.bad_stuff.is_zero(), "{}", stats.bad_stuff);
    assert!((999.0..1_001.0).contains(&stats.requests_per_1000_messages), "{stats:?}");
    trickle(&producer, 15_000, ms(1)).await;
    let bad = client.stats().bad_stuff;
    assert!((999.0..1_001.0).contains(&bad.requests_per_1000_messages), "{bad}");
    // The others are as they should be.
    let other = client.producer().build().unwrap();
    trickle(&other, 25_000, ms(1)).await;
    until("it is over", || client.stats().bad_stuff.is_zero()).await;
}
