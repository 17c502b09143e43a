//! SyncGroup: parked until the leader has brought what it has assigned.

use std::collections::HashMap;

use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::groups::Injected;
use super::{ApiKey, Call, Outcome, str_bytes};
use crate::acl::Right;
use crate::error_code as code;
use crate::groups;
use crate::groups::classic::Synced;

/// First version that has to name type and protocol.
const PROTOCOL: i16 = 5;

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: SyncGroupRequest = call.decode(ApiKey::SYNC_GROUP, body)?;
    let injected = match call.of_group(ApiKey::SYNC_GROUP, request.group_id.as_str()).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let mut synced = sync(call, &request, injected).await;
    if let Some(error) = injected.after {
        synced = Synced::refused(error);
    }
    let response = SyncGroupResponse::default()
        .with_throttle_time_ms(call.throttle_time_ms())
        .with_error_code(synced.error)
        .with_protocol_type(synced.protocol_type.as_deref().map(str_bytes))
        .with_protocol_name(synced.protocol.as_deref().map(str_bytes))
        .with_assignment(synced.assignment);
    call.answer(&response)
}

async fn sync(call: &Call<'_>, request: &SyncGroupRequest, injected: Injected) -> Synced {
    let id = request.group_id.as_str();
    let (kind, name) = (&request.protocol_type, &request.protocol_name);
    if call.version >= PROTOCOL && injected.before.is_none() && (kind.is_none() || name.is_none()) {
        return Synced::refused(code::INCONSISTENT_GROUP_PROTOCOL);
    }
    if let Some(error) = call.forbidden(injected, Right::Group, id) {
        return Synced::refused(error);
    }
    let parked = {
        let now = Instant::now();
        let mut state = call.shared.state();
        if let Some(error) = call.misplaced(&state.groups, id, now) {
            return Synced::refused(error);
        }
        // Copies: a slice would keep the whole request.
        let assignments: HashMap<String, Bytes> = request
            .assignments
            .iter()
            .map(|one| (one.member_id.to_string(), Bytes::copy_from_slice(&one.assignment)))
            .collect();
        let text = |text: &'_ Option<StrBytes>| text.as_ref().map(|text| text.to_string());
        let (instance, kind, name) = (text(&request.group_instance_id), text(kind), text(name));
        state.groups.sync(
            id,
            (request.member_id.as_str(), instance.as_deref()),
            request.generation_id,
            (kind.as_deref(), name.as_deref()),
            assignments,
            now,
        )
    };
    let answer = groups::wait(call.shared, id, parked).await;
    answer.unwrap_or_else(|| Synced::refused(code::NOT_COORDINATOR))
}
