//! ConsumerGroupHeartbeat (KIP-848): a member of a group of the next generation joins, is there, or
//! goes.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::consumer_group_heartbeat_response::{
    Assignment as ToldAssignment, TopicPartitions,
};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::groups::Injected;
use super::{ApiKey, Call, Outcome, str_bytes};
use crate::acl::Right;
use crate::batch::Refusal;
use crate::error_code as code;
use crate::groups::CLIENT_HOST;
use crate::groups::consumer::{Assignment, Beat, Told, gather};

/// First version whose members bring an id of their own (KIP-1082).
const OWN_ID: i16 = 1;

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let api = ApiKey::CONSUMER_GROUP_HEARTBEAT;
    let request: ConsumerGroupHeartbeatRequest = call.decode(api, body)?;
    let injected = match call.of_group(api, request.group_id.as_str()).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let told = heartbeat(call, &request, injected);
    let told = match injected.after {
        Some(error) => Err(Refusal::new(error, "by fault script")),
        None => told,
    };
    let response =
        ConsumerGroupHeartbeatResponse::default().with_throttle_time_ms(call.throttle_time_ms());
    let interval = call.shared.config.groups.consumer_heartbeat_interval.as_millis();
    let response = match told {
        Ok(told) => response
            .with_member_id(Some(str_bytes(&told.member_id)))
            .with_member_epoch(told.epoch)
            .with_heartbeat_interval_ms(match told.epoch {
                0.. => i32::try_from(interval).unwrap_or(i32::MAX),
                // Who goes is told none.
                _ => 0,
            })
            .with_assignment(told.assignment.map(told_assignment)),
        Err(refusal) => response
            .with_error_code(refusal.code)
            .with_error_message(Some(str_bytes(&refusal.message))),
    };
    call.answer(&response)
}

fn told_assignment(assignment: Assignment) -> ToldAssignment {
    let topics = assignment.into_iter().map(|(id, list)| {
        TopicPartitions::default().with_topic_id(id).with_partitions(list.into_iter().collect())
    });
    ToldAssignment::default().with_topic_partitions(topics.collect())
}

fn heartbeat(
    call: &Call<'_>,
    request: &ConsumerGroupHeartbeatRequest,
    injected: Injected,
) -> Result<Told, Refusal> {
    if let Some(error) = injected.before {
        return Err(Refusal::new(error, "by fault script"));
    }
    if !call.shared.config.groups.next_generation {
        let words = "The version of API is not supported.";
        return Err(Refusal::new(code::UNSUPPORTED_VERSION, words));
    }
    let group = request.group_id.as_str();
    if !call.may(Right::Group, group) {
        let words = "Group authorization failed.";
        return Err(Refusal::new(code::GROUP_AUTHORIZATION_FAILED, words));
    }
    let mut named = request.subscribed_topic_names.iter().flatten();
    if named.any(|topic| !call.may(Right::Describe, topic.as_str())) {
        let words = "Topic authorization failed.";
        return Err(Refusal::new(code::TOPIC_AUTHORIZATION_FAILED, words));
    }
    let now = Instant::now();
    let mut state = call.shared.state();
    let new_id = match call.version {
        OWN_ID.. => None,
        _ => Some(state.groups.new_member_uuid()),
    };
    let client_id = call.client_id();
    let beat = beat(request, new_id, &client_id);
    beat.validate()?;
    let coordinated = state.groups.check(call.broker.id, group, now);
    coordinated.map_err(|error| Refusal::new(error, "This is not the correct coordinator."))?;
    let (groups, image) = state.groups_and_topics();
    groups.beat(group, &beat, &image, now)
}

fn beat<'a>(
    request: &'a ConsumerGroupHeartbeatRequest,
    new_id: Option<String>,
    client_id: &'a str,
) -> Beat<'a> {
    fn text(text: &Option<StrBytes>) -> Option<&str> {
        text.as_ref().map(StrBytes::as_str)
    }
    let topics = request.subscribed_topic_names.as_ref();
    let owned = request.topic_partitions.as_ref();
    Beat {
        group: request.group_id.as_str(),
        member_id: request.member_id.as_str(),
        epoch: request.member_epoch,
        instance: text(&request.instance_id),
        rack: text(&request.rack_id),
        rebalance_timeout: u64::try_from(request.rebalance_timeout_ms)
            .ok()
            .map(Duration::from_millis),
        topics: topics.map(|topics| topics.iter().map(|topic| topic.to_string()).collect()),
        regex: text(&request.subscribed_topic_regex),
        assignor: text(&request.server_assignor),
        owned: owned.map(|owned| {
            gather(owned.iter().map(|topic| (topic.topic_id, topic.partitions.clone())))
        }),
        client_id,
        client_host: CLIENT_HOST,
        new_id,
    }
}
