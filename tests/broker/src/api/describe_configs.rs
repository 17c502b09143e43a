//! DescribeConfigs: settings of topics, and the few that brokers tell.

use bytes::Bytes;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::{ApiKey, Call, Outcome, str_bytes, verdict};
use crate::acl::Right;
use crate::batch::Refusal;
use crate::error_code as code;
use crate::settings::{Kind, SETTINGS, default_of};
use crate::state::{check_name, unknown_topic};

/// What a resource is.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

/// Where a value comes from.
const OF_TOPIC: i8 = 1;
const OF_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// The resource of rights to the cluster.
pub(super) const CLUSTER: &str = "kafka-cluster";

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: DescribeConfigsRequest = call.decode(ApiKey::DESCRIBE_CONFIGS, body)?;
    let results = request.resources.iter().map(|resource| {
        let name =
            if resource.resource_type == TOPIC { resource.resource_name.as_str() } else { "" };
        let (before, after) = call.injected(ApiKey::DESCRIBE_CONFIGS, name, -1);
        let told = match before.or(after) {
            Some(error) => Err(Refusal::new(error, "by fault script")),
            None => describe(call, resource, request.include_synonyms),
        };
        let (error_code, message) = verdict(&told);
        DescribeConfigsResult::default()
            .with_error_code(error_code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_configs(told.unwrap_or_default())
    });
    let response = DescribeConfigsResponse::default()
        .with_results(results.collect())
        .with_throttle_time_ms(call.throttle_time_ms());
    call.answer(&response)
}

fn describe(
    call: &Call<'_>,
    resource: &DescribeConfigsResource,
    synonyms: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let told = match resource.resource_type {
        TOPIC => of_topic(call, resource.resource_name.as_str(), synonyms)?,
        BROKER => of_broker(call, resource.resource_name.as_str())?,
        other => {
            let words = format!("Unsupported resource type {other}");
            return Err(Refusal::new(code::INVALID_REQUEST, words));
        }
    };
    let is_asked = |one: &DescribeConfigsResourceResult| {
        let keys = resource.configuration_keys.as_ref();
        // An empty list asks for all, as with Kafka.
        keys.is_none_or(|keys| keys.is_empty() || keys.contains(&one.name))
    };
    Ok(told.into_iter().filter(is_asked).collect())
}

fn of_topic(
    call: &Call<'_>,
    name: &str,
    synonyms: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    if !call.may(Right::DescribeConfigs, name) {
        let words = "Topic authorization failed.";
        return Err(Refusal::new(code::TOPIC_AUTHORIZATION_FAILED, words));
    }
    check_name(name)?;
    let config = &call.shared.config;
    let state = call.shared.state();
    let topic = state.topics.get(name).ok_or_else(|| unknown_topic(name))?;
    let told = SETTINGS.iter().map(|setting| {
        let default = default_of(setting, config);
        let set = topic.settings.get(setting.name);
        let (value, source) = match set {
            Some(value) => (value.clone(), OF_TOPIC),
            None => (default.clone(), DEFAULT),
        };
        let mut told = entry(setting.name, &value, source, setting.kind);
        if synonyms {
            let synonym = |value: &str, source| {
                let synonym = DescribeConfigsSynonym::default().with_name(str_bytes(setting.name));
                synonym.with_value(Some(str_bytes(value))).with_source(source)
            };
            told.synonyms.extend(set.map(|value| synonym(value, OF_TOPIC)));
            told.synonyms.push(synonym(&default, DEFAULT));
        }
        told
    });
    Ok(told.collect())
}

fn of_broker(call: &Call<'_>, name: &str) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    if !call.may(Right::DescribeConfigs, CLUSTER) {
        let words = "Cluster authorization failed.";
        return Err(Refusal::new(code::CLUSTER_AUTHORIZATION_FAILED, words));
    }
    // Without a name: what is set for all brokers, which is nothing.
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let id = call.broker.id;
    if name.parse() != Ok(id) {
        let words =
            format!("Unexpected broker id, expected {id} or empty string, but received {name}");
        return Err(Refusal::new(code::INVALID_REQUEST, words));
    }
    let config = &call.shared.config;
    let groups = &config.groups;
    let ms = |time: std::time::Duration| time.as_millis().to_string();
    let mut told = vec![
        entry(
            "auto.create.topics.enable",
            &config.auto_create.is_some().to_string(),
            OF_BROKER,
            Kind::Boolean,
        ),
        entry("broker.id", &id.to_string(), OF_BROKER, Kind::Int),
        entry(
            "default.replication.factor",
            &config.default_replication().to_string(),
            OF_BROKER,
            Kind::Int,
        ),
        entry(
            "group.initial.rebalance.delay.ms",
            &ms(groups.initial_rebalance_delay),
            OF_BROKER,
            Kind::Int,
        ),
        entry(
            "group.max.session.timeout.ms",
            &ms(groups.max_session_timeout),
            OF_BROKER,
            Kind::Int,
        ),
        entry("group.max.size", &groups.max_size.to_string(), OF_BROKER, Kind::Int),
        entry(
            "group.min.session.timeout.ms",
            &ms(groups.min_session_timeout),
            OF_BROKER,
            Kind::Int,
        ),
        entry("message.max.bytes", &config.max_message_bytes.to_string(), OF_BROKER, Kind::Int),
        entry("min.insync.replicas", &config.min_insync_replicas.to_string(), OF_BROKER, Kind::Int),
        entry("num.partitions", &config.default_partitions.to_string(), OF_BROKER, Kind::Int),
    ];
    told.iter_mut().for_each(|one| one.read_only = true);
    Ok(told)
}

fn entry(name: &str, value: &str, source: i8, kind: Kind) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult::default()
        .with_name(str_bytes(name))
        .with_value(Some(str_bytes(value)))
        .with_config_source(source)
        .with_config_type(kind as i8)
        .with_documentation(None)
}
