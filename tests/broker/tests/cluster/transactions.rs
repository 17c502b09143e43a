//! Transactions in the log (KIP-98): markers, the last stable offset, and who sees what.

use std::time::Duration;

use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    BrokerId, DescribeProducersRequest, FetchRequest, ListOffsetsRequest,
};
use ottla_test_broker::TransactionEnd::{Abort, Commit};
use ottla_test_broker::{Cluster, SourceBatch, error_code as code};
use tokio::time::Instant;

use crate::client::{Client, FETCH_VERSION, TOPIC, base_offsets, batch, fetch, start, topic};

fn cluster() -> Cluster {
    start(|builder| builder.topic(TOPIC, 1, 1))
}

/// A batch of so many records in a transaction.
fn part(producer: i64, sequence: i32, records: usize) -> SourceBatch {
    batch(records).with_producer(producer, 0, sequence).transactional()
}

fn append(cluster: &Cluster, batch: &SourceBatch) -> i64 {
    cluster.append(TOPIC, 0, batch).expect("it fits")
}

fn request(isolation: i8, offset: i64) -> FetchRequest {
    fetch(0, offset).with_isolation_level(isolation)
}

async fn read(client: &mut Client, isolation: i8, offset: i64) -> PartitionData {
    let request = request(isolation, offset);
    let response = client.ask(FETCH_VERSION, &request).await.expect("an answer");
    response.responses[0].partitions[0].clone()
}

/// Base offsets, the list of aborted transactions, and the last stable offset.
type Seen = (Vec<i64>, Option<Vec<(i64, i64)>>, i64);

fn seen(data: &PartitionData) -> Seen {
    let aborted = data.aborted_transactions.as_ref().map(|list| {
        list.iter().map(|one| (one.producer_id.0, one.first_offset)).collect::<Vec<_>>()
    });
    (base_offsets(data), aborted, data.last_stable_offset)
}

/// Producer 1 commits, producer 2 aborts, producer 3 stays open; a fourth has no transaction.
fn interleaved(cluster: &Cluster) {
    assert_eq!(append(cluster, &part(1, 0, 2)), 0);
    assert_eq!(append(cluster, &part(2, 0, 2)), 2);
    assert_eq!(append(cluster, &batch(1)), 4);
    assert_eq!(append(cluster, &part(1, 2, 1)), 5);
    assert_eq!(cluster.end_transaction(TOPIC, 0, 1, 0, Commit).expect("a marker"), 6);
    assert_eq!(append(cluster, &part(3, 0, 1)), 7);
    assert_eq!(cluster.end_transaction(TOPIC, 0, 2, 0, Abort).expect("a marker"), 8);
    assert_eq!(append(cluster, &batch(1)), 9);
}

#[tokio::test(start_paused = true)]
async fn who_reads_everything_reads_everything() {
    let cluster = cluster();
    interleaved(&cluster);
    let data = read(&mut Client::new(&cluster, 1), 0, 0).await;
    assert_eq!(seen(&data), (vec![0, 2, 4, 5, 6, 7, 8, 9], None, 7));
    assert_eq!(data.high_watermark, 10);
}

#[tokio::test(start_paused = true)]
async fn who_reads_what_is_committed_reads_to_the_last_stable_offset() {
    let cluster = cluster();
    interleaved(&cluster);
    let mut client = Client::new(&cluster, 1);
    let data = read(&mut client, 1, 0).await;
    assert_eq!(seen(&data), (vec![0, 2, 4, 5, 6], Some(vec![(2, 2)]), 7));
    assert_eq!(data.high_watermark, 10);
    // At the end of what is stable there is nothing, which is no error, and no list.
    assert_eq!(seen(&read(&mut client, 1, 7).await), (vec![], Some(vec![]), 7));
    assert_eq!(seen(&read(&mut client, 1, 9).await), (vec![], Some(vec![]), 7));
    assert_eq!(read(&mut client, 1, 11).await.error_code, code::OFFSET_OUT_OF_RANGE);
    cluster.end_transaction(TOPIC, 0, 3, 0, Abort).expect("a marker");
    let data = read(&mut client, 1, 7).await;
    // Producer 2's marker lies at 8: its transaction overlaps what is read.
    assert_eq!(seen(&data), (vec![7, 8, 9, 10], Some(vec![(2, 2), (3, 7)]), 11));
    let data = read(&mut client, 1, 9).await;
    assert_eq!(seen(&data), (vec![9, 10], Some(vec![(3, 7)]), 11));
    let info = cluster.partition(TOPIC, 0).expect("a known partition");
    assert_eq!((info.last_stable_offset, info.high_watermark), (11, 11));
}

#[tokio::test(start_paused = true)]
async fn the_list_is_in_the_order_of_the_markers() {
    let cluster = cluster();
    append(&cluster, &part(1, 0, 1));
    append(&cluster, &part(2, 0, 1));
    cluster.end_transaction(TOPIC, 0, 2, 0, Abort).expect("a marker");
    append(&cluster, &part(2, 1, 1));
    cluster.end_transaction(TOPIC, 0, 1, 0, Abort).expect("a marker");
    cluster.end_transaction(TOPIC, 0, 2, 0, Commit).expect("a marker");
    append(&cluster, &part(2, 2, 1));
    cluster.end_transaction(TOPIC, 0, 2, 0, Abort).expect("a marker");
    let mut client = Client::new(&cluster, 1);
    let data = read(&mut client, 1, 0).await;
    assert_eq!(seen(&data).1, Some(vec![(2, 1), (1, 0), (2, 6)]));
    let data = read(&mut client, 1, 4).await;
    assert_eq!(seen(&data).1, Some(vec![(1, 0), (2, 6)]));
    // In every version that has the field.
    for version in 4..=FETCH_VERSION {
        let response = client.ask(version, &request(1, 0)).await.expect("an answer");
        assert_eq!(seen(&response.responses[0].partitions[0]).1.map(|list| list.len()), Some(3));
        let response = client.ask(version, &request(0, 0)).await.expect("an answer");
        assert_eq!(seen(&response.responses[0].partitions[0]).1, None, "version {version}");
    }
}

/// Kafka finds the end of what it read in an index that has gaps.
#[tokio::test(start_paused = true)]
async fn the_list_may_have_what_lies_behind_the_answer() {
    let cluster = cluster();
    let small = part(1, 0, 1);
    append(&cluster, &small);
    for producer in 2..=3 {
        append(&cluster, &part(producer, 0, 1));
        // Further away than the index has an entry.
        append(&cluster, &batch(60));
    }
    for producer in 1..=3 {
        cluster.end_transaction(TOPIC, 0, producer, 0, Abort).expect("a marker");
    }
    let mut one = request(1, 0);
    one.topics[0].partitions[0].partition_max_bytes = small.len() as i32;
    let response = Client::new(&cluster, 1).ask(FETCH_VERSION, &one).await.expect("an answer");
    let data = &response.responses[0].partitions[0];
    assert_eq!(seen(data), (vec![0], Some(vec![(1, 0), (2, 1)]), 126));
}

#[tokio::test(start_paused = true)]
async fn a_marker_is_a_control_batch_of_one_record() {
    let cluster = cluster();
    for (end, kind) in [(Abort, 0), (Commit, 1)] {
        let offset = cluster.end_transaction(TOPIC, 0, 77, 5, end).expect("a marker");
        let data = read(&mut Client::new(&cluster, 1), 0, offset).await;
        let marker = data.records.expect("a batch");
        assert_eq!(marker.len(), 61 + 17);
        let number = |at: usize| i16::from_be_bytes([marker[at], marker[at + 1]]);
        assert_eq!(number(21), 0x30, "transactional and control");
        assert_eq!((marker[43..51].to_vec(), number(51)), (77i64.to_be_bytes().to_vec(), 5));
        assert_eq!(marker[53..57], (-1i32).to_be_bytes(), "without a sequence");
        // Length, attributes, two deltas, a key of four bytes and a value of six, no headers.
        assert_eq!(marker[61..], [32, 0, 0, 0, 8, 0, 0, 0, kind, 12, 0, 0, 0, 0, 0, 0, 0]);
    }
    // They have offsets, and are no records.
    assert_eq!(cluster.partition(TOPIC, 0).expect("a known partition").log_end, 2);
    assert!(cluster.records(TOPIC, 0).expect("a known partition").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_ends_nothing_is_in_no_list() {
    let cluster = cluster();
    cluster.end_transaction(TOPIC, 0, 1, 0, Abort).expect("a marker");
    append(&cluster, &part(1, 0, 1));
    cluster.end_transaction(TOPIC, 0, 1, 0, Commit).expect("a marker");
    cluster.end_transaction(TOPIC, 0, 1, 0, Abort).expect("a marker");
    let data = read(&mut Client::new(&cluster, 1), 1, 0).await;
    assert_eq!(seen(&data), (vec![0, 1, 2, 3], Some(vec![]), 4));
}

/// Records of an open transaction end no long poll of those who want committed ones; its end does.
#[tokio::test(start_paused = true)]
async fn a_marker_ends_the_long_poll_that_its_transaction_held_up() {
    for end in [Commit, Abort] {
        let cluster = cluster();
        let mut client = Client::new(&cluster, 1);
        let poll = request(1, 0).with_max_wait_ms(30_000);
        let id = client.send(FETCH_VERSION, &poll).await.expect("sent");
        append(&cluster, &part(1, 0, 3));
        let begun = Instant::now();
        client.silent_for(Duration::from_secs(10)).await;
        cluster.end_transaction(TOPIC, 0, 1, 0, end).expect("a marker");
        let response = client.answer::<FetchRequest>(id, FETCH_VERSION).await.expect("an answer");
        assert_eq!(base_offsets(&response.responses[0].partitions[0]), [0, 3]);
        assert_eq!(begun.elapsed().as_secs(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_decided_when_its_marker_is_replicated() {
    let delay = Duration::from_millis(250);
    let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 1, 2).replica_delay(delay));
    append(&cluster, &part(1, 0, 1));
    tokio::time::advance(delay).await;
    cluster.end_transaction(TOPIC, 0, 1, 0, Abort).expect("a marker");
    let mut client = Client::new(&cluster, 1);
    let early = read(&mut client, 1, 0).await;
    assert_eq!((seen(&early), early.high_watermark), ((vec![], Some(vec![]), 0), 1));
    tokio::time::advance(delay).await;
    let late = read(&mut client, 1, 0).await;
    assert_eq!((seen(&late), late.high_watermark), ((vec![0, 1], Some(vec![(1, 0)]), 2), 2));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_what_is_committed_is_the_last_stable_offset() {
    let cluster = cluster();
    append(&cluster, &batch(2));
    append(&cluster, &part(1, 0, 2));
    let mut client = Client::new(&cluster, 1);
    let mut latest = async |version, isolation, timestamp| {
        let partition =
            ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(isolation)
            .with_topics(vec![
                ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]),
            ]);
        let response = client.ask(version, &request).await.expect("an answer");
        response.topics[0].partitions[0].offset
    };
    for version in 2..=10 {
        assert_eq!(latest(version, 0, -1).await, 4);
        assert_eq!(latest(version, 1, -1).await, 2);
        assert_eq!(latest(version, 1, -2).await, 0, "the earliest is the earliest");
        assert_eq!(latest(version, 1, 0).await, 0, "by time");
    }
    assert_eq!(latest(1, 0, -1).await, 4, "which knows no isolation");
    cluster.delete_records(TOPIC, 0, 2).expect("a known partition");
    assert_eq!((latest(5, 0, 0).await, latest(5, 1, 0).await), (2, -1));
    cluster.end_transaction(TOPIC, 0, 1, 0, Commit).expect("a marker");
    assert_eq!((latest(5, 1, 0).await, latest(5, 1, -1).await), (2, 5));
}

#[tokio::test(start_paused = true)]
async fn a_producer_in_a_transaction_writes_nothing_else() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    let first = client.produce(0, -1, &part(1, 0, 1)).await.expect("an answer");
    assert_eq!((first.error_code, first.base_offset), (0, 0));
    let plain = batch(1).with_producer(1, 0, 1);
    let refused = client.produce(0, -1, &plain).await.expect("an answer");
    assert_eq!((refused.error_code, refused.base_offset), (code::INVALID_TXN_STATE, -1));
    assert!(cluster.append(TOPIC, 0, &plain).is_err());
    // Others may, and so may it when the transaction is over.
    append(&cluster, &batch(1));
    cluster.end_transaction(TOPIC, 0, 1, 0, Commit).expect("a marker");
    assert_eq!(append(&cluster, &plain), 3);
}

#[tokio::test(start_paused = true)]
async fn markers_have_the_epochs_of_their_producers() {
    let cluster = cluster();
    append(&cluster, &batch(1).with_producer(1, 4, 0).transactional());
    assert!(cluster.end_transaction(TOPIC, 0, 1, 3, Commit).is_err(), "an older epoch");
    // The coordinator fences a producer by a marker with a newer one.
    cluster.end_transaction(TOPIC, 0, 1, 5, Abort).expect("a marker");
    let late = batch(1).with_producer(1, 4, 1).transactional();
    assert!(cluster.append(TOPIC, 0, &late).is_err());
    let gap = batch(1).with_producer(1, 5, 1).transactional();
    assert!(cluster.append(TOPIC, 0, &gap).is_err(), "a new epoch begins at sequence 0");
    append(&cluster, &batch(1).with_producer(1, 5, 0).transactional());
    // A marker in the same epoch changes no sequence.
    cluster.end_transaction(TOPIC, 0, 1, 5, Commit).expect("a marker");
    let next = batch(1).with_producer(1, 5, 1).transactional();
    assert_eq!(append(&cluster, &next), 4);
    assert_eq!(append(&cluster, &next), 4, "a duplicate");
    for result in [
        cluster.append("unknown", 0, &batch(1)),
        cluster.append(TOPIC, 7, &batch(1)),
        cluster.end_transaction("unknown", 0, 1, 0, Commit),
        cluster.end_transaction(TOPIC, -1, 1, 0, Commit),
    ] {
        assert!(result.is_err());
    }
}

/// The same batches, plain and compressed: what a transaction is part of does not change with it.
#[tokio::test(start_paused = true)]
async fn what_is_committed_is_told_apart_by_headers_alone() {
    for pack in [SourceBatch::clone as fn(&SourceBatch) -> SourceBatch, SourceBatch::lz4] {
        let cluster = cluster();
        let part = |producer, sequence, value: &'static str| {
            let batch = SourceBatch::new([value]).with_producer(producer, 0, sequence);
            append(&cluster, &pack(&batch.transactional()))
        };
        let committed = || -> Vec<(i64, String)> {
            let records = cluster.committed_records(TOPIC, 0).expect("a known partition");
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            let value = |value: &Option<bytes::Bytes>| value.as_deref().map(text);
            records.iter().map(|one| (one.offset, value(&one.value).unwrap_or_default())).collect()
        };
        part(1, 0, "a");
        part(2, 0, "b");
        part(1, 1, "c");
        assert_eq!(committed(), []);
        cluster.end_transaction(TOPIC, 0, 1, 0, Abort).expect("a marker");
        part(1, 2, "d");
        assert_eq!(committed(), []);
        cluster.end_transaction(TOPIC, 0, 2, 0, Commit).expect("a marker");
        assert_eq!(committed(), [(1, "b".to_owned())]);
        cluster.end_transaction(TOPIC, 0, 1, 0, Commit).expect("a marker");
        assert_eq!(committed(), [(1, "b".to_owned()), (4, "d".to_owned())]);
        let all = cluster.records(TOPIC, 0).expect("a known partition");
        assert_eq!(all.iter().map(|one| one.offset).collect::<Vec<_>>(), [0, 1, 2, 4]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unclean_election_opens_again_what_had_ended_behind_it() {
    let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 1, 2));
    append(&cluster, &part(1, 0, 2));
    append(&cluster, &batch(1));
    cluster.end_transaction(TOPIC, 0, 1, 0, Abort).expect("a marker");
    append(&cluster, &part(2, 0, 1));
    assert_eq!(cluster.elect_uncleanly(TOPIC, 0, 2, 3).expect("a known partition"), 3);
    let mut client = Client::new(&cluster, 2);
    assert_eq!(seen(&read(&mut client, 1, 0).await), (vec![], Some(vec![]), 0));
    assert_eq!(seen(&read(&mut client, 0, 0).await), (vec![0, 2], None, 0));
    // Producer 2's is gone altogether.
    cluster.end_transaction(TOPIC, 0, 1, 0, Commit).expect("a marker");
    let data = read(&mut client, 1, 0).await;
    assert_eq!(seen(&data), (vec![0, 2, 3], Some(vec![]), 4));
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_holds_nobody_back_but_an_open_transaction() {
    let cluster = cluster();
    append(&cluster, &part(1, 0, 2));
    append(&cluster, &part(2, 0, 2));
    cluster.end_transaction(TOPIC, 0, 2, 0, Abort).expect("a marker");
    let mut client = Client::new(&cluster, 1);
    cluster.delete_records(TOPIC, 0, 3).expect("a known partition");
    assert_eq!(seen(&read(&mut client, 1, 3).await), (vec![], Some(vec![]), 3));
    cluster.end_transaction(TOPIC, 0, 1, 0, Abort).expect("a marker");
    let data = read(&mut client, 1, 3).await;
    assert_eq!(seen(&data), (vec![2, 4, 5], Some(vec![(2, 2), (1, 0)]), 6));
    cluster.delete_records(TOPIC, 0, 5).expect("a known partition");
    append(&cluster, &batch(1));
    assert_eq!(seen(&read(&mut client, 1, 5).await).1, Some(vec![(1, 0)]));
}

#[tokio::test(start_paused = true)]
async fn batches_that_are_appended_count_as_kept_and_are_retained() {
    let one = part(1, 0, 10);
    let cluster = start(|builder| builder.topic(TOPIC, 1, 1).max_bytes_retained(2 * one.len()));
    append(&cluster, &one);
    let marker = cluster.end_transaction(TOPIC, 0, 1, 0, Commit).expect("a marker");
    assert_eq!((marker, cluster.retained_bytes()), (10, one.len() + 78));
    append(&cluster, &part(1, 10, 10));
    assert_eq!(cluster.partition(TOPIC, 0).expect("a known partition").log_start, 10);
    assert_eq!(cluster.stats().brokers[0].produce_batches, 0, "it was no request");
}

#[tokio::test(start_paused = true)]
async fn producers_are_described_with_the_beginning_of_their_transactions() {
    use kafka_protocol::messages::describe_producers_request::TopicRequest;
    let cluster = cluster();
    append(&cluster, &batch(3));
    append(&cluster, &part(1, 0, 1));
    append(&cluster, &part(1, 1, 1));
    let mut client = Client::new(&cluster, 1);
    let mut since = async || {
        let topics =
            vec![TopicRequest::default().with_name(topic()).with_partition_indexes(vec![0])];
        let request = DescribeProducersRequest::default().with_topics(topics);
        let response = client.ask(0, &request).await.expect("an answer");
        response.topics[0].partitions[0].active_producers[0].current_txn_start_offset
    };
    assert_eq!(since().await, 3);
    cluster.end_transaction(TOPIC, 0, 1, 0, Commit).expect("a marker");
    assert_eq!(since().await, -1);
}
