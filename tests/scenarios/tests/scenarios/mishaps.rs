//! A fault of the engine itself, a panic: it ends what it happened in, and nothing else. Each place is
//! made to panic a few times; what waited has an end, what was held is given back, and work goes on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, error_code};
use ottla::{Client, ClientBuilder, Compression, ErrorKind, InDoubt, Record};
use ottla_scenarios::mishaps::{HARMLESS, Mishaps};
use ottla_scenarios::network::Network;
use ottla_scenarios::steps::{
    acked, cluster, connect, free, pinned, secs, seen, small_batches, stored,
};
use ottla_scenarios::wait::{until, within};
use tokio::time::Instant;

fn client(cluster: &Cluster, mishaps: &Mishaps) -> ClientBuilder {
    let environment = Network::new(cluster).environment(7);
    Client::builder().bootstrap(cluster.bootstrap()).environment(mishaps.at(environment))
}

/// Everything that a panic ends is done again, by whoever waits for it.
#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_a_task_that_failed() {
    for place in HARMLESS {
        let cluster = cluster(2, 4);
        let mishaps = Mishaps::default();
        let client = connect(client(&cluster, &mishaps)).await;
        mishaps.order(place, 3);
        let producer = client.producer().build().unwrap();
        let mut sent = Vec::new();
        for partition in 0..4 {
            sent.push(within("space", producer.send(pinned(partition))).await.unwrap());
        }
        for delivery in sent {
            let outcome = within(place, delivery).await;
            assert!(outcome.is_ok(), "{place}: {outcome:?}");
        }
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        let mut read = 0;
        while read < 4 {
            match within(place, consumer.next()).await.unwrap() {
                Ok(batch) => read += batch.len(),
                Err(e) => assert!(e.kind() == ErrorKind::Internal, "{place}: {e}"),
            }
        }
        within(place, producer.flush()).await.unwrap();
        assert_eq!(mishaps.left(place), 0, "{place} was never passed");
        // Nothing goes round and round for want of a pause.
        let dials = client.stats().brokers.values().map(|b| b.dials).sum::<u64>();
        assert!(dials < 30, "{place}: {dials} dials");
    }
}

/// A connection whose task is gone is gone: its place among those allowed is free, its lane open for
/// another one, and nothing is taken to be in flight on it.
#[tokio::test(start_paused = true)]
async fn connections_that_panic_give_their_places_back() {
    let cluster = cluster(1, 1);
    let mishaps = Mishaps::default();
    let environment = Network::new(&cluster).environment(7).max_connections(2);
    let client = Client::builder().bootstrap(cluster.bootstrap());
    let client = connect(client.environment(mishaps.at(environment))).await;
    let producer = client.producer().build().unwrap();
    for _ in 0..10 {
        mishaps.order("connection", 1);
        acked(&producer, free()).await;
        assert_eq!(mishaps.left("connection"), 0);
    }
    until("one connection", || cluster.stats().connections_open() <= 2).await;
    assert_eq!(client.cluster().brokers.values().map(|b| b.connections).sum::<usize>(), 1);
    let stored = cluster.records("t", 0).unwrap();
    assert_eq!(stored.len(), 10, "each once, though it was asked for again");
}

/// A leader was asked for one sender's batch, and responses the next one, which asks it too, under another
/// producer id: what it knew of the first says nothing.
#[tokio::test(start_paused = true)]
async fn what_a_leader_told_the_sender_before_is_not_the_next_ones() {
    let cluster = cluster(2, 1);
    let mishaps = Mishaps::default();
    let client = connect(client(&cluster, &mishaps)).await;
    let producer = small_batches(&client).linger(Duration::ZERO).build().unwrap();
    let _hears_of_leaders = client.consumer().topics(["t"]).build().unwrap();
    // A record that is written, with nobody told, whose next attempt is refused for its sequence.
    let doubtful = || {
        let lost = Fault::ErrorAfterAppend(error_code::REQUEST_TIMED_OUT);
        cluster.faults().on(None, ApiKey::PRODUCE, lost, 1);
        let refused = Fault::Error(error_code::OUT_OF_ORDER_SEQUENCE_NUMBER);
        cluster.faults().inject(FaultRule::new(refused).api(ApiKey::PRODUCE).after(1));
    };
    let looked_up = || cluster.stats().requests_of(ApiKey::DESCRIBE_PRODUCERS);
    for delay in [20, 25] {
        let slow = FaultRule::new(Fault::DelayResponse(secs(delay)));
        let slow = slow.api(ApiKey::DESCRIBE_PRODUCERS).after(usize::from(delay > 20));
        cluster.faults().inject(slow);
    }
    for _ in 0..6 {
        acked(&producer, pinned(0)).await;
    }
    doubtful();
    let first = producer.send(pinned(0)).await.unwrap();
    until("the leader is asked", || looked_up() == 1).await;
    // Nothing is to wait behind the response that is to come.
    cluster.move_leader("t", 0, 2).unwrap();
    until("the client knows the new leader", || seen(&cluster, 2, ApiKey::FETCH) > 0).await;
    mishaps.order("sender", 1);
    let next = producer.send(pinned(0)).await.unwrap();
    assert!(within("an end", first).await.unwrap_err().maybe_written());
    within("an ack", next).await.unwrap();

    for _ in 0..2 {
        acked(&producer, pinned(0)).await;
    }
    doubtful();
    let begun = Instant::now();
    let second = producer.send(pinned(0)).await.unwrap();
    until("the leader is asked again", || looked_up() == 2).await;
    within("an ack", second).await.unwrap();
    assert!(begun.elapsed() > secs(20), "it waits for its own answer: {:?}", begun.elapsed());
    assert_eq!(stored(&cluster, 0).len(), 6 + 1 + 3 + 1);
}

/// What the sender held ends, as what may be written; what it did not, and what comes later, is sent.
#[tokio::test(start_paused = true)]
async fn a_sender_that_panics_has_a_successor() {
    let cluster = cluster(2, 4);
    let mishaps = Mishaps::default();
    let client = connect(client(&cluster, &mishaps)).await;
    let producer = client.producer().linger(Duration::ZERO).build().unwrap();
    acked(&producer, free()).await;
    cluster.set_replica_delay(Duration::MAX);
    let held = within("space", producer.send(pinned(1))).await.unwrap();
    until("a request in flight", || !cluster.records("t", 1).unwrap().is_empty()).await;
    mishaps.order("sender", 1);
    let waiting = within("space", producer.send(pinned(2))).await.unwrap();
    let error = within("the end of what was in flight", held).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Internal && error.maybe_written(), "{error}");
    cluster.set_replica_delay(Duration::ZERO);
    within("what waited", waiting).await.unwrap();
    for partition in 0..4 {
        acked(&producer, pinned(partition)).await;
    }
    within("flush", producer.flush()).await.unwrap();
    // Again and again: nobody is stuck, and it is not tried without a pause.
    mishaps.order("sender", 20);
    let sent = within("space", producer.send(free())).await.unwrap();
    within("an ack", sent).await.unwrap();
    within("close", producer.close(Duration::from_secs(60))).await.unwrap();
}

/// However often it panics, records end when their time is up.
#[tokio::test(start_paused = true)]
async fn a_sender_that_panics_again_and_again_keeps_the_time() {
    let cluster = cluster(2, 4);
    let mishaps = Mishaps::default();
    let client = connect(client(&cluster, &mishaps)).await;
    let timeout = Duration::from_millis(300);
    let producer = client.producer().linger(Duration::ZERO).delivery_timeout(timeout);
    let producer = producer.build().unwrap();
    let mut failed = 0;
    for _ in 0..40 {
        mishaps.order("sender", 20);
        let begun = Instant::now();
        let sent = within("space", producer.send(free())).await.unwrap();
        let outcome = within("an end", sent).await;
        failed += usize::from(outcome.is_err());
        assert!(begun.elapsed() < timeout + Duration::from_millis(50), "{:?}", begun.elapsed());
        assert!(mishaps.left("sender") > 0, "without a pause");
    }
    assert!(failed > 30, "{failed}");
    mishaps.clear();
    // Longer than any pause.
    tokio::time::sleep(Duration::from_secs(20)).await;
    acked(&producer, free()).await;
}

/// Nor does what comes to its successor wait for longer, though nothing can be sent.
#[tokio::test(start_paused = true)]
async fn what_comes_after_a_panic_ends_when_its_time_is_up() {
    let cluster = cluster(2, 4);
    let mishaps = Mishaps::default();
    let client = connect(client(&cluster, &mishaps)).await;
    let timeout = Duration::from_secs(3);
    let producer = client.producer().linger(Duration::ZERO).delivery_timeout(timeout);
    let producer = producer.build().unwrap();
    cluster.create_topic("u", 1, 1).unwrap();
    acked(&producer, free()).await;
    // The successor gets no producer id.
    let silent = FaultRule::new(Fault::BlackHole).api(ApiKey::INIT_PRODUCER_ID);
    cluster.faults().inject(silent.always());
    // It panics right after the only record has ended.
    for partition in 0..4 {
        cluster.remove_leader("t", partition).unwrap();
    }
    acked(&producer, Record::to("u").value("x")).await;
    let first = within("space", producer.send(free())).await.unwrap();
    tokio::time::sleep(timeout - Duration::from_millis(1)).await;
    mishaps.order("sender", 1);
    within("an end", first).await.unwrap_err();
    until("the panic", || mishaps.left("sender") == 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let second = within("space", producer.send(free())).await.unwrap();
    within("an end", second).await.unwrap_err();
    assert!(begun.elapsed() < timeout + Duration::from_millis(50), "{:?}", begun.elapsed());
}

/// A consumer whose fetcher is gone says so, and ends; others read on.
#[tokio::test(start_paused = true)]
async fn a_fetcher_that_panics_is_told() {
    let cluster = cluster(2, 4);
    let mishaps = Mishaps::default();
    let client = connect(client(&cluster, &mishaps)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    let mut first = client.consumer().topics(["t"]).build().unwrap();
    within("records", first.next()).await.unwrap().unwrap();
    mishaps.order("fetcher", 1);
    acked(&producer, free()).await;
    let error = loop {
        match within("the news", first.next()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("an end that nobody told of"),
        }
    };
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(within("the end", first.next()).await.is_none());
    let mut second = client.consumer().topics(["t"]).build().unwrap();
    let mut read = 0;
    while read < 2 {
        read += within("records", second.next()).await.unwrap().unwrap().len();
    }
    drop((first, second));
    let fetch_lanes = || client.cluster().brokers.values().map(|b| b.connections).sum::<usize>();
    until("their lanes are closed", || fetch_lanes() <= 2).await;
}

/// Compression fails the batch that it was at, for certain; by whichever thread it is done.
#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_compressed_fails_alone() {
    for (compression, size) in
        [(Compression::None, 100), (Compression::Zstd { level: 19 }, 200_000)]
    {
        let cluster = cluster(1, 1);
        let mishaps = Mishaps::default();
        let client = connect(client(&cluster, &mishaps)).await;
        let producer = client.producer().compression(compression).build().unwrap();
        let value = vec![7; size];
        let record = || Record::to("t").value(&value);
        acked(&producer, record()).await;
        for _ in 0..5 {
            mishaps.order("compression", 1);
            let failed = within("space", producer.send(record())).await.unwrap();
            let error = within("its failure", failed).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Internal && !error.maybe_written(), "{error}");
            acked(&producer, record()).await;
        }
        within("flush", producer.flush()).await.unwrap();
        assert_eq!(cluster.records("t", 0).unwrap().len(), 6);
    }
}

/// What may be in another log stays so, also where a piece of it cannot be sealed again.
#[tokio::test(start_paused = true)]
async fn a_piece_that_cannot_be_compressed_is_as_doubtful_as_its_batch() {
    let cluster = cluster(2, 2);
    let sealed = AtomicUsize::new(0);
    let environment = Network::new(&cluster).environment(7);
    let environment = environment.mishaps(move |place| {
        place == "compression" && sealed.fetch_add(1, Ordering::Relaxed) == 1
    });
    let client = Client::builder().bootstrap(cluster.bootstrap()).environment(environment.build());
    let client = connect(client).await;
    let producer = client.producer().in_doubt(InDoubt::Reroute);
    let producer = producer.linger(Duration::from_millis(10)).build().unwrap();
    let lost = FaultRule::new(Fault::CutAfterAppend).api(ApiKey::PRODUCE);
    cluster.faults().inject(lost);
    // MESSAGE_TOO_LARGE.
    let refused = FaultRule::new(Fault::Error(10)).api(ApiKey::PRODUCE);
    cluster.faults().inject(refused.after(1));
    let mut sent = Vec::new();
    for _ in 0..2 {
        sent.push(within("space", producer.send(free())).await.unwrap());
    }
    let second = within("an ack", sent.pop().unwrap()).await;
    second.unwrap();
    let error = within("an end", sent.pop().unwrap()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Internal && error.maybe_written(), "{error}");
    let stored: usize = (0..2).map(|p| cluster.records("t", p).unwrap().len()).sum();
    assert_eq!(stored, 3, "both, and the second once more");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_opened_is_told_and_passed_over() {
    let cluster = cluster(1, 1);
    let mishaps = Mishaps::default();
    let client = connect(client(&cluster, &mishaps)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    acked(&producer, free()).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    mishaps.order("decompression", 1);
    let error = within("the news", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(within("records", consumer.next()).await.unwrap().unwrap().len(), 1);
}

/// Whoever waits for the response panics: the request may have been written all the same.
#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_at_a_panic_is_not_sent_elsewhere() {
    let cluster = cluster(2, 4);
    let mishaps = Mishaps::default();
    let client = connect(client(&cluster, &mishaps)).await;
    let producer = client.producer().build().unwrap();
    for _ in 0..20 {
        mishaps.order("produce", 1);
        acked(&producer, free()).await;
        assert_eq!(mishaps.left("produce"), 0);
    }
    let stored: usize = (0..4).map(|partition| stored(&cluster, partition).len()).sum();
    assert_eq!(stored, 20, "each once");
}
