//! The subset: a client with little to send uses few brokers, goes beyond them for as few topics as
//! needed, and uses all when it has much. In virtual time.

use std::collections::{BTreeMap, BTreeSet};

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders, Storage};
use ottla::{Client, Compression, Producer, Record};
use ottla_scenarios::steps::{acked, cluster, connect, connected, free, ms, secs, stored};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

async fn small(cluster: &Cluster, seed: u64) -> (Client, Producer) {
    let client = connect(virtual_cluster::client(cluster, seed)).await;
    let builder = client.producer().batch_size(1 << 10).compression(Compression::None);
    let producer = builder.build().unwrap();
    (client, producer)
}

/// Bursts of small batches for a while, more at once than one broker takes.
async fn bursts(producer: &Producer, topic: &str, rounds: usize) {
    let values = [[7; 900]; 40];
    for _ in 0..rounds {
        let sent = within("space", producer.send_batch(topic, &values)).await.unwrap();
        within("acks", sent).await.unwrap();
        tokio::time::sleep(secs(1)).await;
    }
}

fn used(client: &Client) -> BTreeSet<i32> {
    client.stats().acknowledged_by_broker.into_keys().collect()
}

#[tokio::test(start_paused = true)]
async fn a_client_with_little_to_send_uses_six_of_twenty_brokers() {
    let cluster = cluster(20, 60);
    let mut hits: BTreeMap<i32, usize> = BTreeMap::new();
    for seed in 0..20 {
        let (client, producer) = small(&cluster, seed).await;
        bursts(&producer, "t", 30).await;
        let used = used(&client);
        assert_eq!(used.len(), 6, "seed {seed}: {used:?}");
        let open = client.stats().connections_open;
        assert!(open <= 7, "seed {seed}: {open} connections");
        used.into_iter().for_each(|id| *hits.entry(id).or_default() += 1);
    }
    // 120 places on 20 brokers: nobody is everybody's choice.
    assert!(hits.len() >= 18 && hits.values().all(|n| *n <= 14), "{hits:?}");
}

/// One record now and then: not even six are needed.
#[tokio::test(start_paused = true)]
async fn a_client_with_hardly_anything_to_send_uses_fewer_still() {
    for seed in 0..5 {
        let cluster = cluster(20, 60);
        let (client, producer) = small(&cluster, seed).await;
        for _ in 0..300 {
            acked(&producer, free()).await;
            tokio::time::sleep(secs(1)).await;
        }
        // One, and one for when that is lost.
        let open = cluster.stats().connections_open();
        assert!(open <= 3, "seed {seed}: {open} connections");
        assert!(used(&client).len() <= 2);
    }
}

/// What much was sent for once asks for no more lanes when little is sent.
#[tokio::test(start_paused = true)]
async fn what_was_sent_before_the_last_lane_was_opened_asks_for_no_other() {
    let cluster = cluster(20, 60);
    let (client, producer) = small(&cluster, 1).await;
    let values = [[7; 900]; 300];
    let sent = within("space", producer.send_batch("t", &values)).await.unwrap();
    within("acks", sent).await.unwrap();
    let before = connected(&client).len();
    for _ in 0..60 {
        acked(&producer, free()).await;
        tokio::time::sleep(secs(1)).await;
    }
    let more = connected(&client).len() - before;
    assert!(more <= 2, "{more} more, {before} before");
}

/// Who lost all its connections at once finds back to those that it used, and to nobody else.
#[tokio::test(start_paused = true)]
async fn who_is_lost_with_all_others_is_dialled_before_those_that_were_not_used() {
    for seed in 0..3 {
        let cluster = cluster(20, 60);
        let (client, producer) = small(&cluster, seed).await;
        bursts(&producer, "t", 30).await;
        let inside = used(&client);
        assert_eq!(inside.len(), 6);
        for id in 1..=20 {
            cluster.cut_connections(id).unwrap();
        }
        // Until that is seen.
        tokio::time::sleep(ms(1)).await;
        acked(&producer, free()).await;
        bursts(&producer, "t", 3).await;
        assert_eq!(used(&client), inside, "seed {seed}");
    }
}

/// The choice that records stay with ends with its leader's place in the subset: another one is kept then, and
/// not drawn for each record.
#[tokio::test(start_paused = true)]
async fn a_choice_ends_with_the_turn_of_the_subset() {
    let cluster = cluster(20, 240);
    let (_client, producer) = small(&cluster, 1).await;
    let mut went = Vec::new();
    // A turn is in it, whenever that comes.
    for _ in 0..4 * 360 + 60 {
        went.push(acked(&producer, free()).await.partition);
        tokio::time::sleep(secs(10)).await;
    }
    for (at, some) in went.windows(25).enumerate() {
        let different: BTreeSet<i32> = some.iter().copied().collect();
        assert!(different.len() <= 4, "after {at}: {some:?}");
    }
}

/// Leaders of many topics on four brokers each, and how few brokers reach all of them from those
/// that are used anyway, taken greedily.
fn greedy(topics: &[BTreeSet<i32>], used: &BTreeSet<i32>) -> usize {
    let mut open: Vec<_> = topics.iter().filter(|leaders| leaders.is_disjoint(used)).collect();
    let mut count = used.len();
    while !open.is_empty() {
        let covers = |id: i32| open.iter().filter(|leaders| leaders.contains(&id)).count();
        let best = (1..=20).max_by_key(|id| covers(*id)).unwrap();
        open.retain(|leaders| !leaders.contains(&best));
        count += 1;
    }
    count
}

/// A hundred topics on four brokers each, drawn at random; and who leads them.
fn hundred_topics() -> (Cluster, Vec<BTreeSet<i32>>) {
    let mut builder = Cluster::builder().brokers(20).tcp(false).topic("t", 60, 1);
    for topic in 0..100 {
        builder = builder.topic(format!("t{topic}"), 4, 1);
    }
    let cluster = builder.start_on_current_runtime().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut topics = Vec::new();
    for topic in 0..100 {
        let mut all: Vec<i32> = (1..=20).collect();
        all.shuffle(&mut rng);
        for (partition, id) in all[..4].iter().enumerate() {
            cluster.move_leader(&format!("t{topic}"), partition as i32, *id).unwrap();
        }
        topics.push(all[..4].iter().copied().collect::<BTreeSet<i32>>());
    }
    (cluster, topics)
}

/// The best choice for each topic that comes is not the best for all: those chosen meanwhile are left.
#[tokio::test(start_paused = true)]
async fn topics_that_come_one_by_one_take_as_few_brokers_in_the_end() {
    let (cluster, topics) = hundred_topics();
    for seed in 0..3 {
        let (client, producer) = small(&cluster, seed).await;
        bursts(&producer, "t", 20).await;
        let inside = used(&client);
        for topic in 0..100 {
            acked(&producer, Record::to(&format!("t{topic}")).value("x")).await;
        }
        let best = greedy(&topics, &inside);
        // A seventh more are no reason to choose anew.
        let open = connected(&client).len();
        assert!(open <= best + (best - 6) * 3 / 20 + 2, "seed {seed}: {open}, greedy {best}");
    }
}

#[tokio::test(start_paused = true)]
async fn topics_without_a_partition_inside_take_as_few_brokers_more_as_needed() {
    let (cluster, topics) = hundred_topics();
    for seed in 0..3 {
        let (client, producer) = small(&cluster, seed).await;
        bursts(&producer, "t", 20).await;
        let inside = used(&client);
        assert_eq!(inside.len(), 6);
        for round in 0..5 {
            let begun = Instant::now();
            let mut deliveries = Vec::new();
            for topic in 0..100 {
                let name = format!("t{topic}");
                deliveries.push(producer.send(Record::to(&name).value("x")).await.unwrap());
            }
            for delivery in deliveries {
                within("an ack", delivery).await.unwrap();
            }
            assert!(begun.elapsed() < secs(2), "round {round}: {:?}", begun.elapsed());
            tokio::time::sleep(secs(1)).await;
        }
        let used = used(&client);
        assert!(topics.iter().all(|leaders| !leaders.is_disjoint(&used)));
        let best = greedy(&topics, &inside);
        assert!(used.len() <= best + 1, "seed {seed}: {} brokers, greedy {best}", used.len());
        let open = client.stats().connections_open;
        assert!(open <= used.len() as u64 + 1, "seed {seed}: {open} connections");
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_lives_outside_is_reached_there_and_nobody_else_is() {
    for seed in 0..5 {
        let cluster = cluster(20, 60);
        cluster.create_topic("far", 1, 1).unwrap();
        let (client, producer) = small(&cluster, seed).await;
        bursts(&producer, "t", 20).await;
        let inside = used(&client);
        let far = (1..=20).find(|id| !inside.contains(id)).unwrap();
        cluster.move_leader("far", 0, far).unwrap();
        for _ in 0..10 {
            acked(&producer, Record::to("far").value("x")).await;
            bursts(&producer, "t", 1).await;
        }
        let mut expected = inside.clone();
        expected.insert(far);
        assert_eq!(used(&client), expected, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subset_that_is_down_is_left_and_nothing_waits() {
    let cluster = cluster(20, 60);
    let (client, producer) = small(&cluster, 1).await;
    bursts(&producer, "t", 20).await;
    let inside = used(&client);
    for id in &inside {
        cluster.stop_broker(*id, Leaders::Keep).unwrap();
    }
    for _ in 0..20 {
        let begun = Instant::now();
        acked(&producer, free()).await;
        assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
        tokio::time::sleep(ms(500)).await;
    }
    let more: BTreeSet<i32> = used(&client).difference(&inside).copied().collect();
    assert!(!more.is_empty() && more.len() <= 3, "{more:?}: as few as needed");
}

#[tokio::test(start_paused = true)]
async fn a_client_with_much_to_send_uses_them_all_and_later_few_again() {
    let cluster = Cluster::builder()
        .brokers(20)
        .tcp(false)
        .topic("t", 60, 1)
        .storage(Storage::Sink)
        .check_records(false)
        .start_on_current_runtime()
        .unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().compression(Compression::None).build().unwrap();
    let value = vec![7; 100_000];
    // 24 MB each second, as forty records at a time.
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < secs(15) {
        let mut deliveries = Vec::new();
        for _ in 0..40 {
            let record = Record::to("t").value(&value);
            deliveries.push(within("space", producer.send(record)).await.unwrap());
            sent += value.len();
        }
        for delivery in deliveries {
            within("an ack", delivery).await.unwrap();
        }
        let due = secs(1).mul_f64(sent as f64 / 24e6);
        tokio::time::sleep_until(begun + due).await;
    }
    let all = used(&client).len();
    assert!(all >= 18, "{all} of 20 brokers at 24 MB/s");

    // Little again: after minutes, those that are not needed close.
    for _ in 0..180 {
        acked(&producer, Record::to("t").value("x")).await;
        tokio::time::sleep(secs(10)).await;
    }
    let open = connected(&client).len();
    assert!(open <= 7, "{open} connections are left");
}

#[tokio::test(start_paused = true)]
async fn ordinals_share_the_brokers_exactly() {
    let cluster = cluster(20, 60);
    let mut hits: BTreeMap<i32, usize> = BTreeMap::new();
    for index in 0..10 {
        let settings = virtual_cluster::client(&cluster, u64::from(index)).ordinal(index, 10);
        let client = connect(settings).await;
        let builder = client.producer().batch_size(1 << 10).compression(Compression::None);
        bursts(&builder.build().unwrap(), "t", 30).await;
        let used = used(&client);
        assert_eq!(used.len(), 6, "{index}: {used:?}");
        used.into_iter().for_each(|id| *hits.entry(id).or_default() += 1);
    }
    assert!(hits.len() == 20 && hits.values().all(|n| *n == 3), "{hits:?}");
}

#[tokio::test(start_paused = true)]
async fn brokers_of_the_own_rack_come_first() {
    let cluster = Cluster::builder()
        .brokers(21)
        .racks(["a", "b", "c"])
        .tcp(false)
        .topic("t", 63, 1)
        .start_on_current_runtime()
        .unwrap();
    for (number, rack) in ["a", "b", "c"].into_iter().enumerate() {
        let settings = virtual_cluster::client(&cluster, 1).rack(rack);
        let client = connect(settings).await;
        let builder = client.producer().batch_size(1 << 10).compression(Compression::None);
        bursts(&builder.build().unwrap(), "t", 20).await;
        let used = used(&client);
        assert!(used.iter().all(|id| (*id as usize - 1) % 3 == number), "{rack}: {used:?}");
    }
    assert!(cluster.stats().requests_of(ApiKey::PRODUCE) > 0);
}

/// What each broker has acknowledged since `before`.
fn used_since(client: &Client, before: &BTreeMap<i32, u64>) -> BTreeSet<i32> {
    let now = client.stats().acknowledged_by_broker;
    let more = |id: &i32, n: u64| n > before.get(id).copied().unwrap_or_default();
    now.into_iter().filter(|(id, n)| more(id, *n)).map(|(id, _)| id).collect()
}

/// Which brokers it uses changes with the hours, so that what a fleet's chance has put on one of them
/// does not stay there; each time it is as few.
#[tokio::test(start_paused = true)]
async fn the_subset_turns_every_four_hours() {
    let cluster = cluster(20, 60);
    let (client, producer) = small(&cluster, 1).await;
    let mut turns = BTreeSet::new();
    for _ in 0..4 {
        let before = client.stats().acknowledged_by_broker;
        bursts(&producer, "t", 30).await;
        let used = used_since(&client, &before);
        assert_eq!(used.len(), 6, "{used:?}");
        turns.insert(used);
        tokio::time::sleep(secs(4 * 3_600)).await;
    }
    assert_eq!(turns.len(), 4, "{turns:?}");
}

/// Who was used outside the subset, for a topic that needs it, is not used for others for ever.
#[tokio::test(start_paused = true)]
async fn who_was_needed_outside_is_left_after_five_minutes() {
    let cluster = cluster(20, 60);
    cluster.create_topic("far", 1, 1).unwrap();
    let (client, producer) = small(&cluster, 1).await;
    bursts(&producer, "t", 20).await;
    let inside = used(&client);
    let far = (1..=20).find(|id| !inside.contains(id)).unwrap();
    cluster.move_leader("far", 0, far).unwrap();
    acked(&producer, Record::to("far").value("x")).await;
    let before = client.stats().acknowledged_by_broker;
    bursts(&producer, "t", 30).await;
    assert!(used_since(&client, &before).contains(&far), "as long as it is used it takes all");
    tokio::time::sleep(secs(300)).await;
    let before = client.stats().acknowledged_by_broker;
    bursts(&producer, "t", 30).await;
    assert!(used_since(&client, &before).is_subset(&inside));
}

/// Of many partitions only a sample is looked at for each batch; all get their part.
#[tokio::test(start_paused = true)]
async fn a_thousand_partitions_are_all_used() {
    let cluster = cluster(3, 1_000);
    let (client, producer) = small(&cluster, 1).await;
    let values = vec![[7; 900]; 10_000];
    let sent = within("space", producer.send_batch("t", &values)).await.unwrap();
    within("acks", sent).await.unwrap();
    let counts: Vec<i64> = (0..1_000).map(|p| cluster.partition("t", p).unwrap().log_end).collect();
    assert_eq!(counts.iter().sum::<i64>(), 10_000);
    // Ten each: drawn at random, one in twenty thousand partitions would have none.
    let empty = counts.iter().filter(|n| **n == 0).count();
    assert!(empty <= 2 && counts.iter().all(|n| *n <= 30), "{empty} empty, {counts:?}");
    assert_eq!(used(&client).len(), 3);
}

/// The partitions' shares of so many batches of records of 2,500 bytes, `pause` between one batch and the
/// next: what the fullest and the emptiest have, the mean being 1.
async fn shares(
    (brokers, partitions): (i32, i32),
    batches: usize,
    pause: tokio::time::Duration,
    seed: u64,
) -> (f64, f64) {
    let cluster = cluster(brokers, partitions);
    let rule = FaultRule::new(Fault::Delay(ms(2))).api(ApiKey::PRODUCE);
    cluster.faults().inject(rule.always());
    let client = connect(virtual_cluster::client(&cluster, seed)).await;
    let producer = client.producer().compression(Compression::None).build().unwrap();
    for _ in 0..batches {
        // As many as fit the default size.
        for _ in 0..104 {
            let record = Record::to("t").value(&[7; 2_500]);
            drop(within("space", producer.send(record)).await.unwrap());
        }
        tokio::time::sleep(pause).await;
    }
    within("a flush", producer.flush()).await.unwrap();
    let held: Vec<usize> = (0..partitions).map(|p| stored(&cluster, p).len()).collect();
    let mean = (batches * 104) as f64 / f64::from(partitions);
    assert!((held.iter().sum::<usize>() as f64 / f64::from(partitions) - mean).abs() < 1e-6);
    (*held.iter().max().unwrap() as f64 / mean, *held.iter().min().unwrap() as f64 / mean)
}

/// Ten batches a partition: no consumer has more than a fifth more to do than the mean.
#[tokio::test(start_paused = true)]
async fn a_short_run_is_spread_evenly() {
    // At full speed, and at less than the brokers could take.
    for (size, pause) in [((3, 12), 0), ((1, 5), 0), ((3, 12), 1), ((6, 18), 1)] {
        for seed in 0..4 {
            let batches = 10 * size.1 as usize;
            let (most, _) = shares(size, batches, ms(pause), seed).await;
            assert!(most <= 1.2, "seed {seed}, {size:?}, pauses of {pause} ms: {most:.3}");
        }
    }
}

/// As many batches as a million records of 100 bytes are, over 12 partitions.
#[tokio::test(start_paused = true)]
async fn a_million_records_are_a_twelfth_for_each_of_twelve() {
    for seed in 0..2 {
        let (most, least) = shares((3, 12), 410, ms(0), seed).await;
        assert!(most <= 1.1 && least >= 0.9, "seed {seed}: {least:.3} to {most:.3}");
    }
}
