//! Clients of one process share what they have of a cluster, whatever their own settings are: what is
//! one client's own goes with its requests. In virtual time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, ClientBuilder, Environment, ErrorKind, OffsetSpec};
use ottla_scenarios::hostile::Hostile;
use ottla_scenarios::network::Network;
use ottla_scenarios::steps::{acked, cluster, connect, free, ms, pinned, secs, stored};
use ottla_scenarios::wait::{until, within};
use tokio::runtime::Handle;
use tokio::time::Instant;

const ORDERS: [&str; 3] = [
    "broker-1:9092,broker-2:9092,broker-3:9092",
    "broker-3:9092,broker-1:9092,broker-2:9092",
    "broker-2:9092, broker-3:9092, broker-1:9092, broker-2:9092",
];

/// Settings of the `n`th client of a process, each with its own.
fn settings(environment: &Environment, n: u64) -> ClientBuilder {
    Client::builder()
        .environment(environment.clone())
        .bootstrap(ORDERS[n as usize % 3])
        .client_id(format!("client-{n}"))
        .request_timeout(secs(20 + n))
        .idle_timeout(secs(400 + n))
        .rack(format!("rack-{}", n % 3))
        .ordinal(n as u32, 9)
}

#[tokio::test(start_paused = true)]
async fn nine_clients_have_the_connections_of_one() {
    let cluster = cluster(3, 9);
    let hostile = Hostile::new(&cluster);
    let environment = Environment::builder()
        .runtime(Handle::current())
        .dialer(std::sync::Arc::new(hostile.clone()))
        .seed(1)
        .build();
    let mut handles = Vec::new();
    for n in 0..9 {
        let client = connect(settings(&environment, n)).await;
        let producer = client.producer().build().unwrap();
        for partition in 0..9 {
            acked(&producer, pinned(partition)).await;
        }
        let latest = (0..9).map(|partition| ("t", partition, OffsetSpec::Latest));
        let ends = client.admin().list_offsets(latest).await.unwrap();
        assert!(ends.into_iter().all(|(_, end)| end.unwrap() == n as i64 + 1));
        handles.push((client, producer));
    }
    // Short calls ride on what is idle.
    let open = cluster.stats().connections_open();
    assert!(open <= 4, "{open} connections for three brokers");
    assert_eq!(cluster.stats().requests_of(ApiKey::METADATA), 1);
    // Each asks in its own name, and has a request of its own.
    let names: Vec<_> = (0..9).map(|n| format!("client-{n}")).collect();
    for api in [ApiKey::PRODUCE, ApiKey::INIT_PRODUCER_ID, ApiKey::LIST_OFFSETS] {
        assert_eq!(hostile.asked_by(api), names, "{api:?}");
    }
    let mut consumer = handles[7].0.consumer().topics(["t"]).build().unwrap();
    within("records", consumer.next()).await.unwrap().unwrap();
    assert_eq!(hostile.asked_by(ApiKey::FETCH), ["client-7"]);
    assert_eq!(stored(&cluster, 0).len(), 9);
}

/// Different lists of one cluster: the second pool finds that it is the first.
#[tokio::test(start_paused = true)]
async fn two_lists_of_one_cluster_are_one_pool() {
    let cluster = cluster(3, 9);
    let network = Network::new(&cluster);
    for broker in cluster.broker_ids() {
        network.alias(&format!("alias-{broker}"), cluster.address(broker).unwrap());
    }
    let environment = network.environment(1).build();
    let client = |list: &str| {
        Client::builder().environment(environment.clone()).bootstrap(list).client_id(list)
    };
    let first = connect(client("broker-1:9092")).await;
    let producer = first.producer().build().unwrap();
    for partition in 0..9 {
        acked(&producer, pinned(partition)).await;
    }
    let open = cluster.stats().connections_open();
    let mut handles = Vec::new();
    for list in ["broker-2:9092", "alias-3:1", "broker-1:9092,broker-2:9092", "alias-1:1"] {
        let client = connect(client(list)).await;
        let producer = client.producer().build().unwrap();
        for partition in 0..9 {
            acked(&producer, pinned(partition)).await;
        }
        assert_eq!(client.stats(), first.stats(), "{list}: one pool counts for both");
        handles.push((client, producer));
    }
    // One without connect, which learns of it with its first record.
    let late = client("alias-2:1").build().unwrap();
    acked(&late.producer().build().unwrap(), pinned(0)).await;
    acked(&late.producer().build().unwrap(), pinned(0)).await;
    assert_eq!(late.stats(), first.stats());
    until("the others' connections closed", || cluster.stats().connections_open() <= open.max(4))
        .await;
    // A list that has been used leads to the right pool at once.
    let before = cluster.stats().connections_accepted();
    acked(&connect(client("alias-3:1")).await.producer().build().unwrap(), pinned(0)).await;
    assert_eq!(cluster.stats().connections_accepted(), before);
}

/// Who has less patience than others gives up for itself.
#[tokio::test(start_paused = true)]
async fn one_clients_request_timeout_is_not_anothers() {
    let cluster = cluster(1, 1);
    let network = Network::new(&cluster);
    let environment = network.environment(1).build();
    let client = |timeout| {
        let settings = network.client(&cluster, 1).environment(environment.clone());
        settings.request_timeout(timeout)
    };
    let (patient, hasty) = (connect(client(secs(30))).await, connect(client(secs(2))).await);
    let patients = patient.producer().build().unwrap();
    acked(&patients, free()).await;
    let before = cluster.stats().connections_accepted();
    let slow = FaultRule::new(Fault::DelayResponse(secs(10))).api(ApiKey::PRODUCE);
    cluster.faults().inject(slow);
    let waits = patients.send(free()).await.unwrap();
    until("it is at work", || cluster.faults().fired() == 1).await;
    let begun = Instant::now();
    let hastys = hasty.producer().delivery_timeout(secs(5)).build().unwrap();
    let delivery = hastys.send(free()).await.unwrap();
    let error = within("an end", delivery).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!((secs(5)..secs(6)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    within("an ack", waits).await.unwrap();
    assert!((secs(9)..secs(11)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(patient.stats().bad_stuff.losses, 0);
    let more = cluster.stats().connections_accepted() - before;
    assert!(more <= 1, "{more} more connections");
}

/// A connection stays open as long as any that uses it wants.
#[tokio::test(start_paused = true)]
async fn the_longest_idle_timeout_counts() {
    let cluster = cluster(1, 1);
    let network = Network::new(&cluster);
    let environment = network.environment(1).build();
    let client = |timeout| {
        let settings = network.client(&cluster, 1).environment(environment.clone());
        settings.idle_timeout(timeout)
    };
    let (short, long) = (connect(client(secs(5))).await, connect(client(secs(100))).await);
    let producers = [short.producer().build().unwrap(), long.producer().build().unwrap()];
    acked(&producers[0], free()).await;
    acked(&producers[1], free()).await;
    acked(&producers[0], free()).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(cluster.stats().connections_open(), 1);
    tokio::time::sleep(secs(60)).await;
    assert_eq!(cluster.stats().connections_open(), 0);
}

/// A process with as many names as it has customers does not keep a sender for each.
#[tokio::test(start_paused = true)]
async fn clients_that_come_and_go_leave_nothing() {
    let cluster = cluster(3, 3);
    let network = Network::new(&cluster);
    let environment = network.environment(1).build();
    let stays = connect(settings(&environment, 0)).await;
    for n in 1..200 {
        let client =
            connect(settings(&environment, n % 9).client_id(format!("customer-{n}"))).await;
        let producer = client.producer().build().unwrap();
        acked(&producer, pinned((n % 3) as i32)).await;
    }
    acked(&stays.producer().build().unwrap(), free()).await;
    assert!(cluster.stats().connections_open() <= 4, "{}", cluster.stats().connections_open());
    // The same customer, again and again, is the same producer.
    let before = cluster.stats().requests_of(ApiKey::INIT_PRODUCER_ID);
    for _ in 0..50 {
        let client = connect(settings(&environment, 3)).await;
        acked(&client.producer().build().unwrap(), free()).await;
    }
    let ids = cluster.stats().requests_of(ApiKey::INIT_PRODUCER_ID) - before;
    assert_eq!(ids, 1);
    tokio::time::sleep(ms(1)).await;
    let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(alive < 60, "{alive} tasks");
}

/// Two clusters are two pools, also when they are named together.
#[tokio::test(start_paused = true)]
async fn two_clusters_share_nothing() {
    let (first, second) = (cluster(1, 1), Cluster::builder().brokers(1).tcp(false));
    let second = second.topic("t", 1, 1).start_on_current_runtime().unwrap();
    second.move_broker(1, "other-1", 9092).unwrap();
    let network = Network::new(&first);
    network.lead_elsewhere("other-1", &second);
    let environment = network.environment(1).build();
    let client = |list| Client::builder().environment(environment.clone()).bootstrap(list);
    let one = connect(client("broker-1:9092")).await;
    let two = connect(client("other-1:9092")).await;
    acked(&one.producer().build().unwrap(), pinned(0)).await;
    for _ in 0..2 {
        acked(&two.producer().build().unwrap(), pinned(0)).await;
    }
    assert_eq!((stored(&first, 0).len(), stored(&second, 0).len()), (1, 2));
}

/// Clients with names of their own that come and go: what sends their batches goes with them.
#[tokio::test(start_paused = true)]
async fn senders_of_clients_that_are_gone_end() {
    let cluster = cluster(3, 9);
    let network = Network::new(&cluster);
    let environment = network.environment(1).build();
    // It keeps what they share.
    let stays = connect(settings(&environment, 0)).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let mut there = Vec::new();
    for n in 1..=120 {
        let client = connect(settings(&environment, 0).client_id(format!("job-{n}"))).await;
        acked(&client.producer().build().unwrap(), free()).await;
        if n % 40 == 0 {
            tokio::time::sleep(secs(60)).await;
            there.push(tasks());
        }
    }
    drop(stays);
    assert!(there[2] <= there[0] + 10, "tasks after 40 clients, 80, 120: {there:?}");
}
