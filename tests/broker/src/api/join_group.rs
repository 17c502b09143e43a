//! JoinGroup: parked until all members have joined.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::groups::Injected;
use super::{ApiKey, Call, Outcome, str_bytes};
use crate::acl::Right;
use crate::error_code as code;
use crate::groups::classic::{Join, Joined};
use crate::groups::{self, CLIENT_HOST};

/// First version with a rebalance timeout of its own.
const REBALANCE_TIMEOUT: i16 = 1;
/// First version that tells the throttle time.
const THROTTLE: i16 = 2;
/// First version whose protocol may be missing.
const NULLABLE_PROTOCOL: i16 = 7;

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: JoinGroupRequest = call.decode(ApiKey::JOIN_GROUP, body)?;
    let injected = match call.of_group(ApiKey::JOIN_GROUP, request.group_id.as_str()).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let mut joined = join(call, &request, injected).await;
    if let Some(error) = injected.after {
        joined = Joined::refused(error, &joined.member_id);
    }
    call.answer(&response(call, joined))
}

async fn join(call: &Call<'_>, request: &JoinGroupRequest, injected: Injected) -> Joined {
    let (id, member_id) = (request.group_id.as_str(), request.member_id.as_str());
    if let Some(error) = call.forbidden(injected, Right::Group, id) {
        return Joined::refused(error, "");
    }
    let parked = {
        let now = Instant::now();
        let mut state = call.shared.state();
        let settings = &state.groups.settings;
        let possible = settings.min_session_timeout..=settings.max_session_timeout;
        let session = millis(request.session_timeout_ms);
        if id.is_empty() {
            return Joined::refused(code::INVALID_GROUP_ID, member_id);
        }
        if request.session_timeout_ms < 0 || !possible.contains(&session) {
            return Joined::refused(code::INVALID_SESSION_TIMEOUT, member_id);
        }
        if let Some(error) = call.misplaced(&state.groups, id, now) {
            return Joined::refused(error, member_id);
        }
        let client_id = call.client_id();
        let instance = request.group_instance_id.as_ref().map(StrBytes::as_str);
        let join = Join {
            member_id,
            instance,
            client_id: &client_id,
            client_host: CLIENT_HOST,
            rebalance_timeout: match call.version {
                REBALANCE_TIMEOUT.. => millis(request.rebalance_timeout_ms),
                _ => session,
            },
            session_timeout: session,
            protocol_type: request.protocol_type.as_str(),
            protocols: protocols(request),
            version: call.version,
            new_id: state.groups.new_member_id(instance.unwrap_or(&client_id)),
        };
        let (groups, image) = state.groups_and_topics();
        groups.join(id, &join, &image, now)
    };
    let answer = groups::wait(call.shared, id, parked).await;
    answer.unwrap_or_else(|| Joined::refused(code::NOT_COORDINATOR, member_id))
}

/// Each once. Copies: a slice would keep the whole request for as long as the member is there.
fn protocols(request: &JoinGroupRequest) -> Vec<(String, Bytes)> {
    let mut protocols: Vec<(String, Bytes)> = Vec::new();
    for one in &request.protocols {
        if !protocols.iter().any(|(name, _)| name == one.name.as_str()) {
            protocols.push((one.name.to_string(), Bytes::copy_from_slice(&one.metadata)));
        }
    }
    protocols
}

fn millis(time: i32) -> Duration {
    Duration::from_millis(u64::try_from(time).unwrap_or(0))
}

fn response(call: &Call<'_>, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(str_bytes(&member.id))
            .with_group_instance_id(member.instance.as_deref().map(str_bytes))
            .with_metadata(member.metadata)
    });
    let protocol = match call.version {
        NULLABLE_PROTOCOL.. => joined.protocol.filter(|name| !name.is_empty()),
        _ => Some(joined.protocol.unwrap_or_default()),
    };
    JoinGroupResponse::default()
        .with_throttle_time_ms(if call.version >= THROTTLE { call.throttle_time_ms() } else { 0 })
        .with_error_code(joined.error)
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.as_deref().map(str_bytes))
        .with_protocol_name(protocol.as_deref().map(str_bytes))
        .with_leader(str_bytes(&joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(str_bytes(&joined.member_id))
        .with_members(members.collect())
}
