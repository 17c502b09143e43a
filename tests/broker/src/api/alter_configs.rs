//! AlterConfigs and IncrementalAlterConfigs: settings of topics.

use bytes::Bytes;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as Told;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as ToldIncremental;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::describe_configs::{CLUSTER, TOPIC};
use super::{ApiKey, Call, Outcome, verdict};
use crate::acl::Right;
use crate::batch::Refusal;
use crate::error_code as code;
use crate::settings::{self, Change};
use crate::state::unknown_topic;

pub(crate) fn replace(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let api = ApiKey::ALTER_CONFIGS;
    let request: AlterConfigsRequest = call.decode(api, body)?;
    let responses = request.resources.iter().map(|resource| {
        let changes = resource.configs.iter();
        let changes: Vec<_> =
            changes.map(|entry| (entry.name.as_str(), set(entry.value.as_ref()))).collect();
        let what = (resource.resource_type, resource.resource_name.as_str());
        let done = alter(call, api, what, &changes, true, request.validate_only);
        let (error_code, message) = verdict(&done);
        Told::default()
            .with_error_code(error_code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
    });
    let response = AlterConfigsResponse::default()
        .with_responses(responses.collect())
        .with_throttle_time_ms(call.throttle_time_ms());
    call.answer(&response)
}

pub(crate) fn incremental(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let api = ApiKey::INCREMENTAL_ALTER_CONFIGS;
    let request: IncrementalAlterConfigsRequest = call.decode(api, body)?;
    let responses = request.resources.iter().map(|resource| {
        let changes: Result<Vec<_>, Refusal> = resource
            .configs
            .iter()
            .map(|entry| {
                let change = operation(entry.config_operation, entry.value.as_ref())?;
                Ok((entry.name.as_str(), change))
            })
            .collect();
        let what = (resource.resource_type, resource.resource_name.as_str());
        let done = changes
            .and_then(|changes| alter(call, api, what, &changes, false, request.validate_only));
        let (error_code, message) = verdict(&done);
        ToldIncremental::default()
            .with_error_code(error_code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
    });
    let response = IncrementalAlterConfigsResponse::default()
        .with_responses(responses.collect())
        .with_throttle_time_ms(call.throttle_time_ms());
    call.answer(&response)
}

fn set(value: Option<&StrBytes>) -> Change<'_> {
    value.map_or(Change::Delete, |value| Change::Set(value.as_str()))
}

fn operation(number: i8, value: Option<&StrBytes>) -> Result<Change<'_>, Refusal> {
    let invalid = |words: String| Refusal::new(code::INVALID_REQUEST, words);
    let value = value.map(StrBytes::as_str);
    let told = || value.ok_or_else(|| invalid("Null value not supported".to_owned()));
    match number {
        0 => told().map(Change::Set),
        1 => Ok(Change::Delete),
        2 => told().map(Change::Append),
        3 => told().map(Change::Subtract),
        _ => Err(invalid(format!("Unknown operation {number}"))),
    }
}

/// Changes settings, all of them or none. `anew`: what is not named has its default again.
fn alter(
    call: &Call<'_>,
    api: ApiKey,
    (kind, name): (i8, &str),
    changes: &[(&str, Change<'_>)],
    anew: bool,
    validate_only: bool,
) -> Result<(), Refusal> {
    let topic_name = if kind == TOPIC { name } else { "" };
    let (before, after) = call.injected(api, topic_name, -1);
    let scripted = |error| Err(Refusal::new(error, "by fault script"));
    if let Some(error) = before {
        return scripted(error);
    }
    if kind != TOPIC {
        if !call.may(Right::AlterConfigs, CLUSTER) {
            let words = "Cluster authorization failed.";
            return Err(Refusal::new(code::CLUSTER_AUTHORIZATION_FAILED, words));
        }
        let words = "only settings of topics can be altered here";
        return Err(Refusal::new(code::INVALID_REQUEST, words));
    }
    if !call.may(Right::AlterConfigs, name) {
        let words = "Topic authorization failed.";
        return Err(Refusal::new(code::TOPIC_AUTHORIZATION_FAILED, words));
    }
    let config = &call.shared.config;
    let mut state = call.shared.state();
    let topic = state.topics.get_mut(name).ok_or_else(|| unknown_topic(name))?;
    let mut new = if anew { settings::Overrides::new() } else { topic.settings.clone() };
    for (name, change) in changes {
        settings::change(&mut new, config, name, *change)?;
    }
    if !validate_only {
        settings::apply(&new, config, &mut topic.rules);
        topic.settings = new;
    }
    after.map_or(Ok(()), scripted)
}
