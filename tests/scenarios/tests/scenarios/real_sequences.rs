//! What a real broker does with sequences, epochs and leaders that move. The sender's rules rest on
//! this, and nothing but a broker can show it: requests are written by hand here, one at a time.

use std::time::Instant;

use crate::raw::{Raw, WAIT};
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_quorum_request;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, CreateTopicsRequest, DescribeProducersRequest,
    DescribeQuorumRequest, ElectLeadersRequest, InitProducerIdRequest, ListOffsetsRequest,
    ProduceRequest, ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use ottla::testing::{SourceBatch, error_code as code};
use ottla_test_kafka::{Cluster, Options};

const TOPIC: &str = "sequences";
/// All in-sync replicas.
const ALL: i16 = -1;
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
/// Who asks for offsets under this id is told the end of the log, not of what is replicated.
const DEBUGGER: BrokerId = BrokerId(-2);

impl Raw {
    /// Error code and base offset.
    fn produce(&mut self, partition: i32, batch: &SourceBatch) -> (i16, i64) {
        self.send(PRODUCE, &produce(partition, batch));
        self.produced()
    }

    fn produced(&mut self) -> (i16, i64) {
        let answer = self.answer::<ProduceRequest>(PRODUCE);
        let part = &answer.responses[0].partition_responses[0];
        (part.error_code, part.base_offset)
    }

    /// A producer id that no partition knows.
    fn producer_id(&mut self) -> i64 {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None::<TransactionalId>)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let deadline = Instant::now() + WAIT;
        loop {
            let answer = self.ask(4, &request);
            match answer.error_code {
                0 => return answer.producer_id.0,
                // A broker that has just started has no block of ids yet.
                COORDINATOR_LOAD_IN_PROGRESS if Instant::now() < deadline => {}
                _ => panic!("{answer:?}"),
            }
        }
    }

    /// Who leads the quorum of controllers.
    fn controller(&mut self) -> u32 {
        let name = TopicName(StrBytes::from_static_str("__cluster_metadata"));
        let log = describe_quorum_request::TopicData::default()
            .with_topic_name(name)
            .with_partitions(vec![describe_quorum_request::PartitionData::default()]);
        let answer = self.ask(0, &DescribeQuorumRequest::default().with_topics(vec![log]));
        answer.topics[0].partitions[0].leader_id.0 as u32
    }

    /// Epoch and last sequence that the broker knows of a producer.
    fn last_known(&mut self, partition: i32, id: i64) -> Option<(i32, i32)> {
        let asked =
            TopicRequest::default().with_name(topic()).with_partition_indexes(vec![partition]);
        let request = DescribeProducersRequest::default().with_topics(vec![asked]);
        let answer = self.ask(0, &request);
        let part = &answer.topics[0].partitions[0];
        assert_eq!(part.error_code, 0);
        let ours = part.active_producers.iter().find(|p| p.producer_id.0 == id)?;
        Some((ours.producer_epoch, ours.last_sequence))
    }

    /// The end of the log at this broker, replicated or not.
    fn log_end(&mut self, partition: i32) -> i64 {
        let wanted =
            ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![wanted]);
        let request =
            ListOffsetsRequest::default().with_replica_id(DEBUGGER).with_topics(vec![topic]);
        self.ask(6, &request).topics[0].partitions[0].offset
    }

    /// A topic whose partitions have these replicas, the leader first.
    fn create(&mut self, partitions: &[&[u32]]) {
        let assignments = (0..).zip(partitions).map(|(index, replicas)| {
            CreatableReplicaAssignment::default()
                .with_partition_index(index)
                .with_broker_ids(ids(replicas))
        });
        let stamped = CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str("message.timestamp.type"))
            .with_value(Some(StrBytes::from_static_str("LogAppendTime")));
        let topic = CreatableTopic::default()
            .with_name(topic())
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(assignments.collect())
            // The batches' timestamps are those of 1970: the broker would delete them, and forget at its next
            // start who wrote them.
            .with_configs(vec![stamped]);
        let request =
            CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        assert_eq!(self.ask(5, &request).topics[0].error_code, 0);
    }
}

/// Names topics by name.
const PRODUCE: i16 = 9;

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

fn ids(brokers: &[u32]) -> Vec<BrokerId> {
    brokers.iter().map(|id| BrokerId(*id as i32)).collect()
}

fn produce(partition: i32, batch: &SourceBatch) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch.bytes().clone()));
    let data = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_transactional_id(None::<TransactionalId>)
        .with_acks(ALL)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![data])
}

#[test]
fn real_a_partition_knows_sequences_by_id_and_epoch_only() {
    let cluster = Cluster::start(Options { brokers: 1, ..Options::default() }).unwrap();
    let broker = cluster.ids()[0];
    let mut raw = Raw::connect(&cluster, broker);
    raw.create(&[&[broker][..]; 3]);
    cluster.wait_in_sync(&[TOPIC]).unwrap();
    let batch = SourceBatch::new(["once"]);
    let id = raw.producer_id();

    // Sent again as it was, a batch is recognised: that is why one in doubt is sent again in place.
    assert_eq!(raw.produce(0, &batch.with_producer(id, 0, 0)), (0, 0));
    assert_eq!(raw.produce(0, &batch.with_producer(id, 0, 0)), (0, 0));
    assert_eq!(raw.log_end(0), 1);
    // Under the next epoch the same batch is another one, and is written twice: a batch in doubt is
    // never sent under another epoch.
    assert_eq!(raw.produce(0, &batch.with_producer(id, 1, 0)), (0, 1));
    assert_eq!(raw.log_end(0), 2);
    // And in another partition, or under another id.
    assert_eq!(raw.produce(1, &batch.with_producer(id, 0, 0)), (0, 0));
    let other = raw.producer_id();
    assert_eq!(raw.produce(0, &batch.with_producer(other, 0, 0)), (0, 2));

    // A partition that knows nothing of a producer takes any sequence as its first. The batch before
    // it, had it been refused for a moment, is locked out: one in flight until the first is
    // acknowledged.
    assert_eq!(raw.produce(2, &batch.with_producer(id, 0, 7)), (0, 0));
    let refused = (code::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    assert_eq!(raw.produce(2, &batch.with_producer(id, 0, 6)), refused);
    assert_eq!(raw.produce(2, &batch.with_producer(id, 0, 9)), refused, "a gap");
    assert_eq!(raw.produce(2, &batch.with_producer(id, 0, 8)), (0, 1));
    // Five batches are remembered; an older one is no duplicate to the broker.
    for sequence in 9..13 {
        assert_eq!(raw.produce(2, &batch.with_producer(id, 0, sequence)).0, 0);
    }
    assert_eq!(raw.produce(2, &batch.with_producer(id, 0, 8)), (0, 1), "the fifth");
    assert_eq!(raw.produce(2, &batch.with_producer(id, 0, 7)).0, refused.0, "the sixth");

    assert_eq!(raw.log_end(2), 6);
}

#[test]
fn real_not_leader_after_the_append_names_an_offset() {
    let cluster = Cluster::start(Options::default()).unwrap();
    // The controller must go on, or nothing moves before the one that stands still is given up.
    let mut brokers = cluster.ids();
    let controller = Raw::connect(&cluster, brokers[0]).controller();
    brokers.sort_by_key(|id| *id != controller);
    let [old, new, slow] = brokers[..] else { panic!("three brokers") };
    let mut raw = Raw::connect(&cluster, old);
    raw.create(&[&[old, new, slow]]);
    cluster.wait_in_sync(&[TOPIC]).unwrap();
    let id = raw.producer_id();
    let batch = SourceBatch::new(["moved"]).with_producer(id, 0, 0);

    // Refused before the append: no offset. This is the only NOT_LEADER that says "not written".
    let mut follower = Raw::connect(&cluster, new);
    assert_eq!(follower.produce(0, &batch), (code::NOT_LEADER_OR_FOLLOWER, -1));

    // From now on the other one is preferred; nothing moves yet.
    let order = ReassignablePartition::default()
        .with_partition_index(0)
        .with_replicas(Some(ids(&[new, old, slow])));
    let order = ReassignableTopic::default().with_name(topic()).with_partitions(vec![order]);
    let request = AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(30_000)
        .with_topics(vec![order]);
    let answer = follower.ask(0, &request);
    assert_eq!((answer.error_code, answer.responses[0].partitions[0].error_code), (0, 0));

    // One replica stands still: the leader has the batch and waits.
    cluster.pause(slow).unwrap();
    raw.send(PRODUCE, &produce(0, &batch));
    let mut beside = Raw::connect(&cluster, old);
    let deadline = Instant::now() + WAIT;
    while beside.log_end(0) < 1 {
        assert!(Instant::now() < deadline, "not appended\n{}", cluster.logs_tail(20));
    }
    // Then another one leads.
    let partition = TopicPartitions::default().with_topic(topic()).with_partitions(vec![0]);
    let elect = ElectLeadersRequest::default()
        .with_topic_partitions(Some(vec![partition]))
        .with_timeout_ms(10_000);
    let elected = follower.ask(2, &elect);
    let answer = raw.produced();
    cluster.resume(slow).unwrap();
    assert_eq!(elected.error_code, 0, "{elected:?}\n{}", cluster.logs_tail(20));
    // The append is in the log of the new leader, and the refusal says where.
    assert_eq!(answer, (code::NOT_LEADER_OR_FOLLOWER, 0), "{elected:?}");
    cluster.wait_in_sync(&[TOPIC]).unwrap();
    assert_eq!(cluster.partitions(TOPIC).unwrap()[0].leader, new as i32);
    // Sent again elsewhere it would be there twice; in place it is recognised.
    assert_eq!(follower.produce(0, &batch), (0, 0));
    assert_eq!(follower.log_end(0), 1);
}

/// Shut down and started again, a broker knows the last batch of a producer and none before it: the first
/// of two that are sent again is out of order, though both are in the log.
#[test]
fn real_a_clean_restart_forgets_all_but_the_last_batch() {
    let cluster = Cluster::start(Options { brokers: 1, ..Options::default() }).unwrap();
    let broker = cluster.ids()[0];
    let mut raw = Raw::connect(&cluster, broker);
    raw.create(&[&[broker]]);
    cluster.wait_in_sync(&[TOPIC]).unwrap();
    let batch = SourceBatch::new(["doubtful"]);
    let id = raw.producer_id();
    let [first, second] = [0, 1].map(|sequence| batch.with_producer(id, 0, sequence));
    assert_eq!(raw.produce(0, &first), (0, 0));
    assert_eq!(raw.produce(0, &second), (0, 1));
    assert_eq!(raw.produce(0, &first), (0, 0), "remembered");
    assert_eq!(raw.last_known(0, id), Some((0, 1)));
    drop(raw);
    cluster.stop(broker).unwrap();
    cluster.restart(broker).unwrap();
    cluster.wait_in_sync(&[TOPIC]).unwrap();
    let mut raw = Raw::connect(&cluster, broker);
    assert_eq!(raw.produce(0, &first), (code::OUT_OF_ORDER_SEQUENCE_NUMBER, -1));
    // It tells that it has both, and recognises the last.
    assert_eq!(raw.last_known(0, id), Some((0, 1)));
    assert_eq!(raw.produce(0, &second), (0, 1));
    assert_eq!(raw.log_end(0), 2);
}
