//! FindCoordinator: this broker coordinates no groups, and says so in a way clients retry quietly.

use bytes::Bytes;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};

use super::{ApiKey, Call, Outcome, str_bytes};
use crate::error_code as code;

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: FindCoordinatorRequest = call.decode(ApiKey::FIND_COORDINATOR, body)?;
    let error = call.plan.error_before.or(call.plan.error_after);
    let error = error.unwrap_or(code::COORDINATOR_NOT_AVAILABLE);
    let message = Some(str_bytes("this broker coordinates no groups or transactions"));
    let mut response = FindCoordinatorResponse::default();
    if call.version >= 1 {
        response.throttle_time_ms = call.throttle_time_ms();
    }
    if call.version >= 4 {
        response.coordinators = request
            .coordinator_keys
            .into_iter()
            .map(|key| {
                Coordinator::default()
                    .with_key(key)
                    .with_node_id(BrokerId(-1))
                    .with_port(-1)
                    .with_error_code(error)
                    .with_error_message(message.clone())
            })
            .collect();
    } else {
        response = response.with_node_id(BrokerId(-1)).with_port(-1).with_error_code(error);
        if call.version >= 1 {
            response.error_message = message;
        }
    }
    call.answer(&response)
}
