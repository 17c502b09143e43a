//! Metadata: brokers, topics, leaders and their epochs.

use std::collections::HashSet;

use bytes::Bytes;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use uuid::Uuid;

use super::{ApiKey, Call, Outcome, broker_ids, str_bytes, topic_name};
use crate::error_code as code;
use crate::state::{self, State};
use crate::topic::Topic;

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: MetadataRequest = call.decode(ApiKey::METADATA, body)?;
    let shared = call.shared;
    let mut state = shared.state();

    let everything = match &request.topics {
        None => true,
        // Version 0 has no null: an empty list asks for all topics.
        Some(topics) => call.version == 0 && topics.is_empty(),
    };
    let mut topics = Vec::new();
    if everything {
        topics.extend(state.topics.iter().map(|(name, topic)| describe(&state, name, topic)));
    } else {
        // Each once, as Kafka does: the answer to a name is longer than the name.
        let mut seen = HashSet::new();
        for wanted in request.topics.iter().flatten() {
            if !seen.insert((&wanted.name, wanted.topic_id)) {
                continue;
            }
            if call.version >= 10 && wanted.topic_id != Uuid::nil() {
                topics.push(by_id(&state, wanted.topic_id));
                continue;
            }
            let name = wanted.name.as_ref().map_or("", |name| name.as_str());
            if request.allow_auto_topic_creation
                && let Some(partitions) = shared.config.auto_create
                && !state.topics.contains_key(name)
            {
                let config = &shared.config;
                let replicas = state::spread(config, 0, partitions, config.default_replication());
                // An illegal name is found again, and answered, below.
                let _ = state.create_topic(config, name, replicas, config.max_message_bytes);
            }
            topics.push(by_name(&state, name));
        }
    }

    for topic in &mut topics {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        let (before, after) = call.injected(ApiKey::METADATA, name, -1);
        if let Some(error) = before.or(after) {
            topic.error_code = error;
            topic.partitions.clear();
        }
    }

    let brokers = shared
        .brokers
        .iter()
        .filter(|broker| !state.is_fenced(broker.id))
        .map(|broker| {
            let described = MetadataResponseBroker::default()
                .with_node_id(BrokerId(broker.id))
                .with_host(str_bytes(&broker.host))
                .with_port(i32::from(broker.port));
            match (&broker.rack, call.version) {
                (Some(rack), 1..) => described.with_rack(Some(str_bytes(rack))),
                _ => described.with_rack(None),
            }
        })
        .collect();
    let response = MetadataResponse::default()
        .with_throttle_time_ms(call.throttle_time_ms())
        .with_brokers(brokers)
        .with_cluster_id(shared.config.cluster_id.as_deref().map(str_bytes))
        .with_controller_id(BrokerId(state.controller()))
        .with_topics(topics);
    drop(state);
    call.answer(&response)
}

fn by_id(state: &State, id: Uuid) -> MetadataResponseTopic {
    match state.name_of(id).and_then(|name| Some((name, state.topics.get(name)?))) {
        Some((name, topic)) => describe(state, name, topic),
        None => MetadataResponseTopic::default()
            .with_error_code(code::UNKNOWN_TOPIC_ID)
            .with_name(None)
            .with_topic_id(id),
    }
}

fn by_name(state: &State, name: &str) -> MetadataResponseTopic {
    match state.topics.get(name) {
        Some(topic) => describe(state, name, topic),
        None => MetadataResponseTopic::default()
            .with_error_code(match state::check_name(name) {
                Ok(()) => code::UNKNOWN_TOPIC_OR_PARTITION,
                Err(refusal) => refusal.code,
            })
            .with_name(Some(topic_name(name))),
    }
}

fn describe(state: &State, name: &str, topic: &Topic) -> MetadataResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .enumerate()
        .map(|(index, partition)| {
            let offline: Vec<i32> =
                partition.replicas.iter().copied().filter(|id| state.is_fenced(*id)).collect();
            MetadataResponsePartition::default()
                .with_error_code(match partition.leader {
                    Some(_) => code::NONE,
                    None => code::LEADER_NOT_AVAILABLE,
                })
                .with_partition_index(index as i32)
                .with_leader_id(BrokerId(partition.leader.unwrap_or(-1)))
                .with_leader_epoch(partition.leader_epoch)
                .with_replica_nodes(broker_ids(&partition.replicas))
                .with_isr_nodes(broker_ids(&partition.isr))
                .with_offline_replicas(broker_ids(&offline))
        })
        .collect();
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(name)))
        .with_topic_id(topic.id)
        .with_partitions(partitions)
}
