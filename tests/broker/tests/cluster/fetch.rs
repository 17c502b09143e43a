use std::time::Duration;

use bytes::Buf;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use ottla_test_broker::{Cluster, SourceBatch, Storage, error_code as code};
use tokio::time::Instant;

use crate::client::{Client, FETCH_VERSION, TOPIC, base_offsets, batch, fetch, start};

fn cluster() -> Cluster {
    start(|builder| builder.topic(TOPIC, 3, 1))
}

fn waiting(min_bytes: i32, max_wait: Duration) -> FetchRequest {
    let partitions = (0..3).map(|index| {
        FetchPartition::default().with_partition(index).with_partition_max_bytes(1 << 20)
    });
    let mut request =
        fetch(0, 0).with_min_bytes(min_bytes).with_max_wait_ms(max_wait.as_millis() as i32);
    request.topics[0].partitions = partitions.collect();
    request
}

fn offsets(response: &FetchResponse) -> Vec<Vec<i64>> {
    response.responses[0].partitions.iter().map(base_offsets).collect()
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_when_records_arrive() {
    let cluster = cluster();
    let mut consumer = Client::new(&cluster, 1);
    let started = Instant::now();
    let id =
        consumer.send(FETCH_VERSION, &waiting(1, Duration::from_secs(30))).await.expect("sent");
    consumer.silent_for(Duration::from_secs(10)).await;
    Client::new(&cluster, 1).produce(2, 1, &batch(1)).await.expect("an answer");
    let response = consumer.answer::<FetchRequest>(id, FETCH_VERSION).await.expect("an answer");
    assert_eq!(offsets(&response), [vec![], vec![], vec![0]]);
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_at_max_wait() {
    let cluster = cluster();
    let mut consumer = Client::new(&cluster, 1);
    let started = Instant::now();
    let wait = Duration::from_millis(500);
    let response = consumer.ask(FETCH_VERSION, &waiting(1, wait)).await.expect("an answer");
    assert_eq!(offsets(&response), [const { Vec::<i64>::new() }; 3]);
    assert!(started.elapsed() >= wait && started.elapsed() < wait * 2);
}

#[tokio::test(start_paused = true)]
async fn min_bytes_is_the_sum_over_partitions() {
    let cluster = cluster();
    let small = batch(1);
    let mut consumer = Client::new(&cluster, 1);
    let mut producer = Client::new(&cluster, 1);
    let request = waiting(small.len() as i32 * 2, Duration::from_secs(30));
    let id = consumer.send(FETCH_VERSION, &request).await.expect("sent");
    producer.produce(0, 1, &small).await.expect("an answer");
    consumer.silent_for(Duration::from_secs(5)).await;
    producer.produce(1, 1, &small).await.expect("an answer");
    let response = consumer.answer::<FetchRequest>(id, FETCH_VERSION).await.expect("an answer");
    assert_eq!(offsets(&response), [vec![0], vec![0], vec![]]);
    // Too few bytes when the time is up are answered all the same.
    let request = waiting(1 << 20, Duration::from_secs(2));
    let response = consumer.ask(FETCH_VERSION, &request).await.expect("an answer");
    assert_eq!(offsets(&response), [vec![0], vec![0], vec![]]);
}

#[tokio::test(start_paused = true)]
async fn an_error_ends_the_wait_at_once() {
    let cluster = cluster();
    let mut request = waiting(1, Duration::from_secs(30));
    request.topics[0].partitions[1].fetch_offset = 17;
    let started = Instant::now();
    let response = Client::new(&cluster, 1).ask(FETCH_VERSION, &request).await.expect("an answer");
    assert_eq!(response.responses[0].partitions[1].error_code, code::OFFSET_OUT_OF_RANGE);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_offset_outside_the_log_is_an_error_without_its_bounds() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    client.produce(0, 1, &batch(5)).await.expect("an answer");
    client.produce(0, 1, &batch(5)).await.expect("an answer");
    assert_eq!(cluster.delete_records(TOPIC, 0, 7).expect("a known partition"), 7);
    for offset in [-1, 6, 11] {
        let data = client.fetch(0, offset).await.expect("an answer");
        assert_eq!(data.error_code, code::OFFSET_OUT_OF_RANGE, "offset {offset}");
        assert_eq!((data.log_start_offset, data.high_watermark), (-1, -1), "offset {offset}");
    }
    let data = client.fetch(0, 10).await.expect("an answer");
    assert_eq!((data.error_code, base_offsets(&data)), (0, vec![]));
    let data = client.fetch(0, 8).await.expect("an answer");
    assert_eq!(base_offsets(&data), [5], "the whole batch that holds the offset");
}

#[tokio::test(start_paused = true)]
async fn limits_hold_but_the_first_batch_always_comes() {
    for partial in [false, true] {
        let cluster = start(|builder| builder.topic(TOPIC, 2, 1).partial_batches(partial));
        let mut client = Client::new(&cluster, 1);
        let one = batch(10);
        for partition in [0, 0, 0, 1] {
            client.produce(partition, 1, &one).await.expect("an answer");
        }
        let mut request = fetch(0, 0);
        let mut second = request.topics[0].partitions[0].clone();
        second.partition = 1;
        request.topics[0].partitions.push(second);
        let sizes = |response: &FetchResponse| -> Vec<usize> {
            let partitions = &response.responses[0].partitions;
            partitions.iter().map(|one| one.records.as_ref().map_or(0, |r| r.len())).collect()
        };

        // Room for one and a half batches in the partition.
        request.topics[0].partitions[0].partition_max_bytes = (one.len() * 3 / 2) as i32;
        let response = client.ask(FETCH_VERSION, &request).await.expect("an answer");
        let first = if partial { one.len() * 3 / 2 } else { one.len() };
        assert_eq!(sizes(&response), [first, one.len()]);
        assert_eq!(offsets(&response), [vec![0], vec![0]]);

        // Room for less than one in the whole response: one comes, of one partition.
        let response =
            client.ask(FETCH_VERSION, &request.clone().with_max_bytes(1)).await.expect("an answer");
        assert_eq!(sizes(&response), [one.len(), 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_puts_its_offsets_and_epochs_into_batches() {
    let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 1, 2));
    Client::new(&cluster, 1).produce(0, -1, &batch(3)).await.expect("an answer");
    cluster.move_leader(TOPIC, 0, 2).expect("a known partition");
    let mut client = Client::new(&cluster, 2);
    client.produce(0, -1, &batch(3)).await.expect("an answer");
    let data = client.fetch(0, 0).await.expect("an answer");
    let mut records = data.records.expect("records");
    let mut heads = Vec::new();
    while records.has_remaining() {
        let offset = records.get_i64();
        let len = records.get_i32() as usize;
        heads.push((offset, records.get_i32()));
        records.advance(len - 4);
    }
    assert_eq!(heads, [(0, 0), (3, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_source_answers_at_any_offset() {
    let one = SourceBatch::new([b"a", b"b", b"c"]);
    let cluster = start(|builder| builder.topic(TOPIC, 1, 1).storage(Storage::Source(one.clone())));
    let mut client = Client::new(&cluster, 1);
    let mut request = fetch(0, 3_000_001);
    request.topics[0].partitions[0].partition_max_bytes = one.len() as i32 * 3;
    let response = client.ask(FETCH_VERSION, &request).await.expect("an answer");
    assert_eq!(offsets(&response), [vec![3_000_000, 3_000_003, 3_000_006]]);
}

#[tokio::test(start_paused = true)]
async fn a_sink_counts_and_keeps_nothing() {
    let cluster = start(|builder| builder.topic(TOPIC, 1, 1).storage(Storage::Sink));
    let mut client = Client::new(&cluster, 1);
    for sequence in 0..3 {
        let one = batch(10).with_producer(1, 0, sequence * 10);
        let answer = client.produce(0, -1, &one).await.expect("an answer");
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(sequence) * 10));
    }
    assert_eq!(cluster.stats().brokers[0].produce_records, 30);
    assert_eq!(cluster.retained_bytes(), 0);
    assert!(cluster.records(TOPIC, 0).expect("a known partition").is_empty());
}

/// Epoch 0 wrote offsets 0 to 5, epoch 1 nothing, epoch 2 the rest.
#[tokio::test(start_paused = true)]
async fn a_client_that_tells_its_epoch_learns_where_the_log_parted() {
    let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 1, 2));
    Client::new(&cluster, 1).produce(0, -1, &batch(6)).await.expect("an answer");
    cluster.move_leader(TOPIC, 0, 2).expect("a known partition");
    cluster.move_leader(TOPIC, 0, 1).expect("a known partition");
    let mut client = Client::new(&cluster, 1);
    client.produce(0, -1, &batch(4)).await.expect("an answer");
    let mut ask = async |offset, epoch| {
        let mut request = fetch(0, offset);
        request.topics[0].partitions[0].last_fetched_epoch = epoch;
        let response = client.ask(FETCH_VERSION, &request).await.expect("an answer");
        let data = &response.responses[0].partitions[0];
        let at = &data.diverging_epoch;
        (data.error_code, at.epoch, at.end_offset, base_offsets(data))
    };
    let parted = |epoch, end| (0, epoch, end, vec![]);
    assert_eq!(ask(6, 0).await, (0, -1, -1, vec![6]));
    assert_eq!(ask(10, 2).await, (0, -1, -1, vec![]));
    assert_eq!(ask(8, 0).await, parted(0, 6), "epoch 0 never wrote 6 and 7");
    assert_eq!(ask(6, 1).await, parted(0, 6), "epoch 1 never wrote at all");
    assert_eq!(ask(99, 2).await, parted(2, 10));
    assert_eq!(ask(6, 3).await.0, code::OFFSET_OUT_OF_RANGE, "an epoch that nobody knows");

    // A replica that has only the first batch takes over.
    assert_eq!(cluster.elect_uncleanly(TOPIC, 0, 2, 9).expect("a known partition"), 6);
    let mut client = Client::new(&cluster, 2);
    client.produce(0, -1, &batch(2)).await.expect("an answer");
    let mut request = fetch(0, 10);
    request.topics[0].partitions[0].last_fetched_epoch = 2;
    let response = client.ask(FETCH_VERSION, &request).await.expect("an answer");
    let at = &response.responses[0].partitions[0].diverging_epoch;
    assert_eq!((at.epoch, at.end_offset), (0, 6));
    let info = cluster.partition(TOPIC, 0).expect("a known partition");
    assert_eq!((info.log_end, info.leader_epoch, info.isr), (8, 3, vec![2]));
}

#[tokio::test(start_paused = true)]
async fn what_was_moved_is_counted() {
    let cluster = cluster();
    let one = batch(7);
    let mut client = Client::new(&cluster, 1);
    for _ in 0..2 {
        client.produce(0, 1, &one).await.expect("an answer");
    }
    for offset in [0, 7, 14] {
        client.fetch(0, offset).await.expect("an answer");
    }
    let stats = &cluster.stats().brokers[0];
    assert_eq!((stats.produce_batches, stats.produce_records), (2, 14));
    let bytes = one.len() as u64;
    assert_eq!((stats.produce_bytes, stats.fetch_bytes), (2 * bytes, 3 * bytes));
}
