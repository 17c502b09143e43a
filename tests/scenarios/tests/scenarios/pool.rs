//! The pool of connections: how many there are, who makes room, when they close, and what becomes
//! of them when brokers move, vanish and return. In virtual time; one over real sockets.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{
    Acks, BrokerHealth, Client, Compression, Environment, ErrorKind, NewTopic, OffsetSpec, Start,
};
use ottla_scenarios::network::Network;
use ottla_scenarios::steps::{
    acked, batch, broker, cluster, connect, connected, free, ms, pinned, requests, secs, seen,
};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::Instant;

async fn capped(network: &Network, cluster: &Cluster, most: usize) -> Client {
    let environment = network.environment(1).max_connections(most).build();
    connect(network.client(cluster, 1).environment(environment)).await
}

#[tokio::test(start_paused = true)]
async fn at_the_cap_the_connection_that_was_idle_longest_makes_room() {
    let cluster = cluster(4, 4);
    let client = capped(&Network::new(&cluster), &cluster, 2).await;
    let producer = client.producer().build().unwrap();
    let mut order = Vec::new();
    for partition in [0, 1, 2, 1, 3, 2, 0, 3, 1, 2] {
        let begun = Instant::now();
        acked(&producer, pinned(partition)).await;
        assert!(begun.elapsed() < ms(500), "{:?}", begun.elapsed());
        order.push(partition + 1);
        let mut open = connected(&client);
        assert!(cluster.stats().connections_open() <= 2, "{open:?}");
        if order.len() > 2 {
            // Whoever was used last, and whoever was used before.
            let mut recent: Vec<i32> = order[order.len() - 2..].to_vec();
            recent.sort_unstable();
            open.sort_unstable();
            assert_eq!(open, recent, "after {order:?}");
        }
        tokio::time::sleep(secs(1)).await;
    }
    let bad = client.stats().bad_stuff;
    assert!(bad.is_zero(), "{bad}");
}

#[tokio::test(start_paused = true)]
async fn at_the_cap_with_all_at_work_the_first_to_be_idle_makes_room() {
    let cluster = cluster(2, 2);
    let client = capped(&Network::new(&cluster), &cluster, 1).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    cluster.faults().on(1, ApiKey::PRODUCE, Fault::DelayResponse(secs(3)), 1);
    let slow = producer.send(pinned(0)).await.unwrap();
    until("at work", || requests(&client, 1, "Produce").in_flight == 1).await;
    let begun = Instant::now();
    acked(&producer, pinned(1)).await;
    assert!((secs(3)..secs(4)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    within("an ack", slow).await.unwrap();
    assert_eq!(cluster.stats().connections_open(), 1);
}

#[tokio::test(start_paused = true)]
async fn at_the_cap_with_all_at_work_for_good_the_error_says_so_and_no_broker_is_blamed() {
    let cluster = cluster(2, 2);
    let client = capped(&Network::new(&cluster), &cluster, 1).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    let slow =
        FaultRule::new(Fault::DelayResponse(secs(5))).broker(1).api(ApiKey::PRODUCE).always();
    cluster.faults().inject(slow);
    // There is always something in flight: the next is sent before the last is answered.
    let sending = producer.clone();
    let busy = tokio::spawn(async move {
        let mut last = sending.send(pinned(0)).await.unwrap();
        loop {
            let next = sending.send(pinned(0)).await.unwrap();
            tokio::time::sleep(secs(1)).await;
            std::mem::replace(&mut last, next).await.unwrap();
        }
    });
    until("at work", || requests(&client, 1, "Produce").in_flight == 1).await;
    let admin = client.admin();
    let asking = admin.list_offsets([("t", 1, OffsetSpec::Latest)]);
    let error = within("an error", asking).await.unwrap().remove(0).1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("max_connections"), "{error}");
    assert_eq!(client.cluster().brokers[&2].health, BrokerHealth::Good);
    busy.abort();
    acked(&producer, pinned(1)).await;
}

#[tokio::test(start_paused = true)]
async fn s31_idle_connections_close_and_come_back_unnoticed() {
    let cluster = cluster(3, 6);
    let client = connect(virtual_cluster::client(&cluster, 1).idle_timeout(secs(5))).await;
    let producer = client.producer().build().unwrap();
    for round in 0..5 {
        for partition in 0..3 {
            let begun = Instant::now();
            acked(&producer, pinned(partition)).await;
            assert!(begun.elapsed() < ms(100), "round {round}: {:?}", begun.elapsed());
        }
        assert_eq!(cluster.stats().connections_open(), 3);
        tokio::time::sleep(secs(6)).await;
        assert_eq!(cluster.stats().connections_open(), 0);
        assert_eq!(client.stats().connections_open, 0);
    }
    let stats = client.stats();
    assert!(stats.bad_stuff.is_zero(), "{}", stats.bad_stuff);
    let closes: u64 = stats.brokers.values().map(|b| b.idle_closes).sum();
    assert_eq!(closes, 15);
}

/// A long response is use: what waits for data longer than connections may be idle keeps its own.
#[tokio::test(start_paused = true)]
async fn s31_a_connection_is_not_idle_right_after_a_long_response() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1).idle_timeout(secs(2))).await;
    let mut consumer = client.consumer().topics(["t"]).max_wait(secs(10)).build().unwrap();
    tokio::time::sleep(secs(60)).await;
    assert!(consumer.try_next().is_none());
    let accepted = cluster.stats().connections_accepted();
    assert!(
        accepted <= 2,
        "{accepted} connections for {} fetches",
        seen(&cluster, 1, ApiKey::FETCH)
    );
}

#[tokio::test(start_paused = true)]
async fn the_bootstrap_connection_becomes_its_brokers() {
    for seed in 0..5 {
        let cluster = cluster(3, 3);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        client.admin().partitions("t").await.unwrap();
        assert_eq!(cluster.stats().connections_accepted(), 1);
        let producer = client.producer().build().unwrap();
        for partition in 0..3 {
            acked(&producer, pinned(partition)).await;
        }
        // Neither for Produce nor for the short calls was it opened again.
        assert_eq!(cluster.stats().connections_accepted(), 3);
        assert_eq!(connected(&client), [1, 2, 3]);
    }
}

#[tokio::test]
async fn the_bootstrap_connection_becomes_its_brokers_by_its_peers_address_too() {
    let cluster = Cluster::builder().brokers(1).topic("t", 1, 1).start().unwrap();
    let (_, port) = cluster.address(1).unwrap();
    let environment = Environment::builder().build();
    let client = Client::builder().bootstrap(format!("localhost:{port}"));
    let client = connect(client.environment(environment)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    assert_eq!(cluster.stats().connections_accepted(), 1);
}

#[tokio::test(start_paused = true)]
async fn dials_to_one_broker_come_one_after_the_other() {
    let cluster = cluster(2, 2);
    let network = Network::new(&cluster);
    let client = connect(network.client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    network.hang("broker-2");
    let deliveries = [producer.send(pinned(1)).await, producer.send(pinned(1)).await];
    let start = Start::Offset(0);
    let mut consumers: Vec<_> =
        (0..5).map(|_| client.consumer().assign([("t", 1, start)]).build().unwrap()).collect();
    let admin = client.admin();
    let offsets = admin.list_offsets([("t", 1, OffsetSpec::Latest)]);
    let release = async {
        tokio::time::sleep(secs(25)).await;
        network.release("broker-2");
    };
    let (_, ()) = tokio::join!(offsets, release);
    for delivery in deliveries {
        within("an ack", delivery.unwrap()).await.unwrap();
    }
    for consumer in &mut consumers {
        within("a record", consumer.next()).await.unwrap().unwrap();
    }
    let dials = network.dials("broker-2").len();
    assert!((7..=9).contains(&dials), "{dials} dials for seven lanes");
    assert_eq!(network.most_at_once("broker-2"), 1);
}

#[tokio::test(start_paused = true)]
async fn s30_the_set_up_timeout_grows_and_other_brokers_do_not_notice() {
    let cluster = cluster(3, 3);
    let network = Network::new(&cluster);
    network.hang("broker-1");
    let bootstrap = "broker-2:9092,broker-3:9092";
    let client = connect(network.client(&cluster, 1).bootstrap(bootstrap)).await;
    let producer = client.producer().delivery_timeout(secs(600)).build().unwrap();
    let stuck = producer.send(pinned(0)).await.unwrap();
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    for round in 0..100 {
        for record in [pinned(1), pinned(2), free()] {
            let begun = Instant::now();
            acked(&producer, record).await;
            assert!(begun.elapsed() < secs(1), "round {round}: {:?}", begun.elapsed());
        }
        let begun = Instant::now();
        let mut read = 0;
        while read < 3 {
            read += batch(&mut consumer).await.len();
        }
        assert!(begun.elapsed() < secs(1), "round {round}: {:?}", begun.elapsed());
        tokio::time::sleep(secs(1)).await;
    }
    let took: Vec<_> =
        network.dials("broker-1").iter().map(|d| d.took().as_secs_f64().round() as u64).collect();
    assert_eq!(took[..4], [10, 20, 30, 30], "{took:?}");
    assert_eq!(network.most_at_once("broker-1"), 1);
    assert!(!stuck.is_done());
    network.release("broker-1");
    within("an ack", stuck).await.unwrap();
}

/// While an optional dial waits for better times, what must go to the broker goes.
#[tokio::test(start_paused = true)]
async fn s30_a_broker_that_is_needed_is_dialled_though_it_was_optional_before() {
    let cluster = cluster(3, 3);
    let network = Network::new(&cluster);
    network.hang("broker-1");
    let bootstrap = "broker-2:9092,broker-3:9092";
    let client = connect(network.client(&cluster, 1).bootstrap(bootstrap)).await;
    let mut consumer = client.consumer().assign([("t", 0, Start::Earliest)]).build().unwrap();
    until("a dial", || !network.dials("broker-1").is_empty()).await;
    // Every record a batch of its own, and so many that all three brokers are wanted.
    let producer =
        client.producer().batch_size(1 << 10).compression(Compression::None).build().unwrap();
    let values = [[7; 900]; 8];
    // The consumer needs broker 1, the producer would like to use it: both wait for a dial.
    for _ in 0..50 {
        within("acks", producer.send_batch("t", &values).await.unwrap()).await.unwrap();
        tokio::time::sleep(ms(100)).await;
    }
    until("the first dial's end", || network.dials("broker-1")[0].over.is_some()).await;
    network.release("broker-1");
    let begun = Instant::now();
    acked(&producer, pinned(0)).await;
    batch(&mut consumer).await;
    assert!(begun.elapsed() < secs(6), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_closes_early_is_served_to_its_end_and_disturbs_nobody() {
    let cluster = cluster(3, 3);
    let slow = FaultRule::new(Fault::DelayResponse(secs(2))).api(ApiKey::PRODUCE);
    cluster.faults().inject(slow.always());
    let network = Network::new(&cluster);
    let environment = network.environment(1).build();
    let settings = || network.client(&cluster, 1).environment(environment.clone());
    let (stays, leaves) = (connect(settings()).await, connect(settings()).await);
    let (staying, leaving) =
        (stays.producer().build().unwrap(), leaves.producer().linger(ms(1)).build().unwrap());
    let mut deliveries = Vec::new();
    for partition in 0..3 {
        deliveries.push(leaving.send(pinned(partition)).await.unwrap());
        deliveries.push(staying.send(pinned(partition)).await.unwrap());
    }
    let consumer = leaves.consumer().topics(["t"]).max_wait(secs(20)).build().unwrap();
    until("a fetch", || requests(&stays, 1, "Fetch").in_flight > 0).await;
    let open = cluster.stats().connections_open();
    drop((consumer, leaving, leaves));
    for delivery in deliveries {
        within("an ack", delivery).await.unwrap();
    }
    until("the fetch lanes closed", || cluster.stats().connections_open() <= open - 3).await;
    acked(&staying, free()).await;
    let bad = stays.stats().bad_stuff;
    assert!(bad.is_zero(), "{bad}");
}

#[tokio::test(start_paused = true)]
async fn the_pool_closes_with_its_last_handle() {
    let cluster = cluster(3, 6);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..6 {
        acked(&producer, pinned(partition)).await;
    }
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    within("records", consumer.next()).await.unwrap().unwrap();
    let admin = client.admin();
    let all = |what| move || (what, cluster.stats().connections_open());
    let open = all("open");
    let handles: [Box<dyn std::any::Any>; 3] =
        [Box::new(client), Box::new(producer), Box::new(consumer)];
    for handle in handles {
        drop(handle);
        // The rest of a long poll.
        tokio::time::sleep(secs(1)).await;
        assert!(open().1 > 0, "the admin client is left");
    }
    drop(admin);
    until("the end", || open().1 == 0).await;
}

#[tokio::test(start_paused = true)]
async fn consumers_that_come_and_go_leave_no_connections() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    for _ in 0..30 {
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        within("records", consumer.next()).await.unwrap().unwrap();
    }
    tokio::time::sleep(secs(1)).await;
    let open = cluster.stats().connections_open();
    assert!(open <= 4, "{open} connections are left of 30 consumers");
}

/// Producers take over the control lane's connection while one of them dials: what is dialled then is
/// one too many. Without this the two would use one each, of which the pool knows one.
#[tokio::test(start_paused = true)]
async fn a_lane_that_is_taken_over_while_it_is_dialled_stays_the_only_one() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    within("metadata", client.admin().partitions("t")).await.unwrap();
    cluster.faults().on(1, ApiKey::CREATE_TOPICS, Fault::Delay(secs(1)), 1);
    cluster.faults().on(1, ApiKey::API_VERSIONS, Fault::Delay(secs(2)), 1);
    let admin = client.admin();
    let slow = tokio::spawn(async move { admin.create_topic(NewTopic::new("u", 1, 1)).await });
    until("the control lane is busy", || requests(&client, 1, "CreateTopics").sent == 1).await;
    let begun = Instant::now();
    // One needs no producer id, and dials at once; the other asks for one, behind the slow call.
    let dials = client.producer().acks(Acks::Leader).build().unwrap();
    let waits = client.producer().build().unwrap();
    let first = within("space", dials.send(free())).await.unwrap();
    acked(&waits, free()).await;
    within("a topic", slow).await.unwrap().unwrap();
    within("metadata", client.admin().partitions("u")).await.unwrap();
    within("ack", first).await.unwrap();
    assert!(begun.elapsed() < secs(2), "it waited for the dial: {:?}", begun.elapsed());
    until("dialled", || client.stats().connects == 2).await;
    until("one is left", || broker(&client, 1).connections_open == 1).await;
    acked(&dials, free()).await;
    acked(&waits, free()).await;
    assert_eq!(broker(&client, 1).connections_open, 1);
    assert_eq!(client.cluster().brokers[&1].connections, 1);
}

/// What was opened and used together is not closed together: else it would be opened together again.
#[tokio::test(start_paused = true)]
async fn idle_connections_close_one_by_one() {
    let cluster = cluster(6, 6);
    let client = virtual_cluster::client(&cluster, 1).idle_timeout(secs(100));
    let client = connect(client).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..6 {
        acked(&producer, pinned(partition)).await;
    }
    let open = || cluster.stats().connections_open();
    let (mut before, mut moments) = (open(), 0);
    assert!(before >= 6);
    for _ in 0..1_100 {
        tokio::time::sleep(ms(100)).await;
        moments += u32::from(open() < before);
        before = open();
    }
    assert_eq!(before, 0);
    assert!(moments >= 3, "all of them within {moments} tenths of a second");
}

/// Short calls go to any broker that is connected, and not to the same one each time.
#[tokio::test(start_paused = true)]
async fn any_connected_broker_is_asked() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..3 {
        acked(&producer, pinned(partition)).await;
    }
    let asked = |id| seen(&cluster, id, ApiKey::METADATA);
    let before = [1, 2, 3].map(asked);
    for n in 0..60 {
        let name = format!("topic-{n}");
        cluster.create_topic(&name, 1, 3).unwrap();
        within("an answer", client.admin().partitions(&name)).await.unwrap();
        tokio::time::sleep(secs(1)).await;
    }
    for (id, before) in [1, 2, 3].into_iter().zip(before) {
        let share = asked(id) - before;
        // 20, give or take 4 at a time.
        assert!((4..=40).contains(&share), "broker {id} was asked {share} of 60 times");
    }
}
