//! Heartbeat: a member is there, and hears whether it has to join again.

use bytes::Bytes;
use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::groups::Injected;
use super::{ApiKey, Call, Outcome};
use crate::acl::Right;
use crate::error_code as code;

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: HeartbeatRequest = call.decode(ApiKey::HEARTBEAT, body)?;
    let injected = match call.of_group(ApiKey::HEARTBEAT, request.group_id.as_str()).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let error = injected.after.or(heartbeat(call, &request, injected).err());
    let response = HeartbeatResponse::default()
        .with_throttle_time_ms(call.throttle_time_ms())
        .with_error_code(error.unwrap_or(code::NONE));
    call.answer(&response)
}

fn heartbeat(call: &Call<'_>, request: &HeartbeatRequest, injected: Injected) -> Result<(), i16> {
    let id = request.group_id.as_str();
    if let Some(error) = call.forbidden(injected, Right::Group, id) {
        return Err(error);
    }
    let now = Instant::now();
    let groups = &mut call.shared.state().groups;
    match call.misplaced(groups, id, now) {
        // Members are not to rejoin because a coordinator is not ready yet.
        Some(code::COORDINATOR_LOAD_IN_PROGRESS) => return Ok(()),
        Some(error) => return Err(error),
        None => {}
    }
    let instance = request.group_instance_id.as_ref().map(StrBytes::as_str);
    groups.heartbeat(id, (request.member_id.as_str(), instance), request.generation_id, now)
}
