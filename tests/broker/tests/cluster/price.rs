use std::time::Duration;

use kafka_protocol::messages::ProduceRequest;
use ottla_test_broker::{ApiKey, Cluster, Fault, Price};
use tokio::time::Instant;

use crate::client::{Client, PRODUCE_VERSION, TOPIC, batch, produce, start};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A request costs 10 ms, a batch 1, a record 2, and bytes next to nothing.
const PRICE: Price = Price {
    threads: 1,
    request: ms(10),
    batch: ms(1),
    record: ms(2),
    kib: Duration::from_nanos(1),
};

fn cluster(price: Price) -> Cluster {
    start(|builder| builder.brokers(2).topic(TOPIC, 2, 2).price(price))
}

/// Sends a batch of so many records on a connection of its own; gives it back to wait on.
async fn asked(cluster: &Cluster, broker: i32, acks: i16, records: usize) -> (Client, i32) {
    let mut client = Client::new(cluster, broker);
    let request = produce(broker - 1, acks, &batch(records));
    let id = client.send(PRODUCE_VERSION, &request).await.expect("sent");
    (client, id)
}

/// How many milliseconds until the answer is there.
async fn answered((client, id): &mut (Client, i32), started: Instant) -> u128 {
    let answer = client.answer::<ProduceRequest>(*id, PRODUCE_VERSION).await.expect("an answer");
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    started.elapsed().as_millis()
}

#[tokio::test(start_paused = true)]
async fn answers_come_when_the_work_before_is_done() {
    let cluster = cluster(PRICE);
    let started = Instant::now();
    let mut first = asked(&cluster, 1, 1, 1).await;
    tokio::task::yield_now().await;
    let mut second = asked(&cluster, 1, 1, 5).await;
    tokio::task::yield_now().await;
    let mut elsewhere = asked(&cluster, 2, 1, 1).await;
    assert_eq!(answered(&mut first, started).await, 13, "request, batch and record");
    assert_eq!(answered(&mut elsewhere, started).await, 13, "another broker has nothing to do");
    assert_eq!(answered(&mut second, started).await, 13 + 21, "behind the first");
    let worked = |broker| cluster.stats().broker(broker).expect("a broker").worked.as_millis();
    assert_eq!((worked(1), worked(2)), (34, 13));
    let waited =
        |broker| cluster.stats().broker(broker).expect("a broker").longest_wait.as_millis();
    assert_eq!((waited(1), waited(2)), (13, 0));
}

#[tokio::test(start_paused = true)]
async fn a_second_thread_works_beside_the_first_and_acks_zero_pays_too() {
    let cluster = cluster(Price { threads: 2, ..PRICE });
    let started = Instant::now();
    let _unanswered = asked(&cluster, 1, 0, 1).await;
    tokio::task::yield_now().await;
    let mut second = asked(&cluster, 1, 1, 1).await;
    tokio::task::yield_now().await;
    let mut third = asked(&cluster, 1, 1, 1).await;
    assert_eq!(answered(&mut second, started).await, 13);
    assert_eq!(answered(&mut third, started).await, 26);
}

/// Kafka reads no more of a connection before its answer is out: a free thread is of no use to it, and
/// answers come in the order of what was asked.
#[tokio::test(start_paused = true)]
async fn of_one_connection_answers_come_in_order_however_many_threads_there_are() {
    let cluster = cluster(Price { threads: 4, ..PRICE });
    let started = Instant::now();
    let mut client = Client::new(&cluster, 1);
    let mut asked = Vec::new();
    for records in [20, 1, 1] {
        let request = produce(0, 1, &batch(records));
        asked.push(client.send(PRODUCE_VERSION, &request).await.expect("sent"));
    }
    let mut times = Vec::new();
    for id in asked {
        let answer = client.answer::<ProduceRequest>(id, PRODUCE_VERSION).await.expect("its own");
        let offset = answer.responses[0].partition_responses[0].base_offset;
        times.push((offset, started.elapsed().as_millis()));
    }
    assert_eq!(times, [(0, 51), (20, 64), (21, 77)]);
}

/// A broker's request is in its queue whether or not who sent it still waits.
#[tokio::test(start_paused = true)]
async fn who_hangs_up_has_asked_all_the_same() {
    let cluster = cluster(PRICE);
    let started = Instant::now();
    drop(asked(&cluster, 1, 1, 1).await);
    tokio::task::yield_now().await;
    let mut second = asked(&cluster, 1, 1, 1).await;
    assert_eq!(answered(&mut second, started).await, 26);
    assert_eq!(cluster.partition(TOPIC, 0).expect("a partition").log_end, 2);
}

/// Only a request that a thread has seen costs one: what is held up before it, or lost, does not.
#[tokio::test(start_paused = true)]
async fn waiting_takes_no_thread() {
    let cluster = cluster(PRICE);
    cluster.faults().on(1, ApiKey::PRODUCE, Fault::Delay(ms(500)), 1);
    let started = Instant::now();
    let mut late = asked(&cluster, 1, 1, 1).await;
    tokio::task::yield_now().await;
    let mut second = asked(&cluster, 1, 1, 1).await;
    assert_eq!(answered(&mut second, started).await, 13);
    assert_eq!(answered(&mut late, started).await, 513);
    cluster.set_replica_delay(ms(300));
    let started = Instant::now();
    let mut replicated = asked(&cluster, 1, -1, 1).await;
    tokio::task::yield_now().await;
    let mut second = asked(&cluster, 1, 1, 1).await;
    assert_eq!(answered(&mut second, started).await, 13);
    assert_eq!(answered(&mut replicated, started).await, 313);
}

#[tokio::test(start_paused = true)]
async fn less_than_half_a_millisecond_is_no_time_and_is_paid_all_the_same() {
    let request = Duration::from_micros(400);
    let cluster = cluster(Price { request, batch: ms(0), record: ms(0), ..PRICE });
    let started = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(asked(&cluster, 1, 1, 1).await);
        tokio::task::yield_now().await;
    }
    let mut times = Vec::new();
    for client in &mut clients {
        times.push(answered(client, started).await);
    }
    assert_eq!(times, [0, 1, 1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn without_a_price_answers_come_at_once() {
    let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 2, 1));
    let started = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(asked(&cluster, 1, 1, 10).await);
    }
    for client in &mut clients {
        assert_eq!(answered(client, started).await, 0);
    }
    assert_eq!(cluster.stats().broker(1).expect("a broker").worked, Duration::ZERO);
}
