//! ListGroups: those that this broker coordinates.

use bytes::Bytes;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::{ApiKey, Call, Outcome, str_bytes};
use crate::acl::Right;

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: ListGroupsRequest = call.decode(ApiKey::LIST_GROUPS, body)?;
    let listed = match call.plan.error_before {
        Some(error) => Err(error),
        None => list(call, &request),
    };
    let listed = call.plan.error_after.map_or(listed, Err);
    let response = ListGroupsResponse::default().with_throttle_time_ms(call.throttle_time_ms());
    call.answer(&match listed {
        Ok(groups) => response.with_groups(groups),
        Err(error) => response.with_error_code(error),
    })
}

fn list(call: &Call<'_>, request: &ListGroupsRequest) -> Result<Vec<ListedGroup>, i16> {
    let now = Instant::now();
    let groups = &mut call.shared.state().groups;
    groups.check_all(call.broker.id, now)?;
    let is_meant = |filter: &[StrBytes], what: &str| {
        filter.is_empty() || filter.iter().any(|one| one.trim().eq_ignore_ascii_case(what))
    };
    let mut listed = Vec::new();
    for id in groups.ids(now) {
        if groups.coordinator(&id) != Some(call.broker.id) || !call.may(Right::DescribeGroup, &id) {
            continue;
        }
        let Some(group) = groups.get(&id, now) else { continue };
        let (kind, protocol_type, state) = group.listed();
        if is_meant(&request.states_filter, state.name()) && is_meant(&request.types_filter, kind) {
            listed.push(
                ListedGroup::default()
                    .with_group_id(GroupId(str_bytes(&id)))
                    .with_protocol_type(str_bytes(protocol_type))
                    .with_group_state(str_bytes(state.name()))
                    .with_group_type(str_bytes(kind)),
            );
        }
    }
    Ok(listed)
}
