//! Metadata: asked for once by all who wait, only for what is in use, merged so that nobody who is
//! behind can take anything away, and failed only for what was refused. In virtual time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{ErrorKind, NewTopic, Record};
use ottla_scenarios::network::Network;
use ottla_scenarios::steps::{acked, cluster, connect, free, ms, pinned, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

const TOPIC_AUTHORIZATION_FAILED: i16 = 29;

fn asked(cluster: &Cluster) -> u64 {
    cluster.stats().requests_of(ApiKey::METADATA)
}

fn described(cluster: &Cluster) -> u64 {
    cluster.stats().brokers.iter().map(|b| b.metadata_topics).sum()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_waiters_are_one_request() {
    let cluster = cluster(3, 3);
    let slow = FaultRule::new(Fault::DelayResponse(ms(300))).api(ApiKey::METADATA);
    cluster.faults().inject(slow.always());
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let before = asked(&cluster);
    let mut waiters = JoinSet::new();
    for _ in 0..1_000 {
        let admin = client.admin();
        waiters.spawn(async move { admin.partitions("t").await.unwrap() });
    }
    let known = within("metadata", waiters.join_all()).await;
    assert!(known.iter().all(|partitions| *partitions == 3));
    assert_eq!(asked(&cluster) - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_new_topics_at_once_are_a_few_requests() {
    let mut builder = Cluster::builder().brokers(3).tcp(false);
    for topic in 0..100 {
        builder = builder.topic(format!("t{topic}"), 3, 3);
    }
    let cluster = builder.start_on_current_runtime().unwrap();
    let slow = FaultRule::new(Fault::DelayResponse(ms(300))).api(ApiKey::METADATA);
    cluster.faults().inject(slow.always());
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let before = asked(&cluster);
    let mut waiters = JoinSet::new();
    for topic in 0..100 {
        let admin = client.admin();
        waiters.spawn(async move { admin.partitions(&format!("t{topic}")).await.unwrap() });
    }
    within("metadata", waiters.join_all()).await;
    // What is wanted while one is on its way rides in the next.
    assert!(asked(&cluster) - before <= 2, "{}", asked(&cluster) - before);
    assert!(described(&cluster) <= 102, "topics were asked for again: {}", described(&cluster));
}

#[tokio::test(start_paused = true)]
async fn clients_of_one_process_that_connect_together_ask_together() {
    let cluster = cluster(3, 3);
    let network = Network::new(&cluster);
    let environment = network.environment(1).build();
    let slow = FaultRule::new(Fault::DelayResponse(ms(300))).api(ApiKey::METADATA);
    cluster.faults().inject(slow.always());
    let mut connecting = JoinSet::new();
    for _ in 0..100 {
        let client = network.client(&cluster, 1).environment(environment.clone());
        connecting.spawn(async move {
            let client = connect(client).await;
            client.admin().partitions("t").await.unwrap();
            client
        });
    }
    let clients = within("connect", connecting.join_all()).await;
    assert_eq!((clients.len(), asked(&cluster)), (100, 1));
    assert_eq!(cluster.stats().connections_accepted(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_topics_in_use_are_asked_for() {
    let mut builder = Cluster::builder().brokers(3).tcp(false);
    for topic in 0..200 {
        builder = builder.topic(format!("t{topic}"), 3, 3);
    }
    let cluster = builder.start_on_current_runtime().unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let used = |client: &ottla::Client| client.cluster().topics.into_keys().collect::<Vec<_>>();
    acked(&producer, Record::to("t1").value("x")).await;
    // Two hours, one topic written to, the other no more.
    acked(&producer, Record::to("t2").value("x")).await;
    assert_eq!(used(&client), ["t1", "t2"]);
    for _ in 0..120 {
        acked(&producer, Record::to("t1").value("x")).await;
        tokio::time::sleep(secs(60)).await;
    }
    assert_eq!(used(&client), ["t1"], "nobody uses the other");
    let (asked, described) = (asked(&cluster), described(&cluster));
    assert!((8..=26).contains(&asked), "{asked} requests in two hours");
    assert!(described < 2 * asked, "{described} topics in {asked} requests");
}

#[tokio::test(start_paused = true)]
async fn s08_a_leader_named_in_a_fetch_response_is_used_at_once() {
    let cluster = cluster(3, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let writer = connect(virtual_cluster::client(&cluster, 2)).await;
    let producer = writer.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    within("a record", consumer.next()).await.unwrap().unwrap();
    for (number, leader) in [(1, 2), (2, 3), (3, 1)] {
        cluster.move_leader("t", 0, leader).unwrap();
        let begun = Instant::now();
        let before = asked(&cluster);
        acked(&producer, pinned(0)).await;
        let batch = within("a record", consumer.next()).await.unwrap().unwrap();
        assert_eq!(batch.base_offset(), number);
        assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
        assert_eq!(asked(&cluster), before, "to broker {leader}");
    }
    assert_eq!(client.stats().hints_applied, 3);
    assert_eq!(client.stats().bad_stuff.metadata_per_1000_messages, 0.0);
}

/// What one handle learns all others know: a hint to the producer moves the consumer too.
#[tokio::test(start_paused = true)]
async fn s08_a_hint_to_one_handle_is_known_to_all() {
    let cluster = cluster(3, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    cluster.move_leader("t", 0, 3).unwrap();
    acked(&producer, pinned(0)).await;
    let before = client.stats();
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    within("records", consumer.next()).await.unwrap().unwrap();
    let after = client.stats();
    assert_eq!(after.metadata_requests, before.metadata_requests);
    assert_eq!(after.bad_stuff.errors, before.bad_stuff.errors, "nobody asked the old leader");
}

#[tokio::test(start_paused = true)]
async fn the_responses_of_a_broker_that_is_cut_off_change_nothing() {
    let mut asked_stale = 0;
    for seed in 0..8 {
        let cluster = cluster(3, 4);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        for partition in 0..4 {
            acked(&producer, pinned(partition)).await;
        }
        cluster.cut_off_broker(1).unwrap();
        cluster.move_leader("t", 0, 2).unwrap();
        cluster.move_leader("t", 1, 3).unwrap();
        cluster.move_broker(3, "moved", 9092).unwrap();
        cluster.cut_connections(3).unwrap();
        for partition in 0..4 {
            acked(&producer, pinned(partition)).await;
        }
        until("all news", || client.cluster().brokers[&3].address == "moved:9092").await;
        let known = client.cluster();
        let leaders: Vec<_> = known.topics["t"].partitions.iter().map(|p| p.leader).collect();
        assert_eq!(leaders, [Some(2), Some(3), Some(3), Some(1)]);
        // An hour and more: the one that is behind is asked, too.
        let before = cluster.stats().broker(1).unwrap().requests_of(ApiKey::METADATA);
        for _ in 0..100 {
            acked(&producer, pinned(0)).await;
            acked(&producer, pinned(3)).await;
            tokio::time::sleep(secs(60)).await;
            let now = client.cluster();
            assert_eq!((&now.topics, now.brokers.len()), (&known.topics, 3), "seed {seed}");
            assert_eq!(now.brokers[&3].address, "moved:9092", "seed {seed}");
        }
        let stats = cluster.stats();
        asked_stale += stats.broker(1).unwrap().requests_of(ApiKey::METADATA) - before;
    }
    assert!(asked_stale >= 8, "the broker that is behind was asked {asked_stale} times only");
}

/// Brokers learn of a new topic one by one: one that does not know it proves nothing.
#[tokio::test(start_paused = true)]
async fn a_topic_that_one_broker_does_not_know_yet_is_found() {
    for seed in 0..8 {
        let cluster = cluster(3, 3);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        client.admin().partitions("t").await.unwrap();
        cluster.cut_off_broker(1).unwrap();
        cluster.cut_off_broker(2).unwrap();
        let healed = async {
            tokio::time::sleep(ms(700)).await;
            cluster.reconnect_broker(1).unwrap();
            cluster.reconnect_broker(2).unwrap();
        };
        cluster.create_topic("u", 2, 1).unwrap();
        let begun = Instant::now();
        let admin = client.admin();
        let (found, ()) = tokio::join!(within("metadata", admin.partitions("u")), healed);
        assert_eq!(found.unwrap(), 2, "seed {seed}");
        assert!(begun.elapsed() < secs(3), "seed {seed}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_joined_by_a_second_one() {
    for seed in 0..8 {
        let cluster = cluster(3, 3);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        client.admin().partitions("t").await.unwrap();
        cluster.create_topic("u", 2, 1).unwrap();
        cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::METADATA));
        let before = asked(&cluster);
        let begun = Instant::now();
        assert_eq!(within("metadata", client.admin().partitions("u")).await.unwrap(), 2);
        let took = begun.elapsed();
        assert!((secs(1)..secs(2)).contains(&took), "seed {seed}: {took:?}");
        assert_eq!(asked(&cluster) - before, 2, "seed {seed}");
        assert_eq!(client.stats().metadata_reasons.trouble, 1, "seed {seed}");
    }
}

/// Once its connection is overdue nobody asks there again, until it has answered or is closed.
#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_waited_for_once() {
    for seed in 0..4 {
        let cluster = cluster(3, 3);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        client.admin().partitions("t").await.unwrap();
        cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::METADATA));
        let mut waited = 0;
        for topic in 0..20 {
            let name = format!("u{topic}");
            cluster.create_topic(&name, 1, 1).unwrap();
            let begun = Instant::now();
            within("metadata", client.admin().partitions(&name)).await.unwrap();
            waited += u32::from(begun.elapsed() > ms(100));
            tokio::time::sleep(secs(1)).await;
        }
        assert_eq!(waited, 1, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_does_not_hold_up_a_producers_id() {
    for seed in 0..8 {
        let cluster = cluster(3, 3);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        client.admin().partitions("t").await.unwrap();
        cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::INIT_PRODUCER_ID));
        let begun = Instant::now();
        acked(&client.producer().build().unwrap(), free()).await;
        assert!(begun.elapsed() < secs(2), "seed {seed}: {:?}", begun.elapsed());
    }
}

/// Where there is nobody else to ask, a slow response is waited for, and not asked for twice.
#[tokio::test(start_paused = true)]
async fn a_slow_broker_that_is_the_only_one_is_asked_once() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let slow = FaultRule::new(Fault::DelayResponse(secs(4))).api(ApiKey::METADATA);
    cluster.faults().inject(slow);
    let before = asked(&cluster);
    let begun = Instant::now();
    assert_eq!(within("metadata", client.admin().partitions("t")).await.unwrap(), 1);
    assert!((secs(4)..secs(5)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    tokio::time::sleep(secs(10)).await;
    assert_eq!(asked(&cluster) - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_missing_topic_is_remembered_for_a_while() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let missing = async || {
        let begun = Instant::now();
        let error = within("a refusal", client.admin().partitions("u")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
        begun.elapsed()
    };
    // Two responses from two brokers, a second apart.
    let took = missing().await;
    assert!((secs(1)..secs(4)).contains(&took), "{took:?}");
    let before = asked(&cluster);
    for _ in 0..40 {
        assert_eq!(missing().await, Duration::ZERO);
        tokio::time::sleep(ms(100)).await;
    }
    assert_eq!(asked(&cluster), before);
    // Our own CreateTopics ends that.
    client.admin().create_topic(NewTopic::new("u", 2, 1)).await.unwrap();
    let begun = Instant::now();
    assert_eq!(within("metadata", client.admin().partitions("u")).await.unwrap(), 2);
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_somebody_else_creates_is_found_after_a_while() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    within("a refusal", client.admin().partitions("u")).await.unwrap_err();
    cluster.create_topic("u", 2, 1).unwrap();
    tokio::time::sleep(secs(6)).await;
    assert_eq!(within("metadata", client.admin().partitions("u")).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_fails_its_topic_at_once_and_nothing_else() {
    let cluster = Cluster::builder()
        .brokers(3)
        .tcp(false)
        .topic("t", 3, 3)
        .topic("secret", 3, 3)
        .start_on_current_runtime()
        .unwrap();
    let refusal = FaultRule::new(Fault::Error(TOPIC_AUTHORIZATION_FAILED)).api(ApiKey::METADATA);
    let refusal = cluster.faults().inject(refusal.topic("secret").always());
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let refused = async || {
        let secret = Record::to("secret").value("x");
        let sent = match within("an answer", producer.send(secret)).await {
            Ok(delivery) => within("an end", delivery).await.map(drop),
            Err(e) => Err(e),
        };
        let error = sent.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
        assert!(error.to_string().contains("secret") && !error.maybe_written(), "{error}");
    };
    let begun = Instant::now();
    let (_, ()) = tokio::join!(acked(&producer, free()), refused());
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
    let before = asked(&cluster);
    for _ in 0..9 {
        acked(&producer, free()).await;
        refused().await;
        tokio::time::sleep(ms(100)).await;
    }
    assert_eq!(asked(&cluster), before, "asked again and again though it is forbidden");
    let error = within("a refusal", client.admin().partitions("secret")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization);

    // Somebody grants it.
    assert!(cluster.faults().remove(refusal));
    tokio::time::sleep(secs(6)).await;
    acked(&producer, Record::to("secret").value("x")).await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_client_asks_a_few_times_an_hour() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    let before = asked(&cluster);
    for _ in 0..60 {
        tokio::time::sleep(secs(60)).await;
        acked(&producer, free()).await;
    }
    let asked = asked(&cluster) - before;
    assert!((3..=12).contains(&asked), "{asked} requests in an hour");
}

/// One slow hour of the cluster does not teach patience for the rest of the day: short calls are
/// rare, and what is usual for them is learnt slowly.
#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_joined_by_a_second_one_also_after_slow_responses() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let slow = FaultRule::new(Fault::DelayResponse(secs(8))).api(ApiKey::METADATA);
    cluster.faults().inject(slow.times(2));
    within("metadata", client.admin().partitions("t")).await.unwrap();
    tokio::time::sleep(secs(60)).await;
    cluster.create_topic("u", 2, 1).unwrap();
    cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::METADATA));
    let begun = Instant::now();
    assert_eq!(within("metadata", client.admin().partitions("u")).await.unwrap(), 2);
    assert!(begun.elapsed() <= secs(6), "{:?}", begun.elapsed());
}
