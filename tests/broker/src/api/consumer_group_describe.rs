//! ConsumerGroupDescribe: groups of the next generation and their members.

use bytes::Bytes;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment as ToldAssignment, DescribedGroup, Member as ToldMember, TopicPartitions,
};
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use tokio::time::Instant;

use super::groups::Injected;
use super::{ApiKey, Call, Outcome, str_bytes, topic_name};
use crate::acl::Right;
use crate::batch::Refusal;
use crate::error_code as code;
use crate::groups::Kind;
use crate::groups::consumer::{Assignment, Consumer, Member};

/// First version that says which protocol a member speaks.
const MEMBER_TYPE: i16 = 1;

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let api = ApiKey::CONSUMER_GROUP_DESCRIBE;
    let request: ConsumerGroupDescribeRequest = call.decode(api, body)?;
    let ids = request.group_ids.iter().map(|id| id.as_str());
    let injected = match call.of_groups(api, ids).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let tells_rights = request.include_authorized_operations;
    let groups = request.group_ids.into_iter().zip(injected).map(|(id, injected)| {
        let told = match describe(call, id.as_str(), injected) {
            Ok(mut told) => {
                if tells_rights {
                    told.authorized_operations = call.rights_to_group(id.as_str());
                }
                told
            }
            Err(refusal) => DescribedGroup::default()
                .with_error_code(refusal.code)
                .with_error_message(Some(str_bytes(&refusal.message))),
        };
        told.with_group_id(id)
    });
    let response = ConsumerGroupDescribeResponse::default()
        .with_throttle_time_ms(call.throttle_time_ms())
        .with_groups(groups.collect());
    call.answer(&response)
}

fn describe(call: &Call<'_>, id: &str, injected: Injected) -> Result<DescribedGroup, Refusal> {
    if let Some(error) = injected.before.or(injected.after) {
        return Err(Refusal::new(error, "by fault script"));
    }
    if !call.shared.config.groups.next_generation {
        let words = "The version of API is not supported.";
        return Err(Refusal::new(code::UNSUPPORTED_VERSION, words));
    }
    if !call.may(Right::DescribeGroup, id) {
        let words = "Group authorization failed.";
        return Err(Refusal::new(code::GROUP_AUTHORIZATION_FAILED, words));
    }
    let now = Instant::now();
    let groups = &mut call.shared.state().groups;
    if let Some(error) = call.misplaced(groups, id, now) {
        return Err(Refusal::new(error, "This broker cannot answer for the group."));
    }
    let not_found = |words: String| Refusal::new(code::GROUP_ID_NOT_FOUND, words);
    match groups.get(id, now).map(|group| &group.kind) {
        None => Err(not_found(format!("Group {id} not found."))),
        Some(Kind::Classic(_)) => Err(not_found(format!("Group {id} is not a consumer group."))),
        Some(Kind::Consumer(consumer)) => {
            let mut topics = consumer.members().flat_map(|member| &member.topics);
            if topics.any(|topic| !call.may(Right::Describe, topic)) {
                let words = "The group has described topic(s) that the client is not authorized \
                             to describe.";
                return Err(Refusal::new(code::TOPIC_AUTHORIZATION_FAILED, words));
            }
            Ok(described(call, consumer))
        }
    }
}

fn described(call: &Call<'_>, consumer: &Consumer) -> DescribedGroup {
    let assignment = |assignment: Option<&Assignment>| {
        let topics = assignment.into_iter().flatten();
        let named = topics.filter_map(|(id, list)| Some((*id, consumer.name_of(*id)?, list)));
        let told = named.map(|(id, name, list)| {
            TopicPartitions::default()
                .with_topic_id(id)
                .with_topic_name(topic_name(name))
                .with_partitions(list.iter().copied().collect())
        });
        ToldAssignment::default().with_topic_partitions(told.collect())
    };
    let member = |member: &Member| {
        let told = ToldMember::default()
            .with_member_id(str_bytes(&member.id))
            .with_instance_id(member.instance.as_deref().map(str_bytes))
            .with_rack_id(member.rack.as_deref().map(str_bytes))
            .with_member_epoch(member.epoch())
            .with_client_id(str_bytes(&member.client_id))
            .with_client_host(str_bytes(&member.client_host))
            .with_subscribed_topic_names(
                member.topics.iter().map(|name| topic_name(name)).collect(),
            )
            .with_subscribed_topic_regex(member.regex().map(str_bytes))
            .with_assignment(assignment(Some(member.assigned())))
            .with_target_assignment(assignment(consumer.target(&member.id)));
        match call.version {
            MEMBER_TYPE.. => told.with_member_type(i8::from(!member.is_classic())),
            _ => told,
        }
    };
    DescribedGroup::default()
        .with_group_state(str_bytes(consumer.state().name()))
        .with_group_epoch(consumer.epoch())
        .with_assignment_epoch(consumer.target_epoch())
        .with_assignor_name(str_bytes(consumer.assignor()))
        .with_members(consumer.members().map(member).collect())
}
