//! LeaveGroup: one member, or several (KIP-345).

use bytes::Bytes;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::groups::Injected;
use super::{ApiKey, Call, Outcome};
use crate::acl::Right;
use crate::error_code as code;
use crate::groups::classic::Leaving;

/// First version that names several members.
const BATCHED: i16 = 3;

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: LeaveGroupRequest = call.decode(ApiKey::LEAVE_GROUP, body)?;
    let injected = match call.of_group(ApiKey::LEAVE_GROUP, request.group_id.as_str()).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let instance = |instance: &'_ Option<StrBytes>| instance.as_ref().map(|one| one.to_string());
    let members: Vec<(StrBytes, Option<String>)> = match call.version {
        ..BATCHED => vec![(request.member_id.clone(), None)],
        _ => {
            let members = request.members.iter();
            members.map(|one| (one.member_id.clone(), instance(&one.group_instance_id))).collect()
        }
    };
    let left = leave(call, request.group_id.as_str(), &members, injected);
    let left = injected.after.map_or(left, Err);
    let mut response = LeaveGroupResponse::default().with_throttle_time_ms(call.throttle_time_ms());
    match left {
        Err(error) => response.error_code = error,
        Ok(outcomes) if call.version >= BATCHED => {
            let told = members.iter().zip(outcomes).map(|((id, instance), outcome)| {
                MemberResponse::default()
                    .with_member_id(id.clone())
                    .with_group_instance_id(instance.as_deref().map(super::str_bytes))
                    .with_error_code(outcome.err().unwrap_or(code::NONE))
            });
            response.members = told.collect();
        }
        Ok(outcomes) => {
            let wrong = outcomes.into_iter().find_map(Result::err);
            response.error_code = wrong.unwrap_or(code::NONE);
        }
    }
    call.answer(&response)
}

fn leave(
    call: &Call<'_>,
    id: &str,
    members: &[(StrBytes, Option<String>)],
    injected: Injected,
) -> Result<Vec<Result<(), i16>>, i16> {
    if let Some(error) = call.forbidden(injected, Right::Group, id) {
        return Err(error);
    }
    let now = Instant::now();
    let groups = &mut call.shared.state().groups;
    if let Some(error) = call.misplaced(groups, id, now) {
        return Err(error);
    }
    let leaving = members.iter();
    let leaving: Vec<_> = leaving
        .map(|(id, instance)| Leaving { member_id: id.as_str(), instance: instance.as_deref() })
        .collect();
    Ok(groups.leave(id, &leaving, now))
}
