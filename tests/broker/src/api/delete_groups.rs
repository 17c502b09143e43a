//! DeleteGroups: those that nobody is in.

use std::collections::HashSet;

use bytes::Bytes;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use tokio::time::Instant;

use super::groups::Injected;
use super::{ApiKey, Call, Outcome};
use crate::acl::Right;
use crate::error_code as code;

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: DeleteGroupsRequest = call.decode(ApiKey::DELETE_GROUPS, body)?;
    // Each once.
    let mut seen = HashSet::new();
    let named = request.groups_names.iter();
    let ids: Vec<_> = named.filter(|id| seen.insert(id.as_str())).collect();
    let injected = ids.iter().map(|id| id.as_str());
    let injected = match call.of_groups(ApiKey::DELETE_GROUPS, injected).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let results = ids.iter().zip(injected).map(|(id, injected)| {
        let error = injected.after.or(delete(call, id.as_str(), injected).err());
        DeletableGroupResult::default()
            .with_group_id((*id).clone())
            .with_error_code(error.unwrap_or(code::NONE))
    });
    let response = DeleteGroupsResponse::default()
        .with_results(results.collect())
        .with_throttle_time_ms(call.throttle_time_ms());
    call.answer(&response)
}

fn delete(call: &Call<'_>, id: &str, injected: Injected) -> Result<(), i16> {
    if let Some(error) = call.forbidden(injected, Right::DeleteGroup, id) {
        return Err(error);
    }
    let now = Instant::now();
    let groups = &mut call.shared.state().groups;
    groups.check(call.broker.id, id, now)?;
    groups.delete(id, now)
}
