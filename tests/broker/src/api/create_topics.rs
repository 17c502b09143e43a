//! CreateTopics.

use std::collections::HashSet;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{ApiKey, Call, Outcome, verdict};
use crate::acl::Right;
use crate::batch::Refusal;
use crate::config::Config;
use crate::error_code as code;
use crate::state::{self, State};

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: CreateTopicsRequest = call.decode(ApiKey::CREATE_TOPICS, body)?;
    let config = &call.shared.config;
    let mut seen = HashSet::new();
    let repeated: HashSet<_> =
        request.topics.iter().map(|topic| &topic.name).filter(|name| !seen.insert(*name)).collect();
    let mut results = Vec::new();
    for topic in &request.topics {
        let (before, after) = call.injected(ApiKey::CREATE_TOPICS, &topic.name, -1);
        let created = match before {
            Some(error) => Err(Refusal::new(error, "by fault script")),
            None if repeated.contains(&topic.name) => {
                Err(Refusal::new(code::INVALID_REQUEST, "the request names the topic twice"))
            }
            None if !call.may(Right::CreateTopics, "") && !call.may(Right::Create, &topic.name) => {
                Err(Refusal::new(code::TOPIC_AUTHORIZATION_FAILED, "Authorization failed."))
            }
            None => create(&mut call.shared.state(), config, topic, request.validate_only),
        };
        let created = match after {
            Some(error) => Err(Refusal::new(error, "by fault script")),
            None => created,
        };
        let (error_code, message) = verdict(&created);
        let mut result = CreatableTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(error_code)
            .with_error_message(message)
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_configs(None);
        if let Ok(created) = created {
            result.topic_id = created.id;
            if call.version >= 5 {
                result = result
                    .with_num_partitions(created.partitions)
                    .with_replication_factor(created.replication)
                    .with_configs(Some(
                        topic
                            .configs
                            .iter()
                            .map(|entry| {
                                CreatableTopicConfigs::default()
                                    .with_name(entry.name.clone())
                                    .with_value(entry.value.clone())
                                    .with_config_source(1)
                            })
                            .collect(),
                    ));
            }
        }
        results.push(result);
    }
    let response = CreateTopicsResponse::default()
        .with_throttle_time_ms(call.throttle_time_ms())
        .with_topics(results);
    call.answer(&response)
}

struct Created {
    id: Uuid,
    partitions: i32,
    replication: i16,
}

fn create(
    state: &mut State,
    config: &Config,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<Created, Refusal> {
    let replicas = replicas(config, topic)?;
    let mut rules = config.rules();
    for entry in &topic.configs {
        let value = entry.value.as_ref().map_or("", |value| value.as_str());
        if entry.name.as_str() == "cleanup.policy" {
            rules.compacted = value.split(',').any(|policy| policy.trim() == "compact");
        }
        if entry.name.as_str() == "max.message.bytes" {
            rules.max_message_bytes = value.parse().map_err(|_| {
                Refusal::new(code::INVALID_CONFIG, format!("max.message.bytes is '{value}'"))
            })?;
        }
    }
    let partitions = replicas.len() as i32;
    let replication = replicas.first().map_or(0, Vec::len) as i16;
    let id = if validate_only {
        state.check_new_topic(config, &topic.name, &replicas)?;
        Uuid::nil()
    } else {
        let id = state.create_topic(config, &topic.name, replicas, rules)?;
        if let Some(created) = state.topics.get_mut(topic.name.as_str()) {
            let value = |value: &StrBytes| value.to_string();
            let set = topic.configs.iter();
            created.settings = set
                .filter_map(|one| Some((value(&one.name), one.value.as_ref().map(value)?)))
                .collect();
        }
        id
    };
    Ok(Created { id, partitions, replication })
}

fn replicas(config: &Config, topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, Refusal> {
    if topic.assignments.is_empty() {
        let partitions = match topic.num_partitions {
            -1 => config.default_partitions,
            partitions => partitions,
        };
        let replication = match topic.replication_factor {
            -1 => config.default_replication(),
            replication => i32::from(replication),
        };
        return Ok(state::spread(config, 0, partitions, replication));
    }
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        return Err(Refusal::new(
            code::INVALID_REQUEST,
            "an assignment excludes a number of partitions and a replication factor",
        ));
    }
    let mut assigned = vec![Vec::new(); topic.assignments.len()];
    for assignment in &topic.assignments {
        usize::try_from(assignment.partition_index)
            .ok()
            .and_then(|index| assigned.get_mut(index))
            .ok_or_else(|| {
                Refusal::new(code::INVALID_REPLICA_ASSIGNMENT, "partitions are not 0 to n-1")
            })?
            .extend(assignment.broker_ids.iter().map(|id| id.0));
    }
    Ok(assigned)
}
