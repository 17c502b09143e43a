//! DescribeProducers: what partitions remember of each producer (KIP-664).

use bytes::Bytes;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::{ApiKey, Call, Outcome, topic_name};
use crate::acl::Right;
use crate::error_code as code;

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: DescribeProducersRequest = call.decode(ApiKey::DESCRIBE_PRODUCERS, body)?;
    let mut topics = Vec::new();
    for topic in &request.topics {
        let name = topic.name.as_str();
        let partitions = topic.partition_indexes.iter().map(|index| partition(call, name, *index));
        topics.push(
            TopicResponse::default()
                .with_name(topic_name(name))
                .with_partitions(partitions.collect()),
        );
    }
    let response = DescribeProducersResponse::default()
        .with_throttle_time_ms(call.throttle_time_ms())
        .with_topics(topics);
    call.answer(&response)
}

fn partition(call: &Call<'_>, topic: &str, index: i32) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(index);
    let (before, after) = call.injected(ApiKey::DESCRIBE_PRODUCERS, topic, index);
    if let Some(error) = before.or(after) {
        return response.with_error_code(error);
    }
    if !call.may(Right::Read, topic) {
        return response.with_error_code(code::TOPIC_AUTHORIZATION_FAILED);
    }
    let mut state = call.shared.state();
    let found = state.topics.get_mut(topic).and_then(|topic| topic.partition_mut(index));
    let Some(partition) = found else {
        return response.with_error_code(code::UNKNOWN_TOPIC_OR_PARTITION);
    };
    // Kafka asks any replica; here only the leader has a state to tell of.
    if partition.leader != Some(call.broker.id) {
        return response.with_error_code(code::NOT_LEADER_OR_FOLLOWER);
    }
    let producers = partition.producers.newest().map(|(id, epoch, last_sequence)| {
        ProducerState::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(i32::from(epoch))
            .with_last_sequence(last_sequence)
            .with_coordinator_epoch(-1)
            .with_current_txn_start_offset(partition.transactions.open_since(id).unwrap_or(-1))
    });
    response.with_active_producers(producers.collect())
}
