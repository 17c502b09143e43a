//! OffsetDelete (KIP-496): of topics that the group does not read.

use bytes::Bytes;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use tokio::time::Instant;

use super::groups::Injected;
use super::{ApiKey, Call, Outcome, offset_commit};
use crate::acl::Right;
use crate::error_code as code;

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: OffsetDeleteRequest = call.decode(ApiKey::OFFSET_DELETE, body)?;
    let injected = match call.of_group(ApiKey::OFFSET_DELETE, request.group_id.as_str()).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let deleted = injected.after.map_or_else(|| delete(call, &request, injected), Err);
    let response = OffsetDeleteResponse::default().with_throttle_time_ms(call.throttle_time_ms());
    call.answer(&match deleted {
        Ok(topics) => response.with_topics(topics),
        Err(error) => response.with_error_code(error),
    })
}

fn delete(
    call: &Call<'_>,
    request: &OffsetDeleteRequest,
    injected: Injected,
) -> Result<Vec<OffsetDeleteResponseTopic>, i16> {
    let id = request.group_id.as_str();
    if let Some(error) = call.forbidden(injected, Right::DeleteGroup, id) {
        return Err(error);
    }
    let now = Instant::now();
    let mut state = call.shared.state();
    if let Some(error) = call.misplaced(&state.groups, id, now) {
        return Err(error);
    }
    let mut topics = Vec::new();
    for topic in &request.topics {
        let name = topic.name.as_str();
        let mut partitions = Vec::new();
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let wrong = offset_commit::not_there(call, &state, name, index);
            let group = state.groups.get(id, now).ok_or(code::GROUP_ID_NOT_FOUND)?;
            group.may_delete_offsets()?;
            let error = match wrong {
                Some(error) => error,
                None if group.is_subscribed(name) => code::GROUP_SUBSCRIBED_TO_TOPIC,
                None => {
                    group.offsets.delete(name, index);
                    code::NONE
                }
            };
            let told = OffsetDeleteResponsePartition::default().with_partition_index(index);
            partitions.push(told.with_error_code(error));
        }
        let told = OffsetDeleteResponseTopic::default().with_name(topic.name.clone());
        topics.push(told.with_partitions(partitions));
    }
    let group = state.groups.get(id, now).ok_or(code::GROUP_ID_NOT_FOUND)?;
    group.may_delete_offsets().map(|()| topics)
}
