//! CreatePartitions.

use bytes::Bytes;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::{ApiKey, Call, Outcome, verdict};
use crate::acl::Right;
use crate::batch::Refusal;
use crate::config::Config;
use crate::error_code as code;
use crate::state::{self, MAX_PARTITIONS, State, unknown_topic};

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: CreatePartitionsRequest = call.decode(ApiKey::CREATE_PARTITIONS, body)?;
    let mut results = Vec::new();
    for topic in request.topics {
        let (before, after) = call.injected(ApiKey::CREATE_PARTITIONS, &topic.name, -1);
        let grown = match before {
            Some(error) => Err(Refusal::new(error, "by fault script")),
            None if !call.may(Right::Alter, &topic.name) => {
                Err(Refusal::new(code::TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed."))
            }
            None => grow(
                &mut call.shared.state(),
                &call.shared.config,
                &topic.name,
                topic.count,
                topic.assignments.map(|new| {
                    new.into_iter()
                        .map(|one| one.broker_ids.into_iter().map(|id| id.0).collect())
                        .collect()
                }),
                request.validate_only,
            ),
        };
        let grown = match after {
            Some(error) => Err(Refusal::new(error, "by fault script")),
            None => grown,
        };
        let (error_code, message) = verdict(&grown);
        results.push(
            CreatePartitionsTopicResult::default()
                .with_name(topic.name)
                .with_error_code(error_code)
                .with_error_message(message),
        );
    }
    let response = CreatePartitionsResponse::default()
        .with_throttle_time_ms(call.throttle_time_ms())
        .with_results(results);
    call.answer(&response)
}

/// Grows a topic to `count` partitions; `assignments` are the new ones' brokers.
pub(crate) fn grow(
    state: &mut State,
    config: &Config,
    name: &str,
    count: i32,
    assignments: Option<Vec<Vec<i32>>>,
    validate_only: bool,
) -> Result<(), Refusal> {
    let topic = state.topics.get(name).ok_or_else(|| unknown_topic(name))?;
    let now = topic.partitions.len() as i32;
    let replication = topic.partitions.first().map_or(1, |first| first.replicas.len() as i32);
    if count <= now || count > MAX_PARTITIONS {
        return Err(Refusal::new(
            code::INVALID_PARTITIONS,
            format!("topic '{name}' has {now} partitions, {count} is not more or too many"),
        ));
    }
    let replicas = match assignments {
        None => state::spread(config, now, count, replication),
        Some(new) if new.len() as i32 == count - now => new,
        Some(new) => {
            return Err(Refusal::new(
                code::INVALID_REPLICA_ASSIGNMENT,
                format!("{} assignments for {} new partitions", new.len(), count - now),
            ));
        }
    };
    if validate_only { Ok(()) } else { state.add_partitions(config, name, replicas) }
}
