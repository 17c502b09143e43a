//! When brokers that cannot be reached are dialled: late where others can stand in, by the backoff's
//! formula where not, and never in step. In virtual time.

use std::collections::BTreeMap;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{BrokerHealth, Client, Compression, Producer, Record};
use ottla_scenarios::network::{Dial, Network};
use ottla_scenarios::steps::{acked, batch, broker, cluster, connect, free, ms, pinned, secs};
use ottla_scenarios::wait::{until, within};
use tokio::time::{Duration, Instant};

/// Clients in processes of their own that have written to every broker.
async fn fleet(network: &Network, cluster: &Cluster, count: u64) -> Vec<(Client, Producer)> {
    let mut fleet = Vec::new();
    for seed in 0..count {
        let client = connect(network.client(cluster, seed)).await;
        let builder = client.producer().batch_size(1 << 10).compression(Compression::None);
        let producer = builder.build().unwrap();
        for partition in 0..cluster.partitions("t").unwrap() {
            acked(&producer, pinned(partition)).await;
        }
        fleet.push((client, producer));
    }
    fleet
}

/// A few full batches each second, wherever they may go.
async fn load(fleet: &[(Client, Producer)], time: Duration) {
    let values = [[7; 900]; 6];
    let end = Instant::now() + time;
    while Instant::now() < end {
        let mut deliveries = Vec::new();
        for (_, producer) in fleet {
            deliveries.push(producer.send_batch("t", &values).await.unwrap());
        }
        for delivery in deliveries {
            within("acks", delivery).await.unwrap();
        }
        tokio::time::sleep(secs(1)).await;
    }
}

/// Those that began later than at this moment, in which much may have happened.
fn since(dials: Vec<Dial>, begun: Instant) -> Vec<Dial> {
    dials.into_iter().filter(|dial| dial.at > begun).collect()
}

#[tokio::test(start_paused = true)]
async fn an_optional_broker_is_dialled_twice_a_minute_at_most_and_found_again() {
    let cluster = cluster(3, 6);
    let network = Network::new(&cluster);
    let fleet = fleet(&network, &cluster, 10).await;
    // The cluster does not notice: nobody else leads what broker 1 leads.
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    let begun = Instant::now();
    load(&fleet, secs(60)).await;
    let dials = since(network.dials("broker-1"), begun);
    assert!(dials.len() <= 2 * fleet.len(), "{} dials by {} clients", dials.len(), fleet.len());
    assert!(dials.len() >= fleet.len() / 2, "the broker was never looked for: {}", dials.len());
    let begun = Instant::now();
    cluster.start_broker(1).unwrap();
    load(&fleet, secs(80)).await;
    for (n, (client, _)) in fleet.iter().enumerate() {
        // What may not be dialled yet is not tried.
        let (probes, dials) = (broker(client, 1).probes, broker(client, 1).dials);
        assert!((1..=dials).contains(&probes), "client {n}: {probes} probes, {dials} dials");
        let known = &client.cluster().brokers[&1];
        assert_eq!((known.health, known.connections), (BrokerHealth::Good, 1), "client {n}");
    }
    let dials = since(network.dials("broker-1"), begun);
    assert_eq!(dials.len(), fleet.len(), "one dial each brings it back");
    // Spread over a minute and more, not in a herd.
    let mut per_second: BTreeMap<u64, usize> = BTreeMap::new();
    for dial in &dials {
        *per_second.entry((dial.at - begun).as_secs()).or_default() += 1;
    }
    assert!(per_second.len() >= fleet.len() / 2, "{per_second:?}");
}

/// The least and the most dials that full jitter up to 5 s makes in a minute, with a margin of five
/// standard deviations: ceilings 0.1, 0.2, ... 5 s, about six dials in the first 6 s, and then one
/// each 2.5 s (a deviation of 0.58 x 2.5 s for each).
const IN_A_MINUTE: std::ops::RangeInclusive<usize> = 15..=45;

#[tokio::test(start_paused = true)]
async fn a_needed_broker_is_dialled_by_the_formula_of_the_backoff() {
    let cluster = cluster(3, 3);
    let network = Network::new(&cluster);
    let fleet = fleet(&network, &cluster, 10).await;
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    let begun = Instant::now();
    let mut stuck = Vec::new();
    for (_, producer) in &fleet {
        stuck.push(producer.send(pinned(0)).await.unwrap());
    }
    tokio::time::sleep(secs(60)).await;
    let dials = since(network.dials("broker-1"), begun);
    let each = dials.len() / fleet.len();
    assert!(IN_A_MINUTE.contains(&each), "{each} dials each");
    let others = since(network.all_dials(), begun).len() - dials.len();
    assert_eq!(others, 0, "the others are connected already");
    cluster.start_broker(1).unwrap();
    let begun = Instant::now();
    for delivery in stuck {
        within("an ack", delivery).await.unwrap();
    }
    assert!(begun.elapsed() <= ms(5_500), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_first_dial_after_a_loss_is_jittered_and_so_is_the_first_retry() {
    let cluster = cluster(2, 2);
    let network = Network::new(&cluster);
    let fleet = fleet(&network, &cluster, 60).await;
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    until("all have lost it", || fleet.iter().all(|(c, _)| broker(c, 1).losses == 1)).await;
    let before = network.dials("broker-1").len();
    let begun = Instant::now();
    let mut stuck = Vec::new();
    for (_, producer) in &fleet {
        stuck.push(producer.send(pinned(0)).await.unwrap());
    }
    tokio::time::sleep(ms(500)).await;
    cluster.start_broker(1).unwrap();
    for delivery in stuck {
        within("an ack", delivery).await.unwrap();
    }
    let after: Vec<Duration> =
        network.dials("broker-1")[before..].iter().map(|d| d.at - begun).collect();
    // All of them lost it at the same moment, and 6 of 60 are due in each hundredth of a second.
    for hundredth in 0..10 {
        let bin = ms(hundredth * 10)..ms(hundredth * 10 + 10);
        let together = after.iter().filter(|at| bin.contains(*at)).count();
        assert!(together <= 20, "{together} dials of 60 clients within {bin:?}");
    }
    let soon = after.iter().filter(|at| **at <= ms(101)).count();
    assert!(soon >= 60, "only {soon} dialled within 100 ms");
}

/// A dial that takes long is no reason to wait with the next, to somebody else.
#[tokio::test(start_paused = true)]
async fn a_dial_that_hangs_is_not_waited_for() {
    let mut hung = 0;
    for seed in 0..8 {
        let cluster = Cluster::builder()
            .brokers(4)
            .tcp(false)
            .topic("t", 2, 1)
            .start_on_current_runtime()
            .unwrap();
        let network = Network::new(&cluster);
        let client = connect(network.client(&cluster, seed)).await;
        // Two that nobody is connected to lead.
        let host = |id: i32| cluster.address(id).unwrap().0;
        let mut others = (1..=4).filter(|id| network.dials(&host(*id)).is_empty());
        let (one, other) = (others.next().unwrap(), others.next().unwrap());
        cluster.move_leader("t", 0, one).unwrap();
        cluster.move_leader("t", 1, other).unwrap();
        network.hang(&host(one));
        let producer = client.producer().build().unwrap();
        let begun = Instant::now();
        assert_eq!(acked(&producer, free()).await.partition, 1);
        assert!(begun.elapsed() < ms(400), "seed {seed}: {:?}", begun.elapsed());
        hung += network.dials(&host(one)).len();
    }
    assert!(hung > 0, "that would be chance");
}

/// Nor is a connection that has to give a sign of life and does not: somebody else is dialled meanwhile.
#[tokio::test(start_paused = true)]
async fn a_sign_of_life_that_does_not_come_is_not_waited_for() {
    for seed in 0..5 {
        let cluster = cluster(3, 3);
        let network = Network::new(&cluster);
        network.forget_quiet(secs(100));
        let client = connect(network.client(&cluster, seed)).await;
        let producer = client.producer().linger(secs(0)).build().unwrap();
        acked(&producer, free()).await;
        tokio::time::sleep(secs(300)).await;
        let begun = Instant::now();
        acked(&producer, free()).await;
        assert!(begun.elapsed() < ms(500), "seed {seed}: {:?}", begun.elapsed());
    }
}

/// While nobody is left who takes anything, one is dialled after the other, though the client is connected to
/// somebody and so not at the pace of who is lost.
#[tokio::test(start_paused = true)]
async fn who_is_needed_is_looked_for_one_by_one() {
    for seed in 0..5 {
        let cluster = Cluster::builder()
            .brokers(12)
            .tcp(false)
            .topic("t", 5, 1)
            .topic("other", 1, 1)
            .start_on_current_runtime()
            .unwrap();
        for partition in 0..5 {
            cluster.move_leader("t", partition, partition + 2).unwrap();
        }
        cluster.move_leader("other", 0, 1).unwrap();
        let network = Network::new(&cluster);
        let client = connect(network.client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        let other = Record::to("other").value("x");
        acked(&producer, other).await;
        for partition in 0..5 {
            acked(&producer, pinned(partition)).await;
        }
        let host = |id: i32| cluster.address(id).unwrap().0;
        for id in 2..=6 {
            network.refuse(&host(id));
            cluster.cut_connections(id).unwrap();
        }
        let stuck = producer.send(free()).await.unwrap();
        // Each has failed, and is to be tried again.
        tokio::time::sleep(secs(20)).await;
        (2..=6).for_each(|id| network.hang(&host(id)));
        let begun = Instant::now();
        // What else there is to do has it look again and again.
        for _ in 0..500 {
            acked(&producer, other).await;
            tokio::time::sleep(ms(10)).await;
        }
        let dials = since(network.all_dials(), begun);
        assert!(dials.len() >= 2, "seed {seed}: {} dials", dials.len());
        for pair in dials.windows(2) {
            let after = pair[1].at - pair[0].at;
            assert!(after >= ms(290), "seed {seed}: {after:?}");
        }
        (2..=6).for_each(|id| network.release(&host(id)));
        within("an ack", stuck).await.unwrap();
    }
}

/// Who was lost is dialled as soon as that may be, also while all others are only busy.
#[tokio::test(start_paused = true)]
async fn a_lost_one_is_dialled_while_the_others_are_busy() {
    for seed in 0..5 {
        let cluster = cluster(2, 2);
        let network = Network::new(&cluster);
        let client = connect(network.client(&cluster, seed)).await;
        let builder = client.producer().batch_size(1 << 10).compression(Compression::None);
        let producer = builder.build().unwrap();
        for partition in 0..2 {
            acked(&producer, pinned(partition)).await;
        }
        let busy = cluster.partition("t", 0).unwrap().leader.unwrap();
        let slow = FaultRule::new(Fault::DelayResponse(secs(5))).api(ApiKey::PRODUCE).broker(busy);
        cluster.faults().inject(slow.always());
        let value = [7; 900];
        let mut deliveries = Vec::new();
        for _ in 0..5 {
            deliveries.push(producer.send(pinned(0).value(&value)).await.unwrap());
        }
        tokio::time::sleep(ms(50)).await;
        cluster.cut_connections(3 - busy).unwrap();
        tokio::time::sleep(ms(1)).await;
        let begun = Instant::now();
        acked(&producer, free().value(&value)).await;
        assert!(begun.elapsed() < ms(300), "seed {seed}: {:?}", begun.elapsed());
        for delivery in deliveries {
            within("an ack", delivery).await.unwrap();
        }
    }
}

/// Stops all brokers for a minute; gives the dials meanwhile, and how long it takes to be back.
async fn outage(
    cluster: &Cluster,
    network: &Network,
    producer: &Producer,
    records: Vec<Record<'static>>,
) -> (Vec<Dial>, Duration) {
    for id in cluster.broker_ids() {
        cluster.stop_broker(id, Leaders::Keep).unwrap();
    }
    let begun = Instant::now();
    let mut stuck = Vec::new();
    for record in records {
        stuck.push(producer.send(record).await.unwrap());
    }
    tokio::time::sleep(secs(60)).await;
    let dials = since(network.all_dials(), begun);
    for id in cluster.broker_ids() {
        cluster.start_broker(id).unwrap();
    }
    let back = Instant::now();
    for delivery in stuck {
        within("an ack", delivery).await.unwrap();
    }
    (dials, back.elapsed())
}

#[tokio::test(start_paused = true)]
async fn s32_all_brokers_down_for_a_minute_records_that_may_go_anywhere() {
    for seed in 0..5 {
        let cluster = cluster(6, 12);
        let network = Network::new(&cluster);
        let client = connect(network.client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        for partition in 0..12 {
            acked(&producer, pinned(partition)).await;
        }
        let records = vec![free(); 20];
        let (dials, back) = outage(&cluster, &network, &producer, records).await;
        // One pace for all that look for somebody, however many brokers there are.
        assert!(IN_A_MINUTE.contains(&dials.len()), "seed {seed}: {} dials", dials.len());
        assert!(back <= ms(5_500), "seed {seed}: {back:?}");
        let begun = Instant::now();
        acked(&producer, pinned(3)).await;
        assert!(begun.elapsed() <= ms(5_500), "seed {seed}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn s32_all_brokers_down_for_a_minute_records_that_must_go_to_each() {
    for seed in 0..5 {
        let cluster = cluster(3, 3);
        let network = Network::new(&cluster);
        let client = connect(network.client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        for partition in 0..3 {
            acked(&producer, pinned(partition)).await;
        }
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        within("records", consumer.next()).await.unwrap().unwrap();
        let records = vec![pinned(0), pinned(1), pinned(2), free()];
        let (dials, back) = outage(&cluster, &network, &producer, records).await;
        // Each broker by its own formula, whoever needs it, and the search for anybody on top.
        assert!(dials.len() <= 4 * IN_A_MINUTE.end(), "seed {seed}: {} dials", dials.len());
        assert!(back <= ms(6_000), "seed {seed}: {back:?}");
        let mut read = 1;
        while read < 7 {
            read += within("records", consumer.next()).await.unwrap().unwrap().len();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn s32_an_idle_client_does_not_dial_at_all() {
    let cluster = cluster(3, 3);
    let network = Network::new(&cluster);
    let client = connect(network.client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    let (dials, _) = outage(&cluster, &network, &producer, Vec::new()).await;
    assert_eq!(dials.len(), 0, "nobody needs anything");
    acked(&producer, free()).await;
}

#[tokio::test(start_paused = true)]
async fn s29_all_brokers_down_and_back_on_new_addresses() {
    for seed in 0..5 {
        let cluster = cluster(3, 6);
        let network = Network::new(&cluster);
        // The bootstrap name is one that follows the cluster, as a DNS entry does.
        network.alias("kafka", cluster.address(1).unwrap());
        let client = network.client(&cluster, seed).bootstrap("kafka:9092");
        let client = connect(client).await;
        let producer = client.producer().build().unwrap();
        for partition in 0..6 {
            acked(&producer, pinned(partition)).await;
        }
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        within("records", consumer.next()).await.unwrap().unwrap();
        for id in cluster.broker_ids() {
            cluster.stop_broker(id, Leaders::Keep).unwrap();
        }
        let mut stuck = vec![producer.send(free()).await.unwrap()];
        for partition in 0..6 {
            stuck.push(producer.send(pinned(partition)).await.unwrap());
        }
        tokio::time::sleep(secs(20)).await;
        for id in cluster.broker_ids() {
            cluster.move_broker(id, &format!("new-{id}"), 9092).unwrap();
            cluster.start_broker(id).unwrap();
        }
        network.alias("kafka", cluster.address(2).unwrap());
        let asked = cluster.stats().requests_of(ApiKey::METADATA);
        let begun = Instant::now();
        for delivery in stuck {
            within("an ack", delivery).await.unwrap();
        }
        // Three known brokers and the list come before one another, up to 5 s apart; then the broker.
        assert!(begun.elapsed() <= secs(25), "seed {seed}: {:?}", begun.elapsed());
        let mut read = 1;
        while read < 13 {
            read += batch(&mut consumer).await.len();
        }
        let places: Vec<_> = client.cluster().brokers.into_values().map(|b| b.address).collect();
        assert_eq!(places, ["new-1:9092", "new-2:9092", "new-3:9092"]);

        // No loop: what was found is not looked for again, and nobody asks the old places.
        let bootstrap = since(network.dials("kafka"), begun).len();
        assert!(bootstrap <= 2, "seed {seed}: the bootstrap address was dialled {bootstrap} times");
        let settled = Instant::now();
        for _ in 0..60 {
            acked(&producer, free()).await;
            tokio::time::sleep(secs(1)).await;
        }
        let old = |dial: &&Dial| !dial.host.starts_with("new-");
        let late: Vec<_> = since(network.all_dials(), settled);
        assert_eq!(late.iter().filter(old).count(), 0, "seed {seed}: {late:?}");
        let asked = cluster.stats().requests_of(ApiKey::METADATA) - asked;
        assert!(asked <= 4, "seed {seed}: {asked} metadata requests");
    }
}

/// The more brokers there were, the longer it would take to find that none of them is there.
#[tokio::test(start_paused = true)]
async fn s29_of_many_brokers_not_all_are_tried_before_the_bootstrap_list() {
    for seed in 0..5 {
        let cluster = cluster(40, 40);
        let network = Network::new(&cluster);
        network.alias("kafka", cluster.address(1).unwrap());
        let client = connect(network.client(&cluster, seed).bootstrap("kafka:9092")).await;
        let producer = client.producer().build().unwrap();
        acked(&producer, free()).await;
        for id in cluster.broker_ids() {
            cluster.stop_broker(id, Leaders::Keep).unwrap();
        }
        let stuck = producer.send(free()).await.unwrap();
        tokio::time::sleep(secs(20)).await;
        for id in cluster.broker_ids() {
            cluster.move_broker(id, &format!("new-{id}"), 9092).unwrap();
            cluster.start_broker(id).unwrap();
        }
        network.alias("kafka", cluster.address(2).unwrap());
        let begun = Instant::now();
        within("an ack", stuck).await.unwrap();
        assert!(begun.elapsed() <= secs(35), "seed {seed}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn s29_before_the_first_contact_every_address_of_the_list_has_its_turn() {
    let cluster = cluster(1, 1);
    let network = Network::new(&cluster);
    network.hang("hole");
    let list = "nowhere:1,hole:1,broker-1:9092";
    let begun = Instant::now();
    for seed in 0..10 {
        let client = connect(network.client(&cluster, seed).bootstrap(list)).await;
        within("metadata", client.admin().partitions("t")).await.unwrap();
    }
    assert!(begun.elapsed() <= secs(30), "{:?}", begun.elapsed());
    let first: Vec<_> = network.all_dials().iter().map(|d| d.host.clone()).collect();
    assert!(first.iter().any(|h| h == "nowhere") && first.iter().any(|h| h == "hole"), "{first:?}");
}
