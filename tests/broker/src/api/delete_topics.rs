//! DeleteTopics, by name and by id.

use bytes::Bytes;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use uuid::Uuid;

use super::{ApiKey, Call, Outcome, topic_name, verdict};
use crate::acl::Right;
use crate::batch::Refusal;
use crate::error_code as code;

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: DeleteTopicsRequest = call.decode(ApiKey::DELETE_TOPICS, body)?;
    let wanted: Vec<(Option<TopicName>, Uuid)> = if call.version >= 6 {
        request.topics.into_iter().map(|topic| (topic.name, topic.topic_id)).collect()
    } else {
        request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil())).collect()
    };
    let mut results = Vec::new();
    for (name, id) in wanted {
        let mut state = call.shared.state();
        let found = match &name {
            Some(name) => Some(name.as_str().to_owned()),
            None => state.name_of(id).map(str::to_owned),
        };
        let (before, after) =
            call.injected(ApiKey::DELETE_TOPICS, found.as_deref().unwrap_or(""), -1);
        let allowed = found.as_deref().is_none_or(|name| call.may(Right::Delete, name));
        // Who may not see a topic is not told the name that an id stands for.
        let seen =
            found.as_deref().filter(|topic| name.is_some() || call.may(Right::Describe, topic));
        let told = seen.map(topic_name);
        let deleted = match (&found, before) {
            (_, Some(error)) => Err(Refusal::new(error, "by fault script")),
            _ if !allowed => {
                let words = "Topic authorization failed.";
                Err(Refusal::new(code::TOPIC_AUTHORIZATION_FAILED, words))
            }
            (Some(name), None) => state.delete_topic(name),
            (None, None) => Err(Refusal::new(code::UNKNOWN_TOPIC_ID, "no topic has this id")),
        };
        let deleted = match after {
            Some(error) => Err(Refusal::new(error, "by fault script")),
            None => deleted,
        };
        let (error_code, message) = verdict(&deleted);
        let mut result =
            DeletableTopicResult::default().with_name(told).with_error_code(error_code);
        if call.version >= 6 {
            result.topic_id = deleted.unwrap_or(id);
        }
        if call.version >= 5 {
            result.error_message = message;
        }
        results.push(result);
    }
    let response = DeleteTopicsResponse::default()
        .with_throttle_time_ms(call.throttle_time_ms())
        .with_responses(results);
    call.answer(&response)
}
