//! Lanes: nothing short waits behind Produce or Fetch, and connections are no more than that needs.
//! In virtual time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, NewTopic, OffsetSpec, Producer, Record, Start};
use ottla_scenarios::steps::{
    acked, cluster, connect, connected, free, ms, pinned, requests, secs, seen,
};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::{Duration, Instant};

/// Every short call there is, and how long each took.
async fn short_calls(client: &Client, partitions: i32, round: usize) -> Vec<(String, Duration)> {
    let admin = client.admin();
    let mut took = Vec::new();
    let mut note = |what: &str, begun: Instant| took.push((what.to_owned(), begun.elapsed()));

    let begun = Instant::now();
    let all = (0..partitions).map(|p| ("t", p, OffsetSpec::Latest));
    let offsets = within("offsets", admin.list_offsets(all)).await.unwrap();
    assert!(offsets.iter().all(|(_, result)| result.is_ok()), "{offsets:?}");
    note("offsets", begun);

    let begun = Instant::now();
    let name = format!("new-{round}");
    within("a topic", admin.create_topic(NewTopic::new(&name, 3, 1))).await.unwrap();
    note("CreateTopics", begun);

    let begun = Instant::now();
    assert_eq!(within("metadata", admin.partitions(&name)).await.unwrap(), 3);
    note("metadata", begun);
    took
}

fn assert_prompt(took: &[(String, Duration)]) {
    // A dial may be needed; waiting behind anything costs seconds.
    assert!(took.iter().all(|(_, took)| *took < ms(500)), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn short_calls_are_answered_while_replicas_never_do() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..3 {
        acked(&producer, pinned(partition)).await;
    }
    cluster.set_replica_delay(Duration::MAX);
    let before = client.stats().produce_requests;
    let mut hanging = Vec::new();
    for partition in 0..3 {
        hanging.push(producer.send(pinned(partition)).await.unwrap());
    }
    until("three requests", || client.stats().produce_requests == before + 3).await;
    for round in 0..5 {
        assert_prompt(&short_calls(&client, 3, round).await);
        tokio::time::sleep(secs(3)).await;
    }
    assert!(hanging.iter().all(|d| !d.is_done()), "there is nothing left to wait behind");
    cluster.set_replica_delay(Duration::ZERO);
    for delivery in hanging {
        within("an ack", delivery).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn short_calls_are_answered_while_a_fetch_waits_for_data() {
    let cluster = cluster(1, 2);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let consumer = client.consumer().topics(["t"]).start(Start::Latest).max_wait(secs(20));
    let mut consumer = consumer.build().unwrap();
    until("a fetch", || seen(&cluster, 1, ApiKey::FETCH) == 1).await;
    assert_prompt(&short_calls(&client, 2, 0).await);

    // The producer's id, and its first record, wait for nothing either.
    let begun = Instant::now();
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    assert!(begun.elapsed() < ms(500), "{:?}", begun.elapsed());
    assert_eq!(seen(&cluster, 1, ApiKey::INIT_PRODUCER_ID), 1);
    assert_eq!(within("the record", consumer.next()).await.unwrap().unwrap().len(), 1);
}

/// Produce hangs, one partition's Fetch waits, and there is no other connection: another partition's
/// start is looked up all the same.
#[tokio::test(start_paused = true)]
async fn a_lookup_of_offsets_does_not_wait_behind_its_own_consumers_fetch() {
    let cluster = cluster(1, 2);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    let nowhere = Start::Offset(1_000);
    let parts = [("t", 0, nowhere), ("t", 1, Start::Latest)];
    let mut consumer = client.consumer().assign(parts).max_wait(secs(20)).build().unwrap();
    within("the refusal", consumer.next()).await.unwrap().unwrap_err();
    cluster.faults().on(1, ApiKey::PRODUCE, Fault::DelayResponse(secs(20)), 1);
    let hanging = producer.send(pinned(0)).await.unwrap();
    let busy = |name: &str| requests(&client, 1, name).in_flight == 1;
    until("both at work", || busy("Produce") && busy("Fetch")).await;

    let asked = requests(&client, 1, "ListOffsets").answered;
    consumer.seek("t", 0, Start::Latest).unwrap();
    let begun = Instant::now();
    until("an answer", || requests(&client, 1, "ListOffsets").answered > asked).await;
    assert!(begun.elapsed() < ms(500), "{:?}", begun.elapsed());
    assert!(busy("Produce") && busy("Fetch") && !hanging.is_done());
}

/// (accepted, open) connections at all brokers.
fn connections(cluster: &Cluster) -> (u64, u64) {
    let stats = cluster.stats();
    (stats.connections_accepted(), stats.connections_open())
}

/// Records to every partition from each of the producers, together; how long the acks took.
async fn round(producers: &[Producer]) -> Vec<Duration> {
    let mut sent = Vec::new();
    for producer in producers {
        for partition in 0..6 {
            // Together: the engine is on this thread, and would have turns in between.
            sent.push((Instant::now(), producer.try_send(pinned(partition)).unwrap()));
            sent.push((Instant::now(), producer.try_send(free()).unwrap()));
        }
    }
    let mut took = Vec::new();
    for (begun, delivery) in sent {
        within("an ack", delivery).await.unwrap();
        took.push(begun.elapsed());
    }
    took
}

#[tokio::test(start_paused = true)]
async fn eight_producers_and_a_consumer_need_seven_connections() {
    let cluster = cluster(3, 6);
    let slow = FaultRule::new(Fault::DelayResponse(ms(50))).api(ApiKey::PRODUCE);
    cluster.faults().inject(slow.always());
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let one = [client.producer().build().unwrap()];
    let producers: Vec<_> = (0..8).map(|_| client.producer().build().unwrap()).collect();
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        alone.extend(round(&one).await);
        together.extend(round(&producers).await);
        while let Some(batch) = consumer.try_next() {
            batch.unwrap();
        }
        client.admin().partitions("t").await.unwrap();
        tokio::time::sleep(secs(20)).await;
    }
    let (accepted, open) = connections(&cluster);
    assert!(accepted <= 7, "{accepted} connections were opened; {open} are");
    let longest = |took: &[Duration]| *took.iter().max().unwrap();
    let (alone, together) = (longest(&alone), longest(&together));
    assert!(together <= alone, "{together:?} instead of {alone:?}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_only_produces_needs_its_brokers_and_one_more() {
    for seed in 0..5 {
        let cluster = cluster(3, 6);
        let slow = FaultRule::new(Fault::DelayResponse(ms(300))).api(ApiKey::PRODUCE);
        cluster.faults().inject(slow.always());
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        for n in 0..30 {
            let sent = round(std::slice::from_ref(&producer));
            let name = format!("topic-{n}");
            cluster.create_topic(&name, 3, 1).unwrap();
            let (_, ack) = tokio::join!(sent, acked(&producer, Record::to(&name).value("x")));
            assert_eq!(ack.offset, 0);
        }
        let (accepted, _) = connections(&cluster);
        assert!(accepted <= 4, "seed {seed}: {accepted} connections to three brokers");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_process_that_only_produces_needs_no_more_than_its_brokers() {
    for seed in 0..3 {
        let cluster = cluster(3, 6);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        // An hour: metadata is refreshed meanwhile.
        for n in 0..360 {
            acked(&producer, pinned(n % 3)).await;
            tokio::time::sleep(secs(10)).await;
        }
        let most: u64 = cluster.stats().brokers.iter().map(|b| b.most_connections_open).sum();
        assert!(most <= 3, "seed {seed}: {most} connections to three brokers");
        assert!(client.stats().metadata_reasons.periodic >= 3);
        assert!(client.stats().bad_stuff.is_zero(), "{}", client.stats().bad_stuff);
    }
}

/// Acks in the order of their length: so many producers, each with eight records a round on their way
/// at times that differ between them; brokers take 3 ms for a response.
async fn acks_of(producers: usize) -> Vec<Duration> {
    let cluster = cluster(3, 6);
    cluster
        .faults()
        .inject(FaultRule::new(Fault::DelayResponse(ms(3))).api(ApiKey::PRODUCE).always());
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let consumer = client.consumer().topics(["t"]).start(Start::Latest);
    let mut consumer = consumer.build().unwrap();
    let reader = tokio::spawn(async move { while consumer.next().await.is_some() {} });
    let producers: Vec<Producer> =
        (0..producers).map(|_| client.producer().build().unwrap()).collect();
    let mut tasks = Vec::new();
    for task in 0..8usize {
        let producer = producers[task % producers.len()].clone();
        tasks.push(tokio::spawn(async move {
            let mut took = Vec::new();
            for round in 0..100 {
                let begun = Instant::now();
                acked(&producer, pinned((task % 6) as i32)).await;
                took.push(begun.elapsed());
                tokio::time::sleep(ms(7 + (task as u64 * 5 + round) % 11)).await;
            }
            took
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    reader.abort();
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn an_ack_takes_no_longer_with_eight_producers_than_with_one() {
    let (one, eight) = (acks_of(1).await, acks_of(8).await);
    let p99 = |acks: &[Duration]| acks[acks.len() * 99 / 100];
    let sum = |acks: &[Duration]| acks.iter().sum::<Duration>();
    assert!(p99(&eight) <= p99(&one), "{:?}, {:?} with one", p99(&eight), p99(&one));
    assert!(
        sum(&eight) <= sum(&one) + sum(&one) / 50,
        "{:?}, {:?} with one",
        sum(&eight),
        sum(&one)
    );
}

/// Seconds until a client that sends a record each second has one connection more.
async fn until_one_more(client: &Client, producer: &Producer) -> u64 {
    acked(producer, free()).await;
    let before = connected(client).len();
    for second in 0.. {
        if connected(client).len() > before {
            return second;
        }
        tokio::time::sleep(secs(1)).await;
        acked(producer, free()).await;
    }
    unreachable!("it goes on for ever")
}

/// A client with one lane opens a second one within seconds, so that the loss of the first makes nobody
/// wait; after a loss within a minute, or a fleet would dial in step.
#[tokio::test(start_paused = true)]
async fn a_spare_lane_is_opened_soon_and_after_a_loss_in_a_minute() {
    let mut latest = 0;
    for seed in 0..8 {
        let cluster = cluster(3, 3);
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let producer = client.producer().build().unwrap();
        let took = within("a spare lane", until_one_more(&client, &producer)).await;
        assert!(took <= 11, "seed {seed}: {took} s");
        for id in cluster.broker_ids() {
            cluster.cut_connections(id).unwrap();
        }
        let took = until_one_more(&client, &producer).await;
        assert!(took <= 62, "seed {seed}: {took} s after a loss");
        latest = latest.max(took);
    }
    assert!(latest > 12, "{latest} s: as soon as at the start");
}
