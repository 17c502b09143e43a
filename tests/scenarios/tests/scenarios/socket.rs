//! The pool over real sockets and real time: the same rules as in virtual time, where the engine has
//! a thread of its own and the kernel has its say. Nothing here measures time.

use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Leaders};
use ottla::{BrokerHealth, Client, Environment, NewTopic, OffsetSpec, Record, Start};
use ottla_scenarios::steps::{acked, broker, connect, free, pinned};
use ottla_scenarios::wait::{until, within};

/// Three brokers and a process of its own.
async fn start() -> (Cluster, Client) {
    let cluster = Cluster::builder().brokers(3).topic("t", 6, 3).start().unwrap();
    let environment = Environment::builder().build();
    let client = Client::builder().bootstrap(cluster.bootstrap()).environment(environment);
    let client = connect(client).await;
    (cluster, client)
}

#[tokio::test]
async fn eight_producers_and_a_consumer_need_seven_sockets() {
    let (cluster, client) = start().await;
    let producers: Vec<_> = (0..8).map(|_| client.producer().build().unwrap()).collect();
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let values = [[7; 100]; 100];
    for round in 1..=20 {
        let mut sent = Vec::new();
        for producer in &producers {
            sent.push(within("space", producer.send_batch("t", &values)).await.unwrap());
        }
        for partition in 0..6 {
            acked(&producers[0], pinned(partition)).await;
        }
        for deliveries in sent {
            within("acks", deliveries).await.unwrap();
        }
        let name = format!("topic-{round}");
        client.admin().create_topic(NewTopic::new(&name, 3, 1)).await.unwrap();
        acked(&producers[round % 8], Record::to(&name).value("x")).await;
        let mut read = 0;
        while read < 8 * 100 + 6 {
            read += within("records", consumer.next()).await.unwrap().unwrap().len();
        }
    }
    let accepted = cluster.stats().connections_accepted();
    assert!(accepted <= 7, "{accepted} connections to three brokers");
    // How busy a lane is may differ from run to run; that all is well does not.
    assert!(client.stats().bad_stuff.is_zero(), "{}", client.stats().bad_stuff);
}

#[tokio::test]
async fn short_calls_are_answered_while_produce_hangs_and_fetch_waits() {
    let (cluster, client) = start().await;
    let producer = client.producer().build().unwrap();
    for partition in 0..3 {
        acked(&producer, pinned(partition)).await;
    }
    let consumer = client.consumer().topics(["t"]).start(Start::Latest);
    let _consumer = consumer.max_wait(Duration::from_secs(25)).build().unwrap();
    cluster.set_replica_delay(Duration::MAX);
    let mut hanging = Vec::new();
    for partition in 0..3 {
        hanging.push(producer.send(pinned(partition)).await.unwrap());
    }
    let at_work = |name: &str| {
        let stats = client.stats();
        (1..=3).all(|id| stats.brokers[&id].requests.get(name).is_some_and(|r| r.in_flight > 0))
    };
    until("all at work", || at_work("Produce") && at_work("Fetch")).await;
    let admin = client.admin();
    let all = (0..6).map(|p| ("t", p, OffsetSpec::Latest));
    let offsets = within("offsets", admin.list_offsets(all)).await.unwrap();
    assert!(offsets.iter().all(|(_, result)| result.is_ok()), "{offsets:?}");
    within("a topic", admin.create_topic(NewTopic::new("new", 3, 1))).await.unwrap();
    assert_eq!(within("metadata", admin.partitions("new")).await.unwrap(), 3);
    // Answered, and not because what hangs was given up.
    assert!(hanging.iter().all(|d| !d.is_done()));
    assert!(at_work("Produce") && at_work("Fetch"));
    cluster.set_replica_delay(Duration::ZERO);
    for delivery in hanging {
        within("an ack", delivery).await.unwrap();
    }
}

#[tokio::test]
async fn a_broker_that_is_refused_and_comes_back_is_used_again() {
    let (cluster, client) = start().await;
    let producer = client.producer().build().unwrap();
    for partition in 0..3 {
        acked(&producer, pinned(partition)).await;
    }
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    let stuck = producer.send(pinned(0)).await.unwrap();
    until("a refused dial", || broker(&client, 1).refused > 0).await;
    until("the verdict", || client.cluster().brokers[&1].health == BrokerHealth::Unreachable).await;
    acked(&producer, free()).await;
    cluster.start_broker(1).unwrap();
    within("an ack", stuck).await.unwrap();
    assert_eq!(client.cluster().brokers[&1].health, BrokerHealth::Good);
    assert_eq!(broker(&client, 1).reconnects, 1);
}

#[tokio::test]
async fn leaders_move_and_nobody_asks_for_metadata() {
    let (cluster, client) = start().await;
    let producer = client.producer().build().unwrap();
    for partition in 0..6 {
        acked(&producer, pinned(partition)).await;
    }
    let asked = cluster.stats().requests_of(ApiKey::METADATA);
    for round in 1..=3 {
        for partition in 0..6 {
            cluster.move_leader("t", partition, (partition + round) % 3 + 1).unwrap();
        }
        for partition in 0..6 {
            acked(&producer, pinned(partition)).await;
        }
    }
    assert_eq!(cluster.stats().requests_of(ApiKey::METADATA), asked);
    assert_eq!(client.stats().retry_budget.produce.delayed, 0);
}

#[tokio::test]
async fn sockets_close_when_idle_and_when_the_last_handle_goes() {
    let cluster = Cluster::builder().brokers(3).topic("t", 3, 3).start().unwrap();
    let environment = Environment::builder().build();
    let client = Client::builder().bootstrap(cluster.bootstrap()).environment(environment);
    let client = connect(client.idle_timeout(Duration::from_secs(1))).await;
    let producer = client.producer().build().unwrap();
    for round in 0..2 {
        for partition in 0..3 {
            acked(&producer, pinned(partition)).await;
        }
        until("idle sockets closed", || cluster.stats().connections_open() == 0).await;
        assert!(client.stats().bad_stuff.is_zero(), "{round}: {}", client.stats().bad_stuff);
    }
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    within("records", consumer.next()).await.unwrap().unwrap();
    acked(&producer, free()).await;
    drop((producer, consumer, client));
    until("all sockets closed", || cluster.stats().connections_open() == 0).await;
}
