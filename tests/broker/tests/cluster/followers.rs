//! Reading from followers (KIP-392), and where epochs end (KIP-320).

use std::time::Duration;

use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use ottla_test_broker::TransactionEnd::Abort;
use ottla_test_broker::{ApiKey, Cluster, Fault, Leaders, error_code as code};
use tokio::time::Instant;

use crate::client::{Client, FETCH_VERSION, TOPIC, base_offsets, batch, fetch, start, topic};

/// Four brokers in the racks a, b, c and b: 1 leads, 1 to 3 have a replica.
fn cluster() -> Cluster {
    start(|builder| builder.brokers(4).racks(["a", "b", "c", "b"]).topic(TOPIC, 1, 3))
}

fn append(cluster: &Cluster, records: usize) -> i64 {
    cluster.append(TOPIC, 0, &batch(records)).expect("it fits")
}

fn from(rack: &'static str, offset: i64) -> FetchRequest {
    fetch(0, offset).with_rack_id(StrBytes::from_static_str(rack))
}

async fn ask(
    cluster: &Cluster,
    broker: i32,
    version: i16,
    request: &FetchRequest,
) -> PartitionData {
    let response = Client::new(cluster, broker).ask(version, request).await.expect("an answer");
    response.responses[0].partitions[0].clone()
}

/// Whom the leader sends a client to.
async fn sent(cluster: &Cluster, rack: &'static str, offset: i64) -> i32 {
    let data = ask(cluster, 1, FETCH_VERSION, &from(rack, offset)).await;
    let sent = data.preferred_read_replica.0;
    if sent >= 0 {
        assert_eq!(
            (data.error_code, base_offsets(&data)),
            (0, vec![]),
            "whoever is sent has nothing"
        );
    }
    sent
}

/// Error, epoch and offset where logs part, batches, and the high watermark.
fn seen(data: &PartitionData) -> (i16, (i32, i64), Vec<i64>, i64) {
    let at = &data.diverging_epoch;
    (data.error_code, (at.epoch, at.end_offset), base_offsets(data), data.high_watermark)
}

const NOWHERE: (i32, i64) = (-1, -1);

#[tokio::test(start_paused = true)]
async fn the_leader_sends_a_client_to_its_rack() {
    let cluster = cluster();
    append(&cluster, 2);
    for (rack, broker) in [("a", -1), ("b", 2), ("c", 3), ("d", -1), ("", -1)] {
        assert_eq!(sent(&cluster, rack, 0).await, broker, "rack {rack}");
    }
    let data = ask(&cluster, 1, FETCH_VERSION, &from("b", 0)).await;
    assert_eq!((data.high_watermark, data.last_stable_offset, data.log_start_offset), (2, 2, 0));
    assert_eq!(data.aborted_transactions, None);
    // Before version 11 a client has no rack.
    let data = ask(&cluster, 1, 10, &fetch(0, 0)).await;
    assert_eq!(base_offsets(&data), [0]);
    // Of two in the rack the one that has more, then the one with the larger id.
    cluster.move_leader(TOPIC, 0, 4).expect("a known broker");
    cluster.move_leader(TOPIC, 0, 1).expect("a known broker");
    assert_eq!(sent(&cluster, "b", 0).await, 4);
    cluster.set_follower_end(TOPIC, 0, 4, Some(0)).expect("a follower");
    assert_eq!(sent(&cluster, "b", 0).await, 2);
    assert_eq!(sent(&cluster, "b", 2).await, 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_sent_to_who_has_not_what_is_asked_for_or_is_not_in_sync() {
    let cluster = cluster();
    append(&cluster, 5);
    append(&cluster, 5);
    assert_eq!(cluster.set_follower_end(TOPIC, 0, 2, Some(7)).expect("a follower"), 5);
    for (offset, broker) in [(0, 2), (5, 2), (6, -1), (10, -1)] {
        assert_eq!(sent(&cluster, "b", offset).await, broker, "offset {offset}");
    }
    cluster.set_follower_start(TOPIC, 0, 2, Some(3)).expect("a follower");
    for (offset, broker) in [(0, -1), (2, -1), (3, 2)] {
        assert_eq!(sent(&cluster, "b", offset).await, broker, "offset {offset}");
    }
    cluster.set_in_sync(TOPIC, 0, 2, false).expect("a follower");
    assert_eq!(sent(&cluster, "b", 4).await, -1);
    cluster.set_in_sync(TOPIC, 0, 2, true).expect("a follower");
    assert_eq!(sent(&cluster, "b", 4).await, 2);
    // A broker that is stopped is sent to until the cluster has noticed.
    cluster.stop_broker(2, Leaders::Keep).expect("a known broker");
    assert_eq!(sent(&cluster, "b", 4).await, 2);
    cluster.fence_broker(2).expect("a known broker");
    assert_eq!(sent(&cluster, "b", 4).await, -1);
    // An offset out of the log is nobody's, and the leader says so.
    let data = ask(&cluster, 1, FETCH_VERSION, &from("b", 11)).await;
    assert_eq!((data.error_code, data.preferred_read_replica.0), (code::OFFSET_OUT_OF_RANGE, -1));
}

/// Epochs are compared, and offsets are not: neither by the epoch of what was read last.
#[tokio::test(start_paused = true)]
async fn whoever_is_sent_elsewhere_is_told_of_a_wrong_leader_epoch_alone() {
    let cluster = cluster();
    append(&cluster, 2);
    cluster.move_leader(TOPIC, 0, 2).expect("a known broker");
    cluster.move_leader(TOPIC, 0, 1).expect("a known broker");
    let ask_with = async |leader_epoch, fetched_epoch| {
        let mut request = from("b", 1);
        request.topics[0].partitions[0].current_leader_epoch = leader_epoch;
        request.topics[0].partitions[0].last_fetched_epoch = fetched_epoch;
        let data = ask(&cluster, 1, FETCH_VERSION, &request).await;
        (data.error_code, data.preferred_read_replica.0, data.diverging_epoch.epoch)
    };
    assert_eq!(ask_with(2, 0).await, (0, 2, -1));
    assert_eq!(ask_with(1, 0).await, (code::FENCED_LEADER_EPOCH, -1, -1));
    assert_eq!(ask_with(3, 0).await, (code::UNKNOWN_LEADER_EPOCH, -1, -1));
    assert_eq!(ask_with(2, 1).await, (0, 2, -1), "epoch 1 wrote nothing");
}

#[tokio::test(start_paused = true)]
async fn being_sent_elsewhere_ends_a_long_poll_and_is_told_each_time() {
    let cluster = cluster();
    append(&cluster, 2);
    let mut client = Client::new(&cluster, 1);
    let started = Instant::now();
    let poll = |session: (i32, i32)| {
        from("b", 2)
            .with_max_wait_ms(30_000)
            .with_session_id(session.0)
            .with_session_epoch(session.1)
    };
    let response = client.ask(FETCH_VERSION, &poll((0, 0))).await.expect("an answer");
    let id = response.session_id;
    for epoch in 1..3 {
        let again = poll((id, epoch)).with_topics(vec![]);
        let response = client.ask(FETCH_VERSION, &again).await.expect("an answer");
        assert_eq!(response.responses[0].partitions[0].preferred_read_replica.0, 2);
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_follower_is_read_from_version_11_on() {
    let cluster = cluster();
    append(&cluster, 2);
    for (broker, version, error) in [
        (2, 10, code::NOT_LEADER_OR_FOLLOWER),
        (2, 11, 0),
        (3, 12, 0),
        (4, 12, code::NOT_LEADER_OR_FOLLOWER),
    ] {
        let data = ask(&cluster, broker, version, &fetch(0, 0)).await;
        let batches = if error == 0 { vec![0] } else { vec![] };
        assert_eq!((data.error_code, base_offsets(&data)), (error, batches), "{broker} v{version}");
        assert_eq!(data.preferred_read_replica.0, -1);
    }
    // Whoever has no replica does not look at epochs.
    for (broker, epoch, error) in [
        (2, 0, 0),
        (2, 1, code::UNKNOWN_LEADER_EPOCH),
        (4, 1, code::NOT_LEADER_OR_FOLLOWER),
        (2, -2, code::FENCED_LEADER_EPOCH),
    ] {
        let mut request = from("b", 0);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let data = ask(&cluster, broker, FETCH_VERSION, &request).await;
        assert_eq!(data.error_code, error, "broker {broker}, epoch {epoch}");
        // A follower sends nobody to itself.
        assert_eq!(data.preferred_read_replica.0, -1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_is_behind_says_that_what_it_has_not_is_out_of_range() {
    let cluster = cluster();
    append(&cluster, 5);
    append(&cluster, 5);
    cluster.set_follower_end(TOPIC, 0, 2, Some(5)).expect("a follower");
    let read = async |offset| seen(&ask(&cluster, 2, FETCH_VERSION, &fetch(0, offset)).await);
    assert_eq!(read(0).await, (0, NOWHERE, vec![0], 5));
    assert_eq!(read(5).await, (0, NOWHERE, vec![], 5));
    assert_eq!(read(6).await, (code::OFFSET_OUT_OF_RANGE, NOWHERE, vec![], -1));
    // The leader has it.
    let data = ask(&cluster, 1, FETCH_VERSION, &fetch(0, 6)).await;
    assert_eq!(seen(&data), (0, NOWHERE, vec![5], 10));
    cluster.set_follower_start(TOPIC, 0, 2, Some(3)).expect("a follower");
    assert_eq!(read(2).await.0, code::OFFSET_OUT_OF_RANGE);
    let data = ask(&cluster, 2, FETCH_VERSION, &fetch(0, 3)).await;
    assert_eq!((data.log_start_offset, base_offsets(&data)), (3, vec![0]));
    cluster.set_follower_end(TOPIC, 0, 2, None).expect("a follower");
    cluster.set_follower_start(TOPIC, 0, 2, None).expect("a follower");
    assert_eq!(read(0).await, (0, NOWHERE, vec![0, 5], 10));
}

/// As Kafka, a follower compares with its own log: it does not know that it is behind.
#[tokio::test(start_paused = true)]
async fn a_follower_that_is_behind_says_that_logs_part_at_its_own_end() {
    let cluster = cluster();
    append(&cluster, 5);
    cluster.move_leader(TOPIC, 0, 3).expect("a known broker");
    cluster.move_leader(TOPIC, 0, 1).expect("a known broker");
    append(&cluster, 5);
    let read = async |broker, offset, epoch| {
        let mut request = fetch(0, offset);
        request.topics[0].partitions[0].last_fetched_epoch = epoch;
        seen(&ask(&cluster, broker, FETCH_VERSION, &request).await)
    };
    for broker in [1, 2] {
        assert_eq!(read(broker, 10, 2).await, (0, NOWHERE, vec![], 10));
        assert_eq!(read(broker, 8, 0).await, (0, (0, 5), vec![], 10));
    }
    cluster.set_follower_end(TOPIC, 0, 2, Some(5)).expect("a follower");
    assert_eq!(read(2, 8, 0).await, (0, (0, 5), vec![], 5));
    assert_eq!(read(2, 5, 0).await, (0, NOWHERE, vec![], 5));
    let unknown = (code::OFFSET_OUT_OF_RANGE, NOWHERE, vec![], -1);
    assert_eq!(read(2, 10, 2).await, unknown, "it has not heard of epoch 2");
    append(&cluster, 5);
    assert_eq!(cluster.set_follower_end(TOPIC, 0, 2, Some(10)).expect("a follower"), 10);
    assert_eq!(read(2, 15, 2).await, (0, (2, 10), vec![], 10));
    assert_eq!(read(1, 15, 2).await, (0, NOWHERE, vec![], 15));
    // One that has nothing knows no epoch.
    cluster.set_follower_end(TOPIC, 0, 2, Some(0)).expect("a follower");
    assert_eq!(read(2, 0, 0).await, unknown);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_follower_lets_nobody_read_on() {
    let cluster = cluster();
    append(&cluster, 2);
    assert_eq!(cluster.freeze_follower(TOPIC, 0, 2).expect("a follower"), 2);
    append(&cluster, 2);
    assert_eq!(cluster.partition(TOPIC, 0).expect("a known partition").high_watermark, 4);
    let mut client = Client::new(&cluster, 2);
    let started = Instant::now();
    let poll = fetch(0, 2).with_max_wait_ms(30_000);
    let id = client.send(FETCH_VERSION, &poll).await.expect("sent");
    append(&cluster, 2);
    client.silent_for(Duration::from_secs(10)).await;
    cluster.set_follower_end(TOPIC, 0, 2, None).expect("a follower");
    let response = client.answer::<FetchRequest>(id, FETCH_VERSION).await.expect("an answer");
    assert_eq!(base_offsets(&response.responses[0].partitions[0]), [2, 4]);
    assert_eq!(started.elapsed().as_secs(), 10);
    // Whoever leads is no follower; and a former follower that leads has everything.
    cluster.freeze_follower(TOPIC, 0, 2).expect("a follower");
    append(&cluster, 2);
    cluster.move_leader(TOPIC, 0, 2).expect("a known broker");
    let data = ask(&cluster, 2, FETCH_VERSION, &fetch(0, 6)).await;
    assert_eq!(base_offsets(&data), [6]);
    for result in [
        cluster.freeze_follower(TOPIC, 0, 2),
        cluster.freeze_follower(TOPIC, 0, 4),
        cluster.freeze_follower(TOPIC, 0, 9),
        cluster.set_follower_end(TOPIC, 5, 1, None),
        cluster.set_follower_start("unknown", 0, 1, None),
    ] {
        assert!(result.is_err());
    }
    assert!(cluster.set_in_sync(TOPIC, 0, 2, false).is_err());
}

/// What a follower has of a transaction decides what it lets be read.
#[tokio::test(start_paused = true)]
async fn a_follower_without_a_marker_has_an_open_transaction() {
    let cluster = cluster();
    append(&cluster, 1);
    cluster.append(TOPIC, 0, &batch(2).with_producer(7, 0, 0).transactional()).expect("it fits");
    cluster.end_transaction(TOPIC, 0, 7, 0, Abort).expect("a marker");
    let read = async |broker| {
        let request = fetch(0, 0).with_isolation_level(1);
        let data = ask(&cluster, broker, FETCH_VERSION, &request).await;
        let aborted = data.aborted_transactions.as_ref().map_or(0, Vec::len);
        (base_offsets(&data), aborted, data.last_stable_offset)
    };
    assert_eq!(read(2).await, (vec![0, 1, 3], 1, 4));
    cluster.set_follower_end(TOPIC, 0, 2, Some(3)).expect("a follower");
    assert_eq!(read(2).await, (vec![0], 0, 1));
    assert_eq!(read(1).await, (vec![0, 1, 3], 1, 4));
}

#[tokio::test(start_paused = true)]
async fn an_unclean_election_cuts_back_followers_too() {
    let cluster = cluster();
    for _ in 0..3 {
        append(&cluster, 5);
    }
    cluster.set_follower_end(TOPIC, 0, 2, Some(10)).expect("a follower");
    assert_eq!(cluster.elect_uncleanly(TOPIC, 0, 3, 5).expect("a known broker"), 5);
    for _ in 0..2 {
        append(&cluster, 4);
    }
    let data = ask(&cluster, 2, FETCH_VERSION, &fetch(0, 0)).await;
    assert_eq!(seen(&data), (0, NOWHERE, vec![0], 5));
    // A log that begins behind where the new leader ends is empty, and goes on from there.
    cluster.delete_records(TOPIC, 0, 12).expect("a known partition");
    assert_eq!(cluster.elect_uncleanly(TOPIC, 0, 1, 7).expect("a known broker"), 7);
    let info = cluster.partition(TOPIC, 0).expect("a known partition");
    assert_eq!((info.log_start, info.high_watermark, info.log_end), (7, 7, 7));
    assert_eq!(append(&cluster, 1), 7);
    let data = ask(&cluster, 1, FETCH_VERSION, &fetch(0, 7)).await;
    assert_eq!(seen(&data), (0, NOWHERE, vec![7], 8));
}

fn epochs(partitions: &[(i32, i32, i32)]) -> OffsetForLeaderEpochRequest {
    let partitions = partitions.iter().map(|(partition, current, epoch)| {
        OffsetForLeaderPartition::default()
            .with_partition(*partition)
            .with_current_leader_epoch(*current)
            .with_leader_epoch(*epoch)
    });
    let topic =
        OffsetForLeaderTopic::default().with_topic(topic()).with_partitions(partitions.collect());
    OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}

/// Epoch 0 wrote 0 to 4, epoch 1 nothing, epoch 2 the rest.
#[tokio::test(start_paused = true)]
async fn where_epochs_end() {
    let cluster = cluster();
    append(&cluster, 5);
    cluster.move_leader(TOPIC, 0, 2).expect("a known broker");
    cluster.move_leader(TOPIC, 0, 1).expect("a known broker");
    append(&cluster, 4);
    let ask = async |broker, version, partition: (i32, i32, i32)| {
        let request = epochs(&[partition]);
        let mut client = Client::new(&cluster, broker);
        let response = client.ask(version, &request).await.expect("an answer");
        let answer = &response.topics[0].partitions[0];
        assert_eq!(answer.partition, partition.0);
        (answer.error_code, answer.leader_epoch, answer.end_offset)
    };
    for version in 2..=4 {
        for (epoch, end) in [
            (0, (0, 0, 5)),
            (1, (0, 0, 5)),
            (2, (0, 2, 9)),
            (3, (0, -1, -1)),
            (i32::MAX, (0, -1, -1)),
            (-1, (0, -1, -1)),
            (-2, (0, -2, 0)),
        ] {
            assert_eq!(ask(1, version, (0, -1, epoch)).await, end, "v{version}, epoch {epoch}");
            assert_eq!(ask(1, version, (0, 2, epoch)).await, end, "v{version}, epoch {epoch}");
        }
        for (broker, partition, error) in [
            (1, (0, 1, 0), code::FENCED_LEADER_EPOCH),
            (1, (0, 3, 0), code::UNKNOWN_LEADER_EPOCH),
            (2, (0, 2, 0), code::NOT_LEADER_OR_FOLLOWER),
            (2, (0, 1, 0), code::FENCED_LEADER_EPOCH),
            (4, (0, 1, 0), code::NOT_LEADER_OR_FOLLOWER),
            (1, (9, -1, 0), code::UNKNOWN_TOPIC_OR_PARTITION),
            (1, (-1, -1, 0), code::UNKNOWN_TOPIC_OR_PARTITION),
        ] {
            assert_eq!(ask(broker, version, partition).await, (error, -1, -1), "{partition:?}");
        }
    }
    cluster.faults().on(1, ApiKey::OFFSET_FOR_LEADER_EPOCH, Fault::Error(56), 1);
    assert_eq!(ask(1, 4, (0, 2, 0)).await, (56, -1, -1));
    let mut unknown = epochs(&[(0, -1, 0)]);
    unknown.topics[0].topic = TopicName(StrBytes::from_static_str("unknown"));
    let response = Client::new(&cluster, 1).ask(4, &unknown).await.expect("an answer");
    let error = response.topics[0].partitions[0].error_code;
    assert_eq!(error, code::UNKNOWN_TOPIC_OR_PARTITION);
    // What was cut off ends where it was cut.
    cluster.elect_uncleanly(TOPIC, 0, 1, 6).expect("a known broker");
    append(&cluster, 3);
    assert_eq!(ask(1, 4, (0, -1, 2)).await, (0, 0, 5));
    assert_eq!(ask(1, 4, (0, -1, 3)).await, (0, 3, 8));
}

/// A new leader does not know what its predecessor let be read until its own records are replicated.
#[tokio::test(start_paused = true)]
async fn a_new_leader_does_not_know_its_end_at_once() {
    let delay = Duration::from_millis(250);
    let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 1, 2).replica_delay(delay));
    append(&cluster, 5);
    let ask = async |version, timestamp| {
        let partition =
            ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp);
        let named = ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]);
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![named]);
        let response = Client::new(&cluster, 2).ask(version, &request).await.expect("an answer");
        let answer = &response.topics[0].partitions[0];
        (answer.error_code, answer.offset)
    };
    cluster.move_leader(TOPIC, 0, 2).expect("a known broker");
    assert_eq!(ask(5, -1).await, (code::OFFSET_NOT_AVAILABLE, -1));
    assert_eq!(ask(4, -1).await, (code::LEADER_NOT_AVAILABLE, -1));
    assert_eq!(ask(5, 0).await, (code::OFFSET_NOT_AVAILABLE, -1));
    assert_eq!(ask(5, 1).await, (0, -1), "nothing is so young");
    assert_eq!(ask(5, -2).await, (0, 0));
    tokio::time::advance(delay).await;
    assert_eq!(ask(5, -1).await, (0, 5));
    assert_eq!(ask(5, 0).await, (0, 0));
}
