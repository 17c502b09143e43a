//! Brokers that move, vanish, come back, or share an address.

use ottla::testing::Leaders;
use ottla_scenarios::network::Network;
use ottla_scenarios::steps::{acked, broker, cluster, connect, free, pinned, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_broker_moves_to_another_address() {
    let cluster = cluster(3, 3);
    let network = Network::new(&cluster);
    let client = connect(network.client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    acked(&producer, pinned(1)).await;
    within("the record", consumer.next()).await.unwrap().unwrap();
    cluster.stop_broker(2, Leaders::Keep).unwrap();
    cluster.move_broker(2, "moved", 9092).unwrap();
    cluster.start_broker(2).unwrap();
    let begun = Instant::now();
    acked(&producer, pinned(1)).await;
    within("the record", consumer.next()).await.unwrap().unwrap();
    assert!(begun.elapsed() < secs(6), "{:?}", begun.elapsed());
    assert_eq!(client.cluster().brokers[&2].address, "moved:9092");
    let old = network.dials("broker-2").len();
    acked(&producer, pinned(1)).await;
    tokio::time::sleep(secs(600)).await;
    assert_eq!(network.dials("broker-2").len(), old, "nobody is there any more");
}

#[tokio::test(start_paused = true)]
async fn a_move_without_a_loss_is_followed_with_the_next_metadata() {
    let cluster = cluster(3, 3);
    let network = Network::new(&cluster);
    let client = connect(network.client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..3 {
        acked(&producer, pinned(partition)).await;
    }
    // Both addresses lead there, as when a load balancer is replaced.
    cluster.move_broker(2, "moved", 9092).unwrap();
    network.alias("broker-2", ("moved".to_owned(), 9092));
    cluster.create_topic("u", 1, 1).unwrap();
    client.admin().partitions("u").await.unwrap();
    assert_eq!(client.cluster().brokers[&2].address, "moved:9092");
    acked(&producer, pinned(1)).await;
    assert_eq!(network.dials("moved").len(), 1, "the old connection got new work");
    until("the old connection closed", || cluster.stats().broker(2).unwrap().connections_open == 1)
        .await;
    assert!(client.stats().bad_stuff.is_zero(), "{}", client.stats().bad_stuff);
}

#[tokio::test(start_paused = true)]
async fn s31_two_broker_ids_on_one_address() {
    for seed in 0..5 {
        let cluster = cluster(3, 3);
        // Ids 1 and 2 are behind one address, and the one who answers there leads for both.
        let (host, port) = cluster.address(1).unwrap();
        cluster.move_broker(2, &host, port).unwrap();
        cluster.move_leader("t", 1, 1).unwrap();
        let network = Network::new(&cluster);
        let client = network.client(&cluster, seed).bootstrap("broker-1:9092");
        let client = connect(client).await;
        let producer = client.producer().build().unwrap();
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        for round in 0..20 {
            for partition in 0..3 {
                acked(&producer, pinned(partition)).await;
            }
            acked(&producer, free()).await;
            let mut read = 0;
            while read < 4 {
                read += within("records", consumer.next()).await.unwrap().unwrap().len();
            }
            assert!(client.stats().bad_stuff.is_zero(), "{round}: {}", client.stats().bad_stuff);
            tokio::time::sleep(secs(60)).await;
        }
        let accepted = cluster.stats().connections_accepted();
        assert!(accepted <= 6, "seed {seed}: {accepted} connections");
    }
}

#[tokio::test(start_paused = true)]
async fn s31_one_broker_takes_the_address_of_another() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..3 {
        acked(&producer, pinned(partition)).await;
    }
    let (host, port) = cluster.address(1).unwrap();
    cluster.stop_broker(1, Leaders::Move).unwrap();
    cluster.move_broker(1, "gone", 9).unwrap();
    cluster.move_broker(2, &host, port).unwrap();
    cluster.cut_connections(2).unwrap();
    for partition in 0..3 {
        let begun = Instant::now();
        acked(&producer, pinned(partition)).await;
        assert!(begun.elapsed() < secs(6), "{partition}: {:?}", begun.elapsed());
    }
    let known = client.cluster().brokers;
    assert_eq!(known.keys().collect::<Vec<_>>(), [&2, &3]);
    assert_eq!(known[&2].address, format!("{host}:{port}"));
}

#[tokio::test(start_paused = true)]
async fn s31_a_broker_vanishes_and_returns() {
    let cluster = cluster(3, 6);
    let network = Network::new(&cluster);
    let client = connect(network.client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..6 {
        acked(&producer, pinned(partition)).await;
    }
    for _ in 0..3 {
        cluster.stop_broker(2, Leaders::Move).unwrap();
        for partition in 0..6 {
            acked(&producer, pinned(partition)).await;
        }
        assert!(!client.cluster().brokers.contains_key(&2), "metadata does not name it");
        let dials = network.dials("broker-2").len();
        tokio::time::sleep(secs(600)).await;
        acked(&producer, free()).await;
        assert_eq!(network.dials("broker-2").len(), dials, "it is not part of the cluster");
        cluster.start_broker(2).unwrap();
        cluster.elect_preferred_leaders();
        let begun = Instant::now();
        for partition in 0..6 {
            acked(&producer, pinned(partition)).await;
        }
        assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
        assert_eq!(broker(&client, 2).connections_open, 1);
    }
}
