//! Metadata: brokers, topics, leaders and their epochs.

use std::collections::HashSet;

use bytes::Bytes;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use uuid::Uuid;

use super::{ApiKey, Call, Outcome, broker_ids, str_bytes, topic_name};
use crate::acl::Right;
use crate::error_code as code;
use crate::state::{self, Shared, State};
use crate::topic::Topic;

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: MetadataRequest = call.decode(ApiKey::METADATA, body)?;
    let shared = call.shared;
    let wanted = match &request.topics {
        // Version 0 has no null: an empty list asks for all topics.
        Some(topics) if call.version > 0 || !topics.is_empty() => Some(topics.as_slice()),
        _ => None,
    };
    let mut response = match &*call.broker.stale() {
        Some(stale) => narrowed(stale, wanted, call.version),
        None => {
            let mut state = shared.state();
            if request.allow_auto_topic_creation {
                create_missing(call, &mut state, wanted.unwrap_or_default());
            }
            response(shared, &state, wanted, call.version)
        }
    };
    if call.rights.is_some() {
        hide(call, &request, &mut response, wanted.is_none());
    }
    call.broker.counters.described(response.topics.len() as u64);
    for topic in &mut response.topics {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        let (before, after) = call.injected(ApiKey::METADATA, name, -1);
        if let Some(error) = before.or(after) {
            topic.error_code = error;
            topic.partitions.clear();
        }
    }
    if call.version == 0 {
        response.brokers.iter_mut().for_each(|broker| broker.rack = None);
    }
    call.answer(&response.with_throttle_time_ms(call.throttle_time_ms()))
}

/// All that can be told now.
pub(crate) fn everything(shared: &Shared) -> MetadataResponse {
    response(shared, &shared.state(), None, i16::MAX)
}

fn response(
    shared: &Shared,
    state: &State,
    wanted: Option<&[MetadataRequestTopic]>,
    version: i16,
) -> MetadataResponse {
    let topics = match wanted {
        None => state.topics.iter().map(|(name, topic)| describe(state, name, topic)).collect(),
        Some(wanted) => once(wanted)
            .map(|wanted| match by(wanted, version) {
                By::Id(id) => by_id(state, id),
                By::Name(name) => by_name(state, name),
            })
            .collect(),
    };
    let brokers = shared
        .brokers
        .iter()
        .filter(|broker| !state.is_fenced(broker.id))
        .map(|broker| {
            let (host, port) = broker.named_at();
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(broker.id))
                .with_host(str_bytes(&host))
                .with_port(i32::from(port))
                .with_rack(broker.rack.as_deref().map(str_bytes))
        })
        .collect();
    MetadataResponse::default()
        .with_brokers(brokers)
        .with_cluster_id(state.cluster_id.as_deref().map(str_bytes))
        .with_controller_id(BrokerId(state.controller()))
        .with_topics(topics)
}

/// What is asked for, of what a broker knew when it was cut off.
fn narrowed(
    stale: &MetadataResponse,
    wanted: Option<&[MetadataRequestTopic]>,
    version: i16,
) -> MetadataResponse {
    let Some(wanted) = wanted else { return stale.clone() };
    let topics = once(wanted)
        .map(|wanted| {
            let wanted = by(wanted, version);
            let found = stale.topics.iter().find(|topic| match wanted {
                By::Id(id) => topic.topic_id == id,
                By::Name(name) => topic.name.as_ref().is_some_and(|n| n.as_str() == name),
            });
            found.cloned().unwrap_or_else(|| match wanted {
                By::Id(id) => unknown_id(id),
                By::Name(name) => unknown_name(name),
            })
        })
        .collect();
    stale.clone().with_topics(topics)
}

/// Each once, as Kafka does: the answer to a name is longer than the name.
fn once(wanted: &[MetadataRequestTopic]) -> impl Iterator<Item = &MetadataRequestTopic> {
    let mut seen = HashSet::new();
    wanted.iter().filter(move |wanted| seen.insert((&wanted.name, wanted.topic_id)))
}

enum By<'a> {
    Id(Uuid),
    Name(&'a str),
}

fn by(wanted: &MetadataRequestTopic, version: i16) -> By<'_> {
    if version >= 10 && wanted.topic_id != Uuid::nil() {
        return By::Id(wanted.topic_id);
    }
    By::Name(wanted.name.as_ref().map_or("", |name| name.as_str()))
}

/// Leaves out, or refuses, what the client may not see (`KafkaApis.handleTopicMetadataRequest`). Whether a topic
/// exists is not told to who may not see it; an id is no secret, its name is.
fn hide(
    call: &Call<'_>,
    request: &MetadataRequest,
    response: &mut MetadataResponse,
    everything: bool,
) {
    let creates = request.allow_auto_topic_creation && call.shared.config.auto_create.is_some();
    response.topics.retain_mut(|topic| {
        let Some(name) = &topic.name else { return true };
        let missing = topic.error_code == code::UNKNOWN_TOPIC_OR_PARTITION;
        let seen = call.may(Right::Describe, name.as_str());
        if seen && !(missing && creates && !may_create(call, name.as_str())) {
            return true;
        }
        let named = request.topics.iter().flatten();
        let by_id = call.version >= 10
            && named
                .filter(|one| one.topic_id != Uuid::nil())
                .any(|one| one.topic_id == topic.topic_id);
        *topic = MetadataResponseTopic::default()
            .with_error_code(code::TOPIC_AUTHORIZATION_FAILED)
            .with_topic_id(if by_id { topic.topic_id } else { Uuid::nil() })
            .with_name(match by_id && call.version >= 12 {
                true => None,
                false => topic.name.clone(),
            });
        !everything
    });
}

fn may_create(call: &Call<'_>, name: &str) -> bool {
    call.may(Right::CreateTopics, "") || call.may(Right::Create, name)
}

fn create_missing(call: &Call<'_>, state: &mut State, wanted: &[MetadataRequestTopic]) {
    let config = &call.shared.config;
    let Some(partitions) = config.auto_create else { return };
    for wanted in once(wanted) {
        if let By::Name(name) = by(wanted, call.version)
            && call.may(Right::Describe, name)
            && may_create(call, name)
            && !state.topics.contains_key(name)
        {
            let replicas = state::spread(config, 0, partitions, config.default_replication());
            // An illegal name is found again, and answered, by who describes it.
            let _ = state.create_topic(config, name, replicas, config.rules());
        }
    }
}

fn by_id(state: &State, id: Uuid) -> MetadataResponseTopic {
    match state.name_of(id).and_then(|name| Some((name, state.topics.get(name)?))) {
        Some((name, topic)) => describe(state, name, topic),
        None => unknown_id(id),
    }
}

fn unknown_id(id: Uuid) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(code::UNKNOWN_TOPIC_ID)
        .with_name(None)
        .with_topic_id(id)
}

fn by_name(state: &State, name: &str) -> MetadataResponseTopic {
    match state.topics.get(name) {
        Some(topic) => describe(state, name, topic),
        None => unknown_name(name),
    }
}

fn unknown_name(name: &str) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(match state::check_name(name) {
            Ok(()) => code::UNKNOWN_TOPIC_OR_PARTITION,
            Err(refusal) => refusal.code,
        })
        .with_name(Some(topic_name(name)))
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
